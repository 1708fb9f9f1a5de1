"""The cheapest devices which, added to those there are, would serve everybody that an accelerator can serve."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.candidates import Candidates
from inferno_milp.core import solve_master
from inferno_milp.highs_engine import run
from inferno_milp.limits import Limits, nodes_of
from inferno_milp.master import Side, prune
from inferno_milp.options import make_program

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
    bought, side = _columns(table, program.limits)
    master = replace(program.master.without_cost(), side=side)
    master = replace(master, options=prune(master.options))
    end = time.perf_counter() + time_limit_s
    solved = solve_master(
        master,
        None if program.covers is None else program.covers.without_cost(),
        gap=0.0,
        left_s=lambda: max(end - time.perf_counter(), 0.0),
        run=run,
    )
    if solved.outcome != "optimal":
        return None
    counts = np.round(solved.units[: len(bought)]).astype(int).tolist()
    return tuple(replace(item, count=count) for item, count in zip(bought, counts, strict=True) if count)


def _columns(table: Candidates, limits: Limits) -> tuple[list[Purchase], Side]:
    """Columns that widen the limits by a device, or by a node; those that cut nodes come after them."""
    assert table.available is not None
    prices = device_prices(table)
    least = min((price for price in prices if price > 0), default=1.0)
    most = float(np.maximum.reduceat(table.rows.devices, _starts(table)).sum())
    items, cost, usage = [], [], []
    for t, name in enumerate(table.types):
        if not np.isfinite(prices[t]) or not (table.rows.type == t).any():
            continue
        for devices in [group.devices for group in nodes_of(table, t)] or [1]:
            widened = np.zeros(len(limits.of))
            for j, limit in enumerate(limits.of):
                if limit.name == f"nodes[{name},{devices}]":
                    widened[j] = -1
                elif (limit.type == t and not limit.exactly and limit.most > 0) or limit.name == f"capacity[{name}]":
                    widened[j] = -(devices // limit.size)
            items.append(Purchase(name, devices, 0))
            cost.append(devices * (prices[t] or LEAST_PRICE * least))
            usage.append(widened)
    cuts = limits.side
    side = Side(
        (*(f"buy {item.devices} {item.type}" for item in items), *cuts.names),
        np.concatenate((cost, cuts.cost)),
        np.concatenate((np.full(len(items), most), np.full(len(cuts.names), most))),
        np.concatenate((np.reshape(usage, (len(items), len(limits.of))), cuts.usage)),
    )
    return items, side


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
    """Say what would have to be bought."""
    if not purchase:
        return
    servable = "all servers" if not table.unservable.size else "all servers that an accelerator can serve"
    listed = ", ".join(
        f"{item.count} {item.type}" if item.devices == 1 else f"{item.count} node(s) of {item.devices} {item.type}"
        for item in purchase
    )
    yield f"{servable} would fit with {listed} more, the cheapest devices to add"
