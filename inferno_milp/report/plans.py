"""Plans, comparisons and changes, laid out for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.plan import Change, Plan, Running, ServerPlan
from inferno_milp.plan.claims import bound_words, profile_rows, status_words
from inferno_milp.report.grid import Grid, fitted, make_grid

BAR_CELLS = 30
NODES_SHOWN = 20
"""Kinds of nodes that a report shows."""


def plan_report(plan: Plan, console: Console) -> Sequence[RenderableType]:
    """Lay out a plan: servers, who is not served and why, capacity, totals."""
    parts: list[RenderableType] = [_servers_table(plan, console), Text()]
    if plan.unserved:
        parts += [_unserved_table(plan, console), Text()]
    if plan.priorities:
        parts += [_priorities_table(plan, console), Text()]
    if plan.changes:
        parts += [changes_table(plan.changes, plan.currency, console), Text()]
    parts += [_capacity_table(plan, console), Text()]
    if profiles := profile_rows(plan.used_profiles):
        parts += [profiles_table(profiles, console), Text()]
    if plan.nodes:
        parts += [_nodes_table(plan, console), Text()]
    parts += [_total_line(plan), *_objective_lines(plan)]
    parts += [Text(f"note: {message}") for message in plan.messages]
    return parts


def _servers_table(plan: Plan, console: Console) -> RenderableType:
    named = any(server.name != f"{server.service_class}-{server.model}" for server in plan.servers)
    rows = (
        (server.name if named else server.service_class, server.model, *row)
        for server in plan.servers
        for row in _server_rows(server)
    )
    names = ("server" if named else "class", "model", "accelerator")
    numbers = ("repl.", "devices", "batch", f"{plan.currency}/h", "TTFT ms", "p95", "ITL ms", "load/min", "util.")
    # What is decided and promised stays as long as it can; how it comes about goes first.
    return fitted(make_grid(names, numbers, rows, ("devices", "util.", "load/min"), ("p95", "batch")), console)


def _server_rows(server: ServerPlan) -> Iterator[tuple[RenderableType, ...]]:
    load = f"{server.offered_rate_per_s * 60:.4g}"
    if not server.is_carried:
        served = "not served" if not server.allocations else f"{_share_served(server)} served"
        yield (Text(served, style="red"), "", "", "", "", "", "", "", load, "")
    elif not server.allocations:
        yield ("none needed", "0", "0", "", "0", "", "", "", load, "")
    for a in server.allocations:
        share = f"{server.served_rate_per_s * a.share * 60:.4g}"
        used = "" if a.utilization is None else f"{a.utilization:.0%}"
        cost = f"{a.cost_per_hour:.6g}"
        latencies = (ms(a.ttft_ms), ms(a.ttft_p95_ms), ms(a.itl_ms))
        yield (a.accelerator, str(a.replicas), str(a.devices), str(a.batch_size), cost, *latencies, share, used)


def _share_served(server: ServerPlan) -> str:
    offered = server.offered_rate_per_s
    return f"{server.served_rate_per_s / offered:.0%}" if offered else "not all"


def _priorities_table(plan: Plan, console: Console) -> RenderableType:
    rows = (
        (str(use.priority), f"{use.served:.6g}", f"{use.could:.6g}", f"{use.weight:.6g}") for use in plan.priorities
    )
    columns = ("priority", "served", "at most", "of")
    return fitted(make_grid((), columns, rows), console)


def changes_table(changes: Sequence[Change], currency: str, console: Console) -> RenderableType:
    """Lay out what changes: from what, to what, and by how much the cost."""
    rows = (
        (
            Text(change.server),
            _running(change.before),
            _running(change.after),
            f"{change.cost_difference_per_hour:+.6g}",
        )
        for change in changes
    )
    return fitted(make_grid(("change", "from", "to"), (f"{currency}/h",), rows), console)


def _running(replicas: Sequence[Running]) -> str:
    return " + ".join(f"{r.replicas} × {r.accelerator}" for r in replicas) or "nothing"


def _nodes_table(plan: Plan, console: Console) -> RenderableType:
    """Nodes that hold the same, a line: how many there are, and what each holds."""
    alike = Counter((node.type, node.devices, node.used, node.holds) for node in plan.nodes)
    rows = [
        (
            f"{kind}, {devices} devices",
            ", ".join(f"{held.replicas} × {held.server} on {held.accelerator}" for held in holds),
            str(count),
            f"{used}",
        )
        for (kind, devices, used, holds), count in alike.items()
    ]
    more = len(rows) - NODES_SHOWN
    if more > 0:
        rows = [*rows[:NODES_SHOWN], ("…", f"{more} more kinds of nodes are in the JSON", "", "")]
    return fitted(make_grid(("node", "holds"), ("nodes", "in use"), rows), console)


def _objective_lines(plan: Plan) -> Iterator[Text]:
    """Yield what the objective is the sum of, where it is more than the price."""
    parts = {name: value for name, value in plan.objective_parts.items() if value and name != "price"}
    if parts and plan.objective is not None:
        listed = ", ".join(f"{value:.6g} for {name}" for name, value in parts.items())
        yield Text(f"objective {plan.objective:.10g}: {plan.objective_parts['price']:.10g} price, {listed}")
    if plan.power_w is not None:
        yield Text(f"power {plan.power_w / 1000:.4g} kW")


def _unserved_table(plan: Plan, console: Console) -> RenderableType:
    rows = ((Text(server.name, style="red"), server.reason) for server in plan.servers if server.reason)
    return fitted(make_grid(("not served in full", "why"), (), rows), console)


def ms(value: float | None) -> str:
    """Write a latency for a cell."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def profiles_table(rows: Sequence[tuple[str, ...]], console: Console) -> RenderableType:
    """Lay out precision, engine, origin and errors of the profiles that a plan uses."""
    names = ("profile of", "on", "precision", "engine", "origin")
    return fitted(make_grid(names, ("TTFT err.", "ITL err."), rows), console)


