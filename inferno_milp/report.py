"""Plans, candidates and comparisons as tables for a terminal, or as plain text where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from inferno_milp.candidates import Candidates
from inferno_milp.plan import Plan, ServerPlan
from inferno_milp.queueing import Analysis
from inferno_milp.reasons import Rejection

BAR_CELLS = 30
WIDE = 100
"""Columns from which a terminal shows every figure."""


def print_report(console: Console, *parts: RenderableType) -> None:
    """Print parts one below the other; where the console is no terminal, as plain lines that are never wrapped."""
    console.print(Group(*parts), soft_wrap=not console.is_terminal)


def plan_report(plan: Plan, console: Console) -> Sequence[RenderableType]:
    """Lay out a plan: servers, who is not served and why, capacity, totals."""
    parts: list[RenderableType] = [_servers_table(plan, console), Text()]
    if plan.unserved:
        parts += [_unserved_table(plan, console), Text()]
    parts += [_capacity_table(plan, console), Text(), _total_line(plan)]
    parts += [Text(f"note: {message}") for message in plan.messages]
    return parts


def _table(console: Console, *columns: str, right: Iterable[str] = ()) -> Table:
    plain = not console.is_terminal
    table = Table(
        box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0) if plain else (0, 1, 0, 0)
    )
    numbers = set(right)
    for column in columns:
        justify = "right" if column in numbers else "left"
        # On a narrow terminal names are folded, numbers never.
        no_wrap = plain or column in numbers
        table.add_column(column, justify=justify, no_wrap=no_wrap, overflow="fold")  # type: ignore[arg-type]
    return table


def _servers_table(plan: Plan, console: Console) -> Table:
    named = any(server.name != f"{server.service_class}-{server.model}" for server in plan.servers)
    numbers = ["repl.", "batch", f"{plan.currency}/h", "TTFT ms", "p95", "ITL ms", "load/min", "util."]
    head = ["server", "model"] if named else ["class", "model"]
    columns = [*head, "accelerator", *numbers]
    # A narrow terminal shows less rather than folding every name.
    shown = [i for i, c in enumerate(columns) if console.width >= WIDE or c not in ("p95", "util.")]
    table = _table(console, *(columns[i] for i in shown), right=numbers)
    for server in plan.servers:
        name = server.name if named else server.service_class
        for row in _server_rows(server):
            cells = (name, server.model, *row)
            table.add_row(*(cells[i] for i in shown))
    return table


def _server_rows(server: ServerPlan) -> Iterator[tuple[RenderableType, ...]]:
    load = f"{server.offered_rate_per_s * 60:.4g}"
    if not server.meets_targets:
        yield (Text("not served", style="red"), "", "", "", "", "", "", load, "")
    elif not server.allocations:
        yield ("none needed", "0", "", "0", "", "", "", load, "")
    for a in server.allocations:
        share = f"{server.offered_rate_per_s * a.share * 60:.4g}"
        used = "" if a.utilization is None else f"{a.utilization:.0%}"
        cost = f"{a.cost_per_hour:.6g}"
        latencies = (_ms(a.ttft_ms), _ms(a.ttft_p95_ms), _ms(a.itl_ms))
        yield (a.accelerator, str(a.replicas), str(a.batch_size), cost, *latencies, share, used)


def _unserved_table(plan: Plan, console: Console) -> Table:
    table = _table(console, "not served", "why")
    for server in plan.servers:
        if server.reason:
            table.add_row(Text(server.name, style="red"), server.reason)
    return table


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _capacity_table(plan: Plan, console: Console) -> Table:
    table = _table(
        console, "type", "used", "available", "use" if console.is_terminal else "", right=("used", "available")
    )
    for use in plan.capacity:
        if use.available is None:
            table.add_row(use.type, f"{use.used:,}", "unlimited", "")
        else:
            table.add_row(use.type, f"{use.used:,}", f"{use.available:,}", _bar(use.used, use.available, console))
    return table


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


PROOF = {
    "optimal": "optimal",
    "feasible": "feasible, not proven optimal",
    "partial": "partial: not everybody is served",
    "infeasible": "infeasible: proven that not everybody can be served",
    "no_solution": "no solution: the time ran out before a plan was found",
}


def _total_line(plan: Plan) -> Text:
    line = Text()
    if plan.total_cost_per_hour is not None:
        line.append(f"{plan.total_cost_per_hour:.10g} {plan.currency}/h", style="bold")
        line.append("  ")
    line.append(PROOF[plan.status], style="green" if plan.status == "optimal" else "yellow")
    if plan.bound is not None and plan.gap is not None:
        line.append(f" (bound {plan.bound:.10g}, gap {plan.gap:.2%})")
    served = len(plan.servers) - len(plan.unserved)
    seconds = sum(plan.stages_s.values())
    line.append(f"; {served} of {len(plan.servers)} servers served; {plan.solver.name} {plan.solver.version}")
    line.append(f", {seconds:.2f} s")
    return line


def candidates_table(candidates: Candidates, console: Console) -> Table:
    """Lay out the table of candidates, cheapest first within each server."""
    problem, rows = candidates.problem, candidates.rows
    numbers = ("batch", "max/min", "repl.", "devices", f"{problem.currency}/h")
    table = _table(console, "server", "accelerator", *numbers, right=numbers)
    for i in np.lexsort((rows.accelerator, rows.batch_size, rows.cost_per_hour, rows.server)).tolist():
        rate = rows.max_rate_per_s[i] * 60
        table.add_row(
            problem.servers[rows.server[i]].name,
            problem.accelerators[rows.accelerator[i]].name,
            str(rows.batch_size[i]),
            "–" if np.isnan(rate) else f"{rate:.4g}",
            f"{rows.replicas[i]:,}",
            f"{rows.devices[i]:,} {candidates.types[rows.type[i]]}",
            f"{rows.cost_per_hour[i]:.6g}",
        )
    return table


def rejections_table(rejections: Iterable[Rejection], console: Console) -> Table:
    """Lay out why accelerators are no candidates."""
    table = _table(console, "server", "accelerator", "why it is no candidate")
    for rejection in rejections:
        table.add_row(rejection.server, rejection.accelerator, rejection.reason)
    return table


def comparison_table(plans: dict[str, Plan], console: Console) -> Table:
    """Lay out plans of several solvers side by side."""
    currency = next(iter(plans.values())).currency
    numbers = (f"{currency}/h", "unserved", "bound", "gap", "seconds")
    table = _table(console, "solver", "status", *numbers, right=numbers)
    for name, plan in plans.items():
        table.add_row(
            name,
            plan.status,
            "–" if plan.total_cost_per_hour is None else f"{plan.total_cost_per_hour:.10g}",
            str(len(plan.unserved)),
            "–" if plan.bound is None else f"{plan.bound:.10g}",
            "–" if plan.gap is None else f"{plan.gap:.2%}",
            f"{plan.solving_s:.3f}",
        )
    return table


def analysis_table(analysis: Analysis, console: Console) -> Table:
    """Lay out the analysis of one engine at several rates."""
    numbers = (
        "rate/s", "rate/min", "TTFT ms", "p95", "ITL ms", "wait ms", "out/s", "running", "util.", "P(wait)", "blocked"
    )  # fmt: skip
    table = _table(console, *numbers, right=numbers)
    p95 = np.atleast_1d(analysis.ttft_percentile(95))
    columns = [
        analysis.rate_per_s, analysis.rate_per_s * 60, analysis.ttft_ms, p95, analysis.itl_ms, analysis.wait_ms,
        analysis.throughput_per_s, analysis.running,
    ]  # fmt: skip
    shares = [analysis.utilization, analysis.p_wait, analysis.blocking]
    for i in range(p95.size):
        figures = [_figure(np.atleast_1d(column)[i]) for column in columns]
        table.add_row(*figures, *(_percent(np.atleast_1d(share)[i]) for share in shares))
    return table


def _figure(value: float) -> str:
    return f"{value:.4g}" if value >= 5e-4 or value == 0 else "<0.001"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else "<0.1%"
