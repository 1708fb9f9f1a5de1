"""HiGHS on arrays: one mixed-integer program in, its outcome out. Needs NumPy and highspy alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import highspy
import numpy as np
import numpy.typing as npt

from inferno_milp.errors import InfernoError

FloatArray = npt.NDArray[np.float64]
Result = Literal["optimal", "feasible", "infeasible", "no_solution"]

ATTEMPTS: tuple[dict[str, Any], ...] = (
    {},
    {"presolve": "off"},
    {"simplex_strategy": 4, "presolve": "off"},
    {"solver": "ipm"},
    {"simplex_scale_strategy": 0, "presolve": "off"},
)
"""Options that are tried one after the other where HiGHS fails: primal simplex, interior points, no scaling."""
TYPICAL_COST = 1000.0
"""What the median of the costs is scaled to: HiGHS prunes and compares with absolute tolerances of about 1e-6, which
would call a dear plan optimal where all prices are small."""


class SolverError(InfernoError):
    """HiGHS refused a model or an option, or ended in a way that is none of the known outcomes."""


@dataclass(frozen=True, slots=True)
class Program:
    """Minimise costs · x + offset; row_lower ≤ A x ≤ row_upper, A by rows; lower ≤ x ≤ upper, some x whole."""

    costs: FloatArray
    offset: float
    lower: FloatArray
    upper: FloatArray
    whole: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    values: FloatArray
    row_lower: FloatArray
    row_upper: FloatArray


@dataclass(frozen=True, slots=True)
class Found:
    """What HiGHS found.

    Attributes
    ----------
    result : optimal (proven within the gap), feasible (stopped with a solution), infeasible (proven), or no_solution
        (stopped without one).
    objective, values : of the solution; None without one.
    bound : proven lower bound of the objective; None where there is none.
    """

    result: Result
    objective: float | None
    bound: float | None
    values: FloatArray | None


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Optimum of the linear relaxation.

    Attributes
    ----------
    objective, values : of the optimum.
    duals : of the rows: what one more of a row's right-hand side adds to the objective.
    """

    objective: float
    values: FloatArray
    duals: FloatArray


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


def run(
    program: Program,
    *,
    gap: float,
    time_limit_s: float = math.inf,
    start: FloatArray | None = None,
    good_enough: float | None = None,
    on_better: Callable[[Found], None] | None = None,
) -> Found:
    """Solve a program.

    Parameters
    ----------
    gap : relative gap at which HiGHS may stop.
    time_limit_s : seconds; HiGHS looks at its clock only now and then, and may take up to twice as long.
    start : a solution to start from; then presolving is left out, which takes longer than it saves.
    good_enough : HiGHS may stop at a solution with an objective no larger than this.
    on_better : called with every better solution as it is found.

    Raises
    ------
    SolverError
        If HiGHS fails.
    """
    scale = _scale(program.costs)
    options: dict[str, Any] = {"mip_rel_gap": gap, "mip_abs_gap": 0.0}
    if math.isfinite(time_limit_s):
        options["time_limit"] = max(time_limit_s, 0.0)
    if good_enough is not None:
        options["objective_target"] = good_enough * scale
    if start is not None:
        options["presolve"] = "off"

    def prepare(solver: Any) -> None:
        if start is not None:
            solution = highspy.HighsSolution()
            solution.col_value = start
            solver.setSolution(solution)
        if on_better is not None:
            _tell_better(solver, scale, on_better)

    solver = _solved(program, scale, options, prepare=prepare)
    return _unscaled(_outcome(solver, bool(program.whole.any())), scale, gap)


def relax(program: Program, *, time_limit_s: float = math.inf) -> Relaxed | None:
    """Solve the linear relaxation of a program; None if it is infeasible, or not solved in time.

    Raises
    ------
    SolverError
        If HiGHS fails.
    """
    scale = _scale(program.costs)
    solver = _solved(program, scale, {"time_limit": time_limit_s}, relaxed=True)
    if solver.getModelStatus() not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kModelEmpty):
        return None
    solution = solver.getSolution()
    return Relaxed(
        float(solver.getInfo().objective_function_value) / scale,
        np.array(solution.col_value, dtype=float),
        np.array(solution.row_dual, dtype=float) / scale,
    )


