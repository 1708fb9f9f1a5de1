"""Mixes of request sizes: moments, the program against brute force, routed plans of problems, tables and files."""

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
from scipy.optimize import linprog

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.planning.routing import tables
from inferno_milp.planning.routing.check import check_shares
from inferno_milp.planning.routing.program import Routed
from inferno_milp.planning.routing.tables import ThroughputTable
from inferno_milp.problem.loads import Bucket, moments
from inferno_milp.studies.requests import draw_mix

A10G, A100 = {"cost": 1.01, "tputs": [[5, 1], [10, 5]]}, {"cost": 3.67, "tputs": [[20, 2], [50, 20]]}


def table(rate=24.0, shares=((0.25, 0.125), (0.375, 0.25)), **gpus):
    return ThroughputTable.model_validate(
        {"gpu_info": gpus or {"A10G": A10G, "A100": A100}, "workload_distribution": shares, "total_request_rate": rate}
    )


def carries(weights, counts):
    """Whether so many GPUs carry everything, by a linear program of SciPy's: shares of each bucket on each GPU."""
    gpus, buckets = weights.shape
    rows = np.zeros((gpus, gpus * buckets))
    for g in range(gpus):
        rows[g, g * buckets : (g + 1) * buckets] = np.where(np.isfinite(weights[g]), weights[g], 0.0)
    bounds = [(0, 1 if math.isfinite(weight) else 0) for weight in weights.ravel()]
    whole = np.tile(np.eye(buckets), gpus)
    found = linprog(
        np.zeros(gpus * buckets), rows, np.array(counts) + 1e-7, whole, np.ones(buckets), bounds, method="highs"
    )
    return found.status == 0


def least_cost(weights, prices, most):
    best = math.inf
    for counts in itertools.product(*(range(m + 1) for m in most)):
        cost = float(np.dot(prices, counts))
        if cost < best - 1e-9 and carries(weights, counts):
            best = cost
    return best


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.floats(0.5, 4.0), min_size=1, max_size=4),
    gpus=st.lists(
        st.tuples(st.floats(0.3, 3.0), st.lists(st.sampled_from([0.0, 0.7, 1.5, 4.0]), min_size=4, max_size=4)),
        min_size=1,
        max_size=3,
    ),
    count=st.integers(0, 3),
)
def test_tables_equal_brute_force(rates, gpus, count):
    whole = sum(rates)
    found = im.route_table(
        ThroughputTable.model_validate(
            {
                "gpu_info": {
                    f"g{i}": {"cost": cost, "tputs": [tputs[: len(rates)]], "count": count}
                    for i, (cost, tputs) in enumerate(gpus)
                },
                "workload_distribution": [[rate / whole for rate in rates]],
                "total_request_rate": whole,
            }
        ),
        gap=0.0,
    )
    with np.errstate(divide="ignore"):
        weights = np.array([np.divide(rates, tputs[: len(rates)]) for _, tputs in gpus])
    expected = least_cost(weights, [cost for cost, _ in gpus], [count] * len(gpus))
    if math.isinf(expected):
        assert found.status == "infeasible"
        assert found.cost_per_hour is None
    else:
        assert found.status == "optimal"
        assert found.cost_per_hour == pytest.approx(expected, rel=1e-6)


def sliced_cost(found, slices):
    """Every slice of a bucket goes to one GPU: the least cost by trying all."""
    rates = np.repeat(found.rates_per_s().ravel() / slices, slices)
    names = list(found.gpu_info)
    loads = {name: rates / np.repeat(np.ravel(found.gpu_info[name].tputs), slices) for name in names}
    best = math.inf
    for homes in itertools.product(range(len(names)), repeat=len(rates)):
        chosen = np.array(homes)
        counts = [math.ceil(loads[name][chosen == i].sum() - 1e-9) for i, name in enumerate(names)]
        best = min(best, sum(found.gpu_info[name].cost * n for name, n in zip(names, counts, strict=True)))
    return best


