"""One engine, of a problem or of given figures: its highest rate, its figures at several rates, its batch sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from inferno_milp.columns.shortfall import latency_name
from inferno_milp.errors import OptionError
from inferno_milp.problem import Problem
from inferno_milp.problem.engines import OF_LOAD, OF_PROFILE
from inferno_milp.problem.fields import Targets
from inferno_milp.problem.sections import Law
from inferno_milp.problem.spelling import nearest
from inferno_milp.queueing import Analysis, EngineParameters, analyze, size

ENGINE = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "input_tokens", "output_tokens", "max_batch")
OPTIONAL = (
    "max_queue", "kappa_ms", "overhead_ms", "prefill_quadratic_ms", "lag_iterations", "cv2_input", "cv2_output",
    "cov_lengths", "cv2_arrival", "token_budget", "kv_tokens", "max_blocking",
)  # fmt: skip
STEPS = 10
CURVE_POINTS, CURVE_END = 61, 1.1
TTFT_PERCENTS, ITL_PERCENTS = (50, 95, 99), (95, 99)
COLUMNS = (
    "rate_per_s", "ttft_ms", "itl_ms", "wait_ms", "throughput_per_s", "running", "utilization", "blocking", "p_wait",
    "p_empty",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineQuestion:
    """What is asked of an engine.

    Attributes
    ----------
    engine : parameters of the analysis, by their names; those of `ENGINE` are needed.
    targets : what is promised.
    rates_per_s : rates to analyse, requests/s; None for ten, up to the highest.
    """

    engine: dict[str, float]
    targets: Targets
    law: Law
    rates_per_s: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class EngineAnalysis:
    """An engine, its highest rate, and its figures at several rates.

    Attributes
    ----------
    highest_rate_per_s : that keeps the targets, requests/s: 0 where none does, infinite where any does.
    verdict : as in `Sizing`.
    best : figures at the highest rate, or at the lowest where no rate keeps the targets, by the names of `COLUMNS`.
    rates : figures at each rate: `COLUMNS`, and percentiles.
    """

    question: EngineQuestion
    highest_rate_per_s: float
    verdict: str
    best: dict[str, float]
    rates: list[dict[str, float]]

    @property
    def max_rate_per_s(self) -> float | None:
        """The highest rate that keeps the targets, requests/s; None where none does, or any."""
        known = math.isfinite(self.highest_rate_per_s) and self.verdict != "infeasible"
        return self.highest_rate_per_s if known else None

    @property
    def sentence(self) -> str:
        """The highest rate in words."""
        engine, law, targets = self.question.engine, self.question.law, self.question.targets
        promised = " and ".join(
            f"{latency_name(latency, statistic)} ≤ {limit:g} ms" for latency, statistic, limit in targets.limits_ms()
        )
        most = engine.get("max_blocking", 0.01)
        if self.verdict == "infeasible":
            if law != "inferno" and self.best["blocking"] > most:
                return f"the queue is so short that at any rate more than {most:g} of the requests are turned away"
            at_best = f"TTFT is {self.best['ttft_ms']:.4g} ms and ITL {self.best['itl_ms']:.4g} ms"
            return f"no rate keeps {promised}: at best {at_best}"
        rate = self.highest_rate_per_s
        if not math.isfinite(rate):
            return "any rate is served: such requests take no time"
        full = f"where {most:g} of the requests are turned away"
        if law == "inferno":
            full = "where the engine is nearly full" if targets.tps is None else "0.9 of what fills the engine"
        limit = f"with {promised}" if self.verdict == "met" else full
        return f"highest rate: {rate:.6g} requests/s ({rate * 60:.6g} per minute), {limit}"

    def curve(self) -> Analysis:
        """Analyse it at evenly spaced rates, from 0 to a little beyond the highest one, or the highest asked for."""
        top = max(self.max_rate_per_s or 0.0, *(record["rate_per_s"] for record in self.rates))
        parameters = cast(EngineParameters, self.question.engine)
        return analyze(self.question.law, **parameters, rate_per_s=top * np.linspace(0, CURVE_END, CURVE_POINTS))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `analyze`."""
        rate = self.highest_rate_per_s
        return {
            "law": self.question.law,
            "engine": self.question.engine,
            "targets": self.question.targets.model_dump(),
            "max_rate_per_s": rate if math.isfinite(rate) else None,
            "verdict": self.verdict,
            "rates": self.rates,
        }


def analyze_one(question: EngineQuestion) -> EngineAnalysis:
    """Size an engine, and analyse it at some rates.

    Raises
    ------
    OptionError
        If a figure is out of range, or the KV cache does not hold a request.
    """
    (found,) = analyze_many([question])
    if isinstance(found, OptionError):
        raise found
    return found


