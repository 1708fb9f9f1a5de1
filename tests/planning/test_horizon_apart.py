"""Moments that are taken apart: against brute force, against one program for all, and when time is short."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from brute_force import packs
from hypothesis import given, settings
from hypothesis import strategies as st
from test_horizon import cost_of, data, fits

import inferno_milp as im
from inferno_milp.planning.horizon import solve
from inferno_milp.planning.horizon.decomposition import comes_apart, solve_apart
from inferno_milp.planning.horizon.program import Effort, Setup, solve_horizon
from inferno_milp.planning.horizon.reservations import best_reservation
from inferno_milp.planning.horizon.ways import find_ways
from inferno_milp.problem.sections import Scenario

ACCELERATORS = [
    {"name": "small", "cost_per_hour": 1.0, "reserved_cost_per_hour": 0.6},
    {"name": "big", "cost_per_hour": 2.5, "reserved_cost_per_hour": 1.2},
]


def mixed(a, b, chances, changes=None, capacity=None):
    """A problem of two servers with so many scenarios, mixed."""
    scenarios = [
        {"name": str(t), "probability": chances[t], "rates_per_s": {"a": a[t], "b": b[t]}} for t in range(len(a))
    ]
    problem = data(scenarios=scenarios, options={"assignment": "mixed"}, accelerators=ACCELERATORS)
    servers = [{**server, **(changes or {}).get(server["name"], {})} for server in problem["servers"]]
    return im.read_problem_data({**problem, "servers": servers, "capacity": capacity or {"small": 4, "big": 2}})


def patterns(ways, server, moment, most):
    """All ways to serve one server in a moment, as replicas of each of its ways."""
    own, required = ways.of(server), ways.required_per_s[server, moment]
    one = ways.problem.servers[server]
    for counts in itertools.product(*(range(n + 1) for n in most)):
        if not one.min_replicas <= sum(counts) <= (one.max_replicas or math.inf):
            continue
        if required > 0 and (not sum(counts) or ways.rows.max_rate_per_s[own] @ np.array(counts) < required - 1e-9):
            continue
        yield counts


def least_cost(problem, chances):
    """Try every reservation, and for each moment everything that could run."""
    ways = find_ways(problem, problem.scenarios)
    best = math.inf
    choices = []
    for t in range(len(chances)):
        grids = []
        for parts in itertools.product(*(patterns(ways, s, t, (4, 2)) for s in range(2))):
            grid = np.zeros((len(ways.rows), 1), dtype=int)
            for s, counts in enumerate(parts):
                grid[ways.of(s), 0] = counts
            if fits(problem, ways, grid):
                grids.append(grid)
        choices.append(grids)
    for reserved in itertools.product(range(5), range(3)):
        costs = [
            min((cost_of(problem, ways, g, [1.0], None, reserved) for g in grids), default=math.inf)
            for grids in choices
        ]
        best = min(best, float(np.dot(costs, chances)))
    return best


rates = st.lists(st.sampled_from([0.0, 1.0, 4.0, 7.0, 12.0]), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    a=rates,
    b=st.lists(st.sampled_from([0.0, 2.0, 5.0]), min_size=3, max_size=3),
    chances=st.sampled_from([(0.5, 0.3, 0.2), (0.8, 0.1, 0.1), (0.4, 0.4, 0.2)]),
    least=st.sampled_from([0, 1, 2]),
    most=st.sampled_from([None, 2, 3]),
)
def test_brute_force(a, b, chances, least, most):
    limit = {} if most is None else {"max_replicas": most}
    changes = {"a": {"min_replicas": least, **limit}, "b": limit}
    problem = mixed(a, b, chances, changes)
    ways, setup = find_ways(problem, problem.scenarios), Setup(np.array(chances))
    expected = least_cost(problem, chances)
    found = solve_apart(ways, setup, Effort(0.0))
    if math.isinf(expected):
        # The relaxation may not show that whole replicas do not fit; their program does.
        assert found.outcome == "infeasible"
        return
    assert found.objective is not None
    assert found.bound <= expected * (1 + 1e-6) + 1e-9
    assert found.objective >= expected * (1 - 1e-6) - 1e-9
    assert found.objective == pytest.approx(cost_of(problem, ways, found.replicas, chances, None, found.reserved))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "MANY", 1)
        plan = im.plan_scenarios(problem, gap=0.0)
    assert plan.plan.status == "optimal"
    assert plan.plan.cost_per_hour == pytest.approx(expected, rel=1e-6, abs=1e-9)
    whole = im.plan_scenarios(problem, gap=0.0)
    assert plan.known_cost_per_hour == pytest.approx(whole.known_cost_per_hour, rel=1e-6, abs=1e-9)
    assert (plan.mean_cost_per_hour is None) == (whole.mean_cost_per_hour is None)


def many(count, seed=0, **changes):
    """Scenarios of limited.yaml's servers, reserved at 60 % of the price."""
    base = im.read_problem("instances/limited.yaml").with_options(law="continuous-batching", assignment="mixed")
    rng = np.random.default_rng(seed)
    scenarios = tuple(
        Scenario(
            name=f"s{k}",
            probability=1 / count,
            rates_per_s={
                s.name: s.load.arrival_rate_per_s * float(rng.lognormal(0, 0.3)) for s in base.servers if s.load
            },
        )
        for k in range(count)
    )
    accelerators = tuple(
        a.model_copy(update={"reserved_cost_per_hour": 0.6 * a.cost_per_hour}) for a in base.accelerators
    )
    return base.model_copy(update={"scenarios": scenarios, "accelerators": accelerators, "nodes": (), **changes})


