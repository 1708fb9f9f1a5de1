"""From replicas and reservations to a plan, with every cost counted anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from inferno_milp.plan import UsedProfile
from inferno_milp.planning.horizon.plans import Held, HorizonPlan, MomentPlan, mean
from inferno_milp.planning.horizon.program import Found, Setup
from inferno_milp.planning.horizon.reservations import extra_per_hour, fixed_per_hour
from inferno_milp.planning.horizon.ways import IntArray, Ways
from inferno_milp.planning.trust import profile_use, rests_on_estimates
from inferno_milp.problem.sections import Moment, Planning

CLOSE = 1e-6


def assemble(ways: Ways, setup: Setup, moments: Sequence[Moment], found: Found) -> HorizonPlan:
    """Make a plan of what a program found."""
    problem, total = ways.problem, float(setup.weights.sum())
    has_plan = found.objective is not None
    accelerators = problem.accelerators
    reserved = {one.name: int(found.reserved[a]) for a, one in enumerate(accelerators) if found.reserved[a]}
    fixed = fixed_per_hour(ways, found.reserved)
    extra = extra_per_hour(ways, found.replicas, found.reserved)
    devices = ways.devices_used(found.replicas).T.tolist()
    starts = starts_cost(ways, found.replicas, setup.planning) / total
    weights = setup.weights.tolist()
    dearest = max(extra, default=0.0) if setup.criterion == "worst" else mean(extra, weights)
    parts = {"reserved": fixed, "extra": dearest, "starts": starts}
    scale = 1.0 if setup.criterion == "worst" else 1 / total
    return HorizonPlan(
        problem_name=problem.name,
        currency=problem.currency,
        status=found.outcome,
        cost_per_hour=math.fsum(parts.values()) if has_plan else None,
        bound=None if found.bound is None or not has_plan else found.bound * scale,
        parts=parts if has_plan else {},
        reserved=reserved,
        moments=tuple(
            MomentPlan(
                name=moment.name,
                weight=weights[t],
                is_served=is_served(ways, found.replicas, t),
                cost_per_hour=fixed + extra[t],
                devices=dict(zip(ways.table.types, devices[t], strict=True)),
            )
            for t, moment in enumerate(moments)
        )
        if has_plan
        else (),
        held=tuple(_held(ways, moments, found)) if has_plan else (),
        profiles=_used_profiles(ways, found) if has_plan else (),
        rests_on_estimates=rests_on_estimates(ways.table),
    )


def _used_profiles(ways: Ways, found: Found) -> tuple[UsedProfile, ...]:
    """Return the profiles of all ways that have replicas in a moment, each once."""
    used = ways.rows.profile[(found.replicas > 0).any(axis=1)]
    profiles = (ways.problem.profiles[i] for i in dict.fromkeys(used.tolist()))
    return tuple(UsedProfile(one.model, one.accelerator, profile_use(one)) for one in profiles)


def is_served(ways: Ways, replicas: IntArray, moment: int) -> bool:
    """Whether what runs in a moment carries every server's rate."""
    for s, server in enumerate(ways.problem.servers):
        own, required = ways.of(s), float(ways.required_per_s[s, moment])
        if required <= 0:
            continue
        if server.survive or ways.problem.options.assignment == "single":
            if not any(replicas[w, moment] >= ways.replicas(w, moment) for w in own):
                return False
        elif float(ways.rows.max_rate_per_s[own] @ replicas[own, moment]) < required * (1 - CLOSE):
            return False
    return True


def starts_cost(ways: Ways, replicas: IntArray, planning: Planning | None) -> float:
    """Return what starts and ends of replicas cost over all periods."""
    if planning is None:
        return 0.0
    price = ways.rows.price_per_replica
    before = previous(replicas, planning)
    started = np.maximum(replicas - before, 0).sum(axis=1)
    ended = np.maximum(before - replicas, 0).sum(axis=1)
    return float(price @ (planning.start_cost_hours * started + planning.stop_cost_hours * ended))


def previous(replicas: IntArray, planning: Planning) -> IntArray:
    """Return the replicas of the period before each; none before the first, unless it comes again after the last."""
    before = np.roll(replicas, 1, axis=1)
    if not planning.cyclic:
        before[:, 0] = 0
    return before


def _held(ways: Ways, moments: Sequence[Moment], found: Found) -> Iterator[Held]:
    """Share every server's rate out in proportion to what its replicas can carry."""
    rows, problem = ways.rows, ways.problem
    for t, moment in enumerate(moments):
        for s, server in enumerate(problem.servers):
            own = [w for w in ways.of(s) if found.replicas[w, t]]
            rates = np.nan_to_num(rows.max_rate_per_s[own])
            capable = rates * found.replicas[own, t]
            # What is not served in full carries what keeps its targets.
            carried = min(float(ways.required_per_s[s, t]) / (1 + server.reserve), float(capable.sum()))
            for w, part, rate in zip(own, capable.tolist(), rates.tolist(), strict=True):
                yield Held(
                    moment=moment.name,
                    server=server.name,
                    accelerator=problem.accelerators[rows.accelerator[w]].name,
                    batch_size=int(rows.batch_size[w]),
                    replicas=int(found.replicas[w, t]),
                    rate_per_s=carried * part / float(capable.sum()) if part else 0.0,
                    max_rate_per_s=rate if server.load is not None else None,
                )
