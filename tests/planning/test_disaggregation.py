"""Phases apart: against all ways by hand, against the simulator, and against tampering."""

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
from inferno_milp import simulation
from inferno_milp.cli import main
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.errors import OptionError, PlanCheckError
from inferno_milp.planning.disaggregation.check import check_splits
from inferno_milp.planning.disaggregation.transfer import Link, with_network
from inferno_milp.studies.simulate_splits import simulate_splits

SPEEDS = {"big": (8.0, 0.1, 10.0, 0.03, 4.0), "small": (15.0, 0.4, 18.0, 0.15, 1.5)}
NETWORK_GB_PER_S, KV_BYTES = 2.0, 131_072.0


def data(loads, *, batch=4, ttft_ms=800.0, itl_ms=20.0, **changes):
    """One class and model, and as many servers as there are loads: rate, prompt."""
    return {
        "name": "apart",
        "currency": "usd",
        "accelerators": [
            {"name": name, "cost_per_hour": SPEEDS[name][4], "network_gb_per_s": NETWORK_GB_PER_S} for name in SPEEDS
        ],
        "profiles": [
            {"model": "m", "accelerator": name, "alpha_ms": a, "beta_ms": b, "gamma_ms": g, "delta_ms": d,
             "kappa_ms": 1e-4, "max_batch_size": batch, "kv_bytes_per_token": KV_BYTES}
            for name, (a, b, g, d, _) in SPEEDS.items()
        ],
        "capacity": {"big": 5, "small": 6},
        "service_classes": [{"name": "c", "priority": 1, "targets": {"m": {"ttft_ms": ttft_ms, "itl_ms": itl_ms}}}],
        "servers": [
            {"name": f"s{i}", "service_class": "c", "model": "m",
             "load": {"rate_per_s": rate, "input_tokens": tokens, "output_tokens": 60.0, "cv2_input": 0.5}}
            for i, (rate, tokens) in enumerate(loads)
        ],
        **changes,
    }  # fmt: skip


def let_through(rate, **engine):
    """Analyse an engine that lets a rate through; None if it turns too many away."""
    arriving = rate
    for _ in range(4):
        found = im.analyze(**engine, rate_per_s=arriving)
        if found.blocking > 0.01:
            return None
        arriving = rate / (1 - float(found.blocking))
    return found


def by_hand(problem, server, itl_ms, ttft_ms, most):
    """All ways to run a server apart: cost and devices of each, of the cheapest for every number of replicas."""
    load, ways = server.load, []
    times = {p.accelerator: p for p in problem.profiles}
    context = load.input_tokens + load.output_tokens  # K(1 + 1)/2 tokens of output on average

    def prefill(name, replicas, batch):
        p = times[name]
        engine = {"alpha_ms": p.alpha_ms, "beta_ms": p.beta_ms, "gamma_ms": p.gamma_ms, "delta_ms": p.delta_ms,
                  "kappa_ms": p.kappa_ms, "input_tokens": load.input_tokens, "output_tokens": 1, "cv2_output": 0,
                  "cv2_input": load.cv2_input, "max_batch": batch, "max_queue": 10 * p.max_batch_size}  # fmt: skip
        found = let_through(load.rate_per_s / replicas, **engine)
        return math.inf if found is None else float(found.ttft_ms)

    def decode(name, replicas, batch):
        p = times[name]
        token = p.beta_ms + p.kappa_ms * context
        engine = {"alpha_ms": p.alpha_ms, "beta_ms": token, "gamma_ms": p.alpha_ms, "delta_ms": token,
                  "input_tokens": 1, "output_tokens": load.output_tokens, "max_batch": batch}  # fmt: skip
        found = let_through(load.rate_per_s / replicas, **engine)
        return math.inf if found is None or found.itl_ms > itl_ms else float(found.ttft_ms)

    batches = range(1, problem.profiles[0].max_batch_size + 1)
    first = {(a, n): min(prefill(a, n, b) for b in batches) for a in SPEEDS for n in range(1, most[a] + 1)}
    second = {(a, n): min(decode(a, n, b) for b in batches) for a in SPEEDS for n in range(1, most[a] + 1)}
    sent_ms = KV_BYTES * load.input_tokens / (NETWORK_GB_PER_S * 1e6)
    for (a, n), (b, m) in itertools.product(first, second):
        waits = 0.0
        for replicas in (n, m):
            used = load.rate_per_s / replicas / 1000 * sent_ms
            waits += math.inf if used >= 1 else used * sent_ms * (1 + load.cv2_input) / (2 * (1 - used))
        if first[a, n] + second[b, m] + sent_ms + waits <= ttft_ms:
            devices = {name: n * (a == name) + m * (b == name) for name in SPEEDS}
            ways.append((sum(SPEEDS[name][4] * count for name, count in devices.items()), devices))
    return ways


