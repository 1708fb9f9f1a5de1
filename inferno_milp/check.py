"""The independent check of every plan: all that it says is recomputed from the problem.

It shares no table with the solvers: prices, devices, rates and latencies come from the problem and the queueing
analysis again. Every plan passes here before anybody sees it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from inferno_milp.errors import PlanCheckError
from inferno_milp.plan import Allocation, Plan, ServerPlan
from inferno_milp.problem import Accelerator, Load, Problem, Profile, Server
from inferno_milp.queueing import EngineParameters, analyze, size

RELATIVE = 1e-6
"""Tolerance on figures that are computed twice, in different order."""
FIGURES = ("max_rate_per_s", "ttft_ms", "ttft_p95_ms", "ttft_p99_ms", "itl_ms", "itl_p95_ms", "utilization")
"""What an allocation says of the queueing analysis; None without a load."""


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
        *_identity_violations(problem, plan),
        *_server_violations(problem, plan),
        *_latency_violations(problem, plan),
        *_capacity_violations(problem, plan),
        *_total_violations(plan),
        *_status_violations(plan, gap),
    ]
    if violations:
        raise PlanCheckError(violations)


def _pairs(problem: Problem, plan: Plan) -> Iterator[tuple[Server, ServerPlan]]:
    by_name = {server.name: server for server in plan.servers}
    return ((server, by_name[server.name]) for server in problem.servers if server.name in by_name)


def _same(one: float | None, other: float) -> bool:
    return one is not None and math.isclose(one, other, rel_tol=RELATIVE)


def _identity_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    if (plan.problem_name, plan.currency) != (problem.name, problem.currency):
        yield "the plan is for another problem, or in another currency"
    if Counter(s.name for s in plan.servers) != Counter(s.name for s in problem.servers):
        yield "the plan's servers are not the problem's"
    priorities = {c.name: c.priority for c in problem.service_classes}
    for server, planned in _pairs(problem, plan):
        said = (planned.service_class, planned.model, planned.priority)
        if said != (server.service_class, server.model, priorities[server.service_class]):
            yield f"{server.name}: class, model or priority are not the server's"


def _server_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    accelerators = {a.name: a for a in problem.accelerators}
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    for server, planned in _pairs(problem, plan):
        required = problem.required_rate_per_s(server)
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
    if server.keep_accelerator and server.current and server.current.accelerator != allocation.accelerator:
        yield f"the server keeps {server.current.accelerator}"
    largest = _largest_batch(server, profile)
    if not _is_batch(allocation.batch_size) or allocation.batch_size > largest:
        yield f"batch size {allocation.batch_size}, at most {largest} fit"


def _is_batch(batch_size: object) -> bool:
    return isinstance(batch_size, int) and batch_size >= 1


def _largest_batch(server: Server, profile: Profile) -> int:
    if server.max_batch_size is not None:
        return server.max_batch_size
    return profile.max_batch_size if server.load is None else profile.largest_batch(server.load.output_tokens)


def _latency_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Analyse and size every allocation again; compare with the figures given, and with the targets."""
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    chosen: list[tuple[Server, Load, Allocation, Profile]] = []
    for server, planned in _pairs(problem, plan):
        for a in planned.allocations:
            profile = profiles.get((server.model, a.accelerator))
            if server.load is None:
                if any(getattr(a, name) is not None for name in FIGURES) or a.targets or a.batch_sizes:
                    yield f"{server.name} on {a.accelerator}: latencies without a load"
            elif not _is_batch(a.batch_size) or not (math.isfinite(a.rate_per_s) and a.rate_per_s >= 0):
                yield f"{server.name} on {a.accelerator}: batch {a.batch_size}, rate {a.rate_per_s} cannot be"
            elif profile is not None:
                chosen.append((server, server.load, a, profile))
    if chosen:
        yield from _compare_latencies(problem, chosen)


def _compare_latencies(problem: Problem, chosen: list[tuple[Server, Load, Allocation, Profile]]) -> Iterator[str]:
    engines = _engine_parameters(problem, chosen)
    promised = [list(problem.targets_of(server).limits_ms()) for server, *_ in chosen]
    limits: dict[str, dict[str, list[float]]] = {"ttft_ms": {}, "itl_ms": {}}
    for i, targets in enumerate(promised):
        for latency, statistic, limit in targets:
            limits[latency].setdefault(statistic, [np.nan] * len(chosen))[i] = limit
    tps = [problem.targets_of(server).tps or np.nan for server, *_ in chosen]
    at_rate = analyze(problem.options.law, **engines, rate_per_s=[a.rate_per_s for _, _, a, _ in chosen])
    sized = size(problem.options.law, **engines, ttft_ms=limits["ttft_ms"], itl_ms=limits["itl_ms"], tps=tps)
    found = {
        "max_rate_per_s": sized.analysis.throughput_per_s,
        "ttft_ms": at_rate.ttft_ms,
        "ttft_p95_ms": at_rate.ttft_percentile(95),
        "ttft_p99_ms": at_rate.ttft_percentile(99),
        "itl_ms": at_rate.itl_ms,
        "itl_p95_ms": at_rate.itl_percentile(95),
        "utilization": at_rate.utilization,
    }
    statistics = {
        (latency, name): at_rate.statistic(latency, name) for latency, by_name in limits.items() for name in by_name
    }
    for i, (server, _, a, _) in enumerate(chosen):
        values = {name: float(array[i]) for name, array in found.items()}
        at_targets = {(latency, name): float(statistics[latency, name][i]) for latency, name, _ in promised[i]}
        for fault in (*_wrong_figures(a, values), *_missed_targets(a, promised[i], at_targets)):
            yield f"{server.name} on {a.accelerator}: {fault}"


