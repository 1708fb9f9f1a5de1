"""The check of promises that a plan says no accelerator can keep."""

from __future__ import annotations

from collections.abc import Iterator

from inferno_milp.candidates import find_candidates
from inferno_milp.check.common import pairs
from inferno_milp.plan import Plan
from inferno_milp.problem import Problem

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
    """Analyse anew whether the promises that are said to be out of reach are, and whether they are the server's.

    Parameters
    ----------
    considered : server, accelerator and batch size of all that may be used; None: all of the problem's.
    """
    missing = [(server, planned) for server, planned in pairs(problem, plan) if planned.missed]
    if not missing:
        return
    promised = problem.with_relaxed_targets({})
    alone = find_candidates(promised.with_servers([server for server, _ in missing]))
    rows, names = alone.rows, [a.name for a in problem.accelerators]
    kept = {
        (alone.problem.servers[s].name, names[a], n)
        for s, a, n in zip(rows.server.tolist(), rows.accelerator.tolist(), rows.batch_size.tolist(), strict=True)
    }
    within_reach = {name for name, *_ in (kept if considered is None else kept & considered)}
    for server, planned in missing:
        if server.name in within_reach:
            yield f"{server.name}: its promises are said to be out of reach, and an accelerator keeps them"
        limits = {(latency, name): limit for latency, name, limit in promised.targets_of(server).limits_ms()}
        for one in planned.missed:
            limit = limits.get((one.latency, one.statistic))
            if one.promised_ms != limit or one.planned_ms <= one.promised_ms:
                yield f"{server.name}: {one.latency} {one.statistic} {one.promised_ms} is not what is promised"
