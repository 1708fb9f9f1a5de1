"""`analyze` for one engine: its figures from a problem, from options, or from both."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferno_milp.errors import OptionError, nearest
from inferno_milp.problem import Problem
from inferno_milp.queueing import Analysis, Sizing, analyze, size
from inferno_milp.read import read_problem

ENGINE = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "input_tokens", "output_tokens", "max_batch")
OPTIONAL = ("kappa_ms", "max_queue")
STEPS = 10
COLUMNS = (
    "rate_per_s", "ttft_ms", "itl_ms", "wait_ms", "throughput_per_s", "running", "utilization", "blocking", "p_wait",
    "p_empty",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineAnalysis:
    """An engine, its highest rate, and its figures at several rates."""

    engine: dict[str, float]
    targets: dict[str, float | None]
    sizing: Sizing
    analysis: Analysis

    @property
    def sentence(self) -> str:
        """The highest rate in words."""
        promised = " and ".join(
            f"{name} ≤ {value:g} ms"
            for name, value in (("TTFT", self.targets["ttft_ms"]), ("ITL", self.targets["itl_ms"]))
            if value is not None
        )
        rate = float(self.sizing.max_rate_per_s)
        verdict = str(self.sizing.verdict)
        if verdict == "infeasible":
            best = self.sizing.analysis
            return f"no rate keeps {promised}: at best TTFT is {best.ttft_ms:.4g} ms and ITL {best.itl_ms:.4g} ms"
        if not np.isfinite(rate):
            return "any rate is served: such requests take no time"
        full = "where the engine is nearly full" if self.targets["tps"] is None else "0.9 of what fills the engine"
        limit = f"with {promised}" if verdict == "met" else full
        return f"highest rate: {rate:.6g} requests/s ({rate * 60:.6g} per minute), {limit}"

    def records(self) -> list[dict[str, float]]:
        """Return one record per rate."""
        p95 = self.analysis.ttft_percentile(95)
        return [
            {**{name: float(getattr(self.analysis, name)[i]) for name in COLUMNS}, "ttft_p95_ms": float(p95[i])}
            for i in range(p95.size)
        ]

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        rate = float(self.sizing.max_rate_per_s)
        return {
            "engine": self.engine,
            "targets": self.targets,
            "max_rate_per_s": rate if np.isfinite(rate) else None,
            "verdict": str(self.sizing.verdict),
            "rates": self.records(),
        }


def analyze_engine(arguments: Namespace) -> EngineAnalysis:
    """Find out which engine is meant, size it and analyse it.

    Raises
    ------
    OptionError
        If figures are missing, or a name is not known.
    """
    engine: dict[str, float] = {}
    targets: dict[str, float | None] = {"ttft_ms": None, "itl_ms": None, "tps": None}
    if arguments.problem is not None:
        from_problem, promised = _from_problem(arguments)
        engine, targets = from_problem, {**targets, **promised}
    elif arguments.server or arguments.accelerator:
        raise OptionError("--server and --accelerator name parts of a PROBLEM: give one")
    for name in (*ENGINE, *OPTIONAL):
        if getattr(arguments, name) is not None:
            engine[name] = getattr(arguments, name)
    missing = [f"--{name.replace('_', '-')}" for name in ENGINE if name not in engine]
    if missing:
        raise OptionError(f"missing: {', '.join(missing)} (or give a PROBLEM with --server and --accelerator)")
    for name in ("ttft_ms", "itl_ms"):
        if getattr(arguments, name) is not None:
            targets[name] = getattr(arguments, name)
    try:
        sizing = size(arguments.law, **engine, **{k: v for k, v in targets.items() if v is not None})
        highest = float(sizing.max_rate_per_s)
        rates = arguments.rate_per_s
        if rates is None:
            top = highest if np.isfinite(highest) and highest > 0 else 1.0
            rates = top * np.arange(1, STEPS + 1) / STEPS
        analysis = analyze(arguments.law, **engine, rate_per_s=np.asarray(rates, dtype=float))
    except ValueError as error:
        raise OptionError(str(error)) from None
    return EngineAnalysis(engine, targets, sizing, analysis)


def _from_problem(arguments: Namespace) -> tuple[dict[str, float], dict[str, float | None]]:
    problem = read_problem(arguments.problem)
    if not (arguments.server and arguments.accelerator):
        raise OptionError("with a PROBLEM, --server and --accelerator say which engine is meant")
    server = problem.servers[find_server(problem, arguments.server)]
    if arguments.accelerator not in {a.name for a in problem.accelerators}:
        hint = nearest(arguments.accelerator, (a.name for a in problem.accelerators))
        raise OptionError(f"unknown accelerator {arguments.accelerator!r}; {hint}")
    profiles = {p.accelerator: p for p in problem.profiles if p.model == server.model}
    if arguments.accelerator not in profiles:
        there = ", ".join(sorted(profiles))
        raise OptionError(f"no profile of {server.model} on {arguments.accelerator}; there are some on {there}")
    profile = profiles[arguments.accelerator]
    engine: dict[str, float] = {
        name: getattr(profile, name) for name in ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "kappa_ms")
    }
    engine["max_batch"] = profile.max_batch_size
    if server.load is not None:
        engine |= {"input_tokens": server.load.input_tokens, "output_tokens": server.load.output_tokens}
        engine["max_batch"] = profile.largest_batch(server.load.output_tokens)
    elif arguments.input_tokens is None or arguments.output_tokens is None:
        raise OptionError(f"{server.name} has no load: give --input-tokens and --output-tokens")
    if server.max_batch_size is not None:
        engine["max_batch"] = server.max_batch_size
    if server.max_queue_size is not None:
        engine["max_queue"] = server.max_queue_size
    promised = problem.targets_of(server)
    return engine, {"ttft_ms": promised.ttft_ms, "itl_ms": promised.itl_ms, "tps": promised.tps}


def find_server(problem: Problem, name: str) -> int:
    """Return the position of a server, by name.

    Raises
    ------
    OptionError
        If there is none of that name.
    """
    by_name = {server.name: i for i, server in enumerate(problem.servers)}
    if name not in by_name:
        raise OptionError(f"unknown server {name!r}; {nearest(name, by_name)}")
    return by_name[name]
