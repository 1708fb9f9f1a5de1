"""Every kind of plan against trying everything, on small random systems."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from brute_force import best_plan, packs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_problems import make_problem, problem_data
from systems import systems

import inferno_milp as im
from inferno_milp.columns.packing import cuttings, pack
from inferno_milp.problem.supply import NodeGroup
from inferno_milp.studies.generate import generate_problem


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(problem=systems(servers=3, mixed=False))
def test_single_assignments(problem: im.Problem) -> None:
    compare(problem)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(problem=systems(servers=2, mixed=False, noded=True))
def test_nodes_of_odd_sizes(problem: im.Problem) -> None:
    """Replicas of 2, 3 and 5 devices in nodes of up to 8."""
    compare(problem)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(problem=systems(servers=2, mixed=True, rate=6.0))
def test_mixed_assignments(problem: im.Problem) -> None:
    compare(problem)


@pytest.mark.parametrize("unit", [1e-9, 1e-7, 1e-5, 1e5, 1e9])
@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_weights_count_in_any_unit(assignment: str, unit: float) -> None:
    """A tolerance of 1e-9 on what a priority may lose would let it lose servers of such weights."""

    def plan_in(unit: float) -> im.Plan:
        load = {"rate_per_s": 4.0, "input_tokens": 200.0, "output_tokens": 100.0}
        base = {"service_class": "gold", "model": "m", "load": load}
        servers = [{**base, "name": f"s{i}", "weight": w * unit} for i, w in enumerate((1.0, 2.0, 2.5, 1.0))]
        options = {"law": "inferno", "assignment": assignment}
        return im.optimize(make_problem(servers=servers, capacity={"A": 2, "B": 1}, options=options), gap=0.0)

    one, plan = plan_in(1.0), plan_in(unit)
    assert (plan.status, plan.unserved) == (one.status, one.unserved)
    assert (one.status, one.unserved) == ("partial", ("s3",))
    assert plan.objective == pytest.approx(one.objective)
    assert plan.bound == pytest.approx(plan.objective)
    assert [use.served / unit for use in plan.priorities] == pytest.approx([use.served for use in one.priorities])


def compare(problem: im.Problem) -> None:
    """The same weight is served of each priority, at the same objective, and both are proven."""
    truth, plan = best_plan(problem), im.optimize(problem, gap=0.0)
    levels = sorted({c.priority for c in problem.service_classes})
    served = [0.0] * len(levels)
    for server, planned in zip(problem.servers, plan.servers, strict=True):
        needed = planned.required_rate_per_s > 0 or server.min_replicas > 0
        if planned.is_carried and needed:
            served[levels.index(planned.priority)] += server.weight
    assert served == pytest.approx(truth.served)
    assert all(use.served == pytest.approx(use.could) for use in plan.priorities)
    if plan.objective is None:
        assert sum(served) == 0
    else:
        assert plan.objective == pytest.approx(truth.objective)
        assert plan.bound == pytest.approx(plan.objective)


@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(problem=systems(servers=5))
def test_no_plan_breaks_a_limit(problem: im.Problem) -> None:
    """Random systems of every kind, both solvers; `optimize` itself checks every plan, and raises if it fails."""
    plan = im.optimize(problem)
    json.dumps(plan.to_dict(), allow_nan=False)
    assert im.Plan.from_dict(plan.to_dict()) == plan
    if problem.options.assignment == "single":
        greedy = im.optimize(problem, solver="greedy")
        if greedy.serves_all:
            assert plan.status == "optimal"
            assert plan.objective is not None
            if not problem.options.change_penalty and not problem.options.power_price_per_kwh:
                assert plan.objective <= greedy.total_cost_per_hour * (1 + 1e-9)


@given(
    groups=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=3),
    counts=st.dictionaries(st.integers(1, 6), st.integers(0, 4), min_size=1, max_size=3),
)
def test_packing(groups: list[tuple[int, int]], counts: dict[int, int]) -> None:
    """Replicas fit into nodes if trying everything finds it, and the packing holds them."""
    nodes = [NodeGroup(type="A", devices=devices, count=count) for devices, count in groups]
    sizes = sorted(counts)
    packed = pack(nodes, sizes, [counts[size] for size in sizes])
    rooms = tuple(sorted(devices for devices, count in groups for _ in range(count)))
    items = tuple(sorted((size for size in sizes for _ in range(counts[size])), reverse=True))
    assert (packed is not None) == packs(rooms, items)
    for node in packed or ():
        assert sum(size * n for size, n in zip(sizes, node.counts, strict=True)) <= groups[node.group][0]
    if packed is not None:
        assert [sum(node.counts[i] for node in packed) for i in range(len(sizes))] == [counts[size] for size in sizes]
        used = Counter(node.group for node in packed)
        assert all(count <= groups[group][1] for group, count in used.items())


def test_nodes_without_end() -> None:
    """Neither the ways to cut a node nor its nodes are listed beyond what is of use."""
    with pytest.raises(im.OptionError, match="can be cut up in more than 20000 ways"):
        cuttings([NodeGroup(type="A", devices=10**6, count=1)], [2, 3, 5])
    packed = pack([NodeGroup(type="A", devices=8, count=10**9)], [1, 2], [3, 5])
    assert [node.counts for node in packed or ()] == [(0, 4), (3, 1)]
    assert pack([NodeGroup(type="A", devices=8, count=10**9)], [1, 16], [3, 5]) is None


@pytest.mark.parametrize("assignment", ["single", "mixed"])
@pytest.mark.parametrize("policy", ["none", "round_robin"])
def test_without_limits_nodes_are_none(assignment: str, policy: str) -> None:
    """Written in a document, or set, \"unlimited\" means what `--unlimited` does."""
    nodes = [{"type": "B", "devices": 1, "count": 2}]
    options = {"law": "inferno", "assignment": assignment, "saturation_policy": policy, "max_cost_per_hour": 70.0}
    servers = [{**problem_data()["servers"][0], "name": f"s{i}", "min_replicas": 1} for i in range(2)]
    for server in servers:
        server["load"] = {**server["load"], "rate_per_s": 25.0}
    profiles = problem_data()["profiles"]
    profiles[1]["accelerators_per_replica"] = 3
    noded = make_problem(nodes=nodes, capacity={"A": 1}, options=options, servers=servers, profiles=profiles)
    written = im.with_settings(noded, {"capacity": "unlimited"})
    plans = [im.optimize(problem) for problem in (written, noded.with_unlimited_capacity())]
    assert plans[0].servers == plans[1].servers
    assert plans[0].nodes == plans[1].nodes == ()


