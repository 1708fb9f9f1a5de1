"""Planning for periods and for scenarios, with what one would do otherwise beside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inferno_milp.errors import OptionError, PlanCheckError
from inferno_milp.horizon.assemble import assemble
from inferno_milp.horizon.check import check_horizon
from inferno_milp.horizon.plans import HorizonPlan, PeriodsPlan, ScenariosPlan, mean
from inferno_milp.horizon.program import Criterion, Found, Setup, solve_horizon
from inferno_milp.horizon.ways import IntArray, Ways, find_ways
from inferno_milp.plan import DEFAULT_GAP
from inferno_milp.problem import Problem
from inferno_milp.sections import Moment

logger = logging.getLogger(__name__)


def plan_periods(problem: Problem, *, time_limit_s: float | None = None, gap: float = DEFAULT_GAP) -> PeriodsPlan:
    """Plan the replicas of every period of a problem, and what is reserved for all of them, in one program.

    Parameters
    ----------
    problem : with `periods`. With single assignment a server stays on one accelerator over all of them.
    time_limit_s : seconds for the program, and for each of those that it is compared with; None: no limit.
    gap : relative gap between cost and bound at which a plan counts as optimal.

    Returns
    -------
    PeriodsPlan
        Checked: rates, latencies by the law, devices, least times, costs, bound ≤ cost.

    Raises
    ------
    OptionError
        If there are no periods, or something is asked for that these plans do not know.
    PlanCheckError
        If the plan does not pass its check: a defect of this program.
    """
    periods = problem.periods
    if not periods:
        raise OptionError("the problem has no `periods`")
    ways = find_ways(problem, periods)
    hours = np.array([period.hours for period in periods])
    setup = Setup(hours, problem.planning)
    limit = math.inf if time_limit_s is None else time_limit_s
    found = solve_horizon(ways, setup, gap=gap, time_limit_s=limit)
    replanned = _replanned(ways, hours, gap, limit)
    other = None if replanned is None else assemble(ways, setup, periods, replanned)
    plan = assemble(ways, setup, periods, found)
    if found.outcome in ("feasible", "no_solution") and other is not None:
        plan = _cheaper(problem, plan, other)
    check_horizon(problem, plan, periods, planning=problem.planning)
    peak = replace(ways, required_per_s=np.repeat(ways.required_per_s.max(axis=1, keepdims=True), len(hours), axis=1))
    # Whoever runs for the peak all the time never starts anything; and reserves what is cheaper so.
    once = replace(peak, required_per_s=peak.required_per_s[:, :1])
    constant = solve_horizon(once, Setup(np.ones(1)), gap=gap, time_limit_s=limit)
    return PeriodsPlan(plan, constant.objective, None if other is None else other.cost_per_hour)


def _cheaper(problem: Problem, plan: HorizonPlan, other: HorizonPlan) -> HorizonPlan:
    """Return what planning every period by itself came to, where that is cheaper than what time was enough for."""
    assert other.cost_per_hour is not None
    if plan.cost_per_hour is not None and plan.cost_per_hour <= other.cost_per_hour:
        return plan
    other = replace(other, status="feasible", bound=plan.bound)
    try:
        check_horizon(problem, other, problem.periods, planning=problem.planning)
    except PlanCheckError as error:
        logger.info("what was planned period by period does not hold: %s", error)  # it moves, or ends too early
        return plan
    return other


def _solved(ways: Ways, setup: Setup, moments: Sequence[Moment], gap: float, time_limit_s: float) -> HorizonPlan:
    found = solve_horizon(ways, setup, gap=gap, time_limit_s=time_limit_s)
    logger.info("%d ways, %d moments: %s", len(ways.rows), len(moments), found.outcome)
    return assemble(ways, setup, moments, found)


def _one(ways: Ways, t: int) -> Ways:
    return replace(ways, required_per_s=ways.required_per_s[:, t : t + 1])


def _replanned(ways: Ways, hours: np.ndarray, gap: float, time_limit_s: float) -> Found | None:
    """Plan each period by itself, on demand, and reserve afterwards what pays; None if one of them cannot be."""
    columns = []
    for t in range(len(hours)):
        found = solve_horizon(_one(_on_demand(ways), t), Setup(np.ones(1)), gap=gap, time_limit_s=time_limit_s)
        if found.objective is None:
            return None
        columns.append(found.replicas[:, 0])
    replicas = np.stack(columns, axis=1)
    # `assemble` counts what it costs, starts and ends included.
    reserved = _best_reservation(ways, replicas, hours)
    return Found("feasible", replicas, reserved, [True] * len(hours), math.inf, None)


def _on_demand(ways: Ways) -> Ways:
    accelerators = tuple(a.model_copy(update={"reserved_cost_per_hour": None}) for a in ways.problem.accelerators)
    problem = ways.problem.model_copy(update={"accelerators": accelerators})
    return replace(ways, table=replace(ways.table, problem=problem))


def _best_reservation(ways: Ways, replicas: IntArray, hours: np.ndarray) -> IntArray:
    """Return the units of each accelerator that pay to be reserved: those that are used for enough of the time."""
    accelerators = ways.problem.accelerators
    used = np.zeros((len(accelerators), len(hours)), dtype=np.int64)
    np.add.at(used, ways.rows.accelerator, replicas * ways.units[:, None])
    reserved = np.zeros(len(accelerators), dtype=np.int64)
    for a, one in enumerate(accelerators):
        if one.reserved_cost_per_hour is None:
            continue
        for count in range(1, int(used[a].max(initial=0)) + 1):
            if one.cost_per_hour * hours[used[a] >= count].sum() <= one.reserved_cost_per_hour * hours.sum():
                break
            reserved[a] = count
    return reserved


def plan_scenarios(
    problem: Problem,
    *,
    criterion: Criterion = "expected",
    served: float = 1.0,
    time_limit_s: float | None = None,
    gap: float = DEFAULT_GAP,
) -> ScenariosPlan:
    """Plan for scenarios: what is reserved and where servers run is decided now, replicas when it is known what came.

    Parameters
    ----------
    problem : with `scenarios`.
    criterion : `expected` cost is minimised, or that of the `worst` scenario.
    served : least probability that everybody is served in full (a chance constraint); in the other scenarios servers
        keep their minimum, and what is reserved.
    time_limit_s, gap : as in `plan_periods`.

    Raises
    ------
    OptionError
        If there are no scenarios, or something is asked for that these plans do not know.
    PlanCheckError
        If the plan does not pass its check: a defect of this program.
    """
    scenarios = problem.scenarios
    if not scenarios:
        raise OptionError("the problem has no `scenarios`")
    if not 0 < served <= 1:
        raise OptionError(f"served must be above 0 and at most 1, not {served}")
    if criterion not in ("expected", "worst"):
        raise OptionError(f"unknown criterion {criterion!r}; known: expected, worst")
    ways = find_ways(problem, scenarios)
    chances = np.array([scenario.probability for scenario in scenarios])
    setup = Setup(chances, None, served, criterion)
    limit = math.inf if time_limit_s is None else time_limit_s
    plan = _solved(ways, setup, scenarios, gap, limit)
    check_horizon(problem, plan, scenarios, planning=None, worst=criterion == "worst")
    if criterion == "worst" or served < 1:
        return ScenariosPlan(plan, None, None)
    alone = [solve_horizon(_one(ways, t), Setup(np.ones(1)), gap=gap, time_limit_s=limit) for t in range(len(chances))]
    known = [found.objective for found in alone]
    costs = [cost for cost in known if cost is not None]
    return ScenariosPlan(
        plan,
        mean(costs, chances.tolist()) if len(costs) == len(known) else None,
        _cost_of_the_mean(ways, chances, gap, limit),
    )


def _cost_of_the_mean(ways: Ways, chances: np.ndarray, gap: float, time_limit_s: float) -> float | None:
    """Return the expected cost of reserving, and choosing accelerators, for the mean rates."""
    expected = replace(ways, required_per_s=(ways.required_per_s @ chances)[:, None] / chances.sum())
    first = solve_horizon(expected, Setup(np.ones(1)), gap=gap, time_limit_s=time_limit_s)
    if first.objective is None:
        return None
    kept = ways
    if ways.problem.options.assignment == "single":
        needed = np.any(ways.required_per_s > 0, axis=1, keepdims=True)[ways.rows.server, 0]
        kept = _only(ways, (first.replicas[:, 0] > 0) | ~needed)
    return _with_reserved(kept, first, chances, gap, time_limit_s)


def _only(ways: Ways, which: np.ndarray) -> Ways:
    return replace(ways, rows=ways.rows.take(which), units=ways.units[which])


def _with_reserved(ways: Ways, first: Found, chances: np.ndarray, gap: float, time_limit_s: float) -> float | None:
    """Return the expected cost with reservations that are fixed already: what is free is used first."""
    costs = []
    reserved = first.reserved
    for t in range(len(chances)):
        found = solve_horizon(_one(ways, t), Setup(np.ones(1), reserved=reserved), gap=gap, time_limit_s=time_limit_s)
        if found.objective is None:
            return None
        costs.append(found.objective)
    return mean(costs, chances.tolist())
