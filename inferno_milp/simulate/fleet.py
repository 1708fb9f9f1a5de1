"""Simulate a plan: every allocation's replicas at the rate that the plan gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inferno_milp.errors import Fault, InputError
from inferno_milp.fields import LARGEST_BATCH, Targets
from inferno_milp.plan import Allocation, Plan, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.sections import Profile, Server
from inferno_milp.simulate.comparison import (
    FIGURES,
    Comparison,
    blocking_comparison,
    figure_name,
    latency_comparisons,
    missed,
)
from inferno_milp.simulate.engine import Engine, Trace, run
from inferno_milp.simulate.statistics import estimate_of_runs
from inferno_milp.simulate.workload import draw_arrivals, draw_requests

if TYPE_CHECKING:
    import pandas as pd

FEWEST_REQUESTS = 1000
REQUESTS = 20_000
"""Requests per allocation, by default."""
RUNS = 8
"""Independent runs per allocation, of replicas that are all alike; confidence intervals are from run to run."""
IDLE_PER_S = 1e-6
"""An engine with fewer requests than this is idle, and not simulated."""
FULL, PLACES = 0.85, 20
"""An engine predicted to be this full is run for at least this many requests per place (N + Q): it fills slowly."""
MOST_REPLICAS = 10**9
WARM_UP = 0.2
"""Share of each run's requests that is left out, since the engine starts empty."""


@dataclass(frozen=True, slots=True)
class AllocationSimulation:
    """One allocation, simulated.

    Attributes
    ----------
    replicas : replicas of the allocation; they are alike, so the runs stand for all of them.
    requests : simulated in all runs, without those left out at the start of each.
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
    requests: int = REQUESTS,
    burstiness: float | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> PlanSimulation:
    """Simulate a plan, iteration by iteration, with none of the formulas that made it.

    Parameters
    ----------
    requests : requests for each allocation, ≥ 1000, in independent runs of one of its replicas, which are alike;
        more where the engine is predicted to be nearly full.
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
    found = []
    for done, (server, planned, allocation, profile) in enumerate(work):
        if on_progress:
            on_progress(done, len(work))
        rng = np.random.default_rng([seed, done])
        found.append(_simulate(problem, server, planned, allocation, profile, rng, requests, burstiness))
    if on_progress:
        on_progress(len(work), len(work))
    return PlanSimulation(tuple(found), sum(a.requests for a in found))


def check_requests(requests: int) -> None:
    """Check a number of requests to simulate; ValueError for too few."""
    if requests < FEWEST_REQUESTS:
        raise ValueError(f"requests must be at least {FEWEST_REQUESTS}, not {requests}")


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
    requests: int,
    burstiness: float | None,
) -> AllocationSimulation:
    load = server.load
    assert load is not None
    rate = _rate_per_s(problem, server, planned, allocation)
    engine = engine_of(problem, server, profile, allocation.batch_size)
    count = math.ceil(requests / RUNS)
    if allocation.utilization is None or allocation.utilization > FULL:
        count = max(count, PLACES * engine.places)
    traces, kept = [], slice(int(WARM_UP * count), None)
    for stream in rng.spawn(RUNS):
        arrivals = draw_arrivals(stream, rate, count, cv2=load.cv2_arrival if burstiness is None else burstiness)
        inputs, outputs = draw_requests(stream, load, count)
        traces.append(run(engine, arrivals, inputs, outputs, measured_from_ms=float(arrivals[kept.start])))
    offered = np.concatenate([trace.ttft_ms[kept] for trace in traces])
    blocking = float(np.isnan(offered).mean())
    most = None if problem.options.law == "inferno" else problem.options.max_blocking
    return AllocationSimulation(
        server=planned.name,
        accelerator=allocation.accelerator,
        batch_size=allocation.batch_size,
        replicas=allocation.replicas,
        requests=offered.size,
        rate_per_s=rate,
        comparisons=tuple(_comparisons(traces, kept, allocation, problem.targets_of(server), engine, most)),
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


def _comparisons(
    traces: list[Trace],
    kept: slice,
    allocation: Allocation,
    targets: Targets,
    engine: Engine,
    max_blocking: float | None,
) -> Iterator[Comparison]:
    predicted = {figure_name(use.latency, use.statistic): use.value_ms for use in allocation.targets}
    predicted |= {name: value for name in FIGURES if (value := getattr(allocation, name)) is not None}
    yield from latency_comparisons(traces, kept, predicted, targets)
    shares = [trace.running / engine.max_batch for trace in traces]
    yield Comparison("utilization", allocation.utilization, estimate_of_runs(shares, float(np.mean(shares))), None)
    yield blocking_comparison(traces, kept, max_blocking)
