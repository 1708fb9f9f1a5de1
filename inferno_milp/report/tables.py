"""Candidates, analyses and simulations, laid out for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.columns.candidates import Candidates
from inferno_milp.planning.reasons import Rejection
from inferno_milp.report.grid import Grid, fitted, make_grid

if TYPE_CHECKING:
    from inferno_milp.studies.agreement import Comparison
    from inferno_milp.studies.simulate import AllocationSimulation, PlanSimulation


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
    return fitted(make_grid(("server", "accelerator"), numbers, cells, ("batch",)), console)


def rejections_table(rejections: Iterable[Rejection], console: Console) -> RenderableType:
    """Lay out what no plan of least cost can use, and why."""
    rows = ((r.server, r.accelerator, r.reason) for r in rejections)
    return fitted(make_grid(("server", "accelerator", "why not"), (), rows), console)


def analysis_table(rates: Iterable[Mapping[str, float]], console: Console) -> RenderableType:
    """Lay out the analysis of one engine, a rate a line."""
    figures = (
        "rate_per_s",
        "rate_per_min",
        "ttft_ms",
        "ttft_p95_ms",
        "itl_ms",
        "wait_ms",
        "throughput_per_s",
        "running",
    )
    shares = ("utilization", "p_wait", "blocking")
    told = [{**rate, "rate_per_min": rate["rate_per_s"] * 60} for rate in rates]
    cells = [(*(_figure(rate[name]) for name in figures), *(_percent(rate[name]) for name in shares)) for rate in told]
    numbers = (
        "rate/s", "rate/min", "TTFT ms", "p95", "ITL ms", "wait ms", "out/s", "running", "util.", "P(wait)", "blocked"
    )  # fmt: skip
    droppable = ("out/s", "P(wait)", "wait ms", "running", "rate/min", "blocked")
    return fitted(make_grid((), numbers, cells, droppable), console)


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
    return fitted(grid, console)


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
    """Yield in words what the simulation makes of a plan: missed targets, wrong predictions, what it cannot tell."""
    count, missed = len(simulation.allocations), [a for a in simulation.allocations if a.missed]
    shown = "" if count == 1 else "s"
    verdicts = [c.verdict for a in simulation.allocations for c in a.comparisons if _is_told(c)]
    kept = f"{verdicts.count('met')} of {len(verdicts)} targets met"
    if verdicts.count("near"):
        kept += f", {verdicts.count('near')} met or missed by less than the simulation can tell"
    yield Text()
    yield Text(f"simulated {simulation.requests:,} requests for {count} allocation{shown}: {kept}")
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
    for a in simulation.allocations:
        if a.not_converged:
            figures = ", ".join(f"{_words(c.figure)} {_interval(c)}" for c in a.not_converged)
            yield Text(f"not converged: {a.server} on {a.accelerator}: {figures}; simulate with more --requests")


def _interval(comparison: Comparison) -> str:
    unit = " ms" if comparison.figure.endswith("_ms") else ""
    if not math.isfinite(comparison.margin):
        return f"{comparison.simulated.value:.3g}{unit}, not settled"
    return f"{comparison.simulated.value:.3g} ± {comparison.margin:.2g}{unit}"


def _figure(value: float) -> str:
    return f"{value:.4g}" if value >= 5e-4 or value == 0 else "<0.001"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else "<0.1%"
