"""Simulate a plan: every allocation's replicas at the rate that the plan gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inferno_milp.errors import Fault, InputError
from inferno_milp.plan import Allocation, Plan, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import LARGEST_BATCH
from inferno_milp.problem.sections import Profile, Server
from inferno_milp.simulation.engine import Engine, run
from inferno_milp.simulation.replications import Play, Replications, replicate
from inferno_milp.simulation.statistics import estimate_of_runs
from inferno_milp.simulation.workload import draw_arrivals
from inferno_milp.studies.agreement import (
    FIGURES,
    Comparison,
    blocking_comparison,
    figure_name,
    latency_comparisons,
    missed,
)
from inferno_milp.studies.requests import draw_requests

if TYPE_CHECKING:
    import pandas as pd

FEWEST_REQUESTS = 1000
MOST_REQUESTS, MOST_IN_ALL = 4_000_000, 10_000_000
"""Requests at most, by default: of an allocation, and of all together, each with the same share."""
IDLE_PER_S = 1e-6
"""An engine with fewer requests than this is idle, and not simulated."""
MOST_REPLICAS = 10**9


@dataclass(frozen=True, slots=True)
class AllocationSimulation:
    """One allocation, simulated.

    Attributes
    ----------
    replicas : replicas of the allocation; they are alike, so one that is replicated stands for all of them.
    requests : simulated requests that count, of all replications.
    is_long : whether the replications are so long that the intervals can be trusted.
    rate_per_s : arrival rate at each replica.
    comparisons : latencies, and utilization.
    throughput_per_s : of all replicas.
    blocking : share of requests turned away.
    preemptions_per_request : how often a request lost its KV cache, on average.
    """

    server: str
    accelerator: str
    batch_size: int
    replicas: int
    requests: int
    is_long: bool
    rate_per_s: float
    comparisons: tuple[Comparison, ...]
    throughput_per_s: float
    blocking: float
    preemptions_per_request: float

    def figure(self, name: str) -> Comparison:
        """Return the comparison of a figure, by its name."""
        return next(c for c in self.comparisons if c.figure == name)

    @property
    def missed(self) -> tuple[Comparison, ...]:
        """Targets that the simulation misses."""
        return missed(self.comparisons)

    @property
    def off(self) -> tuple[Comparison, ...]:
        """Predictions that the simulation does not bear out."""
        return tuple(c for c in self.comparisons if c.is_off)

    @property
    def not_converged(self) -> tuple[Comparison, ...]:
        """Latencies of which the simulation cannot tell whether they are as predicted."""
        return tuple(c for c in self.comparisons if c.is_open)


@dataclass(frozen=True, slots=True)
class PlanSimulation:
    """A plan, simulated.

    Attributes
    ----------
    allocations : those of servers with a load, in the plan's order.
    requests : simulated in all.
    """

    allocations: tuple[AllocationSimulation, ...]
    requests: int

    @property
    def meets_targets(self) -> bool:
        """Whether no target is missed for certain."""
        return not any(allocation.missed for allocation in self.allocations)

    def to_dict(self) -> dict[str, Any]:
        """Return the simulation as the JSON document of docs/simulation.md."""
        return {
            "requests": self.requests,
            "meets_targets": self.meets_targets,
            "allocations": [_document(allocation) for allocation in self.allocations],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per allocation and figure."""
        import pandas as pd

        rows = [
            {
                "server": a.server,
                "accelerator": a.accelerator,
                "replicas": a.replicas,
                **c.to_record(),
            }
            for a in self.allocations
            for c in a.comparisons
        ]
        return pd.DataFrame(rows)


def _document(allocation: AllocationSimulation) -> dict[str, Any]:
    result = asdict(allocation)
    result["comparisons"] = [c.to_document() for c in allocation.comparisons]
    return result


