"""Best effort: who gets what is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_problems import problem_data
from systems import systems

import inferno_milp as im
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.plan import SOLVERS
from inferno_milp.plan.check import check_plan

POLICIES = ("priority_exhaustive", "priority_round_robin", "round_robin")


def short(rates: list[float], capacity: dict[str, int], policy: str, **server: Any) -> im.Problem:
    """Servers of one class on A and B, in which one replica carries some 2.3 and 9 requests/s."""
    data = problem_data()
    of = data["servers"][0]
    data["servers"] = [
        {**of, "name": f"s{i}", "load": {**of["load"], "rate_per_s": rate}, **server} for i, rate in enumerate(rates)
    ]
    data["capacity"], data["options"] = capacity, {"saturation_policy": policy}
    return im.Problem.model_validate(data)


@pytest.mark.parametrize("policy", POLICIES)
def test_each_looks_again_where_there_is_room(policy: str) -> None:
    """One A and one B are free, and two servers want more than either: each gets one of them."""
    plan = im.optimize(short([60.0, 60.0], {"A": 1, "B": 1}, policy))
    assert plan.status == "partial"
    assert sorted(a.accelerator for s in plan.servers for a in s.allocations) == ["A", "B"]
    assert all(use.used == use.available for use in plan.capacity)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_nobody_gets_more_than_it_may(policy: str, solver: Any) -> None:
    plan = im.optimize(short([60.0, 60.0], {"A": 8, "B": 2}, policy, max_replicas=2), solver=solver)
    assert [sum(a.replicas for a in server.allocations) for server in plan.servers] == [2, 2]


def test_a_server_moves_to_what_carries_more() -> None:
    """The first turn takes the cheap A; when there is no more of it, five B carry far more."""
    plan = im.optimize(short([500.0], {"A": 1, "B": 5}, "round_robin"))
    (server,) = plan.servers
    assert [(a.accelerator, a.replicas) for a in server.allocations] == [("B", 5)]


def test_the_check_counts_replicas_of_every_server() -> None:
    """Also of those that are not served in full."""
    problem = short([60.0], {"A": 8, "B": 0}, "round_robin")
    plan = im.optimize(problem)
    held = problem.model_copy(
        update={"servers": tuple(s.model_copy(update={"max_replicas": 2}) for s in problem.servers)}
    )
    with pytest.raises(im.PlanCheckError, match="more than 2 replicas"):
        check_plan(held, plan)


@pytest.mark.parametrize("name", ["limited", "unlimited"])
def test_as_many_get_something_as_with_llm_inferno(instances: Path, name: str) -> None:
    """A quarter of the devices: everybody gets something, in turn."""
    problem = im.read_problem(instances / f"{name}.yaml").with_options(saturation_policy="round_robin")
    devices = im.read_problem(instances / "limited.yaml").devices_available
    assert devices is not None
    scarce = problem.model_copy(update={"capacity": {kind: count // 4 for kind, count in devices.items()}})
    for solver in ("milp", "greedy"):
        plan = im.optimize(scarce, solver=solver)  # type: ignore[arg-type]
        assert len([server for server in plan.servers if server.allocations]) == len(plan.servers)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("solver", ["milp", "greedy"])
def test_millions_of_replicas(policy: str, solver: Any) -> None:
    """They are not given one by one."""
    plan = im.optimize(short([1e10, 1e10], {"A": 10**9, "B": 0}, policy), solver=solver)
    assert plan.status == "partial"
    counts = [a.replicas for server in plan.servers for a in server.allocations]
    assert counts == ([10**9] if policy == "priority_exhaustive" else [5 * 10**8] * 2)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(problem=systems(servers=5, rate=60.0), policy=st.sampled_from(POLICIES), solver=st.sampled_from(SOLVERS))
def test_rounds_that_are_skipped_are_those_that_would_come(problem: im.Problem, policy: str, solver: Any) -> None:
    problem = problem.with_options(saturation_policy=policy, assignment="single")
    plan = im.optimize(problem, solver=solver)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inferno_milp.planning.saturation._Sharing._skip_rounds", lambda *_: None)
        one_by_one = im.optimize(problem, solver=solver)
    assert [s.allocations for s in plan.servers] == [s.allocations for s in one_by_one.servers]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    rates=st.lists(st.floats(1.0, 80.0), min_size=1, max_size=4),
    capacity=st.fixed_dictionaries({"A": st.integers(0, 6), "B": st.integers(0, 4)}),
    policy=st.sampled_from(POLICIES),
    most=st.sampled_from([None, 2, 5]),
)
def test_nothing_of_use_is_left_idle(
    rates: list[float], capacity: dict[str, int], policy: str, most: int | None
) -> None:
    """Where one more replica would fit a server that is short, it has as many as it may."""
    problem = short(rates, capacity, policy, max_replicas=most)
    plan, rows = im.optimize(problem), find_candidates(problem).rows
    used: Counter[str] = Counter()
    for server in plan.servers:
        for a in server.allocations:
            used[a.type] += a.devices
    for s, server in enumerate(plan.servers):
        if server.meets_targets:
            continue
        mine = [i for i in range(len(rows)) if rows.server[i] == s]
        have = {a.accelerator: a.replicas for a in server.allocations}
        for i in mine:
            accelerator = problem.accelerators[rows.accelerator[i]]
            free = capacity[accelerator.type] - used[accelerator.type]
            runs_here = not have or accelerator.name in have
            is_short = sum(have.values()) < min(int(rows.replicas[i]) - 1, most or 10**9)
            assert not (runs_here and is_short and rows.devices_per_replica[i] <= free)
