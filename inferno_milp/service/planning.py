"""What workers do for our own API: plan, analyse, explain, compare, simulate, price."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from inferno_milp.errors import OptionError
from inferno_milp.plan import Plan
from inferno_milp.plan.differences import with_current
from inferno_milp.planning.optimize import optimize
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import Targets
from inferno_milp.problem.reading import read_problem_data, read_problem_text
from inferno_milp.problem.reading.settings import with_settings
from inferno_milp.problem.sections import Options
from inferno_milp.problem.spreadsheet import csv_text
from inferno_milp.problem.writing import problem_text
from inferno_milp.queueing import Analysis
from inferno_milp.service.answers import CSV, SVG, YAML, Answer, Task, dumped, refusal
from inferno_milp.service.bodies import (
    AnalyzeBody,
    ExplainBody,
    OptimizeBody,
    PricesBody,
    ProblemBody,
    ProblemSource,
    Settings,
    SimulateBody,
    ValidateBody,
    WhatifBody,
)
from inferno_milp.service.progress import ProgressSender
from inferno_milp.studies.explain import explain
from inferno_milp.studies.load_change import find_difference
from inferno_milp.studies.one_engine import (
    ENGINE,
    EngineAnalysis,
    EngineQuestion,
    analyze_many,
    analyze_one,
    engine_of,
    size_batches,
)
from inferno_milp.studies.prices import EACH_S, find_prices
from inferno_milp.studies.simulate import simulate_plan

COMPARE_SHARE = 0.7
"""Of the time of an explanation, what the plans that it compares may take."""
Figure = Literal["ttft_ms", "itl_ms", "batch_sizes"]
"""What `/v1/analyze/plot` draws."""
SHARE = 0.5
"""Of the time of what makes two plans, or a plan and more, that each may take at most."""
FIGURE_SIZE = (5.2, 3.4)


def problem_of(body: ProblemBody | AnalyzeBody) -> Problem:
    """Read the problem that a request holds."""
    source: ProblemSource | None = body.problem
    assert source is not None
    if isinstance(source, str):
        problem = read_problem_text(source, files=body.files)
    else:
        problem = read_problem_data(source, files=body.files)
    return _changed(problem, body.settings)


def _changed(problem: Problem, settings: Settings) -> Problem:
    return with_settings(problem, settings) if settings else problem


def at_most(asked_s: float | None, most_s: float) -> float:
    """Return the time that is asked for, or the most that there may be."""
    return most_s if asked_s is None else min(asked_s, most_s)


def plan_summary(plan: Plan) -> dict[str, Any]:
    """Sum a plan up, for lists."""
    return {
        "name": plan.problem_name,
        "status": plan.status,
        "total_cost_per_hour": plan.total_cost_per_hour,
        "currency": plan.currency,
        "unserved": len(plan.unserved),
    }


def do_validate(task: Task, sender: ProgressSender) -> Answer:
    """Read a problem, and say what is in it."""
    body: ValidateBody = task.body
    problem = problem_of(body)
    document = {
        "name": problem.name,
        "servers": len(problem.servers),
        "models": len({server.model for server in problem.servers}),
        "service_classes": len({server.service_class for server in problem.servers}),
        "accelerators": len(problem.accelerators),
        "profiles": len(problem.profiles),
        "capacity": problem.devices_available,
    }
    return Answer(200, dumped(document))


def do_optimize(task: Task, sender: ProgressSender) -> Answer:
    """Plan."""
    body: OptimizeBody = task.body
    problem = problem_of(body)
    if body.current is not None:
        problem = with_current(problem, Plan.from_dict(body.current))
    plan = optimize(
        problem,
        solver=body.solver,
        gap=body.gap,
        time_limit_s=body.time_limit_s or task.time_limit_s,
        on_stage=sender.stage,
    )
    return Answer(200, dumped(plan.to_dict()), summary=plan_summary(plan))


def question_of(body: AnalyzeBody) -> EngineQuestion:
    """Find out which engine is meant, and what is asked of it."""
    given = body.engine.model_dump(exclude_none=True)
    law = body.law
    if body.problem is not None:
        problem = problem_of(body)
        assert body.server is not None
        assert body.accelerator is not None
        engine, targets = engine_of(problem, body.server, body.accelerator, given)
        law = law or problem.options.law
    else:
        engine, targets = given, Targets()
        missing = [name for name in ENGINE if name not in engine]
        if missing:
            raise OptionError(f"engine: missing: {', '.join(missing)} (or give a problem, a server and an accelerator)")
    return EngineQuestion(engine, body.targets or targets, law or Options().law, body.rates_per_s)


def do_analyze(task: Task, sender: ProgressSender) -> Answer:
    """Analyse one engine."""
    found, sizes = analyze_one(question_of(task.body)), task.body.batch_sizes
    return _analysed(found, size_batches(found.question, sizes) if sizes else [])


def _analysed(found: EngineAnalysis, batches: list[dict[str, Any]]) -> Answer:
    document = {**found.to_dict(), "sentence": found.sentence, "batch_sizes": batches}
    return Answer(200, dumped(document), summary={"sentence": found.sentence})


def do_analyze_many(task: Task, sender: ProgressSender) -> Answer:
    """Answer many requests of `is_light` at once; `answers` of the summary has one for each."""
    questions: dict[int, EngineQuestion] = {}
    answers: dict[int, Answer] = {}
    for i, body in enumerate(task.body):
        try:
            questions[i] = question_of(body)
        except OptionError as error:
            answers[i] = refusal(str(error))
    for i, found in zip(questions, analyze_many(list(questions.values())), strict=True):
        answers[i] = refusal(str(found)) if isinstance(found, OptionError) else _analysed(found, [])
    return Answer(200, b"", summary={"answers": [answers[i] for i in range(len(task.body))]})


def do_plot(task: Task, sender: ProgressSender) -> Answer:
    """Draw one engine."""
    found = analyze_one(question_of(task.body))
    if task.extra == "batch_sizes":
        return Answer(200, draw_batches(found, batches_of(found, task.body.batch_sizes)), SVG)
    return Answer(200, draw_latency(found, found.curve(), task.extra), SVG)


def batches_of(found: EngineAnalysis, sizes: list[int]) -> list[dict[str, Any]]:
    """Find the highest rate with each of some max batch sizes; without any, with some up to the engine's own."""
    return size_batches(found.question, sizes or spaced(int(found.question.engine["max_batch"])))


