"""Sharing replicas: against all partitions by hand, and against simulated requests of each class."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.planning.sharing.groups import find_groups
from inferno_milp.planning.sharing.share import with_groups
from inferno_milp.simulation.engine import Engine, run
from inferno_milp.simulation.workload import draw_arrivals, draw_lengths

TARGETS = {"gold": {"ttft_ms": 500, "itl_ms": 25}, "silver": {"ttft_ms": 900, "itl_ms": 40},
           "tin": {"ttft_ms": {"p95": 6000}, "itl_ms": 60}}  # fmt: skip


def data(rates, **changes):
    profile = {"gamma_ms": 10.0, "max_batch_size": 48}
    return {
        "name": "shared",
        "currency": "usd",
        "accelerators": [{"name": "big", "cost_per_hour": 4.0}, {"name": "small", "cost_per_hour": 1.5}],
        "profiles": [
            {**profile, "model": model, "accelerator": name, "alpha_ms": alpha, "beta_ms": beta, "delta_ms": delta}
            for model in ("m", "n")
            for name, alpha, beta, delta in (("big", 8.0, 0.1, 0.03), ("small", 15.0, 0.4, 0.15))
        ],
        "capacity": {"big": 4, "small": 6},
        "service_classes": [
            {"name": name, "priority": i + 1, "targets": {"m": targets, "n": targets}}
            for i, (name, targets) in enumerate(TARGETS.items())
        ],
        "servers": [
            {"name": f"{name}-{model}", "service_class": name, "model": model,
             "load": {"rate_per_s": rate, "input_tokens": tokens, "output_tokens": 120, "cv2_input": 0.5}}
            for (name, model, tokens), rate in zip(
                (("gold", "m", 200), ("silver", "m", 900), ("tin", "m", 500), ("gold", "n", 400)), rates, strict=False
            )
            if rate
        ],
        **changes,
    }  # fmt: skip


def partitions(items):
    """All partitions of a list."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for part in partitions(rest):
        yield [(first,), *part]
        for i, group in enumerate(part):
            yield [*part[:i], (first, *group), *part[i + 1 :]]


@settings(max_examples=20, deadline=None)
@given(rates=st.tuples(*(st.sampled_from([0.5, 3.0, 8.0]) for _ in range(3)), st.sampled_from([0.0, 2.0])))
def test_equals_the_best_of_all_partitions(rates):
    problem = im.read_problem_data(data(rates))
    models = [server.model for server in problem.servers]
    best = math.inf
    for part in partitions(list(range(len(models)))):
        if all(len({models[s] for s in group}) == 1 for group in part):
            plan = im.optimize(with_groups(problem, [tuple(sorted(group)) for group in part]), gap=0.0)
            if plan.serves_all:
                best = min(best, plan.total_cost_per_hour)
    found = im.share_replicas(problem, gap=0.0)
    if math.isinf(best):
        assert not found.plan.serves_all
    else:
        assert found.plan.total_cost_per_hour == pytest.approx(best)
        if found.apart.serves_all:
            assert found.saving_per_hour >= 0


def test_every_class_of_a_group_keeps_its_promise():
    """Requests of two classes in one simulated engine: each class by itself is as early as it was promised."""
    problem = im.read_problem_data(data((1.0, 1.5, 0.0, 0.0), options={"batch_choice": "quickest"}))
    found = im.share_replicas(problem)
    assert found.groups == (("gold-m", "silver-m"),)
    assert found.saving_per_hour > 0
    (allocation,) = found.plan.servers[0].allocations
    profile = next(p for p in problem.profiles if p.model == "m" and p.accelerator == allocation.accelerator)
    rng = np.random.default_rng(5)
    arrivals, inputs, kinds = [], [], []
    for kind, server in enumerate(problem.servers):
        rate, count = server.load.arrival_rate_per_s / allocation.replicas, 12_000
        arrivals.append(draw_arrivals(rng, rate, count))
        inputs.append(draw_lengths(rng, server.load.input_tokens, count, cv2=0.5, least=1))
        kinds.append(np.full(count, kind))
    order = np.argsort(np.concatenate(arrivals))
    end = min(times[-1] for times in arrivals)
    order = order[np.concatenate(arrivals)[order] < end]
    engine = Engine(
        alpha_ms=profile.alpha_ms, beta_ms=profile.beta_ms, gamma_ms=profile.gamma_ms, delta_ms=profile.delta_ms,
        max_batch=allocation.batch_size, max_queue=10**6,
    )  # fmt: skip
    outputs = rng.geometric(1 / 120, len(order))
    trace = run(engine, np.concatenate(arrivals)[order], np.concatenate(inputs)[order], outputs)
    for kind, server in enumerate(problem.servers):
        mine = np.concatenate(kinds)[order] == kind
        limit = TARGETS[server.service_class]["ttft_ms"]
        assert trace.ttft_ms[mine][500:].mean() <= 1.05 * limit


