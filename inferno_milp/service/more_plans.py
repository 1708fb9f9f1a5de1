"""What workers do where one plan for one load is not what is asked: periods, scenarios, routes, sharing, splitting."""

from __future__ import annotations

from inferno_milp.planning.disaggregation.plans import SplitPlan
from inferno_milp.planning.disaggregation.split import disaggregate
from inferno_milp.planning.horizon.plan import plan_periods, plan_scenarios
from inferno_milp.planning.horizon.plans import PeriodsPlan, ScenariosPlan
from inferno_milp.planning.routing.plans import RoutedPlan
from inferno_milp.planning.routing.route import find_routes
from inferno_milp.planning.sharing.share import SharedPlan, share_replicas
from inferno_milp.service.answers import Answer, Task, dumped
from inferno_milp.service.bodies import DisaggregateBody, PeriodsBody, RouteBody, ScenariosBody, ShareBody, SolvingBody
from inferno_milp.service.planning import at_most, plan_summary, problem_of
from inferno_milp.service.progress import ProgressSender

HORIZON_SHARE = 0.24
"""Of the time, what the program of all moments, and each that it is compared with, may take at most: up to four."""
PLANS_SHARE = 0.32
"""The same where two plans are made, and the programs between them."""


def _limit_s(body: SolvingBody, task: Task, share: float) -> float:
    return at_most(body.time_limit_s, share * task.time_limit_s)


def _of_moments(found: PeriodsPlan | ScenariosPlan) -> Answer:
    plan = found.plan
    summary = {
        "name": plan.problem_name,
        "status": plan.status,
        "total_cost_per_hour": plan.cost_per_hour,
        "currency": plan.currency,
        "moments": len(plan.moments),
        "moments_unserved": sum(not moment.is_served for moment in plan.moments),
    }
    return Answer(200, dumped(found.to_dict()), summary=summary)


def _of_saving(found: RoutedPlan | SharedPlan | SplitPlan) -> Answer:
    summary = {**plan_summary(found.plan), "saving_per_hour": found.saving_per_hour}
    return Answer(200, dumped(found.to_dict()), summary=summary)


def do_periods(task: Task, sender: ProgressSender) -> Answer:
    """Plan the periods of a problem."""
    body: PeriodsBody = task.body
    limit_s = _limit_s(body, task, HORIZON_SHARE)
    return _of_moments(plan_periods(problem_of(body), gap=body.gap, time_limit_s=limit_s))


def do_scenarios(task: Task, sender: ProgressSender) -> Answer:
    """Plan for the scenarios of a problem."""
    body: ScenariosBody = task.body
    limit_s, more = _limit_s(body, task, HORIZON_SHARE), body.model_dump(include={"criterion", "served", "gap"})
    return _of_moments(plan_scenarios(problem_of(body), **more, time_limit_s=limit_s))


def do_route(task: Task, sender: ProgressSender) -> Answer:
    """Plan with requests routed by their sizes."""
    body: RouteBody = task.body
    limit_s = _limit_s(body, task, PLANS_SHARE)
    return _of_saving(find_routes(problem_of(body), gap=body.gap, time_limit_s=limit_s))


def do_share(task: Task, sender: ProgressSender) -> Answer:
    """Plan with servers that share replicas."""
    body: ShareBody = task.body
    limit_s = _limit_s(body, task, PLANS_SHARE)
    return _of_saving(share_replicas(problem_of(body), gap=body.gap, time_limit_s=limit_s))


def do_disaggregate(task: Task, sender: ProgressSender) -> Answer:
    """Plan with prompts and outputs on engines of their own."""
    body: DisaggregateBody = task.body
    limit_s = _limit_s(body, task, PLANS_SHARE)
    more = body.model_dump(include={"network_gb_per_s", "kv_bytes_per_token", "gap"})
    return _of_saving(disaggregate(problem_of(body), **more, time_limit_s=limit_s))
