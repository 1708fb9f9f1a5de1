"""What the subcommands take that question a plan: why, what if, what is it worth, how does it look."""

from __future__ import annotations

import argparse
from pathlib import Path

from inferno_milp.cli import study_commands as commands
from inferno_milp.cli.shared_arguments import (
    Subparsers,
    add_jobs,
    add_output,
    add_problem,
    add_solving,
    add_spreading,
    add_volume,
)
from inferno_milp.cli.values import factor, positive, whole

SUBCOMMANDS = (
    "explain", "prices", "whatif", "sweep", "clusters", "frontier", "scale", "transition", "generate", "plot", "report"
)  # fmt: skip


def add_studies(subparsers: Subparsers) -> None:
    """Add the subcommands."""

    def add(name: str, words: str) -> argparse.ArgumentParser:
        parser = subparsers.add_parser(name, help=words, description=f"{words[:1].upper()}{words[1:]}.")
        add_problem(parser)
        return parser

    parser = add("explain", "why a plan is as it is, and what else each server could run on")
    parser.add_argument(
        "--server", action="append", metavar="NAME", help="only this server (may be repeated), and in detail"
    )
    parser.add_argument("--all", action="store_true", help="plan anew with every alternative of every server")
    add_solving(parser, "none for the plan, 5 for each that is compared with it")
    add_output(parser)
    parser.set_defaults(run=commands.run_explain)

    parser = add("prices", "what one device more or fewer is worth, and what the promises cost")
    parser.add_argument(
        "--relaxed", type=factor, default=0.1, metavar="X", help="how much looser a promise is made (default: 0.1)"
    )
    parser.add_argument("--only", choices=("devices", "promises"), help="price these alone, which is quicker")
    parser.add_argument("--plot", metavar="FILE", help="draw them: .svg, .png or .pdf")
    add_solving(parser, "10 for each plan")
    add_spreading(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_prices, gap=0.0)

    parser = add("whatif", "what becomes of the plan with other figures")
    parser.add_argument(
        "--set",
        action="append",
        required=True,
        dest="settings",
        metavar="PATH=VALUE",
        help="a figure to set, by names: servers.NAME.load.rate_per_min=240, capacity.H100=96; *= multiplies, += adds, "
        "and * in a path stands for anything (may be repeated)",
    )
    parser.add_argument("--transition", action="store_true", help="what runs today is the plan before the change")
    add_solving(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_whatif)

    parser = add("sweep", "the plan for every combination of some figures")
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        dest="axes",
        metavar="PATH=VALUES",
        help="a figure and its values, 0.5,1,2 or FIRST:LAST:COUNT; *= and += as for whatif (may be repeated)",
    )
    parser.add_argument(
        "--set", action="append", dest="settings", default=[], metavar="PATH=VALUE", help="as for whatif"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw it: .svg, .png or .pdf")
    parser.add_argument(
        "--plot-y", default="total_cost_per_hour", metavar="COLUMN", help="what is drawn (default: cost)"
    )
    _add_into(parser, "outcomes")
    add_solving(parser)
    add_spreading(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_sweep)

    words = "many clusters, each a problem of its own, planned by many workers"
    parser = subparsers.add_parser("clusters", help=words, description=f"{words[:1].upper()}{words[1:]}.")
    add_problem(parser, many=True)
    _add_into(parser, "plans")
    add_solving(parser)
    add_spreading(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_clusters)

    parser = add("frontier", "least cost against load, power, or time to first token")
    parser.add_argument(
        "--against", choices=("load", "power", "ttft-p95"), required=True, help="what cost is set against"
    )
    parser.add_argument("--points", type=whole(2, 10_000), default=12, metavar="N", help="limits to try (default: 12)")
    parser.add_argument(
        "--values", type=positive, nargs="+", metavar="X", help="these limits (W, ms) or factors instead"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw it: .svg, .png or .pdf")
    add_solving(parser)
    add_spreading(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_frontier)

    parser = add("scale", "what one server may do when its load changes")
    parser.add_argument("--server", required=True, metavar="NAME", help="whose load changes")
    parser.add_argument(
        "--rate-factor", type=positive, default=1.0, metavar="X", help="on its arrival rate (default: 1)"
    )
    parser.add_argument("--tokens-factor", type=positive, default=1.0, metavar="X", help="on its tokens (default: 1)")
    add_solving(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_scale)

    parser = add("transition", "change all loads at random, and plan again from what runs then")
    parser.add_argument(
        "--least-factor", type=factor, default=0.1, metavar="A", help="factors are within [A, 2 - A) (default: 0.1)"
    )
    _add_seed(parser)
    parser.add_argument("--write", metavar="FILE", help="write the problem after the change, with what runs, as YAML")
    parser.add_argument("--plot", metavar="FILE", help="draw the differences: .svg, .png or .pdf")
    add_solving(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_transition)

    parser = add("generate", "a random problem of any size in the manner of a given one, as YAML")
    parser.add_argument("--servers", type=whole(1, 100_000), required=True, metavar="N", help="number of servers")
    parser.add_argument(
        "--tightness",
        type=positive,
        metavar="T",
        help="devices of the types used most, as a part of their use without limits (default: no limits)",
    )
    _add_seed(parser)
    parser.add_argument("--write", metavar="FILE", default="-", help="where to (default: stdout)")
    add_volume(parser)
    parser.set_defaults(run=commands.run_generate, json=None, csv=None)

    parser = add("plot", "draw a plan")
    parser.add_argument("--what", choices=commands.PICTURES, default="assignment", help="default: assignment")
    parser.add_argument("--plan", type=Path, metavar="PLAN", help="a plan written by --json (default: plan first)")
    parser.add_argument("--server", metavar="NAME", help="for --what batch_sizes: which server")
    parser.add_argument("--write", dest="plot", required=True, metavar="FILE", help="where to: .svg, .png or .pdf")
    add_solving(parser)
    add_volume(parser)
    parser.set_defaults(run=commands.run_plot, json=None, csv=None)

    parser = add("report", "a plan, why, its prices, curves and its check as one page")
    parser.add_argument("--html", required=True, metavar="FILE", help="where to")
    parser.add_argument(
        "--requests", type=whole(1000, 10**9), default=4000, metavar="N", help="simulated per allocation"
    )
    add_solving(parser)
    add_jobs(parser)
    add_volume(parser)
    parser.set_defaults(run=commands.run_report, json=None, csv=None)


def _add_into(parser: argparse.ArgumentParser, what: str) -> None:
    words = f"write {what} as they come, as Parquet; go on with what is there"
    parser.add_argument("--into", type=Path, metavar="FOLDER", help=words)


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=whole(0, 10**9), default=0, metavar="S", help="of the random numbers (default: 0)"
    )