@settings(max_examples=12, deadline=None)
@given(
    loads=st.lists(
        st.tuples(st.sampled_from([1.0, 4.0, 9.0]), st.sampled_from([300.0, 1500.0])), min_size=1, max_size=2
    ),
    itl_ms=st.sampled_from([9.2, 12.0, 20.0, 40.0]),
    ttft_ms=st.sampled_from([250.0, 700.0]),
)  # fmt: skip
def test_equals_the_best_of_all_ways(loads, itl_ms, ttft_ms):
    problem = im.read_problem_data(data(loads, itl_ms=itl_ms, ttft_ms=ttft_ms))
    ways = []
    for server in problem.servers:
        alone = problem.model_copy(update={"servers": (server,)})
        together = [
            (r["cost_per_hour"], {name: r["devices"] * (r["accelerator"] == name) for name in SPEEDS})
            for r in find_candidates(alone).to_records()
        ]
        ways.append([*together, *by_hand(problem, server, itl_ms, ttft_ms, problem.capacity)])
    fitting = [
        sum(cost for cost, _ in chosen)
        for chosen in itertools.product(*ways)
        if all(sum(used[name] for _, used in chosen) <= problem.capacity[name] for name in SPEEDS)
    ]
    found = im.disaggregate(problem)
    if not fitting:
        assert not found.plan.serves_all
        return
    assert found.plan.total_cost_per_hour == pytest.approx(min(fitting), rel=1e-6)
    assert found.bound == pytest.approx(min(fitting), rel=1e-3)


SPLIT = {"loads": [(20.0, 800.0)], "itl_ms": 10.0, "ttft_ms": 1200.0, "batch": 32, "capacity": {"big": 20, "small": 20}}


@pytest.fixture(scope="module")
def split():
    problem = im.read_problem_data(data(**SPLIT))
    return problem, im.disaggregate(problem)


def test_the_simulator_agrees(split):
    problem, found = split
    assert [s.server for s in found.splits] == ["s0"]
    assert found.saving_per_hour > 0
    (simulated,) = simulate_splits(problem, found, requests=60_000)
    figures = {c.figure: c for c in simulated.comparisons}
    assert figures["ttft_ms"].predicted == pytest.approx(figures["ttft_ms"].simulated.value, rel=0.15)
    assert figures["itl_ms"].predicted == pytest.approx(figures["itl_ms"].simulated.value, rel=0.04)
    assert not simulated.missed
    json.dumps(simulated.to_dict(), allow_nan=False)


def test_what_came_of_it_is_told(split):
    _, found = split
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    (part,) = document["splits"][0]["promises"]
    assert part["limit_ms"] == 1200
    assert part["prefill_ms"] + part["transfer_ms"] + part["decode_ms"] <= 1200
    assert part["value_ms"] == pytest.approx(document["splits"][0]["ttft_ms"])
    frame = found.to_frame()
    assert frame["phase"].tolist() == ["prefill", "decode"]
    assert frame["cost_per_hour"].sum() == pytest.approx(found.plan.total_cost_per_hour)
    # The problem with phases is a problem like any other.
    again = im.read_problem_text(im.problem_text(found.problem))
    assert im.optimize(again).total_cost_per_hour == pytest.approx(found.plan.total_cost_per_hour)


def tampered(found):
    (one,) = found.splits
    (part,) = one.promises
    yield replace(one, promises=(replace(part, decode_ms=part.decode_ms + 100),)), "of parts"
    yield replace(one, promises=(replace(part, value_ms=1300.0),)), "1300"
    yield replace(one, promises=(replace(part, limit_ms=700.0),)), "not the server's"
    yield replace(one, promises=(replace(part, transfer_ms=0.0),)), "its part is 0.0"
    yield replace(one, decode=one.prefill), "not two phases"
    yield replace(one, link=replace(one.link, sender_gb_per_s=0.01)), "cannot carry"


