"""Prices: the re-solved differences, which a search of everything agrees with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from brute_force import best_plan
from hypothesis import HealthCheck, assume, given, settings
from small_problems import make_problem, problem_data
from systems import systems

import inferno_milp as im
from inferno_milp.planning.purchase import Purchase, settings_of
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import with_settings
from inferno_milp.studies.prices import Worth, find_prices


def saved(problem: Problem, changed: Problem) -> float | None:
    """Saving by trying everything; None where others are served."""
    before, after = best_plan(problem), best_plan(changed)
    return before.objective - after.objective if before.served == pytest.approx(after.served) else None


def agrees(worth: Worth, truth: float | None) -> bool:
    if worth.saves_per_hour is None:
        # Which of several servers are served is a choice: then others may be without a difference in how many.
        return truth is None or bool(worth.served or worth.unserved)
    return truth is None or worth.saves_per_hour == pytest.approx(truth, abs=1e-6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(systems(servers=2, rate=10.0, small=True))
def test_devices(problem: Problem) -> None:
    assume(problem.capacity is not None)
    prices = find_prices(problem, time_limit_s=None)
    for price in prices.devices:
        item = Purchase(price.type, price.devices, 1)
        more = with_settings(problem, settings_of(problem, [item]))
        assert agrees(price.one_more, saved(problem, more))
        if price.one_fewer is not None:
            fewer = with_settings(problem, settings_of(problem, [Purchase(item.type, item.devices, -1)]))
            assert agrees(price.one_fewer, saved(problem, fewer))
        if price.one_more.saves_per_hour is not None:
            assert price.one_more.saves_per_hour >= 0


def test_of_the_sample(instances: Path) -> None:
    problem = im.read_problem(instances / "limited.yaml")
    prices = find_prices(problem)
    found = {p.type: (p.one_more.saves_per_hour, p.one_fewer and p.one_fewer.saves_per_hour) for p in prices.devices}
    assert {name: pair for name, pair in found.items() if pair != (0.0, 0.0)} == {
        "G2": (29.0, -41.0), "MI250": (32.0, -98.0), "MI300X": (99.0, -135.0)
    }  # fmt: skip
    assert all(p.one_more.is_exact for p in prices.devices)
    duals = {p.type: p.dual_per_hour for p in prices.devices}
    assert duals["G2"] == pytest.approx(29.0)
    assert duals["L4"] == pytest.approx(0.0)
    dearest = prices.targets[0]
    assert (dearest.service_class, dearest.model, dearest.target) == ("Bronze", "llama_70b", "ttft_ms")
    looser = with_settings(problem, {"service_classes.Bronze.targets.llama_70b.ttft_ms *=": 1.1})
    cost = im.optimize(looser, gap=0.0).total_cost_per_hour
    assert cost is not None
    assert dearest.worth.saves_per_hour == pytest.approx(26300.5 - cost)
    assert len(prices.targets) == 54
    json.dumps(prices.to_dict(), allow_nan=False)
    assert len(prices.devices_frame()) == 9
    assert len(prices.targets_frame()) == 54


def test_who_would_be_served() -> None:
    data = problem_data()
    problem = make_problem(capacity={"A": 0, "B": 0}, servers=data["servers"])
    prices = find_prices(problem)
    by_type = {p.type: p for p in prices.devices}
    assert by_type["B"].one_more.served == ("gold-m",)
    assert by_type["B"].one_more.saves_per_hour is None
    assert by_type["B"].one_fewer is None
    assert by_type["B"].dual_per_hour is None


def test_a_device_that_all_need() -> None:
    problem = make_problem(capacity={"A": 0, "B": 1})
    (price,) = [p for p in find_prices(problem).devices if p.type == "B"]
    assert price.one_fewer is not None
    assert price.one_fewer.unserved == ("gold-m",)


def test_nodes() -> None:
    problem = make_problem(capacity={"A": 20}, nodes=[{"type": "B", "devices": 2, "count": 1}])
    (node,) = [p for p in find_prices(problem).devices if p.type == "B"]
    assert (node.devices, node.available) == (2, 2)


def test_tokens_per_second(instances: Path) -> None:
    prices = find_prices(im.read_problem(instances / "small.yaml"))
    (promise,) = [p for p in prices.targets if p.target == "tps"]
    assert (promise.value, promise.relaxed) == (9000.0, pytest.approx(8100.0))
    assert promise.worth.saves_per_hour == pytest.approx(2.6)


def test_without_limits() -> None:
    assert find_prices(make_problem(capacity="unlimited")).devices == ()


def test_no_time(instances: Path) -> None:
    problem = im.read_problem(instances / "small.yaml")
    mixed = problem.with_options(assignment="mixed")
    late = im.optimize(mixed, time_limit_s=1e-4)
    for of, plan, limit in ((problem, im.optimize(problem), 1e-4), (mixed, late, None)):
        prices = find_prices(of, plan=plan, time_limit_s=limit)
        found = [*(p.one_more for p in prices.devices), *(p.worth for p in prices.targets)]
        assert not any(worth.is_known or worth.served or worth.unserved for worth in found)
        assert not any(price.matters for price in prices.devices)


def test_only_one_of_them() -> None:
    assert find_prices(make_problem(), of=("devices",)).targets == ()
    assert find_prices(make_problem(), of=("promises",)).devices == ()


def test_options_that_cannot_be() -> None:
    with pytest.raises(im.OptionError, match="not of servers"):
        find_prices(make_problem(), of=("servers",))
    with pytest.raises(im.OptionError, match="relaxed must be"):
        find_prices(make_problem(), relaxed=1.0)