def test_as_one_program_for_all():
    """Neither's bound is above the other's cost; both find nearly the same."""
    problem = many(4, capacity=None)
    ways, setup = find_ways(problem, problem.scenarios), Setup(np.full(4, 0.25))
    apart = solve_apart(ways, setup, Effort(2e-3, 60.0))
    whole = solve_horizon(ways, setup, Effort(2e-3, 60.0))
    assert apart.bound <= whole.objective * (1 + 1e-9)
    assert whole.bound <= apart.objective * (1 + 1e-9)
    assert apart.objective == pytest.approx(whole.objective, rel=5e-3)
    assert apart.outcome == "optimal"


def test_within_the_devices():
    devices = im.read_problem("instances/limited.yaml").devices_available
    short = im.plan_scenarios(many(12), time_limit_s=10.0).plan
    assert short.status in ("partial", "no_solution"), "how far it comes depends on the machine"
    assert short.status == "no_solution" or short.unserved
    problem = many(12, capacity={name: 2 * count for name, count in devices.items()})
    found = im.plan_scenarios(problem, gap=1e-2)
    assert found.plan.status == "optimal", "its check has counted the devices"
    assert found.plan.bound <= found.plan.cost_per_hour
    assert found.known_cost_per_hour <= found.plan.cost_per_hour * (1 + 1e-2)


def test_the_same_on_two_processes():
    problem = many(12, capacity=None)
    one = im.plan_scenarios(problem, gap=1e-2)
    two = im.plan_scenarios(problem, gap=1e-2, jobs=2)
    assert one.plan.to_dict() == two.plan.to_dict()


def test_when_time_is_short_there_is_a_plan():
    problem = many(20, capacity=None)
    ways, setup = find_ways(problem, problem.scenarios), Setup(np.full(20, 0.05))
    found = solve_apart(ways, setup, Effort(1e-6, 0.0))
    assert found.outcome == "feasible"
    assert found.bound < found.objective < 1.2 * found.bound


def test_few_replicas_at_most_on_a_mix():
    """Small alone would need more than there may be: the best is one of each."""
    scenarios = [{"name": str(t), "probability": 1 / 12, "rates_per_s": {"a": 12.0}} for t in range(12)]
    document = data(scenarios=scenarios, options={"assignment": "mixed"}, accelerators=ACCELERATORS)
    document["servers"] = [{**document["servers"][0], "max_replicas": 3}]
    found = im.plan_scenarios(im.read_problem_data({**document, "capacity": {"small": 4, "big": 1}}))
    assert (found.plan.status, found.plan.cost_per_hour) == ("optimal", pytest.approx(1.8))
    assert found.plan.reserved == {"small": 1, "big": 1}


@pytest.mark.parametrize("limit_s", [None, 0.0])
def test_who_has_no_load_keeps_his_minimum(limit_s):
    """Where devices are tight, so that rounding finds nothing."""
    scenarios = [{"name": str(t), "probability": 1 / 12, "rates_per_s": {"b": 1.0 + t % 5}} for t in range(12)]
    document = data(scenarios=scenarios, options={"assignment": "mixed"}, capacity={"small": 3, "big": 1})
    idle, busy = document["servers"]
    document["servers"] = [{**{k: v for k, v in idle.items() if k != "load"}, "min_replicas": 2}, busy]
    plan = im.plan_scenarios(im.read_problem_data(document), time_limit_s=limit_s, gap=0.0).plan
    assert plan.status == "optimal" if limit_s is None else plan.status in ("optimal", "feasible")
    for moment in plan.moments:
        assert sum(one.replicas for one in plan.held if one.server == "a" and one.moment == moment.name) >= 2


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_whatever_the_currency(factor):
    accelerators = [{k: v * factor if "cost" in k else v for k, v in a.items()} for a in ACCELERATORS]
    scenarios = [{"name": str(t), "probability": 0.05, "factor": 0.5 + 0.1 * t} for t in range(20)]
    document = data(scenarios=scenarios, options={"assignment": "mixed"}, capacity={"small": 99, "big": 99})
    plain = im.read_problem_data({**document, "accelerators": ACCELERATORS})
    dear = im.read_problem_data({**document, "accelerators": accelerators})
    expected = im.plan_scenarios(plain, gap=1e-3).plan
    found = im.plan_scenarios(dear, gap=1e-3).plan
    assert found.status == expected.status == "optimal"
    assert found.cost_per_hour / factor == pytest.approx(expected.cost_per_hour, rel=2e-3)
    assert found.bound / factor == pytest.approx(expected.bound, rel=2e-3)