def simulate_plan(
    problem: Problem,
    plan: Plan,
    *,
    requests: int | None = None,
    burstiness: float | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> PlanSimulation:
    """Simulate a plan, iteration by iteration, with none of the formulas that made it.

    Parameters
    ----------
    requests : requests to simulate for each allocation at most, ≥ 1000; fewer where the confidence intervals are
        narrow and trustworthy before. None is 4,000,000, or an equal share of 10,000,000 where that is less.
    burstiness : c²_a, squared coefficient of variation of the times between arrivals at every replica; None is
        what each load says.
    seed : of the random numbers.
    on_progress : called with the number of allocations done, and of all.

    Returns
    -------
    PlanSimulation

    Raises
    ------
    InputError
        If the plan is not for this problem.
    ValueError
        For too few requests, or a burstiness below 0.
    """
    check_requests(requests)
    if burstiness is not None and not (math.isfinite(burstiness) and burstiness >= 0):
        raise ValueError(f"burstiness must be at least 0, not {burstiness}")
    work = _allocations(problem, plan)
    most = most_requests(requests, len(work))
    found = []
    for done, (server, planned, allocation, profile) in enumerate(work):
        if on_progress:
            on_progress(done, len(work))
        rng = np.random.default_rng([seed, done])
        found.append(_simulate(problem, server, planned, allocation, profile, rng, most, burstiness))
    if on_progress:
        on_progress(len(work), len(work))
    return PlanSimulation(tuple(found), sum(a.requests for a in found))


def check_requests(requests: int | None) -> None:
    """Check a number of requests to simulate; ValueError for too few."""
    if requests is not None and requests < FEWEST_REQUESTS:
        raise ValueError(f"requests must be at least {FEWEST_REQUESTS}, not {requests}")


def most_requests(requests: int | None, parts: int) -> int:
    """Return how many requests to simulate at most for each of some parts of a plan; None is the default."""
    return min(MOST_REQUESTS, MOST_IN_ALL // max(parts, 1)) if requests is None else requests


def _allocations(problem: Problem, plan: Plan) -> list[tuple[Server, ServerPlan, Allocation, Profile]]:
    """List the allocations of servers with a load and a rate."""
    servers = {server.name: server for server in problem.servers}
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    faults = list(_foreign(problem, plan))
    found = []
    for planned in plan.servers if not faults else ():
        server = servers[planned.name]
        for allocation in planned.allocations:
            profile = profiles.get((server.model, allocation.accelerator))
            if profile is None:
                what = f"the plan runs {server.model!r} on {allocation.accelerator!r}: the problem has no such profile"
                faults.append(Fault(what, "", ("servers", planned.name)))
            elif fault := _wrong_figure(allocation):
                faults.append(Fault(fault, "", ("servers", planned.name)))
            elif server.load is not None and _rate_per_s(problem, server, planned, allocation) > IDLE_PER_S:
                found.append((server, planned, allocation, profile))
    if faults:
        raise InputError(tuple(faults))
    return found


def _foreign(problem: Problem, plan: Plan) -> Iterator[Fault]:
    ours, theirs = {server.name for server in problem.servers}, {server.name for server in plan.servers}
    for name in sorted(theirs - ours):
        yield Fault(f"the plan has a server {name!r}, the problem none", "", ("servers", name))
    for name in sorted(ours - theirs):
        yield Fault(f"the plan says nothing of the server {name!r}", "", ("servers",))


def _wrong_figure(allocation: Allocation) -> str | None:
    if not 1 <= allocation.batch_size <= LARGEST_BATCH:
        return f"batch size {allocation.batch_size}, should be from 1 to {LARGEST_BATCH}"
    if not 1 <= allocation.replicas <= MOST_REPLICAS:
        return f"{allocation.replicas} replicas"
    if not 0 < allocation.share <= 1:
        return f"share {allocation.share}, should be above 0 and at most 1"
    return None


def _rate_per_s(problem: Problem, server: Server, planned: ServerPlan, allocation: Allocation) -> float:
    """Rate at each replica that is there: its share of what the server must carry; by best effort, the plan's."""
    there = problem.availabilities[allocation.accelerator]
    if not planned.is_carried:
        return allocation.rate_per_s / there
    return problem.required_rate_per_s(server) * allocation.share / (allocation.replicas * there)


def _simulate(
    problem: Problem,
    server: Server,
    planned: ServerPlan,
    allocation: Allocation,
    profile: Profile,
    rng: np.random.Generator,
    most: int,
    burstiness: float | None,
) -> AllocationSimulation:
    load = server.load
    assert load is not None
    rate = _rate_per_s(problem, server, planned, allocation)
    engine = engine_of(problem, server, profile, allocation.batch_size)
    cv2_arrival = load.cv2_arrival if burstiness is None else burstiness
    predicted = {figure_name(use.latency, use.statistic): use.value_ms for use in allocation.targets}
    predicted |= {name: value for name in FIGURES if (value := getattr(allocation, name)) is not None}
    targets = problem.targets_of(server)

    def draw(stream: np.random.Generator, count: int) -> Play:
        arrivals = draw_arrivals(stream, rate, count, cv2=cv2_arrival)
        requests = arrivals, *draw_requests(stream, load, count)
        return lambda start, end: run(engine, *requests, measured_from_ms=start, measured_until_ms=end)

    def latencies(found: Replications) -> tuple[Comparison, ...]:
        return tuple(latency_comparisons(found, predicted, targets))

    found = replicate(draw, rng, most=most, estimates=lambda runs: [c.simulated for c in latencies(runs)])
    traces, kept = found.traces, found.kept
    shares = [trace.running / engine.max_batch for trace in traces]
    utilization = estimate_of_runs(shares, float(np.mean(shares)))
    blocking = float(np.isnan(np.concatenate([trace.ttft_ms[kept] for trace in traces])).mean())
    most_blocking = None if problem.options.law == "inferno" else problem.options.max_blocking
    return AllocationSimulation(
        server=planned.name,
        accelerator=allocation.accelerator,
        batch_size=allocation.batch_size,
        replicas=allocation.replicas,
        requests=found.requests,
        is_long=found.are_long,
        rate_per_s=rate,
        comparisons=(
            *latencies(found),
            Comparison("utilization", allocation.utilization, utilization, None, found.widening),
            blocking_comparison(found, most_blocking),
        ),
        throughput_per_s=allocation.replicas * problem.availabilities[allocation.accelerator] * rate * (1 - blocking),
        blocking=blocking,
        preemptions_per_request=float(np.mean([trace.preemptions[kept].mean() for trace in traces])),
    )


def engine_of(problem: Problem, server: Server, profile: Profile, batch_size: int) -> Engine:
    """Return the engine of a server's replicas."""
    return Engine(
        alpha_ms=profile.alpha_ms,
        beta_ms=profile.beta_ms,
        gamma_ms=profile.gamma_ms,
        delta_ms=profile.delta_ms,
        kappa_ms=profile.kappa_ms,
        prefill_quadratic_ms=profile.prefill_quadratic_ms,
        overhead_ms=profile.overhead_ms + problem.latency_ms(server, profile.accelerator),
        lag_iterations=profile.lag_iterations,
        max_batch=batch_size,
        max_queue=server.max_queue_size,
        token_budget=profile.token_budget,
        kv_tokens=profile.kv_tokens,
    )
