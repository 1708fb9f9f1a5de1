"""Arguments that several subcommands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias, get_args

from inferno_milp.cli.parser import Parser
from inferno_milp.cli.values import count, gap, jobs, number, positive
from inferno_milp.plan import DEFAULT_GAP
from inferno_milp.problem.sections import Assignment, BatchChoice, BatchSizes, Law, SaturationPolicy

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"
LAWS = get_args(Law)


def add_problem(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Add the problem, or many, and what may be said in place of what it says."""
    words = "YAML or JSON file, or a folder of llm-inferno's six files"
    if many:
        parser.add_argument("problems", type=Path, nargs="+", metavar="PROBLEM", help=words)
        parser.set_defaults(current=None)
    else:
        parser.add_argument("problem", type=Path, metavar="PROBLEM", help=words)
        parser.add_argument("--current", type=Path, metavar="PLAN", help="a plan written by --json: what runs today")
    parser.add_argument("--unlimited", action="store_true", help="as if there were no limit on the devices")
    parser.add_argument("--law", choices=LAWS, help="law of the queueing analysis (default: the problem's)")
    parser.add_argument("--assignment", choices=get_args(Assignment), help="default: the problem's")
    parser.add_argument(
        "--batch-sizes", choices=get_args(BatchSizes), help="batch sizes to analyse (default: the problem's)"
    )
    parser.add_argument(
        "--batch-choice", choices=get_args(BatchChoice), help="of those with the same replicas (default: the problem's)"
    )
    parser.add_argument(
        "--saturation-policy",
        choices=get_args(SaturationPolicy),
        help="who gets what is left when not all can be served in full (default: the problem's)",
    )
    parser.add_argument("--max-changes", type=count, metavar="N", help="servers that may change their accelerator")
    parser.add_argument("--max-cost-per-hour", type=number, metavar="X", help="budget")


def add_solving(parser: argparse.ArgumentParser, time_limit: str = "none") -> None:
    """Add the limits of the solver; `time_limit` says what holds without one."""
    parser.add_argument("--time-limit", type=positive, metavar="S", help=f"seconds (default: {time_limit})")
    parser.add_argument(
        "--gap", type=gap, default=DEFAULT_GAP, metavar="G", help="relative gap to prove (default: %(default)g)"
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add where results go, and how much is told."""
    parser.add_argument("--json", metavar="FILE", help="write JSON to FILE; - is stdout, instead of the table")
    parser.add_argument("--csv", metavar="FILE", help="write CSV to FILE")
    add_volume(parser)


def add_volume(parser: argparse.ArgumentParser) -> None:
    """Add how much is told."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="no table on stdout; on stderr errors alone")
    group.add_argument("--verbose", action="store_true", help="tell more on stderr")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add how many processes do the work."""
    parser.add_argument("--jobs", type=jobs, default=1, metavar="N", help="processes; -1: one per core (default: 1)")


def add_spreading(parser: argparse.ArgumentParser) -> None:
    """Add where the work is done: processes here, or a Dask cluster."""
    add_jobs(parser)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler to send the work to, tcp://HOST:8786")
