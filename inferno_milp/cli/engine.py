"""`analyze` for one engine: its figures from a problem, from options, or from both."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from inferno_milp.engines import OF_LOAD, OF_PROFILE
from inferno_milp.errors import OptionError, nearest
from inferno_milp.fields import Targets
from inferno_milp.queueing import Analysis, EngineParameters, Sizing, analyze, size
from inferno_milp.read import read_problem
from inferno_milp.reasons import latency_name
from inferno_milp.sections import Law, Options

ENGINE = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "input_tokens", "output_tokens", "max_batch")
OPTIONAL = (
    "max_queue", "kappa_ms", "overhead_ms", "prefill_quadratic_ms", "lag_iterations", "cv2_input", "cv2_output",
    "cv2_arrival", "token_budget", "kv_tokens", "max_blocking",
)  # fmt: skip
STEPS = 10
CURVE_POINTS, CURVE_END = 61, 1.1
"""Rates of a curve, from 0 to a little beyond the highest one."""
COLUMNS = (
    "rate_per_s", "ttft_ms", "itl_ms", "wait_ms", "throughput_per_s", "running", "utilization", "blocking", "p_wait",
    "p_empty",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineAnalysis:
    """An engine, its highest rate, and its figures at several rates."""

    engine: dict[str, float]
    law: str
    targets: Targets
    sizing: Sizing
    analysis: Analysis

    @property
    def sentence(self) -> str:
        """The highest rate in words."""
        promised = " and ".join(
            f"{latency_name(latency, statistic)} ≤ {limit:g} ms"
            for latency, statistic, limit in self.targets.limits_ms()
        )
        rate = float(self.sizing.max_rate_per_s)
        verdict = str(self.sizing.verdict)
        if verdict == "infeasible":
            if not self.sizing.fits:
                return "the KV cache does not hold one such request"
            best = self.sizing.analysis
            most = self.engine.get("max_blocking", 0.01)
            if self.law != "inferno" and best.blocking > most:
                return f"the queue is so short that at any rate more than {most:g} of the requests are turned away"
            return f"no rate keeps {promised}: at best TTFT is {best.ttft_ms:.4g} ms and ITL {best.itl_ms:.4g} ms"
        if not np.isfinite(rate):
            return "any rate is served: such requests take no time"
        full = f"where {self.engine.get('max_blocking', 0.01):g} of the requests are turned away"
        if self.law == "inferno":
            full = "where the engine is nearly full" if self.targets.tps is None else "0.9 of what fills the engine"
        limit = f"with {promised}" if verdict == "met" else full
        return f"highest rate: {rate:.6g} requests/s ({rate * 60:.6g} per minute), {limit}"

    def draw(self, axes: Sequence[Any]) -> None:
        """Draw both latencies against the rate."""
        from inferno_milp.plots import plot_analysis

        highest = float(self.sizing.max_rate_per_s) if self.sizing.verdict != "infeasible" else math.nan
        top = max(highest if math.isfinite(highest) else 0.0, float(self.analysis.rate_per_s.max()))
        rates = top * np.linspace(0, CURVE_END, CURVE_POINTS)
        curve = analyze(self.law, **cast(EngineParameters, self.engine), rate_per_s=rates)
        for latency, ax in zip(("ttft_ms", "itl_ms"), axes, strict=True):
            plot_analysis(curve, latency, targets=self.targets, max_rate_per_s=highest, ax=ax)  # type: ignore[arg-type]

    def records(self) -> list[dict[str, float]]:
        """Return one record per rate."""
        analysis = self.analysis
        columns = {name: getattr(analysis, name) for name in COLUMNS}
        columns |= {f"ttft_p{p}_ms": analysis.ttft_percentile(p) for p in (50, 95, 99)}
        columns |= {f"itl_p{p}_ms": analysis.itl_percentile(p) for p in (95, 99)}
        return [{name: float(values[i]) for name, values in columns.items()} for i in range(analysis.ttft_ms.size)]

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        rate = float(self.sizing.max_rate_per_s)
        return {
            "law": self.law,
            "engine": self.engine,
            "targets": self.targets.model_dump(),
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
    targets, law = Targets(), Options().law
    if arguments.problem is not None:
        engine, targets, law = _from_problem(arguments)
    elif arguments.server or arguments.accelerator:
        raise OptionError("--server and --accelerator name parts of a PROBLEM: give one")
    law = arguments.law or law
    for name in (*ENGINE, *OPTIONAL):
        if getattr(arguments, name) is not None:
            engine[name] = getattr(arguments, name)
    missing = [f"--{name.replace('_', '-')}" for name in ENGINE if name not in engine]
    if missing:
        raise OptionError(f"missing: {', '.join(missing)} (or give a PROBLEM with --server and --accelerator)")
    targets = targets.model_copy(update=_given_targets(arguments))
    limits: dict[str, dict[str, float]] = {"ttft_ms": {}, "itl_ms": {}}
    for latency, statistic, limit in targets.limits_ms():
        limits[latency][statistic] = limit
    parameters = cast(EngineParameters, engine)
    try:
        sizing = size(law, **parameters, ttft_ms=limits["ttft_ms"], itl_ms=limits["itl_ms"], tps=targets.tps)
        highest = float(sizing.max_rate_per_s)
        rates = arguments.rate_per_s
        if rates is None:
            top = highest if np.isfinite(highest) and highest > 0 else 1.0
            rates = top * np.arange(1, STEPS + 1) / STEPS
        analysis = analyze(law, **parameters, rate_per_s=np.asarray(rates, dtype=float))
    except ValueError as error:
        raise OptionError(str(error)) from None
    return EngineAnalysis(engine, law, targets, sizing, analysis)


def _given_targets(arguments: Namespace) -> dict[str, dict[str, float]]:
    given = {}
    for name in ("ttft_ms", "itl_ms"):
        pairs = getattr(arguments, name)
        if pairs is not None:
            given[name] = dict(pairs)
            if len(given[name]) < len(pairs):
                raise OptionError(f"--{name.replace('_', '-')}: give one target for each statistic")
    return given


def _from_problem(arguments: Namespace) -> tuple[dict[str, float], Targets, Law]:
    problem = read_problem(arguments.problem)
    if not (arguments.server and arguments.accelerator):
        raise OptionError("with a PROBLEM, --server and --accelerator say which engine is meant")
    server = problem.servers[problem.positions_of([arguments.server])[0]]
    if arguments.accelerator not in {a.name for a in problem.accelerators}:
        hint = nearest(arguments.accelerator, (a.name for a in problem.accelerators))
        raise OptionError(f"unknown accelerator {arguments.accelerator!r}; {hint}")
    profiles = {p.accelerator: p for p in problem.profiles if p.model == server.model}
    if arguments.accelerator not in profiles:
        there = ", ".join(sorted(profiles))
        raise OptionError(f"no profile of {server.model} on {arguments.accelerator}; there are some on {there}")
    profile = profiles[arguments.accelerator]
    if server.load is None and (arguments.input_tokens is None or arguments.output_tokens is None):
        raise OptionError(f"{server.name} has no load: give --input-tokens and --output-tokens")
    fitting = profile.max_batch_size if server.load is None else profile.largest_batch(server.load.output_tokens)
    given: dict[str, float | None] = {
        **{name: getattr(profile, name) for name in OF_PROFILE},
        **({name: getattr(server.load, name) for name in OF_LOAD} if server.load else {}),
        "max_batch": server.max_batch_size or fitting,
        "max_queue": server.max_queue_size,
        "max_blocking": problem.options.max_blocking,
    }
    engine = {name: value for name, value in given.items() if value is not None}
    return engine, problem.targets_of(server), problem.options.law
