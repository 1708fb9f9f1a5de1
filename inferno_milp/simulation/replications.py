"""Independent replications of a simulation, made longer until their confidence intervals are narrow and can be trusted.

Every replication starts empty. MSER-5 finds the initial transient, which is left out, as are the last requests, whose
outputs end when no more requests come. Intervals are from replication to replication, which are independent, so that
autocorrelation within one does not make them too narrow. What would is a replication hardly longer than the time that
the engine takes to forget a long queue: then means of its batches are correlated, and longer ones are simulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inferno_milp.simulation.engine import FloatArray, Trace
from inferno_milp.simulation.statistics import PRECISION, Estimate

RUNS = 16
"""Independent replications."""
FIRST_REQUESTS = 10_000
"""Requests of all replications, at first."""
BATCHES = 16
"""Batches of requests in each replication, whose means show whether it is long enough."""
CORRELATED, MOST_CORRELATED = 0.2, 0.35
"""Replications are long enough if the correlation of batches that follow one another is at most this: in pilots, and,
since it scatters, in those that follow the pilots."""
ENTANGLED = 0.6
"""Above this, replications are not even as long as it takes to leave the initial transient."""
MSER_BATCH = 5
"""Requests that MSER-5 takes together."""
MOST_AT_START, MOST_AT_END = 0.5, 0.25
"""Shares of a replication that may be left out; more shows that it is too short."""
TOO_SHORT_GROWTH = 3.0
"""By what the number of requests grows where replications are too short."""
LEAST_GROWTH, MOST_GROWTH, SAFETY = 2.0, 8.0, 1.5
"""Where intervals are too wide it grows by the square of how much too wide, times `SAFETY`, within these limits."""
SHORT = 3.0
"""Confidence intervals of replications that are too short count as so many times as wide."""
NOISE = 1e-9
"""Relative differences of means that are smaller are those of floating-point numbers."""

Play = Callable[[float, float], Trace]
"""Simulate requests that are drawn; times between tokens are counted between the two times, ms."""
Draw = Callable[[np.random.Generator, int], Play]
"""Draw a number of requests for one replication."""


@dataclass(frozen=True, slots=True)
class Replications:
    """Replications of one simulation.

    Attributes
    ----------
    traces : of each replication.
    kept : requests of each that count.
    widening : by what their intervals must be widened to be trusted: 1 where they are long enough, `SHORT` where they
        are too short, infinite where they have not even left the initial transient.
    """

    traces: tuple[Trace, ...]
    kept: slice
    widening: float

    @property
    def are_long(self) -> bool:
        """Whether they are so long that their intervals can be trusted as they are."""
        return self.widening == 1

    @property
    def requests(self) -> int:
        """Requests that count, of all replications."""
        return sum(len(trace.ttft_ms[self.kept]) for trace in self.traces)


def replicate(
    draw: Draw, rng: np.random.Generator, *, most: int, estimates: Callable[[Replications], Sequence[Estimate]]
) -> Replications:
    """Simulate replications that are long enough for trustworthy and precise estimates, if `most` requests are.

    Parameters
    ----------
    draw : draws requests.
    rng : of the random numbers.
    most : requests to simulate in all.
    estimates : those that must be precise; NaN values are not waited for.

    Notes
    -----
    Longer and longer pilots find the length. What is returned is simulated afterwards, independently: replications
    that are accepted for their narrow intervals are those that happen to have met no long queue, and their intervals
    hold the truth too rarely.
    """
    count, left = FIRST_REQUESTS, most
    while count <= left // 2:
        pilot = _replicate_once(draw, rng, count, is_pilot=True)
        left -= count
        width = max((e.relative_width for e in estimates(pilot) if not math.isnan(e.value)), default=0.0)
        if pilot.are_long and width <= PRECISION:
            return _replicate_once(draw, rng, count)
        growth = TOO_SHORT_GROWTH
        if pilot.are_long:
            growth = min(max(SAFETY * (width / PRECISION) ** 2, LEAST_GROWTH), MOST_GROWTH)
        count = math.ceil(count * growth) if math.isfinite(growth) else left
    return _replicate_once(draw, rng, left)


def _replicate_once(draw: Draw, rng: np.random.Generator, requests: int, *, is_pilot: bool = False) -> Replications:
    """Simulate replications of so many requests in all; the times between tokens of pilots are those from the start."""
    plays = [draw(stream, max(requests // RUNS, 1)) for stream in rng.spawn(RUNS)]
    traces = [play(0.0, math.inf) for play in plays]
    count = min(len(trace.arrival_ms) for trace in traces)
    start = max(find_warm_up([of(trace) for trace in traces]) for of in (_ttft_ms, _itl_ms))
    stop = min(_before_the_end(trace) for trace in traces)
    most_start, least_stop = int(MOST_AT_START * count), count - int(MOST_AT_END * count)
    kept = slice(min(start, most_start), max(stop, least_stop))
    if not is_pilot:  # only now is it known from when on
        traces = [
            play(float(trace.arrival_ms[kept.start]), float(trace.arrival_ms[-1]))
            for play, trace in zip(plays, traces, strict=True)
        ]
    correlations = [batch_correlation([of(trace)[kept] for trace in traces]) for of in (_ttft_ms, _itl_ms)]
    longest = CORRELATED if is_pilot else MOST_CORRELATED
    is_short = stop < least_stop or max(correlations) > longest
    widening = math.inf if start > most_start or max(correlations) > ENTANGLED else SHORT if is_short else 1.0
    return Replications(tuple(traces), kept, widening)


def _ttft_ms(trace: Trace) -> FloatArray:
    return trace.ttft_ms


def _itl_ms(trace: Trace) -> FloatArray:
    return trace.itl_ms


def _before_the_end(trace: Trace) -> int:
    """Return how many requests make nearly all of their tokens before arrivals end, and others with them."""
    decoding_ms = trace.end_to_end_ms - trace.ttft_ms
    if np.isnan(decoding_ms).all():
        return len(decoding_ms)
    longest_ms = float(np.nanpercentile(decoding_ms, 99))
    return int(np.searchsorted(trace.arrival_ms, trace.arrival_ms[-1] - longest_ms, side="right"))


def find_warm_up(runs: Sequence[FloatArray]) -> int:
    """Return how many values at the start of each run belong to the initial transient, by MSER-5.

    Parameters
    ----------
    runs : a value per request, of independent runs; NaN values are left out.

    Returns
    -------
    int
        Values to leave out: those without which the mean of the rest has the least standard error, had they been
        independent; more than half of them if the runs are too short to tell.

    Notes
    -----
    K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69 (1997);
    here on the mean over all runs, which is less noisy.
    """
    shortest = min(len(run) for run in runs)
    values = np.array([run[:shortest] for run in runs])
    whole = values.shape[1] // MSER_BATCH
    batches = values[:, : whole * MSER_BATCH].reshape(len(values), whole, MSER_BATCH)
    counts = (~np.isnan(batches)).sum(axis=(0, 2))
    there = np.flatnonzero(counts)
    if len(there) < 2:
        return 0
    means = np.nansum(batches, axis=(0, 2))[there] / counts[there]
    if np.ptp(means) <= NOISE * np.abs(means).max():
        return 0
    means = (means - means.mean())[::-1]
    left = np.arange(1, len(means) + 1)
    squares = np.cumsum(means**2) - np.cumsum(means) ** 2 / left
    # The last few batches have, by chance, hardly any variance.
    score = np.maximum(squares, 0.0)[len(means) // 10 :] / left[len(means) // 10 :].astype(float) ** 2
    kept = len(means) - int(np.argmin(score[::-1]))
    return int(there[len(means) - kept]) * MSER_BATCH


def batch_correlation(runs: Sequence[FloatArray]) -> float:
    """Return the correlation of the means of batches that follow one another within runs; NaN values are left out.

    Notes
    -----
    One minus half of von Neumann's ratio, but for the ends of runs.
    """
    batches = [np.array_split(run, BATCHES) for run in runs]
    means = np.array([[_mean(batch) for batch in of_run] for of_run in batches])
    there = means[~np.isnan(means)]
    if not there.size or np.ptp(there) <= NOISE * np.abs(there).max():
        return 0.0
    off = means - there.mean()
    products, squares = off[:, 1:] * off[:, :-1], off**2
    if np.isnan(products).all():
        return 0.0
    return float(np.nanmean(products) / np.nanmean(squares))


def _mean(values: FloatArray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else math.nan