@pytest.mark.parametrize("rate", [3.0, 8.0, 16.0, 24.0, 31.0])
@pytest.mark.parametrize("slices", [1, 2])
def test_no_dearer_than_slices(rate, slices):
    found = im.route_table(table(rate), gap=0.0)
    assert found.cost_per_hour <= sliced_cost(table(rate), slices) + 1e-9
    assert found.unrouted_cost_per_hour >= found.cost_per_hour - 1e-9
    total = sum(matrix for matrix in found.weights.values())
    assert total == pytest.approx(np.ones((2, 2)))


def test_throughputs_too_far_apart_for_tolerances():
    """HiGHS takes 1,000,000,000.20 for the least, where one kind of GPU carries all for 0.34."""
    gpus = {
        "g0": {"cost": 1e9, "tputs": [[1e-9, 0, 10], [1e9, 1e-9, 5], [0, 5, 1e-9]]},
        "g1": {"cost": 1.0, "tputs": [[0, 0, 5], [5, 1e-9, 0], [5, 1e9, 1e-9]]},
        "g2": {"cost": 1e-9, "tputs": [[10, 1e-9, 10], [10, 5, 1e-9], [1, 10, 1e-9]]},
    }
    shares = [
        [0.11708384050197074, 0.1627172365587518, 0.10208627562942027],
        [0.0751085871674298, 0.1436284753647301, 0.13767306574735508],
        [0.13981697449857283, 0.0855655965986639, 0.03631994793310553],
    ]
    found = im.route_table(table(1.0, shares=shares, **gpus))
    assert found.cost_per_hour <= found.unrouted_cost_per_hour
    assert found.bound is None or found.bound <= found.cost_per_hour
    assert sum(found.weights.values()) == pytest.approx(np.ones((3, 3)))


@pytest.mark.parametrize("outcome", ["no_solution", "feasible"])
def test_no_dearer_than_the_same_mix_for_everybody(monkeypatch, outcome):
    """Whatever is found in the time there is."""
    best = im.route_table(table())

    def late(weights, *arguments):
        found = solve(weights, *arguments)
        if weights.shape[1] == 1:
            return found
        if outcome == "no_solution":
            return replace(found, outcome=outcome, cost=None, shares=[], bound=1.0)
        return replace(found, outcome=outcome, replicas=found.replicas + 9, cost=found.cost + 9 * (1.01 + 3.67))

    solve = tables._solve
    monkeypatch.setattr(tables, "_solve", late)
    found = im.route_table(table())
    assert (found.status, found.cost_per_hour) == ("feasible", best.unrouted_cost_per_hour)
    assert found.gpus == best.unrouted_gpus
    assert sum(found.weights.values()) == pytest.approx(np.ones((2, 2)))


def test_the_example_of_the_prices():
    """Three A10G and an A100 for 6.70: what the sliced program finds with one slice."""
    found = im.route_table(table())
    assert found.gpus == {"A10G": 3, "A100": 1}
    assert found.cost_per_hour == pytest.approx(6.70)
    assert sliced_cost(table(), 1) == pytest.approx(6.70)


