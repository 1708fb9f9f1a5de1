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

from inferno_milp.highs_engine import Program, Result, relax, run
from inferno_milp.horizon.program import Effort, Found, Setup, has_starts, is_proven
from inferno_milp.horizon.recourse import (
    Plane,
    Recourse,
    Recoursed,
    find_recourse,
    relax_recourse,
    solve_recourse,
    until,
)
from inferno_milp.horizon.ways import FloatArray, IntArray, Ways
from inferno_milp.supply import Accelerator
from inferno_milp.workers import Lost, spread

logger = logging.getLogger(__name__)

MOST_GROUPS = 60
"""Groups of moments with planes of their own."""
MOST_STEPS = 60
MOST_WHOLE = 8
"""Whole reservations that are tried."""
FIRST_BOX = 0.15
"""Half of the first box's width, as a part of the reservation that it is about."""
NARROWEST = 0.01
LEAST_TOLERANCE = 1e-7
ROUGHLY = 1e-2
"""The same where only the units are looked at that are used."""
PART_OF_GAP = 0.1
"""How close the planes must come, as a part of the gap that is asked for."""
PART_OF_TIME = 0.6
"""Of the time that there is, the part for reservation and bound; the rest is for replicas."""
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
    began, end, limit_s = time.perf_counter(), time.time() + effort.time_limit_s, effort.time_limit_s
    search = _Search(ways, setup.weights, effort.gap, until(began + PART_OF_TIME * limit_s))
    search.descend(began + PART_OF_TIME * limit_s)
    search.make_whole(began + (PART_OF_TIME + 0.1) * limit_s)
    if search.is_infeasible:
        return _nothing(ways, setup, "infeasible")
    solve = partial(_solve_piece, reserved=search.best, ways=len(ways.rows), gap=effort.gap / 2, end=end)
    found = _spread(solve, search.recourses, effort)
    return _together(ways, setup, found, search.best, search.bound, effort.gap)


def alone_apart(ways: Ways, effort: Effort, reserved: IntArray | None) -> list[Recoursed]:
    """Plan every moment by itself, with what is reserved, or what is best for it (None), paid for in full."""
    end = time.time() + effort.time_limit_s
    recourses = [find_recourse(ways, t) for t in range(ways.required_per_s.shape[1])]
    fixed, price = _prices(ways)
    units = np.zeros(len(price)) if reserved is None else reserved.astype(float)
    prices = np.minimum(fixed, price) if reserved is None else price
    solve = partial(_solve_piece, reserved=units, ways=len(ways.rows), gap=effort.gap, end=end, prices=prices)
    always = float(np.where(units > 0, fixed, 0.0) @ units)
    found = [Recoursed(None, None, None) if isinstance(one, Lost) else one for one in _spread(solve, recourses, effort)]
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


def _nothing(ways: Ways, setup: Setup, outcome: Result) -> Found:
    replicas = np.zeros((len(ways.rows), len(setup.weights)), dtype=np.int64)
    return Found(outcome, replicas, np.zeros(len(ways.problem.accelerators), dtype=np.int64), None, None)


def _together(
    ways: Ways, setup: Setup, found: Sequence[Recoursed | Lost], reserved: FloatArray, bound: float, gap: float
) -> Found:
    """Put the moments together again, and reserve what is best for the replicas that were found."""
    known = [one for one in found if not isinstance(one, Lost)]
    if any(one.is_infeasible for one in known):
        return _nothing(ways, setup, "infeasible")
    columns = [one.replicas for one in known if one.replicas is not None]
    if len(columns) < len(found):
        return _nothing(ways, setup, "no_solution")
    replicas = np.stack(columns, axis=1)
    better = best_reservation(ways, replicas, setup.weights)
    costs = {tuple(z.tolist()): cost_of(ways, setup, replicas, z) for z in (better, reserved.astype(np.int64))}
    chosen, objective = min(costs.items(), key=lambda item: item[1])
    if bound > objective * (1 + CLOSE):
        logger.warning("the bound %s is above the cost %s: it is left out", bound, objective)
        bound = 0.0
    bound = min(bound, objective)
    outcome: Result = "optimal" if is_proven(objective, bound, gap) else "feasible"
    return Found(outcome, replicas, np.array(chosen, dtype=np.int64), objective, bound)


