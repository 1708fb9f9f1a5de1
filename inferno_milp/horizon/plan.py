"""Planning for periods and for scenarios, with what one would do otherwise beside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from inferno_milp.errors import OptionError, PlanCheckError
from inferno_milp.horizon.assemble import assemble, is_served, previous, starts_cost
from inferno_milp.horizon.check import check_horizon
from inferno_milp.horizon.plans import HorizonPlan, PeriodsPlan, ScenariosPlan, mean
from inferno_milp.horizon.program import Criterion, Effort, Found, Setup, recent_of, solve_horizon
from inferno_milp.horizon.recourse import Recoursed
from inferno_milp.horizon.reservations import best_reservation, costs_of_moments
from inferno_milp.horizon.solve import each_alone, solve_moments
from inferno_milp.horizon.ways import IntArray, Ways, find_ways, required_per_s
from inferno_milp.plan import DEFAULT_GAP
from inferno_milp.problem import Problem
from inferno_milp.sections import Moment, Planning

CLOSE = 1e-9
"""Relative excess over a budget that is rounding."""

logger = logging.getLogger(__name__)


def plan_periods(
    problem: Problem,
    *,
    time_limit_s: float | None = None,
    gap: float = DEFAULT_GAP,
    jobs: int = 1,
    scheduler: str | None = None,
) -> PeriodsPlan:
    """Plan the replicas of every period of a problem, and what is reserved for all of them, in one program.

    Parameters
    ----------
    problem : with `periods`. With single assignment a server stays on one accelerator over all of them.
    time_limit_s : seconds for the program, and for each of those that it is compared with; None: no limit.
    gap : relative gap between cost and bound at which a plan counts as optimal.
    jobs, scheduler : processes on this machine, or address of a Dask scheduler, for periods that come apart: many, with
        mixed assignment and no starts to pay for.

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
    effort = Effort(gap, math.inf if time_limit_s is None else time_limit_s, jobs, scheduler)
    found = solve_moments(ways, setup, effort)
    replanned = _replanned(ways, hours, problem.planning, effort)
    other = None if replanned is None else assemble(ways, setup, periods, replanned)
    plan = assemble(ways, setup, periods, found)
    if found.outcome in ("feasible", "no_solution") and other is not None:
        plan = _cheaper(problem, plan, other, None if found.bound is None else found.bound / float(hours.sum()))
    check_horizon(problem, plan, periods, planning=problem.planning)
    # Whoever runs for the peak all the time starts nothing after the first period, and reserves what is cheaper so.
    peak = replace(ways, required_per_s=ways.required_per_s.max(axis=1, keepdims=True))
    constant = solve_horizon(peak, Setup(np.ones(1)), effort)
    peak_cost = constant.objective
    if peak_cost is not None:
        peak_cost += starts_cost(ways, constant.replicas, problem.planning) / float(hours.sum())
    return PeriodsPlan(plan, peak_cost, None if other is None else other.cost_per_hour)


def _cheaper(problem: Problem, plan: HorizonPlan, other: HorizonPlan, bound: float | None) -> HorizonPlan:
    """Return what planning every period by itself came to, where that is cheaper than what time was enough for."""
    assert other.cost_per_hour is not None
    if plan.cost_per_hour is not None and plan.cost_per_hour <= other.cost_per_hour:
        return plan
    other = replace(other, status="feasible", bound=bound)
    try:
        check_horizon(problem, other, problem.periods, planning=problem.planning)
    except PlanCheckError as error:
        logger.info("what was planned period by period does not hold: %s", error)  # it moves, or ends too early
        return plan
    return other


def _expected(found: Iterable[Recoursed], chances: np.ndarray) -> float | None:
    """Return the expected cost of plans, one for each scenario; None if one of them cannot be."""
    costs = [one.cost for one in found]
    known = [cost for cost in costs if cost is not None]
    return mean(known, chances.tolist()) if len(known) == len(costs) else None


def _replanned(ways: Ways, hours: np.ndarray, planning: Planning, effort: Effort) -> Found | None:
    """Plan each period by itself, on demand, and reserve afterwards what pays; None if that cannot be.

    What was started runs until its least time is over, as far as there are devices.
    """
    columns = []
    for found in each_alone(_on_demand(ways), effort):
        if found.replicas is None or found.cost is None:
            return None
        columns.append(found.replicas)
    replicas = _kept_up(np.stack(columns, axis=1), hours.tolist(), planning)
    if not all(map(ways.fits, replicas.T)) or not _within_limits(ways, replicas):
        return None
    # `assemble` counts what it costs, starts and ends included.
    reserved = best_reservation(ways, replicas, hours)
    budget = ways.problem.options.max_cost_per_hour
    if budget is not None and max(costs_of_moments(ways, replicas, reserved)) > budget * (1 + CLOSE):
        return None
    return Found("feasible", replicas, reserved, math.inf, None)


def _kept_up(replicas: IntArray, hours: list[float], planning: Planning) -> IntArray:
    """Return replicas that run on until their least time is over."""
    kept = replicas.copy()
    lately = [list(recent_of(t, hours, planning)) for t in range(len(hours))]
    for _ in range(2 * len(hours)):
        started = np.maximum(kept - previous(kept, planning), 0)
        least = np.stack([started[:, periods].sum(axis=1) for periods in lately], axis=1)
        if (least <= kept).all():
            return kept
        kept = np.maximum(kept, least)
    return np.repeat(kept.max(axis=1, keepdims=True), len(hours), axis=1)


