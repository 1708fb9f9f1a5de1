"""What `disaggregate` takes, and what it does."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from inferno_milp.cli.commands import read, show
from inferno_milp.cli.output import busy, counted_progress, write_text
from inferno_milp.cli.shared_arguments import Subparsers, add_output, add_problem, add_solving
from inferno_milp.cli.values import positive

if TYPE_CHECKING:
    from rich.console import Console

    from inferno_milp.planning.disaggregation.plans import SplitPlan
    from inferno_milp.studies.simulate_splits import SplitSimulation

SUBCOMMANDS = ("disaggregate",)


def add_disaggregation(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    words = "which servers should compute prompts and outputs on engines of their own, and what that saves"
    parser = subparsers.add_parser("disaggregate", help=words, description=f"{words[:1].upper()}{words[1:]}.")
    add_problem(parser)
    parser.add_argument(
        "--network-gb-per-s",
        type=positive,
        metavar="G",
        help="speed of each device's network, GB/s, for accelerators that do not say (400 Gbit/s: 50)",
    )
    parser.add_argument(
        "--kv-bytes-per-token",
        type=positive,
        metavar="B",
        help="bytes of a token in the KV cache, for models that do not say and are not known",
    )
    parser.add_argument("--simulate", action="store_true", help="simulate what is split, from arrival to last token")
    parser.add_argument("--split-problem", metavar="FILE", help="write the problem in which each phase is a server")
    add_solving(parser, "none for each program")
    add_output(parser)
    parser.set_defaults(run=run_disaggregate)


def run_disaggregate(arguments: Namespace) -> int:
    """Plan with phases apart where that is cheaper, beside the plan with none."""
    from inferno_milp.planning.disaggregation.split import disaggregate
    from inferno_milp.problem.writing import problem_text
    from inferno_milp.studies.simulate_splits import simulate_splits

    problem = read(arguments)
    with busy("planning with phases apart", quiet=arguments.quiet):
        found = disaggregate(
            problem,
            network_gb_per_s=arguments.network_gb_per_s,
            kv_bytes_per_token=arguments.kv_bytes_per_token,
            time_limit_s=arguments.time_limit,
            gap=arguments.gap,
        )
    if arguments.split_problem:
        write_text(problem_text(found.problem), arguments.split_problem)
    simulated: tuple[SplitSimulation, ...] = ()
    if arguments.simulate:
        with counted_progress("simulating", quiet=arguments.quiet) as on_progress:
            simulated = simulate_splits(problem, found, on_progress=on_progress)

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report import plan_report
        from inferno_milp.report.disaggregation import simulations_table, splits_table

        tables = [splits_table(found, console), ""] if found.splits else []
        if simulated:
            tables += [simulations_table(simulated, console), ""]
        return [*plan_report(found.plan, console), "", *tables, *_worth(found)]

    def document() -> dict[str, Any]:
        more = {"simulation": [server.to_dict() for server in simulated]} if arguments.simulate else {}
        return {**found.to_dict(), **more}

    show(arguments, parts, document, found.to_frame)
    return 0 if found.plan.serves_all and not any(server.missed for server in simulated) else 1


def _worth(found: SplitPlan) -> Iterator[str]:
    saving, currency = found.saving_per_hour, found.plan.currency
    for name, reason in found.not_split.items():
        yield f"not split: {name}: {reason}"
    if not found.plan.serves_all:
        yield "not everybody can be served, with phases apart or together"
    elif saving is None:
        late = found.together.status == "no_solution"
        yield "the time ran out before a plan together was found" if late else "together not everybody can be served"
    elif found.why_together:
        yield found.why_together
    else:
        whole = found.together.total_cost_per_hour or 0.0
        yield f"together {whole:.10g} {currency}/h: phases apart save {saving:.10g} ({saving / whole:.1%})"
