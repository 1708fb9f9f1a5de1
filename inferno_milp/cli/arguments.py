"""What the command line takes."""

from __future__ import annotations

import argparse
from pathlib import Path

from inferno_milp._version import __version__
from inferno_milp.cli import (
    commands,
    control_arguments,
    disaggregation_arguments,
    horizon_arguments,
    profile_arguments,
    routing_arguments,
    service_arguments,
    study_arguments,
)
from inferno_milp.cli.parser import Parser
from inferno_milp.cli.shared_arguments import LAWS, Subparsers, add_output, add_problem, add_solving, add_volume
from inferno_milp.cli.values import count, covariance, number, positive, whole
from inferno_milp.plan import SOLVERS
from inferno_milp.problem.fields import LARGEST_BATCH
from inferno_milp.queueing.percentiles import read_percent

SUBCOMMANDS = (
    "optimize", "analyze", "candidates", "compare", "diff", "simulate", "validate", *study_arguments.SUBCOMMANDS,
    *profile_arguments.SUBCOMMANDS, *service_arguments.SUBCOMMANDS,
    *control_arguments.SUBCOMMANDS, *routing_arguments.SUBCOMMANDS,
    *horizon_arguments.SUBCOMMANDS, *disaggregation_arguments.SUBCOMMANDS,
)  # fmt: skip


def make_parser() -> Parser:
    """Build the parser; every subcommand sets `run`, which takes the parsed arguments and returns the exit code."""
    parser = Parser(
        prog="inferno-milp",
        description="Which GPU type, how many replicas and what batch size for each language model, at the least cost.",
        epilog="`inferno-milp PROBLEM …` is short for `inferno-milp optimize PROBLEM …`. "
        "Exit codes: 0 everybody is served; 1 not everybody, or no plan; 2 bad input or usage; 3 internal error.",
    )
    parser.add_argument("--version", action="version", version=f"inferno-milp {__version__}")
    commands_ = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    _add_optimize(commands_)
    _add_analyze(commands_)
    _add_candidates(commands_)
    _add_compare(commands_)
    _add_diff(commands_)
    _add_simulate(commands_)
    _add_validate(commands_)
    study_arguments.add_studies(commands_)
    profile_arguments.add_profiles(commands_)
    service_arguments.add_service(commands_)
    control_arguments.add_control(commands_)
    control_arguments.add_export(commands_)
    routing_arguments.add_routing(commands_)
    horizon_arguments.add_horizon(commands_)
    disaggregation_arguments.add_disaggregation(commands_)
    return parser


