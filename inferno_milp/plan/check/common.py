"""What the checks of a plan share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

from inferno_milp.plan import Plan, ProfileUse, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Profile, Server

RELATIVE = 1e-6
"""Tolerance on figures that are computed twice, in different order."""


def pairs(problem: Problem, plan: Plan) -> Iterator[tuple[Server, ServerPlan]]:
    """Yield the problem's servers with what the plan says of them."""
    by_name = {server.name: server for server in plan.servers}
    return ((server, by_name[server.name]) for server in problem.servers if server.name in by_name)


def misquoted(use: ProfileUse, profile: Profile | None) -> Iterator[tuple[str, object]]:
    """Yield what a plan says of a profile that its origin does not, by name."""
    origin = None if profile is None else profile.origin
    for name, said in asdict(use).items():
        if said != getattr(origin, name, None):
            yield name, said


def same(one: float | None, other: float) -> bool:
    """Whether two figures are the same but for rounding."""
    return one is not None and math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-12)


def is_batch(batch_size: object) -> bool:
    """Whether it can be a batch size."""
    return isinstance(batch_size, int) and batch_size >= 1
