"""Conflicts: what is named cannot be kept, and each part of it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from brute_force import all_served
from hypothesis import HealthCheck, assume, given, settings
from small_problems import make_problem, problem_data
from systems import systems

import inferno_milp as im
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.columns.options import make_program
from inferno_milp.planning.conflict import Conflict, find_conflict
from inferno_milp.problem import Problem


def conflict_of(problem: Problem) -> Conflict | None:
    return find_conflict(find_candidates(problem), time_limit_s=1e6)


def part(problem: Problem, servers: tuple[str, ...], limits: tuple[str, ...]) -> Problem:
    """The problem of some servers with some of the limits, found from their words."""
    words = " ".join(limits)
    options: dict[str, Any] = {}
    for name, word in (("max_cost_per_hour", "budget"), ("max_changes", "changes of accelerator")):
        if word not in words:
            options[name] = None
    if "of power" not in words:
        options |= {"max_power_w": None, "max_carbon_kg_per_hour": None}
    capacity, nodes = dict(problem.capacity or {}), list(problem.nodes)
    for name in {a.type for a in problem.accelerators}:
        if not any(limit.endswith(f" {name}") for limit in limits):
            nodes = [group for group in nodes if group.type != name]
            capacity[name] = 500
    chosen = tuple(server for server in problem.servers if server.name in servers)
    free = problem.with_options(**options)
    return free.model_copy(update={"servers": chosen, "capacity": capacity, "nodes": tuple(nodes)})


@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(systems(servers=2, rate=12.0, small=True))
def test_each_part_is_needed(problem: Problem) -> None:
    """Whatever is left out of it, the rest can be kept: checked by trying everything."""
    assume(problem.capacity is not None)
    program = make_program(find_candidates(problem), pruned=False)
    able = tuple(problem.servers[s].name for s in program.servers.tolist())
    found = conflict_of(problem)
    servable = problem.model_copy(update={"servers": tuple(s for s in problem.servers if s.name in able)})
    if found is None:
        assert not able or all_served(servable)
        return
    assert found.is_minimal
    assert not all_served(part(problem, found.servers, found.limits))
    for name in found.servers:
        rest = tuple(server for server in found.servers if server != name)
        assert not rest or all_served(part(problem, rest, found.limits))
    for limit in found.limits:
        assert all_served(part(problem, found.servers, tuple(other for other in found.limits if other != limit)))


def test_words(instances: Path) -> None:
    assert str(conflict_of(im.read_problem(instances / "infeasible.yaml"))) == (
        "busy-chat-8b cannot be served in full with 2 devices of A100"
    )
    assert conflict_of(im.read_problem(instances / "limited.yaml")) is None


def test_a_budget_says_what_would_do(instances: Path) -> None:
    problem = im.read_problem(instances / "limited.yaml").with_options(max_cost_per_hour=26300.0)
    found = conflict_of(problem)
    assert found is not None
    assert any("a budget of 26300 cents/h" in limit for limit in found.limits)
    assert found.remedies == ("to serve all within the other limits takes 26300.5 cents/h",)
    enough = problem.with_options(max_cost_per_hour=26300.5)
    assert im.optimize(enough).serves_all


@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_changes_and_power(assignment: str) -> None:
    data = problem_data()
    server = {**data["servers"][0], "current": {"accelerator": "A", "replicas": 1}}
    servers = [{**server, "name": f"s{i}", "load": {**server["load"], "rate_per_s": 14.0}} for i in range(3)]
    problem = make_problem(
        servers=servers,
        capacity={"A": 3, "B": 20},
        options={"law": "inferno", "assignment": assignment, "max_changes": 1},
    )
    found = conflict_of(problem)
    assert found is not None
    assert "1 changes of accelerator" in found.limits
    assert "to serve all within the other limits takes" in found.remedies[0]


def test_no_time(instances: Path) -> None:
    problem = im.read_problem(instances / "infeasible.yaml")
    assert find_conflict(find_candidates(problem), time_limit_s=0.0) is None
