"""Supply pools: prices, counts, places, and what is left when one is lost."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inferno_milp as im
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.plan.check import check_plan
from inferno_milp.planning.horizon.check import check_horizon
from inferno_milp.planning.horizon.ways import find_ways


def data(**changes):
    profile = {"model": "m", "gamma_ms": 10.0, "max_batch_size": 32}
    return {
        "name": "pools",
        "currency": "usd",
        "accelerators": [{"name": "big", "cost_per_hour": 4.0, "reserved_cost_per_hour": 3.0},
                         {"name": "2xbig", "type": "big", "devices": 2, "cost_per_hour": 8.0},
                         {"name": "small", "cost_per_hour": 1.5}],
        "profiles": [
            {**profile, "accelerator": "big", "alpha_ms": 8.0, "beta_ms": 0.2, "delta_ms": 0.03},
            {**profile, "accelerator": "2xbig", "alpha_ms": 6.0, "beta_ms": 0.1, "delta_ms": 0.02},
            {**profile, "accelerator": "small", "alpha_ms": 20.0, "beta_ms": 0.6, "delta_ms": 0.15},
        ],
        "pools": [
            {"name": "owned", "type": "big", "count": 2, "cost_factor": 0.5, "region": "east"},
            {"name": "spot", "type": "big", "count": 8, "cost_factor": 0.3, "region": "west"},
        ],
        "latencies_ms": {"east": {"west": 60.0}, "west": {"east": 60.0}},
        "capacity": {"small": 4},
        "service_classes": [{"name": "c", "targets": {"m": {"ttft_ms": 200, "itl_ms": 40}}}],
        "servers": [{"name": "s", "service_class": "c", "model": "m", "region": "east",
                     "load": {"rate_per_s": 12.0, "input_tokens": 300, "output_tokens": 100}}],
        **changes,
    }  # fmt: skip


def read(**changes):
    return im.read_problem_data(data(**changes))


def server(**changes):
    return [{**data()["servers"][0], **changes}]


def test_a_pool_is_an_accelerator_of_its_own():
    problem = read()
    found = {a.name: a for a in problem.accelerators}
    assert list(found) == ["big@owned", "big@spot", "2xbig@owned", "2xbig@spot", "small"]
    assert found["big@spot"].cost_per_hour == pytest.approx(1.2)
    assert found["big@owned"].reserved_cost_per_hour == pytest.approx(1.5)
    assert (found["2xbig@spot"].type, found["2xbig@spot"].devices, found["2xbig@spot"].region) == (
        "big@spot",
        2,
        "west",
    )
    assert problem.capacity == {"small": 4, "big@owned": 2, "big@spot": 8}
    assert im.read_problem_text(im.problem_text(problem)) == problem
    plan = im.optimize(problem)
    used = {use.type: use.used for use in plan.capacity}
    assert used["big@owned"] <= 2
    assert plan.serves_all


def test_the_cheaper_pool_is_used_until_it_is_empty():
    (spot,) = im.optimize(read()).servers[0].allocations
    assert spot.accelerator.endswith("@spot")
    few = data()["pools"]
    few[1]["count"] = 1
    load = {"rate_per_s": 30.0, "input_tokens": 300, "output_tokens": 100}
    plan = im.optimize(read(pools=few, servers=server(load=load), options={"assignment": "mixed"}))
    pools = {a.accelerator for a in plan.servers[0].allocations}
    assert len(pools) > 1


def test_servers_may_be_held_to_pools():
    plan = im.optimize(read(servers=server(pools=["owned"])))
    assert all(a.accelerator.endswith("@owned") for a in plan.servers[0].allocations)
    assert not im.optimize(read(servers=server(pools=["owned"], load={"rate_per_s": 900.0, "input_tokens": 300,
                                                                     "output_tokens": 100}))).serves_all  # fmt: skip


def test_a_far_region_is_later():
    rates = {}
    for region in ("west", "east"):
        rows = find_candidates(read(servers=server(region=region, pools=["spot"]))).rows
        where = zip(rows.accelerator.tolist(), rows.batch_size.tolist(), strict=True)
        rates[region] = dict(zip(where, rows.max_rate_per_s.tolist(), strict=True))
    assert rates["east"].keys() <= rates["west"].keys()
    assert all(rate <= rates["west"][row] * (1 + 1e-9) for row, rate in rates["east"].items())
    assert any(rate < 0.95 * rates["west"][row] for row, rate in rates["east"].items())
    tight = [{"name": "c", "targets": {"m": {"ttft_ms": 55}}}]
    assert not im.optimize(read(servers=server(pools=["spot"]), service_classes=tight)).serves_all
    assert im.optimize(read(servers=server(pools=["spot"], region="west"), service_classes=tight)).serves_all
    problem = read(servers=server(pools=["spot"]))
    plan = im.optimize(problem)
    simulated = im.simulate_plan(problem, plan, requests=4000).allocations[0]
    ttft = next(c for c in simulated.comparisons if c.figure == "ttft_ms")
    assert ttft.simulated.value > 60


@settings(max_examples=15, deadline=None)
@given(rate=st.sampled_from([2.0, 9.0, 20.0, 33.0]), counts=st.tuples(*(st.sampled_from([0, 1, 3]) for _ in range(3))))
def test_the_loss_of_a_pool_leaves_enough_at_least_cost(rate, counts):
    pools = [{"name": name, "type": "big", "count": n, "cost_factor": factor}
             for name, n, factor in zip(("x", "y"), counts, (0.5, 0.8), strict=False)]  # fmt: skip
    changes = {
        "accelerators": [{"name": "big", "cost_per_hour": 4.0}, {"name": "small", "cost_per_hour": 1.5}],
        "profiles": [p for p in data()["profiles"] if p["accelerator"] != "2xbig"],
        "pools": pools,
        "capacity": {"small": counts[2]},
        "options": {"assignment": "mixed"},
        "periods": [{"name": "p"}],
        "servers": server(survive_pools=True, region=None,
                          load={"rate_per_s": rate, "input_tokens": 300, "output_tokens": 100}),
    }  # fmt: skip
    problem = read(**changes)
    found = im.plan_periods(problem, gap=0.0).plan
    ways = find_ways(problem, problem.periods)
    able, price = ways.rows.max_rate_per_s, ways.rows.price_per_replica
    homes = [problem.accelerators[a].pool for a in ways.rows.accelerator.tolist()]
    limits = [problem.capacity[problem.accelerators[a].type] for a in ways.rows.accelerator.tolist()]
    best = math.inf
    for replicas in itertools.product(*(range(limit + 1) for limit in limits)):
        ways_now = list(zip(replicas, able, homes, strict=True))
        left = [sum(n * r for n, r, home in ways_now if home != lost) for lost in ("none", "x", "y")]
        if min(left) >= rate:
            best = min(best, sum(n * p for n, p in zip(replicas, price, strict=True)))
    if math.isinf(best):
        assert found.status == "infeasible"
    else:
        assert found.cost_per_hour == pytest.approx(best)
        check_horizon(problem, found, problem.periods, planning=problem.planning)


def test_what_needs_several_pools_says_so():
    with pytest.raises(im.OptionError, match="`survive_pools` is for `periods` and `scenarios`"):
        im.optimize(read(servers=server(survive_pools=True)))
    with pytest.raises(im.OptionError, match="let them be `mixed`"):
        im.plan_periods(read(servers=server(survive_pools=True), periods=[{"name": "p"}]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pools": [{"name": "a", "type": "huge", "count": 1}]}, "unknown accelerator type 'huge'"),
        ({"capacity": {"small": 4, "big": 2}}, "has pools and a capacity or nodes as well"),
        ({"capacity": "unlimited"}, "pools have counts"),
        ({"servers": server(pools=["nowhere"])}, "unknown pool 'nowhere'"),
        (
            {"pools": [{"name": "a", "type": "big", "count": 1}, {"name": "a", "type": "big", "count": 2}]},
            "given 2 times",
        ),
        ({"servers": server(current={"accelerator": "big@none", "replicas": 1})}, "unknown accelerator 'big@none'"),
        ({"servers": server(current={"accelerator": "big", "replicas": 1})}, "did you mean '2xbig@owned'"),
        ({"options": {"law": "inferno"}}, "knows no latencies"),
        ({"servers": server(region="eest")}, "nothing is said from 'eest' to 'east'"),
        ({"latencies_ms": {"east": {"wset": 1.0}}}, "nothing is said from 'east' to 'west'"),
        ({"accelerators": [*data()["accelerators"], {"name": "big@spot", "cost_per_hour": 1.0}]}, "is there already"),
    ],
)
def test_faults_are_told(changes, words):
    with pytest.raises(im.InputError, match=words):
        read(**changes)


def test_today_may_be_in_a_pool():
    problem = read(servers=server(current={"accelerator": "big@owned", "replicas": 2}, keep_accelerator=True))
    assert {a.accelerator for a in im.optimize(problem).servers[0].allocations} == {"big@owned"}


def two(**second):
    """Two servers of one model; the second is a little different."""
    load = {"rate_per_s": 1.0, "input_tokens": 300, "output_tokens": 100}
    return [{**server(name="a", load=load)[0]}, {**server(name="b", load=load)[0], **second}]


@pytest.mark.parametrize("second", [{"region": "west"}, {"pools": ["owned"]}])
def test_who_is_elsewhere_does_not_share(second):
    assert im.share_replicas(read(servers=two(**second))).groups == ()


def test_mixes_are_routed_within_pools():
    mix = [
        {"input_tokens": 100, "output_tokens": 200, "share": 0.6},
        {"input_tokens": 900, "output_tokens": 40, "share": 0.4},
    ]
    found = im.find_routes(read(servers=server(load={"rate_per_s": 30.0, "mix": mix}, pools=["owned", "spot"])))
    assert found.plan.serves_all
    assert all("@" in a.accelerator for s in found.plan.servers for a in s.allocations)


def test_latencies_that_change_are_analysed_anew():
    tight = [{"name": "c", "targets": {"m": {"ttft_ms": 55}}}]
    problem = read(servers=server(pools=["spot"]), service_classes=tight, latencies_ms={"east": {"west": 0.0}})
    frame = im.sweep(problem, {"latencies_ms": [{"east": {"west": 0.0}}, {"east": {"west": 60.0}}]})
    assert frame.error.isna().all()
    assert frame.status.tolist() == ["optimal", "partial"]


def test_pools_may_be_set():
    plain = read(pools=[], latencies_ms={}, capacity={"big": 8, "small": 4})
    settings_ = ['capacity={"big": 8}', "pools=[{name: spot, type: small, count: 3, cost_factor: 0.1}]"]
    changed = im.with_settings(plain, settings_)
    assert "small@spot" in {a.name for a in changed.accelerators}


def test_one_engine_is_as_far_as_it_is():
    from inferno_milp.studies.one_engine import engine_of

    engine, _ = engine_of(read(), "s", "big@spot")
    assert engine["overhead_ms"] == 60.0


def test_the_checks_know_pools():
    from inferno_milp.plan.check import check_plan

    plan = im.optimize(read())
    with pytest.raises(im.PlanCheckError, match="may not use the pool spot"):
        check_plan(read(servers=server(pools=["owned"])), plan)
    periods = [{"name": "p"}]
    days = im.plan_periods(read(periods=periods)).plan
    held = read(periods=periods, servers=server(pools=["owned"]))
    with pytest.raises(im.PlanCheckError, match="a pool that it may not use"):
        check_horizon(held, days, held.periods, planning=held.planning)


SPOT = [{"name": "spot", "type": "big", "count": 60, "cost_factor": 0.3, "region": "east",
         "interruptions_per_hour": 0.5, "recovery_hours": 0.5}]  # fmt: skip
"""Devices that are there for four fifths of the time."""
NEVER = [{**SPOT[0], "interruptions_per_hour": 0.0, "recovery_hours": 0.0}]


@pytest.mark.parametrize("assignment", ["single", "mixed"])
@pytest.mark.parametrize("rate", [3.0, 40.0, 90.0])
def test_interruptions_take_the_plan_of_a_higher_load(assignment, rate):
    load = {"rate_per_s": rate, "input_tokens": 300, "output_tokens": 100}
    options = {"assignment": assignment}
    plan = im.optimize(read(pools=SPOT, servers=server(load=load, pools=["spot"]), options=options))
    more = {**load, "rate_per_s": rate / 0.8}
    steady = im.optimize(read(pools=NEVER, servers=server(load=more, pools=["spot"]), options=options))
    assert plan.total_cost_per_hour == pytest.approx(steady.total_cost_per_hour)
    for a in plan.servers[0].allocations:  # those that are there on average keep the promise
        assert a.rate_per_s <= a.max_rate_per_s * (1 + 1e-9)
    there = [a for a in steady.servers[0].allocations if a.accelerator == plan.servers[0].allocations[0].accelerator]
    assert plan.servers[0].allocations[0].max_rate_per_s == pytest.approx(0.8 * there[0].max_rate_per_s)


def test_the_check_knows_interruptions():
    problem = read(pools=SPOT, servers=server(pools=["spot"]))
    plan = im.optimize(problem)
    never = read(pools=NEVER, servers=server(pools=["spot"]))
    check_plan(problem, plan)
    with pytest.raises(im.PlanCheckError, match="max_rate_per_s"):
        check_plan(problem, im.optimize(never))


@pytest.mark.parametrize("method", ["periods", "scenarios", "apart", "explained"])
def test_interruptions_elsewhere(method):
    problem = read(
        pools=SPOT,
        servers=server(pools=["spot"], load={"rate_per_s": 90.0, "input_tokens": 300, "output_tokens": 100}),
        periods=[{"name": "now"}],
        scenarios=[{"name": "now", "probability": 1.0}],
        accelerators=[{k: v for k, v in a.items() if not k.startswith("reserved")} for a in data()["accelerators"]],
    )
    never = problem.model_copy(
        update={"accelerators": tuple(a.model_copy(update={"availability": 1.0}) for a in problem.accelerators)}
    )
    plain = im.optimize(problem).total_cost_per_hour
    if method == "periods":
        assert im.plan_periods(problem).plan.cost_per_hour == pytest.approx(plain)
        assert im.plan_periods(never).plan.cost_per_hour < plain * 0.95
    elif method == "scenarios":
        assert im.plan_scenarios(problem).plan.cost_per_hour == pytest.approx(plain)
    elif method == "apart":
        found = im.disaggregate(problem, network_gb_per_s=20, kv_bytes_per_token=1e5)
        assert found.plan.total_cost_per_hour <= plain * (1 + 1e-9)
    else:  # what binds is what does with devices that are always there
        names = [[a.binds for a in im.explain(p).servers[0].alternatives] for p in (problem, never)]
        assert names[0] == names[1]


def test_figures_are_of_the_replicas_that_are_there():
    load = {"rate_per_s": 60.0, "input_tokens": 300, "output_tokens": 100}
    problem = read(pools=SPOT, servers=server(load=load, pools=["spot"]))
    plan = im.optimize(problem)
    (a,) = plan.servers[0].allocations
    there = a.rate_per_s / 0.8
    profile = next(p for p in problem.profiles if p.accelerator == a.accelerator)
    found = im.analyze(alpha_ms=profile.alpha_ms, beta_ms=profile.beta_ms, gamma_ms=profile.gamma_ms,
                       delta_ms=profile.delta_ms, input_tokens=300, output_tokens=100, max_batch=a.batch_size,
                       rate_per_s=there)  # fmt: skip
    assert a.ttft_ms == pytest.approx(float(found.ttft_ms))
    (simulated,) = im.simulate_plan(problem, plan, requests=8000).allocations
    assert simulated.rate_per_s == pytest.approx(there)
    parts = im.explain(problem).servers[0].parts
    assert parts["interruptions"] == pytest.approx(0.25 * parts["load"])


def test_half_of_an_interruption_is_refused():
    with pytest.raises(im.InputError, match="or neither"):
        read(pools=[{**SPOT[0], "recovery_hours": 0.0}])
    with pytest.raises(im.InputError, match=r"accelerators.NAME@POOL"):
        im.with_settings(read(), {"pools.spot.recovery_hours": 1.0})


def test_a_pool_that_is_never_there_is_refused():
    with pytest.raises(im.InputError, match="availability"):
        read(accelerators=[{"name": "big", "cost_per_hour": 1.0, "availability": 0.0}])
