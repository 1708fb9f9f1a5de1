"""Whom plans of several moments leave out, where not every server can be served in all of them: by priority."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from inferno_milp.columns.limits import FITS
from inferno_milp.planning.horizon.program import Effort, Setup, build_horizon
from inferno_milp.planning.horizon.ways import Ways
from inferno_milp.planning.priorities import relative_weights
from inferno_milp.program._pyomo import pyo, sum_of_terms
from inferno_milp.program.deadline import OutOfTimeError, until
from inferno_milp.program.in_time import solve_in_time


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Servers that a plan leaves out of all moments.

    Attributes
    ----------
    ways : of the others.
    is_proven : whether it is proven that no more can be served, priority by priority.
    is_known : whether a set of servers was found that can be served; False: the time ran out.
    """

    ways: Ways
    is_proven: bool
    is_known: bool


def without_ways(ways: Ways, *, in_all: bool) -> Ways:
    """Return the ways without the servers that need replicas and can have none.

    Parameters
    ----------
    in_all : whether every moment must be served. If not, a server may do without in those that need not be.
    """
    moments, servers = range(ways.required_per_s.shape[1]), ways.problem.servers
    gone = [
        s
        for s, server in enumerate(servers)
        if not ways.of(s) and any(ways.needs(s, t) for t in moments) and (in_all or server.min_replicas)
    ]
    return ways.leaving_out(gone) if gone else ways


def serve_by_priority(ways: Ways, setup: Setup, effort: Effort) -> LeftOut:
    """Find the servers to leave out: the least weight of each priority, the highest first."""
    left_s = until(time.perf_counter() + effort.time_limit_s)
    problem = ways.problem
    priorities = {c.name: c.priority for c in problem.service_classes}
    level_of = np.array([priorities[server.service_class] for server in problem.servers])
    try:
        model = build_horizon(ways, setup, losable=True, left_s=left_s)
    except OutOfTimeError:
        return LeftOut(ways, is_proven=False, is_known=False)
    weights = relative_weights(np.array([server.weight for server in problem.servers]), level_of)
    model.objective.deactivate()
    model.kept = pyo.ConstraintList(doc="Σ of the weights of a priority that are left out ≤ what must be")
    levels, is_proven, lost = np.unique(level_of[list(model.lost)]).tolist(), True, list(model.lost)
    for number, level in enumerate(levels):
        here = [(float(weights[s]), model.lost[s]) for s in model.lost if level_of[s] == level]
        model.add_component(f"lost_{level}", pyo.Objective(expr=sum_of_terms(here), sense=pyo.minimize))
        part = until(time.perf_counter() + left_s() / (len(levels) + 1 - number))
        solution = solve_in_time(model, gap=0.0, left_s=part)
        if solution.objective is None:
            return LeftOut(ways.leaving_out(lost), is_proven=False, is_known=number > 0)
        is_proven &= solution.outcome == "optimal"
        lost = [s for s in model.lost if model.lost[s].value > 0.5]
        least = math.fsum(weights[s] for s in lost if level_of[s] == level)
        model.kept.add(sum_of_terms(here) <= least * (1 + FITS) + FITS)
        model.component(f"lost_{level}").deactivate()
    # Of all sets of that weight, the one whose servers cost least.
    model.objective.activate()
    if solve_in_time(model, gap=effort.gap, left_s=left_s).objective is not None:
        lost = [s for s in model.lost if model.lost[s].value > 0.5]
    return LeftOut(ways.leaving_out(lost), is_proven=is_proven, is_known=True)
