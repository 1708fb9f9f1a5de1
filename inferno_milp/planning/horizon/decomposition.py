"""Many moments, taken apart: what is reserved is decided first, then every moment by itself (Benders' decomposition).

Once the reservation is known, nothing joins the moments. The relaxation of each at one reservation gives a plane below
its cost at any other; the master program finds the reservation of least cost over the planes so far. It stays within a
box about the best reservation so far, as planes are of little use far from where they were found. Relaxations are over
whole patterns of replicas, so that the planes come close to what whole replicas cost: docs/horizon.md.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from inferno_milp.planning.horizon.planes import Planes
from inferno_milp.planning.horizon.program import Effort, Found, Setup, is_proven, nothing
from inferno_milp.planning.horizon.recourse import (
    Plane,
    Recourse,
    Recoursed,
    find_recourse,
    relax_recourse,
    solve_recourse,
)
from inferno_milp.planning.horizon.reservations import best_reservation, cost_of, most_often, prices_of
from inferno_milp.planning.horizon.starts import has_starts
from inferno_milp.planning.horizon.ways import FloatArray, IntArray, Ways
from inferno_milp.planning.workers import Lost, spread
from inferno_milp.program.deadline import until
from inferno_milp.program.highs_engine import Result

logger = logging.getLogger(__name__)

MOST_GROUPS = 60
"""Groups of moments with planes of their own."""
MOST_STEPS = 60
MOST_WHOLE = 8
"""Whole reservations that are tried."""
FIRST_BOX = 0.15
"""Half of the first box's width, as a part of the reservation that it is about."""
NARROWEST = 0.01
PART_OF_GAP, LEAST_TOLERANCE = 0.1, 1e-7
"""How close the planes must come, as a part of the gap that is asked for, and at the most."""
ROUGHLY = 1e-2
"""How close, where it is only to see which units are used."""
DESCENT, WHOLE = 0.6, 0.7
"""Parts of the time by which reservation and bound are found, in fractions and whole; the rest is for replicas."""
CLOSE = 1e-6
"""Relative error of bounds that is put down to rounding."""


def comes_apart(ways: Ways, setup: Setup) -> bool:
    """Whether nothing but what is reserved joins the moments."""
    options = ways.problem.options
    return (
        options.assignment == "mixed"
        and setup.criterion == "expected"
        and setup.served >= 1
        and setup.reserved is None
        and options.max_cost_per_hour is None
        and not (setup.planning is not None and has_starts(setup.planning))
        and not any(server.survive_pools for server in ways.problem.servers)
        and not any(accelerator.reserved_discounts for accelerator in ways.problem.accelerators)
    )


def solve_apart(ways: Ways, setup: Setup, effort: Effort) -> Found:
    """Find replicas and reservations of least cost, moment by moment."""
    began, end = time.perf_counter(), time.time() + effort.time_limit_s
    descent_s = until(began + DESCENT * effort.time_limit_s)
    search = _Search(ways, setup.weights, effort.gap, descent_s)
    search.descend(descent_s)
    search.make_whole(until(began + WHOLE * effort.time_limit_s))
    if search.is_infeasible:
        return nothing(ways, len(setup.weights), "infeasible")
    solve = partial(_solve_piece, reserved=search.best, ways=len(ways.rows), gap=effort.gap / 2, end=end)
    found = _spread(solve, search.recourses, effort)
    return _together(ways, setup, found, search.best, search.bound, effort.gap)