@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_priorities_of_many_servers(instances: Path, assignment: str) -> None:
    """Half the devices: each priority loses only what it must, whatever it costs, and that is proven."""
    base = im.read_problem(instances / "limited.yaml").with_options(assignment=assignment)
    problem = generate_problem(base, servers=60, tightness=0.9, seed=3)
    assert problem.capacity is not None
    halved = problem.model_copy(update={"capacity": {name: n // 2 for name, n in problem.capacity.items()}})
    plan, greedy = im.optimize(halved), im.optimize(halved.with_options(assignment="single"), solver="greedy")
    assert plan.status == "partial"
    assert all(use.served == use.could for use in plan.priorities)
    by_greedy = Counter(s.priority for s in greedy.servers if s.meets_targets)
    for use in plan.priorities:
        if use.served != by_greedy[use.priority]:
            assert use.served > by_greedy[use.priority]
            break


def test_a_time_limit_keeps_what_was_found(instances: Path) -> None:
    base = im.read_problem(instances / "limited.yaml").with_options(assignment="mixed")
    plan = im.optimize(generate_problem(base, servers=100, tightness=0.6, seed=1), gap=0.0, time_limit_s=2.0)
    assert plan.status in ("optimal", "feasible", "no_solution")


@pytest.mark.parametrize("rate_per_s", [1e-5, 1e-7, 1e-9, 1e-12])
def test_rates_however_small_are_carried(rate_per_s: float) -> None:
    """A row of covers that HiGHS's tolerance of 1e-7 would take as kept by no replica at all."""
    load = {"input_tokens": 200.0, "output_tokens": 100.0}
    power = {"idle_w": 50.0, "full_w": 200.0, "mid_w": 150.0, "mid_utilization": 0.4}
    base = {"service_class": "gold", "model": "m", "current": [{"accelerator": "A", "replicas": 0}]}
    problem = make_problem(
        accelerators=[
            {"name": name, "cost_per_hour": cost, "power": power} for name, cost in (("A", 10.0), ("B", 25.0))
        ],
        profiles=[p for p in problem_data()["profiles"] if p["accelerator"] != "2xB"],
        servers=[
            {**base, "name": "few", "max_replicas": 1, "load": {"rate_per_s": rate_per_s, **load}},
            {**base, "name": "many", "survive": 1, "load": {"rate_per_s": 7.0, **load}},
        ],
        capacity={"A": 3, "B": 1},
        options={"law": "inferno", "assignment": "mixed", "batch_sizes": "largest", "energy_price_per_kwh": 20.0},
    )
    plan = im.optimize(problem)
    assert (plan.status, plan.serves_all) == ("optimal", True)
    assert plan.objective_parts["price"] == pytest.approx(55.0)
