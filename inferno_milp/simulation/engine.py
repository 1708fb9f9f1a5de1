"""One replica over given requests, or over those of a number of clients: what goes in, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from inferno_milp.simulation.kernel import GAP_BINS, GAP_STEP, LEAST_GAP_MS, UNLIMITED, play

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

QUEUE_PER_BATCH = 10
"""Queue limit by default, as a multiple of the max batch size."""
TOKEN_BUDGET = 8192
"""Tokens of an iteration, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One inference engine with continuous batching, chunked prefill and a KV cache.

    An iteration with B decoding sequences, prompt chunks of P tokens in all and C tokens of context takes
    (α, or max(α, γ) if P > 0) + β·B + δ·P + κ·C ms; a prompt of I tokens takes q·I² more, spread over its chunks.

    Attributes
    ----------
    alpha_ms, beta_ms, gamma_ms, delta_ms, kappa_ms : α, β, γ, δ, κ, ms.
    prefill_quadratic_ms : q, ms per squared prompt token.
    overhead_ms : time outside the engine, added to the time to first token, ms.
    lag_iterations : decode iterations by which tokens come out late, for a request that finds the engine at work.
    max_batch : N, sequences that run at once.
    max_queue : Q, further requests in the system before arrivals are turned away; None is 10·N.
    token_budget : M, tokens in an iteration: one for each decoding sequence, the rest for prompts, at least one.
    kv_tokens : tokens that the KV cache holds; None is no limit.
    """

    alpha_ms: float
    beta_ms: float
    gamma_ms: float
    delta_ms: float
    kappa_ms: float = 0.0
    prefill_quadratic_ms: float = 0.0
    overhead_ms: float = 0.0
    lag_iterations: float = 0.0
    max_batch: int
    max_queue: int | None = None
    token_budget: int = TOKEN_BUDGET
    kv_tokens: int | None = None

    @property
    def places(self) -> int:
        """Requests that the engine and its queue hold, N + Q."""
        queue = QUEUE_PER_BATCH * self.max_batch if self.max_queue is None else self.max_queue
        return int(self.max_batch + queue)

    def __post_init__(self) -> None:
        times = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "kappa_ms", "prefill_quadratic_ms", "overhead_ms")
        faults = [
            f"{name} must be finite and at least 0"
            for name in (*times, "lag_iterations")
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0)
        ]
        least = {"max_batch": 1, "max_queue": 0, "token_budget": 1, "kv_tokens": 1}
        for name, value in ((name, getattr(self, name)) for name in least):
            if value is not None and (value != int(value) or value < least[name]):
                faults.append(f"{name} must be whole and at least {least[name]}")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened to every request, one element each, in the order of arrival.

    Attributes
    ----------
    arrival_ms : when it came.
    ttft_ms : time from arrival to first token; NaN where turned away.
    end_to_end_ms : time from arrival to last token; NaN where turned away.
    output_tokens : tokens asked for.
    preemptions : how often it lost its place and its KV cache.
    gaps : times between tokens, counted while measured, in bins (see `gap_percentile`); those of whole
        leaps are counted as their mean, and preempted sequences' as if they had gone on.
    running : mean sequences in the batch while measured, at most to the last arrival (one figure).
    """

    arrival_ms: FloatArray
    ttft_ms: FloatArray
    end_to_end_ms: FloatArray
    output_tokens: IntArray
    preemptions: IntArray
    gaps: FloatArray
    running: float

    @property
    def served(self) -> npt.NDArray[np.bool_]:
        """Which requests were served."""
        return ~np.isnan(self.ttft_ms)

    @property
    def itl_ms(self) -> FloatArray:
        """Mean inter-token latency of each request, ms; NaN where turned away or with a single token."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return np.asarray((self.end_to_end_ms - self.ttft_ms) / gaps)


def run(
    engine: Engine,
    arrival_ms: npt.ArrayLike,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    *,
    cached_tokens: npt.ArrayLike = 0,
    measured_from_ms: float = 0.0,
    measured_until_ms: float = math.inf,
    compiled: bool | None = None,
) -> Trace:
    """Run an engine over given requests, until the last one has its last token.

    Parameters
    ----------
    arrival_ms : times of arrival in rising order, ms; shape (requests,).
    input_tokens, output_tokens : tokens of each request; whole, inputs ≥ 0, outputs ≥ 1; shape (requests,).
    cached_tokens : tokens of each prompt whose KV cache comes with the request, computed elsewhere: fewer than all, at
        least one is computed here; one number, or of shape (requests,).
    measured_from_ms, measured_until_ms : when counting times between tokens, and running sequences, begins and ends.
    compiled : whether to run compiled by numba; None is if numba is installed.

    Raises
    ------
    ValueError
        If the arrays do not fit together, arrivals fall, or tokens are out of range.

    Notes
    -----
    First come, first served. In every iteration each decoding sequence makes one token; what the token budget leaves
    goes to the prompt begun and then to waiting requests, cut into chunks. Where the KV cache is full, the sequence
    admitted last gives up its place and goes to the front of the queue; all it had computed is computed again.
    Requests too long for the whole cache are turned away, as are those that find N + Q others in the system.
    """
    arrivals = np.asarray(arrival_ms, dtype=float)
    inputs, outputs = (np.asarray(tokens).astype(np.int64) for tokens in (input_tokens, output_tokens))
    if not arrivals.ndim == 1 or not arrivals.shape == inputs.shape == outputs.shape:
        raise ValueError("arrival_ms, input_tokens and output_tokens must be one-dimensional and of one length")
    if arrivals.size and not (np.isfinite(arrivals).all() and (np.diff(arrivals) >= 0).all()):
        raise ValueError("arrival_ms must be finite and must not fall")
    if (inputs < 0).any() or (outputs < 1).any():
        raise ValueError("input_tokens must be at least 0, output_tokens at least 1")
    cached = np.broadcast_to(np.asarray(cached_tokens, dtype=np.int64), arrivals.shape).copy()
    if (cached < 0).any() or ((cached >= inputs) & (cached > 0)).any():
        raise ValueError("cached_tokens must be at least 0, and fewer than input_tokens")
    measured_ms = (measured_from_ms, measured_until_ms)
    return _run_kernel(engine, arrivals, inputs, outputs, cached, measured_ms, compiled, 0, np.zeros(1))


def run_clients(
    engine: Engine,
    clients: int,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    think_ms: npt.ArrayLike,
    *,
    measured_from_ms: float = 0.0,
    compiled: bool | None = None,
) -> Trace:
    """Run an engine for a number of clients, each of whom sends the next request some time after the last token.

    Parameters
    ----------
    clients : how many; they come one after the other, `think_ms` apart.
    input_tokens, output_tokens, think_ms : of each request, in the order in which they are sent; shape (requests,).
    measured_from_ms, compiled : as for `run`.

    Raises
    ------
    ValueError
        If the arrays do not fit together or are out of range, or there are more clients than requests, or than
        places in the engine and its queue.
    """
    inputs, outputs = (np.asarray(tokens).astype(np.int64) for tokens in (input_tokens, output_tokens))
    think = np.asarray(think_ms, dtype=float)
    if not inputs.ndim == 1 or not inputs.shape == outputs.shape == think.shape:
        raise ValueError("input_tokens, output_tokens and think_ms must be one-dimensional and of one length")
    if (inputs < 1).any() or (outputs < 1).any() or not (np.isfinite(think) & (think >= 0)).all():
        raise ValueError("input_tokens and output_tokens must be at least 1, think_ms finite and at least 0")
    if not 1 <= clients <= min(engine.places, inputs.size):
        raise ValueError(f"clients must be from 1 to {min(engine.places, inputs.size)}")
    arrivals = np.full(inputs.size, np.inf)
    arrivals[:clients] = np.cumsum(think[:clients])
    none = np.zeros_like(inputs)
    measured_ms = (measured_from_ms, math.inf)
    return _run_kernel(engine, arrivals, inputs, outputs, none, measured_ms, compiled, clients, think)


def _run_kernel(
    engine: Engine,
    arrivals: FloatArray,
    inputs: IntArray,
    outputs: IntArray,
    cached: IntArray,
    measured_ms: tuple[float, float],
    compiled: bool | None,
    clients: int,
    think: FloatArray,
) -> Trace:
    kernel = _compiled() if compiled is not False else None
    if compiled and kernel is None:
        raise ValueError("numba is not installed: pip install 'inferno-milp[fast]'")
    arrivals = arrivals.copy()
    first, last = np.full(arrivals.size, np.nan), np.full(arrivals.size, np.nan)
    preemptions = np.zeros(arrivals.size, dtype=np.int64)
    parameters = (
        float(engine.alpha_ms),
        float(engine.beta_ms),
        float(max(engine.alpha_ms, engine.gamma_ms)),
        float(engine.delta_ms),
        float(engine.kappa_ms),
        float(engine.prefill_quadratic_ms),
        float(engine.overhead_ms),
        float(engine.lag_iterations),
        int(engine.max_batch),
        engine.places,
        int(engine.token_budget),
        int(UNLIMITED if engine.kv_tokens is None else engine.kv_tokens),
        float(measured_ms[0]),
        float(measured_ms[1]),
    )
    gaps = np.zeros(GAP_BINS)
    if kernel is not None:
        queue = np.zeros_like(outputs)
        given = arrivals, inputs, outputs, cached
        running = kernel(*parameters, *given, first, last, preemptions, gaps, queue, clients, think)
    else:
        lists = first.tolist(), last.tolist(), preemptions.tolist(), gaps.tolist(), [0] * arrivals.size
        times = arrivals.tolist()
        given_lists = times, inputs.tolist(), outputs.tolist(), cached.tolist()
        running = play(*parameters, *given_lists, *lists, clients, think.tolist())
        arrivals = np.array(times)
        first, last, gaps = np.array(lists[0]), np.array(lists[1]), np.array(lists[3])
        preemptions = np.array(lists[2], dtype=np.int64)
    return Trace(arrivals, first - arrivals, last - arrivals, outputs, preemptions, gaps, running)


def gap_percentile(gaps: FloatArray, percent: float) -> float:
    """Percentile of the times between tokens that were counted, ms, to 1 %; NaN if there are none."""
    total = np.cumsum(gaps)
    if total[-1] == 0:
        return math.nan
    position = int(np.searchsorted(total, percent / 100 * total[-1]))
    return LEAST_GAP_MS * math.exp((position + 0.5) * GAP_STEP)


@cache
def _compiled() -> Callable[..., float] | None:
    try:
        from numba import njit
    except ImportError:
        return None
    compiled: Callable[..., float]
    try:
        compiled = njit(cache=True)(play)
    except RuntimeError:  # no folder to keep the compiled code in
        compiled = njit(play)
    return compiled
