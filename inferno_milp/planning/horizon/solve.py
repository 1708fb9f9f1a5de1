"""Which program solves moments: one for all of them, or one for each once it is known what is reserved."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inferno_milp.planning.horizon.decomposition import alone_apart, comes_apart, solve_apart
from inferno_milp.planning.horizon.program import Effort, Found, Setup, is_proven, nothing, solve_horizon
from inferno_milp.planning.horizon.recourse import Recoursed
from inferno_milp.planning.horizon.ways import IntArray, Ways
from inferno_milp.program.deadline import until

MANY = 12
"""Moments from which on they are taken apart, where nothing but what is reserved joins them."""
LARGEST = 30_000
"""Ways times moments up to which one program for all is tried after that, if the gap is not reached."""


def solve_moments(ways: Ways, setup: Setup, effort: Effort, start: Found | None = None) -> Found:
    """Find replicas and reservations of least cost: none dearer than those to start from.

    Parameters
    ----------
    start : a plan to start from.
    """
    found = _solve_moments(ways, setup, effort, start)
    return found if start is None else _better(found, start, effort.gap)


def _solve_moments(ways: Ways, setup: Setup, effort: Effort, start: Found | None) -> Found:
    count = len(setup.weights)
    if count < MANY or not comes_apart(ways, setup):
        return solve_horizon(ways, setup, effort, start)
    left_s = until(time.perf_counter() + effort.time_limit_s)
    apart = solve_apart(ways, setup, effort)
    if apart.outcome in ("optimal", "infeasible") or count * len(ways.rows) > LARGEST or left_s() <= 0:
        return apart
    return _better(apart, solve_horizon(ways, setup, replace(effort, time_limit_s=left_s()), start), effort.gap)


def _better(one: Found, other: Found, gap: float) -> Found:
    """Return the cheaper of two, with the higher of their bounds."""
    if one.objective is None and other.outcome == "infeasible":
        return other
    best = min((one, other), key=lambda found: math.inf if found.objective is None else found.objective)
    bounds = [found.bound for found in (one, other) if found.bound is not None]
    if best.objective is None or not bounds:
        return best
    bound = min(max(bounds), best.objective)
    return replace(best, bound=bound, outcome="optimal" if is_proven(best.objective, bound, gap) else "feasible")


def each_alone(ways: Ways, effort: Effort, reserved: IntArray | None = None) -> list[Recoursed]:
    """Plan every moment by itself, all of them within the time limit; costs are with what is reserved.

    Parameters
    ----------
    reserved : units of each accelerator; None: as is best for the moment, as if it were all the time.
    """
    setup = Setup(np.ones(ways.required_per_s.shape[1]))
    if len(setup.weights) >= MANY and comes_apart(ways, setup):
        return alone_apart(ways, effort, reserved)
    return [Recoursed(one.replicas[:, 0], one.objective) for one in _one_by_one(ways, effort, reserved)]


def _one_by_one(ways: Ways, effort: Effort, reserved: IntArray | None) -> Iterator[Found]:
    left_s, count = until(time.perf_counter() + effort.time_limit_s), ways.required_per_s.shape[1]
    for t in range(count):
        one = replace(ways, required_per_s=ways.required_per_s[:, t : t + 1])
        part_s = left_s() / (count - t)
        if part_s > 0:
            yield solve_horizon(one, Setup(np.ones(1), reserved=reserved), replace(effort, time_limit_s=part_s))
        else:
            yield nothing(one, 1, "no_solution")