def analyze_many(questions: Sequence[EngineQuestion]) -> list[EngineAnalysis | OptionError]:
    """Answer many questions, those that are alike together, which takes hardly longer than one of them.

    Returns
    -------
    list
        In the order of the questions; the error of `analyze_one` for those that have one.
    """
    alike: dict[Any, list[int]] = {}
    for i, question in enumerate(questions):
        promised = tuple((latency, statistic) for latency, statistic, _ in question.targets.limits_ms())
        steps = STEPS if question.rates_per_s is None else len(question.rates_per_s)
        key = (question.law, promised, question.targets.tps is None, frozenset(question.engine), steps)
        alike.setdefault(key, []).append(i)
    found: dict[int, EngineAnalysis | OptionError] = {}
    for group in alike.values():
        found |= zip(group, _alike([questions[i] for i in group]), strict=True)
    return [found[i] for i in range(len(questions))]


def _alike(questions: Sequence[EngineQuestion]) -> list[EngineAnalysis | OptionError]:
    """Answer questions with the same law, parameters, promises and number of rates."""
    try:
        return list(_together(questions))
    except ValueError as error:
        if len(questions) == 1:
            return [OptionError(str(error))]
        return [answer for question in questions for answer in _alike([question])]


def _together(questions: Sequence[EngineQuestion]) -> Iterator[EngineAnalysis]:
    first = questions[0]
    engines = {name: np.array([question.engine[name] for question in questions]) for name in first.engine}
    sizing = size(first.law, **cast(EngineParameters, engines), **_limits([question.targets for question in questions]))
    highest = sizing.max_rate_per_s
    tops = np.where(np.isfinite(highest) & (highest > 0), highest, 1.0)
    rates = np.array(
        [
            top * np.arange(1, STEPS + 1) / STEPS if question.rates_per_s is None else question.rates_per_s
            for question, top in zip(questions, tops, strict=True)
        ],
        dtype=float,
    )
    columns = {name: values[:, None] for name, values in engines.items()}
    analysis = analyze(first.law, **cast(EngineParameters, columns), rate_per_s=rates)
    figures = {name: getattr(analysis, name) for name in COLUMNS}
    for latency, percents, found in (
        ("ttft", TTFT_PERCENTS, analysis.ttft_percentile(TTFT_PERCENTS)),
        ("itl", ITL_PERCENTS, analysis.itl_percentile(ITL_PERCENTS)),
    ):
        figures |= {f"{latency}_p{p}_ms": values for p, values in zip(percents, found, strict=True)}
    for i, question in enumerate(questions):
        yield EngineAnalysis(
            question=question,
            highest_rate_per_s=float(highest[i]),
            verdict=str(sizing.verdict[i]),
            best={name: float(getattr(sizing.analysis, name)[i]) for name in COLUMNS},
            rates=[{name: float(values[i, j]) for name, values in figures.items()} for j in range(rates.shape[1])],
        )


def size_batches(question: EngineQuestion, batch_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Find the highest rate with each of several max batch sizes; 0 where the targets cannot be met.

    Raises
    ------
    OptionError
        If a figure is out of range.
    """
    parameters = cast(EngineParameters, {**question.engine, "max_batch": np.asarray(batch_sizes)})
    try:
        found = size(question.law, **parameters, **_limits([question.targets]))
    except ValueError as error:
        raise OptionError(str(error)) from None
    return [
        {"batch_size": int(n), "max_rate_per_s": float(rate) if math.isfinite(rate) else None, "verdict": str(verdict)}
        for n, rate, verdict in zip(batch_sizes, found.max_rate_per_s, found.verdict, strict=True)
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
        "overhead_ms": profile.overhead_ms + problem.latency_ms(found, accelerator),
        **({name: getattr(found.load, name) for name in OF_LOAD} if found.load else {}),
        "max_batch": found.max_batch_size or fitting,
        "max_queue": found.max_queue_size,
        "max_blocking": problem.options.max_blocking,
        **given,
    }
    return {name: value for name, value in figures.items() if value is not None}, problem.targets_of(found)


def _limits(alike: Sequence[Targets]) -> dict[str, Any]:
    """Return promises of the same latencies, as `size` takes them."""
    limits: dict[str, dict[str, list[float]]] = {"ttft_ms": {}, "itl_ms": {}}
    for targets in alike:
        for latency, statistic, limit in targets.limits_ms():
            limits[latency].setdefault(statistic, []).append(limit)
    tps = None if alike[0].tps is None else np.array([targets.tps for targets in alike], dtype=float)
    return {**{name: {k: np.array(v) for k, v in limit.items()} for name, limit in limits.items()}, "tps": tps}
