"""Solving a Pyomo model with HiGHS, with every outcome told for what it is.

The rows are read off the model by Pyomo and handed to HiGHS as arrays. Pyomo's own interfaces to HiGHS are not used:
at a time limit without an incumbent they raise, and they accept unknown options in silence.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import highspy
import numpy as np

from inferno_milp._pyomo import generate_standard_repn, pyo
from inferno_milp.errors import InfernoError

Result = Literal["optimal", "feasible", "infeasible", "no_solution"]


class SolverError(InfernoError):
    """HiGHS refused a model or an option, or ended in a way that is none of the known outcomes."""


@dataclass(frozen=True, slots=True)
class Solution:
    """What HiGHS found.

    Attributes
    ----------
    outcome : optimal (proven within the gap), feasible (the time ran out with a solution), infeasible (proven), or
        no_solution (the time ran out without one).
    objective : of the solution; None without one.
    bound : proven lower bound; None where there is none.
    """

    outcome: Result
    objective: float | None
    bound: float | None
    wall_s: float


class _SilentHighs(highspy.Highs):  # type: ignore[misc]  # highspy has no types
    """HiGHS that writes nothing to stdout, which holds results alone.

    From 1.16 on its constructor enables callbacks, and with that prints a banner, before an option can be set.
    """

    def enableCallbacks(self) -> Any:  # noqa: N802 - the name is HiGHS's
        self.setOptionValue("output_flag", False)
        return super().enableCallbacks()


def version() -> str:
    """Return the version of HiGHS."""
    return str(_SilentHighs().version())


def solve_with_highs(model: pyo.ConcreteModel, *, time_limit_s: float | None, gap: float) -> Solution:
    """Minimise a linear model of bounded integer and continuous variables, and load the solution into it.

    Parameters
    ----------
    time_limit_s : seconds for HiGHS; None is no limit.
    gap : relative gap at which it may stop.

    Raises
    ------
    SolverError
        If the model is not linear, or HiGHS fails.
    """
    start = time.perf_counter()
    variables = list(model.component_data_objects(pyo.Var, active=True))
    solver = _SilentHighs()
    _set(solver, "output_flag", False)
    _set(solver, "mip_rel_gap", gap)
    _set(solver, "mip_abs_gap", 1e-9)
    program = _as_arrays(model, variables)
    if time_limit_s is not None:
        _set(solver, "time_limit", max(time_limit_s - (time.perf_counter() - start), 0.0))
    if solver.passModel(program) == highspy.HighsStatus.kError:
        raise SolverError("HiGHS refused the model")
    if solver.run() == highspy.HighsStatus.kError:
        raise SolverError("HiGHS failed while solving")
    outcome, objective, bound = _outcome(solver)
    if objective is not None:
        for variable, value in zip(variables, solver.getSolution().col_value, strict=True):
            variable.set_value(round(value) if variable.is_integer() else value, skip_validation=True)
    return Solution(outcome, objective, bound, time.perf_counter() - start)


def _set(solver: Any, name: str, value: Any) -> None:
    if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
        raise SolverError(f"HiGHS refused the option {name} = {value!r}")


def _as_arrays(model: pyo.ConcreteModel, variables: list[Any]) -> Any:
    """Lay the model out as HiGHS's own structure, row by row."""
    column = {id(variable): i for i, variable in enumerate(variables)}
    program = highspy.HighsLp()
    program.num_col_ = len(variables)
    program.col_cost_, program.offset_ = _costs(model, column)
    bounds = [variable.bounds for variable in variables]
    program.col_lower_ = np.array([-math.inf if low is None else low for low, _ in bounds], dtype=float)
    program.col_upper_ = np.array([math.inf if high is None else high for _, high in bounds], dtype=float)
    whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    program.integrality_ = [whole if variable.is_integer() else real for variable in variables]
    starts: list[int] = [0]
    columns: list[int] = []
    values: list[float] = []
    lower: list[float] = []
    upper: list[float] = []
    for constraint in model.component_data_objects(pyo.Constraint, active=True):
        row, constant = _linear(constraint.body, column)
        columns += row.keys()
        values += row.values()
        starts.append(len(columns))
        lower.append(-math.inf if constraint.lb is None else constraint.lb - constant)
        upper.append(math.inf if constraint.ub is None else constraint.ub - constant)
    program.num_row_ = len(lower)
    program.row_lower_, program.row_upper_ = np.array(lower, dtype=float), np.array(upper, dtype=float)
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = np.array(starts, dtype=np.int32)
    program.a_matrix_.index_ = np.array(columns, dtype=np.int32)
    program.a_matrix_.value_ = np.array(values, dtype=float)
    return program


def _costs(model: pyo.ConcreteModel, column: dict[int, int]) -> tuple[np.ndarray[Any, Any], float]:
    objective = next(model.component_data_objects(pyo.Objective, active=True))
    if objective.sense != pyo.minimize:
        raise SolverError("the objective must be a minimum")
    terms, constant = _linear(objective.expr, column)
    costs = np.zeros(len(column))
    costs[list(terms)] = list(terms.values())
    return costs, constant


def _linear(expression: Any, column: dict[int, int]) -> tuple[dict[int, float], float]:
    """Coefficients by column, and the constant, of a linear expression."""
    form = generate_standard_repn(expression, quadratic=False)
    if not form.is_linear():
        raise SolverError("the model is not linear")
    # No variable stands twice: Pyomo has added like terms up.
    terms = {column[id(v)]: float(c) for v, c in zip(form.linear_vars, form.linear_coefs, strict=True)}
    return terms, float(form.constant)


def _outcome(solver: Any) -> tuple[Result, float | None, float | None]:
    status, info = solver.getModelStatus(), solver.getInfo()
    statuses = highspy.HighsModelStatus
    has_solution = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    if status in (statuses.kInfeasible, statuses.kUnboundedOrInfeasible):
        return "infeasible", None, None
    if status in (statuses.kOptimal, statuses.kModelEmpty):
        objective = float(info.objective_function_value)
        return "optimal", objective, min(float(info.mip_dual_bound), objective) if _is_mip(solver) else objective
    if status not in (statuses.kTimeLimit, statuses.kInterrupt, statuses.kSolutionLimit):
        raise SolverError(f"HiGHS stopped with status {solver.modelStatusToString(status)!r}")
    bound = float(info.mip_dual_bound) if _is_mip(solver) and math.isfinite(info.mip_dual_bound) else None
    if not has_solution:
        return "no_solution", None, bound
    return "feasible", float(info.objective_function_value), bound


def _is_mip(solver: Any) -> bool:
    return any(kind != highspy.HighsVarType.kContinuous for kind in solver.getLp().integrality_)
