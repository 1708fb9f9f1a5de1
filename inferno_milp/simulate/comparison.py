"""What is predicted beside what a simulation finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from inferno_milp.fields import Targets
from inferno_milp.percentiles import read_percent
from inferno_milp.simulate.engine import Trace, gap_percentile
from inferno_milp.simulate.statistics import Estimate, estimate_mean, estimate_of_runs, estimate_percentile

OFF = 0.15
"""A prediction is told as off if it is further than this, relatively, from the simulation's confidence interval."""

FIGURES = ("ttft_ms", "ttft_p95_ms", "ttft_p99_ms", "itl_ms", "itl_p95_ms")
"""Latencies that are always found."""

Verdict = Literal["met", "near", "missed"]
"""`near`: the target lies within the confidence interval."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure as the plan predicts it, and as the simulation finds it.

    Attributes
    ----------
    figure : `ttft_ms`, `ttft_p95_ms`, …
    predicted : what the plan says; None where it says nothing.
    simulated : what the simulation finds.
    limit : the target, if it is promised: ms, or the share that may be turned away.
    """

    figure: str
    predicted: float | None
    simulated: Estimate
    limit: float | None

    @property
    def verdict(self) -> Verdict | None:
        """Whether the target is kept; None if there is none. Where nobody was served it is not."""
        if self.limit is None:
            return None
        if math.isnan(self.simulated.value):
            return "missed"
        if self.simulated.high <= self.limit:
            return "met"
        return "missed" if self.simulated.low > self.limit else "near"

    @property
    def is_off(self) -> bool:
        """Whether the prediction is further from the simulation than its uncertainty and `OFF` allow."""
        if self.predicted is None or not math.isfinite(self.simulated.value):
            return False
        return abs(self.predicted - self.simulated.value) > self.simulated.margin + OFF * self.simulated.value

    def to_record(self) -> dict[str, Any]:
        """Return the figures by name; NaN where there are none."""
        return {
            "figure": self.figure,
            "predicted": self.predicted,
            "simulated": self.simulated.value,
            "half_width": self.simulated.half_width,
            "limit": self.limit,
            "verdict": self.verdict,
            "is_off": self.is_off,
        }

    def to_document(self) -> dict[str, Any]:
        """Return the same for JSON, which has no NaN: None where there are no figures."""
        simulated = {"simulated": _number(self.simulated.value), "half_width": _number(self.simulated.half_width)}
        return {**self.to_record(), **simulated}


def missed(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """Return those whose targets the simulation misses."""
    return tuple(c for c in comparisons if c.verdict == "missed")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def latency_comparisons(
    traces: Sequence[Trace], kept: slice, predicted: Mapping[str, float], targets: Targets
) -> Iterator[Comparison]:
    """Compare latencies with those predicted, and with the targets.

    Parameters
    ----------
    kept : requests of each run that count.
    """
    limits = {figure_name(latency, statistic): limit for latency, statistic, limit in targets.limits_ms()}
    ttft = [trace.ttft_ms[kept] for trace in traces]
    gaps = sum((trace.gaps for trace in traces), np.zeros_like(traces[0].gaps))
    for name in sorted({*FIGURES, *limits}, key=lambda name: (not name.startswith("ttft"), len(name), name)):
        latency, _, rest = name.removesuffix("_ms").partition("_")
        percent = read_percent(rest)
        if latency == "ttft":
            found = estimate_mean(ttft) if percent is None else estimate_percentile(ttft, percent)
        elif percent is None:
            tokens = [(trace.output_tokens[kept] - 1).astype(float) for trace in traces]
            found = estimate_mean([trace.itl_ms[kept] for trace in traces], tokens)
        else:
            of_runs = [gap_percentile(trace.gaps, percent) for trace in traces]
            found = estimate_of_runs(of_runs, gap_percentile(gaps, percent))
        yield Comparison(name, predicted.get(name), found, limits.get(name))


def blocking_comparison(traces: Sequence[Trace], kept: slice, max_blocking: float | None) -> Comparison:
    """Compare the share of requests that are turned away with what may be; `kept` as above."""
    turned_away = [np.isnan(trace.ttft_ms[kept]).astype(float) for trace in traces]
    return Comparison("blocking", None, estimate_mean(turned_away), max_blocking)


def figure_name(latency: str, statistic: str) -> str:
    """Return what a promised latency is called: `ttft_p95_ms`."""
    return latency if statistic == "mean" else f"{latency.removesuffix('_ms')}_{statistic}_ms"
