"""The best attainable: servers whose targets no accelerator meets are planned for the least latency that one attains.

A promise of 500 ms where 572 ms is the least would otherwise leave a server with nothing, however many devices are
free. Such a server is sized for its load at the least attainable latency and a margin, in place of each target that
cannot be met; the plan says which these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.columns.rows import rows_of
from inferno_milp.columns.shortfall import latency_name, least_latencies, over_targets
from inferno_milp.plan import MissedTarget
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import Targets
from inferno_milp.problem.sections import Server

MARGIN = 0.25
"""By so much a target in place of one that cannot be met lies above the least latency that is attainable."""


def find_attainable_candidates(
    problem: Problem,
    *,
    known: Candidates | None = None,
    kept: Callable[[Candidates], Candidates] = lambda table: table,
    left_s: Callable[[], float] = lambda: math.inf,
) -> Candidates:
    """Analyse a problem as `find_candidates`, with the best attainable ones where a server has none.

    Parameters
    ----------
    known, left_s : as of `find_candidates`.
    kept : takes a table, and returns it with those candidates, good and rejected, that may be used at all.

    Returns
    -------
    Candidates
        Of the problem with relaxed targets for such servers: `Problem.relaxed_targets`.

    Raises
    ------
    OutOfTimeError
        When no seconds are left.
    """
    problem = problem.with_relaxed_targets({})
    whole = find_candidates(problem, known=known, left_s=left_s)
    table = kept(whole)
    relaxed = {
        problem.servers[s].name: targets
        for s in table.unservable.tolist()
        if (targets := _attainable_targets(table, s)) is not None
    }
    if not relaxed:
        return table
    found = kept(find_candidates(problem.with_relaxed_targets(relaxed), known=whole, left_s=left_s))
    still = {problem.servers[s].name for s in found.unservable.tolist()} & relaxed.keys()
    if not still:
        return found
    relaxed = {name: targets for name, targets in relaxed.items() if name not in still}
    return kept(find_candidates(problem.with_relaxed_targets(relaxed), known=whole, left_s=left_s))


def missed_targets(problem: Problem, server: Server) -> Iterator[MissedTarget]:
    """Yield the promises to a server that are relaxed in what it is planned for."""
    if server.name not in problem.relaxed_targets:
        return
    planned = {(latency, name): limit for latency, name, limit in problem.targets_of(server).limits_ms()}
    for latency, name, limit in problem.promised_targets_of(server).limits_ms():
        if planned[latency, name] > limit:
            yield MissedTarget(latency, name, limit, planned[latency, name])


def words_of_missed(missed: Sequence[MissedTarget]) -> str:
    """Return what is promised, and what can be attained."""
    parts = [
        f"{latency_name(one.latency, one.statistic)} {_plain(one.promised_ms)} ms is promised, "
        f"{_plain(one.planned_ms / (1 + MARGIN))} ms is the least that any accelerator attains "
        f"(planned for {_plain(one.planned_ms)} ms, +{one.planned_ms / one.promised_ms - 1:.0%})"
        for one in missed
    ]
    return "; ".join(parts)


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _attainable_targets(table: Candidates, server: int) -> Targets | None:
    """Return a server's targets, those that cannot be met relaxed; None if they are not why nothing serves it."""
    rejected, problem = table.rejected, table.problem
    rows = rows_of(rejected.server, server)
    most = 1.0 if problem.options.law == "inferno" else problem.options.max_blocking
    rows = rows[rejected.fits[rows] & ~rejected.timeless[rows] & (rejected.blocking[rows] <= most)]
    if not rows.size:
        return None
    over = over_targets(table, rows)
    nearest = rows[[int(np.argmin(over))]]
    if not 1 < over.min() < np.inf:
        return None
    targets = problem.targets_of(problem.servers[server])
    least_ms = {key: float(least[0]) for key, least in least_latencies(table, nearest).items()}
    return targets.with_limits_ms(
        {
            (latency, statistic): least_ms[latency, statistic] * (1 + MARGIN)
            for latency, statistic, limit in targets.limits_ms()
            if least_ms[latency, statistic] > limit
        }
    )
