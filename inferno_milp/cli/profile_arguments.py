"""What `fit` and `models` take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from inferno_milp.cli import profile_commands as commands
from inferno_milp.cli.shared_arguments import Subparsers, add_output
from inferno_milp.cli.values import number, positive, tokens, whole
from inferno_milp.problem.architecture import Precision
from inferno_milp.problem.fields import LARGEST_BATCH

SUBCOMMANDS = ("fit", "models")


def add_profiles(subparsers: Subparsers) -> None:
    """Add the subcommands."""
    _add_fit(subparsers)
    _add_models(subparsers)


def _add_fit(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "fit",
        help="a profile from benchmark files",
        description="Fit a profile to files of guidellm, vllm bench serve, aiperf, genai-perf, inference-perf, or CSV: "
        "all runs of one model on one accelerator. With --update, refine a profile by a stream of observations.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what a benchmark tool wrote")
    parser.add_argument("--model", required=True, metavar="NAME", help="language model, for the profile")
    parser.add_argument("--accelerator", required=True, metavar="NAME", help="accelerator, by name: H100, 2xH100")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="add the profile to this YAML file (comments are not kept), or begin one"
    )
    parser.add_argument("--source", metavar="TEXT", help="what was measured, noted in the profile")
    engine = parser.add_argument_group("the engine", "what the runs do not say")
    engine.add_argument("--accelerators-per-replica", type=whole(1, 10_000), default=1, metavar="N", help="default: 1")
    engine.add_argument("--precision", choices=get_args(Precision), help="of the weights (default: as published)")
    engine.add_argument("--max-batch-size", type=whole(1, LARGEST_BATCH), metavar="N", help="vLLM's --max-num-seqs")
    engine.add_argument("--kv-tokens", type=whole(1, 10**9), metavar="N", help="tokens that the KV cache holds")
    engine.add_argument(
        "--token-budget", type=whole(1, 10**9), default=8192, metavar="N", help="tokens of an iteration (default: 8192)"
    )
    runs = parser.add_argument_group("the runs")
    runs.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="LABEL=VALUE",
        help="only runs with this label: a column of a table, model, accelerator … (may be repeated)",
    )
    runs.add_argument(
        "--cv2-input", type=number, default=0.0, metavar="X", help="where a file does not say (default: 0)"
    )
    runs.add_argument("--cv2-output", type=number, default=0.0, metavar="X", help="the same of outputs (default: 0)")
    runs.add_argument("--allow-mock", action="store_true", help="also runs of mock servers, which tell no speed")
    parser.add_argument("--update", type=Path, metavar="FILE", help="refine the profile that this file has of the pair")
    parser.add_argument(
        "--forgetting",
        type=positive,
        metavar="F",
        help="what one observation leaves of what was learnt (default: 0.98)",
    )
    _add_catalogue(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw predicted against measured: .svg, .png or .pdf")
    add_output(parser)
    parser.set_defaults(run=commands.run_fit)


def _add_catalogue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--catalogue",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="accelerators, language_models and profiles of your own, before those that come along (may be repeated)",
    )


def _add_models(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("models", help="the catalogue: models, accelerators, profiles")
    actions = parser.add_subparsers(title="what", metavar="WHAT", required=True)

    def add(name: str, words: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=words, description=f"{words[:1].upper()}{words[1:]}.")
        _add_catalogue(action)
        return action

    action = add("list", "profiles there are, with their errors")
    action.add_argument("--model", metavar="TEXT", help="only models with this in their name")
    action.add_argument("--accelerator", metavar="TEXT", help="only accelerators with this in their name")
    action.add_argument("--kind", choices=("measured", "estimated"), help="only these")
    add_output(action)
    action.set_defaults(run=commands.run_list)

    action = add("show", "all that is known of a model or an accelerator")
    action.add_argument("name", metavar="NAME", help="a model or an accelerator")
    add_output(action)
    action.set_defaults(run=commands.run_show)

    action = add(
        "compare", "a model on all accelerators: highest rate under the promises, and price per million tokens"
    )
    action.add_argument("model", metavar="MODEL")
    action.add_argument("--input-tokens", type=positive, default=1000.0, metavar="N", help="default: 1000")
    action.add_argument("--output-tokens", type=tokens, default=250.0, metavar="N", help="default: 250")
    action.add_argument("--ttft-ms", type=positive, default=1000.0, metavar="MS", help="promise, mean (default: 1000)")
    action.add_argument("--itl-ms", type=positive, default=50.0, metavar="MS", help="promise, mean (default: 50)")
    add_output(action)
    action.set_defaults(run=commands.run_compare_models)

    action = add("estimate", "a profile for a pair that was not measured, from the figures of both")
    action.add_argument("model", metavar="MODEL", help="of the catalogue's language_models")
    action.add_argument("accelerator", metavar="ACCELERATOR", help="of the catalogue's accelerators")
    action.add_argument("--devices", type=whole(1, 1024), metavar="N", help="an arrangement of so many")
    action.add_argument("--precision", choices=get_args(Precision), help="of the weights (default: as published)")
    action.add_argument("-o", "--output", metavar="FILE", help="add the profile to this YAML file, or begin one")
    add_output(action)
    action.set_defaults(run=commands.run_estimate)