def test_the_example_that_melange_publishes():
    """6.70 with one slice, 5.69 with two, less with shares of buckets.

    Figures: github.com/tyler-griggs/melange-release, melange/config/example.json.
    """
    gpus = {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100-80GB": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    }
    published = table(30.0, shares=((0.2, 0.1), (0.5, 0.2)), **gpus)
    assert sliced_cost(published, 1) == pytest.approx(6.70)
    assert sliced_cost(published, 2) == pytest.approx(5.69)
    found = im.route_table(published, gap=0.0)
    assert (found.gpus, found.cost_per_hour) == ({"A10G": 1, "A100-80GB": 1}, pytest.approx(4.68))
    # An A100 alone would be 12.5 % overfull; one A10G takes what it is least bad at.
    assert found.weights["A10G"] == pytest.approx(np.array([[0, 0], [1 / 3, 0]]), abs=1e-6)


def test_a_gpu_that_cannot_serve_a_bucket_gets_none_of_it():
    small, big = {"cost": 1.0, "tputs": [[5, 1], [0, 5]]}, {"cost": 9.0, "tputs": [[9, 9], [9, 9]]}
    found = im.route_table(table(small=small, big=big))
    assert found.weights["small"][1, 0] == 0
    assert found.unrouted_gpus == {"small": 0, "big": math.ceil(24 / 9)}
    none = im.route_table(table(small={"cost": 1.0, "tputs": [[5, 1], [0, 5]]}))
    assert none.status == "infeasible"
    assert none.gpus == {}


def test_faults_of_a_table_are_told_at_once(tmp_path):
    path = tmp_path / "table.json"
    data = {"gpu_info": {"a": {"cost": -1, "tputs": [[1, 2]]}, "b": {"tputs": [[1], [2, 3]]}},
            "workload_distribution": [[0.5, 0.5]], "total_request_rate": 0}  # fmt: skip
    path.write_text(json.dumps(data))
    with pytest.raises(im.InputError) as caught:
        im.read_throughput_table(path)
    told = str(caught.value)
    assert "gpu_info.a.cost" in told
    assert "gpu_info.b" in told
    assert "total_request_rate" in told
    data = {"gpu_info": {"a": {"cost": 1, "tputs": [[1]]}}, "workload_distribution": [[0.0, 0.0]],
            "total_request_rate": 1}  # fmt: skip
    path.write_text(json.dumps(data))
    with pytest.raises(im.InputError, match="not of the shape") as caught:
        im.read_throughput_table(path)
    assert "all shares are 0" in str(caught.value)


def test_the_check_refuses_what_does_not_hold():
    weights, price, devices = np.array([[1.0, 2.0], [4.0, 1.0]]), np.array([1.0, 2.0]), np.array([3.0, 1.0])
    good = Routed("optimal", np.array([1, 1]), [np.array([1.0, 0.0]), np.array([0.0, 1.0])], cost=3.0, bound=3.0)
    check_shares(weights, price, devices, good)
    for change, words in (
        ({"shares": [np.array([0.5, 0.0]), np.array([0.0, 1.0])]}, "do not sum to 1"),
        ({"replicas": np.array([0, 1]), "cost": 2.0, "bound": 2.0}, "more than it can"),
        ({"replicas": np.array([1, 2]), "cost": 5.0}, "not as many devices"),
        ({"cost": 2.5, "bound": 2.0}, "the cost is 3.0"),
        ({"bound": 3.5}, "above the cost"),
    ):
        fields = {name: getattr(good, name) for name in good.__slots__}
        with pytest.raises(im.PlanCheckError, match=words):
            check_shares(weights, price, devices, Routed(**{**fields, **change}))


BUCKETS = [
    {"input_tokens": 100, "output_tokens": 300, "share": 0.5},
    {"input_tokens": 1000, "output_tokens": 50, "share": 0.3},
    {"input_tokens": 3000, "output_tokens": 200, "share": 0.2},
]


def test_moments_are_those_of_what_is_drawn():
    mix = [Bucket(**bucket, cv2_input=0.1, cv2_output=0.2) for bucket in BUCKETS]
    inputs, outputs = draw_mix(np.random.default_rng(1), mix, 400_000)
    expected = moments(mix)
    assert inputs.mean() == pytest.approx(expected["input_tokens"], rel=0.01)
    assert outputs.mean() == pytest.approx(expected["output_tokens"], rel=0.01)
    assert inputs.var() / inputs.mean() ** 2 == pytest.approx(expected["cv2_input"], rel=0.02)
    assert outputs.var() / outputs.mean() ** 2 == pytest.approx(expected["cv2_output"], rel=0.02)
    covariance = (inputs * outputs).mean() / inputs.mean() / outputs.mean() - 1
    assert covariance == pytest.approx(expected["cov_lengths"], abs=0.01)


def data(rate=14.0, **changes):
    profile = {"model": "m", "gamma_ms": 10.0, "kappa_ms": 1e-4, "max_batch_size": 64}
    return {
        "name": "mixed",
        "currency": "usd",
        "accelerators": [{"name": "big", "cost_per_hour": 4.0}, {"name": "small", "cost_per_hour": 1.0}],
        "profiles": [
            {**profile, "accelerator": "big", "alpha_ms": 8.0, "beta_ms": 0.1, "delta_ms": 0.02},
            {**profile, "accelerator": "small", "alpha_ms": 12.0, "beta_ms": 0.2, "delta_ms": 0.3},
        ],
        "capacity": {"big": 3, "small": 8},
        "service_classes": [{"name": "c", "targets": {"m": {"ttft_ms": 900, "itl_ms": 40}}}],
        "servers": [{"name": "chat", "service_class": "c", "model": "m", "load": {"rate_per_s": rate, "mix": BUCKETS}}],
        **changes,
    }


def test_a_mix_gives_the_load_its_lengths():
    load = im.read_problem_data(data()).servers[0].load
    assert load.input_tokens == pytest.approx(950.0)
    assert load.output_tokens == pytest.approx(205.0)
    again = im.read_problem_text(im.problem_text(im.read_problem_data(data())))
    assert again == im.read_problem_data(data())


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"mix": [{**BUCKETS[0], "share": 0.4}]}, "sum to 0.4"),
        ({"mix": [{**BUCKETS[0], "output_tokens": 0, "share": 1.0}]}, r"load.mix\[0\].output_tokens"),
        ({"mix": BUCKETS, "input_tokens": 20}, "leave out what follows from the mix"),
        ({"mix": [{"input_tokens": 3}]}, "share"),
    ],
)
def test_faults_of_a_mix(load, words):
    server = {"name": "chat", "service_class": "c", "model": "m", "load": {"rate_per_s": 1.0, **load}}
    with pytest.raises(im.InputError, match=words):
        im.read_problem_data(data(servers=[server]))


