"""Planes below what moments cost, and the reservation of least cost over them: the master of a decomposition."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from inferno_milp.planning.horizon.ways import FloatArray
from inferno_milp.program.highs_engine import Program, relax, run

WHOLE_GAP = 1e-6
"""Relative gap of the program in which reservations are whole."""


@dataclass(frozen=True, slots=True)
class Planes:
    """Planes of groups of moments.

    Attributes
    ----------
    fixed : what a reserved unit costs over all moments.
    most : units of each accelerator of which more are never of use.
    values, slopes : planes: the cost of a group is at least value − slope · reserved; planes × groups (× accelerators).
    """

    fixed: FloatArray
    most: FloatArray
    values: list[FloatArray] = field(default_factory=list)
    slopes: list[FloatArray] = field(default_factory=list)

    def add(self, values: FloatArray, slopes: FloatArray) -> None:
        """Add a plane for every group."""
        self.values.append(values)
        self.slopes.append(slopes)

    def least(
        self,
        time_limit_s: float,
        *,
        lower: FloatArray | None = None,
        upper: FloatArray | None = None,
        whole: bool = False,
    ) -> tuple[float, FloatArray] | None:
        """Return the least cost of reservations over the planes, a lower bound of it if whole, and where it is.

        Parameters
        ----------
        lower, upper : bounds of the reservations; None: from 0 to `most`.
        """
        lower = np.zeros(len(self.most)) if lower is None else lower
        upper = self.most if upper is None else upper
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
        found = run(program, gap=WHOLE_GAP, time_limit_s=time_limit_s)
        if found.values is None or found.bound is None:
            return None
        return found.bound, np.round(found.values[:count])