def test_what_a_group_is():
    servers = data((1.0, 3.0, 0.0, 0.0))["servers"]
    servers[0] |= {"min_replicas": 1, "max_replicas": 3, "reserve": 0.1, "weight": 2.0}
    servers[1] |= {"survive": 1, "max_replicas": 4}
    problem = im.read_problem_data(data((), servers=servers))
    group = with_groups(problem, [(0, 1)]).servers[0]
    assert group.name == "gold-m+silver-m"
    assert group.load.cv2_arrival == 1
    assert group.load.arrival_rate_per_s == 4.0
    assert group.load.input_tokens == pytest.approx((200 + 3 * 900) / 4)
    assert (group.min_replicas, group.max_replicas, group.survive, group.reserve, group.weight) == (1, 7, 1, 0.1, 3.0)
    targets = with_groups(problem, [(0, 1)]).targets_of(group)
    assert targets.itl_ms == {"mean": 25}
    assert targets.ttft_ms["mean"] == 500
    longer = 900 - (200 + 3 * 900) / 4
    for promise, limit in (({"ttft_ms": 400}, 400 - 0.15 * longer), ({"ttft_ms": {"p95": 400}}, 0.0)):
        slower = data((1.0, 3.0, 0.0, 0.0))
        slower["service_classes"][1]["targets"]["m"] = promise
        ours = with_groups(im.read_problem_data(slower), [(0, 1)])
        statistic = "p95" if isinstance(promise["ttft_ms"], dict) else "mean"
        assert ours.targets_of(ours.servers[0]).ttft_ms[statistic] == pytest.approx(limit, abs=1e-5)


def test_who_cannot_share():
    servers = data((1.0, 3.0, 2.0, 1.0))["servers"]
    servers[0] |= {"max_batch_size": 8}
    servers[1] |= {"keep_accelerator": True, "current": {"accelerator": "big", "replicas": 1}}
    problem = im.read_problem_data(data((), servers=servers))
    assert find_groups(problem, [(s,) for s in range(len(problem.servers))]) == ([], False)
    assert im.share_replicas(problem).groups == ()
    limited = data((1.0, 1.0, 0.0, 0.0), options={"max_changes": 0})
    limited["servers"][0]["current"] = {"accelerator": "big", "replicas": 1}
    with pytest.raises(im.OptionError, match="limited changes"):
        im.share_replicas(im.read_problem_data(limited))
    with pytest.raises(im.OptionError, match="single assignment alone"):
        im.share_replicas(im.read_problem_data(data((1.0, 1.0, 0.0, 0.0), options={"assignment": "mixed"})))


def test_where_it_saves_nothing_and_where_nothing_can_be():
    loose = data((0.0, 60.0, 0.0, 0.0), capacity="unlimited")
    loose["servers"].append(
        {**loose["servers"][0], "name": "again", "load": {**loose["servers"][0]["load"], "rate_per_s": 60.0}}
    )
    found = im.share_replicas(im.read_problem_data(loose))
    assert found.saving_per_hour >= 0
    none = im.share_replicas(im.read_problem_data(data((500.0, 500.0, 0.0, 0.0))))
    assert not none.plan.serves_all
    assert none.saving_per_hour is None


def test_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "shared.yaml"
    path.write_text(yaml.safe_dump(data((1.0, 1.5, 2.0, 1.0))))
    target = tmp_path / "groups.yaml"
    assert main(["share", str(path), "--json", str(tmp_path / "s.json"), "--shared-problem", str(target)]) == 0
    assert "sharing saves" in capsys.readouterr().out
    document = json.loads((tmp_path / "s.json").read_text())
    assert document["groups"]
    assert im.optimize(im.read_problem(target)).total_cost_per_hour == document["plan"]["total_cost_per_hour"]
    path.write_text(yaml.safe_dump(data((500.0, 500.0, 0.0, 0.0))))
    assert main(["share", str(path)]) == 1
    assert "not everybody can be served, shared or apart" in capsys.readouterr().out


def both(one, two, **profile):
    """Two classes of a model on one accelerator: load and promise of each."""
    classes = [{"name": name, "targets": {"m": promise}} for name, (_, promise) in (("a", one), ("b", two))]
    servers = [
        {"name": name, "service_class": name, "model": "m", "load": {"output_tokens": 150, **load}}
        for name, (load, _) in (("a", one), ("b", two))
    ]
    engine = {"model": "m", "accelerator": "big", "alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.03,
              "max_batch_size": 16, **profile}  # fmt: skip
    return im.read_problem_data(data((), profiles=[engine], servers=servers, service_classes=classes,
                                     accelerators=[{"name": "big", "cost_per_hour": 4.0}],
                                     capacity="unlimited"))  # fmt: skip


@pytest.mark.parametrize(
    "problem",
    [
        both(({"rate_per_s": 0.4, "input_tokens": 500, "cv2_arrival": 30}, {"ttft_ms": 150}),
             ({"rate_per_s": 5.0, "input_tokens": 500, "cv2_arrival": 0.5}, {"ttft_ms": 150})),
        both(({"rate_per_s": 0.1, "input_tokens": 6000, "cv2_input": 1}, {"ttft_ms": {"p95": 500}}),
             ({"rate_per_s": 3.0, "input_tokens": 100}, {"ttft_ms": {"p95": 2000}})),
        both(({"rate_per_s": 0.1, "input_tokens": 8000}, {"ttft_ms": 400}),
             ({"rate_per_s": 3.0, "input_tokens": 100}, {"ttft_ms": 2000}), token_budget=512, beta_ms=0.2),
    ],
    ids=["bursts", "percentiles", "chunks"],
)  # fmt: skip
def test_who_would_not_keep_its_promise_does_not_share(problem):
    assert im.share_replicas(problem).groups == ()


