"""Servers whose phases run apart, simulated from the arrival of a request to its last token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from inferno_milp.planning.disaggregation.plans import Split, SplitPlan
from inferno_milp.planning.disaggregation.transfer import BYTES_PER_GB_PER_MS
from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Server
from inferno_milp.simulation import Requests, Stage, draw_arrivals, run_linked
from inferno_milp.simulation.replications import Play, Replications, replicate
from inferno_milp.studies.agreement import Comparison, blocking_comparison, figure_name, latency_comparisons, missed
from inferno_milp.studies.requests import draw_requests
from inferno_milp.studies.simulate import check_requests, engine_of, most_requests


@dataclass(frozen=True, slots=True)
class SplitSimulation:
    """A server whose phases run apart, simulated.

    Attributes
    ----------
    requests : simulated requests that count, of all replications.
    comparisons : latencies of both phases together, and the share of requests that are turned away.
    """

    server: str
    requests: int
    comparisons: tuple[Comparison, ...]

    @property
    def missed(self) -> tuple[Comparison, ...]:
        """Targets that the simulation misses."""
        return missed(self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; None where a figure could not be found."""
        return {**asdict(self), "comparisons": [c.to_document() for c in self.comparisons]}


def simulate_splits(
    problem: Problem,
    found: SplitPlan,
    *,
    requests: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[SplitSimulation, ...]:
    """Simulate what `disaggregate` has split, iteration by iteration, with none of the formulas that made it.

    Parameters
    ----------
    problem : that was split.
    requests : for each server at most, ≥ 1000, as for `simulate_plan`.
    seed : of the random numbers.
    on_progress : called with the number of servers done, and of all.

    Raises
    ------
    ValueError
        For too few requests.
    """
    check_requests(requests)
    servers = {server.name: server for server in problem.servers}
    most = most_requests(requests, len(found.splits))
    results = []
    for done, split in enumerate(found.splits):
        if on_progress:
            on_progress(done, len(found.splits))
        rng = np.random.default_rng([seed, done])
        results.append(_simulate(problem, servers[split.server], found, split, rng, most))
    if on_progress:
        on_progress(len(found.splits), len(found.splits))
    return tuple(results)


def _simulate(
    problem: Problem, server: Server, found: SplitPlan, split: Split, rng: np.random.Generator, most: int
) -> SplitSimulation:
    load = server.load
    assert load is not None
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    first, second = found.allocation(split.prefill), found.allocation(split.decode)
    near = server.model_copy(update={"region": None, "max_queue_size": None})  # both are the prompts' engine's
    waiting = next(s for s in found.problem.servers if s.name == split.prefill).max_queue_size
    far = server.model_copy(update={"max_queue_size": waiting})
    ends = ((far, first, split.link.sender_gb_per_s), (near, second, split.link.receiver_gb_per_s))
    prefill, decode = (
        Stage(
            engine_of(problem, of, profiles[server.model, a.accelerator], a.batch_size),
            max(round(a.replicas * problem.availabilities[a.accelerator]), 1),
            speed * BYTES_PER_GB_PER_MS * 1000,
        )
        for of, a, speed in ends
    )
    rate = problem.required_rate_per_s(server)
    predicted = {"ttft_ms": split.ttft_ms, "itl_ms": split.itl_ms}
    predicted |= {figure_name("ttft_ms", part.statistic): part.value_ms for part in split.promises}
    predicted |= {figure_name("itl_ms", u.statistic): u.value_ms for u in second.targets if u.latency == "itl_ms"}
    targets = problem.targets_of(server)

    def draw(stream: np.random.Generator, count: int) -> Play:
        sent = _draw(stream, load, rate, prefill.replicas, decode.replicas, math.ceil(count / prefill.replicas))
        return lambda start, end: run_linked(
            prefill,
            decode,
            sent,
            bytes_per_token=split.link.bytes_per_token,
            overhead_ms=split.link.overhead_ms,
            measured_from_ms=start,
            measured_until_ms=end,
        )

    def latencies(runs: Replications) -> tuple[Comparison, ...]:
        return tuple(latency_comparisons(runs, predicted, targets))

    runs = replicate(draw, rng, most=most, estimates=lambda some: [c.simulated for c in latencies(some)])
    comparisons = (*latencies(runs), blocking_comparison(runs, 2 * problem.options.max_blocking))
    return SplitSimulation(server.name, runs.requests, comparisons)


def _draw(
    rng: np.random.Generator, load: Load, rate_per_s: float, senders: int, receivers: int, of_each: int
) -> Requests:
    """Draw requests: a stream for each replica of the prompts' engines, and any of those of the outputs.

    All streams end with the first that does.
    """
    streams = [draw_arrivals(rng, rate_per_s / senders, of_each, cv2=load.cv2_arrival) for _ in range(senders)]
    arrivals = np.concatenate(streams)
    order = np.argsort(arrivals, kind="stable")
    order = order[arrivals[order] <= min(stream[-1] for stream in streams)]
    inputs, outputs = draw_requests(rng, load, len(order))
    return Requests(
        arrival_ms=arrivals[order],
        input_tokens=np.maximum(inputs, 1),
        output_tokens=outputs,
        sender=np.repeat(np.arange(senders), of_each)[order],
        receiver=rng.integers(receivers, size=len(order)),
    )
