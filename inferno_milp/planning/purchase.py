"""The cheapest devices which, added to those there are, would serve everybody that an accelerator can serve."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.limits import FITS, Limits, nodes_of
from inferno_milp.columns.options import make_program
from inferno_milp.columns.rows import FloatArray
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import Setting
from inferno_milp.program.core import solve_master
from inferno_milp.program.deadline import until
from inferno_milp.program.highs_engine import run
from inferno_milp.program.master import Master, Options, Side, prune

LEAST_PRICE = 1e-6
"""Price of a device that costs nothing, as a part of the cheapest other: nobody wants more of them than it takes."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """Devices, or nodes of them, to add.

    Attributes
    ----------
    type, devices, count : so many nodes of so many devices; single devices where the type comes without nodes.
    """

    type: str
    devices: int
    count: int


def find_purchase(table: Candidates, *, time_limit_s: float) -> tuple[Purchase, ...] | None:
    """Find the cheapest devices to add.

    Parameters
    ----------
    table : all candidates; a device's price is the least at which an accelerator sells it.

    Returns
    -------
    tuple or None
        None if no devices would do (other limits are too tight), or the time ran out.
    """
    if table.available is None or not len(table.rows) or time_limit_s <= 0:
        return None
    program = make_program(table, pruned=False)
    items = [item for item in purchasable(table) if item.type in table.problem.buyable_types]
    side = _columns(table, program.limits, items)
    master = replace(program.master.without_cost(), side=side)
    master = replace(master, options=prune(_possible(master)))
    solved = solve_master(
        master,
        None if program.covers is None else program.covers.without_cost(),
        gap=0.0,
        left_s=until(time.perf_counter() + time_limit_s),
        run=run,
    )
    if solved.outcome != "optimal":
        return None
    counts = np.round(solved.units[: len(items)]).astype(int).tolist()
    return tuple(replace(item, count=count) for item, count in zip(items, counts, strict=True) if count)


def _possible(master: Master) -> Options:
    """Return the options without those that alone break a limit that no item widens, where their server has others."""
    options, fixed = master.options, ~(master.side.usage < 0).any(axis=0)
    fits = (options.usage <= master.most * (1 + FITS))[:, fixed].all(axis=1)
    has_one = np.zeros(options.servers, dtype=bool)
    has_one[options.server[fits]] = True
    return options.take(np.flatnonzero(fits | ~has_one[options.server]))


def purchasable(table: Candidates) -> list[Purchase]:
    """Return what can be added or taken away, one of each: devices of types that have a candidate, or nodes of them.

    These are the types that may be bought, and those that are there.
    """
    known = table.problem.buyable_types | {name for name, n in (table.problem.devices_available or {}).items() if n}
    return [
        Purchase(name, devices, 1)
        for t, name in enumerate(table.types)
        if name in known and (table.rows.type == t).any()
        for devices in [group.devices for group in nodes_of(table, t)] or [1]
    ]


def widened(table: Candidates, limits: Limits, item: Purchase) -> FloatArray:
    """Return by how much an item raises each of the limits."""
    result, t = np.zeros(len(limits.of)), table.types.index(item.type)
    for j, limit in enumerate(limits.of):
        if limit.name == f"nodes[{item.type},{item.devices}]":
            result[j] = item.count
        elif limit.type == t and not limit.exactly:
            result[j] = item.count * (item.devices // limit.size)
    return result


def settings_of(problem: Problem, items: Sequence[Purchase]) -> tuple[Setting, ...]:
    """Return settings that add items to a problem with limited devices, or take them away where counts are negative.

    Raises
    ------
    ValueError
        If there are not so many.
    """
    capacity, nodes = Counter(problem.capacity), [group.model_dump() for group in problem.nodes]
    for item in items:
        of_type = [group for group in nodes if group["type"] == item.type]
        alike = [group for group in of_type if group["devices"] == item.devices]
        holder: Any = max(alike, key=lambda group: group["count"]) if of_type else capacity
        key = "count" if of_type else item.type
        if holder[key] + item.count < 0:
            raise ValueError(f"there are only {holder[key]} of {item.type} to take away")
        holder[key] += item.count
    return Setting("capacity", "=", dict(capacity)), Setting("nodes", "=", nodes)


def _columns(table: Candidates, limits: Limits, items: Sequence[Purchase]) -> Side:
    """Columns that widen the limits by an item; those that cut nodes come after them."""
    prices = dict(zip(table.types, device_prices(table), strict=True))
    least = min((price for price in prices.values() if 0 < price < np.inf), default=1.0)
    most = float(np.maximum.reduceat(table.rows.devices, _starts(table)).sum())
    cost = [item.devices * (prices[item.type] or LEAST_PRICE * least) for item in items]
    usage = [-widened(table, limits, item) for item in items]
    cuts = limits.side
    return Side(
        (*(f"buy {item.devices} {item.type}" for item in items), *cuts.names),
        np.concatenate((cost, cuts.cost)),
        np.concatenate((np.full(len(items), most), np.full(len(cuts.names), most))),
        np.concatenate((np.reshape(usage, (len(items), len(limits.of))), cuts.usage)),
    )


def _starts(table: Candidates) -> np.ndarray:
    return np.unique(table.rows.server, return_index=True)[1]


def device_prices(table: Candidates) -> list[float]:
    """Return the least price per device and hour of each type."""
    prices = [np.inf] * len(table.types)
    for accelerator in table.problem.accelerators:
        t = table.types.index(accelerator.type)
        prices[t] = min(prices[t], accelerator.cost_per_hour / accelerator.devices)
    return prices


def words_of(table: Candidates, purchase: tuple[Purchase, ...] | None) -> Iterator[str]:
    """Yield what would have to be bought."""
    if not purchase:
        yield from _not_buyable(table)
        return
    servable = "all servers" if not table.unservable.size else "all servers that an accelerator can serve"
    price = f"{purchase_cost_per_hour(table, purchase):.6g} {table.problem.currency}/h"
    yield f"{servable} would fit with {words_of_items(purchase)} more ({price}), the cheapest devices to add"


def purchase_cost_per_hour(table: Candidates, purchase: Sequence[Purchase]) -> float:
    """Return what devices cost per hour, each at the least price at which an accelerator sells it."""
    prices = dict(zip(table.types, device_prices(table), strict=True))
    return sum(item.count * item.devices * prices[item.type] for item in purchase)


def _not_buyable(table: Candidates) -> Iterator[str]:
    """Yield a note where a server runs on no type that there is or that may be bought."""
    buyable = table.problem.buyable_types
    able = np.array([name in buyable for name in table.types])[table.rows.type]
    lost = sorted(set(table.rows.server.tolist()) - set(table.rows.server[able].tolist()))
    if lost:
        types = sorted({table.types[t] for t in table.rows.type[np.isin(table.rows.server, lost)].tolist()})
        names = ", ".join(table.problem.servers[s].name for s in lost[:3]) + (", …" if len(lost) > 3 else "")
        yield f"{names}: only {', '.join(types[:4])} could serve it; name under `buyable` what may be bought"


def words_of_items(items: Sequence[Purchase]) -> str:
    """List devices: `2 A100, 1 node(s) of 8 H100`."""
    return ", ".join(
        f"{item.count} {item.type}" if item.devices == 1 else f"{item.count} node(s) of {item.devices} {item.type}"
        for item in items
    )
