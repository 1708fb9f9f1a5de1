"""What is predicted beside what a simulation finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from inferno_milp.problem.fields import Targets
from inferno_milp.queueing.percentiles import read_percent
from inferno_milp.simulation.engine import gap_percentile
from inferno_milp.simulation.replications import Replications
from inferno_milp.simulation.statistics import (
    WIDEST,
    Estimate,
    estimate_mean,
    estimate_of_runs,
    estimate_percentile,
)

OFF = 0.15
"""A prediction is told as off if it is further than this, relatively, from the simulation's confidence interval."""

FIGURES = ("ttft_ms", "ttft_p95_ms", "ttft_p99_ms", "itl_ms", "itl_p95_ms")
"""Latencies that are always found."""

Verdict = Literal["met", "near", "missed"]
"""`near`: the target lies within the confidence interval, or seems met by simulations that are too short to tell."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure as the plan predicts it, and as the simulation finds it.

    Attributes
    ----------
    figure : `ttft_ms`, `ttft_p95_ms`, …
    predicted : what the plan says; None where it says nothing.
    simulated : what the simulation finds.
    limit : the target, if it is promised: ms, or the share that may be turned away.
    widening : by what the interval must be widened to be trusted; 1 where the simulations were long enough.
    """

    figure: str
    predicted: float | None
    simulated: Estimate
    limit: float | None
    widening: float

    @property
    def verdict(self) -> Verdict | None:
        """Whether the target is kept; None if there is none. Where no request was served it is not.

        Simulations start empty, so those that are too short show latencies that are too low: a target that they miss
        is missed; one that they meet is met if it is so by the widened interval.
        """
        if self.limit is None:
            return None
        if math.isnan(self.simulated.value):
            return "missed"
        if self.simulated.low > self.limit:
            return "missed"
        return "met" if self.simulated.value + self.margin <= self.limit else "near"

    @property
    def margin(self) -> float:
        """Half the width of the interval that can be trusted; infinite where none can."""
        return self.widening * self.simulated.margin if math.isfinite(self.widening) else math.inf

    @property
    def is_off(self) -> bool:
        """Whether the prediction is further from the simulation than its uncertainty and `OFF` allow."""
        if self.predicted is None or not math.isfinite(self.simulated.value):
            return False
        return abs(self.predicted - self.simulated.value) > self.margin + OFF * self.simulated.value

    @property
    def has_converged(self) -> bool:
        """Whether the interval is narrow and can be trusted; also where there is nothing to estimate from."""
        value = self.simulated.value
        return math.isnan(value) or self.margin <= WIDEST * abs(value)

    @property
    def is_open(self) -> bool:
        """Whether this is a latency that is predicted, and the simulation can neither confirm nor contradict that."""
        return self.figure.endswith("_ms") and self.predicted is not None and not (self.has_converged or self.is_off)

    def to_record(self) -> dict[str, Any]:
        """Return the figures by name; NaN where there are none."""
        return {
            "figure": self.figure,
            "predicted": self.predicted,
            "simulated": self.simulated.value,
            "half_width": math.nan if math.isnan(self.simulated.half_width) else self.margin,
            "limit": self.limit,
            "verdict": self.verdict,
            "is_off": self.is_off,
            "has_converged": self.has_converged,
        }

    def to_document(self) -> dict[str, Any]:
        """Return the same for JSON, which has no NaN: None where there are no figures."""
        record = self.to_record()
        return {**record, **{name: _number(record[name]) for name in ("simulated", "half_width")}}


def missed(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Return those whose targets the simulation misses."""
    return tuple(c for c in comparisons if c.verdict == "missed")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def latency_comparisons(found: Replications, predicted: Mapping[str, float], targets: Targets) -> Iterator[Comparison]:
    """Yield latencies, each with what is predicted and the target."""
    traces, kept = found.traces, found.kept
    limits = {figure_name(latency, statistic): limit for latency, statistic, limit in targets.limits_ms()}
    ttft = [trace.ttft_ms[kept] for trace in traces]
    gaps = sum((trace.gaps for trace in traces), np.zeros_like(traces[0].gaps))
    for name in sorted({*FIGURES, *limits}, key=lambda name: (not name.startswith("ttft"), len(name), name)):
        latency, _, rest = name.removesuffix("_ms").partition("_")
        percent = read_percent(rest)
        if latency == "ttft":
            estimate = estimate_mean(ttft) if percent is None else estimate_percentile(ttft, percent)
        elif percent is None:
            tokens = [(trace.output_tokens[kept] - 1).astype(float) for trace in traces]
            estimate = estimate_mean([trace.itl_ms[kept] for trace in traces], tokens)
        else:
            of_runs = [gap_percentile(trace.gaps, percent) for trace in traces]
            estimate = estimate_of_runs(of_runs, gap_percentile(gaps, percent))
        yield Comparison(name, predicted.get(name), estimate, limits.get(name), found.widening)


def blocking_comparison(found: Replications, max_blocking: float | None) -> Comparison:
    """Return the share of requests that are turned away, with what may be."""
    turned_away = [np.isnan(trace.ttft_ms[found.kept]).astype(float) for trace in found.traces]
    return Comparison("blocking", None, estimate_mean(turned_away), max_blocking, found.widening)


def figure_name(latency: str, statistic: str) -> str:
    """Return what a promised latency is called: `ttft_p95_ms`."""
    return latency if statistic == "mean" else f"{latency.removesuffix('_ms')}_{statistic}_ms"
