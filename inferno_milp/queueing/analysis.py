"""`analyze`: the latencies, throughput and occupancy of engines at given arrival rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Unpack

import numpy as np
from scipy.optimize import elementwise

from inferno_milp.queueing.arrays import BoolArray, FloatArray, IntArray
from inferno_milp.queueing.continuous import ContinuousEngines
from inferno_milp.queueing.inferno import InfernoEngines
from inferno_milp.queueing.law import Engines, Solution
from inferno_milp.queueing.parameters import EngineParameters, Layout, Number, read_parameters
from inferno_milp.queueing.percentiles import read_percent

LAWS: dict[str, Callable[[dict[str, FloatArray]], Engines]] = {
    "continuous-batching": ContinuousEngines.make,
    "inferno": InfernoEngines.make,
}
"""The laws that `analyze` and `size` know, by name."""
DEFAULT_LAW = "continuous-batching"

MS_PER_S = 1000.0


@dataclass(frozen=True, slots=True)
class _Origin:
    """The solution behind an analysis, and how its order becomes the caller's."""

    solution: Solution
    layout: Layout


@dataclass(frozen=True, slots=True)
class Analysis:
    """Figures of engines at an arrival rate; every array has the shape of the broadcast parameters.

    Attributes
    ----------
    rate_per_s : arrival rate, requests/s.
    ttft_ms : mean time to first token, wait in the queue included, ms.
    itl_ms : mean inter-token latency, ms.
    wait_ms : mean wait in the queue of an accepted arrival, ms.
    throughput_per_s : rate of accepted requests, 1/s.
    running : mean number of requests in the batch (time average).
    utilization : `running` as a fraction of the max batch size.
    blocking : probability that an arrival is turned away because the queue is full.
    p_wait, p_empty : probability that an accepted arrival has to wait, or finds the engine empty.
    max_batch : max batch size N, after what the KV cache holds.
    """

    rate_per_s: FloatArray
    ttft_ms: FloatArray
    itl_ms: FloatArray
    wait_ms: FloatArray
    throughput_per_s: FloatArray
    running: FloatArray
    utilization: FloatArray
    blocking: FloatArray
    p_wait: FloatArray
    p_empty: FloatArray
    max_batch: IntArray
    _origin: _Origin = field(repr=False, compare=False)

    def wait_percentile(self, percent: float | Sequence[float]) -> FloatArray:
        """Percentile of the wait of an accepted arrival, ms; with law `inferno` exact for its chain.

        Parameters
        ----------
        percent : within [0, 100); of several, which are found together, the result has one more axis, the first.

        Raises
        ------
        ValueError
            If `percent` is outside [0, 100).
        """
        solution = self._origin.solution
        return self._percentile(percent, solution.wait_ms, lambda some, time_ms: some.wait_exceeds(time_ms))

    def ttft_percentile(self, percent: float | Sequence[float]) -> FloatArray:
        """Percentile of the time to first token of an accepted arrival, ms; `percent` as in `wait_percentile`.

        The law `inferno` has no spread in the prompt's own time, so there all spread is in the wait.
        """
        solution = self._origin.solution
        return self._percentile(percent, solution.ttft_ms, lambda some, time_ms: some.ttft_exceeds(time_ms))

    def itl_percentile(self, percent: float | Sequence[float]) -> FloatArray:
        """Percentile of the time between two tokens, over all tokens, ms; `percent` as in `wait_percentile`.

        The law `inferno` knows no spread of it.
        """
        solution = self._origin.solution
        return self._percentile(percent, solution.itl_ms, lambda some, time_ms: some.itl_exceeds(time_ms))

    def statistic(self, latency: str, name: str) -> FloatArray:
        """Return a latency as it may be promised.

        Parameters
        ----------
        latency : "ttft_ms" or "itl_ms".
        name : "mean", or a percentile from "p50" to "p99.9".
        """
        percent = read_percent(name)
        if percent is None:
            return self.ttft_ms if latency == "ttft_ms" else self.itl_ms
        return self.ttft_percentile(percent) if latency == "ttft_ms" else self.itl_percentile(percent)

    def _percentile(
        self,
        percent: float | Sequence[float],
        mean_ms: FloatArray,
        exceeds: Callable[[Solution, FloatArray], FloatArray],
    ) -> FloatArray:
        percents = np.asarray(percent, dtype=float)
        if not ((percents >= 0) & (percents < 100)).all():
            raise ValueError(f"percent must be within [0, 100), not {percent}")
        found = _quantiles(self._origin.solution, mean_ms, exceeds, 1 - np.atleast_1d(percents) / 100)
        restored = [np.asarray(self._origin.layout.restored(row), dtype=float) for row in found]
        return np.stack(restored) if percents.ndim else restored[0]