def _engine_parameters(problem: Problem, chosen: list[tuple[Server, Load, Allocation, Profile]]) -> EngineParameters:
    def of_profile(name: str) -> list[Any]:
        return [np.nan if getattr(profile, name) is None else getattr(profile, name) for *_, profile in chosen]

    def of_load(name: str) -> list[float]:
        return [getattr(load, name) for _, load, _, _ in chosen]

    return {
        "alpha_ms": of_profile("alpha_ms"),
        "beta_ms": of_profile("beta_ms"),
        "gamma_ms": of_profile("gamma_ms"),
        "delta_ms": of_profile("delta_ms"),
        "kappa_ms": of_profile("kappa_ms"),
        "overhead_ms": of_profile("overhead_ms"),
        "prefill_quadratic_ms": of_profile("prefill_quadratic_ms"),
        "lag_iterations": of_profile("lag_iterations"),
        "token_budget": of_profile("token_budget"),
        "kv_tokens": of_profile("kv_tokens"),
        "input_tokens": of_load("input_tokens"),
        "output_tokens": of_load("output_tokens"),
        "cv2_input": of_load("cv2_input"),
        "cv2_output": of_load("cv2_output"),
        "cv2_arrival": of_load("cv2_arrival"),
        "max_batch": [allocation.batch_size for _, _, allocation, _ in chosen],
        "max_queue": [np.nan if s.max_queue_size is None else s.max_queue_size for s, *_ in chosen],
        "max_blocking": problem.options.max_blocking,
    }


def _wrong_figures(allocation: Allocation, found: dict[str, float]) -> Iterator[str]:
    for name, value in found.items():
        if not _same(getattr(allocation, name), value):
            yield f"{name} {getattr(allocation, name)}, should be {value}"
    if allocation.rate_per_s > found["max_rate_per_s"] * (1 + RELATIVE):
        yield f"rate {allocation.rate_per_s} above the highest, {found['max_rate_per_s']}"
    if (allocation.batch_size, allocation.replicas) not in {(c.batch_size, c.replicas) for c in allocation.batch_sizes}:
        yield "the allocation is not among its choices of batch size"


def _missed_targets(
    allocation: Allocation, promised: list[tuple[str, str, float]], found: dict[tuple[str, str], float]
) -> Iterator[str]:
    if [(use.latency, use.statistic, use.limit_ms) for use in allocation.targets] != promised:
        yield "the targets are not the server's"
    said = {(use.latency, use.statistic): use.value_ms for use in allocation.targets}
    for latency, statistic, limit in promised:
        value = found[latency, statistic]
        if not _same(said.get((latency, statistic), value), value):
            yield f"{latency} {statistic} {said[latency, statistic]}, should be {value}"
        if value > limit * (1 + RELATIVE):
            yield f"{latency} {statistic} {value} above its target {limit}"


def _capacity_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    used: Counter[str] = Counter()
    for server in plan.servers:
        for allocation in server.allocations:
            used[allocation.type] += allocation.devices
    types = {a.type for a in problem.accelerators}
    if Counter(use.type for use in plan.capacity) != Counter(types):
        yield "the plan's types are not the problem's"
    said = {use.type: use for use in plan.capacity}
    for name in types | used.keys():
        use = said.get(name)
        available = None if problem.capacity is None else problem.capacity.get(name, 0)
        if use is None or use.used != used[name] or use.available != available:
            yield f"capacity of {name}: the plan says {use}, recounted {used[name]} of {available}"
        if available is not None and used[name] > available:
            yield f"{used[name]} {name} used, {available} available"


def _total_violations(plan: Plan) -> Iterator[str]:
    cost = math.fsum(a.cost_per_hour for server in plan.servers for a in server.allocations)
    if plan.status in ("infeasible", "no_solution"):
        if plan.total_cost_per_hour is not None or plan.objective is not None or plan.gap is not None:
            yield f"status {plan.status}, but with a cost, an objective or a gap"
        return
    if not _same(plan.total_cost_per_hour, cost):
        yield f"total cost {plan.total_cost_per_hour}, recomputed {cost}"
    if plan.objective is None:
        if plan.bound is not None or plan.gap is not None:
            yield "a bound or a gap without an objective"
        return
    if not _same(plan.objective, cost):
        yield f"objective {plan.objective}, recomputed {cost}"
    yield from _bound_violations(plan, cost)


def _bound_violations(plan: Plan, cost: float) -> Iterator[str]:
    if plan.bound is None:
        if plan.gap is not None:
            yield "a gap without a bound"
        return
    if not plan.bound <= cost * (1 + RELATIVE):
        yield f"bound {plan.bound} above the cost {cost}"
    gap = max(cost - plan.bound, 0.0) / cost if cost else 0.0
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
    if plan.status == "infeasible" and plan.bound is not None:
        yield "status infeasible, but with a bound"
    if plan.status == "optimal":
        proven = plan.objective is not None and plan.bound is not None and plan.gap is not None
        if not proven or (gap is not None and plan.gap is not None and not plan.gap <= gap + 2e-9):
            yield f"status optimal with a gap of {plan.gap}, asked for {gap}"
