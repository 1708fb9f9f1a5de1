"""Solving a Pyomo model with HiGHS, with every outcome told for what it is.

The rows are read off the model by Pyomo and handed to HiGHS as arrays. Pyomo's own interfaces to HiGHS are not used:
at a time limit without an incumbent they raise, and they accept unknown options in silence.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inferno_milp.program._pyomo import LinearExpression, generate_standard_repn, pyo
from inferno_milp.program.highs_engine import FloatArray, Found, Program, Result, SolverError, run


@dataclass(frozen=True, slots=True)
class Solution:
    """What HiGHS found; the values are in the model.

    Attributes
    ----------
    outcome : optimal (proven within the gap), feasible (a solution that is not), infeasible (proven), or no_solution
        (the time ran out without one).
    objective : of the solution; None without one.
    bound : proven lower bound; None where there is none.
    """

    outcome: Result
    objective: float | None
    bound: float | None
    wall_s: float


class Runner(Protocol):
    """Solves programs: `highs_engine.run`, or the same in another process."""

    def __call__(
        self,
        program: Program,
        *,
        gap: float,
        time_limit_s: float,
        start: FloatArray | None = None,
        good_enough: float | None = None,
    ) -> Found:
        """Solve a program."""
        ...


def solve_with_highs(
    model: pyo.ConcreteModel,
    *,
    gap: float,
    time_limit_s: float = math.inf,
    from_values: bool = False,
    good_enough: float | None = None,
    run: Runner = run,
) -> Solution:
    """Minimise a linear model of bounded integer and continuous variables, and load the solution into it.

    Parameters
    ----------
    gap : relative gap at which HiGHS may stop.
    time_limit_s : seconds for all of it; whether it is a hard stop depends on `run`.
    from_values : whether the variables' values are a solution to start from.
    good_enough : objective at which HiGHS may stop.
    run : solves the program laid out in arrays.

    Raises
    ------
    SolverError
        If the model is not linear, or HiGHS fails.
    """
    began = time.perf_counter()
    variables = list(model.component_data_objects(pyo.Var, active=True))
    program = lay_out(model, variables)
    start = np.array([variable.value or 0.0 for variable in variables]) if from_values else None
    left_s = time_limit_s - (time.perf_counter() - began)
    found = run(program, gap=gap, time_limit_s=left_s, start=start, good_enough=good_enough)
    if found.values is not None:
        for variable, value in zip(variables, found.values.tolist(), strict=True):
            variable.set_value(round(value) if variable.is_integer() else value, skip_validation=True)
    return Solution(found.result, found.objective, found.bound, time.perf_counter() - began)


def lay_out(model: pyo.ConcreteModel, variables: list[Any]) -> Program:
    """Lay a model out as arrays, row by row, its columns those of `variables`."""
    column = {id(variable): i for i, variable in enumerate(variables)}
    costs, offset = _costs(model, column)
    bounds = [variable.bounds for variable in variables]
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
    return Program(
        costs=costs,
        offset=offset,
        lower=np.array([-math.inf if low is None else low for low, _ in bounds], dtype=float),
        upper=np.array([math.inf if high is None else high for _, high in bounds], dtype=float),
        whole=np.array([variable.is_integer() for variable in variables], dtype=bool),
        starts=np.array(starts, dtype=np.int32),
        columns=np.array(columns, dtype=np.int32),
        values=np.array(values, dtype=float),
        row_lower=np.array(lower, dtype=float),
        row_upper=np.array(upper, dtype=float),
    )


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
    if type(expression) is LinearExpression:  # as ours all are: it need not be taken apart
        terms = {column[id(v)]: float(c) for v, c in zip(expression.linear_vars, expression.linear_coefs, strict=True)}
        if len(terms) == len(expression.linear_vars):  # no variable stands twice
            return terms, float(expression.constant)
    form = generate_standard_repn(expression, quadratic=False)
    if not form.is_linear():
        raise SolverError("the model is not linear")
    # No variable stands twice: Pyomo has added like terms up.
    terms = {column[id(v)]: float(c) for v, c in zip(form.linear_vars, form.linear_coefs, strict=True)}
    return terms, float(form.constant)