@pytest.mark.parametrize("rate", [2.0, 6.0, 14.0, 22.0, 30.0])
def test_routing_is_never_dearer_and_every_pool_keeps_its_promises(rate):
    problem = im.read_problem_data(data(rate))
    found = im.find_routes(problem)
    assert found.plan.serves_all
    mixed = im.optimize(problem.with_options(assignment="mixed"))
    for plan in (im.optimize(problem), mixed, found.unrouted):
        if plan.serves_all:
            assert found.plan.total_cost_per_hour <= plan.total_cost_per_hour + 1e-6
    load = problem.servers[0].load
    flows: dict[str, float] = {}
    for route in found.routes:
        assert sum(route.weights.values()) == pytest.approx(1.0)
        for name, weight in route.weights.items():
            flows[name] = flows.get(name, 0.0) + weight * route.rate_per_s
    if not found.routes:
        return
    assert sum(route.rate_per_s for route in found.routes) == pytest.approx(load.arrival_rate_per_s)
    for server in found.plan.servers:
        (allocation,) = server.allocations
        assert server.offered_rate_per_s == pytest.approx(flows[allocation.accelerator])
        # The law anew, from the mix that the router's table sends there.
        sent = [(r, r.weights.get(allocation.accelerator, 0.0) * r.rate_per_s) for r in found.routes]
        whole = sum(flow for _, flow in sent)
        mix = [
            Bucket(input_tokens=r.input_tokens, output_tokens=r.output_tokens, share=flow / whole)
            for r, flow in sent
            if flow > 0
        ]
        profile = next(p for p in problem.profiles if p.accelerator == allocation.accelerator)
        engine = {name: getattr(profile, name) for name in ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "kappa_ms")}
        analysis = im.analyze(
            "continuous-batching",
            **engine,
            **moments(mix),
            max_batch=allocation.batch_size,
            rate_per_s=whole / allocation.replicas,
        )
        assert float(analysis.ttft_ms) <= 900 * (1 + 1e-6)
        assert float(analysis.itl_ms) <= 40 * (1 + 1e-6)