def _add_optimize(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("optimize", help="find the plan of least cost (the default)")
    add_problem(parser)
    parser.add_argument("--solver", choices=SOLVERS, default="milp", help="default: milp")
    add_solving(parser)
    parser.add_argument(
        "--write-model", metavar="FILE", help="write the mixed-integer program to FILE.lp or FILE.mps as well"
    )
    parser.add_argument("--verify", action="store_true", help="simulate the plan, and say where it predicts wrongly")
    add_output(parser)
    parser.set_defaults(run=commands.run_optimize)


def _add_analyze(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "analyze",
        help="queueing analysis of one engine",
        description="Analyse one engine: a server of a problem on an accelerator, or parameters given here.",
    )
    parser.add_argument("problem", nargs="?", type=Path, metavar="PROBLEM", help="a problem, with --server and -a")
    parser.add_argument("--server", help="server of the problem, by name")
    parser.add_argument("-a", "--accelerator", help="accelerator of the problem, by name")
    engine = parser.add_argument_group("engine", "needed without a problem; with one they replace its figures")
    for name, unit in (
        ("alpha-ms", "ms, decoding: base"),
        ("beta-ms", "ms, decoding: per running sequence"),
        ("gamma-ms", "ms, prompt: base"),
        ("delta-ms", "ms, prompt: per token"),
        ("input-tokens", "mean prompt tokens"),
        ("output-tokens", "mean output tokens"),
        ("kappa-ms", "ms, per context token read"),
        ("overhead-ms", "ms, outside the engine, before the first token"),
        ("prefill-quadratic-ms", "ms, per squared prompt token"),
        ("lag-iterations", "iterations by which tokens come late under load"),
        ("cv2-input", "squared coefficient of variation of prompt lengths (default: 0)"),
        ("cv2-output", "the same of output lengths (default: 1, geometric)"),
        ("cv2-arrival", "the same of times between arrivals (default: 1, Poisson)"),
        ("token-budget", "tokens of an iteration (default: 8192)"),
        ("kv-tokens", "tokens that the KV cache holds (default: no limit)"),
        ("max-blocking", "share of requests that may be turned away (default: 0.01)"),
    ):
        engine.add_argument(f"--{name}", type=number, metavar="X", help=unit)
    words = "relative covariance of prompt and output lengths (default: 0, independent)"
    engine.add_argument("--cov-lengths", type=covariance, metavar="X", help=words)
    engine.add_argument("--max-batch", type=whole(1, LARGEST_BATCH), metavar="N", help="max batch size")
    engine.add_argument("--max-queue", type=count, metavar="Q", help="queue limit (default: 10 × N)")
    asked = parser.add_argument_group("what is asked")
    asked.add_argument("--rate-per-s", type=number, nargs="+", metavar="R", help="rates to analyse, requests/s")
    for name, latency in (("ttft-ms", "time to first token"), ("itl-ms", "inter-token latency")):
        asked.add_argument(
            f"--{name}",
            type=_target,
            nargs="+",
            metavar="MS",
            help=f"targets of the {latency}: 1000 is its mean, p95=1000 a percentile",
        )
    parser.add_argument("--law", choices=LAWS, help="law of the queueing analysis (default: the problem's)")
    parser.add_argument("--plot", metavar="FILE", help="draw latencies against the rate: .svg, .png or .pdf")
    add_output(parser)
    parser.set_defaults(run=commands.run_analyze)


def _add_candidates(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("candidates", help="what every server could run on, and why not on the rest")
    add_problem(parser)
    parser.add_argument("--server", action="append", metavar="NAME", help="only this server (may be repeated)")
    parser.add_argument("--undominated", action="store_true", help="only those that a plan of least cost may need")
    parser.add_argument("--rejected", action="store_true", help="show what no plan of least cost can use, and why")
    add_output(parser)
    parser.set_defaults(run=commands.run_candidates)


def _add_compare(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("compare", help="greedy beside the mixed-integer program")
    add_problem(parser)
    add_solving(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_compare)


def _add_diff(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("diff", help="what changes from one plan to another")
    parser.add_argument("before", type=Path, metavar="BEFORE", help="a plan written by --json")
    parser.add_argument("after", type=Path, metavar="AFTER", help="another one")
    add_output(parser)
    parser.set_defaults(run=commands.run_diff)


def _add_simulate(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "simulate",
        help="simulate a plan, request by request, beside what it predicts",
        description="Simulate the engines of a plan, iteration by iteration, and compare with what the plan predicts.",
    )
    add_problem(parser)
    parser.add_argument("--plan", type=Path, metavar="FILE", help="a plan written by --json (default: plan first)")
    parser.add_argument(
        "--requests",
        type=whole(1000, 999_999_999),
        metavar="N",
        help="per allocation, at most; fewer where intervals are narrow before (default: 4000000, and 10000000 in all)",
    )
    parser.add_argument(
        "--burstiness", type=number, metavar="C", help="c² of the times between arrivals (default: each load's own)"
    )
    parser.add_argument("--seed", type=count, default=0, metavar="S", help="of the random numbers (default: 0)")
    add_solving(parser)
    add_output(parser)
    parser.set_defaults(run=commands.run_simulate, solver="milp")


def _add_validate(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("validate", help="read problems and tell everything that is wrong with them")
    parser.add_argument("problems", nargs="+", type=Path, metavar="PROBLEM")
    add_volume(parser)
    parser.set_defaults(run=commands.run_validate)


def _target(text: str) -> tuple[str, float]:
    statistic, equals, limit = text.rpartition("=")
    if equals and statistic != "mean" and read_percent(statistic) is None:
        raise argparse.ArgumentTypeError(f"{statistic!r} is neither mean nor a percentile from p50 to p99.9")
    return statistic or "mean", positive(limit)