def cost_of(ways: Ways, setup: Setup, replicas: IntArray, reserved: IntArray) -> float:
    """Return what replicas (ways × moments) and a reservation cost, weighted: without starts and ends."""
    accelerators, used = ways.problem.accelerators, ways.units_used(replicas)
    counts = zip(accelerators, used, reserved.tolist(), strict=True)
    return math.fsum(_cost_of_one(one, units, count, setup.weights) for one, units, count in counts)


def _cost_of_one(accelerator: Accelerator, used: IntArray, reserved: int, weights: FloatArray) -> float:
    """Return what an accelerator costs over all moments, given the units of it that are used in each."""
    always = accelerator.cost_of_reserved(reserved) if reserved else 0.0
    return always * float(weights.sum()) + accelerator.cost_per_hour * float(np.maximum(used - reserved, 0) @ weights)


def best_reservation(ways: Ways, replicas: IntArray, weights: FloatArray) -> IntArray:
    """Return the units of each accelerator that pay to be reserved: as many as are used in one of the moments."""
    used = ways.units_used(replicas)
    reserved = np.zeros(len(used), dtype=np.int64)
    for a, one in enumerate(ways.problem.accelerators):
        if one.reserved_cost_per_hour is not None:
            counts = np.unique([0, *used[a]]).tolist()
            reserved[a] = counts[int(np.argmin([_cost_of_one(one, used[a], count, weights) for count in counts]))]
    return reserved


def _prices(ways: Ways) -> tuple[FloatArray, FloatArray]:
    """Return the prices of reserved units, infinite where there are none, and of those on demand."""
    accelerators = ways.problem.accelerators
    reserved = [math.inf if a.reserved_cost_per_hour is None else a.reserved_cost_per_hour for a in accelerators]
    return np.array(reserved), np.array([a.cost_per_hour for a in accelerators])


