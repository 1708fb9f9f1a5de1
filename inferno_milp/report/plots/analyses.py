"""One engine's queueing analysis, and a plan's simulation, in pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes

from inferno_milp.problem.fields import Targets
from inferno_milp.report.plots.style import BLUE, GREY, RED, legend, own_axes, tidy

if TYPE_CHECKING:
    from inferno_milp.queueing import Analysis
    from inferno_milp.studies.one_engine import EngineAnalysis
    from inferno_milp.studies.simulate import PlanSimulation

BEYOND = 3.0
"""Multiple of the loosest target that a curve is drawn to."""
WORDS = {"ttft_ms": "time to first token, ms", "itl_ms": "inter-token latency, ms"}


def plot_analysis(
    analysis: Analysis,
    latency: Literal["ttft_ms", "itl_ms"] = "ttft_ms",
    *,
    targets: Targets | None = None,
    max_rate_per_s: float | None = None,
    rate_per_s: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a latency of one engine against its arrival rate: the mean and the 95th percentile.

    Parameters
    ----------
    analysis : at several rates, of shape (rates,).
    targets : drawn as lines.
    max_rate_per_s : the highest rate that keeps them, drawn as a line as well.
    rate_per_s : a rate that is marked, such as that of today.
    """
    ax = own_axes(ax)
    order = np.argsort(analysis.rate_per_s)
    rates = analysis.rate_per_s[order]
    p95 = (analysis.ttft_percentile(95) if latency == "ttft_ms" else analysis.itl_percentile(95))[order]
    mean = (analysis.ttft_ms if latency == "ttft_ms" else analysis.itl_ms)[order]
    ax.plot(rates, mean, color=BLUE, label="mean")
    ax.plot(rates, p95, color=BLUE, linestyle="--", label="95th percentile")
    limits = [promise for promise in (targets.limits_ms() if targets is not None else ()) if promise[0] == latency]
    for _, statistic, limit in limits:
        ax.axhline(limit, color=RED, linewidth=1, label=f"target, {statistic}")
    if max_rate_per_s is not None and np.isfinite(max_rate_per_s):
        ax.axvline(max_rate_per_s, color=GREY, linewidth=1, linestyle=":", label="highest rate")
    if rate_per_s is not None:
        ax.plot([rate_per_s], [np.interp(rate_per_s, rates, mean)], "o", color=BLUE, label="in the plan")
    ax.set(xlabel="arrival rate, requests/s", ylabel=WORDS[latency])
    ax.set_ylim(bottom=0)
    if limits:
        # Beyond full load there is nothing to see but the wall; but where no rate keeps the target, see by how much.
        most = max(BEYOND * max(limit for *_, limit in limits), BEYOND * float(mean.min(initial=0.0)))
        if p95.max(initial=0.0) > most:
            ax.set_ylim(top=most)
    tidy(ax, grid="both")
    legend(ax)
    return ax


def plot_engine(found: EngineAnalysis, axes: Sequence[Axes]) -> None:
    """Draw both latencies of an engine against the rate, each on axes of its own."""
    curve = found.curve()
    for latency, ax in zip(("ttft_ms", "itl_ms"), axes, strict=True):
        plot_analysis(curve, latency, targets=found.question.targets, max_rate_per_s=found.max_rate_per_s, ax=ax)  # type: ignore[arg-type]


def plot_batch_rates(
    batches: Sequence[Mapping[str, Any]], *, batch_size: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the highest rate under the targets against the max batch size.

    Parameters
    ----------
    batches : `batch_size` and `max_rate_per_s` (requests/s; None: any) of each.
    batch_size : one that is marked.
    """
    ax = own_axes(ax)
    known = [(batch["batch_size"], batch["max_rate_per_s"]) for batch in batches if batch["max_rate_per_s"] is not None]
    ax.plot([n for n, _ in known], [rate for _, rate in known], color=BLUE, marker="o", markersize=3)
    if known and not any(rate for _, rate in known):
        ax.text(0.5, 0.5, "no max batch size keeps the targets", transform=ax.transAxes, ha="center", color=RED)
    if batch_size is not None:
        ax.axvline(batch_size, color=GREY, linewidth=1, linestyle=":", label="here")
    ax.set(xlabel="max batch size", ylabel="highest rate of a replica, requests/s")
    ax.set_ylim(bottom=0)
    tidy(ax, grid="both")
    legend(ax)
    return ax


def plot_simulation(simulation: PlanSimulation, figure: str = "ttft_ms", *, ax: Axes | None = None) -> Axes:
    """Draw what a plan predicts against what the simulation finds, an allocation a point, with its uncertainty.

    Parameters
    ----------
    figure : `ttft_ms`, `ttft_p95_ms`, `ttft_p99_ms`, `itl_ms` or `itl_p95_ms`.
    """
    ax = own_axes(ax, width=4.5, height=4.2)
    points = [a.figure(figure) for a in simulation.allocations]
    points = [point for point in points if point.predicted is not None]
    predicted = [float(point.predicted or 0.0) for point in points]
    simulated = [point.simulated.value for point in points]
    widths = [point.simulated.half_width for point in points]
    ax.errorbar(predicted, simulated, yerr=widths, fmt="o", markersize=4, color=BLUE, elinewidth=1)
    if points:
        low, high = min(*predicted, *simulated), max(*predicted, *simulated)
        ax.plot([low, high], [low, high], color=GREY, linewidth=1)
        if low > 0:
            ax.set(xscale="log", yscale="log")
    ax.set(xlabel=f"{figure} predicted", ylabel=f"{figure} simulated")
    tidy(ax, grid="both")
    return ax