def test_routing_pays_where_accelerators_differ():
    found = im.find_routes(im.read_problem_data(data(30.0)))
    assert found.routes
    assert found.saving_per_hour > 0
    where = {route.input_tokens: route.weights for route in found.routes}
    assert where[3000].get("small", 0.0) < where[100].get("small", 0.0), "long prompts go where prompts are quick"


def test_limits_of_a_server_hold_over_its_pools():
    server = data()["servers"][0]
    for change in ({"min_replicas": 7}, {"max_replicas": 3}, {"survive": 1}, {"reserve": 0.5}):
        problem = im.read_problem_data(data(12.0, servers=[{**server, **change}]))
        found = im.find_routes(problem)
        assert found.plan.serves_all, change
        count = sum(a.replicas for s in found.plan.servers for a in s.allocations)
        assert change.get("min_replicas", 0) <= count <= change.get("max_replicas", 99)
        if "survive" in change and found.routes:
            assert all(a.replicas >= 2 for s in found.plan.servers for a in s.allocations)


def fewest(**changes):
    """A server that must have many more replicas than its load takes."""
    server = {**data(2.0)["servers"][0], **changes}
    promise = [{"name": "c", "targets": {"m": {"ttft_ms": 300, "itl_ms": 14}}}]
    return im.read_problem_data(data(2.0, servers=[server], service_classes=promise, capacity="unlimited"))


@pytest.mark.parametrize("change", [{"min_replicas": 20}, {"min_replicas": 9, "survive": 2}])
def test_the_minimum_is_topped_up(change):
    found = im.find_routes(fewest(**change))
    assert sum(a.replicas for s in found.plan.servers for a in s.allocations) >= change["min_replicas"]


def test_what_runs_today_is_not_priced_and_limits_on_it_are_refused():
    server = {**data(30.0)["servers"][0], "current": {"accelerator": "big", "replicas": 3}}
    dear = im.read_problem_data(data(30.0, servers=[server], options={"change_penalty": 10}))
    found = im.find_routes(dear)
    assert found.plan.objective_parts["changes"] == 0
    assert found.unrouted.objective_parts["changes"] == 0
    with pytest.raises(im.OptionError, match="limited changes"):
        im.find_routes(im.read_problem_data(data(30.0, servers=[server], options={"max_changes": 0})))
    nodes = [{"type": "big", "devices": 3, "count": 2}]
    with pytest.raises(im.OptionError, match="nodes"):
        im.find_routes(im.read_problem_data(data(30.0, capacity={"small": 8}, nodes=nodes)))


def test_names_of_pools_are_new_and_its_problem_comes_back():
    other = {"name": "chat@big", "service_class": "c", "model": "m",
             "load": {"rate_per_s": 0.1, "input_tokens": 50, "output_tokens": 20}}  # fmt: skip
    changes = {"servers": [*data(30.0)["servers"], other], "periods": [{"name": "p", "rates_per_s": {"chat": 3.0}}]}
    found = im.find_routes(im.read_problem_data(data(30.0, **changes)))
    assert found.plan.serves_all
    again = im.read_problem_text(im.problem_text(found.problem))
    assert im.optimize(again).total_cost_per_hour == pytest.approx(found.plan.total_cost_per_hour)


def test_many_and_free_gpus():
    one = table(rate=2e6, shares=((1.0,),), a={"cost": 1.0, "tputs": [[1]]}, b={"cost": 3.0, "tputs": [[1]]})
    assert im.route_table(one).gpus == {"a": 2_000_000, "b": 0}
    free = table(rate=20.0, shares=((0.5, 0.5),), a={"cost": 0, "tputs": [[1, 0]]}, b={"cost": 1, "tputs": [[1, 1]]})
    found = im.route_table(free)
    assert found.gpus["b"] == 10
    assert found.gpus["a"] <= 11