def _capacity_table(plan: Plan, console: Console) -> RenderableType:
    rows = tuple(
        (use.type, f"{use.used}", "unlimited", "")
        if use.available is None
        else (use.type, f"{use.used}", f"{use.available}", _bar(use.used, use.available, console))
        for use in plan.capacity
        if use.used or use.available != 0
    )
    last = "use" if console.is_terminal else ""
    return fitted(Grid(("type", "used", "available", last), rows, frozenset(("used", "available")), (last,)), console)


def _bar(used: int, available: int, console: Console) -> RenderableType:
    share = used / available if available else 0.0
    if not console.is_terminal:
        return f"{share:.0%}"
    full = round(share * BAR_CELLS)
    if used and not full:
        full = 1
    if used < available and full == BAR_CELLS:
        full -= 1
    colour = "red" if used >= available > 0 else "yellow" if share > 0.8 else "green"
    return Text.assemble(("█" * full, colour), ("░" * (BAR_CELLS - full), "dim"), f" {share:.0%}")


def _total_line(plan: Plan) -> Text:
    line = Text()
    if plan.total_cost_per_hour is not None:
        line.append(f"{plan.total_cost_per_hour:.10g} {plan.currency}/h", style="bold")
        line.append("  ")
    line.append(status_words(plan), style="green" if plan.status == "optimal" else "yellow")
    line.append(bound_words(plan))
    seconds = sum(plan.stages_s.values())
    line.append(f"; {plan.served_words}; {plan.solver.name} {plan.solver.version}")
    line.append(f", {seconds:.2f} s")
    return line


def comparison_table(plans: dict[str, Plan], console: Console) -> RenderableType:
    """Lay out plans of several solvers side by side."""
    currency = next(iter(plans.values())).currency
    rows = (
        (
            name,
            plan.status,
            "–" if plan.total_cost_per_hour is None else f"{plan.total_cost_per_hour:.10g}",
            str(len(plan.unserved)),
            "–" if plan.bound is None else f"{plan.bound:.10g}",
            "–" if plan.gap is None else f"{plan.gap:.2%}",
            f"{plan.solving_s:.3f}",
        )
        for name, plan in plans.items()
    )
    numbers = (f"{currency}/h", "unserved", "bound", "gap", "seconds")
    return fitted(make_grid(("solver", "status"), numbers, rows, ("gap", "bound")), console)
