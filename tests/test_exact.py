"""Every kind of plan against trying everything, on small random systems."""

from __future__ import annotations

import pytest
from brute_force import best_plan
from hypothesis import HealthCheck, given, settings
from systems import systems

import inferno_milp as im


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(problem=systems(servers=3, mixed=False))
def test_single_assignments(problem: im.Problem) -> None:
    compare(problem)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(problem=systems(servers=2, mixed=True, rate=12.0))
def test_mixed_assignments(problem: im.Problem) -> None:
    compare(problem)


def compare(problem: im.Problem) -> None:
    """The same weight is served of each priority, at the same objective, and both are proven."""
    truth, plan = best_plan(problem), im.optimize(problem, gap=0.0)
    levels = sorted({c.priority for c in problem.service_classes})
    served = [0.0] * len(levels)
    for server, planned in zip(problem.servers, plan.servers, strict=True):
        needed = planned.required_rate_per_s > 0 or server.min_replicas > 0
        if planned.meets_targets and needed:
            served[levels.index(planned.priority)] += server.weight
    assert served == pytest.approx(truth.served)
    assert all(use.served == pytest.approx(use.could) for use in plan.priorities)
    if plan.objective is None:
        assert sum(served) == 0
    else:
        assert plan.objective == pytest.approx(truth.objective, abs=1e-9)
        assert plan.bound == pytest.approx(plan.objective, rel=1e-6, abs=1e-9)