def test_the_check_finds_what_is_wrong(split):
    problem, found = split
    check_splits(problem, found)
    for changed, words in tampered(found):
        with pytest.raises(PlanCheckError, match=words):
            check_splits(problem, replace(found, splits=(changed,)))
    with pytest.raises(PlanCheckError, match="above the cost"):
        check_splits(problem, replace(found, bound=1e6))


def test_reserves_losses_and_most_replicas():
    def replicas(**changes):
        document = data(**SPLIT)
        document["servers"][0] |= changes
        found = im.disaggregate(im.read_problem_data(document))
        return [a.replicas for s in found.plan.servers for a in s.allocations], found

    plain, _ = replicas()
    more, found = replicas(reserve=1.0)
    assert len(plain) == len(more) == 2
    assert min(b - a for a, b in zip(plain, more, strict=True)) >= 0
    assert sum(more) > sum(plain)
    lost, found = replicas(survive=1)
    assert min(lost) >= 2
    for split_ in found.splits:  # what is left when one is lost keeps the promise
        assert split_.promises[0].value_ms < 1200
    few, found = replicas(max_replicas=max(sum(plain) - 1, 1))
    assert sum(few) <= max(sum(plain) - 1, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"servers": {"max_batch_size": 4}}, "batch size is fixed"),
        ({"accelerators": {"network_gb_per_s": None}}, "network_gb_per_s"),
        ({"profiles": {"kv_bytes_per_token": None}}, "kv_bytes_per_token"),
        ({"profiles": {"kv_tokens": 500}}, "no engine has room"),
        ({"servers": {"load": {"rate_per_s": 0.0, "input_tokens": 5.0, "output_tokens": 9.0}}}, "no load"),
        ({"servers": {"load": {"rate_per_s": 1.0, "input_tokens": 5.0, "output_tokens": 1.0}}}, "outputs of one token"),
        ({"service_classes": {"targets": {"m": {"ttft_ms": {"p50": 900}}}}}, "below p80"),
    ],
)
def test_who_is_not_split_and_why(change, reason):
    document = data(**SPLIT)
    for section, values in change.items():
        for item in document[section]:
            item |= values
            for name in [name for name, value in values.items() if value is None]:
                del item[name]
    found = im.disaggregate(im.read_problem_data(document))
    assert reason in found.not_split["s0"]
    assert found.plan is found.together
    assert found.why_together == "no server can be split"
    assert found.saving_per_hour == (0 if found.plan.serves_all else None)


@pytest.mark.parametrize(("least", "most", "cost"), [(3, None, 12.5), (5, 5, 12.5), (4, 6, 12.5), (6, None, 14.0)])
def test_least_and_most_are_of_both_phases_together(least, most, cost):
    document = data(**SPLIT)
    document["servers"][0] |= {"min_replicas": least, **({"max_replicas": most} if most else {})}
    found = im.disaggregate(im.read_problem_data(document))
    assert found.plan.total_cost_per_hour == pytest.approx(cost)
    assert sum(a.replicas for s in found.plan.servers for a in s.allocations) >= least


@pytest.mark.parametrize("options", [{"max_changes": 0}, {"change_penalty": 100.0}])
def test_who_stays_together_and_may_not_move_is_counted(options):
    document = data([(20.0, 800.0), (1.0, 300.0)], itl_ms=19.0, ttft_ms=1200.0, batch=32, options=options)
    document["capacity"] = {"big": 2, "small": 20}
    relaxed = {"m": {"ttft_ms": 5000.0, "itl_ms": 100.0}}
    document["service_classes"].append({"name": "l", "priority": 2, "targets": relaxed})
    stays = {"service_class": "l", "max_batch_size": 8, "current": [{"accelerator": "big", "replicas": 1}]}
    document["servers"][1].update(stays)
    found = im.disaggregate(im.read_problem_data(document))
    one = {**document, "capacity": {"big": 1, "small": 20}, "servers": document["servers"][:1]}
    alone = im.disaggregate(im.read_problem_data(one))
    assert alone.splits
    assert found.plan.total_cost_per_hour == pytest.approx(alone.plan.total_cost_per_hour + 4.0)
    assert found.bound <= found.plan.objective * (1 + 1e-6)


