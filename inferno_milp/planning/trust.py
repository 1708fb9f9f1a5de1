"""How far the profiles of a plan can be trusted: what was estimated, and what lies beyond the measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.plan import Plan, ProfileUse
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Profile


def profile_use(profile: Profile) -> ProfileUse:
    """Return what a profile's origin says of it."""
    return ProfileUse(*(getattr(profile.origin, name, None) for name in ProfileUse.__slots__))


def rests_on_estimates(table: Candidates) -> bool:
    """Return whether a profile that was considered, on an accelerator of which there is one, is estimated."""
    problem = table.problem
    accelerators, available = {a.name: a for a in problem.accelerators}, problem.devices_available
    for i in np.unique(np.concatenate((table.rows.profile, table.rejected.profile))).tolist():
        profile = problem.profiles[i]
        accelerator = accelerators[profile.accelerator]
        devices = accelerator.devices * profile.accelerators_per_replica
        there = available is None or available.get(accelerator.type, 0) >= devices
        if there and profile.origin is not None and profile.origin.kind == "estimated":
            return True
    return False


def resting_as(plan: Plan, whole: Plan) -> Plan:
    """Return a plan of the best of many problems, resting on estimates if the plan of the whole problem does.

    Its own problem has only the profiles that were picked; those that were weighed against them limit its claim too.
    """
    return replace(plan, rests_on_estimates=plan.rests_on_estimates or whole.rests_on_estimates)


def profile_warnings(problem: Problem, plan: Plan) -> Iterator[str]:
    """Yield for every pair that the plan uses what its profile's origin warns of, each once."""
    profiles = {(p.model, p.accelerator): p for p in problem.profiles}
    loads = {server.name: server.load for server in problem.servers}
    longest: dict[tuple[str, str], float] = {}
    for server in plan.servers:
        load = loads[server.name]
        for a in server.allocations:
            pair = (server.model, a.accelerator)
            longest[pair] = max(longest.get(pair, 0.0), 0.0 if load is None else load.input_tokens)
    estimated, errors = [], []
    for pair, tokens in longest.items():
        yield from _beyond(profiles[pair], tokens)
        origin = profiles[pair].origin
        if origin is not None and origin.kind == "estimated":
            estimated.append(f"{pair[0]} on {pair[1]}")
            errors.append(origin.itl_error or 0.0)
    if estimated:
        told = f", {max(errors):.0%} off in ITL on pairs that were measured" if max(errors) > 0 else ""
        yield f"profiles that were estimated, not measured{told}: {'; '.join(estimated)}"


def _beyond(profile: Profile, input_tokens: float) -> Iterator[str]:
    longest = profile.origin.longest_input_tokens if profile.origin is not None else None
    if longest is not None and input_tokens > longest:
        pair = f"{profile.model} on {profile.accelerator}"
        yield f"{pair}: prompts of {input_tokens:g} tokens are longer than any measured ({longest:g}): extrapolated"
