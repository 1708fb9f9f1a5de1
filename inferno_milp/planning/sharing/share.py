"""Which servers should share their replicas: one program picks groups, so that each server is in exactly one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferno_milp.columns.candidates import find_candidates
from inferno_milp.columns.limits import find_limits
from inferno_milp.columns.rows import BoolArray, Rows
from inferno_milp.plan import DEFAULT_GAP, Plan
from inferno_milp.planning.optimize import optimize, plan_candidates
from inferno_milp.planning.picking import Ways, alone, candidates_alone, pick_ways, without_today
from inferno_milp.planning.sharing.groups import can_share, find_groups, group_name, merged
from inferno_milp.planning.trust import resting_as
from inferno_milp.problem import Problem


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """A plan in which servers of one model share replicas, beside the plan in which none do.

    Attributes
    ----------
    problem : in which each group is a server of its own, `gold+tin`.
    plan : of that problem; where sharing saves nothing, that of the problem as it is.
    groups : servers that share, by name.
    apart : best plan in which nobody shares.
    """

    problem: Problem
    plan: Plan
    groups: tuple[tuple[str, ...], ...]
    apart: Plan

    @property
    def saving_per_hour(self) -> float | None:
        """Cost that sharing saves; None where one of the plans does not serve everybody."""
        if not (self.plan.serves_all and self.apart.serves_all):
            return None
        return (self.apart.total_cost_per_hour or 0.0) - (self.plan.total_cost_per_hour or 0.0)

    @property
    def replicas_saved(self) -> int:
        """Replicas fewer than apart."""
        before, after = (sum(a.replicas for s in p.servers for a in s.allocations) for p in (self.apart, self.plan))
        return before - after

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "plan": self.plan.to_dict(),
            "groups": [list(group) for group in self.groups],
            "apart": self.apart.to_dict(),
            "saving_per_hour": self.saving_per_hour,
            "replicas_saved": self.replicas_saved,
        }


def share_replicas(problem: Problem, *, time_limit_s: float | None = None, gap: float = DEFAULT_GAP) -> SharedPlan:
    """Find which servers of one model should share their replicas, and plan so.

    Parameters
    ----------
    problem : with single assignment. All groups of up to five servers of a model are weighed; where there are more
        servers, then groups of these groups, until that saves nothing more.
    time_limit_s : seconds for the plan apart, for the programs, and for the plan shared; None: no limit.
    gap : relative gap between cost and bound.

    Returns
    -------
    SharedPlan
        Its plan is checked; a group keeps the strictest promise of each of its classes.

    Raises
    ------
    OptionError
        If something is asked for that is not counted here.
    """
    free = [s for s, server in enumerate(problem.servers) if can_share(problem, server)]
    problem = without_today(problem, free, "sharing")
    apart = optimize(problem, time_limit_s=time_limit_s, gap=gap)
    chosen = _grown(problem, gap, time_limit_s)
    if chosen is None:
        return SharedPlan(problem, apart, (), apart)
    shared = with_groups(problem, chosen)
    plan = plan_candidates(find_candidates(shared), time_limit_s=time_limit_s, gap=gap)
    if not plan.serves_all or (apart.serves_all and (plan.objective or 0.0) >= (apart.objective or 0.0)):
        return SharedPlan(problem, apart, (), apart)
    named = tuple(tuple(problem.servers[s].name for s in group) for group in chosen if len(group) > 1)
    return SharedPlan(shared, resting_as(plan, apart), named, apart)


def _grown(problem: Problem, gap: float, time_limit_s: float | None) -> list[tuple[int, ...]] | None:
    """Pick groups, then groups of groups, as long as that picks others; None if nothing can be picked, or in time."""
    end = None if time_limit_s is None else time.perf_counter() + time_limit_s
    single: list[tuple[int, ...]] = [(s,) for s in range(len(problem.servers))]
    units, may_grow, found = single, True, None
    while may_grow:
        groups, may_grow = find_groups(problem, units)
        if not groups:
            break
        left_s = None if end is None else end - time.perf_counter()
        chosen = _choose(problem, [*dict.fromkeys([*single, *units, *groups])], gap, left_s)
        if chosen is None or chosen == found:
            break
        units = found = chosen
    return found


def with_groups(problem: Problem, groups: Sequence[Sequence[int]]) -> Problem:
    """Return the problem with groups of servers in the place of these."""
    servers, classes = [], []
    taken = {s.name for s in problem.servers} | {c.name for c in problem.service_classes}
    for group in groups:
        if len(group) == 1:
            servers.append(problem.servers[group[0]])
            continue
        name = group_name([problem.servers[s] for s in group], taken)
        taken.add(name)
        server, service_class = merged(problem, group, name)
        servers.append(server)
        classes.append(service_class)
    return problem.with_servers(servers, classes)


def _choose(
    problem: Problem, groups: Sequence[tuple[int, ...]], gap: float, time_limit_s: float | None
) -> list[tuple[int, ...]] | None:
    """Pick groups of least cost, each server in one of them; None if that cannot be, or the time ran out."""
    began = time.perf_counter()
    table = find_candidates(with_groups(problem, groups))
    limits = find_limits(table)
    rows = candidates_alone(table)
    rows = rows.take(_each_alone(groups, rows))
    covers = [groups[g] for g in rows.server.tolist()]
    needs = sorted({s for group, need in zip(groups, table.needs.tolist(), strict=True) if need for s in group})
    ways = Ways(covers, *alone(table, rows, limits))
    left_s = None if time_limit_s is None else time_limit_s - (time.perf_counter() - began)
    picked = pick_ways(ways, needs, limits, gap=gap, time_limit_s=left_s)
    if picked is None:
        return None
    idle = [(s,) for s in range(len(problem.servers)) if s not in needs]
    return sorted([*(covers[k] for k in picked.ways), *idle])


def _each_alone(groups: Sequence[tuple[int, ...]], rows: Rows) -> BoolArray:
    """Return for each way of a group whether each of its members could run so alone."""
    by_itself = {
        (groups[g][0], a)
        for g, a in zip(rows.server.tolist(), rows.accelerator.tolist(), strict=True)
        if len(groups[g]) == 1
    }
    return np.array(
        [
            all((s, a) in by_itself for s in groups[g])
            for g, a in zip(rows.server.tolist(), rows.accelerator.tolist(), strict=True)
        ],
        dtype=bool,
    )
