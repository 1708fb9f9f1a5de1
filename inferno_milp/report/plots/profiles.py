"""Fits and streams of observations, in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from inferno_milp.report.plots.style import BLUE, GREY, PALETTE, RED, legend, tidy

if TYPE_CHECKING:
    from inferno_milp.profiles.fitting import Fit
    from inferno_milp.profiles.fitting.tracking import Tracker


def plot_fit(fit: Fit, axes: Sequence[Axes]) -> None:
    """Draw predicted over measured against what was measured: TTFT on the first axes, ITL on the second.

    Runs of one shape have one colour; runs that do not count are hollow.
    """
    runs = fit.runs
    pairs = (("time to first token", runs.ttft_ms, fit.ttft_ms, runs.counts_ttft),
             ("inter-token latency", runs.itl_ms, fit.itl_ms, runs.counts_itl))  # fmt: skip
    for ax, (words, measured, predicted, counts) in zip(axes, pairs, strict=True):
        for shape in np.unique(runs.shapes):
            mine = runs.shapes == shape
            colour = PALETTE[shape % len(PALETTE)]
            first = np.flatnonzero(mine)[0]
            label = f"{runs.input_tokens[first]:.0f} / {runs.output_tokens[first]:.0f}"
            some, others = mine & counts, mine & ~counts
            off = predicted / measured - 1
            ax.plot(measured[some], off[some], "o", color=colour, markersize=4, label=label)
            ax.plot(measured[others], off[others], "o", color=colour, markersize=4, fillstyle="none", alpha=0.6)
        ax.axhline(0, color=GREY, linewidth=1)
        ax.set_xscale("log")
        ax.set_ylim(-0.6, 0.6)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
        ax.set(xlabel=f"{words} measured, ms", ylabel="predicted, off by")
        tidy(ax, grid="both")
    if len(np.unique(runs.shapes)) <= len(PALETTE):
        legend(axes[-1], outside=True)


def plot_tracking(tracker: Tracker, axes: Sequence[Axes]) -> None:
    """Draw the errors of both latencies, observation by observation, before each was taken in."""
    errors = {"time to first token": [step.ttft_error for step in tracker.steps],
              "inter-token latency": [step.itl_error for step in tracker.steps]}  # fmt: skip
    for ax, (words, values) in zip(axes, errors.items(), strict=True):
        ax.plot(np.arange(1, len(values) + 1), values, color=BLUE, marker=".", linewidth=1)
        ax.axhline(0, color=RED, linewidth=1)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
        ax.set(xlabel="observation", ylabel=f"{words}, off by")
        tidy(ax, grid="both")
