"""The check of promises that a plan says no accelerator can keep: analysed here again, from the problem alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inferno_milp.plan import Plan
from inferno_milp.plan.check.common import pairs
from inferno_milp.plan.check.parameters import Run, engine_parameters, limits_by_statistic
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import LARGEST_BATCH
from inferno_milp.problem.sections import Profile, Server
from inferno_milp.queueing import size

Considered = frozenset[tuple[str, str, int]]
"""Servers, accelerators and batch sizes that a plan was made of."""


def planned_problem(problem: Problem, plan: Plan) -> Problem:
    """Return the problem with the targets that the plan says it plans for."""
    relaxed = {}
    for server, planned in pairs(problem, plan):
        if planned.missed:
            limits_ms = {(one.latency, one.statistic): one.planned_ms for one in planned.missed}
            relaxed[server.name] = problem.promised_targets_of(server).with_limits_ms(limits_ms)
    return problem.with_relaxed_targets(relaxed)


def attainable_violations(problem: Problem, plan: Plan, considered: Considered | None) -> Iterator[str]:
    """Analyse again whether the promises that are said to be out of reach are, and whether they are the server's.

    Parameters
    ----------
    considered : server, accelerator and batch size of all that may be used; None: all of the problem's.
    """
    missing = [(server, planned) for server, planned in pairs(problem, plan) if planned.missed]
    if not missing:
        return
    promised = problem.with_relaxed_targets({})
    within_reach = _within_reach(promised, [server for server, _ in missing], considered)
    for server, planned in missing:
        if server.name in within_reach:
            yield f"{server.name}: its promises are said to be out of reach, and an accelerator keeps them"
        limits = {(latency, name): limit for latency, name, limit in promised.targets_of(server).limits_ms()}
        for one in planned.missed:
            limit = limits.get((one.latency, one.statistic))
            if one.promised_ms != limit or one.planned_ms <= one.promised_ms:
                yield f"{server.name}: {one.latency} {one.statistic} {one.promised_ms} is not what is promised"


def _within_reach(problem: Problem, servers: list[Server], considered: Considered | None) -> set[str]:
    """Return the names of the servers that some accelerator serves within their targets, at however small a rate."""
    runs = [
        Run(server, server.load, profile, batch_size)
        for server in servers
        if server.load is not None
        for profile in _usable_profiles(problem, server)
        for batch_size in _batch_sizes(problem, server, profile, considered)
    ]
    if not runs:
        return set()
    limits, tps = limits_by_statistic(problem, [run.server for run in runs])
    sized = size(problem.options.law, **engine_parameters(problem, runs), **limits, tps=tps)
    kept = (sized.verdict != "infeasible") & np.isfinite(sized.max_rate_per_s)
    return {run.server.name for run, good in zip(runs, kept.tolist(), strict=True) if good}


def _usable_profiles(problem: Problem, server: Server) -> Iterator[Profile]:
    pools = {accelerator.name: accelerator.pool for accelerator in problem.accelerators}
    today = {now.accelerator for now in server.current}
    for profile in problem.profiles:
        usable = profile.model == server.model and profile.holds(server.adapters)
        usable &= server.pools is None or pools[profile.accelerator] in server.pools
        if usable and (not server.keep_accelerator or profile.accelerator in today):
            yield profile


def _batch_sizes(problem: Problem, server: Server, profile: Profile, considered: Considered | None) -> list[int]:
    """Return the batch sizes to be tried: those considered, or the smallest and the largest that there may be.

    At the lowest rate an engine is alone with each request, whatever its batch may grow to: between the two nothing
    else is within reach.
    """
    if considered is not None:
        return sorted(n for name, at, n in considered if (name, at) == (server.name, profile.accelerator))
    if server.max_batch_size is not None:
        return [server.max_batch_size]
    largest = LARGEST_BATCH if server.load is None else profile.largest_batch(server.load.output_tokens)
    return [1, largest] if problem.options.every_batch_size and largest > 1 else [largest]
