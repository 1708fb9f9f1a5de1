"""What a solver hands back: the replicas it chose, and what it proves of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.rows import BoolArray, IntArray
from inferno_milp.plan import PriorityUse

Outcome = Literal["optimal", "feasible", "infeasible", "no_solution", "heuristic"]
"""optimal: proven within the gap; feasible: a solution that is not; infeasible: proven that nobody can be served;
no_solution: the time ran out without one; heuristic: nothing is proven and servers may be left out."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Replicas chosen by a solver.

    Attributes
    ----------
    candidates : the table that `row` points into.
    server, row, replicas : the allocations, in the order of the servers.
    served : of all servers of the problem, whether it is served in full.
    priorities : what could be served, where not everybody was; empty where nothing is known of that.
    objective, bound : of the optimization; None where there is none.
    solver, version, wall_s : who solved it, and how long it took.
    """

    candidates: Candidates
    server: IntArray
    row: IntArray
    replicas: IntArray
    served: BoolArray
    outcome: Outcome
    priorities: tuple[PriorityUse, ...]
    objective: float | None
    bound: float | None
    solver: str
    version: str
    wall_s: float
