"""What changes from one plan to another, in pictures."""

from __future__ import annotations

from matplotlib.axes import Axes

from inferno_milp.plan import Plan, ServerPlan
from inferno_milp.report.plots.plans import draw_bars, draw_table
from inferno_milp.report.plots.style import GREEN, GREY, RED, number, own_axes, plain, slanted, tidy


def plot_accelerator_changes(before: Plan, after: Plan, *, ax: Axes | None = None) -> Axes:
    """Draw a table of service classes × models: which servers run on other accelerators than before."""
    was = {server.name: _accelerators(server) for server in before.servers}

    def cell(server: ServerPlan) -> tuple[str, str]:
        old, new = was.get(server.name, "nothing"), _accelerators(server)
        return (new, "#dfe3e8") if old == new else (f"{old}\n→ {new}", "#e08a2c")

    return draw_table(after, cell, ax)


def _accelerators(server: ServerPlan) -> str:
    return " + ".join(a.accelerator for a in server.allocations) or "nothing"


def plot_replica_scaling(before: Plan, after: Plan, *, ax: Axes | None = None) -> Axes:
    """Draw the replicas of each server before and after."""
    values = {}
    for name, plan in (("before", before), ("after", after)):
        for server in plan.servers:
            values[server.name, name] = float(sum(a.replicas for a in server.allocations))
    return draw_bars(values, "replicas", ax)


def plot_cost_difference(before: Plan, after: Plan, *, ax: Axes | None = None) -> Axes:
    """Draw by how much the cost of each server rises or falls, and in the title the whole."""
    was = {server.name: server.cost_per_hour for server in before.servers}
    names = [server.name for server in after.servers]
    heights = [server.cost_per_hour - was.get(server.name, 0.0) for server in after.servers]
    ax = own_axes(ax, width=max(5.0, 1.5 + 0.35 * len(names)), height=3.6)
    ax.bar(range(len(names)), heights, color=[RED if height > 0 else GREEN for height in heights])
    ax.axhline(0, color=GREY, linewidth=0.8)
    slanted(ax, names)
    total = (after.total_cost_per_hour or 0.0) - (before.total_cost_per_hour or 0.0)
    sign = "+" if total > 0 else "−" if total < 0 else "±"
    ax.set_title(plain(f"in all {sign}{number(abs(total))} {after.currency}/h"), fontsize=9)
    ax.set_ylabel(plain(f"difference of cost, {after.currency}/h"))
    tidy(ax)
    return ax
