"""The greedy heuristic beyond the seed's sample: order, ties, limits."""

from __future__ import annotations

from typing import Any

from small_problems import make_problem, problem_data

import inferno_milp as im

LOAD = {"rate_per_s": 60.0, "input_tokens": 200.0, "output_tokens": 100.0}
TARGETS = {"m": {"ttft_ms": 1000.0, "itl_ms": 30.0}}


def plan(capacity: Any, *servers: dict[str, Any]) -> dict[str, str | None]:
    classes = [
        {"name": "gold", "priority": 1, "targets": TARGETS},
        {"name": "tin", "priority": 9, "targets": TARGETS},
    ]
    full = [{"service_class": "gold", "model": "m", "load": LOAD, **server} for server in servers]
    profiles = problem_data()["profiles"][:2]  # on A and B
    problem = make_problem(servers=full, service_classes=classes, capacity=capacity, profiles=profiles)
    found = im.optimize(problem, solver="greedy")
    return {s.name: s.allocations[0].accelerator if s.allocations else None for s in found.servers}


def test_priority_goes_first() -> None:
    """Two B are there: the server of priority 1 gets them, in whatever order the servers stand."""
    gold, tin = {"name": "g"}, {"name": "t", "service_class": "tin"}
    assert plan({"A": 0, "B": 2}, tin, gold) == {"t": None, "g": "B"}
    assert plan({"A": 20, "B": 2}, tin, gold) == {"t": "A", "g": "B"}


def test_regret_goes_next() -> None:
    """The server that would lose more by its second choice goes first, though it stands last."""
    small = {"name": "small", "load": {**LOAD, "rate_per_s": 30.0}}
    large = {"name": "large", "load": {**LOAD, "rate_per_s": 60.0}}
    assert plan({"A": 20, "B": 2}, small, large) == {"small": "A", "large": "B"}


def test_ties_go_by_name() -> None:
    assert plan({"A": 20, "B": 2}, {"name": "b"}, {"name": "a"}) == {"a": "B", "b": "A"}
    assert plan({"A": 20, "B": 2}, {"name": "a"}, {"name": "b"}) == {"a": "B", "b": "A"}


def test_without_limits_all_get_their_cheapest() -> None:
    assert plan("unlimited", {"name": "a"}, {"name": "b"}) == {"a": "B", "b": "B"}


def test_a_server_without_candidates_is_left_out_with_its_reason() -> None:
    classes = [{"name": "gold", "targets": {"m": {"itl_ms": 2.0}}}]
    found = im.optimize(make_problem(service_classes=classes), solver="greedy")
    assert found.status == "partial"
    assert found.servers[0].reason is not None
    assert found.servers[0].reason.startswith("no accelerator can serve it")
