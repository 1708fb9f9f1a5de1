"""What each subcommand does: read, call the library, show."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inferno_milp.cli.output import (
    STDOUT,
    check_outputs,
    counted_progress,
    progress,
    stdout_to_its_end,
    write_json,
    write_model,
    write_picture,
    write_text,
)
from inferno_milp.errors import Fault, InputError
from inferno_milp.plan import Change, Running
from inferno_milp.problem.spreadsheet import csv_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import Console

    from inferno_milp.plan import Plan
    from inferno_milp.problem import Problem
    from inferno_milp.studies.simulate import PlanSimulation


OPTIONS = ("law", "assignment", "batch_sizes", "batch_choice", "saturation_policy", "max_changes", "max_cost_per_hour")
"""Options of a problem that the command line may replace, by their own names."""


def read(arguments: Namespace) -> Problem:
    """Read the problem, with what the command line says in its place; check first where results go."""
    from inferno_milp.problem.reading import opened_files, read_problem

    check_outputs(arguments)
    current = arguments.current
    with opened_files() as opened:
        problem = read_problem(arguments.problem)
    check_outputs(arguments, opened)
    if current:
        from inferno_milp.plan.differences import with_current
        from inferno_milp.plan.file import read_plan

        problem = with_current(problem, read_plan(current))
    if arguments.unlimited:
        problem = problem.with_unlimited_capacity()
    wanted = {name: getattr(arguments, name) for name in OPTIONS}
    changes = {name: value for name, value in wanted.items() if value is not None}
    return problem.with_options(**changes) if changes else problem


def run_optimize(arguments: Namespace) -> int:
    """Plan, show the plan, write it."""
    problem, (plan,) = plan_with(arguments, arguments.solver)
    if arguments.write_model:
        from inferno_milp.planning.optimize import build_model

        write_model(build_model(problem), arguments.write_model)
    simulation = _simulate(arguments, problem, plan) if arguments.verify else None

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report import verification

        return [*_plan_parts(plan, console), *(verification(simulation) if simulation else ())]

    def document() -> dict[str, Any]:
        return {**plan.to_dict(), **({"simulation": simulation.to_dict()} if simulation else {})}

    show(arguments, parts, document, plan.to_frame)
    return 0 if plan.serves_all else 1


def _simulate(arguments: Namespace, problem: Problem, plan: Plan, **options: Any) -> PlanSimulation:
    from inferno_milp.studies.simulate import simulate_plan

    with counted_progress("simulating", quiet=arguments.quiet) as on_progress:
        return simulate_plan(problem, plan, on_progress=on_progress, **options)


def run_simulate(arguments: Namespace) -> int:
    """Simulate a plan, made now or read from a file; show what it predicts beside what happens."""
    if arguments.plan is None:
        problem, (plan,) = plan_with(arguments, "milp")
    else:
        from inferno_milp.plan.file import read_plan

        problem, plan = read(arguments), read_plan(arguments.plan)
    wanted = {"requests": arguments.requests, "burstiness": arguments.burstiness, "seed": arguments.seed}
    options = {name: value for name, value in wanted.items() if value is not None}
    simulation = _simulate(arguments, problem, plan, **options)

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report import simulation_table, verification

        return [simulation_table(simulation, console), *verification(simulation)]

    show(arguments, parts, simulation.to_dict, simulation.to_frame)
    return 0 if plan.serves_all and simulation.meets_targets else 1


def plan_with(arguments: Namespace, *solvers: str) -> tuple[Problem, list[Plan]]:
    """Read the problem, and plan with each solver."""
    start = time.perf_counter()
    problem = read(arguments)
    read_s = time.perf_counter() - start
    plans = [plan_of(problem, arguments, solver) for solver in solvers]
    return problem, [replace(plan, stages_s={"read": read_s, **plan.stages_s}) for plan in plans]


def plan_of(problem: Problem, arguments: Namespace, solver: str = "milp") -> Plan:
    """Plan a problem as the command line asks for."""
    from inferno_milp.planning.optimize import optimize

    with progress(quiet=arguments.quiet) as on_stage:
        return optimize(
            problem,
            solver=solver,  # type: ignore[arg-type]  # argparse has checked it
            time_limit_s=arguments.time_limit,
            gap=arguments.gap,
            on_stage=on_stage,
        )


def _plan_parts(plan: Plan, console: Console) -> list[Any]:
    from inferno_milp.report import plan_report

    return list(plan_report(plan, console))


def show(
    arguments: Namespace,
    parts: Callable[[Console], list[Any]],
    document: Callable[[], Any],
    frame: Callable[[], pd.DataFrame],
    draw: Callable[[Sequence[Axes]], Any] | None = None,
    *,
    panels: int = 1,
) -> None:
    """Write what was asked for: files first, so that a broken terminal loses nothing, and data before figures.

    Parameters
    ----------
    draw : draws on so many `panels`, where `--plot` asks for that.
    """
    if arguments.csv:
        write_text(csv_text(frame()), arguments.csv)
    if arguments.json:
        write_json(document(), arguments.json)
    if draw is not None and arguments.plot:
        write_picture(draw, arguments.plot, columns=panels)
    if not arguments.quiet and STDOUT not in (arguments.json, arguments.csv):
        from inferno_milp.report import print_report, result_console

        with stdout_to_its_end():
            console = result_console()
            print_report(console, *parts(console))


def run_compare(arguments: Namespace) -> int:
    """Plan with both solvers and show what each finds."""
    from inferno_milp.report import comparison_table

    names = ("greedy", "milp")
    plans = dict(zip(names, plan_with(arguments, *names)[1], strict=True))

    def frame() -> pd.DataFrame:
        import pandas as pd

        keys = ("status", "total_cost_per_hour", "bound", "gap")
        rows = [
            {"solver": name, **{key: getattr(plan, key) for key in keys}, "unserved": len(plan.unserved),
             "seconds": plan.solving_s}
            for name, plan in plans.items()
        ]  # fmt: skip
        return pd.DataFrame(rows)

    show(
        arguments,
        lambda console: [comparison_table(plans, console)],
        lambda: {name: plan.to_dict() for name, plan in plans.items()},
        frame,
    )
    return 0 if plans["milp"].serves_all else 1


def run_diff(arguments: Namespace) -> int:
    """Show what changes from one plan to another."""
    from dataclasses import asdict

    from inferno_milp.plan.differences import diff
    from inferno_milp.plan.file import read_plan

    check_outputs(arguments)
    before, after = read_plan(arguments.before), read_plan(arguments.after)
    changes = diff(before, after)

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report import changes_table

        total = sum(change.cost_difference_per_hour for change in changes)
        moved = sum(change.moves for change in changes)
        line = f"{len(changes)} servers change, {moved} of them their accelerator; {total:+.10g} {after.currency}/h"
        return [changes_table(changes, after.currency, console), "", line]

    def frame() -> pd.DataFrame:
        import pandas as pd

        def words(running: Sequence[Running]) -> str:
            return " + ".join(f"{r.replicas} x {r.accelerator}" for r in running)

        return pd.DataFrame(
            [{**asdict(change), "before": words(change.before), "after": words(change.after)} for change in changes],
            columns=[*Change.__slots__],
        )

    show(arguments, parts, lambda: [asdict(change) for change in changes], frame)
    return 0


def run_candidates(arguments: Namespace) -> int:
    """Show the table of candidates, or what is none and why."""
    from inferno_milp.columns.candidates import find_candidates
    from inferno_milp.columns.options import make_program
    from inferno_milp.planning.reasons import find_rejections
    from inferno_milp.report import candidates_table, rejections_table

    problem = read(arguments)
    chosen = problem.positions_of(arguments.server or [server.name for server in problem.servers])
    table = find_candidates(problem)
    program = make_program(table)
    rejections = list(find_rejections(table, program, chosen))
    shown = (
        replace(program.table, rows=program.table.rows.take(program.useful_rows())) if arguments.undominated else table
    )
    shown = shown.of_servers(chosen)
    rejected = [{"server": r.server, "accelerator": r.accelerator, "reason": r.reason} for r in rejections]

    def frame() -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(rejected if arguments.rejected else shown.to_records())

    show(
        arguments,
        lambda console: [
            rejections_table(rejections, console) if arguments.rejected else candidates_table(shown, console)
        ],
        lambda: {"candidates": shown.to_records(), "rejected": rejected},
        frame,
    )
    return 0


def run_analyze(arguments: Namespace) -> int:
    """Analyse one engine at the rates asked for, and size it."""
    from inferno_milp.cli.engine import analyze_engine
    from inferno_milp.report import analysis_table

    check_outputs(arguments)
    found = analyze_engine(arguments)

    def frame() -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(found.rates)

    def draw(axes: Sequence[Axes]) -> None:
        from inferno_milp.report.plots import plot_engine

        plot_engine(found, axes)

    show(
        arguments,
        lambda console: [analysis_table(found.rates, console), "", found.sentence],
        found.to_dict,
        frame,
        draw,
        panels=2,
    )
    return 0


def run_validate(arguments: Namespace) -> int:
    """Read problems; tell what is in them, or everything that is wrong with them."""
    from inferno_milp.problem.reading import read_problem

    faults: list[Fault] = []
    for path in arguments.problems:
        try:
            problem = read_problem(path)
        except InputError as error:
            faults += error.faults
            continue
        if not arguments.quiet:
            counts = {
                "servers": problem.servers,
                "accelerators": problem.accelerators,
                "profiles": problem.profiles,
                "service classes": problem.service_classes,
            }
            summary = ", ".join(f"{len(items)} {name}" for name, items in counts.items())
            with stdout_to_its_end() as stdout:
                stdout.write(f"{path}: good: {summary}\n")
    if faults:
        raise InputError(faults)
    return 0


def running(arguments: Namespace) -> dict[str, Any]:
    """Return how hard to try, and where, as functions take it that spread their work."""
    return {
        "gap": arguments.gap,
        "time_limit_s": arguments.time_limit,
        "jobs": arguments.jobs,
        "scheduler": arguments.scheduler,
    }
