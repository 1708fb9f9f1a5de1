"""Plans, candidates and comparisons as tables for a terminal, or as plain text where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from inferno_milp.candidates import Candidates
from inferno_milp.plan import Plan, ServerPlan
from inferno_milp.queueing import Analysis
from inferno_milp.reasons import Rejection

if TYPE_CHECKING:
    from inferno_milp.simulate import AllocationSimulation, Comparison, PlanSimulation

BAR_CELLS = 30
PLAIN_WIDTH = 100_000
"""Width of a console that is no terminal: lines of plain text are never cut."""


class _ResultConsole(Console):
    """Writes text as it is: no name is markup."""

    def __init__(self, width: int | None = None):
        super().__init__(highlight=False, markup=False, emoji=False, width=width)

    def on_broken_pipe(self) -> None:
        """Leave a reader that has gone to `stdout_to_its_end`: rich would end the program, with a code of its own."""
        raise BrokenPipeError


def result_console() -> Console:
    """Return the console for results: stdout."""
    console = _ResultConsole()
    return console if console.is_terminal else _ResultConsole(width=PLAIN_WIDTH)


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


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of cells under columns, some of which are numbers and some of which may be left out.

    Attributes
    ----------
    numbers : columns that are numbers: set to the right, never folded.
    droppable : columns to leave out, in this order, while the table is wider than the terminal.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[RenderableType, ...], ...]
    numbers: frozenset[str] = frozenset()
    droppable: tuple[str, ...] = ()


def _fitted(grid: Grid, console: Console) -> RenderableType:
    """Lay a grid out for a console: plain lines of any length, or a table as wide as the terminal allows."""
    dropped: list[str] = []
    table = _table(grid, console, dropped)
    if not console.is_terminal:
        return table
    for column in grid.droppable:
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            break
        dropped.append(column)
        table = _table(grid, console, dropped)
    if not dropped:
        return table
    return Group(table, Text(f"(left out, for the terminal is narrow: {', '.join(dropped)})", style="dim"))


def _table(grid: Grid, console: Console, dropped: Sequence[str]) -> Table:
    plain = not console.is_terminal
    table = Table(
        box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0) if plain else (0, 1, 0, 0)
    )
    shown = [i for i, column in enumerate(grid.columns) if column not in dropped]
    for column in (grid.columns[i] for i in shown):
        is_number = column in grid.numbers
        # On a narrow terminal names are folded, numbers never.
        table.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=plain or is_number,
            min_width=len(column) if is_number else None,
            overflow="fold",
        )
    for row in grid.rows:
        table.add_row(*(row[i] for i in shown))
    return table


def _grid(
    names: Sequence[str],
    numbers: Sequence[str],
    rows: Iterable[tuple[RenderableType, ...]],
    droppable: tuple[str, ...] = (),
) -> Grid:
    """Make a grid of names followed by numbers."""
    return Grid((*names, *numbers), tuple(rows), frozenset(numbers), droppable)


def _servers_table(plan: Plan, console: Console) -> RenderableType:
    named = any(server.name != f"{server.service_class}-{server.model}" for server in plan.servers)
    rows = (
        (server.name if named else server.service_class, server.model, *row)
        for server in plan.servers
        for row in _server_rows(server)
    )
    names = ("server" if named else "class", "model", "accelerator")
    numbers = ("repl.", "batch", f"{plan.currency}/h", "TTFT ms", "p95", "ITL ms", "load/min", "util.")
    return _fitted(_grid(names, numbers, rows, ("util.", "p95", "load/min", "batch")), console)


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


def _unserved_table(plan: Plan, console: Console) -> RenderableType:
    rows = ((Text(server.name, style="red"), server.reason) for server in plan.servers if server.reason)
    return _fitted(_grid(("not served", "why"), (), rows), console)


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _capacity_table(plan: Plan, console: Console) -> RenderableType:
    rows = tuple(
        (use.type, f"{use.used}", "unlimited", "")
        if use.available is None
        else (use.type, f"{use.used}", f"{use.available}", _bar(use.used, use.available, console))
        for use in plan.capacity
    )
    last = "use" if console.is_terminal else ""
    return _fitted(Grid(("type", "used", "available", last), rows, frozenset(("used", "available")), (last,)), console)


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


def candidates_table(candidates: Candidates, console: Console) -> RenderableType:
    """Lay out the table of candidates, cheapest first within each server."""
    problem, rows = candidates.problem, candidates.rows
    order = np.lexsort((rows.accelerator, rows.batch_size, rows.cost_per_hour, rows.server)).tolist()
    cells = (
        (
            problem.servers[rows.server[i]].name,
            problem.accelerators[rows.accelerator[i]].name,
            str(rows.batch_size[i]),
            "–" if np.isnan(rows.max_rate_per_s[i]) else f"{rows.max_rate_per_s[i] * 60:.4g}",
            str(rows.replicas[i]),
            f"{rows.devices[i]} {candidates.types[rows.type[i]]}",
            f"{rows.cost_per_hour[i]:.6g}",
        )
        for i in order
    )
    numbers = ("batch", "max/min", "repl.", "devices", f"{problem.currency}/h")
    return _fitted(_grid(("server", "accelerator"), numbers, cells, ("batch",)), console)


def rejections_table(rejections: Iterable[Rejection], console: Console) -> RenderableType:
    """Lay out what no plan of least cost can use, and why."""
    rows = ((r.server, r.accelerator, r.reason) for r in rejections)
    return _fitted(_grid(("server", "accelerator", "why not"), (), rows), console)


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
    return _fitted(_grid(("solver", "status"), numbers, rows, ("gap", "bound")), console)


def analysis_table(analysis: Analysis, console: Console) -> RenderableType:
    """Lay out the analysis of one engine at several rates."""
    figures = [
        analysis.rate_per_s, analysis.rate_per_s * 60, analysis.ttft_ms, analysis.ttft_percentile(95), analysis.itl_ms,
        analysis.wait_ms, analysis.throughput_per_s, analysis.running,
    ]  # fmt: skip
    shares = [analysis.utilization, analysis.p_wait, analysis.blocking]
    cells = [[_figure(x) for x in np.atleast_1d(column)] for column in figures]
    cells += [[_percent(x) for x in np.atleast_1d(column)] for column in shares]
    numbers = (
        "rate/s", "rate/min", "TTFT ms", "p95", "ITL ms", "wait ms", "out/s", "running", "util.", "P(wait)", "blocked"
    )  # fmt: skip
    droppable = ("out/s", "P(wait)", "wait ms", "running", "rate/min", "blocked")
    return _fitted(_grid((), numbers, zip(*cells, strict=True), droppable), console)


def simulation_table(simulation: PlanSimulation, console: Console) -> RenderableType:
    """Lay out what a plan predicts beside what the simulation finds, an allocation a line."""
    rows = [
        (
            Text(a.server),
            Text(a.accelerator),
            str(a.batch_size),
            str(a.replicas),
            *(_beside(a.figure(name)) for name in SIMULATED),
            _percent(a.blocking),
            f"{a.preemptions_per_request:.3g}",
            Text(_verdict(a)),
        )
        for a in simulation.allocations
    ]
    numbers = ("batch", "repl.", "TTFT ms", "p95", "p99", "ITL ms", "p95 ", "blocked", "preempt.")
    grid = Grid(
        ("server", "accelerator", *numbers, "targets"),
        tuple(rows),
        frozenset(numbers),
        ("preempt.", "blocked", "p99", "p95 ", "batch", "repl."),
    )
    return _fitted(grid, console)


SIMULATED = ("ttft_ms", "ttft_p95_ms", "ttft_p99_ms", "itl_ms", "itl_p95_ms")


def _beside(comparison: Comparison) -> RenderableType:
    predicted = "–" if comparison.predicted is None else f"{comparison.predicted:.3g}"
    return Text(f"{predicted}/{comparison.simulated.value:.3g}", style="yellow" if comparison.is_off else "")


def _verdict(allocation: AllocationSimulation) -> str:
    verdicts = [f"{_words(c.figure)} {c.verdict}" for c in allocation.comparisons if _is_told(c)]
    return ", ".join(verdicts) or "none"


def _is_told(comparison: Comparison) -> bool:
    """Whether a verdict is shown: of every promise, and of requests turned away if they are too many."""
    return comparison.verdict == "missed" or (comparison.verdict is not None and comparison.figure != "blocking")


def _words(figure: str) -> str:
    if not figure.endswith("_ms"):
        return figure
    latency, *percentile = figure.removesuffix("_ms").split("_")
    return " ".join([latency.upper(), *percentile])


def verification(simulation: PlanSimulation) -> Iterator[RenderableType]:
    """Say in words what the simulation makes of a plan: targets missed, predictions that are off."""
    count, missed = len(simulation.allocations), [a for a in simulation.allocations if a.missed]
    verdicts = [c.verdict for a in simulation.allocations for c in a.comparisons if _is_told(c)]
    kept = f"{verdicts.count('met')} of {len(verdicts)} targets met"
    if verdicts.count("near"):
        kept += f", {verdicts.count('near')} met or missed by less than the simulation can tell"
    yield Text()
    yield Text(f"simulated {simulation.requests:,} requests for {count} allocations: {kept}")
    for a in missed:
        for c in a.missed:
            found = f"{_words(c.figure)} {_interval(c)}, limit {c.limit:g}"
            yield Text(f"missed: {a.server} on {a.accelerator}: {found}")
    for a in simulation.allocations:
        for c in a.off:
            assert c.predicted is not None
            yield Text(
                f"prediction off: {a.server} on {a.accelerator}: {_words(c.figure)} predicted {c.predicted:.3g}, "
                f"simulated {_interval(c)}"
            )


def _interval(comparison: Comparison) -> str:
    unit = " ms" if comparison.figure.endswith("_ms") else ""
    return f"{comparison.simulated.value:.3g} ± {comparison.simulated.half_width:.2g}{unit}"


def _figure(value: float) -> str:
    return f"{value:.4g}" if value >= 5e-4 or value == 0 else "<0.001"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else "<0.1%"
