"""What `route`, `share` and `mix` take, and what they do."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferno_milp.cli.commands import read, show
from inferno_milp.cli.output import STDOUT, busy, check_outputs, write_text
from inferno_milp.cli.shared_arguments import Subparsers, add_output, add_problem, add_solving, add_volume
from inferno_milp.cli.values import edges
from inferno_milp.errors import OptionError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from inferno_milp.planning.routing.plans import RoutedPlan
    from inferno_milp.planning.routing.tables import TablePlan, ThroughputTable

SUBCOMMANDS = ("route", "share", "mix")


def add_routing(subparsers: Subparsers) -> None:
    """Add the subcommands."""
    words = "which accelerators carry which requests of a mix: a plan with a router's table"
    parser = subparsers.add_parser(
        "route",
        help=words,
        description=f"{words[:1].upper()}{words[1:]}. PROBLEM has a `mix` in the load of a server; or it is a table of "
        "throughputs in Mélange's layout.",
    )
    add_problem(parser)
    parser.add_argument("--routed-problem", metavar="FILE", help="write the problem in which each pool is a server")
    add_solving(parser)
    add_output(parser)
    parser.set_defaults(run=run_route)
    words = "which servers of one model should share their replicas, and what that saves"
    parser = subparsers.add_parser("share", help=words, description=f"{words[:1].upper()}{words[1:]}.")
    add_problem(parser)
    parser.add_argument("--shared-problem", metavar="FILE", help="write the problem in which each group is a server")
    add_solving(parser)
    add_output(parser)
    parser.set_defaults(run=run_share)
    parser = subparsers.add_parser("mix", help="a file of requests as a mix, for the load of a server")
    parser.add_argument("trace", type=Path, metavar="REQUESTS", help="CSV: prompt and output tokens of each request")
    parser.add_argument(
        "--input-edges", type=edges, metavar="N,N,…", help="upper edges of the buckets (default: Mélange's)"
    )
    parser.add_argument("--output-edges", type=edges, metavar="N,N,…", help="the same of the outputs")
    parser.add_argument("-o", "--output", metavar="FILE", default=STDOUT, help="write to FILE (default: stdout)")
    add_volume(parser)
    parser.set_defaults(run=run_mix, json=None, csv=None)


def run_mix(arguments: Namespace) -> int:
    """Write the load of a file of requests."""
    import yaml

    from inferno_milp.planning.routing.requests import INPUT_EDGES, OUTPUT_EDGES, mix_of_requests

    check_outputs(arguments)
    load = mix_of_requests(
        arguments.trace,
        input_edges=arguments.input_edges or INPUT_EDGES,
        output_edges=arguments.output_edges or OUTPUT_EDGES,
    )
    head = f"rate_per_s: {load['rate_per_s']}\n" if "rate_per_s" in load else ""
    lines = [yaml.safe_dump(b, default_flow_style=True, sort_keys=False, width=200).strip() for b in load["mix"]]
    write_text("".join([head, "mix:\n", *(f"  - {line}\n" for line in lines)]), arguments.output)
    return 0


def run_share(arguments: Namespace) -> int:
    """Plan with replicas shared, beside the plan without."""
    from inferno_milp.planning.sharing.share import share_replicas
    from inferno_milp.problem.writing import problem_text

    problem = read(arguments)
    with busy("planning with replicas shared", quiet=arguments.quiet):
        found = share_replicas(problem, time_limit_s=arguments.time_limit, gap=arguments.gap)
    if arguments.shared_problem:
        write_text(problem_text(found.problem), arguments.shared_problem)

    def lines() -> Iterator[str]:
        saving, currency = found.saving_per_hour, found.plan.currency
        for group in found.groups:
            yield f"shared: {', '.join(group)}"
        if not found.plan.serves_all:
            yield "not everybody can be served, shared or apart"
        elif saving is None:
            late = found.apart.status == "no_solution"
            yield "the time ran out before a plan apart was found" if late else "apart not everybody can be served"
        elif not found.groups:
            yield "sharing saves nothing: the plan is that without it"
        else:
            whole = found.apart.total_cost_per_hour or 0.0
            text = f"apart {whole:.10g} {currency}/h: sharing saves {saving:.10g} ({saving / whole:.1%})"
            fewer = found.replicas_saved
            yield f"{text} and {fewer} replica{'s' * (fewer != 1)}"

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report import plan_report

        return [*plan_report(found.plan, console), "", *lines()]

    show(arguments, parts, found.to_dict, found.plan.to_frame)
    return 0 if found.plan.serves_all else 1


def run_route(arguments: Namespace) -> int:
    """Route the requests of a problem, or of a table of throughputs."""
    from inferno_milp.planning.routing.tables import is_throughput_table, table_of
    from inferno_milp.problem.reading.source import load_source

    if arguments.problem.is_file():
        source = load_source(arguments.problem, str(arguments.problem))
        if is_throughput_table(source.data):
            check_outputs(arguments, [arguments.problem])
            return _route_table(arguments, table_of(source))
    return _route_problem(arguments)


def _route_problem(arguments: Namespace) -> int:
    from inferno_milp.planning.routing.route import find_routes
    from inferno_milp.problem.writing import problem_text

    problem = read(arguments)
    with busy("planning with requests routed by their sizes", quiet=arguments.quiet):
        found = find_routes(problem, time_limit_s=arguments.time_limit, gap=arguments.gap)
    if arguments.routed_problem:
        write_text(problem_text(found.problem), arguments.routed_problem)

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report import plan_report
        from inferno_milp.report.routing import routes_table

        table = [routes_table(found.routes, console), ""] if found.routes else []
        return [*table, *plan_report(found.plan, console), "", *_worth(found)]

    def frame() -> pd.DataFrame:
        return found.to_frame()

    show(arguments, parts, found.to_dict, frame)
    return 0 if found.plan.serves_all else 1


def _worth(found: RoutedPlan) -> Iterator[str]:
    saving, currency = found.saving_per_hour, found.plan.currency
    if not found.plan.serves_all:
        yield "not everybody can be served, with routing or without"
    elif not found.rounds:
        yield "the time ran out before any routing was tried"
    elif saving is None:
        yield "without routing by size not everybody can be served"
    elif not found.is_by_size:
        yield "routing by size saves nothing: all replicas of a server get the same mix"
    else:
        whole = found.unrouted.total_cost_per_hour or 0.0
        yield f"without routing by size {whole:.10g} {currency}/h: routing saves {saving:.10g} ({saving / whole:.1%})"


def _route_table(arguments: Namespace, table: ThroughputTable) -> int:
    import math

    from inferno_milp.planning.routing.tables import route_table

    if arguments.routed_problem:
        raise OptionError("a table of throughputs has no problem to be written")
    if arguments.unlimited:
        gpus = {name: gpu.model_copy(update={"count": None}) for name, gpu in table.gpu_info.items()}
        table = table.model_copy(update={"gpu_info": gpus})
    limit = math.inf if arguments.time_limit is None else arguments.time_limit
    with busy("planning with requests routed by their sizes", quiet=arguments.quiet):
        plan = route_table(table, time_limit_s=limit, gap=arguments.gap)
    show(arguments, lambda console: list(_table_parts(plan, console)), plan.to_dict, plan.to_frame)
    return 0 if plan.cost_per_hour is not None else 1


def _table_parts(plan: TablePlan, console: Console) -> Iterator[Any]:
    from inferno_milp.report.routing import gpus_table

    if plan.cost_per_hour is None:
        yield f"{plan.status}: no plan"
        return
    yield gpus_table(plan, console)
    yield ""
    yield f"{plan.status}: {plan.cost_per_hour:.10g} per hour (bound {plan.bound or 0.0:.10g})"
    if plan.unrouted_cost_per_hour is None:
        yield "without routing by size it cannot be served"
    else:
        yield f"without routing by size: {plan.unrouted_cost_per_hour:.10g}"
