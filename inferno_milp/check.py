"""The independent check of every plan: all that it says is recomputed from the problem.

It shares no table with the solvers: prices, devices, rates and latencies come from the problem and the queueing
analysis again. Every plan passes here before anybody sees it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from inferno_milp.errors import PlanCheckError
from inferno_milp.plan import Allocation, Plan, ServerPlan
from inferno_milp.problem import Accelerator, Problem, Profile, Server, Targets
from inferno_milp.queueing import analyze

RELATIVE = 1e-6
"""Tolerance on figures that are computed twice, in different order."""


def check_plan(problem: Problem, plan: Plan, *, gap: float | None = None) -> None:
    """Check a plan against the problem it is for.

    Parameters
    ----------
    gap : relative gap that was asked for; a plan called optimal must be within it.

    Raises
    ------
    PlanCheckError
        With everything that does not agree.
    """
    violations = [
        *_server_violations(problem, plan),
        *_target_violations(problem, plan),
        *_capacity_violations(problem, plan),
        *_total_violations(plan),
        *_status_violations(plan, gap),
    ]
    if violations:
        raise PlanCheckError(violations)


def _pairs(problem: Problem, plan: Plan) -> Iterator[tuple[Server, ServerPlan]]:
    by_name = {server.name: server for server in plan.servers}
    return ((server, by_name[server.name]) for server in problem.servers if server.name in by_name)


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-9)


def _server_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    if Counter(s.name for s in plan.servers) != Counter(s.name for s in problem.servers):
        yield "the plan's servers are not the problem's"
    accelerators = {a.name: a for a in problem.accelerators}
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    targets = {c.name: c.targets for c in problem.service_classes}
    for server, planned in _pairs(problem, plan):
        required = _required_rate(server, targets[server.service_class][server.model])
        if not _same(planned.required_rate_per_s, required):
            yield f"{server.name}: required rate {planned.required_rate_per_s}, should be {required}"
        offered = server.load.arrival_rate_per_s if server.load else 0.0
        if not _same(planned.offered_rate_per_s, offered):
            yield f"{server.name}: offered rate {planned.offered_rate_per_s}, should be {offered}"
        if planned.meets_targets:
            if not _same(planned.served_rate_per_s, offered) or planned.reason is not None:
                yield f"{server.name}: served in full, but not by its figures"
            yield from _allocation_violations(server, planned, required, accelerators, profiles)
        elif planned.allocations or planned.served_rate_per_s or not planned.reason:
            yield f"{server.name}: not served, but with allocations, a rate or no reason"


def _required_rate(server: Server, targets: Targets) -> float:
    if server.load is None:
        return 0.0
    promised = (targets.tps or 0.0) / server.load.output_tokens
    return max(server.load.arrival_rate_per_s, promised)


def _allocation_violations(
    server: Server,
    planned: ServerPlan,
    required: float,
    accelerators: dict[str, Accelerator],
    profiles: dict[tuple[str, str], Profile],
) -> Iterator[str]:
    if sum(a.replicas for a in planned.allocations) < server.min_replicas:
        yield f"{server.name}: fewer than {server.min_replicas} replicas"
    if not planned.allocations:
        if required > 0:
            yield f"{server.name}: a rate to carry, and no allocation"
        return
    if not _same(math.fsum(a.share for a in planned.allocations), 1.0):
        yield f"{server.name}: shares do not add up to 1"
    for allocation in planned.allocations:
        profile = profiles.get((server.model, allocation.accelerator))
        if profile is None:
            yield f"{server.name}: no profile on {allocation.accelerator}"
            continue
        for fault in _figure_faults(server, allocation, required, profile, accelerators[allocation.accelerator]):
            yield f"{server.name} on {allocation.accelerator}: {fault}"


def _figure_faults(
    server: Server, allocation: Allocation, required: float, profile: Profile, accelerator: Accelerator
) -> Iterator[str]:
    pieces = allocation.replicas * profile.accelerators_per_replica
    if allocation.replicas < 1:
        yield f"{allocation.replicas} replicas"
        return
    if allocation.type != accelerator.type or allocation.devices != pieces * accelerator.devices:
        yield f"{allocation.devices} {allocation.type}, should be {pieces * accelerator.devices} {accelerator.type}"
    if not _same(allocation.cost_per_hour, pieces * accelerator.cost_per_hour):
        yield f"cost {allocation.cost_per_hour}, should be {pieces * accelerator.cost_per_hour}"
    if not _same(allocation.rate_per_s, allocation.share * required / allocation.replicas):
        yield "the rate of a replica is not its share of the required rate"
    if allocation.max_rate_per_s is not None and allocation.rate_per_s > allocation.max_rate_per_s * (1 + RELATIVE):
        yield f"rate {allocation.rate_per_s} above the highest, {allocation.max_rate_per_s}"
    if server.keep_accelerator and server.current and server.current.accelerator != allocation.accelerator:
        yield f"the server keeps {server.current.accelerator}"
    largest = _largest_batch(server, profile)
    if not 1 <= allocation.batch_size <= largest:
        yield f"batch size {allocation.batch_size}, at most {largest} fit"


def _largest_batch(server: Server, profile: Profile) -> int:
    if server.max_batch_size is not None:
        return server.max_batch_size
    return profile.max_batch_size if server.load is None else profile.largest_batch(server.load.output_tokens)


def _target_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Evaluate every allocation at its rate again; compare with the figures given and with the targets."""
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    targets = {c.name: c.targets for c in problem.service_classes}
    chosen = [
        (server, allocation, profiles[server.model, allocation.accelerator])
        for server, planned in _pairs(problem, plan)
        for allocation in planned.allocations
        if server.load is not None and (server.model, allocation.accelerator) in profiles
    ]
    if not chosen:
        return
    loads = [server.load for server, _, _ in chosen if server.load is not None]
    batches = np.array([allocation.batch_size for _, allocation, _ in chosen])
    queues = [10 * a.batch_size if s.max_queue_size is None else s.max_queue_size for s, a, _ in chosen]
    analysis = analyze(
        problem.options.law,
        **{f"{n}_ms": [getattr(p, f"{n}_ms") for _, _, p in chosen] for n in ("alpha", "beta", "gamma", "delta")},
        kappa_ms=[p.kappa_ms for _, _, p in chosen],
        input_tokens=[load.input_tokens for load in loads],
        output_tokens=[load.output_tokens for load in loads],
        max_batch=batches,
        max_queue=queues,
        rate_per_s=[a.rate_per_s for _, a, _ in chosen],
    )
    p95 = analysis.ttft_percentile(95)
    for i, (server, allocation, _) in enumerate(chosen):
        promised = targets[server.service_class][server.model]
        found = {
            "TTFT": (analysis.ttft_ms[i], allocation.ttft_ms, promised.ttft_ms),
            "TTFT p95": (p95[i], allocation.ttft_p95_ms, None),
            "ITL": (analysis.itl_ms[i], allocation.itl_ms, promised.itl_ms),
            "utilization": (analysis.utilization[i], allocation.utilization, None),
        }
        for name, (value, said, target) in found.items():
            if said is None or not _same(float(value), said):
                yield f"{server.name} on {allocation.accelerator}: {name} {said}, should be {value}"
            if target is not None and value > target * (1 + RELATIVE):
                yield f"{server.name} on {allocation.accelerator}: {name} {value} above its target {target}"


