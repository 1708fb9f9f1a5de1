"""Other solvers on a program in arrays, each in a process of its own: `python -m benchmarks.rivals NAME` is the child.

Importing highspy before OR-Tools breaks the latter, and a solver that ignores its time limit can be ended.
"""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

GRACE_S = 60.0
"""Seconds after its limit at which a rival is ended; what it takes to read the program comes on top."""
CENTS = 10_000
"""CP-SAT knows whole numbers only: costs are multiplied by this."""


@dataclass(frozen=True)
class Outcome:
    """What a rival found: seconds of its solving alone, and objective and bound where it has them."""

    solve_s: float
    objective: float | None
    bound: float | None

    @property
    def gap(self) -> float | None:
        """Relative gap."""
        if self.objective is None or self.bound is None:
            return None
        return max(self.objective - self.bound, 0.0) / max(abs(self.objective), 1e-9)


def solve_apart(name: str, program: Any, *, gap: float, limit_s: float) -> Outcome:
    """Solve a `highs_engine.Program` with a rival: `highs`, `cbc` or `cpsat`.

    Raises
    ------
    RuntimeError
        If the rival fails.
    """
    fields = {key: getattr(program, key) for key in program.__slots__}
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.rivals", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        out, _ = child.communicate(pickle.dumps((fields, gap, limit_s)), timeout=2 * limit_s + GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Outcome(math.inf, None, None)
    if child.returncode:
        raise RuntimeError(f"{name} failed")
    return Outcome(**json.loads(out.splitlines()[-1]))


def highs(fields: dict[str, Any], gap: float, limit_s: float) -> Outcome:
    """Plain HiGHS: the program handed over as arrays, which is the fastest road to it."""
    from inferno_milp.program.highs_engine import Program, run

    program = Program(**fields)
    start = time.perf_counter()
    found = run(program, gap=gap, time_limit_s=limit_s)
    return Outcome(time.perf_counter() - start, found.objective, found.bound)


def cbc(fields: dict[str, Any], gap: float, limit_s: float) -> Outcome:
    """CBC through PuLP, as people use it: what PuLP takes to write the file counts."""
    import pulp

    problem = pulp.LpProblem("rival", pulp.LpMinimize)
    kinds = [pulp.LpInteger if whole else pulp.LpContinuous for whole in fields["whole"]]
    upper = [None if math.isinf(u) else float(u) for u in fields["upper"]]
    variables = [
        pulp.LpVariable(f"x{i}", float(low), high, kind)
        for i, (low, high, kind) in enumerate(zip(fields["lower"], upper, kinds, strict=True))
    ]
    problem += pulp.LpAffineExpression(zip(variables, fields["costs"].tolist(), strict=True)) + fields["offset"]
    starts, columns, values = fields["starts"], fields["columns"].tolist(), fields["values"].tolist()
    for i, (low, high) in enumerate(zip(fields["row_lower"], fields["row_upper"], strict=True)):
        part = range(starts[i], starts[i + 1])
        body = pulp.LpAffineExpression([(variables[columns[k]], values[k]) for k in part])
        if low == high:
            problem += body == float(low)
            continue
        if math.isfinite(low):
            problem += body >= float(low)
        if math.isfinite(high):
            problem += body <= float(high)
    start = time.perf_counter()
    problem.solve(pulp.PULP_CBC_CMD(msg=False, gapRel=gap, timeLimit=limit_s, threads=2))
    seconds = time.perf_counter() - start
    found = problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    objective = float(pulp.value(problem.objective)) if found else None
    proven = problem.status == pulp.LpStatusOptimal and seconds < limit_s
    return Outcome(seconds, objective, objective * (1 - gap) if proven and objective else None)


def cpsat(fields: dict[str, Any], gap: float, limit_s: float) -> Outcome:
    """CP-SAT of OR-Tools on both cores; rates of mixed assignments, which are no whole numbers, it is not given."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    variables = [
        model.new_int_var(int(low), int(high), f"x{i}")
        for i, (low, high) in enumerate(zip(fields["lower"], fields["upper"], strict=True))
    ]
    starts, columns = fields["starts"], fields["columns"].tolist()
    values = np.round(fields["values"]).astype(int).tolist()
    for i, (low, high) in enumerate(zip(fields["row_lower"], fields["row_upper"], strict=True)):
        part = range(starts[i], starts[i + 1])
        body = sum(variables[columns[k]] * values[k] for k in part)
        if low == high:
            model.add(body == int(low))
        elif math.isfinite(high):
            model.add(body <= int(high))
    costs = np.round(fields["costs"] * CENTS).astype(int).tolist()
    model.minimize(sum(cost * x for cost, x in zip(costs, variables, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.relative_gap_limit = gap
    solver.parameters.max_time_in_seconds = limit_s
    solver.parameters.num_workers = 2
    start = time.perf_counter()
    status = solver.solve(model)
    seconds = time.perf_counter() - start
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return Outcome(seconds, solver.objective_value / CENTS if found else None, solver.best_objective_bound / CENTS)


def main() -> None:
    """Be the child."""
    fields, gap, limit_s = pickle.load(sys.stdin.buffer)
    outcome = {"highs": highs, "cbc": cbc, "cpsat": cpsat}[sys.argv[1]](fields, gap, limit_s)
    print(json.dumps({"solve_s": outcome.solve_s, "objective": outcome.objective, "bound": outcome.bound}))


if __name__ == "__main__":
    main()
