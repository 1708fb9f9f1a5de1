"""What the subcommands do that question a plan: read, call the library, show."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferno_milp.cli.axes import read_axes
from inferno_milp.cli.commands import plan_of, plan_with, read, running, show
from inferno_milp.cli.output import (
    busy,
    counted_progress,
    progress,
    write_picture,
    write_text,
)
from inferno_milp.errors import Fault, InputError, OptionError
from inferno_milp.problem.spreadsheet import records

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import Console

    from inferno_milp.plan import Plan
    from inferno_milp.problem import Problem

PICTURES = (
    "assignment", "capacity", "devices", "device_cost", "targets", "batch_sizes",
    "cost_per_hour", "replicas", "batch_size", "itl_ms", "ttft_ms", "ttft_p95_ms", "wait_ms",
)  # fmt: skip
"""What `plot` draws."""


def run_explain(arguments: Namespace) -> int:
    """Plan, and say why."""
    from inferno_milp.report.studies import explanation_report
    from inferno_milp.studies.explain import EACH_S, explain

    problem = read(arguments)
    problem.positions_of(arguments.server or ())
    plan = plan_of(problem, arguments)
    names = [server.name for server in problem.servers] if arguments.all else arguments.server
    with counted_progress("planning anew", quiet=arguments.quiet) as on_done:
        why = explain(
            problem,
            plan=plan,
            servers=arguments.server,
            compared=names,
            gap=arguments.gap,
            time_limit_s=arguments.time_limit or EACH_S,
            on_done=on_done,
        )
    show(
        arguments,
        lambda console: list(explanation_report(why, console, detailed=bool(arguments.server))),
        why.to_dict,
        why.to_frame,
    )
    return 0 if plan.serves_all else 1


def run_prices(arguments: Namespace) -> int:
    """Find what devices and promises are worth."""
    from inferno_milp.report.studies import prices_report
    from inferno_milp.studies.prices import EACH_S, PRICED, find_prices

    problem = read(arguments)
    with counted_progress("planning anew", quiet=arguments.quiet) as on_done:
        prices = find_prices(
            problem,
            gap=arguments.gap,
            time_limit_s=arguments.time_limit or EACH_S,
            relaxed=arguments.relaxed,
            of=(arguments.only,) if arguments.only else PRICED,
            jobs=arguments.jobs,
            scheduler=arguments.scheduler,
            on_done=on_done,
        )

    def draw(axes: Sequence[Axes]) -> None:
        from inferno_milp.report.plots import plot_device_prices, plot_target_prices

        plot_device_prices(prices, ax=axes[0])
        plot_target_prices(prices, ax=axes[1])

    def frame() -> pd.DataFrame:
        import pandas as pd

        return pd.concat([prices.devices_frame(), prices.targets_frame()], ignore_index=True)

    show(arguments, lambda console: list(prices_report(prices, console)), prices.to_dict, frame, draw, panels=2)
    return 0 if prices.plan.serves_all else 1


def run_whatif(arguments: Namespace) -> int:
    """Plan as it is and with other figures; show the difference."""
    from inferno_milp.problem.reading.settings import read_settings, with_settings
    from inferno_milp.report.studies import difference_report
    from inferno_milp.studies.load_change import find_difference

    problem = read(arguments)
    settings = read_settings(arguments.settings)
    with progress(quiet=arguments.quiet) as on_stage:
        found = find_difference(
            problem,
            with_settings(problem, settings),
            from_before=arguments.transition,
            gap=arguments.gap,
            time_limit_s=arguments.time_limit,
            on_stage=on_stage,
        )

    def document() -> dict[str, Any]:
        return {
            "settings": [str(setting) for setting in settings],
            "before": found.before.to_dict(),
            "after": found.after.to_dict(),
            "changes": [asdict(change) for change in found.changes],
        }

    show(
        arguments,
        lambda console: list(difference_report(found.before, found.after, console)),
        document,
        found.after.to_frame,
    )
    return 0 if found.after.serves_all else 1


def run_sweep(arguments: Namespace) -> int:
    """Plan every combination."""
    from inferno_milp.problem.reading.settings import with_settings
    from inferno_milp.studies.sweeps import sweep
    from inferno_milp.studies.whatif import NUMBERS

    problem = read(arguments)
    axes, y = read_axes(arguments.axes), arguments.plot_y
    if arguments.plot and y not in NUMBERS and y not in {f"devices_{a.type}" for a in problem.accelerators}:
        raise OptionError(f"--plot-y draws {', '.join(NUMBERS)}, or devices_TYPE, not {y}")
    problem = with_settings(problem, arguments.settings)
    with counted_progress("planning", quiet=arguments.quiet) as on_done:
        frame = sweep(problem, axes, on_done=on_done, into=arguments.into, **running(arguments))

    def draw(found: Sequence[Axes]) -> None:
        from inferno_milp.report.plots import plot_sweep

        plot_sweep(frame, next(iter(axes)), y, ax=found[0])

    return _show_frame(arguments, frame, draw)


def run_clusters(arguments: Namespace) -> int:
    """Plan every cluster."""
    from inferno_milp.studies.clusters import plan_clusters
    from inferno_milp.studies.whatif import frame_of

    problems: dict[str, Problem] = {}
    faults: list[Fault] = []
    seen: set[Path] = set()
    for path in arguments.problems:
        if path.resolve() in seen:
            faults.append(Fault(f"{path} is given twice", "give every cluster once"))
            continue
        seen.add(path.resolve())
        try:
            problems[str(path)] = read(Namespace(**{**vars(arguments), "problem": path}))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    with counted_progress("planning", quiet=arguments.quiet) as on_done:
        outcomes = plan_clusters(problems, on_done=on_done, into=arguments.into, **running(arguments))
    frame = frame_of([{"cluster": name} for name in outcomes], [*outcomes.values()])

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report.studies import sweep_table

        served = sum(outcome.serves_all for outcome in outcomes.values())
        return [sweep_table(frame, console), "", f"{served} of {len(outcomes)} clusters serve everybody"]

    def document() -> dict[str, Any]:
        plans = {name: outcome.plan and outcome.plan.to_dict() for name, outcome in outcomes.items()}
        return {name: {"error": outcomes[name].error, "plan": plan} for name, plan in plans.items()}

    show(arguments, parts, document, lambda: frame)
    return 0 if all(outcome.serves_all for outcome in outcomes.values()) else 1


def _show_frame(arguments: Namespace, frame: pd.DataFrame, draw: Callable[[Sequence[Axes]], None]) -> int:
    from inferno_milp.report.studies import sweep_table

    show(arguments, lambda console: [sweep_table(frame, console)], lambda: records(frame), lambda: frame, draw)
    return 0 if frame.error.isna().all() else 1


def run_frontier(arguments: Namespace) -> int:
    """Set cost against something else."""
    from inferno_milp.studies.sweeps import find_frontier

    problem = read(arguments)
    with counted_progress("planning", quiet=arguments.quiet) as on_done:
        frame = find_frontier(
            problem, arguments.against, points=arguments.points, values=arguments.values, on_done=on_done,
            **running(arguments),
        )  # fmt: skip

    def draw(axes: Sequence[Axes]) -> None:
        from inferno_milp.report.plots import plot_frontier

        plot_frontier(frame, arguments.against, currency=problem.currency, ax=axes[0])

    return _show_frame(arguments, frame, draw)


def run_scale(arguments: Namespace) -> int:
    """Change one server's load."""
    from inferno_milp.report.studies import scaling_table
    from inferno_milp.studies.load_change import scale_server

    scaling = scale_server(
        read(arguments),
        arguments.server,
        rate_factor=arguments.rate_factor,
        tokens_factor=arguments.tokens_factor,
        gap=arguments.gap,
        time_limit_s=arguments.time_limit,
    )
    show(arguments, lambda console: list(scaling_table(scaling, console)), scaling.to_dict, scaling.to_frame)
    return 0 if scaling.replanned.serves_all else 1


