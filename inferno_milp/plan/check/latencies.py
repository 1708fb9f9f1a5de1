"""Latencies of a plan: every allocation analysed and sized again."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from inferno_milp.plan import Allocation, Plan
from inferno_milp.plan.check.common import RELATIVE, is_batch, pairs, same
from inferno_milp.plan.check.parameters import Run, engine_parameters, limits_by_statistic
from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Profile, Server
from inferno_milp.problem.supply import Accelerator, Power
from inferno_milp.queueing import analyze, size

FIGURES = (
    "max_rate_per_s", "wait_ms", "ttft_ms", "ttft_p95_ms", "ttft_p99_ms", "itl_ms", "itl_p95_ms", "utilization"
)  # fmt: skip
"""What an allocation says of the queueing analysis; None without a load."""


def latency_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Analyse and size every allocation again; compare with the figures given, and with the targets."""
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    chosen: list[tuple[Server, Load, Allocation, Profile]] = []
    for server, planned in pairs(problem, plan):
        for a in planned.allocations:
            profile = profiles.get((server.model, a.accelerator))
            if server.load is None:
                if any(getattr(a, name) is not None for name in FIGURES) or a.targets or a.batch_sizes:
                    yield f"{server.name} on {a.accelerator}: latencies without a load"
            elif not is_batch(a.batch_size) or not (math.isfinite(a.rate_per_s) and a.rate_per_s >= 0):
                yield f"{server.name} on {a.accelerator}: batch {a.batch_size}, rate {a.rate_per_s} cannot be"
            elif profile is not None:
                chosen.append((server, server.load, a, profile))
    if chosen:
        yield from _compare_latencies(problem, plan, chosen)


def _compare_latencies(
    problem: Problem, plan: Plan, chosen: list[tuple[Server, Load, Allocation, Profile]]
) -> Iterator[str]:
    runs = [Run(server, load, profile, a.batch_size) for server, load, a, profile in chosen]
    engines = engine_parameters(problem, runs)
    promised = [list(problem.targets_of(server).limits_ms()) for server, *_ in chosen]
    of_class = [list(problem.promised_targets_of(server).limits_ms()) for server, *_ in chosen]
    limits, tps = limits_by_statistic(problem, [server for server, *_ in chosen])
    curves = {a.name: a for a in problem.accelerators}
    there = np.array([curves[a.accelerator].availability for _, _, a, _ in chosen])
    rates = np.array([a.rate_per_s for _, _, a, _ in chosen]) / there
    at_rate = analyze(problem.options.law, **engines, rate_per_s=rates)
    sized = size(problem.options.law, **engines, **limits, tps=tps)
    full = analyze(problem.options.law, **engines, rate_per_s=sized.analysis.throughput_per_s)
    in_full = {planned.name for planned in plan.servers if planned.is_carried}
    ttft_p95_ms, ttft_p99_ms = at_rate.ttft_percentile((95, 99))
    found = {
        "max_rate_per_s": sized.analysis.throughput_per_s * there,
        "wait_ms": at_rate.wait_ms,
        "ttft_ms": at_rate.ttft_ms,
        "ttft_p95_ms": ttft_p95_ms,
        "ttft_p99_ms": ttft_p99_ms,
        "itl_ms": at_rate.itl_ms,
        "itl_p95_ms": at_rate.itl_percentile(95),
        "utilization": at_rate.utilization,
    }
    statistics = {
        (latency, name): at_rate.statistic(latency, name) for latency, by_name in limits.items() for name in by_name
    }
    for i, (server, _, a, profile) in enumerate(chosen):
        values = {name: float(array[i]) for name, array in found.items()}
        at_targets = {(latency, name): float(statistics[latency, name][i]) for latency, name, _ in promised[i]}
        use = (float(at_rate.utilization[i]), float(full.utilization[i]))
        wrong = (
            *_wrong_figures(a, values, is_alone=problem.options.assignment == "single" and server.name in in_full),
            *_missed_targets(a, promised[i], of_class[i], at_targets),
            *power_faults(a, profile, curves[a.accelerator], use),
        )
        for fault in wrong:
            yield f"{server.name} on {a.accelerator}: {fault}"


def _wrong_figures(allocation: Allocation, found: dict[str, float], *, is_alone: bool) -> Iterator[str]:
    for name, value in found.items():
        if not same(getattr(allocation, name), value):
            yield f"{name} {getattr(allocation, name)}, should be {value}"
    if allocation.rate_per_s > found["max_rate_per_s"] * (1 + RELATIVE):
        yield f"rate {allocation.rate_per_s} above the highest, {found['max_rate_per_s']}"
    replicas = {c.batch_size: c.replicas for c in allocation.batch_sizes}
    if allocation.batch_size not in replicas or (is_alone and replicas[allocation.batch_size] != allocation.replicas):
        yield "the allocation is not among its choices of batch size"


def _missed_targets(
    allocation: Allocation,
    planned: list[tuple[str, str, float]],
    promised: list[tuple[str, str, float]],
    found: dict[tuple[str, str], float],
) -> Iterator[str]:
    if [(use.latency, use.statistic, use.limit_ms) for use in allocation.targets] != promised:
        yield "the targets are not the server's"
    said = {(use.latency, use.statistic): use.value_ms for use in allocation.targets}
    for latency, statistic, limit in planned:
        value = found[latency, statistic]
        if not same(said.get((latency, statistic), value), value):
            yield f"{latency} {statistic} {said[latency, statistic]}, should be {value}"
        if value > limit * (1 + RELATIVE):
            yield f"{latency} {statistic} {value} above its target {limit}"


def power_faults(
    allocation: Allocation, profile: Profile, accelerator: Accelerator, utilizations: tuple[float, float]
) -> Iterator[str]:
    """Yield what is wrong with the power of an allocation, at its rate and at its highest."""
    pieces = allocation.replicas * profile.accelerators_per_replica
    for name, utilization in zip(("power_w", "max_power_w"), utilizations, strict=True):
        said = getattr(allocation, name)
        if accelerator.power is None:
            if said is not None:
                yield f"{name} {said}, though its accelerator's power is not known"
        elif not same(said, pieces * _power_w(accelerator.power, utilization)):
            yield f"{name} {said}, should be {pieces * _power_w(accelerator.power, utilization)}"


def _power_w(power: Power, utilization: float) -> float:
    points = (0.0, power.mid_utilization, 1.0)
    return float(np.interp(utilization, points, (power.idle_w, power.mid_w, power.full_w)))
