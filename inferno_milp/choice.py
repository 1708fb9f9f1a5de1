"""What a solver hands back: the candidates it chose, and what it proves of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from inferno_milp.candidates import Candidates

Outcome = Literal["optimal", "feasible", "infeasible", "no_solution", "heuristic"]
"""optimal: proven within the gap; feasible: a solution that is not; infeasible: proven that there is none;
no_solution: the time ran out without one; heuristic: nothing is proven and servers may be left out."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Candidates chosen by a solver.

    Attributes
    ----------
    candidates : the table that `rows` points into.
    rows : positions of the chosen rows, at most one per server.
    objective, bound : of the optimization; None where there is none.
    solver, version, wall_s : who solved it, and how long it took.
    """

    candidates: Candidates
    rows: npt.NDArray[np.intp]
    outcome: Outcome
    objective: float | None
    bound: float | None
    solver: str
    version: str
    wall_s: float