@dataclass(frozen=True, slots=True)
class _Master:
    """Planes, and the reservation of least cost over them.

    Attributes
    ----------
    fixed : what a reserved unit costs over all moments.
    most : units of each accelerator of which more are never of use.
    values, slopes : planes: the cost of a group is at least value − slope · reserved; planes × groups (× accelerators).
    """

    fixed: FloatArray
    most: FloatArray
    values: list[FloatArray]
    slopes: list[FloatArray]

    def least(
        self, lower: FloatArray, upper: FloatArray, time_limit_s: float, *, whole: bool = False
    ) -> tuple[float, FloatArray] | None:
        """Return the least cost of reservations within bounds, a lower bound of it if whole, and where it is."""
        count, groups = len(self.fixed), len(self.values[0])
        # Each group in units of its own cost: tolerances are absolute, and groups may be next to never.
        unit = np.max(self.values, axis=0)
        unit[unit <= 0] = 1.0
        value = np.concatenate([values / unit for values in self.values])
        slope = np.concatenate([slopes / unit[:, None] for slopes in self.slopes])
        # Columns: units reserved, then the cost of each group; rows: planes.
        rows = len(value)
        columns = np.hstack([np.tile(np.arange(count), (rows, 1)), count + np.arange(rows)[:, None] % groups])
        values = np.hstack([slope, np.ones((rows, 1))])
        program = Program(
            costs=np.concatenate([self.fixed, unit]),
            offset=0.0,
            lower=np.concatenate([lower, np.zeros(groups)]),
            upper=np.concatenate([upper, np.full(groups, np.inf)]),
            whole=np.concatenate([np.full(count, whole), np.zeros(groups, dtype=bool)]),
            starts=(np.arange(rows + 1) * (count + 1)).astype(np.int32),
            columns=columns.ravel().astype(np.int32),
            values=values.ravel(),
            row_lower=value,
            row_upper=np.full(rows, np.inf),
        )
        if not whole:
            relaxed = relax(program, time_limit_s=time_limit_s)
            return None if relaxed is None else (relaxed.objective, relaxed.values[:count])
        found = run(program, gap=1e-6, time_limit_s=time_limit_s)
        if found.values is None or found.bound is None:
            return None
        return found.bound, np.round(found.values[:count])


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
        fixed, price = _prices(ways)
        can = np.isfinite(fixed)
        most = [one.master.side.upper[: len(fixed)] for one in self.recourses if one.master is not None]
        upper = np.where(can, np.max(most, axis=0, initial=0.0), 0.0)
        self.master = _Master(np.where(can, fixed, 0.0) * weights.sum(), upper, [], [])
        self.best, self.cost, self.is_infeasible = np.zeros(len(fixed)), math.inf, False
        # As if one knew which moment comes, and reserved for it alone: nobody pays less.
        found = self._relax(self.best, ROUGHLY, left_s, np.minimum(fixed, price))
        self.bound = float(weights @ [max(one.value, 0.0) for one in found])
        if not self.is_infeasible:
            units = np.stack([one.units for one in found], axis=1)
            self.best = np.minimum(_most_often(units, weights, fixed, price), upper)

    def _relax(
        self, reserved: FloatArray, tolerance: float, left_s: Callable[[], float], prices: FloatArray | None = None
    ) -> list[Plane]:
        planes = []
        for t, recourse in enumerate(self.recourses):
            self.recourses[t], plane = relax_recourse(
                recourse, reserved, tolerance=tolerance, left_s=left_s, prices=prices
            )
            planes.append(plane)
        self.is_infeasible |= any(math.isinf(one.value) for one in planes)
        return planes

    def attempt(self, reserved: FloatArray, end: float) -> float:
        """Relax every moment at a reservation, and keep the planes; return the cost."""
        planes = self._relax(reserved, self.tolerance / 2, until(end))
        if self.is_infeasible:
            return math.inf
        count = self.group[-1] + 1
        values, slopes = np.zeros(count), np.zeros((count, len(reserved)))
        np.add.at(values, self.group, self.weights * np.array([one.value for one in planes]))
        np.add.at(slopes, self.group, self.weights[:, None] * np.stack([one.prices for one in planes]))
        self.master.values.append(values)
        self.master.slopes.append(slopes)
        return float(self.master.fixed @ reserved + values.sum() - slopes.sum(axis=0) @ reserved)

    def _is_close(self, cost: float) -> bool:
        return cost - self.bound <= self.tolerance * abs(cost)

    def descend(self, end: float) -> None:
        """Better the reservation, in fractions, until the planes prove that there is no better one."""
        left_s, upper, width = until(end), self.master.most, FIRST_BOX
        if self.is_infeasible or left_s() <= 0:
            return
        self.cost = self.attempt(self.best, end)
        for step in range(MOST_STEPS):
            least = None if self.is_infeasible else self.master.least(np.zeros(len(upper)), upper, left_s())
            if least is None:
                return
            self.bound = max(self.bound, least[0])
            if self._is_close(self.cost) or left_s() <= 0:
                return
            half = np.maximum(width * self.best, 1.0)
            within = self.master.least(np.maximum(self.best - half, 0.0), np.minimum(self.best + half, upper), left_s())
            # Where the box promises next to nothing, look everywhere.
            far = within is None or self.cost - within[0] <= 0.1 * (self.cost - self.bound)
            point = least[1] if far or within is None else within[1]
            cost = self.attempt(point, end)
            logger.debug("step %d: cost %s, bound %s, box %s", step, cost, self.bound, width)
            if cost < self.cost:
                self.best, self.cost = point, cost
                width = min(2 * width, 1.0)
            elif not far:
                width = max(width / 2, NARROWEST)

    def make_whole(self, end: float) -> None:
        """Find the best whole reservation, over planes that are added as they are needed."""
        left_s, self.best = until(end), np.round(self.best)
        if self.is_infeasible or left_s() <= 0:
            return
        self.cost = self.attempt(self.best, end)
        for _ in range(MOST_WHOLE):
            upper, least = self.master.most, None
            if not self.is_infeasible:
                least = self.master.least(np.zeros(len(upper)), upper, left_s(), whole=True)
            if least is None:
                return
            self.bound = max(self.bound, least[0])
            if self._is_close(self.cost) or left_s() <= 0:
                return
            cost = self.attempt(least[1], end)
            if cost < self.cost:
                self.best, self.cost = least[1], cost


def _most_often(units: FloatArray, weights: FloatArray, fixed: FloatArray, price: FloatArray) -> FloatArray:
    """Return the units of each accelerator that are used for enough of the time, accelerators × moments given."""
    order = np.argsort(-units, axis=1, kind="stable")
    part = np.cumsum(weights[order], axis=1) / weights.sum()
    enough = price[:, None] * part >= fixed[:, None]
    at = np.take_along_axis(units, np.take_along_axis(order, enough.argmax(axis=1)[:, None], axis=1), axis=1)[:, 0]
    return np.where(enough.any(axis=1), at, 0.0)
