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
    program: Program, *, gap: float, time_limit_s: float | None, on_better: Callable[[Found], None] | None = None
) -> Found:
    """Solve a program.

    Parameters
    ----------
    gap : relative gap at which HiGHS may stop.
    time_limit_s : seconds; HiGHS looks at its clock only now and then, and may take up to twice as long.
    on_better : called with every better solution as it is found.

    Raises
    ------
    SolverError
        If HiGHS fails.
    """
    scale = _scale(program.costs)
    solver = _SilentHighs()
    options = {"output_flag": False, "mip_rel_gap": gap, "mip_abs_gap": 0.0}
    if time_limit_s is not None:
        options["time_limit"] = time_limit_s
    for name, value in options.items():
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise SolverError(f"HiGHS refused the option {name} = {value!r}")
    if solver.passModel(_model(program, scale)) == highspy.HighsStatus.kError:
        raise SolverError("HiGHS refused the model")
    if on_better is not None:
        _tell_better(solver, scale, on_better)
    if solver.run() == highspy.HighsStatus.kError:
        raise SolverError("HiGHS failed while solving")
    return _unscaled(_outcome(solver, bool(program.whole.any())), scale, gap)


def _scale(costs: FloatArray) -> float:
    """Power of two that brings the median of the costs near `TYPICAL_COST`; it changes no digit of any cost."""
    positive = np.abs(costs[costs != 0])
    return 2.0 ** round(math.log2(TYPICAL_COST / float(np.median(positive)))) if positive.size else 1.0


def _model(program: Program, scale: float) -> Any:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.costs), len(program.row_lower)
    model.col_cost_, model.offset_ = program.costs * scale, program.offset * scale
    model.col_lower_, model.col_upper_ = program.lower, program.upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
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
    if not done and status not in (statuses.kTimeLimit, statuses.kInterrupt, statuses.kSolutionLimit):
        raise SolverError(f"HiGHS stopped with status {solver.modelStatusToString(status)!r}")
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
