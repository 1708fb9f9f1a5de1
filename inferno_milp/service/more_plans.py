"""What workers do where one plan for one load is not what is asked: periods, scenarios, routes, sharing, splitting."""

from __future__ import annotations

from typing import Any

from inferno_milp.disaggregation.split import disaggregate
from inferno_milp.horizon.plan import plan_periods, plan_scenarios
from inferno_milp.horizon.plans import HorizonPlan
from inferno_milp.plan import Plan
from inferno_milp.routing.route import find_routes
from inferno_milp.service.answers import Answer, Task, dumped
from inferno_milp.service.bodies import DisaggregateBody, PeriodsBody, RouteBody, ScenariosBody, ShareBody, SolvingBody
from inferno_milp.service.planning import plan_summary, problem_of
from inferno_milp.service.progress import ProgressSender
from inferno_milp.sharing.share import share_replicas

HORIZON_SHARE = 0.24
"""Of the time, what the program of all moments, and each that it is compared with, may take at most: up to four."""
PLANS_SHARE = 0.32
"""The same where two plans are made, and the programs between them."""


def _limit_s(body: SolvingBody, task: Task, share: float) -> float:
    most_s = share * task.time_limit_s
    return most_s if body.time_limit_s is None else min(body.time_limit_s, most_s)


def _horizon_summary(plan: HorizonPlan) -> dict[str, Any]:
    return {
        "name": plan.problem_name,
        "status": plan.status,
        "total_cost_per_hour": plan.cost_per_hour,
        "currency": plan.currency,
        "moments": len(plan.moments),
        "moments_unserved": sum(not moment.is_served for moment in plan.moments),
    }


def _saving_summary(plan: Plan, saving_per_hour: float | None) -> dict[str, Any]:
    return {**plan_summary(plan), "saving_per_hour": saving_per_hour}


def do_periods(task: Task, sender: ProgressSender) -> Answer:
    """Plan the periods of a problem."""
    body: PeriodsBody = task.body
    found = plan_periods(problem_of(body), gap=body.gap, time_limit_s=_limit_s(body, task, HORIZON_SHARE))
    return Answer(200, dumped(found.to_dict()), summary=_horizon_summary(found.plan))


def do_scenarios(task: Task, sender: ProgressSender) -> Answer:
    """Plan for the scenarios of a problem."""
    body: ScenariosBody = task.body
    found = plan_scenarios(
        problem_of(body),
        criterion=body.criterion,
        served=body.served,
        gap=body.gap,
        time_limit_s=_limit_s(body, task, HORIZON_SHARE),
    )
    return Answer(200, dumped(found.to_dict()), summary=_horizon_summary(found.plan))


def do_route(task: Task, sender: ProgressSender) -> Answer:
    """Plan with requests routed by their sizes."""
    body: RouteBody = task.body
    found = find_routes(problem_of(body), gap=body.gap, time_limit_s=_limit_s(body, task, PLANS_SHARE))
    return Answer(200, dumped(found.to_dict()), summary=_saving_summary(found.plan, found.saving_per_hour))


def do_share(task: Task, sender: ProgressSender) -> Answer:
    """Plan with servers that share replicas."""
    body: ShareBody = task.body
    found = share_replicas(problem_of(body), gap=body.gap, time_limit_s=_limit_s(body, task, PLANS_SHARE))
    return Answer(200, dumped(found.to_dict()), summary=_saving_summary(found.plan, found.saving_per_hour))


def do_disaggregate(task: Task, sender: ProgressSender) -> Answer:
    """Plan with prompts and outputs on engines of their own."""
    body: DisaggregateBody = task.body
    found = disaggregate(
        problem_of(body),
        network_gb_per_s=body.network_gb_per_s,
        kv_bytes_per_token=body.kv_bytes_per_token,
        gap=body.gap,
        time_limit_s=_limit_s(body, task, PLANS_SHARE),
    )
    return Answer(200, dumped(found.to_dict()), summary=_saving_summary(found.plan, found.saving_per_hour))