def test_no_bound_where_not_everybody_is_served():
    document = data(**{**SPLIT, "capacity": {"big": 1, "small": 1}}, options={"saturation_policy": "round_robin"})
    found = im.disaggregate(im.read_problem_data(document))
    assert not found.plan.serves_all
    assert found.bound is None
    assert "not everybody" in found.why_together


@pytest.mark.parametrize("gamma_ms", [40.0, 100.0])
def test_a_last_token_of_the_prompt_is_a_step_of_decoding(gamma_ms):
    """Where prompt work is dear, the decode engine has none of it: in the law and in the simulator."""
    document = data([(60.0, 400.0)], itl_ms=10.0, ttft_ms=400.0, batch=32, capacity={"big": 20, "small": 20})
    for profile in document["profiles"]:
        profile |= {"gamma_ms": gamma_ms, "delta_ms": 0.01}
    for accelerator in document["accelerators"]:
        accelerator["network_gb_per_s"] = 4.0
    problem = im.read_problem_data(document)
    found = im.disaggregate(problem)
    assert found.splits
    (simulated,) = simulate_splits(problem, found, requests=40_000)
    assert not simulated.missed
    figures = {c.figure: c for c in simulated.comparisons}
    assert figures["itl_ms"].predicted == pytest.approx(figures["itl_ms"].simulated.value, rel=0.04)


@pytest.mark.parametrize("cv2_arrival", [1.0, 8.0])
def test_bursts_wait_for_the_network_too(cv2_arrival):
    document = data([(9.0, 800.0)], itl_ms=9.6, ttft_ms=900.0, batch=32, capacity={"big": 20, "small": 20})
    document["servers"][0]["load"]["cv2_arrival"] = cv2_arrival
    for profile in document["profiles"]:
        profile |= {"gamma_ms": profile["alpha_ms"], "delta_ms": 0.02}
    for accelerator in document["accelerators"]:
        accelerator["network_gb_per_s"] = 1.2
    problem = im.read_problem_data(document)
    found = im.disaggregate(problem)
    for simulated in simulate_splits(problem, found, requests=40_000):
        assert "ttft_ms" not in {c.figure for c in simulated.missed}


def test_phases_stay_in_one_place():
    document = data(**SPLIT)
    for accelerator, region in zip(document["accelerators"], ("here", "there"), strict=True):
        accelerator["region"] = region
    found = im.disaggregate(im.read_problem_data(document))
    kinds = {a.accelerator for s in found.plan.servers for a in s.allocations}
    assert len(kinds) == 1 or not found.splits


@pytest.mark.parametrize(
    ("options", "words"),
    [({"law": "inferno"}, "continuous-batching"), ({"assignment": "mixed"}, "single"), ({"max_power_w": 1e6}, "power")],
)
def test_what_is_not_counted_is_refused(options, words):
    document = data(**SPLIT, options=options)
    for accelerator in document["accelerators"]:
        accelerator["power"] = {"idle_w": 10, "mid_w": 20, "full_w": 30, "mid_utilization": 0.5}
    with pytest.raises(OptionError, match=words):
        im.disaggregate(im.read_problem_data(document))


def test_figures_that_are_missing_may_be_given():
    document = data(**SPLIT)
    given_ = im.disaggregate(im.read_problem_data(document))
    for accelerator in document["accelerators"]:
        del accelerator["network_gb_per_s"]
    for profile in document["profiles"]:
        del profile["kv_bytes_per_token"]
    problem = im.read_problem_data(document)
    found = im.disaggregate(problem, network_gb_per_s=NETWORK_GB_PER_S, kv_bytes_per_token=KV_BYTES)
    assert found.splits == given_.splits
    with pytest.raises(OptionError, match=r"network_gb_per_s must be above 0.*kv_bytes_per_token must be above 0"):
        with_network(problem, -1.0, math.nan)


def test_no_time_is_a_plan_together_or_none():
    found = im.disaggregate(im.read_problem_data(data(**SPLIT)), time_limit_s=1e-6)
    assert found.plan.serves_all or found.plan.status == "no_solution"


