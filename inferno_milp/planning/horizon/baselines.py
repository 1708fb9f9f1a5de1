"""What one would do without planning all moments together: baselines, which are also plans to start from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from inferno_milp.planning.horizon.assemble import previous, starts_cost
from inferno_milp.planning.horizon.left_out import without_ways
from inferno_milp.planning.horizon.plans import mean
from inferno_milp.planning.horizon.program import Effort, Found, Setup, solve_horizon
from inferno_milp.planning.horizon.recourse import Recoursed
from inferno_milp.planning.horizon.reservations import best_reservation, cost_of, costs_of_moments
from inferno_milp.planning.horizon.solve import each_alone
from inferno_milp.planning.horizon.starts import never_starts, recent_of
from inferno_milp.planning.horizon.ways import IntArray, Ways, required_per_s
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Moment, Planning

CLOSE = 1e-9
"""Relative excess over a budget that is rounding."""


def of_replicas(ways: Ways, setup: Setup, replicas: IntArray) -> Found | None:
    """Return the plan of given replicas, with the best reservation for them; None if they break a limit."""
    if not all(map(ways.fits, replicas.T)) or not _within_limits(ways, replicas):
        return None
    reserved = best_reservation(ways, replicas, setup.weights)
    costs = costs_of_moments(ways, replicas, reserved)
    budget = ways.problem.options.max_cost_per_hour
    if budget is not None and max(costs) > budget * (1 + CLOSE):
        return None
    worst = setup.criterion == "worst"
    objective = max(costs) if worst else cost_of(ways, setup.weights, replicas, reserved)
    return Found("feasible", replicas, reserved, objective + starts_cost(ways, replicas, setup.planning), None)


def static_peak(ways: Ways, setup: Setup, effort: Effort) -> Found | None:
    """Run for each server's peak in every moment; None if that cannot be, or was not found in time."""
    peak = replace(ways, required_per_s=ways.required_per_s.max(axis=1, keepdims=True))
    if without_ways(peak, in_all=True) is not peak:
        return None
    constant = solve_horizon(peak, Setup(np.ones(1)), effort)
    if constant.objective is None:
        return None
    return of_replicas(ways, setup, np.repeat(constant.replicas, len(setup.weights), axis=1))


def myopic(ways: Ways, setup: Setup, effort: Effort) -> Found | None:
    """Plan each period by itself, on demand, and reserve afterwards what pays; None if that cannot be.

    What was started runs until its least time is over, as far as there are devices.
    """
    assert setup.planning is not None
    columns = []
    for found in each_alone(_on_demand(ways), effort):
        if found.replicas is None or found.cost is None:
            return None
        columns.append(found.replicas)
    replicas = _kept_up(np.stack(columns, axis=1), setup.weights.tolist(), setup.planning)
    return of_replicas(ways, setup, replicas)


def mean_value(problem: Problem, ways: Ways, setup: Setup, effort: Effort) -> Found | None:
    """Reserve, and choose accelerators, for the mean rates, then add what each scenario needs; None if it cannot be."""
    chances = setup.weights
    rates = {
        s.name: mean([scenario.rate_per_s(s) for scenario in problem.scenarios], chances.tolist())
        for s in problem.servers
        if s.load is not None
    }
    required = required_per_s(problem, [Moment(name="mean", rates_per_s=rates)])
    required[sorted(ways.left_out)] = 0.0
    first = solve_horizon(replace(ways, required_per_s=required), Setup(np.ones(1)), effort)
    if first.objective is None:
        return None
    kept, which = ways, np.ones(len(ways.rows), dtype=bool)
    if problem.options.assignment == "single":
        runs = first.replicas[:, 0] > 0
        settled = np.zeros(len(problem.servers), dtype=bool)
        settled[ways.rows.server[runs]] = True
        which = runs | ~settled[ways.rows.server]
        kept = replace(ways, rows=ways.rows.take(which), units=ways.units[which], usage=ways.usage[which])
    found = list(each_alone(kept, effort, first.reserved))
    cost = expected_cost(found, chances)
    if cost is None or any(one.replicas is None for one in found):
        return None
    replicas = np.zeros((len(which), len(chances)), dtype=np.int64)
    replicas[which] = np.stack([one.replicas for one in found if one.replicas is not None], axis=1)
    return Found("feasible", replicas, first.reserved, cost * float(chances.sum()), None)


def expected_cost(found: Iterable[Recoursed], chances: np.ndarray) -> float | None:
    """Return the expected cost of plans, one for each scenario; None if one of them cannot be."""
    costs = [one.cost for one in found]
    known = [cost for cost in costs if cost is not None]
    return mean(known, chances.tolist()) if len(known) == len(costs) else None


def cheapest(found: Sequence[Found | None]) -> Found | None:
    """Return the cheapest of plans; None if there is none."""
    plans = [one for one in found if one is not None and one.objective is not None]
    return min(plans, key=lambda one: math.inf if one.objective is None else one.objective, default=None)


def _kept_up(replicas: IntArray, hours: list[float], planning: Planning) -> IntArray:
    """Return replicas that run on until their least time is over."""
    always = np.repeat(replicas.max(axis=1, keepdims=True), len(hours), axis=1)
    if never_starts(hours, planning):
        return always
    kept = replicas.copy()
    lately = [list(recent_of(t, hours, planning)) for t in range(len(hours))]
    for _ in range(2 * len(hours)):
        started = np.maximum(kept - previous(kept, planning), 0)
        least = np.stack([started[:, periods].sum(axis=1) for periods in lately], axis=1)
        if (least <= kept).all():
            return kept
        kept = np.maximum(kept, least)
    return always


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
