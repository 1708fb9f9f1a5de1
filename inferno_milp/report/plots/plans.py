"""A plan in pictures: who runs where, what it costs, what is used, what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from inferno_milp.plan import Allocation, Plan, ServerPlan
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
    shortened,
    slanted,
    tidy,
)

Quantity = Literal["cost_per_hour", "replicas", "batch_size", "itl_ms", "ttft_ms", "ttft_p95_ms", "wait_ms"]
TITLES = {
    "cost_per_hour": "cost, {currency}/h",
    "replicas": "replicas",
    "batch_size": "max batch size",
    "itl_ms": "mean inter-token latency, ms",
    "ttft_ms": "mean time to first token, ms",
    "ttft_p95_ms": "95th percentile of the time to first token, ms",
    "wait_ms": "mean wait in the queue, ms",
}

LONGEST_LEVEL = 15
"""Letters of a name that fit below a column of a table, which is an inch wide."""


def plot_assignment(plan: Plan, *, ax: Axes | None = None) -> Axes:
    """Draw a table of service classes × models: what each server runs on, coloured by type."""
    by_type = colours(use.type for use in plan.capacity)

    def cell(server: ServerPlan) -> tuple[str, str]:
        if not server.allocations:
            return ("not served", "#f3d9d4") if not server.meets_targets else ("none", "#ffffff")
        largest = max(server.allocations, key=lambda a: a.share)
        text = "\n".join(f"{a.replicas} × {a.accelerator}" for a in server.allocations)
        note = "" if server.meets_targets else "\n(targets missed)" if server.is_carried else "\n(in part)"
        return f"{text}{note}", by_type[largest.type]

    return draw_table(plan, cell, ax)


def draw_table(plan: Plan, cell: Callable[[ServerPlan], tuple[str, str]], ax: Axes | None) -> Axes:
    """Draw a table of service classes × models with a text and a colour in each cell."""
    classes = list(dict.fromkeys(server.service_class for server in plan.servers))
    models = list(dict.fromkeys(server.model for server in plan.servers))
    ax = own_axes(ax, width=1.2 + 1.0 * len(models), height=0.8 + 0.6 * len(classes))
    texts: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for server in plan.servers:
        place = (classes.index(server.service_class), models.index(server.model))
        texts.setdefault(place, []).append(cell(server))
    for (row, column), found in texts.items():
        ax.add_patch(Rectangle((column, row), 1, 1, facecolor=found[0][1], alpha=0.35, edgecolor="white", linewidth=2))
        ax.text(
            column + 0.5, row + 0.5, plain("\n".join(text for text, _ in found)), ha="center", va="center", fontsize=7
        )
    ax.set(xlim=(0, len(models)), ylim=(len(classes), 0))
    long = max((len(name) for name in models), default=0) > LONGEST_LEVEL
    ax.set_xticks(
        np.arange(len(models)) + 0.5,
        [plain(shortened(name)) for name in models],
        fontsize=8,
        rotation=35 if long else 25 if len(models) > 6 else 0,
        ha="right" if long else "center",
        rotation_mode="anchor" if long else "default",
    )
    ax.set_yticks(np.arange(len(classes)) + 0.5, [plain(name) for name in classes], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def plot_servers(plan: Plan, quantity: Quantity = "cost_per_hour", *, ax: Axes | None = None) -> Axes:
    """Draw bars of a quantity, models side by side, service classes in colours.

    Parameters
    ----------
    quantity : of each server: sums of its cost and replicas; of latencies the mean over its traffic; of batch sizes the
        largest.
    """
    members: dict[tuple[str, str], list[ServerPlan]] = {}
    for server in plan.servers:
        members.setdefault((server.model, server.service_class), []).append(server)
    values = {place: _quantity(servers, quantity) for place, servers in members.items()}
    title = TITLES[quantity].format(currency=plan.currency)
    return draw_bars(values, title, ax)


def draw_bars(values: Mapping[tuple[str, str], float], title: str, ax: Axes | None) -> Axes:
    """Draw bars in groups: (place, colour) → height; what is missing or NaN is left out."""
    places = list(dict.fromkeys(place for place, _ in values))
    series = colours(name for _, name in values)
    ax = own_axes(ax, width=max(5.0, 1.5 + 0.9 * len(places)), height=3.2)
    width = 0.8 / max(len(series), 1)
    for i, (name, colour) in enumerate(series.items()):
        heights = [values.get((place, name), math.nan) for place in places]
        x = np.arange(len(places)) + (i - (len(series) - 1) / 2) * width
        ax.bar(x, np.nan_to_num(heights), width * 0.95, color=colour, label=plain(name))
    slanted(ax, places)
    ax.set_ylabel(plain(title))
    tidy(ax)
    legend(ax)
    return ax


def _quantity(servers: Sequence[ServerPlan], quantity: Quantity) -> float:
    """Sum up servers of one model and service class."""
    pairs = [(a.share * server.served_rate_per_s, a) for server in servers for a in server.allocations]
    if quantity in ("cost_per_hour", "replicas"):
        return math.fsum(getattr(a, quantity) for _, a in pairs)
    if quantity == "batch_size":
        return float(max((a.batch_size for _, a in pairs), default=0))
    known = [(rate, getattr(a, quantity)) for rate, a in pairs if getattr(a, quantity) is not None]
    total = math.fsum(rate for rate, _ in known)
    return math.fsum(rate * value for rate, value in known) / total if total else math.nan


def plot_capacity(plan: Plan, *, ax: Axes | None = None) -> Axes:
    """Draw the devices of each type: used, and there."""
    uses = plan.capacity[::-1]
    ax = own_axes(ax, height=0.8 + 0.35 * len(uses))
    y = np.arange(len(uses))
    ax.barh(y, [use.available or 0 for use in uses], color="#e3e6ea")
    full = [RED if use.available is not None and use.used >= use.available > 0 else BLUE for use in uses]
    ax.barh(y, [use.used for use in uses], color=full)
    for place, use in enumerate(uses):
        text = f" {use.used:,} of {use.available:,}" if use.available is not None else f" {use.used:,}"
        ax.text(max(use.used, use.available or 0), place, text, va="center", fontsize=8)
    ax.set_yticks(y, [plain(use.type) for use in uses], fontsize=8)
    ax.set_xlabel("devices in use, of those there; red: none left")
    ax.margins(x=0.15)
    tidy(ax, grid="x")
    return ax


def plot_types(
    plan: Plan, quantity: Literal["devices", "cost_per_hour"] = "devices", *, ax: Axes | None = None
) -> Axes:
    """Draw devices in use, or their cost, by accelerator type, service classes stacked."""
    types = [use.type for use in plan.capacity]
    classes = colours(server.service_class for server in plan.servers)
    ax = own_axes(ax, width=max(5.0, 1.5 + 0.6 * len(types)), height=3.2)
    bottom = np.zeros(len(types))
    for name, colour in classes.items():
        mine = [a for server in plan.servers if server.service_class == name for a in server.allocations]
        heights = np.array([math.fsum(getattr(a, quantity) for a in mine if a.type == kind) for kind in types])
        ax.bar(range(len(types)), heights, bottom=bottom, color=colour, label=plain(name), width=0.7)
        bottom += heights
    for i, height in enumerate(bottom.tolist()):
        ax.text(i, height, number(height), ha="center", va="bottom", fontsize=8)
    slanted(ax, types)
    ax.set_ylabel("devices" if quantity == "devices" else plain(f"cost, {plan.currency}/h"))
    tidy(ax)
    legend(ax)
    return ax


def plot_targets(plan: Plan, *, ax: Axes | None = None) -> Axes:
    """Draw every promise of latency: what it comes to, as a part of its limit."""
    rows = [(server.name, a, use) for server in plan.servers for a in server.allocations for use in a.targets]
    names = list(dict.fromkeys(name for name, *_ in rows))[::-1]
    ax = own_axes(ax, height=0.8 + 0.2 * len(names))
    kinds = colours(_promise(use.latency, use.statistic) for *_, use in rows)
    for kind, colour in kinds.items():
        mine = [(names.index(name), use.value_ms / use.limit_ms) for name, _, use in rows
                if _promise(use.latency, use.statistic) == kind]  # fmt: skip
        ax.scatter([part for _, part in mine], [y for y, _ in mine], s=22, color=colour, label=kind, zorder=3)
    ax.axvline(1.0, color=RED, linewidth=1)
    ax.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=7)
    ax.set_xlim(0, 1.08)
    ax.set_xlabel("latency at the rate that is carried, as a part of its limit")
    tidy(ax, grid="both")
    legend(ax, outside=True)
    return ax


def _promise(latency: str, statistic: str) -> str:
    return f"{latency.removesuffix('_ms').upper()} {statistic}"


def plot_batch_sizes(plan: Plan, server: str, *, ax: Axes | None = None) -> Axes:
    """Draw what a server would cost with other max batch sizes on the accelerator that it has.

    Raises
    ------
    ValueError
        If there is no such server, or it has no load.
    """
    found: Iterable[Allocation] = next((s.allocations for s in plan.servers if s.name == server), ())
    allocations = [a for a in found if a.batch_sizes]
    if not allocations:
        raise ValueError(f"{server} has no allocation with a load in this plan")
    ax = own_axes(ax)
    for a, colour in zip(allocations, colours(a.accelerator for a in allocations).values(), strict=True):
        sizes = [choice.batch_size for choice in a.batch_sizes]
        costs = [math.nan if c.cost_per_hour is None else c.cost_per_hour for c in a.batch_sizes]
        ax.plot(sizes, costs, color=colour, marker="o", markersize=3, label=plain(a.accelerator))
        here = next(c for c in a.batch_sizes if c.batch_size == a.batch_size)
        if here.cost_per_hour is not None:
            ax.plot([here.batch_size], [here.cost_per_hour], "o", color=GREEN, markersize=9, zorder=4)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set_xlabel("max batch size; the dot is the one planned")
    ax.set_ylabel(plain(f"cost of {server} alone, {plan.currency}/h"))
    tidy(ax)
    legend(ax)
    return ax