def alone_apart(ways: Ways, effort: Effort, reserved: IntArray | None) -> list[Recoursed]:
    """Plan every moment by itself, with what is reserved, or what is best for it (None), paid for in full."""
    end = time.time() + effort.time_limit_s
    recourses = [find_recourse(ways, t) for t in range(ways.required_per_s.shape[1])]
    fixed, price = prices_of(ways)
    units = np.zeros(len(price)) if reserved is None else reserved.astype(float)
    prices = np.minimum(fixed, price) if reserved is None else price
    solve = partial(_solve_piece, reserved=units, ways=len(ways.rows), gap=effort.gap, end=end, prices=prices)
    always = float(np.where(units > 0, fixed, 0.0) @ units)
    found = [Recoursed(None, None) if isinstance(one, Lost) else one for one in _spread(solve, recourses, effort)]
    return [one if one.cost is None else replace(one, cost=one.cost + always) for one in found]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A moment, and its part of the time that is left when its turn comes."""

    recourse: Recourse
    part: float


def _spread(
    solve: Callable[[_Piece], Recoursed], recourses: Sequence[Recourse], effort: Effort
) -> list[Recoursed | Lost]:
    count, workers = len(recourses), effort.jobs if effort.jobs > 0 else os.cpu_count() or 1
    pieces = [_Piece(recourse, min(workers / (count - t), 1.0)) for t, recourse in enumerate(recourses)]
    return spread(solve, pieces, jobs=effort.jobs, scheduler=effort.scheduler)


def _solve_piece(
    piece: _Piece, *, reserved: FloatArray, ways: int, gap: float, end: float, prices: FloatArray | None = None
) -> Recoursed:
    """Find the replicas of a moment; `end` is a time of `time.time`, which processes have in common."""
    left_s = until(time.perf_counter() + max(end - time.time(), 0.0) * piece.part)
    return solve_recourse(piece.recourse, reserved, ways, gap=gap, left_s=left_s, prices=prices)


def _together(
    ways: Ways, setup: Setup, found: Sequence[Recoursed | Lost], reserved: FloatArray, bound: float, gap: float
) -> Found:
    """Put the moments together again, and reserve what is best for the replicas that were found."""
    known = [one for one in found if not isinstance(one, Lost)]
    if any(one.is_infeasible for one in known):
        return nothing(ways, len(setup.weights), "infeasible")
    columns = [one.replicas for one in known if one.replicas is not None]
    if len(columns) < len(found):
        return nothing(ways, len(setup.weights), "no_solution")
    replicas = np.stack(columns, axis=1)
    better = best_reservation(ways, replicas, setup.weights)
    costs = {tuple(z.tolist()): cost_of(ways, setup.weights, replicas, z) for z in (better, reserved.astype(np.int64))}
    chosen, objective = min(costs.items(), key=lambda item: item[1])
    if bound > objective * (1 + CLOSE):
        logger.warning("the bound %s is above the cost %s: it is left out", bound, objective)
        bound = 0.0
    bound = min(bound, objective)
    outcome: Result = "optimal" if is_proven(objective, bound, gap) else "feasible"
    return Found(outcome, replicas, np.array(chosen, dtype=np.int64), objective, bound)


class _Search:
    """Reservations that were tried, and what they cost in the relaxation.

    Attributes
    ----------
    best, cost : the best reservation, and what it costs in the relaxation.
    bound : no plan costs less.
    is_infeasible : whether the servers do not fit, whatever is reserved.
    """

    def __init__(self, ways: Ways, weights: FloatArray, gap: float, left_s: Callable[[], float]):
        self.tolerance = max(PART_OF_GAP * gap, LEAST_TOLERANCE)
        self.weights = weights
        self.recourses = [find_recourse(ways, t) for t in range(len(weights))]
        count = min(MOST_GROUPS, len(weights))
        self.group = np.arange(len(weights)) * count // len(weights)
        fixed, price = prices_of(ways)
        can = np.isfinite(fixed)
        most = [one.master.side.upper[: len(fixed)] for one in self.recourses if one.master is not None]
        upper = np.where(can, np.max(most, axis=0, initial=0.0), 0.0)
        self.planes = Planes(np.where(can, fixed, 0.0) * weights.sum(), upper)
        self.best, self.cost, self.is_infeasible = np.zeros(len(fixed)), math.inf, False
        # As if one knew which moment comes, and reserved for it alone: nobody pays less.
        found = self._relax(self.best, ROUGHLY, left_s, np.minimum(fixed, price))
        self.bound = float(weights @ [max(one.value, 0.0) for one in found])
        if not self.is_infeasible:
            units = np.stack([one.units for one in found], axis=1)
            self.best = np.minimum(most_often(units, weights, fixed, price), upper)

    def _relax(
        self, reserved: FloatArray, tolerance: float, left_s: Callable[[], float], prices: FloatArray | None = None
    ) -> list[Plane]:
        planes = []
        for t, recourse in enumerate(self.recourses):
            self.recourses[t], plane = relax_recourse(
                recourse, reserved, tolerance=tolerance, left_s=left_s, prices=prices
            )
            planes.append(plane)
        self.is_infeasible |= any(one.value == math.inf for one in planes)
        return planes

    def attempt(self, reserved: FloatArray, left_s: Callable[[], float]) -> float:
        """Relax every moment at a reservation, and keep the planes; return the cost."""
        planes = self._relax(reserved, self.tolerance / 2, left_s)
        if self.is_infeasible:
            return math.inf
        count = self.group[-1] + 1
        values, slopes = np.zeros(count), np.zeros((count, len(reserved)))
        np.add.at(values, self.group, self.weights * np.array([one.value for one in planes]))
        np.add.at(slopes, self.group, self.weights[:, None] * np.stack([one.prices for one in planes]))
        self.planes.add(values, slopes)
        return float(self.planes.fixed @ reserved + values.sum() - slopes.sum(axis=0) @ reserved)

    def _is_close(self, cost: float) -> bool:
        return cost - self.bound <= self.tolerance * abs(cost)

    def descend(self, left_s: Callable[[], float]) -> None:
        """Better the reservation, in fractions, until the planes prove that there is no better one."""
        upper, width = self.planes.most, FIRST_BOX
        if self.is_infeasible or left_s() <= 0:
            return
        self.cost = self.attempt(self.best, left_s)
        for step in range(MOST_STEPS):
            least = None if self.is_infeasible else self.planes.least(left_s())
            if least is None:
                return
            self.bound = max(self.bound, least[0])
            if self._is_close(self.cost) or left_s() <= 0:
                return
            half = np.maximum(width * self.best, 1.0)
            low, high = np.maximum(self.best - half, 0.0), np.minimum(self.best + half, upper)
            within = self.planes.least(left_s(), lower=low, upper=high)
            # Where the box promises next to nothing, look everywhere.
            far = within is None or self.cost - within[0] <= 0.1 * (self.cost - self.bound)
            point = least[1] if far or within is None else within[1]
            cost = self.attempt(point, left_s)
            logger.debug("step %d: cost %s, bound %s, box %s", step, cost, self.bound, width)
            if cost < self.cost:
                self.best, self.cost = point, cost
                width = min(2 * width, 1.0)
            elif not far:
                width = max(width / 2, NARROWEST)

    def make_whole(self, left_s: Callable[[], float]) -> None:
        """Find the best whole reservation, over planes that are added as they are needed."""
        self.best = np.round(self.best)
        if self.is_infeasible or left_s() <= 0:
            return
        self.cost = self.attempt(self.best, left_s)
        for _ in range(MOST_WHOLE):
            least = None if self.is_infeasible else self.planes.least(left_s(), whole=True)
            if least is None:
                return
            self.bound = max(self.bound, least[0])
            if self._is_close(self.cost) or left_s() <= 0:
                return
            cost = self.attempt(least[1], left_s)
            if cost < self.cost:
                self.best, self.cost = least[1], cost
