"""The independent check of every plan: all that it says is recomputed from the problem.

It shares no table with the solvers: prices, devices, rates and latencies come from the problem and the queueing
analysis again. Every plan passes here before anybody sees it.
"""

from __future__ import annotations

from inferno_milp.errors import PlanCheckError
from inferno_milp.plan import Plan
from inferno_milp.plan.check.attainable import Considered, attainable_violations, planned_problem
from inferno_milp.plan.check.latencies import latency_violations
from inferno_milp.plan.check.promises import identity_violations, server_violations
from inferno_milp.plan.check.totals import limit_violations, status_violations, total_violations
from inferno_milp.problem import Problem

__all__ = ["Considered", "check_plan"]


def check_plan(problem: Problem, plan: Plan, *, gap: float | None = None, considered: Considered | None = None) -> None:
    """Check a plan against the problem it is for.

    Parameters
    ----------
    gap : relative gap that was asked for; a plan called optimal must be within it.
    considered : server, accelerator and batch size of all that the plan was made of; None: all of the problem's.

    Raises
    ------
    PlanCheckError
        With everything that does not agree.
    """
    problem = planned_problem(problem, plan)
    violations = [
        *identity_violations(problem, plan),
        *attainable_violations(problem, plan, considered),
        *server_violations(problem, plan),
        *latency_violations(problem, plan),
        *limit_violations(problem, plan),
        *total_violations(problem, plan),
        *status_violations(plan, gap),
    ]
    if violations:
        raise PlanCheckError(violations)