def test_loads_that_change_keep_their_mix():
    problem = im.read_problem_data(data(6.0))
    (load,) = [server.load for server in im.change_loads(problem, seed=3).servers]
    assert load.rate_per_s != 6.0
    factors = {round(new.input_tokens / old["input_tokens"], 2) for new, old in zip(load.mix, BUCKETS, strict=True)}
    assert len(factors) == 1
    assert load.input_tokens == pytest.approx(sum(b.share * b.input_tokens for b in load.mix))
    assert im.scale_server(problem, "chat", rate_factor=1.5, tokens_factor=1.5).replanned.serves_all


def test_moments_survive_rounding():
    shares = [0.09198918356358576, 0.3917038585180134, 0.33534052799007397, 0.18096642992834697]
    mix = [{"input_tokens": 10 * i, "output_tokens": 1, "share": share} for i, share in enumerate(shares)]
    server = {"name": "s", "service_class": "c", "model": "m", "load": {"rate_per_s": 1.0, "mix": mix}}
    assert im.read_problem_data(data(servers=[server])).servers[0].load.output_tokens == 1
    one = {"output_tokens": 1}
    wild = [{**one, "input_tokens": 1, "share": 0.99999}, {**one, "input_tokens": 1e6, "share": 1e-5}]
    server["load"] = {"rate_per_s": 1.0, "mix": wild}
    assert im.read_problem_data(data(servers=[server])).servers[0].load.cv2_input == 1000


def test_without_time_the_plan_without_routing_is_there(capsys, tmp_path):
    found = im.find_routes(im.read_problem_data(data(30.0)), time_limit_s=1e-6)
    assert found.plan.serves_all
    assert found.rounds == 0


def test_servers_without_a_mix_are_planned_beside(instances):
    plain = {"name": "plain", "service_class": "c", "model": "m",
             "load": {"rate_per_s": 6.0, "input_tokens": 500, "output_tokens": 100}}  # fmt: skip
    problem = im.read_problem_data(data(22.0, servers=[*data(22.0)["servers"], plain]))
    found = im.find_routes(problem)
    assert found.plan.serves_all
    used = {use.type: use.used for use in found.plan.capacity}
    assert used["big"] <= 3
    assert used["small"] <= 8
    assert "plain" in {server.name for server in found.plan.servers}


def test_what_cannot_be_served_is_said():
    found = im.find_routes(im.read_problem_data(data(500.0)))
    assert not found.plan.serves_all
    assert not found.routes
    assert found.saving_per_hour is None


def test_what_cannot_be_routed_is_refused():
    plain = [{"service_class": "c", "model": "m", "load": {"rate_per_s": 6.0, "input_tokens": 500, "output_tokens": 9}}]
    with pytest.raises(im.OptionError, match="no server has a load with a mix"):
        im.find_routes(im.read_problem_data(data(servers=plain)))
    powered = [{**a, "power": {"idle_w": 1, "full_w": 9, "mid_w": 5, "mid_utilization": 0.5}}
               for a in data()["accelerators"]]  # fmt: skip
    with pytest.raises(im.OptionError, match="does not count power"):
        im.find_routes(im.read_problem_data(data(accelerators=powered, options={"max_power_w": 100})))