def _within_limits(ways: Ways, replicas: IntArray) -> bool:
    """Whether no server has more replicas in a period than it may."""
    most = [math.inf if server.max_replicas is None else server.max_replicas for server in ways.problem.servers]
    return bool((ways.replicas_of_servers(replicas).max(axis=1) <= np.array(most)).all())


def _on_demand(ways: Ways) -> Ways:
    accelerators = tuple(
        a.model_copy(update={"reserved_cost_per_hour": None, "reserved_discounts": ()})
        for a in ways.problem.accelerators
    )
    problem = ways.problem.model_copy(update={"accelerators": accelerators}).with_options(max_cost_per_hour=None)
    return replace(ways, table=replace(ways.table, problem=problem))


def plan_scenarios(
    problem: Problem,
    *,
    criterion: Criterion = "expected",
    served: float = 1.0,
    time_limit_s: float | None = None,
    gap: float = DEFAULT_GAP,
    jobs: int = 1,
    scheduler: str | None = None,
) -> ScenariosPlan:
    """Plan for scenarios: what is reserved and where servers run is decided now, replicas when it is known what came.

    Parameters
    ----------
    problem : with `scenarios`.
    criterion : `expected` cost is minimised, or that of the `worst` scenario.
    served : least probability that everybody is served in full (a chance constraint); in the other scenarios servers
        keep their minimum, and what is reserved.
    time_limit_s, gap, jobs, scheduler : as in `plan_periods`.

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
    effort = Effort(gap, math.inf if time_limit_s is None else time_limit_s, jobs, scheduler)
    found = solve_moments(ways, setup, effort)
    if found.objective is not None and served < 1:
        found = replace(found, replicas=_with_what_is_paid(ways, found))
    plan = assemble(ways, setup, scenarios, found)
    check_horizon(problem, plan, scenarios, planning=None, served=served, worst=criterion == "worst")
    if criterion == "worst" or served < 1 or not plan.has_plan:
        return ScenariosPlan(plan, None, None)
    known = _expected(_at_most(ways, found, each_alone(ways, effort)), chances)
    return ScenariosPlan(plan, known, _cost_of_the_mean(problem, ways, chances, effort))


def _at_most(ways: Ways, found: Found, alone: Iterable[Recoursed]) -> Iterator[Recoursed]:
    """Go through what each scenario costs if it is known: at most the plan's replicas in it, reserved as is best."""
    for t, one in enumerate(alone):
        replicas = found.replicas[:, t : t + 1]
        reserved = best_reservation(ways, replicas, np.ones(1))
        cost = costs_of_moments(ways, replicas, reserved)[0]
        yield one if one.cost is not None and one.cost <= cost else Recoursed(replicas[:, 0], cost)


def _with_what_is_paid(ways: Ways, found: Found) -> IntArray:
    """Return the replicas with what is reserved put to use in scenarios that are not served in full, by priority."""
    problem, replicas = ways.problem, found.replicas.copy()
    priorities = {c.name: c.priority for c in problem.service_classes}
    order = sorted(range(len(problem.servers)), key=lambda s: priorities[problem.servers[s].service_class])
    homes = {int(ways.rows.server[w]): w for w in range(len(ways.rows)) if found.replicas[w].any()}
    for t in range(replicas.shape[1]):
        if is_served(ways, replicas, t):
            continue
        for s in order:
            for w in ways.of(s):
                if problem.options.assignment == "single" and homes.get(s, w) != w:
                    continue
                _fill(ways, replicas, found.reserved, w, t)
    return replicas


def _fill(ways: Ways, replicas: IntArray, reserved: IntArray, w: int, t: int) -> None:
    """Let a way have as many replicas as are of use to it, and are paid for."""
    rows, server = ways.rows, ways.problem.servers[int(ways.rows.server[w])]
    same = np.flatnonzero(rows.accelerator == rows.accelerator[w])
    free = int(reserved[rows.accelerator[w]]) - int((replicas[same, t] * ways.units[same]).sum())
    own = ways.of(int(rows.server[w]))
    most = ways.replicas(w, t) - int(replicas[own, t].sum())
    if server.max_replicas is not None:
        most = min(most, server.max_replicas - int(replicas[own, t].sum()))
    for more in range(min(most, free // int(ways.units[w])), 0, -1):
        filled = replicas[:, t].copy()
        filled[w] += more
        if ways.fits(filled):
            replicas[:, t] = filled
            return


def _cost_of_the_mean(problem: Problem, ways: Ways, chances: np.ndarray, effort: Effort) -> float | None:
    """Return the expected cost of reserving, and choosing accelerators, for the mean rates."""
    rates = {
        s.name: mean([scenario.rate_per_s(s) for scenario in problem.scenarios], chances.tolist())
        for s in problem.servers
        if s.load is not None
    }
    expected = replace(ways, required_per_s=required_per_s(problem, [Moment(name="mean", rates_per_s=rates)]))
    first = solve_horizon(expected, Setup(np.ones(1)), effort)
    if first.objective is None:
        return None
    kept = ways
    if ways.problem.options.assignment == "single":
        runs = first.replicas[:, 0] > 0
        settled = np.zeros(len(problem.servers), dtype=bool)
        settled[ways.rows.server[runs]] = True
        which = runs | ~settled[ways.rows.server]
        kept = replace(ways, rows=ways.rows.take(which), units=ways.units[which], usage=ways.usage[which])
    return _expected(each_alone(kept, effort, first.reserved), chances)
