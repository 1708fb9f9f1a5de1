"""Parameters of inference engines: what they are, their defaults, and how they are checked and laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from inferno_milp.queueing.arrays import FloatArray

Number = npt.ArrayLike

QUEUE_PER_BATCH = 10
"""Queue limit by default, as a multiple of the max batch size (llm-inferno/optimizer v0.6.0)."""


class EngineParameters(TypedDict, total=False):
    """Keyword arguments that describe engines; all broadcast against one another as NumPy arrays do.

    The first seven are required. Law `inferno` takes no notice of those after `max_queue` but for `kappa_ms`, and
    `cv2_output`, which it needs to fold κ in.
    """

    alpha_ms: Number
    """α: iteration time of decoding, base, ms."""
    beta_ms: Number
    """β: slope per decoding sequence, ms."""
    gamma_ms: Number
    """γ: base of an iteration that holds prompt work, ms."""
    delta_ms: Number
    """δ: slope per prompt token, ms."""
    input_tokens: Number
    """I: mean prompt tokens per request, ≥ 0."""
    output_tokens: Number
    """K: mean output tokens per request, ≥ 1."""
    max_batch: Number
    """N: max batch size, whole, ≥ 1."""
    max_queue: Number | None
    """Q: queue limit, whole, ≥ 0; None or NaN is 10·N."""
    kappa_ms: Number
    """κ: slope per context token read, ms; 0 by default."""
    overhead_ms: Number
    """Time outside the engine, added to the time to first token, ms; 0 by default."""
    prefill_quadratic_ms: Number
    """q: a prompt of I tokens takes q·I² longer, ms; 0 by default."""
    lag_iterations: Number
    """Decode iterations by which tokens come out late for who finds the engine at work; 0 by default."""
    cv2_input: Number
    """Squared coefficient of variation of the prompt lengths; 0 (all alike) by default."""
    cv2_output: Number
    """Squared coefficient of variation of the output lengths; 1 (geometric) by default."""
    cov_lengths: Number
    """Relative covariance of prompt and output lengths, E[IK]/(E[I]·E[K]) − 1, ≥ −1; 0 (independent) by default."""
    cv2_arrival: Number
    """Squared coefficient of variation of the times between arrivals: 0 is a constant pace, 1 (the default) Poisson,
    more is bursty."""
    token_budget: Number
    """M: tokens of an iteration, whole, ≥ 1; 8192 by default."""
    kv_tokens: Number | None
    """Tokens that the KV cache holds; None or NaN (the default) is no limit."""
    max_blocking: Number
    """Highest admissible probability that an arrival is turned away, within (0, 1); 0.01 by default."""


class _Rule(NamedTuple):
    least: float
    default: float | None
    whole: bool = False


_RULES = {
    "alpha_ms": _Rule(0, None),
    "beta_ms": _Rule(0, None),
    "gamma_ms": _Rule(0, None),
    "delta_ms": _Rule(0, None),
    "input_tokens": _Rule(0, None),
    "output_tokens": _Rule(1, None),
    "max_batch": _Rule(1, None, whole=True),
    "max_queue": _Rule(0, np.nan, whole=True),
    "kappa_ms": _Rule(0, 0.0),
    "overhead_ms": _Rule(0, 0.0),
    "prefill_quadratic_ms": _Rule(0, 0.0),
    "lag_iterations": _Rule(0, 0.0),
    "cv2_input": _Rule(0, 0.0),
    "cv2_output": _Rule(0, 1.0),
    "cov_lengths": _Rule(-1, 0.0),
    "cv2_arrival": _Rule(0, 1.0),
    "token_budget": _Rule(1, 8192.0, whole=True),
    "kv_tokens": _Rule(1, np.nan),
    "max_blocking": _Rule(0, 0.01),
}
_NAN_IS_NONE = ("max_queue", "kv_tokens")


@dataclass(frozen=True, slots=True)
class Layout:
    """How sorted one-dimensional arrays become the caller's.

    Attributes
    ----------
    order : positions in the caller's (flattened) arrays, in the sorted order.
    shape : the broadcast shape.
    """

    order: npt.NDArray[np.intp]
    shape: tuple[int, ...]

    def sorted(self, values: FloatArray) -> FloatArray:
        """Broadcast the caller's values, flatten and sort them."""
        return np.asarray(np.broadcast_to(values, self.shape).ravel()[self.order])

    def restored(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Put sorted values back into the caller's order and shape."""
        result = np.empty_like(values)
        result[self.order] = values
        return result.reshape(self.shape)


def read_parameters(engine: EngineParameters, *others: FloatArray) -> tuple[dict[str, FloatArray], tuple[int, ...]]:
    """Check parameters, fill in defaults, and broadcast them together (with `others`).

    Returns
    -------
    dict
        One flat array per parameter, one element per engine.
    tuple
        The broadcast shape.

    Raises
    ------
    TypeError
        For a parameter that is missing or not known.
    ValueError
        Naming every parameter that is not finite, too small, not whole, or out of range.
    """
    unknown = [name for name in engine if name not in _RULES]
    missing = [name for name, rule in _RULES.items() if rule.default is None and name not in engine]
    if unknown or missing:
        kinds = (("unknown", unknown), ("missing", missing))
        raise TypeError("; ".join(f"{kind} parameter {name!r}" for kind, names in kinds for name in names))
    arrays: dict[str, FloatArray] = {}
    for name, rule in _RULES.items():
        value = engine.get(name)
        arrays[name] = np.asarray(rule.default if value is None else value, dtype=float)
    limit = arrays["max_queue"]
    arrays["max_queue"] = np.where(np.isnan(limit), QUEUE_PER_BATCH * arrays["max_batch"], limit)
    faults = [fault for name, values in arrays.items() for fault in _faults(name, values)]
    if faults:
        raise ValueError("; ".join(faults))
    shape = np.broadcast_shapes(*(array.shape for array in (*arrays.values(), *others)))
    return {name: np.broadcast_to(array, shape).ravel() for name, array in arrays.items()}, shape


def _faults(name: str, values: FloatArray) -> list[str]:
    rule = _RULES[name]
    given = values[~np.isnan(values)] if name in _NAN_IS_NONE else values
    if name == "max_blocking":
        inside = (given > 0) & (given < 1)
        return [] if inside.all() else ["max_blocking must be within (0, 1)"]
    faults = []
    if not (np.isfinite(given) & (given >= rule.least)).all():
        faults.append(f"{name} must be finite and at least {rule.least:g}")
    finite = given[np.isfinite(given)]
    if rule.whole and (finite != np.floor(finite)).any():
        faults.append(f"{name} must be whole")
    return faults


def mean_context_tokens(
    *, input_tokens: Number, output_tokens: Number, cv2_output: Number, cov_lengths: Number = 0.0
) -> FloatArray:
    """Return the mean tokens in the KV cache of a decoding sequence."""
    given = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cv2_output": cv2_output,
        "cov_lengths": cov_lengths,
    }
    return mean_context({name: np.asarray(value, dtype=float) for name, value in given.items()})


def mean_context(parameters: dict[str, FloatArray]) -> FloatArray:
    """Mean tokens in the KV cache of a decoding sequence, I(1 + c_IK) + K(1 + c²_K)/2.

    Long outputs decode for longer: their prompts, c_IK longer than the mean, are those that one finds there.
    """
    inputs = parameters["input_tokens"] * (1 + parameters["cov_lengths"])
    return np.asarray(inputs + parameters["output_tokens"] * (1 + parameters["cv2_output"]) / 2)
