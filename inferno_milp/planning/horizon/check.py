"""The check of a plan of several moments, from the problem alone: rates, latencies, devices, costs, bound.

It shares no code with `program` and `assemble`, so that what one of them counts wrongly is not counted so twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from inferno_milp.columns.packing import pack
from inferno_milp.errors import PlanCheckError
from inferno_milp.plan.check.common import misquoted
from inferno_milp.planning.horizon.plans import Held, HorizonPlan, MomentPlan, mean
from inferno_milp.problem import Problem
from inferno_milp.problem.engines import engine_table
from inferno_milp.problem.sections import Moment, Period, Planning, Scenario, Server
from inferno_milp.problem.supply import Accelerator
from inferno_milp.queueing import analyze

CLOSE = 1e-6
MOST_LAPS = 100
"""As in `program`."""


def check_horizon(
    problem: Problem,
    plan: HorizonPlan,
    moments: Sequence[Moment],
    *,
    planning: Planning | None,
    served: float = 1.0,
    worst: bool = False,
) -> None:
    """Check a plan; nothing where there is none.

    Parameters
    ----------
    planning : what joins periods; None for scenarios.
    served : least probability of the scenarios in which everybody is served.
    worst : whether the cost is that of the dearest moment.

    Raises
    ------
    PlanCheckError
        With everything that is wrong.
    """
    if plan.cost_per_hour is None:
        return
    told = [(one.name, one.weight) for one in plan.moments]
    if told != [(moment.name, _weight(moment)) for moment in moments]:
        raise PlanCheckError(["the moments are not those of the problem"])
    wrong = [*_rates(problem, plan, moments), *_latencies(problem, plan), *_devices(problem, plan)]
    if problem.options.assignment == "single" and not (planning is not None and planning.moves):
        wrong += _moves(problem, plan)
    wrong += _costs(problem, plan, moments, planning, worst=worst)
    likely = math.fsum(one.weight for one in plan.moments if one.is_served)
    if planning is None and likely < served - CLOSE:
        wrong.append(f"everybody is served with probability {likely:.6g}, not {served:.6g}")
    if planning is not None and not all(one.is_served for one in plan.moments):
        wrong.append("not everybody is served in every period")
    if planning is not None:
        wrong += _least_times(plan, moments, planning)
    if (plan.status == "partial") != bool(plan.unserved or plan.missed):
        wrong.append(f"status {plan.status}, with {len(plan.unserved) + len(plan.missed)} servers not as promised")
    if {one.server for one in plan.missed} != problem.relaxed_targets.keys() - {one.server for one in plan.unserved}:
        wrong.append("the servers that miss their targets are not those that are planned for others")
    wrong += _profiles(problem, plan)
    if wrong:
        raise PlanCheckError(wrong)


def _profiles(problem: Problem, plan: HorizonPlan) -> Iterator[str]:
    """Compare the profiles that the plan names with those that its replicas use, as the problem has them."""
    models = {server.name: server.model for server in problem.servers}
    used = {(models[one.server], one.accelerator) for one in plan.held}
    if {(one.model, one.accelerator) for one in plan.profiles} != used or len(plan.profiles) != len(used):
        yield "the profiles are not those of its replicas"
    profiles = {(profile.model, profile.accelerator): profile for profile in problem.profiles}
    for one in plan.profiles:
        if any(misquoted(one.profile, profiles.get((one.model, one.accelerator)))):
            yield f"{one.model} on {one.accelerator}: its profile does not say that of itself"


def _rates(problem: Problem, plan: HorizonPlan, moments: Sequence[Moment]) -> Iterator[str]:
    served = {one.name: one.is_served for one in plan.moments}
    left_out = {one.server for one in plan.unserved}
    for moment in moments:
        for server in problem.servers:
            own = [one for one in plan.held if one.moment == moment.name and one.server == server.name]
            if server.name in left_out:
                if own:
                    yield f"{server.name}: left out, but with replicas in {moment.name}"
                continue
            count = sum(one.replicas for one in own)
            where = f"{server.name} in {moment.name}"
            if count < server.min_replicas or (server.max_replicas is not None and count > server.max_replicas):
                yield f"{where}: {count} replicas"
            yield from _homes(problem, server, own, where)
            if server.load is None or not served[moment.name]:
                continue
            promised = (problem.targets_of(server).tps or 0.0) / server.load.output_tokens
            required = max(moment.rate_per_s(server), promised) * (1 + server.reserve)
            able = _without_strongest(own, server.survive)
            if required > 0 and able < required * (1 - CLOSE):
                yield f"{where}: its replicas carry less than {required:.6g} requests/s"
            if server.survive_pools and required > 0:
                yield from _pools_lost(problem, own, required / (1 + server.reserve), where)
            carried = math.fsum(one.rate_per_s for one in own)
            if abs(carried - required / (1 + server.reserve)) > CLOSE * max(required, 1.0):
                yield f"{where}: it carries {carried:.6g} requests/s"


def _homes(problem: Problem, server: Server, own: Sequence[Held], where: str) -> Iterator[str]:
    """Find accelerators on which a server may not run."""
    if problem.options.assignment == "single" and len(own) > 1:
        yield f"{where}: on several accelerators"
    pools = {a.name: a.pool for a in problem.accelerators}
    if server.pools is not None and any(pools[one.accelerator] not in server.pools for one in own):
        yield f"{where}: from a pool that it may not use"
    profiles = {p.accelerator: p for p in problem.profiles if p.model == server.model}
    if not all(profiles[one.accelerator].holds(server.adapters) for one in own):
        yield f"{where}: more adapters than an engine holds"
    kept = {now.accelerator for now in server.current}
    if server.keep_accelerator and any(one.accelerator not in kept for one in own):
        yield f"{where}: not on the accelerator that it must keep"


def _pools_lost(problem: Problem, own: Sequence[Held], required: float, where: str) -> Iterator[str]:
    pools = {a.name: a.pool for a in problem.accelerators}
    for pool in {pools[one.accelerator] for one in own} - {None}:
        left = math.fsum(one.replicas * (one.max_rate_per_s or 0.0) for one in own if pools[one.accelerator] != pool)
        if left < required * (1 - CLOSE):
            yield f"{where}: without the pool {pool} its replicas carry {left:.6g} requests/s"


def _weight(moment: Moment) -> float:
    return moment.hours if isinstance(moment, Period) else moment.probability if isinstance(moment, Scenario) else 1.0


def _without_strongest(own: Sequence[Held], number: int) -> float:
    """Return what replicas can carry when so many of the strongest are lost."""
    able, lost = 0.0, number
    for one in sorted(own, key=lambda one: one.max_rate_per_s or 0.0, reverse=True):
        gone = min(lost, one.replicas)
        lost -= gone
        able += (one.replicas - gone) * (one.max_rate_per_s or 0.0)
    return able


def _moves(problem: Problem, plan: HorizonPlan) -> Iterator[str]:
    for server in problem.servers:
        homes = {one.accelerator for one in plan.held if one.server == server.name and one.replicas}
        if len(homes) > 1:
            yield f"{server.name}: moves between {' and '.join(sorted(homes))}"


def _latencies(problem: Problem, plan: HorizonPlan) -> Iterator[str]:
    """Analyse every replica at its rate, and at the highest that it is said to carry."""
    held = [one for one in plan.held if one.max_rate_per_s is not None and one.replicas]
    if not held:
        return
    servers = {s.name: i for i, s in enumerate(problem.servers)}
    profiles = {(p.model, p.accelerator): i for i, p in enumerate(problem.profiles)}
    at = np.array([servers[one.server] for one in held])
    profile = np.array([profiles[problem.servers[s].model, one.accelerator] for s, one in zip(at, held, strict=True)])
    there = problem.availabilities
    engines = engine_table(problem).of(at, profile, np.array([one.batch_size for one in held]))
    for rates in (
        np.array([one.rate_per_s / one.replicas / there[one.accelerator] for one in held]),
        np.array([(one.max_rate_per_s or 0.0) / there[one.accelerator] for one in held]),
    ):
        analysis = analyze(problem.options.law, **engines, rate_per_s=rates)
        for i, one in enumerate(held):
            for latency, statistic, limit in problem.targets_of(problem.servers[at[i]]).limits_ms():
                value = float(analysis.statistic(latency, statistic)[i])
                if value > limit * (1 + CLOSE) + CLOSE:
                    yield f"{_place(one)}: {statistic} {latency} {value:.6g}, promised {limit:.6g}"


def _place(one: Held) -> str:
    return f"{one.server} on {one.accelerator} in {one.moment}"


def _devices(problem: Problem, plan: HorizonPlan) -> Iterator[str]:
    available = problem.devices_available
    accelerators = {a.name: a for a in problem.accelerators}
    models = {s.name: s.model for s in problem.servers}
    pieces = problem.accelerators_per_replica
    for moment in plan.moments:
        used = dict.fromkeys(moment.devices, 0)
        for one in plan.held:
            if one.moment == moment.name:
                a = accelerators[one.accelerator]
                used[a.type] += one.replicas * pieces[models[one.server], a.name] * a.devices
        if used != moment.devices:
            yield f"{moment.name}: devices {moment.devices}, should be {used}"
        yield from _nodes(problem, plan, moment)
        for name, count in used.items():
            if available is not None and count > available.get(name, 0):
                yield f"{moment.name}: {count} {name} of {available.get(name, 0)}"


def _nodes(problem: Problem, plan: HorizonPlan, moment: MomentPlan) -> Iterator[str]:
    """Put every replica of a moment on a type with nodes into one of them."""
    if problem.devices_available is None:
        return
    accelerators = {a.name: a for a in problem.accelerators}
    models = {s.name: s.model for s in problem.servers}
    pieces = problem.accelerators_per_replica
    sizes: dict[str, Counter[int]] = {group.type: Counter() for group in problem.nodes}
    for one in plan.held:
        a = accelerators[one.accelerator]
        if one.moment == moment.name and a.type in sizes and one.replicas:
            sizes[a.type][pieces[models[one.server], a.name] * a.devices] += one.replicas
    for name, counts in sizes.items():
        groups = [group for group in problem.nodes if group.type == name]
        if counts and pack(groups, sorted(counts), [counts[size] for size in sorted(counts)]) is None:
            yield f"{moment.name}: its replicas do not fit into the nodes of {name}"


def _costs(
    problem: Problem, plan: HorizonPlan, moments: Sequence[Moment], planning: Planning | None, *, worst: bool
) -> Iterator[str]:
    fixed = 0.0
    for a in problem.accelerators:
        count = plan.reserved.get(a.name, 0)
        if count and a.reserved_cost_per_hour is None:
            yield f"{a.name} cannot be reserved"
        fixed += math.fsum(_unit_price(a, unit) for unit in range(count))
    beyond = [_beyond(problem, plan, moment) for moment in moments]
    for told, cost in zip(plan.moments, beyond, strict=True):
        if not _same(told.cost_per_hour, fixed + cost):
            yield f"{told.name}: its cost is {fixed + cost}, not {told.cost_per_hour}"
    budget = problem.options.max_cost_per_hour
    if budget is not None and fixed + max(beyond) > budget * (1 + CLOSE) + CLOSE:
        yield f"{fixed + max(beyond)} is paid in a moment, the budget is {budget}"
    weights = [one.weight for one in plan.moments]
    extra = max(beyond) if worst else mean(beyond, weights)
    changes = 0.0 if planning is None else _changes(problem, plan, moments, planning) / math.fsum(weights)
    cost = fixed + extra + changes
    for name, value in (("reserved", fixed), ("extra", extra), ("starts", changes)):
        if not _same(plan.parts.get(name, math.nan), value):
            yield f"{name} is {value}, not {plan.parts.get(name)}"
    assert plan.cost_per_hour is not None
    if not _same(plan.cost_per_hour, cost):
        yield f"the cost is {cost}, not {plan.cost_per_hour}"
    if plan.bound is not None and plan.bound > plan.cost_per_hour + CLOSE * max(cost, 1.0):
        yield f"the bound {plan.bound} is above the cost {plan.cost_per_hour}"


def _unit_price(accelerator: Accelerator, unit: int) -> float:
    """Return what a reserved unit costs; the first is unit 0."""
    factors = [one.factor for one in accelerator.reserved_discounts if unit >= one.beyond_units]
    return (accelerator.reserved_cost_per_hour or 0.0) * min(factors, default=1.0)


def _same(told: float, value: float) -> bool:
    return abs(told - value) <= CLOSE * max(abs(value), 1.0)


def _beyond(problem: Problem, plan: HorizonPlan, moment: Moment) -> float:
    """Return what units beyond those that are reserved cost in a moment."""
    models = {s.name: s.model for s in problem.servers}
    pieces = problem.accelerators_per_replica
    prices = {a.name: a.cost_per_hour for a in problem.accelerators}
    used: dict[str, int] = {}
    for one in plan.held:
        if one.moment == moment.name:
            count = one.replicas * pieces[models[one.server], one.accelerator]
            used[one.accelerator] = used.get(one.accelerator, 0) + count
    return math.fsum(prices[name] * max(count - plan.reserved.get(name, 0), 0) for name, count in used.items())


def _by_way(plan: HorizonPlan, moments: Sequence[Moment]) -> dict[tuple[str, str], list[int]]:
    position = {moment.name: t for t, moment in enumerate(moments)}
    found: dict[tuple[str, str], list[int]] = {}
    for one in plan.held:
        found.setdefault((one.server, one.accelerator), [0] * len(moments))[position[one.moment]] += one.replicas
    return found


def _changes(problem: Problem, plan: HorizonPlan, moments: Sequence[Moment], planning: Planning) -> float:
    models = {s.name: s.model for s in problem.servers}
    pieces = problem.accelerators_per_replica
    each = {a.name: a.cost_per_hour for a in problem.accelerators}
    total = 0.0
    for (server, accelerator), counts in _by_way(plan, moments).items():
        price = pieces[models[server], accelerator] * each[accelerator]
        previous = counts[-1] if planning.cyclic else 0
        for count in counts:
            more = count - previous
            total += price * (planning.start_cost_hours * max(more, 0) + planning.stop_cost_hours * max(-more, 0))
            previous = count
    return total


def _least_times(plan: HorizonPlan, moments: Sequence[Moment], planning: Planning) -> Iterator[str]:
    """Find replicas that ended before their least time was over."""
    hours = [one.weight for one in plan.moments]
    for (server, accelerator), counts in _by_way(plan, moments).items():
        starts = [max(n - (counts[t - 1] if t or planning.cyclic else 0), 0) for t, n in enumerate(counts)]
        if planning.cyclic and planning.min_up_hours > MOST_LAPS * sum(hours):
            if any(starts):
                yield f"{server} on {accelerator}: is started, and ends before its least time is over"
            continue
        for t, count in enumerate(counts):
            running, since, k = starts[t], 0.0, t
            while True:
                k -= 1
                if k < 0 and not planning.cyclic:
                    break
                k %= len(counts)
                since += hours[k]
                if since >= planning.min_up_hours - 1e-9:
                    break
                running += starts[k]
            if running > count:
                yield f"{server} on {accelerator}: ended in {moments[t].name} before its least time was over"
