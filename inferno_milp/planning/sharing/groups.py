"""Groups of servers on common replicas: one load, the strictest of the promises, the highest of the priorities."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

from inferno_milp.problem import Problem, new_name
from inferno_milp.problem.fields import Targets
from inferno_milp.problem.loads import Bucket, Load, moments
from inferno_milp.problem.sections import Server, ServiceClass

LONGEST_NAME = 150
LARGEST = 5
"""Servers, or groups found before, of a group; larger groups come of groups of groups."""
NEVER_MS = 1e-6
"""A promise that nothing keeps."""
MOST_GROUPS = 400
"""Groups of one model at once; of more, pairs alone are looked at, then pairs of pairs …"""


def find_groups(problem: Problem, units: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], bool]:
    """Find all groups of two units or more that may share replicas.

    Parameters
    ----------
    units : servers by their positions, each in one unit: by itself, or in a group that was found before.

    Returns
    -------
    list, bool
        Groups of servers, and whether larger ones of the same units might be better still.
    """
    alike: dict[tuple[str, str | None, frozenset[str] | None], list[tuple[int, ...]]] = {}
    for unit in units:
        server = problem.servers[unit[0]]
        if can_share(problem, server):
            pools = None if server.pools is None else frozenset(server.pools)
            alike.setdefault((server.model, server.region, pools), []).append(unit)
    groups, may_grow = [], False
    for members in alike.values():
        largest = min(len(members), LARGEST)
        if sum(math.comb(len(members), size) for size in range(2, largest + 1)) > MOST_GROUPS:
            largest = 2
        may_grow |= largest < len(members)
        for size in range(2, largest + 1):
            groups += [tuple(sorted(s for unit in some for s in unit)) for some in combinations(members, size)]
    return groups, may_grow


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
        and load.cv2_arrival <= 1  # who comes in bursts waits for his own, however few the others are
    )


def group_name(servers: Sequence[Server], taken: Collection[str]) -> str:
    """Return what a group is called: a name that nothing has yet."""
    return new_name("+".join(server.name for server in servers)[:LONGEST_NAME], taken)


def merged(problem: Problem, members: Sequence[int], name: str) -> tuple[Server, ServiceClass]:
    """Return a group as a server with a class of its own.

    Its load is that of all, lengths mixed by their rates, arrivals Poisson's. A class whose prompts are longer than the
    mean of the group waits for its own: its mean time to first token is promised to be earlier by what that takes on
    the slowest accelerator; a percentile of it cannot be promised so.
    """
    servers = [problem.servers[s] for s in members]
    loads = [server.load for server in servers if server.load is not None]
    rates = [load.arrival_rate_per_s for load in loads]
    mix = [bucket for load in loads for bucket in _buckets(load)]
    lengths = moments(mix)
    whole_rate = math.fsum(rates)
    both = math.fsum(
        rate * load.input_tokens * load.output_tokens * (1 + load.cov_lengths)
        for rate, load in zip(rates, loads, strict=True)
    )
    product = whole_rate * lengths["input_tokens"] * lengths["output_tokens"]
    lengths["cov_lengths"] = max(both / product - 1, -1.0) if product else 0.0
    load = Load.model_validate({"rate_per_s": whole_rate, **lengths})
    limits = [s.max_replicas for s in servers]
    whole = all(limit is not None for limit in limits)
    server = servers[0].model_copy(
        update={
            "name": name,
            "service_class": name,
            "load": load,
            "min_replicas": max(s.min_replicas for s in servers),
            "max_replicas": sum(limit or 0 for limit in limits) if whole else None,
            "reserve": max(s.reserve for s in servers),
            "survive": max(s.survive for s in servers),
            "adapters": tuple(dict.fromkeys(name for s in servers for name in s.adapters)),
            "weight": math.fsum(s.weight for s in servers),
            "current": (),
        }
    )
    priorities = {c.name: c.priority for c in problem.service_classes}
    targets = _strictest(problem, servers, load)
    priority = min(priorities[s.service_class] for s in servers)
    return server, ServiceClass(name=name, priority=priority, targets={server.model: targets})


def _buckets(load: Load) -> Iterator[Bucket]:
    """Yield a load's buckets, each with its rate for its share; a load without a mix is one bucket."""
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


def _strictest(problem: Problem, servers: Sequence[Server], group: Load) -> Targets:
    found: dict[str, dict[str, float]] = {}
    for server in servers:
        assert server.load is not None
        own_ms = _longer_ms(problem, server.model, server.load, group)
        for latency, statistic, limit in problem.targets_of(server).limits_ms():
            if latency == "ttft_ms":
                limit = NEVER_MS if own_ms and statistic != "mean" else max(limit - own_ms, NEVER_MS)
            by_statistic = found.setdefault(latency, {})
            by_statistic[statistic] = min(by_statistic.get(statistic, math.inf), limit)
    return Targets.model_validate(found)


def _longer_ms(problem: Problem, model: str, own: Load, group: Load) -> float:
    """Return by how much longer the prompts of a class take than the group's, at the most, on the slowest accelerator.

    0 where they are no longer and no more varied: then its own are no later than the group's.
    """
    longer = own.input_tokens - group.input_tokens
    squares = [load.input_tokens**2 * (1 + load.cv2_input) for load in (own, group)]
    if longer <= 0 and squares[0] <= squares[1]:
        return 0.0
    taken = []
    for profile in problem.profiles:
        if profile.model != model:
            continue
        batch = profile.largest_batch(group.output_tokens)
        left = max(profile.token_budget - batch, 1)
        cuts = math.ceil(own.input_tokens * (1 + own.cv2_input) / left) - 1
        iteration_ms = max(profile.alpha_ms, profile.gamma_ms) + profile.beta_ms * batch
        tokens_ms = (profile.delta_ms + profile.kappa_ms) * max(longer, 0.0)
        square_ms = profile.prefill_quadratic_ms * max(squares[0] - squares[1], 0.0)
        taken.append(tokens_ms + square_ms + max(cuts, 0) * iteration_ms)
    return max(taken)
