"""What workers do for the page: parts of it, as HTML."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from inferno_milp.columns.shortfall import latency_name
from inferno_milp.plan import Plan
from inferno_milp.plan.claims import profile_rows, proof_sentence
from inferno_milp.plan.differences import diff
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import read_settings
from inferno_milp.service.answers import HTML, Answer, Task
from inferno_milp.service.planning import batches_of, draw_batches, draw_latency, problem_of, question_of
from inferno_milp.service.progress import ProgressSender
from inferno_milp.studies.one_engine import analyze_one

TEMPLATES = "inferno_milp.service"


def _page(name: str, **values: Any) -> Answer:
    from inferno_milp.report.html.templates import load_template

    text = load_template(TEMPLATES, f"templates/{name}.html").render(**values)
    return Answer(200, text.encode("utf-8", "replace"), HTML)


def do_plan_page(task: Task, sender: ProgressSender) -> Answer:
    """Show a plan, with other figures to try; `extra` has the job, its settings, its plan, and one before."""
    problem = problem_of(task.body)
    plan = Plan.from_dict(task.extra["plan"])
    before = None if task.extra["before"] is None else Plan.from_dict(task.extra["before"])
    if before is not None and before.currency != plan.currency:
        before = None
    costs = [None if p is None else p.total_cost_per_hour for p in (plan, before)]
    return _page(
        "plan",
        settings=[str(setting) for setting in read_settings(task.extra["settings"])],
        job=task.extra["job"],
        problem=problem,
        plan=plan,
        proof=proof_sentence(plan),
        profiles=profile_rows(plan.used_profiles),
        before=before,
        difference=None if None in costs else round(costs[0] - costs[1], 9),  # type: ignore[operator]
        lost=[] if before is None else sorted(set(plan.unserved) - set(before.unserved)),
        gained=[] if before is None else sorted(set(before.unserved) - set(plan.unserved)),
        changes=() if before is None else diff(before, plan),
        capacity=problem.capacity or {},
        totals={
            "replicas": sum(a.replicas for server in plan.servers for a in server.allocations),
            "devices": sum(use.used for use in plan.capacity),
            "rate_per_s": sum(server.served_rate_per_s for server in plan.servers),
        },
        early_p95=any((a.ttft_p95_ms or 0) < (a.ttft_ms or 0) for server in plan.servers for a in server.allocations),
        promise_name=lambda use: latency_name(use.latency, use.statistic),
        servers=list(_loads(problem)),
        promises=list(_promises(problem)),
        engines=list(_engines(problem, plan)),
    )


def _loads(problem: Problem) -> Iterator[dict[str, Any]]:
    for server in problem.servers:
        if server.load is not None:
            per_s = server.load.rate_per_s is not None
            yield {
                "name": server.name,
                "rate_name": "rate_per_s" if per_s else "rate_per_min",
                "rate": _plain(server.load.rate_per_s if per_s else server.load.rate_per_min),
                "input_tokens": _plain(server.load.input_tokens),
                "output_tokens": _plain(server.load.output_tokens),
            }


def _promises(problem: Problem) -> Iterator[dict[str, Any]]:
    for class_name, model, targets in problem.promises():
        path = f"service_classes.{class_name}.targets.{model}"
        known = {"service_class": class_name, "model": model}
        for latency, statistic, limit in targets.limits_ms():
            words = latency_name(latency, statistic)
            yield {**known, "words": words, "path": f"{path}.{latency}.{statistic}", "value": _plain(limit)}
        if targets.tps is not None:
            yield {**known, "words": "tokens/s", "path": f"{path}.tps", "value": _plain(targets.tps)}


def _engines(problem: Problem, plan: Plan) -> Iterator[dict[str, Any]]:
    """Servers with a load, and the accelerators with a profile of their model: the plan's first, with their rates."""
    chosen = {server.name: {a.accelerator: a.rate_per_s for a in server.allocations} for server in plan.servers}
    for server in problem.servers:
        if server.load is not None:
            able = [profile.accelerator for profile in problem.profiles if profile.model == server.model]
            rates = chosen.get(server.name, {})
            names = list(dict.fromkeys([*rates, *able]))
            yield {"name": server.name, "accelerators": names, "rates": rates}


def _plain(value: float | None) -> str:
    """Write a number as a field of a form takes it."""
    return "" if value is None else str(int(value)) if float(value).is_integer() else repr(float(value))


def do_why_page(task: Task, sender: ProgressSender) -> Answer:
    """Show an explanation, which `extra` is."""
    return _page("why", why=task.extra)


def do_prices_page(task: Task, sender: ProgressSender) -> Answer:
    """Show prices, which `extra` are."""
    return _page("prices", prices=task.extra, promise_words=_promise_words)


def _promise_words(price: dict[str, Any]) -> str:
    return "tokens/s" if price["statistic"] is None else latency_name(price["target"], price["statistic"])


def do_simulation_page(task: Task, sender: ProgressSender) -> Answer:
    """Show a simulation, which `extra` is."""
    return _page("simulation", simulation=task.extra)


def do_curves_page(task: Task, sender: ProgressSender) -> Answer:
    """Show the curves of an engine; `extra` is a rate that is marked, requests/s, or None."""
    found = analyze_one(question_of(task.body))
    curve, batches = found.curve(), batches_of(found, task.body.batch_sizes)
    pictures = {
        "Time to first token against the arrival rate": draw_latency(found, curve, "ttft_ms", task.extra),
        "Inter-token latency against the arrival rate": draw_latency(found, curve, "itl_ms", task.extra),
        "Highest rate that keeps the promises, against the max batch size": draw_batches(found, batches),
    }
    figures = [{"words": words, "data": base64.b64encode(data).decode("ascii")} for words, data in pictures.items()]
    analysis = {**found.to_dict(), "sentence": found.sentence, "batch_sizes": batches}
    return _page("curves", analysis=analysis, figures=figures)
