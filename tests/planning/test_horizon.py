"""Periods and scenarios: the programs against brute force, what they are compared with, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.planning.horizon.check import check_horizon
from inferno_milp.planning.horizon.program import nothing, solve_horizon
from inferno_milp.planning.horizon.ways import find_ways
from inferno_milp.program.deadline import OutOfTimeError
from inferno_milp.program.highs import Solution

PROFILE = {"model": "m", "gamma_ms": 10.0, "max_batch_size": 16}


def data(**changes):
    """Two accelerators, of which one replica carries some 3 and 9 requests/s."""
    return {
        "name": "day",
        "currency": "usd",
        "accelerators": [
            {"name": "small", "cost_per_hour": 1.0, "reserved_cost_per_hour": 0.6},
            {"name": "big", "cost_per_hour": 2.5},
        ],
        "profiles": [
            {**PROFILE, "accelerator": "small", "alpha_ms": 20.0, "beta_ms": 1.0, "delta_ms": 0.1},
            {**PROFILE, "accelerator": "big", "alpha_ms": 8.0, "beta_ms": 0.3, "delta_ms": 0.03},
        ],
        "capacity": {"small": 4, "big": 2},
        "service_classes": [{"name": "c", "targets": {"m": {"ttft_ms": 900, "itl_ms": 40}}}],
        "servers": [
            {"name": name, "service_class": "c", "model": "m",
             "load": {"rate_per_s": 1.0, "input_tokens": 300, "output_tokens": 100}}
            for name in ("a", "b")
        ],
        **changes,
    }  # fmt: skip


def sequences(ways, server, moments, most, *, moves=False):
    """All ways to run one server in all moments, single assignment: replicas by way and moment."""
    if moves:
        for homes in itertools.product(ways.of(server), repeat=moments):
            least = [ways.replicas(w, t) for t, w in enumerate(homes)]
            for counts in itertools.product(*(range(n, max(n, most) + 1) for n in least)):
                grid = np.zeros((len(ways.rows), moments), dtype=int)
                grid[list(homes), range(moments)] = counts
                yield grid
        return
    for w in ways.of(server):
        least = [ways.replicas(w, t) for t in range(moments)]
        for counts in itertools.product(*(range(n, max(n, most) + 1) for n in least)):
            grid = np.zeros((len(ways.rows), moments), dtype=int)
            grid[w] = counts
            yield grid


def ended_early(grid, hours, least_h, *, cyclic):
    """Whether a replica ends before its least time, each start told apart by when it began."""
    for counts in grid:
        number = len(counts)
        starts = [max(counts[t] - (counts[t - 1] if t or cyclic else 0), 0) for t in range(number)]
        for t in range(number):
            running = starts[t]
            for back in range(1, 20 * number):
                k = t - back
                if k < 0 and not cyclic:
                    break
                if sum(hours[(t - i) % number] for i in range(1, back + 1)) < least_h - 1e-9:
                    running += starts[k % number]
                else:
                    break
            if running > counts[t]:
                return True
    return False


def unit_price(accelerator, unit):
    factor = 1.0
    for discount in accelerator.reserved_discounts:
        if unit + 1 > discount.beyond_units:
            factor = discount.factor
    return factor * (accelerator.reserved_cost_per_hour or 0.0)


def cost_of(problem, ways, grid, weights, planning, reserved):
    accelerators = problem.accelerators
    total = 0.0
    for t, weight in enumerate(weights):
        for a, one in enumerate(accelerators):
            used = int((grid[:, t] * ways.units)[ways.rows.accelerator == a].sum())
            total += weight * one.cost_per_hour * max(used - reserved[a], 0)
            total += weight * sum(unit_price(one, unit) for unit in range(reserved[a]))
    if planning is not None:
        for w, counts in enumerate(grid):
            for t in range(len(weights)):
                before = counts[t - 1] if t or planning.cyclic else 0
                change = counts[t] - before
                price = ways.rows.price_per_replica[w]
                total += price * planning.start_cost_hours * max(change, 0)
                total += price * planning.stop_cost_hours * max(-change, 0)
    return total / sum(weights)


def fits(problem, ways, grid):
    for t in range(grid.shape[1]):
        for k, name in enumerate(ways.table.types):
            if (grid[:, t] * ways.rows.devices_per_replica)[ways.rows.type == k].sum() > problem.capacity[name]:
                return False
    return True


def least_cost(problem, moments, weights, planning, most=3):
    ways = find_ways(problem, moments)
    best = math.inf
    moves = planning is not None and planning.moves
    options = [list(sequences(ways, s, len(moments), most, moves=moves)) for s in range(len(problem.servers))]
    for parts in itertools.product(*options):
        grid = sum(parts)
        if not fits(problem, ways, grid):
            continue
        if planning is not None and ended_early(grid, weights, planning.min_up_hours, cyclic=planning.cyclic):
            continue
        for count in range(5):
            best = min(best, cost_of(problem, ways, grid, weights, planning, [count, 0]))
    return best


rates = st.lists(st.sampled_from([0.0, 1.0, 2.5, 4.0, 7.0]), min_size=3, max_size=3)


@settings(max_examples=25, deadline=None)
@given(
    a=rates,
    b=st.lists(st.sampled_from([0.0, 2.0]), min_size=3, max_size=3),
    hours=st.lists(st.sampled_from([1.0, 2.0]), min_size=3, max_size=3),
    start=st.sampled_from([0.0, 0.3, 3.0]),
    stop=st.sampled_from([0.0, 0.4]),
    least=st.sampled_from([0.0, 2.0, 3.0, 8.0]),
    cyclic=st.booleans(),
)
def test_periods_equal_brute_force(a, b, hours, start, stop, least, cyclic):
    periods = [
        {"name": str(t), "hours": hours[t], "rates_per_s": {"a": a[t], "b": b[t]}} for t in range(3)
    ]  # fmt: skip
    planning = {"start_cost_hours": start, "stop_cost_hours": stop, "min_up_hours": least, "cyclic": cyclic}
    problem = im.read_problem_data(data(periods=periods, planning=planning))
    found = im.plan_periods(problem, gap=0.0)
    expected = least_cost(problem, problem.periods, hours, problem.planning)
    if math.isinf(expected):
        assert found.plan.status == "infeasible"
    else:
        assert found.plan.status == "optimal"
        assert found.plan.cost_per_hour == pytest.approx(expected, rel=1e-6, abs=1e-9)
        if found.peak_cost_per_hour is not None:
            assert found.plan.cost_per_hour <= found.peak_cost_per_hour + 1e-6


DISCOUNTS = [
    [{"beyond_units": 1, "factor": 0.5}],
    [{"beyond_units": 2, "factor": 0.8}, {"beyond_units": 3, "factor": 0.0}],
    [{"beyond_units": 1, "factor": 0.9}, {"beyond_units": 9, "factor": 0.1}],
]


@settings(max_examples=30, deadline=None)
@given(
    a=rates,
    b=st.lists(st.sampled_from([0.0, 2.0]), min_size=3, max_size=3),
    discounts=st.sampled_from(DISCOUNTS),
    reserved=st.sampled_from([0.6, 0.95, 1.3]),
)
def test_discounts_equal_brute_force(a, b, discounts, reserved):
    periods = [{"name": str(t), "rates_per_s": {"a": a[t], "b": b[t]}} for t in range(3)]
    small, big = data()["accelerators"]
    small = {**small, "reserved_cost_per_hour": reserved, "reserved_discounts": discounts}
    problem = im.read_problem_data(data(periods=periods, accelerators=[small, big]))
    found = im.plan_periods(problem, gap=0.0)
    expected = least_cost(problem, problem.periods, [1.0] * 3, None)
    if math.isinf(expected):
        assert found.plan.status == "infeasible"
        return
    assert found.plan.cost_per_hour == pytest.approx(expected, rel=1e-6, abs=1e-9)
    if found.peak_cost_per_hour is not None:
        assert found.plan.cost_per_hour <= found.peak_cost_per_hour + 1e-6


def test_discounts_are_on_each_further_unit():
    small = im.read_problem_data(
        data(
            accelerators=[{**data()["accelerators"][0], "reserved_discounts": DISCOUNTS[1]}, data()["accelerators"][1]]
        )
    ).accelerators[0]
    assert [small.cost_of_reserved(n) for n in range(6)] == pytest.approx([0, 0.6, 1.2, 1.2 + 0.48, 1.68, 1.68])


@settings(max_examples=25, deadline=None)
@given(
    a=rates,
    b=st.lists(st.sampled_from([0.0, 2.0]), min_size=3, max_size=3),
    chances=st.sampled_from([(0.5, 0.3, 0.2), (0.9, 0.05, 0.05), (0.4, 0.4, 0.2)]),
    served=st.sampled_from([1.0, 0.8]),
    criterion=st.sampled_from(["expected", "worst"]),
)
def test_scenarios_equal_brute_force(a, b, chances, served, criterion):
    scenarios = [
        {"name": str(t), "probability": chances[t], "rates_per_s": {"a": a[t], "b": b[t]}} for t in range(3)
    ]  # fmt: skip
    problem = im.read_problem_data(data(scenarios=scenarios))
    found = im.plan_scenarios(problem, served=served, criterion=criterion, gap=0.0)
    ways = find_ways(problem, problem.scenarios)
    best = math.inf
    for keep in itertools.product((True, False), repeat=3):
        if sum(chance for chance, kept in zip(chances, keep, strict=True) if kept) < served - 1e-9:
            continue
        best = min(best, least_of_scenarios(problem, ways, keep, chances, criterion))
    if math.isinf(best):
        assert found.plan.status == "infeasible"
        return
    assert found.plan.cost_per_hour == pytest.approx(best, rel=1e-6, abs=1e-9)
    if found.value_of_knowing_per_hour is not None:
        assert found.value_of_knowing_per_hour >= -1e-6
    if found.value_of_planning_per_hour is not None:
        assert found.value_of_planning_per_hour >= -1e-6


def least_of_scenarios(problem, ways, keep, chances, criterion):
    best = math.inf
    needs = [s for s in range(2) if (ways.required_per_s[s] > 0).any()]
    for homes in itertools.product(*(ways.of(s) for s in needs)):
        grid = np.zeros((len(ways.rows), 3), dtype=int)
        for w in homes:
            grid[w] = [ways.replicas(w, t) if keep[t] else 0 for t in range(3)]
        if not fits(problem, ways, grid):
            continue
        for count in range(5):
            costs = [cost_of(problem, ways, grid[:, t : t + 1], [1.0], None, [count, 0]) for t in range(3)]
            best = min(best, max(costs) if criterion == "worst" else float(np.dot(costs, chances)))
    return best


@settings(max_examples=15, deadline=None)
@given(
    a=st.lists(st.sampled_from([0.0, 1.0, 4.0, 7.0]), min_size=3, max_size=3), start=st.sampled_from([0.0, 0.3, 1.0])
)
def test_servers_that_move_equal_brute_force(a, start):
    """With one server; and then no dearer than planning every period by itself."""
    periods = [{"name": str(t), "rates_per_s": {"a": a[t]}} for t in range(3)]
    planning = {"start_cost_hours": start, "moves": True}
    problem = im.read_problem_data(data(periods=periods, planning=planning, servers=data()["servers"][:1]))
    found = im.plan_periods(problem, gap=0.0)
    expected = least_cost(problem, problem.periods, [1.0] * 3, problem.planning, most=4)
    if math.isinf(expected):
        assert found.plan.status == "infeasible"
    else:
        assert found.plan.cost_per_hour == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert found.plan.cost_per_hour <= found.replanned_cost_per_hour + 1e-6


@settings(max_examples=15, deadline=None)
@given(a=rates)
def test_mixes_of_accelerators_equal_brute_force(a):
    periods = [{"name": str(t), "rates_per_s": {"a": a[t], "b": 0.0}} for t in range(3)]
    problem = im.read_problem_data(data(periods=periods, options={"assignment": "mixed"}))
    found = im.plan_periods(problem, gap=0.0)
    ways = find_ways(problem, problem.periods)
    own, carried = ways.of(0), ways.rows.max_rate_per_s
    best = math.inf
    for counts in itertools.product(*(itertools.product(range(5), range(3)) for _ in range(3))):
        grid = np.zeros((len(ways.rows), 3), dtype=int)
        grid[own] = np.array(counts).T
        if all(carried[own] @ grid[own, t] >= a[t] - 1e-9 for t in range(3)):
            best = min(best, *(cost_of(problem, ways, grid, [1.0] * 3, None, [count, 0]) for count in range(5)))
    if math.isinf(best):
        assert found.plan.status == "infeasible"
    else:
        assert found.plan.cost_per_hour == pytest.approx(best, rel=1e-6, abs=1e-9)


ONE = [data()["servers"][0]]
TOO_SMALL = {**PROFILE, "model": "n", "accelerator": "small", "alpha_ms": 20.0, "beta_ms": 1.0, "delta_ms": 0.1,
             "kv_tokens": 10}  # fmt: skip


def test_one_period_is_never_started_again():
    planning = {"start_cost_hours": 0.5}
    for options in ({}, {"assignment": "mixed"}):
        problem = im.read_problem_data(data(periods=[{"name": "x"}], planning=planning, options=options))
        assert im.plan_periods(problem).plan.parts["starts"] == 0
    once = im.read_problem_data(data(periods=[{"name": "x"}], servers=ONE, planning={**planning, "cyclic": False}))
    found = im.plan_periods(once)
    assert found.plan.parts["starts"] > 0
    assert found.peak_cost_per_hour == pytest.approx(found.plan.cost_per_hour), "the peak is started once too"


@pytest.mark.parametrize("rate", [1e-12, 1e-7, 1e-3])
def test_rates_next_to_nothing_are_served(rate):
    periods = [{"name": "x"}, {"name": "y", "rates_per_s": {"a": rate}}]
    problem = im.read_problem_data(data(servers=ONE, options={"assignment": "mixed"}, periods=periods))
    assert all(moment.is_served for moment in im.plan_periods(problem).plan.moments)


def test_least_times_beyond_the_cycle():
    on_demand = [{k: v for k, v in a.items() if k != "reserved_cost_per_hour"} for a in data()["accelerators"]]
    periods = [{"name": "x"}, {"name": "y", "factor": 5}]
    for hours in (100.0, 1e6, 1e12):
        problem = im.read_problem_data(data(servers=ONE, accelerators=on_demand, periods=periods,
                                            planning={"min_up_hours": hours}))  # fmt: skip
        found = im.plan_periods(problem)
        assert {one.replicas for one in found.plan.held} == {2}


def test_a_server_that_nothing_can_serve_in_a_scenario_that_need_not_be():
    classes = [*data()["service_classes"], {"name": "d", "targets": {"n": {}}}]
    never = {**ONE[0], "name": "z", "service_class": "d", "model": "n", "load": {**ONE[0]["load"], "rate_per_s": 0.0}}
    scenarios = [{"name": "q", "probability": 0.9}, {"name": "l", "probability": 0.1, "rates_per_s": {"z": 1.0}}]
    problem = im.read_problem_data(data(servers=[*ONE, never], service_classes=classes, scenarios=scenarios,
                                        profiles=[*data()["profiles"], TOO_SMALL]))  # fmt: skip
    certain = im.plan_scenarios(problem).plan
    assert certain.status == "partial"
    assert [one.server for one in certain.unserved] == ["z"]
    assert "do not fit into 10 tokens" in certain.unserved[0].reason
    found = im.plan_scenarios(problem, served=0.9)
    assert found.plan.status == "optimal"
    assert [moment.is_served for moment in found.plan.moments] == [True, False]


def test_what_is_reserved_is_used_where_not_all_are_served(instances):
    found = im.plan_scenarios(im.read_problem(instances / "day.yaml"), served=0.9).plan
    pieces = {"launch": 0, "quiet": 0}
    for one in found.held:
        if one.moment in pieces:
            pieces[one.moment] += one.replicas * (2 if one.server.endswith("30b") and one.accelerator == "A100" else 1)
    assert not found.moments[-1].is_served
    assert pieces["launch"] >= sum(found.reserved.values())
    assert found.moments[-1].cost_per_hour == pytest.approx(found.parts["reserved"])


def test_planning_for_the_mean_counts_promises_of_tokens():
    targets = [{"name": "c", "targets": {"m": {"ttft_ms": 900, "itl_ms": 40, "tps": 250}}}]
    scenarios = [
        {"name": "none", "probability": 0.5, "factor": 0.0},
        {"name": "six", "probability": 0.5, "factor": 6.0},
    ]
    problem = im.read_problem_data(
        data(servers=ONE, service_classes=targets, scenarios=scenarios, capacity="unlimited")
    )
    assert im.plan_scenarios(problem).value_of_planning_per_hour >= -1e-9


def test_hour_by_hour_keeps_least_times():
    periods = [{"name": str(i), "factor": f} for i, f in enumerate((0.0, 1.0, 0.0, 0.0))]
    planning = {"min_up_hours": 3.0, "moves": True}
    found = im.plan_periods(im.read_problem_data(data(servers=ONE, periods=periods, planning=planning)))
    assert found.plan.cost_per_hour <= found.replanned_cost_per_hour + 1e-9


DAY = [{"name": "night", "hours": 8, "factor": 0.5}, {"name": "day", "hours": 12, "factor": 4.0},
       {"name": "evening", "hours": 4, "factor": 2.0}]  # fmt: skip


def test_a_day_is_cheaper_than_its_peak_and_reserves_what_runs_all_the_time():
    found = im.plan_periods(im.read_problem_data(data(periods=DAY)))
    assert found.plan.status == "optimal"
    assert found.plan.cost_per_hour < found.peak_cost_per_hour
    assert found.plan.cost_per_hour <= found.replanned_cost_per_hour + 1e-9
    night = {(one.server, one.accelerator): one.replicas for one in found.plan.held if one.moment == "night"}
    day = {(one.server, one.accelerator): one.replicas for one in found.plan.held if one.moment == "day"}
    assert sum(night.values()) < sum(day.values())
    assert found.plan.reserved.get("small", 0) >= sum(n for (_, name), n in night.items() if name == "small")
    assert found.plan.to_frame().shape[0] == len(found.plan.held)
    json.dumps(found.to_dict(), allow_nan=False)


def test_limits_of_servers_hold_in_every_period():
    servers = data()["servers"]
    servers[0] |= {"min_replicas": 2, "reserve": 0.2}
    servers[1] |= {"max_replicas": 2, "survive": 1}
    found = im.plan_periods(im.read_problem_data(data(periods=DAY, servers=servers)))
    for period in ("night", "day", "evening"):
        counts = {"a": 0, "b": 0}
        for one in found.plan.held:
            counts[one.server] += one.replicas * (one.moment == period)
        assert counts["a"] >= 2
        assert counts["b"] <= 2


def test_the_check_refuses_what_does_not_hold():
    problem = im.read_problem_data(data(periods=DAY, planning={"start_cost_hours": 0.1, "min_up_hours": 9}))
    plan = im.plan_periods(problem).plan
    check_horizon(problem, plan, problem.periods, planning=problem.planning)
    first = plan.held[0]
    fewer = tuple(replace(one, replicas=one.replicas - (one.moment == "day")) for one in plan.held)
    faster = tuple(replace(one, rate_per_s=one.rate_per_s * 50) for one in plan.held)
    for changed, words in (
        (replace(plan, held=fewer), "carry less than"),
        (replace(plan, held=faster), "promised"),
        (replace(plan, cost_per_hour=plan.cost_per_hour + 1), "the cost is"),
        (replace(plan, bound=plan.cost_per_hour + 1), "above the cost"),
        (replace(plan, parts={"reserved": -99.0, "extra": 1.0, "starts": 0.0}), "reserved is"),
        (replace(plan, held=tuple(replace(one, rate_per_s=0.0) for one in plan.held)), "it carries 0"),
        (replace(plan, moments=tuple(replace(m, weight=1.0) for m in plan.moments)), "not those of the problem"),
        (replace(plan, moments=tuple(replace(m, cost_per_hour=0.0) for m in plan.moments)), "its cost is"),
        (replace(plan, moments=tuple(replace(m, is_served=False) for m in plan.moments)), "not everybody is served"),
        (replace(plan, reserved={"big": 1}), "big cannot be reserved"),
        (replace(plan, held=(replace(first, replicas=9), *plan.held[1:])), "of 4|of 2"),
    ):
        with pytest.raises(im.PlanCheckError, match=words):
            check_horizon(problem, changed, problem.periods, planning=problem.planning)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"periods": [{"name": "a", "rates_per_s": {"z": 1.0}}]}, "unknown server 'z'"),
        ({"periods": [{"name": "a"}, {"name": "a"}]}, "'a' is given 2 times"),
        ({"scenarios": [{"name": "a", "probability": 0.4}]}, "sum to 0.4"),
        ({"scenarios": [{"name": "a"}]}, "probability"),
        ({"periods": [{"name": "a", "hours": 0}]}, r"periods\[0\].hours"),
        ({"planning": {"cyclic": "yes"}}, "planning.cyclic"),
        (
            {"accelerators": [{"name": "small", "cost_per_hour": 1.0, "reserved_discounts": DISCOUNTS[0]}]},
            "on a reserved_cost_per_hour",
        ),
        (
            {
                "accelerators": [
                    {
                        **data()["accelerators"][0],
                        "reserved_discounts": [*DISCOUNTS[0], {"beyond_units": 4, "factor": 0.5}],
                    }
                ]
            },
            "a lower factor",
        ),
    ],
)
def test_faults_are_told(changes, words):
    """And what follows from them alone is not."""
    if changes.get("scenarios") == [{"name": "a"}]:
        with pytest.raises(im.InputError) as told:
            im.read_problem_data(data(**changes))
        assert "sum to" not in str(told.value)
    with pytest.raises(im.InputError, match=words):
        im.read_problem_data(data(**changes))


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(im.OptionError, match="no `periods`"):
        im.plan_periods(im.read_problem_data(data()))
    with pytest.raises(im.OptionError, match="no `scenarios`"):
        im.plan_scenarios(im.read_problem_data(data()))
    power = {"idle_w": 10, "mid_w": 20, "full_w": 40, "mid_utilization": 0.5}
    accelerators = [{**a, "power": power} for a in data()["accelerators"]]
    problem = im.read_problem_data(data(periods=DAY, accelerators=accelerators, options={"max_power_w": 300}))
    with pytest.raises(im.OptionError, match="power is limited"):
        im.plan_periods(problem)
    today = [{**data()["servers"][0], "current": {"accelerator": "small", "replicas": 1}}]
    held = im.read_problem_data(data(periods=DAY, servers=today, options={"max_changes": 0}))
    with pytest.raises(im.OptionError, match="changes from today are limited"):
        im.plan_periods(held)
    scenarios = [{"name": "a", "probability": 1.0}]
    with pytest.raises(im.OptionError, match="at most 1"):
        im.plan_scenarios(im.read_problem_data(data(scenarios=scenarios)), served=1.5)
    with pytest.raises(im.OptionError, match="unknown criterion"):
        im.plan_scenarios(im.read_problem_data(data(scenarios=scenarios)), criterion="best")


def test_a_document_with_periods_comes_back_as_it_was():
    small, big = data()["accelerators"]
    accelerators = [{**small, "reserved_discounts": DISCOUNTS[1]}, big]
    problem = im.read_problem_data(data(periods=DAY, scenarios=[{"name": "a", "probability": 1.0}],
                                        planning={"min_up_hours": 2}, accelerators=accelerators))  # fmt: skip
    assert im.read_problem_text(im.problem_text(problem)) == problem
    assert im.optimize(problem).total_cost_per_hour == im.optimize(im.read_problem_data(data())).total_cost_per_hour


def test_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "day.yaml"
    scenarios = [{"name": "calm", "probability": 0.9}, {"name": "burst", "probability": 0.1, "factor": 9.0}]
    path.write_text(yaml.safe_dump(data(periods=DAY, scenarios=scenarios)))
    assert main(["periods", str(path), "--json", str(tmp_path / "p.json"), "--csv", str(tmp_path / "p.csv")]) == 0
    out = capsys.readouterr().out
    assert "all the time for the peak" in out
    assert json.loads((tmp_path / "p.json").read_text())["plan"]["status"] == "optimal"
    assert (tmp_path / "p.csv").read_text().startswith("moment,server,accelerator")
    assert main(["scenarios", str(path)]) == 0
    assert "knowing which comes" in capsys.readouterr().out
    assert main(["scenarios", str(path), "--criterion", "worst", "--quiet"]) == 0
    assert main(["scenarios", str(path), "--served", "0.9"]) == 0
    assert "not everybody" in capsys.readouterr().out
    path.write_text(yaml.safe_dump(data(periods=[{"name": "x", "factor": 500.0}])))
    assert main(["periods", str(path)]) == 1
    assert "infeasible" in capsys.readouterr().out
    assert main(["periods", "instances/limited.yaml"]) == 2


class TestServersThatCannotAllBeServed:
    """`infeasible` means that not a single server can be served; otherwise a plan is partial, by priority."""

    def some(self, **changes):
        """Three servers, of which the first has requests that no cache holds."""
        classes = [
            {"name": "never", "priority": 1, "targets": {"n": {}}},
            {"name": "high", "priority": 1, "targets": {"m": {}}},
            {"name": "low", "priority": 2, "targets": {"m": {}}},
        ]
        servers = [{**ONE[0], "name": name, "service_class": name} for name in ("never", "high", "low")]
        servers[0]["model"] = "n"
        profiles = [*data()["profiles"], TOO_SMALL]
        return data(servers=servers, service_classes=classes, profiles=profiles, **changes)

    @pytest.mark.parametrize("assignment", ["single", "mixed"])
    @pytest.mark.parametrize("section", ["periods", "scenarios"])
    def test_one_that_nothing_can_serve(self, section, assignment):
        moments = [{"name": "x"}, {"name": "y", "factor": 2.0}]
        if section == "scenarios":
            moments = [{**moment, "probability": 0.5} for moment in moments]
        problem = im.read_problem_data(self.some(**{section: moments}, options={"assignment": assignment}))
        plan = (im.plan_periods if section == "periods" else im.plan_scenarios)(problem).plan
        assert plan.status == "partial"
        assert [one.server for one in plan.unserved] == ["never"]
        assert {one.server for one in plan.held} == {"high", "low"}
        rest = im.optimize(problem)
        assert (rest.status, rest.unserved) == ("partial", ("never",))

    @pytest.mark.parametrize("assignment", ["single", "mixed"])
    def test_devices_for_some(self, assignment):
        """Of two priorities the higher one is served, in every period; with devices for nobody it is infeasible."""
        periods = [{"name": "x"}, {"name": "y", "factor": 2.0}]
        roomy = im.read_problem_data(self.some(periods=periods, options={"assignment": assignment}))
        high = roomy.model_copy(update={"servers": roomy.servers[1:2]})
        needed = im.plan_periods(high).plan
        most = {name: max(m.devices[name] for m in needed.moments) for name in needed.moments[0].devices}
        plan = im.plan_periods(roomy.model_copy(update={"capacity": most})).plan
        assert plan.status == "partial"
        assert [one.server for one in plan.unserved] == ["never", "low"]
        none = im.plan_periods(roomy.model_copy(update={"capacity": dict.fromkeys(most, 0)})).plan
        assert (none.status, none.cost_per_hour, len(none.unserved)) == ("infeasible", None, 3)


@pytest.mark.parametrize("moves", [False, True])
def test_no_plan_is_dearer_than_a_baseline_in_however_little_time(monkeypatch, moves):
    """Whatever the program finds, or if it finds nothing, the baselines of the same call are no cheaper."""
    periods = [{"name": f"h{i}", "factor": factor} for i, factor in enumerate((0.2, 1.0, 3.0, 0.5))]
    problem = im.read_problem_data(
        data(servers=ONE, periods=periods, planning={"start_cost_hours": 0.1, "moves": moves})
    )
    best = im.plan_periods(problem)

    def finds_nothing(ways, setup, effort, start=None):
        return (
            nothing(ways, len(setup.weights), "no_solution") if len(setup.weights) > 1 else solve(ways, setup, effort)
        )

    solve = solve_horizon
    monkeypatch.setattr("inferno_milp.planning.horizon.solve.solve_horizon", finds_nothing)
    found = im.plan_periods(problem)
    assert found.plan.status == "feasible"
    least = min(best.peak_cost_per_hour, best.peak_cost_per_hour if best.replanned_moves and not moves
                else best.replanned_cost_per_hour)  # fmt: skip
    assert found.plan.cost_per_hour == pytest.approx(least)


def crowded(section, **changes):
    """Three servers, one of them of a lower priority, where there are devices for two."""
    moments = [{"name": "x"}, {"name": "y", "factor": 2.0}]
    if section == "scenarios":
        moments = [{**moment, "probability": 0.5} for moment in moments]
    classes = [{"name": name, "priority": i + 1, "targets": {"m": {}}} for i, name in enumerate(("high", "low"))]
    servers = [
        {**ONE[0], "name": name, "service_class": c, "min_replicas": 1, "weight": weight}
        for name, c, weight in (("a", "high", 1.0), ("b", "high", 2.0), ("c", "low", 1.0))
    ]
    there = {"small": 1, "big": 1}
    return data(**{"capacity": there, "service_classes": classes, "servers": servers, section: moments, **changes})


@pytest.mark.parametrize("unit", [1e-9, 1e-7, 1.0, 1e9])
@pytest.mark.parametrize("section", ["periods", "scenarios"])
def test_weights_count_in_any_unit(section, unit):
    document = crowded(section, capacity={"small": 0, "big": 1})
    for server in document["servers"]:
        server["weight"] *= unit
    plan = (im.plan_periods if section == "periods" else im.plan_scenarios)(im.read_problem_data(document)).plan
    assert (plan.status, [one.server for one in plan.unserved]) == ("partial", ["a", "c"])


@pytest.mark.parametrize("when", ["building", "solving"])
@pytest.mark.parametrize("assignment", ["single", "mixed"])
@pytest.mark.parametrize("section", ["periods", "scenarios"])
def test_the_time_runs_out_before_it_is_known_whom_to_leave_out(monkeypatch, section, assignment, when):
    def late(*arguments, **options):
        if when == "building":
            raise OutOfTimeError
        return Solution("no_solution", None, None, 0.0)

    name = "build_horizon" if when == "building" else "solve_in_time"
    monkeypatch.setattr(f"inferno_milp.planning.horizon.left_out.{name}", late)
    problem = im.read_problem_data(crowded(section, options={"assignment": assignment}))
    plan = (im.plan_periods if section == "periods" else im.plan_scenarios)(problem).plan
    assert (plan.status, plan.cost_per_hour, plan.held) == ("no_solution", None, ())
