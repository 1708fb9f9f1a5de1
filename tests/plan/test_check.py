"""The check of every plan finds whatever is wrong with it: each figure is tampered with, one at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import inferno_milp as im
from inferno_milp.plan import Allocation, CapacityUse, NodeUse, Placed, Plan, PriorityUse, ServerPlan
from inferno_milp.plan.check import check_plan
from inferno_milp.problem.sections import CurrentAllocation


@pytest.fixture(scope="module")
def problem(instances: Path) -> im.Problem:
    return im.read_problem(instances / "small.yaml")


@pytest.fixture(scope="module")
def plan(problem: im.Problem) -> Plan:
    return im.optimize(problem)


def with_allocation(plan: Plan, server: int, **changes: Any) -> Plan:
    return with_server(plan, server, allocations=(replace(plan.servers[server].allocations[0], **changes),))


def with_server(plan: Plan, server: int, **changes: Any) -> Plan:
    servers = list(plan.servers)
    servers[server] = replace(servers[server], **changes)
    return replace(plan, servers=tuple(servers))


def allocation(plan: Plan, server: int = 0) -> Allocation:
    return plan.servers[server].allocations[0]


def server(plan: Plan, number: int = 0) -> ServerPlan:
    return plan.servers[number]


TAMPERED: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "cost of an allocation": (lambda p: with_allocation(p, 0, cost_per_hour=1.0), "cost 1.0, should be 4.0"),
    "one replica less": (lambda p: with_allocation(p, 4, replicas=2), "should be 2 A100"),
    "devices": (lambda p: with_allocation(p, 0, devices=3), "should be 1 H100"),
    "type": (lambda p: with_allocation(p, 0, type="A100"), "should be 1 H100"),
    "no replicas": (lambda p: with_allocation(p, 0, replicas=0), "0 replicas"),
    "min_replicas": (lambda p: with_allocation(p, 1, replicas=1), "fewer than 2 replicas"),
    "accelerator without profile": (lambda p: with_allocation(p, 0, accelerator="2xH100"), "no profile on 2xH100"),
    "kept accelerator": (lambda p: with_allocation(p, 3, accelerator="2xH100"), "the server keeps A100"),
    "batch beyond the memory": (lambda p: with_allocation(p, 0, batch_size=999), "at most 372 fit"),
    "batch beyond the server's": (lambda p: with_allocation(p, 2, batch_size=17), "at most 16 fit"),
    "share": (lambda p: with_allocation(p, 0, share=0.5), "shares do not add up to 1"),
    "rate": (lambda p: with_allocation(p, 0, rate_per_s=1.0), "not its share of the required rate"),
    "highest rate": (lambda p: with_allocation(p, 0, max_rate_per_s=1.0), "max_rate_per_s 1.0, should be 1"),
    "TTFT": (lambda p: with_allocation(p, 0, ttft_ms=1.0), "ttft_ms 1.0, should be"),
    "TTFT p95": (lambda p: with_allocation(p, 0, ttft_p95_ms=1.0), "ttft_p95_ms 1.0, should be"),
    "TTFT not told": (lambda p: with_allocation(p, 0, ttft_ms=None), "ttft_ms None, should be"),
    "ITL": (lambda p: with_allocation(p, 0, itl_ms=1.0), "itl_ms 1.0, should be"),
    "a target's value": (
        lambda p: with_allocation(p, 0, targets=tuple(replace(use, value_ms=1.0) for use in allocation(p).targets)),
        "ttft_ms mean 1.0, should be",
    ),
    "a target less": (lambda p: with_allocation(p, 0, targets=()), "the targets are not the server's"),
    "batch sizes": (lambda p: with_allocation(p, 0, batch_sizes=()), "not among its choices of batch size"),
    "utilization": (lambda p: with_allocation(p, 0, utilization=1.0), "utilization 1.0, should be"),
    "no allocation": (lambda p: with_server(p, 0, allocations=()), "a rate to carry, and no allocation"),
    "required rate": (lambda p: with_server(p, 4, required_rate_per_s=1.0), "required rate 1.0, should be 15.0"),
    "offered rate": (lambda p: with_server(p, 0, offered_rate_per_s=1.0), "offered rate 1.0, should be 12.0"),
    "served rate": (lambda p: with_server(p, 0, served_rate_per_s=1.0), "served in full, but not by its figures"),
    "unserved with allocations": (
        lambda p: with_server(p, 0, meets_targets=False, is_carried=False, reason="x"), "in full, but with"
    ),
    "a server left out": (lambda p: replace(p, servers=p.servers[1:]), "not the problem's"),
    "a server twice": (lambda p: replace(p, servers=(*p.servers, server(p))), "not the problem's"),
    "used devices": (lambda p: replace(p, capacity=(CapacityUse("H100", 6, 4), *p.capacity[:2])), "recounted 5 of 6"),
    "available devices": (lambda p: replace(p, capacity=(*p.capacity[:2], CapacityUse("H100", 99, 5))), "of 6"),
    "total cost": (lambda p: replace(p, total_cost_per_hour=1.0), "total cost 1.0, recomputed 38.3"),
    "no total cost": (lambda p: replace(p, total_cost_per_hour=None), "total cost None, recomputed 38.3"),
    "objective": (lambda p: replace(p, objective=1.0), "objective 1.0, recomputed 38.3"),
    "bound": (lambda p: replace(p, bound=50.0), "bound 50.0 above the objective"),
    "gap": (lambda p: replace(p, bound=30.0), "recomputed 0.2167"),
    "no gap": (lambda p: replace(p, gap=None), "status optimal with a gap of None"),
    "gap above what was asked": (lambda p: replace(p, bound=0.9 * 38.3, gap=0.1), "asked for 0.0001"),
    "no bound": (lambda p: replace(p, bound=None, gap=None), "status optimal with a gap of None"),
    "no objective": (lambda p: replace(p, objective=None), "a bound or a gap without an objective"),
    "a gap that is no number": (lambda p: replace(p, gap=math.nan), "gap nan"),
    "another problem": (lambda p: replace(p, problem_name="x"), "another problem"),
    "another currency": (lambda p: replace(p, currency="eur"), "another currency"),
    "priority": (lambda p: with_server(p, 0, priority=3), "class, model or priority"),
    "model": (lambda p: with_server(p, 0, model="chat-70b"), "class, model or priority"),
    "a type left out": (lambda p: replace(p, capacity=p.capacity[1:]), "types are not the problem's"),
    "a type twice": (lambda p: replace(p, capacity=(*p.capacity, p.capacity[0])), "types are not the problem's"),
    "batch of nothing": (lambda p: with_allocation(p, 0, batch_size=0), "batch size 0"),
    "half a batch": (lambda p: with_allocation(p, 0, batch_size=3.5), "batch size 3.5"),
    "negative rate": (lambda p: with_allocation(p, 0, rate_per_s=-1.0), "rate -1.0 cannot be"),
    "latency without a load": (lambda p: with_allocation(p, 5, ttft_ms=1.0), "latencies without a load"),
    "power": (lambda p: replace(p, power_w=1.0), "power 1.0 W, recomputed None"),
    "power of an allocation": (lambda p: with_allocation(p, 0, power_w=1.0), "power is not known"),
    "part of the objective": (
        lambda p: replace(p, objective_parts={**p.objective_parts, "changes": 1.0}), "part changes of the objective 1.0"
    ),
    "parts left out": (lambda p: replace(p, objective_parts={}), "not those that there are"),
    "priorities": (lambda p: replace(p, priorities=(PriorityUse(1, 2.0, 3.0, 2.0),)), "served 3.0, could 2.0"),
    "status partial": (lambda p: replace(p, status="partial"), "but everybody is served"),
    "status infeasible": (lambda p: replace(p, status="infeasible"), "but with allocations"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_found(problem: im.Problem, plan: Plan, what: str) -> None:
    change, complaint = TAMPERED[what]
    with pytest.raises(im.PlanCheckError, match=complaint):
        check_plan(problem, change(plan), gap=1e-4)


def test_targets_are_evaluated_again(problem: im.Problem, plan: Plan) -> None:
    """The same plan, for a problem whose promises are stricter."""
    classes = list(problem.service_classes)
    stricter = classes[0].targets["chat-8b"].model_copy(update={"ttft_ms": 40.0})
    classes[0] = classes[0].model_copy(update={"targets": {**classes[0].targets, "chat-8b": stricter}})
    with pytest.raises(im.PlanCheckError, match=r"interactive-chat-8b on H100: ttft_ms mean .* above its target 40"):
        check_plan(problem.model_copy(update={"service_classes": tuple(classes)}), plan)


def test_capacity_is_recounted(problem: im.Problem, plan: Plan) -> None:
    with pytest.raises(im.PlanCheckError, match="5 H100 used, 3 available"):
        check_plan(problem.model_copy(update={"capacity": {"L4": 30, "A100": 12, "H100": 3}}), plan)


def test_all_that_is_wrong_is_told(problem: im.Problem, plan: Plan) -> None:
    with pytest.raises(im.PlanCheckError) as caught:
        check_plan(problem, replace(with_allocation(plan, 0, itl_ms=1.0), bound=50.0, status="partial"))
    assert len(caught.value.violations) >= 3


def test_too_few_replicas_though_all_figures_agree(problem: im.Problem, plan: Plan) -> None:
    """One replica carries what three should: all figures are those of one, and yet it is wrong."""
    served = plan.servers[4]
    old = served.allocations[0]
    profile = next(p for p in problem.profiles if (p.model, p.accelerator) == (served.model, old.accelerator))
    load = problem.servers[4].load
    assert load is not None
    alone = im.analyze(
        alpha_ms=profile.alpha_ms, beta_ms=profile.beta_ms, gamma_ms=profile.gamma_ms,
        delta_ms=profile.delta_ms, input_tokens=load.input_tokens, output_tokens=load.output_tokens,
        max_batch=old.batch_size, max_queue=1000, rate_per_s=served.required_rate_per_s,
    )  # fmt: skip
    one = replace(
        old, replicas=1, devices=1, cost_per_hour=2.2, rate_per_s=served.required_rate_per_s,
        wait_ms=float(alone.wait_ms), ttft_ms=float(alone.ttft_ms), ttft_p95_ms=float(alone.ttft_percentile(95)),
        ttft_p99_ms=float(alone.ttft_percentile(99)), itl_ms=float(alone.itl_ms),
        itl_p95_ms=float(alone.itl_percentile(95)), utilization=float(alone.utilization),
        batch_sizes=(replace(old.batch_sizes[-1], batch_size=old.batch_size, replicas=1),),
    )  # fmt: skip
    cost = 38.3 - 4.4
    capacity = tuple(replace(use, used=use.used - 2) if use.type == "A100" else use for use in plan.capacity)
    cheaper = replace(
        with_server(plan, 4, allocations=(one,)),
        total_cost_per_hour=cost, objective=cost, bound=cost, gap=0.0, capacity=capacity,
        objective_parts={**plan.objective_parts, "price": cost},
    )  # fmt: skip
    with pytest.raises(im.PlanCheckError) as caught:
        check_plan(problem, cheaper)
    carried, highest = caught.value.violations
    assert re.match(r"batch-chat-8b: its replicas carry 5\.\d+, should be 15\.0", carried)
    assert "rate 15.0 above the highest, 5." in highest


def test_figures_of_an_infeasible_plan(instances: Path) -> None:
    problem = im.read_problem(instances / "infeasible.yaml")
    plan = im.optimize(problem)
    check_plan(problem, plan)
    for change in ({"total_cost_per_hour": 0.0}, {"objective": 0.0}, {"bound": 1.0}, {"status": "optimal"}):
        with pytest.raises(im.PlanCheckError):
            check_plan(problem, replace(plan, **change))


def test_nodes_are_recounted(problem: im.Problem) -> None:
    """H100s in nodes of 4: what sits where is counted again."""
    nodes = ({"type": "H100", "devices": 4, "count": 2},)
    capacity = {"L4": 30, "A100": 12}
    changed = im.Problem.model_validate({**problem.model_dump(), "capacity": capacity, "nodes": nodes})
    plan = im.optimize(changed)
    check_plan(changed, plan)
    node = plan.nodes[0]
    overfull = replace(node, holds=(*node.holds, Placed("interactive-chat-8b", "H100", 9)))
    for nodes_, complaint in (
        ((), "the replicas in nodes are not those of the plan"),
        ((overfull, *plan.nodes[1:]), "holds"),
        ((*plan.nodes, NodeUse("H100", 4, 0, ()), NodeUse("H100", 4, 0, ())), "2 available"),
    ):
        with pytest.raises(im.PlanCheckError, match=complaint):
            check_plan(changed, replace(plan, nodes=nodes_))


def test_limits_are_added_up(problem: im.Problem, plan: Plan) -> None:
    for limit, complaint in (
        ({"max_cost_per_hour": 30.0}, "above the budget 30"),
        ({"max_changes": 0}, "1 servers change their accelerator, 0 may"),
    ):
        servers = list(problem.servers)
        servers[0] = servers[0].model_copy(update={"current": (CurrentAllocation(accelerator="L4", replicas=1),)})
        changed = problem.with_options(**limit).model_copy(update={"servers": tuple(servers)})
        with pytest.raises(im.PlanCheckError, match=complaint):
            check_plan(changed, plan)


def test_a_good_plan_passes(problem: im.Problem, plan: Plan) -> None:
    check_plan(problem, plan, gap=1e-4)
