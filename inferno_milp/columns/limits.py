"""The limits that all servers share: devices of each type, room in nodes, budget, power, changes of accelerator."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.packing import cuttings, is_chain, pack, slots
from inferno_milp.columns.rows import FloatArray, Rows
from inferno_milp.problem.supply import NodeGroup
from inferno_milp.program.master import Side, no_side

BUDGET, POWER, CHANGES = "budget", "power", "changes"
FITS = 1e-9
"""Relative tolerance on limits."""
USUAL_PRICES = (1e-2, 1e6)
"""Prices of a replica that a budget is counted in as they are."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit, and whose devices count against it.

    Attributes
    ----------
    type : position of the accelerator type; None where it is about no type.
    size : devices of a replica: smaller ones do not count; each counts for as many as it is multiples of that.
    exactly : whether larger ones do not count either.
    unit : what usage and `most` are counted in, a power of two; 1 but for budgets of tiny or huge prices.
    widest : what may be used once side columns have widened the limit as far as they can; None: they widen nothing.
    """

    name: str
    most: float
    type: int | None = None
    size: int = 1
    exactly: bool = False
    widest: float | None = None
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits, and the side columns that they need.

    Attributes
    ----------
    side : ways to cut nodes, where sizes do not divide one another.
    """

    of: tuple[_Limit, ...]
    side: Side

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each."""
        return tuple(limit.name for limit in self.of)

    @property
    def most(self) -> FloatArray:
        """What of each may be used."""
        return np.array([limit.most for limit in self.of], dtype=float)

    @property
    def widest(self) -> FloatArray:
        """What of each one server could use at most, side columns counted."""
        return np.array([limit.most if limit.widest is None else limit.widest for limit in self.of], dtype=float)

    def admits(self, usage: FloatArray) -> npt.NDArray[np.bool_]:
        """Return whether each option (rows of `usage`, options × limits) keeps every limit if it is the only one."""
        widest = self.widest
        return np.asarray((usage <= widest + FITS * np.abs(widest)).all(axis=1))

    def index(self, name: str) -> int | None:
        """Position of a limit by its name."""
        return next((i for i, limit in enumerate(self.of) if limit.name == name), None)

    def of_replicas(self, rows: Rows) -> FloatArray:
        """Return what one replica of each row uses, rows × limits: devices, room and budget."""
        usage = np.zeros((len(rows), len(self.of)))
        for j, limit in enumerate(self.of):
            if limit.type is not None:
                devices = rows.devices_per_replica
                counts = (rows.type == limit.type) & (devices >= limit.size)
                only = counts & (devices == limit.size) if limit.exactly else counts
                usage[:, j] = np.where(only, devices // limit.size, 0)
            elif limit.name == BUDGET:
                usage[:, j] = rows.price_per_replica / limit.unit
        return usage


def find_limits(table: Candidates) -> Limits:
    """Find the limits of a problem, given its candidates."""
    listed = list(_device_limits(table))
    options = table.problem.options
    if options.max_cost_per_hour is not None:
        unit = _unit_of(table.rows.price_per_replica)
        listed.append(_Limit(BUDGET, options.max_cost_per_hour / unit, unit=unit))
    power = [options.max_power_w] if options.max_power_w is not None else []
    if options.max_carbon_kg_per_hour is not None and options.carbon_kg_per_kwh:
        power.append(1000 * options.max_carbon_kg_per_hour / options.carbon_kg_per_kwh)
    if power:
        listed.append(_Limit(POWER, min(power)))
    if options.max_changes is not None:
        listed.append(_Limit(CHANGES, float(options.max_changes)))
    return Limits(tuple(listed), _cutting_columns(table, tuple(listed)))


def _unit_of(prices: FloatArray) -> float:
    """Return 1, or a power of two near the median price where tolerances of a solver would swallow such prices."""
    positive = prices[prices > 0]
    typical = float(np.median(positive)) if positive.size else 1.0
    low, high = USUAL_PRICES
    return 1.0 if low <= typical <= high else 2.0 ** round(math.log2(typical))


def nodes_of(table: Candidates, type_: int) -> tuple[NodeGroup, ...]:
    """Return the groups of nodes of an accelerator type by size, those of equal size as one; none without limits."""
    counts: Counter[int] = Counter()
    for group in table.problem.nodes if table.available is not None else ():
        if group.type == table.types[type_]:
            counts[group.devices] += group.count
    return tuple(NodeGroup(type=table.types[type_], devices=d, count=n) for d, n in sorted(counts.items()))


def sizes_of(table: Candidates, type_: int) -> list[int]:
    """Return the devices that replicas of a type take, rising; those that no node holds are left out."""
    rows = table.rows
    largest = max((group.devices for group in nodes_of(table, type_)), default=0)
    sizes = np.unique(rows.devices_per_replica[rows.type == type_])
    return [int(size) for size in sizes if size <= largest]


def packs(table: Candidates, type_: int, counts: Mapping[int, int]) -> bool:
    """Whether the nodes of a type hold so many replicas of each number of devices."""
    sizes = sorted(size for size, count in counts.items() if count)
    return pack(nodes_of(table, type_), sizes, [counts[size] for size in sizes]) is not None


def _device_limits(table: Candidates) -> Iterator[_Limit]:
    if table.available is None:
        return
    for t, name in enumerate(table.types):
        groups = nodes_of(table, t)
        if not groups:
            yield _Limit(f"capacity[{name}]", float(table.available[t]), t)
            continue
        sizes, largest = sizes_of(table, t), groups[-1].devices
        if is_chain(sizes):
            yield from (_Limit(f"room[{name},{size}]", float(slots(groups, size)), t, size) for size in sizes)
        else:
            for size in sizes:
                widest = float(slots(groups, size))
                yield _Limit(f"room[{name},{size}]", 0.0, t, size, exactly=True, widest=widest)
            yield from (_Limit(f"nodes[{name},{group.devices}]", float(group.count)) for group in groups)
        # Replicas that no node holds, which there must be none of.
        yield _Limit(f"room[{name},>{largest}]", 0.0, t, largest + 1)


def _cutting_columns(table: Candidates, limits: tuple[_Limit, ...]) -> Side:
    """Columns that cut nodes into the sizes of replicas, where the sizes of a type do not divide one another."""
    position = {limit.name: j for j, limit in enumerate(limits)}
    names, upper, usage = [], [], []
    for t, name in enumerate(table.types):
        groups, sizes = nodes_of(table, t), sizes_of(table, t)
        if not groups or table.available is None or is_chain(sizes):
            continue
        for way in cuttings(groups, sizes):
            use = np.zeros(len(limits))
            for size, count in zip(sizes, way.counts, strict=True):
                use[position[f"room[{name},{size}]"]] = -count
            use[position[f"nodes[{name},{groups[way.group].devices}]"]] = 1
            names.append(f"cut[{name},{groups[way.group].devices},{'+'.join(map(str, way.counts))}]")
            upper.append(float(groups[way.group].count))
            usage.append(use)
    if not names:
        return no_side(len(limits))
    return Side(tuple(names), np.zeros(len(names)), np.array(upper), np.array(usage))