def test_a_file_of_requests_is_a_mix(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("arrived_at_s,input_tokens,output_tokens\n0,10,5\n1,20,5\n2,3000,700\n3,30000,5000\n4,50,0\n")
    load = im.mix_of_requests(path)
    assert load["rate_per_s"] == 1.0
    assert [b["share"] for b in load["mix"]] == [0.5, 0.25, 0.25]
    assert load["mix"][0]["input_tokens"] == 15
    assert load["mix"][-1]["input_tokens"] == 30_000, "the last bucket is open"
    server = {"name": "s", "service_class": "c", "model": "m", "load": load}
    problem = im.read_problem_data(data(servers=[server]))
    assert problem.servers[0].load.input_tokens == pytest.approx((10 + 20 + 3000 + 30_000) / 4)
    coarse = im.mix_of_requests(path, input_edges=[100], output_edges=[100])
    assert len(coarse["mix"]) == 1


def test_traces_are_read_as_they_are(tmp_path):
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.9799600,110,27\n"
    )
    assert im.mix_of_requests(azure)["rate_per_s"] == pytest.approx(1.0)
    burst = tmp_path / "burst.csv"
    burst.write_text("Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,18\n45,ChatGPT,1087,230\n")
    assert im.mix_of_requests(burst)["rate_per_s"] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column of input_tokens"),
        ("input_tokens,output_tokens\n", "has no requests"),
        ("input_tokens,output_tokens\n1,x\n-3,4\n", "1 requests, the first in row 2: prompt tokens"),
        ("input_tokens,output_tokens\n1,0\n", "no request has any output"),
        ("", "cannot be read"),
    ],
)
def test_faults_of_a_file_of_requests(tmp_path, text, words):
    path = tmp_path / "requests.csv"
    path.write_text(text)
    with pytest.raises(im.InputError, match=words):
        im.mix_of_requests(path)
    with pytest.raises(im.InputError):
        im.mix_of_requests(tmp_path / "none.csv")
    with pytest.raises(im.OptionError, match="rise"):
        im.mix_of_requests(path, input_edges=[5, 5])


def test_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump(data(30.0)))
    routed = tmp_path / "routed.yaml"
    assert main(["route", str(path), "--json", str(tmp_path / "r.json"), "--routed-problem", str(routed)]) == 0
    out = capsys.readouterr().out
    assert "requests of" in out
    assert "routing saves" in out
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["routes"][0]["server"] == "chat"
    again = im.optimize(im.read_problem(routed).with_options(assignment="mixed"))
    assert again.total_cost_per_hour <= document["plan"]["total_cost_per_hour"] + 1e-6
    assert main(["route", str(path), "--csv", str(tmp_path / "r.csv"), "--quiet"]) == 0
    assert (
        (tmp_path / "r.csv").read_text().startswith("server,input_tokens,output_tokens,rate_per_s,accelerator,weight")
    )
    assert main(["route", str(path), "--routed-problem", str(path)]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert main(["route", "instances/limited.yaml"]) == 2
    assert "no server has a load with a mix" in capsys.readouterr().err


def test_tables_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "melange.json"
    path.write_text(json.dumps(table().model_dump()))
    assert main(["route", str(path)]) == 0
    out = capsys.readouterr().out
    assert "optimal: 6.7 per hour" in out
    assert main(["route", str(path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == {"A10G": 3, "A100": 1}
    none = table(small={"cost": 1.0, "tputs": [[5, 1], [0, 5]]})
    path.write_text(json.dumps(none.model_dump()))
    assert main(["route", str(path)]) == 1
    assert "infeasible: no plan" in capsys.readouterr().out


def test_mix_on_the_command_line(tmp_path, capsys):
    assert main(["mix", "tests/data/requests.csv"]) == 0
    load = yaml.safe_load(capsys.readouterr().out)
    assert load == im.mix_of_requests("tests/data/requests.csv")
    assert main(["mix", "tests/data/requests.csv", "--input-edges", "500,4000", "-o", str(tmp_path / "m.yaml")]) == 0
    assert len(yaml.safe_load((tmp_path / "m.yaml").read_text())["mix"]) <= 12


def test_simulated_engines_get_the_mix():
    problem = im.read_problem_data(data(10.0, options={"batch_choice": "quickest"}))
    found = im.find_routes(problem)
    simulation = im.simulate_plan(found.problem, found.plan, requests=6000)
    for allocation in simulation.allocations:
        itl = next(c for c in allocation.comparisons if c.figure == "itl_ms")
        assert itl.predicted == pytest.approx(itl.simulated.value, rel=0.1)
