"""What the limits still have room for, as allocations are made one after the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.energy import replica_power_w
from inferno_milp.columns.limits import CHANGES, FITS, POWER, Limits, nodes_of, packs, sizes_of
from inferno_milp.columns.packing import is_chain
from inferno_milp.columns.rows import FloatArray, IntArray, Rows
from inferno_milp.problem.transition import price_today

WHOLE = 0.5
"""Tolerance on limits of what is counted, at most."""


@dataclass(frozen=True, slots=True)
class Lack:
    """A limit that an allocation would break.

    Attributes
    ----------
    limit : name of the limit.
    type : accelerator type; None for a limit of no type.
    size : devices that must be in one node; 1 where that does not matter.
    needs, left : of the limit.
    """

    limit: str
    type: str | None
    size: int
    needs: float
    left: float


class Room:
    """Slack of every limit. Where nodes are cut in many ways, whether replicas fit is found out by packing them."""

    def __init__(self, table: Candidates, limits: Limits):
        self.table = table
        self.limits = limits
        self.slack = self.limits.most.copy()
        self._todays = price_today(table.problem)
        self.tolerance = FITS * np.maximum(np.abs(self.slack), 1.0)
        counted = np.array([limit.type is not None for limit in self.limits.of], dtype=bool)
        self.tolerance[counted] = np.minimum(self.tolerance[counted], WHOLE)  # of a billion devices it would be one
        self._cut: dict[int, Counter[int]] = {
            t: Counter() for t in range(len(table.types)) if nodes_of(table, t) and not is_chain(sizes_of(table, t))
        }
        self._plain = np.array([not limit.exactly for limit in self.limits.of], dtype=bool)

    def usage(self, rows: Rows, replicas: IntArray, rate_per_s: FloatArray) -> FloatArray:
        """Return what allocations use of each limit, allocations × limits.

        Parameters
        ----------
        rate_per_s : of each replica; NaN without a load.
        """
        usage = self.limits.of_replicas(rows) * replicas[:, None]
        problem = self.table.problem
        if (j := self.limits.index(POWER)) is not None:
            usage[:, j] = replica_power_w(self.table, rows, rate_per_s) * replicas
        if (j := self.limits.index(CHANGES)) is not None:
            names = [problem.accelerators[a].name for a in rows.accelerator.tolist()]
            for i, (server, name) in enumerate(zip(rows.server.tolist(), names, strict=True)):
                usage[i, j] = self._todays[server].is_changed([name])
        return usage

    def lacks(self, usage: FloatArray, row: int, rows: Rows, replicas: int) -> list[Lack]:
        """Return which limits an allocation would break."""
        lacks = []
        for j in np.flatnonzero((usage > self.slack + self.tolerance) & self._plain).tolist():
            limit = self.limits.of[j]
            name = None if limit.type is None else self.table.types[limit.type]
            # Replicas too large for any node share a limit, which knows by how much only of the smallest.
            size = int(rows.devices_per_replica[row]) if ">" in limit.name else limit.size
            needs, left = limit.unit * float(usage[j]), limit.unit * max(float(self.slack[j]), 0.0)
            lacks.append(Lack(limit.name, name, size, needs, left))
        type_, size = int(rows.type[row]), int(rows.devices_per_replica[row])
        if not lacks and replicas and type_ in self._cut and not self._packs(type_, size, replicas):
            lacks.append(Lack("nodes", self.table.types[type_], size, replicas, self._most(type_, size, replicas)))
        return lacks

    def _packs(self, type_: int, size: int, replicas: int) -> bool:
        return packs(self.table, type_, self._cut[type_] + Counter({size: replicas}))

    def _most(self, type_: int, size: int, below: int) -> int:
        fits, fails = 0, below
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self._packs(type_, size, middle) else (fits, middle)
        return fits

    def take(self, usage: FloatArray, row: int, rows: Rows, replicas: int) -> None:
        """Take the room of an allocation."""
        self.slack = self.slack - usage
        if int(rows.type[row]) in self._cut:
            self._cut[int(rows.type[row])][int(rows.devices_per_replica[row])] += replicas
