"""Groups of servers on common replicas: one load, the strictest of the promises, the highest of the priorities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from inferno_milp.fields import Targets
from inferno_milp.problem import Problem
from inferno_milp.sections import Bucket, Load, Server, ServiceClass, moments

LARGEST = 5
"""Servers of a group; of models with more, larger groups are not looked at."""
MOST_GROUPS = 400
"""Groups of one model; of more, pairs alone are looked at."""


def find_groups(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Go through all groups of two servers or more that may share replicas, by their positions."""
    by_model: dict[str, list[int]] = {}
    for s, server in enumerate(problem.servers):
        if can_share(problem, server):
            by_model.setdefault(server.model, []).append(s)
    for members in by_model.values():
        largest = min(len(members), LARGEST)
        if sum(math.comb(len(members), size) for size in range(2, largest + 1)) > MOST_GROUPS:
            largest = 2
        for size in range(2, largest + 1):
            yield from combinations(members, size)


def can_share(problem: Problem, server: Server) -> bool:
    """Whether a server may be in a group: it has a load, and nothing that is its engine's own."""
    load = server.load
    return (
        load is not None
        and load.arrival_rate_per_s > 0
        and problem.targets_of(server).tps is None
        and not server.keep_accelerator
        and server.max_batch_size is None
        and server.max_queue_size is None
    )


def group_name(servers: Sequence[Server]) -> str:
    """Return what a group is called."""
    return "+".join(server.name for server in servers)


def merged(problem: Problem, members: Sequence[int]) -> tuple[Server, ServiceClass]:
    """Return a group as a server with a class of its own.

    Its load is that of all, lengths mixed by their rates. A class whose prompts are longer than the mean of the group
    waits for its own: its time to first token is promised to be earlier by what that takes on the slowest accelerator.
    """
    servers = [problem.servers[s] for s in members]
    loads = [server.load for server in servers if server.load is not None]
    rates = [load.arrival_rate_per_s for load in loads]
    mix = [bucket for load in loads for bucket in _buckets(load)]
    lengths = moments(mix)
    arrival = math.fsum(r * load.cv2_arrival for r, load in zip(rates, loads, strict=True)) / math.fsum(rates)
    load = Load.model_validate({"rate_per_s": math.fsum(rates), "cv2_arrival": arrival, **lengths})
    name = group_name(servers)
    limits = [s.max_replicas for s in servers]
    whole = all(limit is not None for limit in limits)
    today = {now.accelerator: now for server in servers for now in server.current}
    server = servers[0].model_copy(
        update={
            "name": name,
            "service_class": name,
            "load": load,
            "min_replicas": max(s.min_replicas for s in servers),
            "max_replicas": sum(limit or 0 for limit in limits) if whole else None,
            "reserve": max(s.reserve for s in servers),
            "survive": max(s.survive for s in servers),
            "weight": math.fsum(s.weight for s in servers),
            "current": tuple(today.values()) if len(today) == 1 else (),
        }
    )
    priorities = {c.name: c.priority for c in problem.service_classes}
    targets = _strictest(problem, servers, lengths["input_tokens"])
    priority = min(priorities[s.service_class] for s in servers)
    return server, ServiceClass(name=name, priority=priority, targets={server.model: targets})


def _buckets(load: Load) -> Iterator[Bucket]:
    """Go through a load's buckets, each with its rate for its share; a load without a mix is one bucket."""
    rate = load.arrival_rate_per_s
    if load.mix:
        whole = math.fsum(bucket.share for bucket in load.mix)
        for bucket in load.mix:
            yield bucket.model_copy(update={"share": rate * bucket.share / whole})
        return
    yield Bucket(
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        share=rate,
        cv2_input=load.cv2_input,
        cv2_output=load.cv2_output,
    )


def _strictest(problem: Problem, servers: Sequence[Server], mean_input: float) -> Targets:
    slowest = max(p.delta_ms + p.kappa_ms for p in problem.profiles if p.model == servers[0].model)
    quadratic = max(p.prefill_quadratic_ms for p in problem.profiles if p.model == servers[0].model)
    found: dict[str, dict[str, float]] = {}
    for server in servers:
        assert server.load is not None
        longer = max(server.load.input_tokens - mean_input, 0.0)
        own_ms = slowest * longer + quadratic * longer * (server.load.input_tokens + mean_input)
        for latency, statistic, limit in problem.targets_of(server).limits_ms():
            earlier = max(limit - own_ms, 1e-6) if latency == "ttft_ms" else limit
            by_statistic = found.setdefault(latency, {})
            by_statistic[statistic] = min(by_statistic.get(statistic, math.inf), earlier)
    return Targets.model_validate(found)