def analyze(law: str = DEFAULT_LAW, *, rate_per_s: Number, **engine: Unpack[EngineParameters]) -> Analysis:
    """Analyse inference engines at given arrival rates.

    Parameters
    ----------
    law : name of the law, one of `LAWS`.
    rate_per_s : arrival rate, requests/s, ≥ 0. It may exceed what the engine can serve: some are turned away.
    **engine : `alpha_ms`, `beta_ms`, `gamma_ms`, `delta_ms`, `input_tokens`, `output_tokens`, `max_batch`, and
        optionally `max_queue=None` (10 · N), `kappa_ms=0`, `overhead_ms=0`, `prefill_quadratic_ms=0`,
        `lag_iterations=0`, `cv2_input=0`, `cv2_output=1`, `cv2_arrival=1`, `token_budget=8192`, `kv_tokens=None`,
        `max_blocking=0.01`: see `EngineParameters`. All broadcast against one another, and against the rate.

    Returns
    -------
    Analysis

    Raises
    ------
    TypeError
        If a parameter is missing or not known.
    ValueError
        If a parameter is not finite, is out of range, or the law is not known; or if a request does not fit into
        the KV cache.

    Notes
    -----
    Sources: `inferno` is the state-dependent queue M/M(n)/1/N+Q of llm-inferno/optimizer v0.6.0 (queue-analysis
    v0.1.0); `continuous-batching` is derived and measured in docs/queueing.md.

    Examples
    --------
    >>> import inferno_milp as im
    >>> engine = {"alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02, "max_batch": 64}
    >>> found = im.analyze(rate_per_s=2.0, input_tokens=512, output_tokens=128, **engine)
    >>> f"TTFT {float(found.ttft_ms):.1f} ms, ITL {float(found.itl_ms):.2f} ms"
    'TTFT 24.4 ms, ITL 8.53 ms'
    """
    rate = np.asarray(rate_per_s, dtype=float) / MS_PER_S
    if not (np.isfinite(rate) & (rate >= 0)).all():
        raise ValueError("rate_per_s must be finite and at least 0")
    engines, layout = make_engines(law, engine, rate)
    if not engines.fits.all():
        raise ValueError("kv_tokens cannot hold one request of input_tokens and output_tokens, or too many of them")
    return analyze_engines(engines, layout.sorted(rate), layout)


def make_engines(law: str, engine: EngineParameters, *others: FloatArray) -> tuple[Engines, Layout]:
    """Make engines of a law, sorted by falling max batch size; raise as `analyze` does."""
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; known: {', '.join(LAWS)}")
    parameters, shape = read_parameters(engine, *others)
    engines = LAWS[law](parameters)
    order = np.argsort(-engines.max_batch, kind="stable")
    return engines.take(order), Layout(order, shape)


def analyze_engines(engines: Engines, rate: FloatArray, layout: Layout) -> Analysis:
    """Analyse sorted engines at `rate` (requests/ms) and put the figures back into the caller's order and shape."""
    solution = engines.solve(rate)
    figures = {
        "rate_per_s": rate * MS_PER_S,
        "ttft_ms": solution.ttft_ms,
        "itl_ms": solution.itl_ms,
        "wait_ms": solution.wait_ms,
        "throughput_per_s": solution.throughput_per_ms * MS_PER_S,
        "running": solution.running,
        "utilization": solution.running / engines.max_batch,
        "blocking": solution.blocking,
        "p_wait": solution.p_wait,
        "p_empty": solution.p_empty,
    }
    restored = {name: np.asarray(layout.restored(values), dtype=float) for name, values in figures.items()}
    batch = np.asarray(layout.restored(engines.max_batch), dtype=np.int64)
    return Analysis(**restored, max_batch=batch, _origin=_Origin(solution, layout))


def _quantiles(
    solution: Solution, mean_ms: FloatArray, exceeds: Callable[[Solution, FloatArray], FloatArray], levels: FloatArray
) -> FloatArray:
    """Smallest t with P(time > t) ≤ level, in ms, levels × engines; all are found together."""
    result = np.zeros((len(levels), *mean_ms.shape))
    result[:] = np.where(_is_mean(solution, mean_ms, exceeds), mean_ms, 0.0)
    # Engines by rising position, as solutions are sorted; each once for every level that it is late for.
    late, which = np.nonzero(((result == 0) & (exceeds(solution, np.zeros_like(mean_ms)) > levels[:, None])).T)
    if not late.size:
        return result
    level, some = levels[which], solution.take(late)
    upper = 10 * mean_ms[late] / level  # Markov's inequality, and room: a tail's mean is not exactly the law's

    def excess(time_ms: FloatArray, index: IntArray) -> FloatArray:
        return exceeds(some.take(index), time_ms) - level[index]

    found = elementwise.find_root(
        excess,
        (upper * 1e-300, upper * (1 + 1e-9)),
        args=(np.arange(late.size),),
        tolerances={"xatol": 0, "xrtol": 1e-14, "fatol": 0, "frtol": 0},
    )
    # A time may have a probability of its own: the end of the bracket where it is no longer exceeded is the quantile.
    (left, right), (at_left, _) = found.bracket, found.f_bracket
    result[which, late] = np.where(found.f_x <= 0, found.x, np.where(at_left <= 0, left, right))
    return result


def _is_mean(
    solution: Solution, mean_ms: FloatArray, exceeds: Callable[[Solution, FloatArray], FloatArray]
) -> BoolArray:
    """Whether a time is always its mean, as the time between tokens with law `inferno` is."""
    return (exceeds(solution, mean_ms) <= 0) & (exceeds(solution, mean_ms * (1 - 1e-13)) >= 1)
