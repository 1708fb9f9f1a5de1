"""Explanations: parts that add up, and additions that a search of everything agrees with."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from brute_force import best_plan
from hypothesis import HealthCheck, assume, given, settings
from small_problems import make_problem, problem_data, with_server
from systems import systems

import inferno_milp as im
from inferno_milp.problem import Problem
from inferno_milp.studies.explain import explain
from inferno_milp.studies.explanation import PARTS

SLOW = [HealthCheck.filter_too_much, HealthCheck.too_slow]


def own_models(problem: Problem) -> Problem:
    """Give each server a model of its own, so that its profiles can be taken away."""
    servers, profiles, targets = [], [], {c.name: dict(c.targets) for c in problem.service_classes}
    for i, server in enumerate(problem.servers):
        model = f"m{i}"
        servers.append(server.model_copy(update={"model": model, "current": (), "keep_accelerator": False}))
        profiles += [p.model_copy(update={"model": model}) for p in problem.profiles if p.model == server.model]
        targets[server.service_class][model] = targets[server.service_class][server.model]
    classes = tuple(c.model_copy(update={"targets": targets[c.name]}) for c in problem.service_classes)
    update = {"servers": tuple(servers), "profiles": tuple(profiles), "service_classes": classes}
    return problem.model_copy(update=update).with_options(max_changes=None)


@settings(max_examples=60, suppress_health_check=SLOW)
@given(systems(servers=2, rate=8.0, small=True))
def test_additions(problem: Problem) -> None:
    """What an alternative adds is the least cost with it less the least cost, found by trying everything."""
    problem = own_models(problem)
    why = explain(problem, gap=0.0, time_limit_s=None, compared=[server.name for server in problem.servers])
    base = best_plan(problem)
    for i, server in enumerate(why.servers):
        for alternative in server.alternatives:
            if alternative.adds_per_hour is None:
                continue
            kept = tuple(p for p in problem.profiles if p.model != f"m{i}" or p.accelerator == alternative.accelerator)
            forced = best_plan(problem.model_copy(update={"profiles": kept}))
            assert forced.served == pytest.approx(base.served)
            assert alternative.adds_per_hour == pytest.approx(forced.objective - base.objective, abs=1e-6)
            assert alternative.adds_per_hour >= 0


@settings(max_examples=120, suppress_health_check=SLOW)
@given(systems(servers=3, small=True))
def test_parts_add_up(problem: Problem) -> None:
    why = explain(problem, gap=0.0)
    assert math.fsum(why.parts.values()) == pytest.approx(why.total_cost_per_hour or 0.0)
    for server in why.servers:
        assert math.fsum(server.parts.values()) == pytest.approx(server.cost_per_hour)
        assert all(value > 0 for name, value in server.parts.items() if name != "limits")
    if not any(server.current for server in problem.servers) and not problem.options.uses_power:
        assert why.parts["limits"] >= -1e-9, "without charges but prices, limits make nothing cheaper"
    frame = why.parts_frame()
    assert frame.loc["total", "cost_per_hour"] == pytest.approx(why.total_cost_per_hour or 0.0)
    assert frame.loc["total", list(PARTS)].sum() == pytest.approx(why.total_cost_per_hour or 0.0)


class TestParts:
    """One server, whose cost can be taken apart by hand."""

    def parts(self, **changes: object) -> dict[str, float]:
        return explain(with_server(**changes).with_unlimited_capacity()).servers[0].parts

    def test_load_and_rounding(self) -> None:
        (a,) = im.optimize(with_server()).servers[0].allocations
        parts = self.parts()
        assert a.max_rate_per_s is not None
        load = a.cost_per_hour / a.replicas * 4.0 / a.max_rate_per_s
        assert parts == pytest.approx({"load": load, "whole_replicas": a.cost_per_hour - load})

    def test_reserve_survive_and_least(self) -> None:
        parts = self.parts(reserve=0.25, survive=2, min_replicas=9)
        assert parts["reserve"] == pytest.approx(0.25 * parts["load"])
        assert parts["survive"] == pytest.approx(20.0)
        assert sum(parts.values()) == pytest.approx(90.0)
        assert parts["min_replicas"] > 0

    def test_no_load(self) -> None:
        assert self.parts(load=None, min_replicas=3) == pytest.approx({"min_replicas": 30.0})


def test_of_the_sample(instances: Path) -> None:
    problem = im.read_problem(instances / "limited.yaml")
    why = explain(problem, servers=["Free-llama_13b"], gap=0.0)
    assert why.parts["limits"] == pytest.approx(26300.5 - 18205.0), "the plan without limits is known"
    (server,) = why.servers
    by_name = {a.accelerator: a for a in server.alternatives}
    assert len(by_name) == 21
    chosen = by_name["AIU2"]
    assert (chosen.is_chosen, chosen.binds, chosen.adds_per_hour) == (True, "ITL", None)
    cheaper = by_name["MI300X"]
    assert cheaper.adds_per_hour == pytest.approx(804.25)
    assert cheaper.taken_by[0] == ("Bronze-llama_70b", 40)
    assert cheaper.moves
    assert by_name["L4"].reason == "it needs 1936 L4 (128 available)"
    words = server.words("cents")
    assert words.startswith("Free-llama_13b runs on AIU2 for 783.75 cents/h, where ITL sets a replica's rate.")
    assert "MI300X would cost it 325, but needs 5 MI300X, which Bronze-llama_70b (40)" in words
    assert "the whole would cost 804.25 cents/h more, moving" in words
    assert "The next best is MI210, which would add 74.25." in words
    assert server.next_best is by_name["MI210"]
    document = json.loads(json.dumps(why.to_dict(), allow_nan=False))
    assert document["servers"]["Free-llama_13b"]["words"] == words
    assert len(why.to_frame()) == 21


def test_of_the_infeasible(instances: Path) -> None:
    why = explain(im.read_problem(instances / "infeasible.yaml"))
    assert why.total_cost_per_hour == 2.2
    assert why.purchase is not None
    assert [(item.type, item.count) for item in why.purchase] == [("A100", 3)]
    assert str(why.conflict) == "busy-chat-8b cannot be served in full with 2 devices of A100"
    assert "misses its targets: ITL 8 ms is promised, 11.12 ms is the least" in why.servers[0].words("usd")


def test_who_would_lose() -> None:
    """Taking the only B leaves nothing for the one that needs it."""
    data = problem_data()
    server = data["servers"][0]
    strict = {"name": "strict", "priority": 1, "targets": {"m": {"itl_ms": 12.0}}}
    problem = make_problem(
        capacity={"A": 20, "B": 1},
        service_classes=[*data["service_classes"], strict],
        servers=[
            {**server, "load": {**server["load"], "rate_per_s": 1.0}},
            {**server, "service_class": "strict", "load": {**server["load"], "rate_per_s": 1.0}},
        ],
    )
    why = explain(problem, servers=["gold-m"])
    by_name = {a.accelerator: a for a in why.servers[0].alternatives}
    assert by_name["A"].is_chosen
    assert by_name["B"].adds_per_hour is None
    assert by_name["B"].unserved
    assert by_name["B"].taken_by == (("strict-m", 1),)


def test_a_plan_of_another_problem(instances: Path) -> None:
    plan = im.optimize(make_problem())
    with pytest.raises(im.OptionError, match="not of this problem"):
        explain(im.read_problem(instances / "small.yaml"), plan=plan)


def test_a_plan_that_does_not_add_up() -> None:
    problem = make_problem()
    plan = im.optimize(problem)
    with pytest.raises(im.PlanCheckError, match="add up"):
        explain(problem, plan=replace(plan, total_cost_per_hour=1.0))


def test_servers_that_are_not_known() -> None:
    with pytest.raises(im.OptionError, match=r"unknown server 'gold-n'; did you mean 'gold-m'\?"):
        explain(make_problem(), servers=["gold-n"])


def test_a_comparison_that_runs_out_of_time(instances: Path) -> None:
    """It says nothing of anybody."""
    problem = im.read_problem(instances / "small.yaml")
    why = explain(problem, plan=im.optimize(problem), servers=["interactive-chat-8b"], time_limit_s=1e-4)
    by_name = {a.accelerator: a for a in why.servers[0].alternatives}
    assert by_name["A100"].timed_out
    assert (by_name["A100"].unserved, by_name["A100"].adds_per_hour) == ((), None)
    assert why.parts["limits"] == 0.0


def test_tiny_prices(instances: Path) -> None:
    problem = im.with_settings(im.read_problem(instances / "small.yaml"), {"accelerators.*.cost_per_hour *=": 1e-10})
    why = explain(problem)
    assert math.fsum(why.parts.values()) == pytest.approx(why.total_cost_per_hour or 0.0, abs=1e-20)


def test_what_binds(instances: Path) -> None:
    """The promise that a looser one would help, not the one that the smallest sufficient batch comes near to."""
    problem = im.read_problem(instances / "small.yaml")
    why = explain(problem, servers=["interactive-chat-8b"])
    assert [(a.accelerator, a.binds) for a in why.servers[0].able] == [("H100", "TTFT and ITL"), ("A100", "ITL")]


def test_no_time_to_compare(instances: Path) -> None:
    why = explain(im.read_problem(instances / "small.yaml"), servers=["standby"], compare_time_s=0.0)
    assert all(a.adds_per_hour is None for a in why.servers[0].alternatives)


@settings(max_examples=20, suppress_health_check=SLOW)
@given(systems(servers=3, small=True))
def test_words_of_anything(problem: Problem) -> None:
    assume(len(problem.servers) > 1)
    name = problem.servers[0].name
    why = explain(problem, servers=[name])
    assert name in why.servers[0].words("cents")
