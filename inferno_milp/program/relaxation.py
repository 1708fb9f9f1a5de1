"""The linear relaxation of a master program: prices of the limits, and a bound that no plan can beat.

Limits are few, so the prices that matter are few, and at good prices all but a few servers have a clear favourite. The
relaxation of a large program is therefore solved over the servers that waver, the others held to their favourites, at
prices found by cutting planes; patterns of covers are listed as they are found to be cheaper than those listed (column
generation). Whatever HiGHS says, the bound is computed anew from the prices (Lagrangian duality), over all servers and
options: it holds for any prices ≥ 0, and only its worth depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.program.covers import Covers, cheaper_options
from inferno_milp.program.highs_engine import Program, relax
from inferno_milp.program.master import BoolArray, FloatArray, Master, Options, Side, as_program, distinct, join_options

ALL_AT_ONCE = 1500
"""Up to so many servers nobody is held."""
SAMPLE = 500
"""Servers whose relaxation gives the first prices of larger programs."""
WAVERING = 400
"""Servers let go in the first round, and in each that follows."""
MOST_ROUNDS = 60
GROUPS = 8
"""Groups of servers with cutting planes of their own."""
MOST_STEPS = 80
SEVERE = 4.0
"""First price of breaking a limit, as a multiple of the dearest that an option's use of it could be worth."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """What the relaxation found.

    Attributes
    ----------
    master : the program, with all options that were found worth listing.
    prices : of the limits.
    bound : lower bound of the objective; infinite if the program is infeasible.
    reduced : each option's cost above its server's least, at the prices.
    values, units : of the options and the side columns in an optimum of the relaxation.
    """

    master: Master
    prices: FloatArray
    bound: float
    reduced: FloatArray
    values: FloatArray
    units: FloatArray


def solve_relaxation(
    master: Master, *, tolerance: float, covers: Covers | None = None, left_s: Callable[[], float] = lambda: math.inf
) -> Relaxation:
    """Find good prices.

    Parameters
    ----------
    tolerance : relative difference between the relaxation's optimum and the bound at which it is good enough.
    left_s : seconds left; when there are none, the best bound so far is returned.
    """
    severe = _severe_prices(master)
    for _ in range(4):
        found, broken = _sift(master, severe, tolerance, covers, left_s)
        if not broken or left_s() <= 0:
            return found
        if _is_infeasible(found.master, covers, left_s):
            return replace(found, bound=math.inf)
        master, severe = found.master, severe * 100
    return found


def _is_infeasible(master: Master, covers: Covers | None, left_s: Callable[[], float]) -> bool:
    """Whether limits must be broken, even in fractions: by the bound of the program that counts only that."""
    free = None if covers is None else covers.without_cost()
    found, broken = _sift(master.without_cost(), 1 / np.maximum(np.abs(master.most), 1.0), 1e-6, free, left_s)
    return broken and found.bound > 1e-9


def _severe_prices(master: Master) -> FloatArray:
    """Prices of breaking limits at which it hardly ever pays."""
    options = master.options
    most = np.maximum.reduceat(options.cost, options.first)
    spread = float((most - np.minimum.reduceat(options.cost, options.first)).max(initial=0.0))
    spread = spread or float(most.max(initial=0.0)) or 1.0
    use = np.where(options.usage > 0, options.usage, np.inf).min(axis=0, initial=np.inf)
    # Or than what widens it: with that alone a limit may cost something.
    widened = np.maximum(-master.side.usage, 0.0)
    price = np.where(widened > 0, master.side.cost[:, None] / np.where(widened > 0, widened, 1.0), 0.0)
    dearest: FloatArray = np.maximum(spread / np.where(np.isfinite(use), use, 1.0), price.max(axis=0, initial=0.0))
    return SEVERE * dearest


def _sift(
    master: Master, severe: FloatArray, tolerance: float, covers: Covers | None, left_s: Callable[[], float]
) -> tuple[Relaxation, bool]:
    """Solve the relaxation in which limits may be broken at a price; also say whether any is."""
    count = master.options.servers
    free = np.full(count, count <= ALL_AT_ONCE)
    prices = np.zeros(len(master.most)) if free.all() else _sampled_prices(master, severe, tolerance, covers, left_s)
    best_bound, best_prices, optimum, broken = -math.inf, prices, math.inf, False
    values, units = np.zeros(len(master.options)), np.zeros(len(master.side.cost))
    for round_ in range(MOST_ROUNDS):
        if not free.all():
            prices = ascend(master, prices, severe, tolerance)
            second = second_reduced(master.options, master.reduced_costs(prices)[0])
            free[np.argsort(second, kind="stable")[: WAVERING * (round_ + 1)]] = True
        prices, optimum, values, units, broken = _restricted(master, severe, free, prices)
        _, least = master.reduced_costs(prices)
        close = tolerance * max(abs(optimum), 1e-12)
        is_solved = optimum - master.dual_bound(prices, least) <= close  # over the listed options
        if covers is not None:
            least, more = cheaper_options(covers, prices, least)
            master, values = _listed(master, values, more)
            is_solved &= not len(more)
        bound = master.dual_bound(prices, least)
        if bound > best_bound:
            best_bound, best_prices = bound, prices
        if is_solved or optimum - best_bound <= close or left_s() <= 0:
            break
    reduced, _ = master.reduced_costs(best_prices)
    return Relaxation(master, best_prices, best_bound, reduced, values, units), broken


def list_options(relaxation: Relaxation, more: Options) -> Relaxation:
    """Return the same relaxation, with more options listed; those that were are not listed twice."""
    master, values = _listed(relaxation.master, relaxation.values, more)
    which = distinct(master.options, last=False)
    master, values = replace(master, options=master.options.take(which)), values[which]
    reduced, _ = master.reduced_costs(relaxation.prices)
    return replace(relaxation, master=master, reduced=reduced, values=values)


def _listed(master: Master, values: FloatArray, more: Options) -> tuple[Master, FloatArray]:
    """List more options, with values of 0; within their servers they come last."""
    if not len(more):
        return master, values
    old = np.concatenate((np.ones(len(values), dtype=bool), np.zeros(len(more), dtype=bool)))
    order = np.argsort(np.concatenate((master.options.server, more.server)), kind="stable")
    padded = np.zeros(len(order))
    padded[old[order]] = values
    return replace(master, options=join_options((master.options, more))), padded


def ascend(master: Master, prices: FloatArray, severe: FloatArray, tolerance: float) -> FloatArray:
    """Raise the Lagrangian bound of the listed options: cutting planes for groups of servers, inside a trust region.

    Each step evaluates the bound at new prices, which gives a plane above it for each group, and goes to the best
    prices under all planes that are not too far from the best ones known.
    """
    limits, options = len(master.most), master.options
    first, group_of = options.first, np.arange(options.servers) * GROUPS // options.servers
    radius = 0.05 * np.maximum(prices, 0.02 * prices.max(initial=0.0)) + 1e-9 * severe
    rows: list[FloatArray] = []
    heights: list[FloatArray] = []
    centre, height = prices, -math.inf
    for _ in range(MOST_STEPS):
        full = options.cost + options.usage @ prices
        least = np.minimum.reduceat(full, first)
        best = np.flatnonzero(full == least[options.server])
        best = best[np.unique(options.server[best], return_index=True)[1]]
        slopes = np.zeros((GROUPS + 1, limits))
        np.add.at(slopes, group_of, options.usage[best])
        bought = np.where(master.side.cost + master.side.usage @ prices < 0, master.side.upper, 0.0)
        slopes[GROUPS] = bought @ master.side.usage - master.most
        offsets = np.append(np.bincount(group_of, options.cost[best], GROUPS), bought @ master.side.cost)
        rows.append(slopes)
        heights.append(offsets.astype(float))
        value = float(offsets.sum() + slopes.sum(axis=0) @ prices)
        if value > height:
            centre, height = prices, value
        elif len(rows) > 1:
            radius = radius / 3
        prices, promised = _best_under_planes(rows, heights, centre, radius, severe)
        if promised - height <= 0.1 * tolerance * abs(height):
            break
        at_border = (np.abs(prices - centre) > 0.99 * radius).any()
        radius = radius * 2 if value >= height and at_border else radius
    return centre


def _best_under_planes(
    rows: list[FloatArray], heights: list[FloatArray], centre: FloatArray, radius: FloatArray, severe: FloatArray
) -> tuple[FloatArray, float]:
    """Prices within the radius of the centre at which the least of the planes, summed over the groups, is highest."""
    limits, planes, groups = len(centre), len(rows), len(heights[0])
    # Maximise Σ_g θ_g with θ_g ≤ height_gk + slope_gk · prices; HiGHS minimises.
    slopes = np.concatenate(rows)
    matrix = np.concatenate((-slopes, np.tile(np.eye(groups), (planes, 1))), axis=1)
    count, width = matrix.shape
    program = Program(
        costs=np.concatenate((np.zeros(limits), -np.ones(groups))),
        offset=0.0,
        lower=np.concatenate((np.maximum(centre - radius, 0.0), np.full(groups, -np.inf))),
        upper=np.concatenate((np.minimum(centre + radius, severe), np.full(groups, np.inf))),
        whole=np.zeros(width, dtype=bool),
        starts=(width * np.arange(count + 1)).astype(np.int32),
        columns=np.tile(np.arange(width), count).astype(np.int32),
        values=matrix.ravel(),
        row_lower=np.full(count, -np.inf),
        row_upper=np.concatenate(heights),
    )
    found = relax(program)
    assert found is not None  # θ is bounded by the planes, the prices by the radius
    return found.values[:limits], -found.objective


def second_reduced(options: Options, reduced: FloatArray) -> FloatArray:
    """Return each server's second smallest reduced cost; infinite where there is one option."""
    order = np.lexsort((reduced, options.server))
    first = options.first
    counts = np.diff(np.append(first, len(options)))
    second = np.full(options.servers, np.inf)
    several = counts > 1
    second[several] = reduced[order[first[several] + 1]]
    return second


