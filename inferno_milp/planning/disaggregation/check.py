"""The check of split phases: parts that add up to no more than the promise, ways that carry what they must."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from inferno_milp.errors import PlanCheckError
from inferno_milp.plan.check.common import RELATIVE
from inferno_milp.planning.disaggregation.plans import Split, SplitPlan
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import Targets


def check_splits(problem: Problem, found: SplitPlan) -> None:
    """Check what was split of a problem; its plan has been checked like any other.

    Raises
    ------
    PlanCheckError
        With everything that is wrong.
    """
    violations = [fault for split in found.splits for fault in _split_faults(problem, found, split)]
    cost, together = found.plan.objective, found.together.objective
    if found.bound is not None and (cost is None or found.bound > cost * (1 + RELATIVE) + RELATIVE):
        violations.append(f"the bound {found.bound} is above the cost {cost}")
    if found.together.serves_all and (cost or 0.0) > (together or 0.0) * (1 + RELATIVE) + RELATIVE:
        violations.append(f"split the plan costs {cost}, together {together}")
    if violations:
        raise PlanCheckError(violations)


def _split_faults(problem: Problem, found: SplitPlan, split: Split) -> Iterator[str]:
    server = next(s for s in problem.servers if s.name == split.server)
    parts = {s.name: s for s in found.problem.servers if s.name in (split.prefill, split.decode)}
    planned = [s for s in found.plan.servers if s.name in parts]
    if len(parts) != 2 or [len(p.allocations) for p in planned] != [1, 1]:
        yield f"{split.server}: not two phases with an allocation each"
        return
    rate = problem.required_rate_per_s(server)
    for name, part in parts.items():
        if part.load is None or not math.isclose(part.load.arrival_rate_per_s, rate, rel_tol=RELATIVE):
            yield f"{name}: its rate is not the server's {rate}"
        if (part.reserve, part.survive) != (server.reserve, server.survive):
            yield f"{name}: its headroom is not the server's"
    allocations = [found.allocation(name) for name in (split.prefill, split.decode)]
    replicas, homes = [a.replicas for a in allocations], [a.accelerator for a in allocations]
    if not server.min_replicas <= sum(replicas) <= (server.max_replicas or math.inf):
        yield f"{split.server}: {sum(replicas)} replicas, not {server.min_replicas} to {server.max_replicas or 'any'}"
    # At the highest rates, those at which the reserve is used up and replicas are lost, all parts must fit.
    there = problem.availabilities
    able = [(count - server.survive) * there[name] for count, name in zip(replicas, homes, strict=True)]
    highest = [rate * (1 + server.reserve) / replicas_there for replicas_there in able]
    if max(float(used) for used in split.link.utilizations(*highest)) >= 1:
        yield f"{split.server}: the network cannot carry its KV caches"
    yield from _promise_faults(problem.targets_of(server), split, highest)
    first, second = (found.problem.targets_of(parts[name]) for name in (split.prefill, split.decode))
    if first.limits_of("ttft_ms") != {p.statistic: p.prefill_ms for p in split.promises}:
        yield f"{split.prefill}: does not promise its part"
    if second.limits_of("ttft_ms") != {p.statistic: p.decode_ms for p in split.promises}:
        yield f"{split.decode}: does not promise its part"
    if second.limits_of("itl_ms") != problem.targets_of(server).limits_of("itl_ms"):
        yield f"{split.decode}: does not promise what the server does between tokens"


def _promise_faults(targets: Targets, split: Split, rates_per_s: Sequence[float]) -> Iterator[str]:
    if targets.limits_of("ttft_ms") != {p.statistic: p.limit_ms for p in split.promises}:
        yield f"{split.server}: the promises are not the server's"
    for part in split.promises:
        whole = part.prefill_ms + part.transfer_ms + part.decode_ms
        if max(whole, part.value_ms) > part.limit_ms * (1 + RELATIVE):
            yield f"{split.server}: {part.statistic} {part.value_ms} of parts {whole}, promised {part.limit_ms}"
        takes_ms = float(split.link.transfer_ms(part.statistic, *rates_per_s))
        if takes_ms > part.transfer_ms * (1 + RELATIVE):
            yield f"{split.server}: a transfer takes {takes_ms} ms ({part.statistic}), its part is {part.transfer_ms}"
