"""What `periods` and `scenarios` take, and what they do."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from inferno_milp.cli.commands import read, running, show
from inferno_milp.cli.output import busy
from inferno_milp.cli.shared_arguments import Subparsers, add_output, add_problem, add_solving, add_spreading
from inferno_milp.cli.values import share

if TYPE_CHECKING:
    from rich.console import Console

    from inferno_milp.planning.horizon.plans import HorizonPlan

SUBCOMMANDS = ("periods", "scenarios")
CRITERIA = ("expected", "worst")


def add_horizon(subparsers: Subparsers) -> None:
    """Add the subcommands."""
    words = "the replicas of every period of a day, and what to reserve, in one program"
    parser = subparsers.add_parser("periods", help=words, description=f"{words[:1].upper()}{words[1:]}.")
    add_problem(parser)
    add_solving(parser, "none")
    add_spreading(parser)
    add_output(parser)
    parser.set_defaults(run=run_periods)
    words = "what to reserve and where to run for loads that are not certain, and what knowing would be worth"
    parser = subparsers.add_parser("scenarios", help=words, description=f"{words[:1].upper()}{words[1:]}.")
    add_problem(parser)
    parser.add_argument(
        "--criterion", choices=CRITERIA, default="expected", help="cost that counts (default: expected)"
    )
    parser.add_argument(
        "--served", type=share, default=1.0, metavar="P", help="least probability that all are served (default: 1)"
    )
    add_solving(parser, "none")
    add_spreading(parser)
    add_output(parser)
    parser.set_defaults(run=run_scenarios)


def run_periods(arguments: Namespace) -> int:
    """Plan periods, beside the peak all the time and each period by itself."""
    from inferno_milp.planning.horizon.plan import plan_periods

    problem = read(arguments)
    with busy("planning all periods together", quiet=arguments.quiet):
        found = plan_periods(problem, **running(arguments))

    def lines() -> Iterator[str]:
        yield from _beside(found.plan, "all the time for the peak", found.peak_cost_per_hour)
        moving = ", moving servers" if found.replanned_moves else ""
        yield from _beside(found.plan, f"each period planned by itself{moving}", found.replanned_cost_per_hour)

    return _show(arguments, found.plan, found.to_dict, lines)


def run_scenarios(arguments: Namespace) -> int:
    """Plan scenarios, beside who knows which comes and who plans for the mean."""
    from inferno_milp.planning.horizon.plan import plan_scenarios

    problem = read(arguments)
    with busy("planning for all scenarios", quiet=arguments.quiet):
        found = plan_scenarios(problem, criterion=arguments.criterion, served=arguments.served, **running(arguments))

    def lines() -> Iterator[str]:
        if arguments.criterion == "expected" and arguments.served == 1:
            yield from _beside(found.plan, "knowing which comes", found.known_cost_per_hour)
            yield from _beside(found.plan, "planning for the mean", found.mean_cost_per_hour)

    return _show(arguments, found.plan, found.to_dict, lines)


def _beside(plan: HorizonPlan, words: str, cost: float | None) -> Iterator[str]:
    if cost is None:
        yield f"{words}: no plan was found"
    elif plan.cost_per_hour is not None:
        part = f" ({plan.cost_per_hour / cost - 1:+.1%} here)" if cost else ""
        yield f"{words}: {cost:.10g} {plan.currency}/h{part}"


def _show(
    arguments: Namespace, plan: HorizonPlan, document: Callable[[], Any], lines: Callable[[], Iterator[str]]
) -> int:
    def parts(console: Console) -> list[Any]:
        from inferno_milp.plan.claims import profile_rows
        from inferno_milp.report.horizon import costs_table, horizon_lines, moments_table
        from inferno_milp.report.plans import profiles_table

        tables = [moments_table(plan, console), "", costs_table(plan, console), ""] if plan.has_plan else []
        if profiles := profile_rows(plan.profiles):
            tables += [profiles_table(profiles, console), ""]
        return [*tables, *horizon_lines(plan), *(lines() if plan.has_plan else ())]

    show(arguments, parts, document, plan.to_frame)
    return 0 if plan.has_plan and not plan.unserved and not plan.missed else 1