def test_names_are_new_and_moments_are_not_kept(tmp_path):
    extra = {**data((1.0, 1.5, 0.0, 0.5))["servers"][2], "name": "gold-m+silver-m"}
    servers = [*data((1.0, 1.5, 0.0, 0.0))["servers"], extra]
    found = im.share_replicas(
        im.read_problem_data(data((), servers=servers, periods=[{"name": "p", "rates_per_s": {"gold-m": 2.0}}]))
    )
    assert found.plan.serves_all
    assert im.read_problem_text(im.problem_text(found.problem)).servers == found.problem.servers
    long = data((1.0, 1.5, 0.0, 0.0))
    for server in long["servers"]:
        server["name"] += "x" * 150
    again = im.share_replicas(im.read_problem_data(long))
    assert im.read_problem_text(im.problem_text(again.problem))


def test_covariance_is_that_of_the_members():
    load = {"rate_per_s": 4.0, "input_tokens": 1000, "output_tokens": 300, "cv2_input": 2.0, "cv2_output": 2.0,
            "cov_lengths": 1.5}  # fmt: skip
    problem = both((load, {}), (load, {}), kv_tokens=40_000)
    group = with_groups(problem, [(0, 1)]).servers[0].load
    assert group.cov_lengths == pytest.approx(1.5)
    assert group.cv2_output == pytest.approx(2.0)


def test_many_small_servers_share_a_few_replicas():
    """Groups of groups: twelve adapters of one base model, far more than a group of servers holds."""
    document = data((0.0, 0.0, 1.0, 0.0))
    (one,) = document["servers"]
    document["servers"] = [
        {**one, "name": f"adapter-{i}", "load": {**one["load"], "rate_per_s": 0.3 + 0.05 * i}} for i in range(12)
    ]
    document["capacity"] = {"big": 20, "small": 20}
    found = im.share_replicas(im.read_problem_data(document))
    assert max(len(group) for group in found.groups) > 5
    whole = im.optimize(with_groups(im.read_problem_data(document), [tuple(range(12))]))
    assert found.plan.total_cost_per_hour <= whole.total_cost_per_hour * 1.3
    assert found.plan.total_cost_per_hour <= 0.4 * found.apart.total_cost_per_hour


def of_adapters(count, **most):
    """Servers with an adapter each; `most` says how many an engine of an accelerator holds."""
    document = data((0.0, 0.0, 1.0, 0.0))
    (one,) = document["servers"]
    document["servers"] = [
        {**one, "name": f"s{i}", "adapters": [f"a{i}"], "load": {**one["load"], "rate_per_s": 0.2}}
        for i in range(count)
    ]
    document["capacity"] = {"big": 20, "small": 20}
    for profile in document["profiles"]:
        if profile["accelerator"] in most:
            profile["max_adapters"] = most[profile["accelerator"]]
    return document


def test_a_group_has_no_more_adapters_than_an_engine_holds():
    free = im.share_replicas(im.read_problem_data(of_adapters(6)))
    assert max(len(group) for group in free.groups) == 6
    held = im.share_replicas(im.read_problem_data(of_adapters(6, big=2, small=3)))
    limits = {"big": 2, "small": 3}
    assert held.groups
    for server in held.plan.servers:
        for allocation in server.allocations:
            adapters = next(s.adapters for s in held.problem.servers if s.name == server.name)
            assert len(adapters) <= limits[allocation.accelerator]
    assert free.plan.total_cost_per_hour < held.plan.total_cost_per_hour < held.apart.total_cost_per_hour
    same = of_adapters(6, big=1, small=1)
    for server in same["servers"]:
        server["adapters"] = ["a"]
    assert im.share_replicas(im.read_problem_data(same)).plan.total_cost_per_hour == free.plan.total_cost_per_hour


def test_a_server_with_more_adapters_than_an_engine_holds_runs_elsewhere():
    document = of_adapters(1, small=2)
    document["servers"][0]["adapters"] = ["a", "b", "c"]
    problem = im.read_problem_data(document)
    plan = im.optimize(problem)
    assert [a.accelerator for a in plan.servers[0].allocations] == ["big"]
    (deployment,) = yaml.safe_load_all(im.export_manifests(problem, plan))
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[-3:] == ["--enable-lora", "--max-loras", "3"]
    (told,) = [a for a in im.explain(problem).servers[0].alternatives if a.accelerator == "small"]
    assert "holds 2 of the server's 3 adapters" in told.reason
    none = of_adapters(1, small=0, big=0)
    assert not im.optimize(im.read_problem_data(none)).serves_all