def _sampled_prices(
    master: Master, severe: FloatArray, tolerance: float, covers: Covers | None, left_s: Callable[[], float]
) -> FloatArray:
    servers = np.sort(np.random.default_rng(0).choice(master.options.servers, SAMPLE, replace=False))
    of_sample = None if covers is None else covers.of(servers)
    return _sift(master.sample(servers), severe, tolerance, of_sample, left_s)[0].prices


def _restricted(
    master: Master, severe: FloatArray, free: BoolArray, prices: FloatArray
) -> tuple[FloatArray, float, FloatArray, FloatArray, bool]:
    """Solve over the free servers, the others held: prices, optimum, values, units, whether anything is broken."""
    options = master.options
    is_free = free[options.server]
    reduced, _ = master.reduced_costs(prices)
    held = np.flatnonzero(~is_free & (reduced <= 0))
    held = held[np.unique(options.server[held], return_index=True)[1]]
    chosen = np.flatnonzero(is_free)
    part = options.take(chosen)
    part = replace(part, server=(np.cumsum(free) - 1)[part.server])
    limits = len(master.most)
    breaking = Side(tuple(f"break {name}" for name in master.limits), severe, np.full(limits, np.inf), -np.eye(limits))
    side = Side(
        master.side.names + breaking.names,
        np.concatenate((master.side.cost, breaking.cost)),
        np.concatenate((master.side.upper, breaking.upper)),
        np.concatenate((master.side.usage, breaking.usage)),
    )
    most = master.most - options.usage[held].sum(axis=0)
    found = relax(as_program(Master(part, side, master.limits, most)))
    assert found is not None  # any limit can be broken
    values = np.zeros(len(options))
    values[held] = 1.0
    values[chosen] = found.values[: len(chosen)]
    prices = np.maximum(-found.duals[part.servers :], 0.0)
    scale = np.maximum(np.abs(master.most), 1.0)
    broken = bool((found.values[-limits:] > 1e-7 * scale).any()) if limits else False
    units = found.values[len(chosen) : len(found.values) - limits]
    return prices, found.objective + float(options.cost[held].sum()), values, units, broken
