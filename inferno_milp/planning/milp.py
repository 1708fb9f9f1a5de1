"""The mixed-integer program: everybody at least cost or, where that cannot be, as many as can be by priority."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inferno_milp.columns.choice import Choice, Outcome
from inferno_milp.columns.options import Program
from inferno_milp.plan import PriorityUse
from inferno_milp.planning.priorities import Level, priorities_of, solve_by_priority, weights_of
from inferno_milp.program.core import Solved, solve_master
from inferno_milp.program.highs import Runner
from inferno_milp.program.highs_engine import version
from inferno_milp.program.in_time import runner_for

NAME = "milp (HiGHS)"
ROUNDING = 1e-8
"""Part of the weight of a priority that is rounding in what could be served."""


def solve_milp(program: Program, *, gap: float, left_s: Callable[[], float] = lambda: math.inf) -> Choice:
    """Solve the program of a problem.

    Parameters
    ----------
    gap : relative gap between cost and bound at which the choice counts as optimal.
    left_s : seconds left; infinite without a limit. With one, HiGHS solves large programs in a process of its own,
        that can be ended; small ones it ends in time by itself.
    """
    began = time.perf_counter()
    if left_s() <= 0 and program.table.needs.any():
        found = _choice(program, Solved("no_solution", None, np.empty(0), None, None), {})
    else:
        with runner_for(left_s, size=program.master.options.usage.size) as runner:
            found = _solve(program, gap, left_s, runner)
    return replace(found, wall_s=time.perf_counter() - began)


def _solve(program: Program, gap: float, left_s: Callable[[], float], runner: Runner) -> Choice:
    levels: dict[int, Level] = {}
    if not len(program.servers):
        solved = Solved("optimal", program.master.options, np.empty(0), 0.0, 0.0)
    else:
        solved = solve_master(program.master, program.covers, gap=gap, left_s=left_s, run=runner)
    if solved.outcome == "infeasible":
        solved, levels = solve_by_priority(program, gap=gap, left_s=left_s, run=runner)
    return _choice(program, solved, levels)


def _choice(program: Program, solved: Solved, levels: dict[int, Level]) -> Choice:
    """Return what each server runs; where no server is served and it is proven that none can be, it is infeasible."""
    served = ~program.table.needs
    server, row, replicas = (np.empty(0, dtype=np.int64) for _ in range(3))
    outcome: Outcome = solved.outcome
    priorities: tuple[PriorityUse, ...] = ()
    if solved.chosen is not None:
        counts = np.diff(solved.chosen.starts)
        served[program.servers] = counts > 0
        server, row, replicas = np.repeat(program.servers, counts), solved.chosen.row, solved.chosen.replicas
        if not served.all():
            priorities = _priorities(program, levels)
        if priorities and not len(row):
            proven = all(use.could <= ROUNDING * use.weight for use in priorities)
            outcome = "infeasible" if proven else "no_solution"
            priorities = priorities if proven else ()
    has_plan = outcome in ("optimal", "feasible")
    return Choice(
        candidates=program.table,
        server=server,
        row=row,
        replicas=replicas,
        served=served,
        outcome=outcome,
        priorities=priorities,
        objective=solved.objective if has_plan else None,
        bound=solved.bound if has_plan or solved.chosen is None else None,
        solver=NAME,
        version=version(),
        wall_s=0.0,
    )


def _priorities(program: Program, levels: dict[int, Level]) -> tuple[PriorityUse, ...]:
    """Return for each priority what is served and could be; one that is not in `levels` loses only who was left out."""
    needs, weights, priority = program.table.needs, weights_of(program.table), priorities_of(program.table)
    result = []
    for level in np.unique(priority[needs]).tolist():
        total = float(weights[needs & (priority == level)].sum())
        lost = float(weights[program.left_out[priority[program.left_out] == level]].sum())
        found = levels.get(level, Level(total - lost, total - lost))
        result.append(PriorityUse(int(level), total, found.served, found.could))
    return tuple(result)
