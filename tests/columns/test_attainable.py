"""Targets that no accelerator meets: the best attainable, in plans, periods and the loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_problems import problem_data

import inferno_milp as im
from inferno_milp.columns.attainable import MARGIN, find_attainable_candidates
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.plan.check import check_plan

LEAST_ITL_MS = 8.1
"""Of the tiny problem's B at a batch of one; A's is longer."""


def out_of_reach(itl_ms: Any = 7.0, ttft_ms: Any = 1000.0, **changes: Any) -> im.Problem:
    """The tiny problem on A and B, whose one server is promised less than any of them attains."""
    data = problem_data()
    data["profiles"] = data["profiles"][:2]
    data["service_classes"] = [
        {"name": "gold", "priority": 1, "targets": {"m": {"ttft_ms": ttft_ms, "itl_ms": itl_ms}}},
        {"name": "tin", "priority": 2, "targets": {"m": {"ttft_ms": 1000.0, "itl_ms": 30.0}}},
    ]
    data["options"] = {}
    return im.Problem.model_validate({**data, **changes})


@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_the_load_is_carried_at_the_least_attainable(assignment: str) -> None:
    plan = im.optimize(out_of_reach().with_options(assignment=assignment))
    (server,) = plan.servers
    assert (plan.status, server.meets_targets, server.is_carried) == ("partial", False, True)
    assert server.served_rate_per_s == server.offered_rate_per_s
    (missed,) = server.missed
    assert (missed.latency, missed.statistic, missed.promised_ms) == ("itl_ms", "mean", 7.0)
    assert missed.planned_ms == pytest.approx(LEAST_ITL_MS * (1 + MARGIN))
    assert 7.0 < max(a.itl_ms or 0.0 for a in server.allocations) <= missed.planned_ms
    assert "7 ms is promised, 8.1 ms is the least that any accelerator attains" in str(server.reason)
    assert [use.limit_ms for use in server.allocations[0].targets] == [1000.0, 7.0]
    assert im.Plan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize("rate_per_s", [0.02, 6.0, 300.0])
def test_it_is_sized_for_its_load(rate_per_s: float) -> None:
    """Neither one replica for ever, nor all devices for next to nothing."""
    problem = out_of_reach(capacity="unlimited")
    (server,) = problem.servers
    assert server.load is not None
    load = server.load.model_copy(update={"rate_per_s": rate_per_s, "rate_per_min": None})
    problem = problem.model_copy(update={"servers": (server.model_copy(update={"load": load}),)})
    (planned,) = im.optimize(problem).servers
    (a,) = planned.allocations
    assert a.max_rate_per_s is not None
    assert (a.replicas - 1) * a.max_rate_per_s < rate_per_s <= a.replicas * a.max_rate_per_s


@pytest.mark.parametrize(
    ("itl_ms", "ttft_ms", "names"),
    [
        ({"p95": 7.5}, {"p95": 2.0}, [("ttft_ms", "p95"), ("itl_ms", "p95")]),
        ({"mean": 7.0, "p99": 500.0}, 1000.0, [("itl_ms", "mean")]),
        (30.0, 3.0, [("ttft_ms", "mean")]),
    ],
)
def test_only_what_cannot_be_met_is_relaxed(itl_ms: Any, ttft_ms: Any, names: list[tuple[str, str]]) -> None:
    (server,) = im.optimize(out_of_reach(itl_ms, ttft_ms, capacity="unlimited")).servers
    assert server.is_carried
    assert [(one.latency, one.statistic) for one in server.missed] == names


def test_targets_within_reach_are_left_alone() -> None:
    problem = out_of_reach(8.2)
    assert find_attainable_candidates(problem).problem.relaxed_targets == {}
    plan = im.optimize(problem)
    assert (plan.status, plan.servers[0].missed) == ("optimal", ())


def test_priorities_hold() -> None:
    """The server that misses its targets is of the higher priority: it is carried first."""
    data = problem_data()["servers"][0]
    problem = out_of_reach(servers=[data, {**data, "service_class": "tin", "name": "second"}])
    alone = im.optimize(problem.model_copy(update={"servers": problem.servers[:1]}))
    used = {use.type: use.used for use in alone.capacity}
    plan = im.optimize(problem.model_copy(update={"capacity": used}))
    assert [server.is_carried for server in plan.servers] == [True, False]
    assert plan.short == ("second",)
    roomy = im.optimize(problem.model_copy(update={"capacity": None}))
    assert [server.meets_targets for server in roomy.servers] == [False, True]
    assert roomy.short == ()


def test_the_greedy_heuristic_is_llm_infernos() -> None:
    plan = im.optimize(out_of_reach(), solver="greedy")
    assert (plan.servers[0].allocations, plan.servers[0].is_carried) == ((), False)


def test_the_check_refuses_a_promise_that_can_be_kept() -> None:
    problem = out_of_reach()
    plan = im.optimize(problem)
    check_plan(problem, plan)
    easier = out_of_reach(8.2)
    with pytest.raises(im.PlanCheckError, match="said to be out of reach, and an accelerator keeps them"):
        check_plan(easier, plan)
    (server,) = plan.servers
    for false in (replace(server, missed=()), replace(server, meets_targets=True, reason=None)):
        with pytest.raises(im.PlanCheckError):
            check_plan(problem, replace(plan, servers=(false,)))


def test_periods_and_scenarios_plan_for_it() -> None:
    periods = [{"name": "night", "factor": 0.5}, {"name": "noon", "factor": 4.0}]
    plan = im.plan_periods(out_of_reach(periods=periods)).plan
    assert plan.status == "partial"
    assert plan.unserved == ()
    assert [one.server for one in plan.missed] == ["gold-m"]
    assert {held.moment: held.replicas for held in plan.held}.keys() == {"night", "noon"}


def test_what_no_latency_explains_is_still_unserved() -> None:
    """Requests that no cache holds are not planned for."""
    data = problem_data()["profiles"]
    profiles = [{**profile, "kv_tokens": 50} for profile in data[:2]]
    plan = im.optimize(out_of_reach(profiles=profiles))
    assert (plan.status, plan.servers[0].missed) == ("infeasible", ())


def test_candidates_say_what_is_promised() -> None:
    """The table of candidates itself has none: what is attainable is a matter of planning."""
    assert len(find_candidates(out_of_reach()).rows) == 0