def _capacity_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    used: Counter[str] = Counter()
    for server in plan.servers:
        for allocation in server.allocations:
            used[allocation.type] += allocation.devices
    said = {use.type: use for use in plan.capacity}
    for name in used.keys() | said.keys():
        use = said.get(name)
        available = None if problem.capacity is None else problem.capacity.get(name, 0)
        if use is None or use.used != used[name] or use.available != available:
            yield f"capacity of {name}: the plan says {use}, recounted {used[name]} of {available}"
        if available is not None and used[name] > available:
            yield f"{used[name]} {name} used, {available} available"


def _total_violations(plan: Plan) -> Iterator[str]:
    cost = math.fsum(a.cost_per_hour for server in plan.servers for a in server.allocations)
    if plan.total_cost_per_hour is not None and not _same(plan.total_cost_per_hour, cost):
        yield f"total cost {plan.total_cost_per_hour}, recomputed {cost}"
    if plan.total_cost_per_hour is None and cost:
        yield "allocations without a total cost"
    if plan.objective is not None and not _same(plan.objective, cost):
        yield f"objective {plan.objective}, recomputed {cost}"
    if plan.objective is not None and plan.bound is not None:
        if plan.bound > plan.objective * (1 + RELATIVE) + 1e-9:
            yield f"bound {plan.bound} above the cost {plan.objective}"
        gap = max(plan.objective - plan.bound, 0.0) / plan.objective if plan.objective else 0.0
        if plan.gap is None or not math.isclose(plan.gap, gap, rel_tol=1e-3, abs_tol=1e-9):
            yield f"gap {plan.gap}, recomputed {gap}"


def _status_violations(plan: Plan, gap: float | None) -> Iterator[str]:
    allocated = any(server.allocations for server in plan.servers)
    if plan.status in ("optimal", "feasible") and not plan.serves_all:
        yield f"status {plan.status}, but {', '.join(plan.unserved)} unserved"
    if plan.status == "partial" and plan.serves_all:
        yield "status partial, but everybody is served"
    if plan.status in ("infeasible", "no_solution") and (allocated or plan.serves_all):
        yield f"status {plan.status}, but with allocations"
    if plan.status == "optimal" and (plan.gap is None or (gap is not None and plan.gap > gap + 1e-9)):
        yield f"status optimal with a gap of {plan.gap}, asked for {gap}"
