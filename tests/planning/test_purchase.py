"""The purchase named for a system that is short of devices: it does, and nothing cheaper would."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from brute_force import all_served
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_problems import make_problem, problem_data
from systems import systems

import inferno_milp as im
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.columns.limits import POWER
from inferno_milp.columns.options import make_program
from inferno_milp.planning.purchase import LEAST_PRICE, Purchase, device_prices, find_purchase, settings_of
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import with_settings
from inferno_milp.program.core import Solved, solve_master
from inferno_milp.program.master import Master
from inferno_milp.studies.generate import generate_problem

NO_LIMIT_S = 1e6
"""More than any of these takes: what is found must not depend on how fast the machine is."""


def with_items(problem: Problem, items: list[Purchase]) -> Problem:
    return with_settings(problem, settings_of(problem, items))


@st.composite
def short_systems(draw: st.DrawFn) -> Problem:
    """A system with few devices, of servers that could be served each by itself with devices enough."""
    problem = draw(systems(servers=2, rate=12.0, small=True))
    assume(problem.capacity is not None)
    capacity = {name: draw(st.integers(0, 2)) for name in problem.capacity or {}}
    nodes = tuple(group.model_copy(update={"count": draw(st.integers(0, 1))}) for group in problem.nodes)
    free = problem.with_options(max_changes=None, max_cost_per_hour=None, max_power_w=None, max_carbon_kg_per_hour=None)
    short = free.model_copy(update={"capacity": capacity, "nodes": nodes})
    program = make_program(find_candidates(short), pruned=False)
    assume(len(program.servers))
    servers = tuple(short.servers[s] for s in program.servers.tolist())
    return short.model_copy(update={"servers": servers})


@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(short_systems())
def test_it_does_and_nothing_cheaper_would(problem: Problem) -> None:
    """300 random infeasible systems, every cheaper purchase tried on each."""
    assume(not all_served(problem))
    table = find_candidates(problem)
    bought = find_purchase(table, time_limit_s=NO_LIMIT_S)
    if bought is None:  # nodes too small for any replica, however many there are
        many = [Purchase(g.type, g.devices, 40) for g in {(g.type, g.devices): g for g in problem.nodes}.values()]
        many += [Purchase(name, 1, 60) for name in ("A", "B") if not any(g.type == name for g in problem.nodes)]
        assert not im.optimize(with_items(problem, many)).serves_all
        return
    assert bought
    assert all_served(with_items(problem, list(bought)))
    assert im.optimize(with_items(problem, list(bought))).serves_all
    listed = dict(zip(table.types, device_prices(table), strict=True))
    least = min(price for price in listed.values() if price)
    kinds = [Purchase(item.type, item.devices, 0) for item in purchasable_kinds(problem, table.types)]
    prices = [item.devices * (listed[item.type] or LEAST_PRICE * least) for item in kinds]
    cost = sum(item.count * item.devices * listed[item.type] for item in bought)
    for counts in largest_below(prices, cost):
        items = [Purchase(kind.type, kind.devices, n) for kind, n in zip(kinds, counts, strict=True) if n]
        assert not all_served(with_items(problem, items)), f"{items} is cheaper"


@settings(max_examples=50, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(short_systems())
def test_nothing_is_bought_for_nothing(problem: Problem) -> None:
    assert (find_purchase(find_candidates(problem), time_limit_s=NO_LIMIT_S) == ()) == all_served(problem)


def purchasable_kinds(problem: Problem, types: tuple[str, ...]) -> list[Purchase]:
    result = []
    for name in types:
        sizes = sorted({group.devices for group in problem.nodes if group.type == name}) or [1]
        result += [Purchase(name, size, 1) for size in sizes]
    return result


def largest_below(prices: list[float], cost: float) -> list[tuple[int, ...]]:
    """Counts that cost less, none of which may be raised: what they cannot do, none within them can."""
    ranges = [range(int(cost / price + 1e-9) + 1) for price in prices]
    found = []
    for counts in itertools.product(*ranges):
        total = sum(n * price for n, price in zip(counts, prices, strict=True))
        if total < cost * (1 - 1e-9) and total + min(prices) >= cost * (1 - 1e-9):
            found.append(counts)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_larger_systems(instances: Any, seed: int) -> None:
    """Random systems of 30 servers with half of the devices that they need: what is named is enough."""
    base = im.read_problem(instances / "limited.yaml")
    problem = generate_problem(base, servers=30, tightness=0.8, seed=seed)
    assert problem.capacity is not None
    problem = problem.model_copy(update={"capacity": {name: count // 2 for name, count in problem.capacity.items()}})
    if seed % 2:
        problem = problem.with_options(assignment="mixed")
    assert not im.optimize(problem, advised=False, gap=0.01).serves_all
    bought = find_purchase(find_candidates(problem), time_limit_s=NO_LIMIT_S)
    assert bought
    assert im.optimize(with_items(problem, list(bought)), advised=False, gap=0.01).serves_all
    largest = max(bought, key=lambda item: item.count)
    fewer = [Purchase(i.type, i.devices, i.count - (i == largest)) for i in bought]
    assert not im.optimize(with_items(problem, fewer), advised=False, gap=0.01).serves_all


class TestSettings:
    def test_a_type_that_there_is_none_of(self) -> None:
        assert with_items(make_problem(capacity={"A": 3}), [Purchase("B", 1, 2)]).capacity == {"A": 3, "B": 2}

    def test_nodes(self) -> None:
        groups = [{"type": "B", "devices": 2, "count": 1}, {"type": "B", "devices": 2, "count": 3}]
        problem = make_problem(capacity={"A": 3}, nodes=groups)
        more = with_items(problem, [Purchase("B", 2, 2), Purchase("A", 1, 1)])
        assert more.devices_available == {"A": 4, "B": 12}
        assert with_items(problem, [Purchase("B", 2, -3)]).devices_available == {"A": 3, "B": 2}

    def test_not_so_many(self) -> None:
        with pytest.raises(ValueError, match="only 3 of A"):
            settings_of(make_problem(capacity={"A": 3}), [Purchase("A", 1, -4)])


def test_options_that_no_device_makes_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator that draws more than all may: HiGHS takes the price of breaking that limit for none, and fails."""
    seen = []

    def noted(master: Master, *arguments: Any, **options: Any) -> Solved:
        seen.append(master)
        return solve_master(master, *arguments, **options)

    monkeypatch.setattr("inferno_milp.planning.purchase.solve_master", noted)
    power = {"idle_w": 50.0, "full_w": 200.0, "mid_w": 150.0, "mid_utilization": 0.4}
    huge = {**power, "full_w": 1e12, "mid_w": 1e11}
    data = problem_data(capacity={"A": 1, "B": 1}, options={"law": "inferno", "max_power_w": 1530.0})
    for accelerator in data["accelerators"]:
        accelerator["power"] = huge if accelerator["name"] == "B" else power
    data["servers"] = [{**data["servers"][0], "name": f"s{i}"} for i in range(3)]
    assert im.optimize(im.read_problem_data(data)).status == "partial"
    (master,) = seen
    assert (master.options.usage[:, master.limits.index(POWER)] <= 1530.0).all()
    assert set(master.options.server) == {0, 1, 2}
