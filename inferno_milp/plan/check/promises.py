"""What a plan promises each server: identity, rates, prices, devices, numbers of replicas, headroom."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from inferno_milp.plan import Allocation, Plan, ServerPlan
from inferno_milp.plan.check.common import RELATIVE, is_batch, misquoted, pairs, same
from inferno_milp.plan.check.latencies import power_faults
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Profile, Server
from inferno_milp.problem.supply import Accelerator


def identity_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Check that the plan is for this problem and its servers."""
    if (plan.problem_name, plan.currency) != (problem.name, problem.currency):
        yield "the plan is for another problem, or in another currency"
    if Counter(s.name for s in plan.servers) != Counter(s.name for s in problem.servers):
        yield "the plan's servers are not the problem's"
    priorities = {c.name: c.priority for c in problem.service_classes}
    for server, planned in pairs(problem, plan):
        said = (planned.service_class, planned.model, planned.priority)
        if said != (server.service_class, server.model, priorities[server.service_class]):
            yield f"{server.name}: class, model or priority are not the server's"


def server_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Check each server's rates, allocations, replicas and headroom."""
    accelerators = {a.name: a for a in problem.accelerators}
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    for server, planned in pairs(problem, plan):
        yield from _number_violations(server, planned)
        required = problem.required_rate_per_s(server)
        if not same(planned.required_rate_per_s, required):
            yield f"{server.name}: required rate {planned.required_rate_per_s}, should be {required}"
        offered = server.load.arrival_rate_per_s if server.load else 0.0
        if not same(planned.offered_rate_per_s, offered):
            yield f"{server.name}: offered rate {planned.offered_rate_per_s}, should be {offered}"
        yield from _word_violations(server, planned)
        if planned.is_carried:
            if not same(planned.served_rate_per_s, offered):
                yield f"{server.name}: served in full, but not by its figures"
            yield from _headroom_violations(server, planned, required)
            yield from _allocation_violations(server, planned, required, accelerators, profiles)
            continue
        carried = math.fsum(a.replicas * a.rate_per_s for a in planned.allocations)
        if not same(planned.served_rate_per_s, min(offered, carried)):
            yield f"{server.name}: served rate {planned.served_rate_per_s}, should be {min(offered, carried)}"
        if planned.allocations:
            if problem.options.saturation_policy == "none":
                yield f"{server.name}: not served in full, but with allocations"
            carried = min(required, carried)
            yield from _allocation_violations(server, planned, carried, accelerators, profiles)


def _word_violations(server: Server, planned: ServerPlan) -> Iterator[str]:
    """Check that what is said of a server agrees with itself."""
    if planned.meets_targets != (planned.is_carried and not planned.missed):
        yield f"{server.name}: whether it meets its targets does not follow from the rest"
    if planned.meets_targets != (planned.reason is None):
        yield f"{server.name}: not served in full, and no reason; or the other way round"


def _number_violations(server: Server, planned: ServerPlan) -> Iterator[str]:
    """Check numbers of replicas: the most that there may be, served in full or not, and the least if it is."""
    replicas = sum(a.replicas for a in planned.allocations)
    if server.max_replicas is not None and replicas > server.max_replicas:
        yield f"{server.name}: more than {server.max_replicas} replicas"
    if planned.is_carried and replicas < server.min_replicas:
        yield f"{server.name}: fewer than {server.min_replicas} replicas"


def _headroom_violations(server: Server, planned: ServerPlan, required: float) -> Iterator[str]:
    """Check that what replicas could carry covers reserves and losses."""
    if required <= 0:
        return
    if not planned.allocations:
        yield f"{server.name}: a rate to carry, and no allocation"
        return
    left, rate = server.survive, 0.0
    for allocation in sorted(planned.allocations, key=lambda a: -(a.max_rate_per_s or 0.0)):
        lost = min(left, allocation.replicas)
        left -= lost
        rate += (allocation.replicas - lost) * (allocation.max_rate_per_s or 0.0)
    if rate < required * (1 + server.reserve) * (1 - RELATIVE):
        without = f" without the strongest {server.survive}" if server.survive else ""
        yield f"{server.name}: its replicas{without} carry {rate}, should be {required * (1 + server.reserve)}"


def _allocation_violations(
    server: Server,
    planned: ServerPlan,
    required: float,
    accelerators: dict[str, Accelerator],
    profiles: dict[tuple[str, str], Profile],
) -> Iterator[str]:
    if not planned.allocations:
        return
    if not same(math.fsum(a.share for a in planned.allocations), 1.0):
        yield f"{server.name}: shares do not add up to 1"
    for allocation in planned.allocations:
        profile = profiles.get((server.model, allocation.accelerator))
        if profile is None:
            yield f"{server.name}: no profile on {allocation.accelerator}"
            continue
        for name, said in misquoted(allocation.profile, profile):
            yield f"{server.name} on {allocation.accelerator}: {name} of its profile {said!r}"
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
    if not same(allocation.cost_per_hour, pieces * accelerator.cost_per_hour):
        yield f"cost {allocation.cost_per_hour}, should be {pieces * accelerator.cost_per_hour}"
    if not same(allocation.rate_per_s, allocation.share * required / allocation.replicas):
        yield "the rate of a replica is not its share of the required rate"
    kept = [now.accelerator for now in server.current]
    if server.keep_accelerator and allocation.accelerator not in kept:
        yield f"the server keeps {' and '.join(kept)}"
    if server.pools is not None and accelerator.pool not in server.pools:
        yield f"the server may not use the pool {accelerator.pool}"
    if not profile.holds(server.adapters):
        yield f"{len(set(server.adapters))} adapters, of which an engine holds {profile.max_adapters}"
    if server.load is None:
        yield from power_faults(allocation, profile, accelerator, (0.0, 0.0))
    largest = _largest_batch(server, profile)
    if not is_batch(allocation.batch_size) or allocation.batch_size > largest:
        yield f"batch size {allocation.batch_size}, at most {largest} fit"


def _largest_batch(server: Server, profile: Profile) -> int:
    if server.max_batch_size is not None:
        return server.max_batch_size
    return profile.max_batch_size if server.load is None else profile.largest_batch(server.load.output_tokens)
