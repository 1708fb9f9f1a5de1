"""Targets of latency: means and percentiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from inferno_milp.queueing.arrays import FloatArray, IntArray
from inferno_milp.queueing.law import Solution
from inferno_milp.queueing.parameters import Layout, Number
from inferno_milp.queueing.percentiles import read_percent

Target = Number | Mapping[str, Number] | None
"""A number (the mean), or numbers by `mean`, `p50` … `p99.9`, ms; None, NaN or infinity is no target."""


STRICTER = 1e-9
"""By how much less than it may a limit is exceeded: a probability may stay at its level over a range of times, and
then rounding decides at which end of it the percentile lies."""


@dataclass(frozen=True, slots=True)
class LatencyTarget:
    """A target of one latency, its mean or a percentile.

    Attributes
    ----------
    latency : "ttft_ms" or "itl_ms".
    percent : None for the mean.
    limit_ms : the target; infinity where there is none.
    """

    latency: str
    percent: float | None
    limit_ms: FloatArray

    def sorted(self, layout: Layout) -> LatencyTarget:
        """Lay out the limits."""
        return LatencyTarget(self.latency, self.percent, layout.sorted(self.limit_ms))

    def used(self, solution: Solution, index: IntArray) -> FloatArray:
        """Return how much of the target is used, at most 1 where it is met; `index` are the solution's engines."""
        limit = self.limit_ms[index]
        if self.percent is None:
            return np.asarray(getattr(solution, self.latency) / limit)
        used = np.zeros(index.size)
        some = np.flatnonzero(np.isfinite(limit))
        if some.size:
            part = solution if some.size == index.size else solution.take(some)
            exceeds = part.ttft_exceeds if self.latency == "ttft_ms" else part.itl_exceeds
            level = (1 - self.percent / 100) * (1 - STRICTER)
            used[some] = exceeds(limit[some]) / level
        return used


def read_targets(ttft_ms: Target, itl_ms: Target) -> list[LatencyTarget]:
    """Take targets apart.

    Raises
    ------
    ValueError
        For a target that is not greater than 0, or is neither a mean nor a percentile from p50 to p99.9.
    """
    targets = []
    for latency, given in (("ttft_ms", ttft_ms), ("itl_ms", itl_ms)):
        by_name = given if isinstance(given, Mapping) else {"mean": given}
        for name, value in by_name.items():
            percent = None if name == "mean" else read_percent(name)
            if name != "mean" and percent is None:
                raise ValueError(f"{latency} is given for {name!r}, which is neither mean nor p50 to p99.9")
            targets.append(LatencyTarget(latency, percent, read_limit(latency, value)))
    return targets


def read_limit(name: str, value: Number | None) -> FloatArray:
    """Return a target as an array, infinity where there is none; ValueError unless it is greater than 0."""
    limit = np.asarray(np.inf if value is None else value, dtype=float)
    limit = np.where(np.isnan(limit), np.inf, limit)
    if (limit <= 0).any():
        raise ValueError(f"{name} must be greater than 0")
    return limit