def run_transition(arguments: Namespace) -> int:
    """Change all loads, and plan again."""
    from inferno_milp.problem.writing import problem_text
    from inferno_milp.report.studies import difference_report
    from inferno_milp.studies.load_change import change_loads, find_transition

    problem = read(arguments)
    changed = change_loads(problem, least_factor=arguments.least_factor, seed=arguments.seed)
    with busy("planning before and after", quiet=arguments.quiet):
        found = find_transition(problem, changed, gap=arguments.gap, time_limit_s=arguments.time_limit)
    if arguments.write:
        words = f"{problem.name}, every load changed at random (seed {arguments.seed}), with what ran before."
        write_text(problem_text(found.problem, description=words), arguments.write)

    def draw(axes: Sequence[Axes]) -> None:
        from inferno_milp.report.plots import plot_cost_difference, plot_replica_scaling

        plot_replica_scaling(found.before, found.after, ax=axes[0])
        plot_cost_difference(found.before, found.after, ax=axes[1])

    show(
        arguments,
        lambda console: list(difference_report(found.before, found.after, console)),
        found.to_dict,
        found.to_frame,
        draw,
        panels=2,
    )
    return 0 if found.after.serves_all else 1


def run_generate(arguments: Namespace) -> int:
    """Write a random problem."""
    from inferno_milp.problem.writing import problem_text
    from inferno_milp.studies.generate import generate_problem

    base = read(arguments)
    try:
        problem = generate_problem(base, servers=arguments.servers, tightness=arguments.tightness, seed=arguments.seed)
    except ValueError as error:
        raise OptionError(str(error)) from None
    words = f"A random problem in the manner of {base.name}: {arguments.servers} servers, seed {arguments.seed}."
    write_text(problem_text(problem, description=words), arguments.write)
    return 0


