"""What one moment costs once it is known what is reserved: a program of its own, in the arrays of `core`.

Every server picks a pattern of replicas that carries its rate; what the patterns use of an accelerator beyond the
reserved units is bought on demand. Prices of the reserved units, from the linear relaxation, say what one more would
save: for any reservation, not only the one that they were found at, they give a lower bound of the moment's cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.columns.options import UNLIMITED_REPLICAS, first_options, pruned_covers
from inferno_milp.planning.horizon.program import ENOUGH
from inferno_milp.planning.horizon.ways import FloatArray, IntArray, Ways
from inferno_milp.program.core import solve_master, tolerance_of
from inferno_milp.program.covers import Covers
from inferno_milp.program.highs_engine import run
from inferno_milp.program.master import Master, Options, Side, prune
from inferno_milp.program.relaxation import Relaxation, solve_relaxation

SLIGHT = 1e-9
LEAST_S = 0.05
"""Seconds that a moment gets at the least, where rounding finds nothing."""
MOST_MOVES = 200
"""By which a rounded relaxation is bettered."""


@dataclass(frozen=True, slots=True)
class Recourse:
    """The program of one moment.

    Attributes
    ----------
    master, covers : as in `core`. The first limits are the reserved units of each accelerator, in the order of the
        problem; then come those of devices and nodes. The first side columns are units beyond the reserved ones. None
        if nobody needs anything.
    is_servable : whether every server that needs something can run somewhere.
    """

    master: Master | None
    covers: Covers | None
    is_servable: bool


@dataclass(frozen=True, slots=True)
class Recoursed:
    """What a moment comes to with a reservation.

    Attributes
    ----------
    replicas : of each way; None if nothing was found.
    cost : per hour, of what is beyond the reservation; None where there is none.
    is_infeasible : whether it is proven that the servers do not fit.
    """

    replicas: IntArray | None
    cost: float | None
    is_infeasible: bool = False


def find_recourse(ways: Ways, moment: int) -> Recourse:
    """Lay out the program of a moment, mixed assignment."""
    problem, required = ways.problem, ways.required_per_s[:, moment]
    needing = [s for s, server in enumerate(problem.servers) if required[s] > 0 or server.min_replicas]
    servers = [s for s in needing if ways.of(s)]
    if len(servers) < len(needing) or not servers:
        return Recourse(None, None, len(servers) == len(needing))
    everything = _covers(ways, servers, required)
    covers = pruned_covers(everything)
    options = first_options(covers)
    if len(np.unique(options.server)) < len(servers):
        return Recourse(None, None, is_servable=False)  # more replicas are needed than a server may have
    names = [one.name for one in problem.accelerators]
    side = _side(ways, _most_units(everything, len(names)))
    limits = (*(f"reserved {name}" for name in names), *ways.limits.names)
    room = np.concatenate([np.zeros(len(names)), ways.limits.most])
    return Recourse(Master(prune(options), side, limits, room), covers, is_servable=True)


def _covers(ways: Ways, servers: Sequence[int], required: FloatArray) -> Covers:
    """Return a case for each server: its ways, what they carry of what is required, and what they use."""
    problem, rows = ways.problem, ways.rows
    accelerators, shared = len(problem.accelerators), len(ways.limits.of)
    shape = (len(servers), max(len(ways.of(s)) for s in servers))
    entries, row, rate = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64), np.zeros(shape)
    usage, nothing = np.zeros((*shape, accelerators + shared)), np.zeros(shape)
    least = np.array([problem.servers[s].min_replicas for s in servers], dtype=np.int64)
    most = [problem.servers[s].max_replicas or UNLIMITED_REPLICAS for s in servers]
    for i, s in enumerate(servers):
        own = np.array(ways.of(s))
        here = np.arange(len(own))
        entries[i, here], row[i, here] = True, own
        # Rates as parts of the required one, as tolerances are absolute; of who has none only the replicas count.
        rate[i, here] = np.minimum(rows.max_rate_per_s[own] / required[s], ENOUGH) if required[s] > 0 else 1.0
        usage[i, here, rows.accelerator[own]] = ways.units[own]
        usage[i, here, accelerators:] = ways.usage[own]
    has_rate = required[servers] > 0
    return Covers(
        server=np.arange(len(servers)),
        required=np.where(has_rate, 1.0, least),
        fixed_cost=np.zeros(len(servers)),
        fixed_price=np.zeros(len(servers)),
        fixed_usage=np.zeros((len(servers), accelerators + shared)),
        least=np.maximum(least, has_rate),  # however little the rate is, somebody runs
        most=np.array(most, dtype=np.int64),
        entries=entries,
        row=row,
        rate=rate,
        cost=nothing,
        price=nothing,
        usage=usage,
        forced=np.zeros(shape, dtype=np.int64),
    )


def _most_units(covers: Covers, accelerators: int) -> FloatArray:
    """Return the units of each accelerator of which more are never of use."""
    alone = np.ceil(covers.required[:, None] / np.where(covers.entries, covers.rate, 1.0))
    replicas = np.minimum(np.maximum(alone, covers.least[:, None]), covers.most[:, None]) * covers.entries
    units: FloatArray = np.einsum("sw,swa->a", replicas, covers.usage[:, :, :accelerators])
    return units


def _side(ways: Ways, most_units: FloatArray) -> Side:
    """Return the columns of units beyond the reserved ones, and of nodes that are cut up."""
    accelerators, cuts = ways.problem.accelerators, ways.limits.side
    usage = np.zeros((len(accelerators) + len(cuts.names), len(accelerators) + len(ways.limits.of)))
    usage[: len(accelerators), : len(accelerators)] = -np.eye(len(accelerators))
    usage[len(accelerators) :, len(accelerators) :] = cuts.usage
    return Side(
        names=(*(f"{one.name} on demand" for one in accelerators), *cuts.names),
        cost=np.concatenate([[one.cost_per_hour for one in accelerators], cuts.cost]),
        upper=np.concatenate([most_units, cuts.upper]),
        usage=usage,
    )


def _with_reserved(master: Master, reserved: FloatArray, prices: FloatArray | None = None) -> Master:
    """Return the program with reserved units of each accelerator, and perhaps other prices of those beyond."""
    most = master.most.copy()
    most[: len(reserved)] = reserved
    side = master.side
    if prices is not None:
        side = replace(side, cost=np.concatenate([prices, side.cost[len(prices) :]]))
    return replace(master, most=most, side=side)


@dataclass(frozen=True, slots=True)
class Plane:
    """A bound below a moment's cost: at least `value` − `prices` · reserved, whatever is reserved.

    Attributes
    ----------
    value : per hour; infinite if the servers do not fit.
    prices : of a reserved unit of each accelerator.
    units : of each accelerator that the relaxation takes.
    """

    value: float
    prices: FloatArray
    units: FloatArray


def relax_recourse(
    recourse: Recourse,
    reserved: FloatArray,
    *,
    tolerance: float,
    left_s: Callable[[], float],
    prices: FloatArray | None = None,
) -> tuple[Recourse, Plane]:
    """Relax a moment's program; the one that is returned knows the patterns that were found.

    Parameters
    ----------
    reserved : units of each accelerator.
    prices : of units beyond the reserved ones; None: on demand.
    """
    count = len(reserved)
    if recourse.master is None:
        return recourse, Plane(0.0 if recourse.is_servable else np.inf, np.zeros(count), np.zeros(count))
    master = _with_reserved(recourse.master, reserved, prices)
    found = solve_relaxation(master, tolerance=tolerance, covers=recourse.covers, left_s=left_s)
    slope = found.prices[:count]
    known = replace(recourse, master=replace(recourse.master, options=found.master.options))
    units = found.values @ found.master.options.usage[:, :count]
    return known, Plane(found.bound + float(slope @ reserved), slope, units)


def solve_recourse(
    recourse: Recourse,
    reserved: FloatArray,
    ways: int,
    *,
    gap: float,
    left_s: Callable[[], float],
    prices: FloatArray | None = None,
) -> Recoursed:
    """Find the replicas of a moment.

    Parameters
    ----------
    ways : how many there are.
    """
    if recourse.master is None:
        if recourse.is_servable:
            return Recoursed(np.zeros(ways, dtype=np.int64), 0.0)
        return Recoursed(None, None, is_infeasible=True)
    master = _with_reserved(recourse.master, reserved, prices)
    first = solve_relaxation(master, tolerance=tolerance_of(gap), covers=recourse.covers, left_s=left_s)
    if first.bound == math.inf:
        return Recoursed(None, None, is_infeasible=True)
    chosen = start = _rounded(first, len(reserved))
    if left_s() > 0 or start is None:
        solved = solve_master(
            first.master,
            recourse.covers,
            gap=gap,
            left_s=lambda: max(left_s(), LEAST_S if start is None else 0.0),
            run=run,
            start=start,
            start_units=None if start is None else _beyond(start, reserved),
            relaxation=first,
        )
        if solved.chosen is None:
            return Recoursed(None, None, is_infeasible=solved.outcome == "infeasible")
        chosen = solved.chosen
    assert chosen is not None
    replicas = np.zeros(ways, dtype=np.int64)
    np.add.at(replicas, chosen.row, chosen.replicas)
    cost = float(master.side.cost[: len(reserved)] @ _beyond(chosen, reserved))
    return Recoursed(replicas, cost)


def _beyond(chosen: Options, reserved: FloatArray) -> FloatArray:
    """Return the units of each accelerator that patterns take beyond the reserved ones."""
    beyond: FloatArray = np.maximum(chosen.usage.sum(axis=0)[: len(reserved)] - reserved, 0.0)
    return beyond


def _rounded(found: Relaxation, accelerators: int) -> Options | None:
    """Round a relaxation, and better it by one server's pattern at a time, with what is beyond the reserved bought.

    None if the devices are not enough so, or nodes must be cut up.
    """
    master = found.master
    if len(master.side.cost) > accelerators:
        return None
    options, price = master.options, master.side.cost
    # Too many devices count more than anything that units could cost.
    severe = float(price @ master.side.upper) + 1.0
    weight = np.concatenate([price, np.full(len(master.most) - accelerators, severe)])
    order = np.lexsort((found.reduced, -found.values, options.server))
    chosen = order[options.first]
    used = options.usage[chosen].sum(axis=0)
    for _ in range(MOST_MOVES):
        beyond = np.maximum(used - master.most, 0.0)
        moved = used + options.usage - options.usage[chosen][options.server]
        change = (np.maximum(moved - master.most, 0.0) - beyond) @ weight
        best = int(np.argmin(change))
        if change[best] >= -SLIGHT * price.max(initial=0.0):
            break
        used = moved[best]
        chosen[options.server[best]] = best
    return options.take(chosen) if (used <= master.most + 1e-9)[accelerators:].all() else None
