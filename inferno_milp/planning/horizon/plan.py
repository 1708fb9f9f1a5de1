"""Planning for periods and for scenarios, next to what one would do otherwise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.columns.attainable import missed_targets, words_of_missed
from inferno_milp.errors import OptionError
from inferno_milp.plan import DEFAULT_GAP
from inferno_milp.planning.horizon.assemble import assemble, is_served
from inferno_milp.planning.horizon.baselines import (
    cheapest,
    expected_cost,
    mean_value,
    myopic,
    of_replicas,
    static_peak,
)
from inferno_milp.planning.horizon.check import check_horizon
from inferno_milp.planning.horizon.left_out import LeftOut, serve_by_priority, without_ways
from inferno_milp.planning.horizon.plans import HorizonPlan, PeriodsPlan, ScenariosPlan, Unserved
from inferno_milp.planning.horizon.program import Criterion, Effort, Found, Setup, nothing
from inferno_milp.planning.horizon.recourse import Recoursed
from inferno_milp.planning.horizon.reservations import best_reservation, costs_of_moments
from inferno_milp.planning.horizon.solve import each_alone, solve_moments
from inferno_milp.planning.horizon.ways import IntArray, Ways, find_ways
from inferno_milp.planning.reasons import why_no_candidate
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Moment
from inferno_milp.program.deadline import until
from inferno_milp.program.highs_engine import Result

CHECK_PART = 0.03
"""Part of a time limit that is kept for the check."""
PEAK_PART, BASELINE_PART = 0.1, 0.25
"""Parts of what is left for the static peak, and for each of the other baselines."""


class _Time:
    """Shares of a time limit that holds for the whole: analysis, baselines, program and check."""

    def __init__(self, time_limit_s: float | None, effort: Effort):
        self.effort = effort
        limit = math.inf if time_limit_s is None else time_limit_s * (1 - CHECK_PART)
        self.left_s: Callable[[], float] = until(time.perf_counter() + limit)

    def part(self, share: float = 1.0) -> Effort:
        """Return an effort with a share of the time left."""
        return replace(self.effort, time_limit_s=self.left_s() * share)


@dataclass(frozen=True, slots=True)
class _Solved:
    """What all kinds of plans of several moments are made of: plan, what was found, of which servers."""

    found: Found
    left_out: LeftOut


def _solve(
    ways: Ways, setup: Setup, clock: _Time, start: Callable[[Ways], Found | None], share: float = 1.0
) -> _Solved:
    """Solve for all servers that have ways; where these cannot all be served, for as many as can be, by priority."""
    ways = without_ways(ways, in_all=setup.served >= 1)
    best = start(ways)
    found = solve_moments(ways, setup, clock.part(share if best is not None else share / 2), best)
    if found.outcome != "infeasible":
        return _Solved(found, LeftOut(ways, is_proven=True, is_known=True))
    left_out = serve_by_priority(without_ways(ways, in_all=True), setup, clock.part(share / 2))
    if not left_out.is_known:
        return _Solved(nothing(left_out.ways, len(setup.weights), "no_solution"), left_out)
    if not len(left_out.ways.rows):
        return _Solved(nothing(left_out.ways, len(setup.weights), "infeasible"), left_out)
    best = start(left_out.ways)
    return _Solved(solve_moments(left_out.ways, setup, clock.part(share), best), left_out)


def _assembled(setup: Setup, moments: Sequence[Moment], solved: _Solved) -> HorizonPlan:
    """Make a plan: `partial` where it leaves servers out, `infeasible` where these are all that need replicas."""
    ways = solved.left_out.ways
    plan = assemble(ways, setup, moments, solved.found)
    missed = tuple(
        Unserved(server.name, words_of_missed(found))
        for s, server in enumerate(ways.problem.servers)
        if s not in ways.left_out and (found := tuple(missed_targets(ways.problem, server)))
    )
    if missed and plan.has_plan:
        plan = replace(plan, missed=missed, status="partial")
    if not ways.left_out:
        return plan
    unserved = tuple(_unserved(ways, s, is_proven=solved.left_out.is_proven) for s in sorted(ways.left_out))
    serves = any(ways.needs(s, t) for s in range(len(ways.problem.servers)) for t in range(len(moments)))
    if not serves:
        outcome: Result = "infeasible" if solved.left_out.is_proven else "no_solution"
        return replace(assemble(ways, setup, moments, replace(solved.found, outcome=outcome, objective=None)),
                       unserved=unserved)  # fmt: skip
    status = "partial" if plan.has_plan else plan.status
    return replace(plan, unserved=unserved, status=status)


def _as_planned(problem: Problem, ways: Ways) -> Problem:
    """Return the problem with the targets that are planned for."""
    return problem.with_relaxed_targets(ways.problem.relaxed_targets)


def _unserved(ways: Ways, s: int, *, is_proven: bool) -> Unserved:
    why = why_no_candidate(ways.table, s)
    if why is None:
        why = "it does not fit next to the others in every moment"
        if not is_proven:
            why += ", as far as was found in the time given"
    return Unserved(ways.problem.servers[s].name, why)


def _is_settled(ways: Ways, setup: Setup, replicas: IntArray) -> bool:
    """Whether no server moves that may not."""
    if setup.moves or ways.problem.options.assignment == "mixed":
        return True
    homes = np.bincount(ways.rows.server[replicas.any(axis=1)], minlength=1)
    return bool((homes <= 1).all())


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
    time_limit_s : seconds for all of it: analysis, baselines, program and check; None: no limit.
    gap : relative gap between cost and bound at which a plan counts as optimal.
    jobs, scheduler : processes on this machine, or address of a Dask scheduler, for periods that come apart: many, with
        mixed assignment and no starts to pay for.

    Returns
    -------
    PeriodsPlan
        Checked: rates, latencies by the law, devices, least times, costs, bound ≤ cost. It never costs more than a
        baseline that could be run instead of it.

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
    clock = _Time(time_limit_s, Effort(gap, math.inf, jobs, scheduler))
    setup = Setup(np.array([period.hours for period in periods]), problem.planning)
    baselines: dict[str, Found | None] = {}

    def start(ways: Ways) -> Found | None:
        baselines["peak"] = static_peak(ways, setup, clock.part(PEAK_PART))
        baselines["myopic"] = alone = myopic(ways, setup, clock.part(BASELINE_PART))
        settled = alone if alone is None or _is_settled(ways, setup, alone.replicas) else None
        baselines["settled"] = settled
        return cheapest([baselines["peak"], settled])

    solved = _solve(find_ways(problem, periods), setup, clock, start)
    plan = _assembled(setup, periods, solved)
    check_horizon(_as_planned(problem, solved.left_out.ways), plan, periods, planning=problem.planning)
    hours = float(setup.weights.sum())
    peak, alone = (
        None if found is None or found.objective is None or not plan.has_plan else found.objective / hours
        for found in (baselines["peak"], baselines["myopic"])
    )
    return PeriodsPlan(plan, peak, alone, replanned_moves=alone is not None and baselines["settled"] is None)


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
    clock = _Time(time_limit_s, Effort(gap, math.inf, jobs, scheduler))
    chances = np.array([scenario.probability for scenario in scenarios])
    setup = Setup(chances, None, served, criterion)
    compared = criterion == "expected" and served >= 1
    baselines: dict[str, Found | None] = {"mean": None}

    def start(ways: Ways) -> Found | None:
        peak = static_peak(ways, setup, clock.part(PEAK_PART))
        if not compared:
            return peak
        baselines["mean"] = mean = mean_value(problem, ways, setup, clock.part(BASELINE_PART))
        better = None if mean is None else of_replicas(ways, setup, mean.replicas)
        return cheapest([peak, mean, better])

    solved = _solve(find_ways(problem, scenarios), setup, clock, start, 1 - BASELINE_PART if compared else 1.0)
    found, ways = solved.found, solved.left_out.ways
    if found.objective is not None and served < 1:
        solved = replace(solved, found=replace(found, replicas=_with_what_is_paid(ways, found)))
    plan = _assembled(setup, scenarios, solved)
    check_horizon(_as_planned(problem, ways), plan, scenarios, planning=None, served=served, worst=criterion == "worst")
    if not compared or not plan.has_plan:
        return ScenariosPlan(plan, None, None)
    known = expected_cost(_at_most(ways, found, each_alone(ways, clock.part())), chances)
    mean = baselines["mean"]
    return ScenariosPlan(plan, known, None if mean is None else mean.objective)


def _at_most(ways: Ways, found: Found, alone: Iterable[Recoursed]) -> Iterator[Recoursed]:
    """Yield what each scenario costs if it is known: at most the plan's replicas in it, reserved as is best."""
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