def test_hours_are_weights_and_starts_join_periods():
    hours = [{"name": str(t), "hours": 1 + t % 3, "factor": 0.2 + (t % 7) / 7} for t in range(14)]
    document = data(periods=hours, options={"assignment": "mixed"}, capacity={"small": 40, "big": 20})
    problem = im.read_problem_data(document)
    ways, weights = find_ways(problem, problem.periods), np.array([1.0 + t % 3 for t in range(14)])
    assert comes_apart(ways, Setup(weights, problem.planning))
    whole = solve_horizon(ways, Setup(weights, problem.planning), Effort(0.0))
    assert im.plan_periods(problem, gap=0.0).plan.cost_per_hour == pytest.approx(whole.objective / weights.sum())
    for planning in ({"start_cost_hours": 0.1}, {"min_up_hours": 2}):
        joined = im.read_problem_data({**document, "planning": planning})
        assert not comes_apart(ways, Setup(weights, joined.planning))
    for change in ({"criterion": "worst"}, {"served": 0.9}):
        assert not comes_apart(ways, Setup(weights, None, **change))


def test_reservations_that_pay():
    problem = mixed([4.0, 4.0, 0.0], [0.0, 0.0, 0.0], (0.5, 0.2, 0.3))
    ways = find_ways(problem, problem.scenarios)
    replicas = np.zeros((len(ways.rows), 3), dtype=int)
    replicas[ways.of(0)[0]] = [2, 1, 0]
    # A reserved unit costs 0.6 of one on demand: the first is used for 0.7 of the time, the second for 0.5.
    assert best_reservation(ways, replicas, np.array([0.5, 0.2, 0.3])).tolist() == [1, 0]


