"""Rounds and emulated days in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from inferno_milp.cli.output import stdout_to_its_end
from inferno_milp.report.grid import Grid, fitted, print_report, result_console

if TYPE_CHECKING:
    from inferno_milp.control.emulation.day import Emulation
    from inferno_milp.control.emulation.timeline import Timeline
    from inferno_milp.control.report import Report

SHADES = "▁▂▃▄▅▆▇█"
LINE = 48
"""Places of a line of the load."""


def print_round(report: Report) -> None:
    """Print a round: a row per server, and the steps."""
    with stdout_to_its_end():
        console = result_console()
        steps = [Text(f"{s.outcome}: {s.step} {s.reason}".rstrip()) for s in report.steps] or [Text("no change")]
        plan = "no plan" if report.plan is None else f"plan {report.plan.status}"
        head = f"round {report.round} ({report.role}): {plan}, running cost {report.running_cost_per_hour:.6g}/h"
        print_report(console, fitted(_servers(report), console), Text(""), *steps, Text(head))


def _servers(report: Report) -> Grid:
    rows = []
    for name, server in report.servers.items():
        seen = server.observation
        rows.append(
            (
                name,
                "–" if seen is None else seen.state,
                _number(None if seen is None else seen.rate_per_s),
                _number(server.planned_rate_per_s),
                _number(None if seen is None else seen.ttft_ms),
                _number(None if seen is None else seen.itl_ms),
                _replicas(server.running),
                "–" if server.target is None else _replicas(server.target),
                "; ".join(part for part in (server.reason, server.waiting) if part),
            )
        )
    columns = ("server", "load", "req/s", "planned", "TTFT ms", "ITL ms", "runs", "is to run", "why")
    return Grid(columns, tuple(rows), frozenset(columns[2:6]), ("planned", "ITL ms"))


def print_day(timeline: Timeline, static: Timeline) -> None:
    """Print what a day came to.

    Parameters
    ----------
    static : the same load under a plan for its peak that nobody changes.
    """

    def cost(of: Timeline) -> str:
        return f"{of.mean_cost_per_hour:.2f} {of.currency}/h"

    with stdout_to_its_end():
        console = result_console()
        held = ", ".join(
            f"{name} {count}" + ("" if timeline.available is None else f" of {timeline.available.get(name, 0)}")
            for name, count in sorted(timeline.most_held.items())
        )
        lines = [
            f"requests          {timeline.requests:,} in {timeline.hours:g} h",
            f"promises kept     {timeline.attainment:.2%} of the requests; "
            f"with a plan for the peak {static.attainment:.2%}",
            f"mean cost         {cost(timeline)}; with a plan for the peak {cost(static)}",
            f"changes           {timeline.changes}, of which {timeline.reversals} went back within half an hour",
            f"most devices held {held}",
            *(f"error             {error}" for error in timeline.errors[:10]),
        ]
        print_report(console, *(Text(line) for line in lines))


@contextmanager
def watch_day(emulation: Emulation, *, quiet: bool) -> Iterator[Callable[[Timeline, Report | None], None] | None]:
    """Show a day as it passes, on stderr, where that is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bars = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    bar = bars.add_task(emulation.problem.name, total=emulation.day.length_s)
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:

        def show(timeline: Timeline, report: Report | None) -> None:
            now = emulation.cluster.time_s
            bars.update(bar, completed=now, description=f"{now / 3600:05.2f} h")
            live.update(Group(bars, _table(emulation, timeline, report)), refresh=True)

        yield show


def _table(emulation: Emulation, timeline: Timeline, report: Report | None) -> RenderableType:
    table = Table("server", "load", "req/s", "ready", "runs", "TTFT ms", "target", "cost/h", box=None)
    targets = {
        s.name: next(
            (f"{limit:g}" for name, _, limit in emulation.problem.targets_of(s).limits_ms() if name == "ttft_ms"), "–"
        )
        for s in emulation.problem.servers
    }
    for server in emulation.problem.servers:
        own = [row for row in timeline.rows if row.server == server.name]
        last = own[-1]
        late = last.ttft_ms is not None and targets[server.name] != "–" and last.ttft_ms > float(targets[server.name])
        table.add_row(
            server.name,
            _line([row.rate_per_s for row in own]),
            _number(last.rate_per_s),
            str(last.ready),
            _replicas(last.running),
            Text(_number(last.ttft_ms), style="red" if late else ""),
            targets[server.name],
            f"{last.cost_per_hour:.2f}",
        )
    steps = [Text(s.step, style="cyan") for s in report.steps] if report is not None else []
    errors = [Text(e, style="yellow") for e in report.errors] if report is not None else []
    return Group(table, *steps, *errors)


def _line(values: list[float]) -> str:
    size = max(len(values) // LINE, 1)
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)][-LINE:]
    most = max(means, default=0.0) or 1.0
    return "".join(SHADES[min(int(value / most * len(SHADES)), len(SHADES) - 1)] for value in means)


def _replicas(counts: Mapping[str, int]) -> str:
    return " + ".join(f"{count} × {name}" for name, count in counts.items() if count) or "none"


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4g}"