def test_transfers_wait_as_a_queue_does():
    """One sender and one receiver of equal speed: the wait is the sender's, and no more than what the law says."""
    rng = np.random.default_rng(4)
    count, bytes_per_token, tokens = 60_000, 1e5, 1000
    link = Link(bytes_per_token, 1.0, 10.0, 2.0, tokens, 0.0)  # 100 ms to send, 10 to receive
    rate_per_s = 6.0
    engine = simulation.Engine(alpha_ms=0, beta_ms=0, gamma_ms=1e-6, delta_ms=0, max_batch=1, max_queue=10**6)
    stages = [simulation.Stage(engine, 1, speed * 1e9) for speed in (1.0, 10.0)]
    requests = simulation.Requests(
        arrival_ms=simulation.draw_arrivals(rng, rate_per_s, count),
        input_tokens=np.full(count, tokens),
        output_tokens=np.full(count, 1),
        sender=np.zeros(count, dtype=int),
        receiver=np.zeros(count, dtype=int),
    )
    trace = simulation.run_linked(*stages, requests, bytes_per_token=bytes_per_token, overhead_ms=2.0)
    expected = float(link.transfer_ms("mean", rate_per_s, 0.0))
    assert trace.ttft_ms.mean() == pytest.approx(expected, rel=0.04)
    assert np.percentile(trace.ttft_ms, 95) <= float(link.transfer_ms("p95", rate_per_s, rate_per_s))
    assert math.isinf(link.transfer_ms("mean", 11.0, 1.0))


@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("cv2", [0.0, 1.0])
def test_engines_that_only_compute_prompts(batch, cv2):
    """TTFT of batches of prompts; what the law for K = 1 is for."""
    rng = np.random.default_rng(3)
    base = {
        "alpha_ms": 9.0,
        "beta_ms": 0.1,
        "gamma_ms": 14.0,
        "delta_ms": 0.06,
        "overhead_ms": 3.0,
        "lag_iterations": 1.0,
    }
    load = {"input_tokens": 900.0, "output_tokens": 1.0, "cv2_input": cv2}
    full = float(im.size(**base, **load, max_batch=batch).max_rate_per_s)
    for used in (0.3, 0.6, 0.85):
        rate, count = used * full, 40_000
        found = im.analyze(**base, **load, max_batch=batch, rate_per_s=rate)
        arrivals = simulation.draw_arrivals(rng, rate, count)
        inputs = simulation.draw_lengths(rng, 900.0, count, cv2=cv2, least=1)
        trace = simulation.run(simulation.Engine(**base, max_batch=batch), arrivals, inputs, np.ones(count, dtype=int))
        assert float(found.ttft_ms) == pytest.approx(np.nanmean(trace.ttft_ms), rel=0.15)
        assert float(found.ttft_percentile(95)) == pytest.approx(np.nanpercentile(trace.ttft_ms, 95), rel=0.3)


def test_command(tmp_path, capsys):
    path, out, parts = tmp_path / "p.yaml", tmp_path / "out.json", tmp_path / "parts.yaml"
    path.write_text(yaml.safe_dump(data(**SPLIT)))
    assert main(["disaggregate", str(path), "--simulate", "--json", str(out), "--split-problem", str(parts)]) == 0
    assert {"plan", "splits", "together", "simulation"} <= json.loads(out.read_text()).keys()
    assert main(["optimize", str(parts)]) == 0
    capsys.readouterr()
    assert main(["disaggregate", str(path), "--simulate"]) == 0
    text = capsys.readouterr().out
    assert "phases apart save" in text
    assert "+ transfer" in text


def test_phases_run_where_their_adapters_are_held():
    document = data(**SPLIT)
    free = im.disaggregate(im.read_problem_data(document))
    assert free.splits
    held = {**document, "servers": [{**server, "adapters": ["a", "b"]} for server in document["servers"]]}
    held["profiles"] = [{**profile, "max_adapters": 1} for profile in document["profiles"]]
    found = im.disaggregate(im.read_problem_data(held))
    assert not found.splits
    assert set(found.not_split) == {server["name"] for server in document["servers"]}
    assert all("holds its adapters" in reason for reason in found.not_split.values())
