"""What the checks of a plan share."""

from __future__ import annotations

import math
from collections.abc import Iterator

from inferno_milp.plan import Plan, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server

RELATIVE = 1e-6
"""Tolerance on figures that are computed twice, in different order."""


def pairs(problem: Problem, plan: Plan) -> Iterator[tuple[Server, ServerPlan]]:
    """Yield the problem's servers with what the plan says of them."""
    by_name = {server.name: server for server in plan.servers}
    return ((server, by_name[server.name]) for server in problem.servers if server.name in by_name)


def same(one: float | None, other: float) -> bool:
    """Whether two figures are the same but for rounding."""
    return one is not None and math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-12)


def is_batch(batch_size: object) -> bool:
    """Whether it can be a batch size."""
    return isinstance(batch_size, int) and batch_size >= 1