def in_nodes(rates, chances, sizes, nodes, **options):
    """One server on one type, whose replicas take devices of several numbers and sit in nodes."""
    document = data(options={"assignment": "mixed", **options})
    document["accelerators"] = [
        {"name": f"{size}xG", "type": "G", "devices": size, "cost_per_hour": 0.8 * size + 0.3 * (size == 1),
         "reserved_cost_per_hour": 0.5 * size}
        for size in sizes
    ]  # fmt: skip
    document["profiles"] = [
        {"model": "m", "gamma_ms": 10.0, "max_batch_size": 16, "accelerator": f"{size}xG", "alpha_ms": 20.0 / size,
         "beta_ms": 1.0 / size, "delta_ms": 0.1 / size}
        for size in sizes
    ]  # fmt: skip
    document["servers"] = document["servers"][:1]
    document["nodes"] = [{"type": "G", "devices": devices, "count": 1} for devices in nodes]
    document["capacity"] = {}
    document["scenarios"] = [
        {"name": str(t), "probability": chance, "rates_per_s": {"a": rate}}
        for t, (rate, chance) in enumerate(zip(rates, chances, strict=True))
    ]
    return im.read_problem_data(document)


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.sampled_from([0.0, 3.0, 9.0, 16.0, 24.0]), min_size=3, max_size=3),
    chances=st.sampled_from([(0.5, 0.3, 0.2), (0.8, 0.1, 0.1)]),
    sizes=st.sampled_from([(1, 2), (2, 3), (2, 3, 5)]),
    nodes=st.sampled_from([(4,), (3, 4), (5, 5), (8,)]),
)
def test_nodes_equal_brute_force(rates, chances, sizes, nodes):
    problem = in_nodes(rates, chances, sizes, nodes)
    ways, setup = find_ways(problem, problem.scenarios), Setup(np.array(chances))
    own, choices = ways.of(0), []
    for t in range(3):
        grids = []
        for counts in itertools.product(*(range(sum(nodes) // size + 1) for size in sizes)):
            items = sorted(
                (size for size, count in zip(sizes, counts, strict=True) for _ in range(count)), reverse=True
            )
            grid = np.zeros((len(ways.rows), 1), dtype=int)
            grid[own, 0] = [counts[sizes.index(int(ways.rows.devices_per_replica[w]))] for w in own]
            carried = ways.rows.max_rate_per_s[own] @ grid[own, 0]
            if carried >= ways.required_per_s[0, t] - 1e-9 and packs(tuple(sorted(nodes)), tuple(items)):
                grids.append(grid)
        choices.append(grids)
    expected = math.inf
    for reserved in itertools.product(*(range(sum(nodes) // size + 1) for size in sizes)):
        costs = [
            min((cost_of(problem, ways, g, [1.0], None, reserved) for g in some), default=math.inf) for some in choices
        ]
        expected = min(expected, float(np.dot(costs, chances)) if max(costs) < math.inf else math.inf)
    whole = im.plan_scenarios(problem, gap=0.0)
    apart = solve_apart(ways, setup, Effort(0.0))
    if math.isinf(expected):
        assert (whole.plan.status, apart.outcome) == ("infeasible", "infeasible")
        return
    assert whole.plan.cost_per_hour == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert apart.bound <= expected * (1 + 1e-6) + 1e-9
    assert apart.objective >= expected * (1 - 1e-6) - 1e-9
    assert all(ways.fits(column) for column in apart.replicas.T)


def test_single_assignment_in_nodes():
    problem = in_nodes([3.0, 24.0], (0.5, 0.5), (2, 3), (5, 5), assignment="single")
    plan = im.plan_scenarios(problem, gap=0.0).plan
    assert plan.status == "optimal"
    (home,) = {one.accelerator for one in plan.held}
    most = max(one.replicas for one in plan.held)
    assert most <= {"2xG": 4, "3xG": 2}[home], "a node of five holds two of two, or one of three"


@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_a_budget_holds_in_every_scenario(assignment):
    free = mixed([4.0, 7.0, 1.0], [2.0, 2.0, 0.0], (0.5, 0.3, 0.2)).with_options(assignment=assignment)
    plan = im.plan_scenarios(free, gap=0.0).plan
    dearest = max(moment.cost_per_hour for moment in plan.moments)
    worst = im.plan_scenarios(free, gap=0.0, criterion="worst").plan.cost_per_hour
    held = im.plan_scenarios(free.with_options(max_cost_per_hour=worst + 1e-6), gap=0.0).plan
    assert max(moment.cost_per_hour for moment in held.moments) <= worst + 1e-5
    assert plan.cost_per_hour <= held.cost_per_hour + 1e-9
    assert worst < dearest or plan.cost_per_hour == pytest.approx(held.cost_per_hour)
    short = im.plan_scenarios(free.with_options(max_cost_per_hour=0.99 * worst), gap=0.0).plan
    assert short.status == "partial"
    assert 1 <= len(short.unserved) < len(free.servers)


def test_nodes_that_can_be_cut_in_too_many_ways_are_refused():
    problem = in_nodes([3.0], (1.0,), (2, 3, 5, 7, 11), (144,))
    for plan in (im.plan_scenarios, im.optimize):
        with pytest.raises(im.OptionError, match="a node of 144 G can be cut up in more than 20000 ways"):
            plan(problem)


def test_hour_by_hour_keeps_the_budget_with_what_is_reserved():
    """A reserved unit is cheaper than one on demand: that is what the budget has to pay."""
    periods = [{"name": "x"}, {"name": "y"}]
    document = data(periods=periods, servers=data()["servers"][:1])
    free = im.plan_periods(im.read_problem_data(document), gap=0.0)
    assert free.plan.reserved
    tight = im.read_problem_data({**document, "options": {"max_cost_per_hour": free.plan.cost_per_hour}})
    found = im.plan_periods(tight, gap=0.0)
    assert found.replanned_cost_per_hour == pytest.approx(found.plan.cost_per_hour)
    assert found.plan.cost_per_hour == pytest.approx(free.plan.cost_per_hour)


def test_knowing_is_never_dearer_than_the_plan():
    """Even where there is no time to plan each scenario."""
    found = im.plan_scenarios(many(14, capacity=None), time_limit_s=0.0)
    assert found.value_of_knowing_per_hour >= -1e-9 * found.plan.cost_per_hour


@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_the_worst_at_tiny_prices(assignment):
    accelerators = [{k: v * 1e-6 if "cost" in k else v for k, v in a.items()} for a in ACCELERATORS]
    scenarios = [{"name": str(t), "probability": 0.25, "factor": 1.0 + t} for t in range(4)]
    document = data(scenarios=scenarios, options={"assignment": assignment}, capacity={"small": 9, "big": 9})
    costs = []
    for some, factor in ((ACCELERATORS, 1.0), (accelerators, 1e6)):
        problem = im.read_problem_data({**document, "accelerators": some})
        costs.append(im.plan_scenarios(problem, criterion="worst", gap=0.0).plan.cost_per_hour * factor)
    assert costs[0] == pytest.approx(costs[1], rel=1e-6)
