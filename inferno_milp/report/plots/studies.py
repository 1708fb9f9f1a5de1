"""Explanations, prices, sweeps and frontiers in pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from inferno_milp.plan import SERVING_ALL
from inferno_milp.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    RED,
    colours,
    legend,
    number,
    own_axes,
    plain,
    slanted,
    tidy,
)
from inferno_milp.studies.explanation import PARTS, Explanation
from inferno_milp.studies.prices import Prices
from inferno_milp.studies.sweeps import MEASURED, Against
from inferno_milp.studies.whatif import Worth

if TYPE_CHECKING:
    import pandas as pd

MOST_TARGETS = 12
Y_WORDS = {"total_cost_per_hour": "cost per hour", "power_w": "power, W", "replicas": "replicas",
           "ttft_p95_ms": "highest p95 of the time to first token, ms"}  # fmt: skip
MEASURES = {
    "load": "factor on every load",
    "power": "power, kW",
    "ttft-p95": "highest p95 of the time to first token, ms",
}


def plot_cost_parts(explanation: Explanation, *, ax: Axes | None = None) -> Axes:
    """Draw what the cost of a plan is the sum of, part upon part."""
    ax = own_axes(ax, height=3.2)
    shown = [(name, explanation.parts[name]) for name in PARTS if explanation.parts[name]]
    below = 0.0
    names = []
    for i, (name, value) in enumerate(shown):
        ax.bar(i, value, bottom=below, color=RED if name == "limits" else BLUE, width=0.65)
        ax.text(i, below + max(value, 0.0), number(value), ha="center", va="bottom", fontsize=8)
        below += value
        names.append(PARTS[name].replace(", ", ",\n"))
    ax.bar(len(shown), below, color=GREY, width=0.65)
    ax.text(len(shown), below, number(below), ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(shown) + 1), [*names, "total"], fontsize=8)
    ax.set_ylabel(plain(f"cost, {explanation.plan.currency}/h"))
    ax.margins(y=0.12)
    tidy(ax)
    return ax


def plot_device_prices(prices: Prices, *, ax: Axes | None = None) -> Axes:
    """Draw what one more and one fewer device of each type would save and cost."""
    devices = [p for p in prices.devices if p.matters or p.dual_per_hour]
    ax = own_axes(ax, height=3.2)
    x = np.arange(len(devices))
    series = {
        "one more saves": ([p.one_more.saves_per_hour or 0.0 for p in devices], GREEN),
        "one fewer costs": ([_lost(p.one_fewer) for p in devices], RED),
        "dual of the relaxation": ([p.dual_per_hour or 0.0 for p in devices], GREY),
    }
    for i, (name, (heights, colour)) in enumerate(series.items()):
        ax.bar(x + (i - 1) * 0.26, heights, 0.25, color=colour, label=name)
        for place, height in zip(x.tolist(), heights, strict=True):
            ax.text(place + (i - 1) * 0.26, height, number(height), ha="center", va="bottom", fontsize=7)
    slanted(ax, [p.type if p.devices == 1 else f"{p.devices} {p.type}" for p in devices])
    ax.set_xlim(-0.6, max(len(devices), 4) - 0.4)  # few bars stay narrow
    if not devices:
        ax.text(0.5, 0.5, "no type is scarce: one more or fewer changes nothing", ha="center", transform=ax.transAxes)
        ax.set_yticks([])
    ax.set_ylabel(plain(f"{prices.plan.currency}/h"))
    tidy(ax)
    legend(ax)
    return ax


def _lost(worth: Worth | None) -> float:
    return 0.0 - (worth.saves_per_hour or 0.0) if worth is not None else 0.0


def plot_target_prices(prices: Prices, *, most: int = MOST_TARGETS, ax: Axes | None = None) -> Axes:
    """Draw what it would save to promise a tenth less, the dearest promises first."""
    dearest = [price for price in prices.targets if price.worth.saves_per_hour][:most][::-1]
    ax = own_axes(ax, height=0.9 + 0.3 * max(len(dearest), 2))
    saved = [price.worth.saves_per_hour or 0.0 for price in dearest]
    ax.barh(range(len(dearest)), saved, color=BLUE, height=0.65)
    for i, value in enumerate(saved):
        ax.text(value, i, f" {number(value)}", va="center", fontsize=8)
    ax.set_yticks(range(len(dearest)), [plain(f"{p.service_class} {p.model}, {p.words}") for p in dearest], fontsize=8)
    if not dearest:
        ax.text(0.5, 0.5, "none of the promises is known to cost anything", ha="center", transform=ax.transAxes)
        ax.set_axis_off()
    ax.set_xlabel(plain(f"saved by a promise {prices.relaxed:.0%} looser, {prices.plan.currency}/h"))
    ax.margins(x=0.12)
    tidy(ax, grid="x")
    return ax


def plot_sweep(frame: pd.DataFrame, x: str, y: str = "total_cost_per_hour", *, ax: Axes | None = None) -> Axes:
    """Draw a column of a sweep against what was varied, a line for each combination of the rest.

    Parameters
    ----------
    frame : of `sweep`.
    x : what was varied, a column that stands before `status`.
    y : any column of numbers.

    Raises
    ------
    ValueError
        If one of the columns is not there.
    """
    missing = [name for name in (x, y) if name not in frame]
    if missing:
        raise ValueError(
            f"the sweep has no column {' and no column '.join(missing)}; it has {', '.join(map(str, frame.columns))}"
        )
    import pandas as pd

    axes = list(frame.columns[: list(frame.columns).index("status")])
    others = [name for name in axes if name not in (x, "is_efficient", "limit")]
    ax = own_axes(ax)
    named = [", ".join(f"{name} {row[name]}" for name in others) for row in frame.to_dict("records")]
    labels = list(dict.fromkeys(named))
    groups = [frame[[name == label for name in named]] for label in labels]
    for label, part, colour in zip(labels, groups, colours(labels).values(), strict=True):
        values = part[y].to_numpy(dtype=float, na_value=np.nan)
        short = ~part.status.isin(SERVING_ALL).to_numpy()
        places = part[x] if pd.api.types.is_numeric_dtype(part[x]) else [plain(str(value)) for value in part[x]]
        shown = plain(label) or "everybody is served"
        ax.plot(places, np.where(short, np.nan, values), color=colour, marker="o", markersize=4, label=shown)
        ax.plot(places, np.where(short, values, np.nan), "x", color=colour, markersize=6)
    if not frame.status.isin(SERVING_ALL).all():
        ax.plot([], [], "x", color=GREY, label="not everybody is served")
    ax.set(xlabel=plain(x), ylabel=Y_WORDS.get(y, y))
    tidy(ax, grid="both")
    legend(ax)
    return ax


def plot_frontier(frame: pd.DataFrame, against: Against, *, currency: str = "", ax: Axes | None = None) -> Axes:
    """Draw cost against what it is set against: points that another one beats are pale.

    Loads with which not everybody can be served are crosses.

    Parameters
    ----------
    frame : of `find_frontier`.
    """
    ax = own_axes(ax)
    scale = 1000 if against == "power" else 1
    x = frame[MEASURED[against]].to_numpy(dtype=float, na_value=np.nan) / scale
    y = frame.total_cost_per_hour.to_numpy(dtype=float, na_value=np.nan)
    good, short = frame.is_efficient.to_numpy(bool), ~frame.status.isin(SERVING_ALL).to_numpy()
    order = np.argsort(x[good])
    ax.plot(x[good][order], y[good][order], color=BLUE, marker="o", markersize=5, label="everybody served")
    points = set(zip(x[good].tolist(), y[good].tolist(), strict=True))
    twin = np.array([point in points for point in zip(x.tolist(), y.tolist(), strict=True)], dtype=bool)
    beaten = ~good & ~short & ~twin
    if beaten.any():
        ax.plot(x[beaten], y[beaten], "o", color="#b8d2ee", markersize=5, label="beaten by another")
    if short.any() and against == "load":
        ax.plot(x[short], y[short], "x", color=RED, markersize=8, label="not everybody is served")
    ax.set(xlabel=MEASURES[against], ylabel=plain(f"cost, {currency}/h") if currency else "cost per hour")
    tidy(ax, grid="both")
    legend(ax)
    return ax