def draw_latency(
    found: EngineAnalysis, curve: Analysis, latency: Literal["ttft_ms", "itl_ms"], rate_per_s: float | None = None
) -> bytes:
    """Draw a latency of an engine, as SVG; a rate is marked."""
    from inferno_milp.report.plots import figure_bytes, new_figure, plot_analysis

    picture, ax = new_figure(*FIGURE_SIZE)
    plot_analysis(
        curve,
        latency,
        targets=found.question.targets,
        max_rate_per_s=found.max_rate_per_s,
        rate_per_s=rate_per_s,
        ax=ax,
    )
    return figure_bytes(picture, "svg")


def draw_batches(found: EngineAnalysis, batches: list[dict[str, Any]]) -> bytes:
    """Draw the highest rates that `batches_of` found, as SVG."""
    from inferno_milp.report.plots import figure_bytes, new_figure, plot_batch_rates

    picture, ax = new_figure(*FIGURE_SIZE)
    plot_batch_rates(batches, batch_size=int(found.question.engine["max_batch"]), ax=ax)
    return figure_bytes(picture, "svg")


def spaced(largest: int, most: int = 24) -> list[int]:
    """Return batch sizes from 1 to the largest, further and further apart."""
    steps = min(most, largest)
    if steps == 1:
        return [largest]
    return sorted({round(largest ** (i / (steps - 1))) for i in range(steps)})


def do_explain(task: Task, sender: ProgressSender) -> Answer:
    """Explain."""
    body: ExplainBody = task.body
    why = explain(
        problem_of(body),
        servers=body.servers,
        compared=body.compared,
        gap=body.gap,
        time_limit_s=at_most(body.time_limit_s, 0.25 * task.time_limit_s),
        compare_time_s=COMPARE_SHARE * task.time_limit_s,
        on_done=sender.counted("explain"),
    )
    return Answer(200, dumped(why.to_dict()), summary=plan_summary(why.plan))


def do_whatif(task: Task, sender: ProgressSender) -> Answer:
    """Plan with the figures as they are, and with others."""
    body: WhatifBody = task.body
    problem = problem_of(body)
    found = find_difference(
        problem,
        _changed(problem, body.changes),
        from_before=body.transition,
        gap=body.gap,
        time_limit_s=at_most(body.time_limit_s, SHARE * task.time_limit_s),
        on_stage=sender.stage,
    )
    document = {
        "before": found.before.to_dict(),
        "after": found.after.to_dict(),
        "changes": [asdict(change) for change in found.changes],
    }
    return Answer(200, dumped(document), summary=plan_summary(found.after))


def do_simulate(task: Task, sender: ProgressSender) -> Answer:
    """Simulate."""
    body: SimulateBody = task.body
    problem = problem_of(body)
    if body.plan is not None:
        plan = Plan.from_dict(body.plan)
    else:
        limit_s = at_most(body.time_limit_s, SHARE * task.time_limit_s)
        plan = optimize(problem, gap=body.gap, time_limit_s=limit_s, on_stage=sender.stage)
    found = simulate_plan(
        problem,
        plan,
        requests=body.requests,
        burstiness=body.burstiness,
        seed=body.seed,
        on_progress=sender.counted("simulate"),
    )
    return Answer(200, dumped(found.to_dict()), summary={**plan_summary(plan), "meets_targets": found.meets_targets})


def do_prices(task: Task, sender: ProgressSender) -> Answer:
    """Price."""
    body: PricesBody = task.body
    limit_s = at_most(body.time_limit_s or EACH_S, 0.25 * task.time_limit_s)
    prices = find_prices(
        problem_of(body),
        gap=body.gap,
        time_limit_s=limit_s,
        relaxed=body.relaxed,
        of=body.of,
        on_done=sender.counted("price"),
    )
    return Answer(200, dumped(prices.to_dict()), summary=plan_summary(prices.plan))


def do_seed(task: Task, sender: ProgressSender) -> Answer:
    """Plan for llm-inferno's API, which has one accelerator for each server: where a mix has more, there is no mix."""
    problem: Problem = task.body

    def planned(wanted: Problem) -> Plan:
        found = optimize(wanted, solver=task.extra, time_limit_s=task.time_limit_s, advised=False)
        if found.status == "no_solution":
            raise OptionError("no plan within the time limit")
        return found

    plan = planned(problem)
    is_mixed = any(len(server.allocations) > 1 for server in plan.servers)
    if is_mixed:
        plan = planned(problem.with_options(assignment="single"))
    return Answer(200, b"{}", summary={"plan": plan, "is_single_instead": is_mixed})


def do_problem_yaml(task: Task, sender: ProgressSender) -> Answer:
    """Write a problem as one document."""
    return Answer(200, problem_text(problem_of(task.body)).encode(), YAML)


def do_plan_csv(task: Task, sender: ProgressSender) -> Answer:
    """Write a plan as a table."""
    return Answer(200, csv_text(Plan.from_dict(task.extra).to_frame()).encode(), CSV)
