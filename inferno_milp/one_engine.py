"""One engine, of a problem or of given figures: its highest rate, its figures at several rates, its batch sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from inferno_milp.engines import OF_LOAD, OF_PROFILE
from inferno_milp.errors import OptionError, nearest
from inferno_milp.fields import Targets
from inferno_milp.problem import Problem
from inferno_milp.queueing import Analysis, EngineParameters, Sizing, analyze, size
from inferno_milp.reasons import latency_name
from inferno_milp.sections import Law

ENGINE = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "input_tokens", "output_tokens", "max_batch")
OPTIONAL = (
    "max_queue", "kappa_ms", "overhead_ms", "prefill_quadratic_ms", "lag_iterations", "cv2_input", "cv2_output",
    "cv2_arrival", "token_budget", "kv_tokens", "max_blocking",
)  # fmt: skip
STEPS = 10
TTFT_PERCENTS, ITL_PERCENTS = (50, 95, 99), (95, 99)
COLUMNS = (
    "rate_per_s", "ttft_ms", "itl_ms", "wait_ms", "throughput_per_s", "running", "utilization", "blocking", "p_wait",
    "p_empty",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineAnalysis:
    """An engine, its highest rate, and its figures at several rates."""

    engine: dict[str, float]
    law: Law
    targets: Targets
    sizing: Sizing
    analysis: Analysis

    @property
    def max_rate_per_s(self) -> float | None:
        """The highest rate that keeps the targets, requests/s; None where none does, or any."""
        rate = float(self.sizing.max_rate_per_s)
        return rate if np.isfinite(rate) and self.sizing.verdict != "infeasible" else None

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

    def curve(self, points: int, end: float) -> Analysis:
        """Analyse it at evenly spaced rates, from 0 to `end` times the highest rate or the highest one asked for."""
        top = max(self.max_rate_per_s or 0.0, float(self.analysis.rate_per_s.max()))
        return analyze(self.law, **cast(EngineParameters, self.engine), rate_per_s=top * np.linspace(0, end, points))

    def records(self) -> list[dict[str, float]]:
        """Return one record per rate."""
        analysis = self.analysis
        columns = {name: getattr(analysis, name) for name in COLUMNS}
        for latency, percents, found in (
            ("ttft", TTFT_PERCENTS, analysis.ttft_percentile(TTFT_PERCENTS)),
            ("itl", ITL_PERCENTS, analysis.itl_percentile(ITL_PERCENTS)),
        ):
            columns |= {f"{latency}_p{p}_ms": values for p, values in zip(percents, found, strict=True)}
        return [{name: float(values[i]) for name, values in columns.items()} for i in range(analysis.ttft_ms.size)]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `analyze`."""
        rate = float(self.sizing.max_rate_per_s)
        return {
            "law": self.law,
            "engine": self.engine,
            "targets": self.targets.model_dump(),
            "max_rate_per_s": rate if np.isfinite(rate) else None,
            "verdict": str(self.sizing.verdict),
            "rates": self.records(),
        }


def analyze_one(
    engine: Mapping[str, float], targets: Targets, law: Law, rates_per_s: Sequence[float] | None = None
) -> EngineAnalysis:
    """Size an engine and analyse it at some rates; by default at ten, up to the highest.

    Parameters
    ----------
    engine : parameters of the analysis, by their names; those of `ENGINE` are needed.

    Raises
    ------
    OptionError
        If a figure is out of range.
    """
    parameters = cast(EngineParameters, engine)
    try:
        sizing = size(law, **parameters, **_limits(targets), tps=targets.tps)
        highest = float(sizing.max_rate_per_s)
        top = highest if np.isfinite(highest) and highest > 0 else 1.0
        rates = top * np.arange(1, STEPS + 1) / STEPS if rates_per_s is None else np.asarray(rates_per_s, dtype=float)
        analysis = analyze(law, **parameters, rate_per_s=rates)
    except ValueError as error:
        raise OptionError(str(error)) from None
    return EngineAnalysis(dict(engine), law, targets, sizing, analysis)


def size_batches(
    engine: Mapping[str, float], targets: Targets, law: Law, batch_sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Find the highest rate with each of several max batch sizes; 0 where the targets cannot be met.

    Raises
    ------
    OptionError
        If a figure is out of range.
    """
    parameters = cast(EngineParameters, {**engine, "max_batch": np.asarray(batch_sizes)})
    try:
        found = size(law, **parameters, **_limits(targets), tps=targets.tps)
    except ValueError as error:
        raise OptionError(str(error)) from None
    rates = np.where(found.verdict == "infeasible", 0.0, found.max_rate_per_s)
    return [
        {"batch_size": int(n), "max_rate_per_s": float(rate) if math.isfinite(rate) else None, "verdict": str(verdict)}
        for n, rate, verdict in zip(batch_sizes, rates, found.verdict, strict=True)
    ]


def engine_of(
    problem: Problem, server: str, accelerator: str, given: Mapping[str, float] | None = None
) -> tuple[dict[str, float], Targets]:
    """Return the parameters of a server's engine on an accelerator, and its targets.

    Parameters
    ----------
    given : figures in place of those of the problem.

    Raises
    ------
    OptionError
        If a name is not known, there is no profile, or the server has no load and no lengths are given.
    """
    given = given or {}
    found = problem.servers[problem.positions_of([server])[0]]
    if accelerator not in {a.name for a in problem.accelerators}:
        hint = nearest(accelerator, (a.name for a in problem.accelerators))
        raise OptionError(f"unknown accelerator {accelerator!r}; {hint}")
    profiles = {p.accelerator: p for p in problem.profiles if p.model == found.model}
    if accelerator not in profiles:
        there = ", ".join(sorted(profiles))
        raise OptionError(f"no profile of {found.model} on {accelerator}; there are some on {there}")
    profile = profiles[accelerator]
    if found.load is None and not {"input_tokens", "output_tokens"} <= given.keys():
        raise OptionError(f"{found.name} has no load: give input tokens and output tokens")
    fitting = profile.max_batch_size if found.load is None else profile.largest_batch(found.load.output_tokens)
    figures: dict[str, float | None] = {
        **{name: getattr(profile, name) for name in OF_PROFILE},
        **({name: getattr(found.load, name) for name in OF_LOAD} if found.load else {}),
        "max_batch": found.max_batch_size or fitting,
        "max_queue": found.max_queue_size,
        "max_blocking": problem.options.max_blocking,
        **given,
    }
    return {name: value for name, value in figures.items() if value is not None}, problem.targets_of(found)


def _limits(targets: Targets) -> dict[str, Any]:
    limits: dict[str, dict[str, float]] = {"ttft_ms": {}, "itl_ms": {}}
    for latency, statistic, limit in targets.limits_ms():
        limits[latency][statistic] = limit
    return limits