def run_plot(arguments: Namespace) -> int:
    """Draw a plan."""
    from inferno_milp.plan.file import read_plan

    if arguments.what == "batch_sizes" and not arguments.server:
        raise OptionError("--what batch_sizes needs --server: the server whose batch sizes are drawn")
    if arguments.plan is None:
        plan = plan_with(arguments, "milp")[1][0]
    else:
        read(arguments)
        plan = read_plan(arguments.plan)
    width, height = _size(plan, arguments.what)
    try:
        write_picture(lambda axes: _draw(plan, arguments, axes[0]), arguments.plot, width=width, height=height)
    except ValueError as error:
        raise OptionError(str(error)) from None
    return 0


def _size(plan: Plan, what: str) -> tuple[float, float]:
    models = len({server.model for server in plan.servers})
    classes = len({server.service_class for server in plan.servers})
    if what == "assignment":
        return 1.5 + 1.0 * models, 1.0 + 0.6 * classes
    if what == "targets":
        return 8.0, 1.0 + 0.2 * len(plan.servers)
    return max(6.0, 1.5 + 0.9 * models), 3.8


def _draw(plan: Plan, arguments: Namespace, ax: Axes) -> None:
    from inferno_milp.report import plots

    what = arguments.what
    if what == "assignment":
        plots.plot_assignment(plan, ax=ax)
    elif what == "capacity":
        plots.plot_capacity(plan, ax=ax)
    elif what in ("devices", "device_cost"):
        plots.plot_types(plan, "devices" if what == "devices" else "cost_per_hour", ax=ax)
    elif what == "targets":
        plots.plot_targets(plan, ax=ax)
    elif what == "batch_sizes":
        plots.plot_batch_sizes(plan, arguments.server, ax=ax)
    else:
        plots.plot_servers(plan, what, ax=ax)


def run_report(arguments: Namespace) -> int:
    """Make the page."""
    problem, (plan,) = plan_with(arguments, "milp")
    from inferno_milp.report.html import report_html  # what it needs has been looked for by now

    with progress(quiet=arguments.quiet) as on_stage:
        page = report_html(
            problem, plan=plan, requests=arguments.requests, gap=arguments.gap, jobs=arguments.jobs, on_stage=on_stage
        )
    write_text(page, arguments.html)
    return 0 if plan.serves_all else 1