def _solved(
    program: Program,
    scale: float,
    options: dict[str, Any],
    *,
    relaxed: bool = False,
    prepare: Callable[[Any], None] = lambda _: None,
) -> Any:
    """Return HiGHS after it has solved a program: where it fails, as on costs far apart, in other ways one by one."""
    states = highspy.HighsModelStatus
    failed = (
        states.kSolveError, states.kPresolveError, states.kPostsolveError, states.kUnknown, states.kNotset,
        states.kUnbounded,  # no program is: HiGHS takes costs next to nothing for none
    )  # fmt: skip
    for more in ATTEMPTS:
        solver = _loaded(program, scale, {**options, **more}, relaxed=relaxed)
        prepare(solver)
        if solver.run() != highspy.HighsStatus.kError and solver.getModelStatus() not in failed:
            return solver
    raise SolverError(f"HiGHS failed while solving, in {len(ATTEMPTS)} ways; its last status is {_status(solver)!r}")


def _status(solver: Any) -> str:
    return str(solver.modelStatusToString(solver.getModelStatus()))


def _loaded(program: Program, scale: float, options: dict[str, Any], *, relaxed: bool = False) -> Any:
    """HiGHS with its options set and the program in it."""
    solver = _SilentHighs()
    for name, value in {"output_flag": False, **options}.items():
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise SolverError(f"HiGHS refused the option {name} = {value!r}")
    if solver.passModel(_model(program, scale, relaxed)) == highspy.HighsStatus.kError:
        raise SolverError("HiGHS refused the model")
    return solver


def _scale(costs: FloatArray) -> float:
    """Power of two that brings the median of the costs near `TYPICAL_COST`; it changes no digit of any cost."""
    positive = np.abs(costs[costs != 0])
    return 2.0 ** round(math.log2(TYPICAL_COST / float(np.median(positive)))) if positive.size else 1.0


def _model(program: Program, scale: float, relaxed: bool) -> Any:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.costs), len(program.row_lower)
    model.col_cost_, model.offset_ = program.costs * scale, program.offset * scale
    model.col_lower_, model.col_upper_ = program.lower, program.upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
    if not relaxed:
        whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
        model.integrality_ = [whole if is_whole else real for is_whole in program.whole]
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_, model.a_matrix_.index_ = program.starts, program.columns
    model.a_matrix_.value_ = program.values
    return model


def _tell_better(solver: Any, scale: float, on_better: Callable[[Found], None]) -> None:
    def tell(event: Any) -> None:
        data = event.data_out
        bound = float(data.mip_dual_bound)
        found = Found(
            "feasible",
            float(data.objective_function_value),
            bound if math.isfinite(bound) else None,
            np.array(data.mip_solution, dtype=float),
        )
        on_better(_unscaled(found, scale, 0.0))

    solver.cbMipImprovingSolution.subscribe(tell)


def _outcome(solver: Any, has_whole: bool) -> Found:
    status, info, statuses = solver.getModelStatus(), solver.getInfo(), highspy.HighsModelStatus
    if status in (statuses.kInfeasible, statuses.kUnboundedOrInfeasible):
        return Found("infeasible", None, None, None)
    done = status in (statuses.kOptimal, statuses.kModelEmpty)
    stopped = (statuses.kTimeLimit, statuses.kInterrupt, statuses.kSolutionLimit, statuses.kObjectiveTarget)
    if not done and status not in stopped:
        raise SolverError(f"HiGHS stopped with status {_status(solver)!r}")
    objective = float(info.objective_function_value)
    bound = float(info.mip_dual_bound) if has_whole else objective if done else -math.inf
    known = bound if math.isfinite(bound) else None
    if not done and info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return Found("no_solution", None, known, None)
    values = np.array(solver.getSolution().col_value, dtype=float)
    return Found("optimal" if done else "feasible", objective, known, values)


def _unscaled(found: Found, scale: float, gap: float) -> Found:
    """Take the scale off; what HiGHS calls optimal by its absolute tolerances alone is only feasible."""
    if found.objective is None:
        return replace(found, bound=None if found.bound is None else found.bound / scale)
    objective = found.objective / scale
    bound = None if found.bound is None else found.bound / scale
    proven = bound is not None and objective - bound <= (gap + 1e-9) * abs(objective)
    result: Result = "feasible" if found.result == "optimal" and not proven else found.result
    return replace(found, result=result, objective=objective, bound=bound)
