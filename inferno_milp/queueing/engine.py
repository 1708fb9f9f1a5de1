"""The law `inferno`: what one engine's batch costs in time, and the latencies that follow from the chain."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from inferno_milp.queueing.chain import Chain, FloatArray, IntArray, solve_chain

Number = npt.ArrayLike

QUEUE_PER_BATCH = 10
"""Queue limit by default, as a multiple of the max batch size (llm-inferno/optimizer v0.6.0)."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Parameters of many engines as one-dimensional arrays, sorted by falling max batch size.

    The law `inferno` (llm-inferno/optimizer v0.6.0): a batch of n serves a request in
    S(n) = (γ + δ·I·n)·[I > 0] + (K − 1)(α + β·n), so S is `base_ms + slope_ms · n`.
    """

    alpha_ms: FloatArray
    beta_ms: FloatArray
    gamma_ms: FloatArray
    prompt_ms: FloatArray  # δ·I, time of one whole prompt
    base_ms: FloatArray
    slope_ms: FloatArray
    max_batch: IntArray
    max_queue: FloatArray

    def take(self, which: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Engines:
        """Return the chosen engines, in the order chosen."""
        return Engines(*(getattr(self, field.name)[which] for field in fields(self)))

    @property
    def size(self) -> int:
        """Number of engines."""
        return self.max_batch.size

    @property
    def lightest_rate(self) -> FloatArray:
        """μ(1) in requests/ms; infinite where a request takes no time."""
        with np.errstate(divide="ignore"):
            return 1 / (self.base_ms + self.slope_ms)

    @property
    def full_rate(self) -> FloatArray:
        """μ(N) in requests/ms; infinite where a request takes no time."""
        with np.errstate(divide="ignore"):
            return self.max_batch / (self.base_ms + self.max_batch * self.slope_ms)

    def chain(self, rate: FloatArray, *, with_empty: bool = True) -> Chain:
        """Solve the chain at the given arrival rates (requests/ms); `with_empty` as in `solve_chain`."""
        base, slope = rate * self.base_ms, rate * self.slope_ms

        def fill_load(n: int, out: FloatArray) -> None:
            """Write ρ_n = λ·(base + slope·n)/n."""
            np.multiply(base[: out.size], 1 / n, out=out)
            out += slope[: out.size]

        return solve_chain(rate, self.full_rate, fill_load, self.max_batch, self.max_queue, with_empty=with_empty)

    def latencies_ms(self, chain: Chain) -> tuple[FloatArray, FloatArray]:
        """Mean time to first token and inter-token latency, from the wait and the batch n that is joined.

        They are W + γ + δ·I·n (only the wait where there is no prompt), and α + β·n.
        """
        batch = chain.batch
        return chain.wait_ms + self.gamma_ms + self.prompt_ms * batch, self.alpha_ms + self.beta_ms * batch


def make_engines(
    *,
    alpha_ms: Number,
    beta_ms: Number,
    gamma_ms: Number,
    delta_ms: Number,
    kappa_ms: Number,
    input_tokens: Number,
    output_tokens: Number,
    max_batch: Number,
    max_queue: Number | None,
    others: tuple[FloatArray, ...] = (),
) -> tuple[Engines, npt.NDArray[np.intp], tuple[int, ...]]:
    """Check the parameters, broadcast them together (with `others`) and sort by falling max batch size.

    Returns
    -------
    The engines, the order they were sorted by, and the broadcast shape.

    Raises
    ------
    ValueError
        Naming every parameter that is not finite, negative, or below its least value.
    """
    queue = np.asarray(np.nan if max_queue is None else max_queue, dtype=float)
    max_queue = np.where(np.isnan(queue), QUEUE_PER_BATCH * np.asarray(max_batch, dtype=float), queue)
    named = {
        "alpha_ms": (alpha_ms, 0),
        "beta_ms": (beta_ms, 0),
        "gamma_ms": (gamma_ms, 0),
        "delta_ms": (delta_ms, 0),
        "kappa_ms": (kappa_ms, 0),
        "input_tokens": (input_tokens, 0),
        "output_tokens": (output_tokens, 1),
        "max_batch": (max_batch, 1),
        "max_queue": (max_queue, 0),
    }
    arrays = {name: np.asarray(value, dtype=float) for name, (value, _) in named.items()}
    faults = [
        f"{name} must be finite and at least {least}"
        for name, (_, least) in named.items()
        if not (np.isfinite(arrays[name]) & (arrays[name] >= least)).all()
    ]
    faults += [
        f"{name} must be whole"
        for name in ("max_batch", "max_queue")
        if (np.isfinite(arrays[name]) & (arrays[name] != np.floor(arrays[name]))).any()
    ]
    if faults:
        raise ValueError("; ".join(faults))
    shape = np.broadcast_shapes(*(array.shape for array in (*arrays.values(), *others)))
    order = np.argsort(-np.broadcast_to(arrays["max_batch"], shape).ravel(), kind="stable")
    flat = {name: np.broadcast_to(array, shape).ravel()[order] for name, array in arrays.items()}
    return _engines_of(**flat), order, shape


def _engines_of(
    *,
    alpha_ms: FloatArray,
    beta_ms: FloatArray,
    gamma_ms: FloatArray,
    delta_ms: FloatArray,
    kappa_ms: FloatArray,
    input_tokens: FloatArray,
    output_tokens: FloatArray,
    max_batch: FloatArray,
    max_queue: FloatArray,
) -> Engines:
    """Fold κ into the slopes (mean context of a decoding sequence: I + K for geometric outputs) and lay out S(n)."""
    beta_ms = beta_ms + kappa_ms * (input_tokens + output_tokens)
    delta_ms = delta_ms + kappa_ms
    gamma_ms = np.where(input_tokens > 0, gamma_ms, 0.0)
    prompt_ms = delta_ms * input_tokens
    return Engines(
        alpha_ms=alpha_ms,
        beta_ms=beta_ms,
        gamma_ms=gamma_ms,
        prompt_ms=prompt_ms,
        base_ms=gamma_ms + (output_tokens - 1) * alpha_ms,
        slope_ms=prompt_ms + (output_tokens - 1) * beta_ms,
        max_batch=max_batch.astype(np.int64),
        max_queue=max_queue,
    )
