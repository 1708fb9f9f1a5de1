"""An emulated day: load, replicas, latency against its target, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferno_milp.problem import Problem
from inferno_milp.report.plots.style import RED, colours, figure_bytes, legend, plain, tidy


def draw_days(problem: Problem, days: Mapping[str, Mapping[str, Any]] | Mapping[str, Any], file_format: str) -> bytes:
    """Draw emulated days of a problem's servers as a file, times to first token over the means that are promised."""
    figure = Figure(figsize=(9.0, 8.0), layout="constrained")
    targets = {
        s.name: limit
        for s in problem.servers
        for latency, statistic, limit in problem.targets_of(s).limits_ms()
        if latency == "ttft_ms" and statistic == "mean"
    }
    plot_timeline(days, figure.subplots(4, sharex=True), targets)
    return figure_bytes(figure, file_format)


def plot_timeline(
    days: Mapping[str, Mapping[str, Any]] | Mapping[str, Any],
    axes: Sequence[Axes],
    targets_ms: Mapping[str, float] | None = None,
) -> Sequence[Axes]:
    """Draw a day: the load of each server; ready replicas; time to first token over its target; cost.

    Parameters
    ----------
    days : a timeline as plain data (`control --emulate … --json`), or several by name, whose costs are compared.
    axes : four of them.
    targets_ms : promised mean time to first token by server; None draws the time itself.
    """
    named: Mapping[str, Mapping[str, Any]] = {"": days} if "rows" in days else days
    first = next(iter(named.values()))
    servers = list(dict.fromkeys(row["server"] for row in first["rows"]))
    shades = colours(servers)
    load, replicas, latency, cost = axes
    for server in servers:
        own = [row for row in first["rows"] if row["server"] == server]
        hours = [row["time_s"] / 3600 for row in own]
        load.plot(hours, [row["rate_per_s"] for row in own], color=shades[server], label=plain(server), linewidth=1)
        replicas.step(hours, [row["ready"] for row in own], color=shades[server], where="post", linewidth=1.2)
        limit = (targets_ms or {}).get(server)
        values = [float("nan") if row["ttft_ms"] is None else row["ttft_ms"] / (limit or 1.0) for row in own]
        if targets_ms is None or limit is not None:
            latency.plot(hours, values, color=shades[server], linewidth=1)
    if targets_ms is not None:
        latency.axhline(1.0, color=RED, linewidth=1, linestyle="--")
    latency.set_yscale("log")
    for name, shade in zip(named, colours(named).values(), strict=True):
        by_time: dict[float, float] = {}
        for row in named[name]["rows"]:
            by_time[row["time_s"]] = by_time.get(row["time_s"], 0.0) + row["cost_per_hour"]
        cost.step([t / 3600 for t in by_time], list(by_time.values()), where="post", color=shade, label=plain(name))
    words = (
        (load, "load, requests/s"),
        (replicas, "ready replicas"),
        (latency, "TTFT / target" if targets_ms is not None else "TTFT, ms"),
        (cost, f"cost, {first['currency']}/h"),
    )
    for ax, text in words:
        tidy(ax)
        ax.set_ylabel(text, fontsize=8)
        ax.tick_params(labelsize=8)
    cost.set_xlabel("time, h", fontsize=8)
    cost.set_ylim(bottom=0)
    legend(load, outside=True)
    if len(named) > 1:
        legend(cost, outside=True)
    return axes
