"""The program: replicas of every way in every moment, devices reserved for all, and what joins moments.

Moments are periods, one after the other, or scenarios, of which one comes. docs/horizon.md has it in mathematics, with
these names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from inferno_milp.planning.horizon.start import set_start
from inferno_milp.planning.horizon.starts import add_starts, changing_costs, has_starts
from inferno_milp.planning.horizon.ways import FloatArray, IntArray, Ways
from inferno_milp.problem.sections import Planning
from inferno_milp.program._pyomo import LinearExpression, pyo, sum_of_terms
from inferno_milp.program.deadline import OutOfTimeError, stop_if_late, until
from inferno_milp.program.highs_engine import Result
from inferno_milp.program.in_time import solve_in_time

ENOUGH = 1e4
"""A replica that carries so many times what is required counts no more than that: large numbers are of no use."""
ROUNDING, TINY = 1e-9, 1e-12
"""Differences between objective and bound that are none, relative and absolute."""
Criterion = Literal["expected", "worst"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What joins the moments.

    Attributes
    ----------
    weights : hours of each period, or probability of each scenario.
    planning : starts, ends and least times of periods; None for scenarios.
    served : least probability of the scenarios in which everybody is served; 1: all.
    criterion : `expected` cost over the weights, or that of the `worst` moment.
    reserved : units of each accelerator that are reserved already; None: as is best.
    """

    weights: FloatArray
    planning: Planning | None = None
    served: float = 1.0
    criterion: Criterion = "expected"
    reserved: IntArray | None = None

    @property
    def moves(self) -> bool:
        """Whether servers may run elsewhere in another moment."""
        return self.planning is not None and self.planning.moves


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a program.

    Attributes
    ----------
    outcome : optimal (proven within the gap), feasible, infeasible (proven), no_solution (the time ran out).
    replicas : ways × moments.
    reserved : of each accelerator.
    objective, bound : None where there is none.
    """

    outcome: Result
    replicas: IntArray
    reserved: IntArray
    objective: float | None
    bound: float | None


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try, and where.

    Attributes
    ----------
    gap : relative gap between cost and bound at which a plan counts as optimal.
    time_limit_s : seconds.
    jobs, scheduler : where moments are planned that come apart, as in `workers.spread`.
    """

    gap: float
    time_limit_s: float = math.inf
    jobs: int = 1
    scheduler: str | None = None


def solve_horizon(ways: Ways, setup: Setup, effort: Effort, start: Found | None = None) -> Found:
    """Find replicas and reservations of least cost.

    Parameters
    ----------
    start : a plan to start from.
    """
    left_s = until(time.perf_counter() + effort.time_limit_s)
    try:
        model = build_horizon(ways, setup, left_s=left_s)
    except OutOfTimeError:
        return nothing(ways, len(setup.weights), "no_solution")
    if ways.limits.side.names:
        start = None  # it does not say how nodes are cut
    if start is not None:
        set_start(model, ways, setup, start)
    solution = solve_in_time(model, gap=effort.gap, left_s=left_s, from_values=start is not None)
    found = nothing(ways, len(setup.weights), solution.outcome)
    if solution.objective is None:
        return replace(found, bound=solution.bound)
    for w, t in model.PAIRS:
        found.replicas[w, t] = round(model.replicas[w, t].value)
    for a in model.reserved:
        found.reserved[a] = round(model.reserved[a].value)
    return replace(found, objective=solution.objective, bound=solution.bound)


def nothing(ways: Ways, moments: int, outcome: Result) -> Found:
    """Return what came of a program that has no replicas."""
    replicas = np.zeros((len(ways.rows), moments), dtype=np.int64)
    return Found(outcome, replicas, np.zeros(len(ways.problem.accelerators), dtype=np.int64), None, None)


def is_proven(objective: float, bound: float, gap: float) -> bool:
    """Whether a bound is within the gap of an objective, but for rounding."""
    return objective - bound <= (gap + ROUNDING) * abs(objective) + TINY


def build_horizon(
    ways: Ways, setup: Setup, *, losable: bool = False, left_s: Callable[[], float] = lambda: math.inf
) -> pyo.ConcreteModel:
    """Build the program as a Pyomo model.

    Parameters
    ----------
    losable : whether servers may be left out of all moments, `lost` x_s.
    left_s : seconds left.

    Raises
    ------
    OutOfTimeError
        When there are none.

    Returns
    -------
    ConcreteModel
        With `replicas` n_wt, `home` y_w (single assignment), `reserved` z_a, `extra` o_at (units beyond them),
        `started` u_wt, `serve` v_t where not all scenarios need be served, and `worst` where that is what counts.
    """
    model = pyo.ConcreteModel(name="horizon")
    moments = range(len(setup.weights))
    model.PAIRS = pyo.Set(dimen=2, initialize=[(w, t) for w in range(len(ways.rows)) for t in moments])
    _add_variables(model, ways, setup)
    _add_demand(model, ways, setup, losable=losable, left_s=left_s)
    _add_devices(model, ways, moments, left_s)
    if setup.planning is not None and has_starts(setup.planning):
        add_starts(model, ways, setup)
    unit = ways.cost_unit
    budget = ways.problem.options.max_cost_per_hour
    if budget is not None:
        model.budget = pyo.ConstraintList(doc="Σ_a reserved_a(z_a) + Σ_a price_a o_at ≤ budget")
        for t in moments:
            if held := [(price / unit, variable) for price, variable in _held_costs(model, ways, t)]:
                model.budget.add(sum_of_terms(held) <= budget / unit)
    costs = [sum_of_terms([*_held_costs(model, ways, t), *changing_costs(model, ways, setup, t)]) for t in moments]
    if setup.criterion == "worst":
        model.worst = pyo.Var(bounds=(0, None), doc="C: cost of the dearest moment per hour, in units")
        model.no_dearer = pyo.ConstraintList(doc="C ≥ cost_t")
        for cost in costs:
            terms = [(-price / unit, variable) for price, variable in _terms(cost)]
            model.no_dearer.add(sum_of_terms([(1.0, model.worst), *terms]) >= 0.0)
        model.objective = pyo.Objective(expr=unit * model.worst, sense=pyo.minimize)
    else:
        weighted = zip(setup.weights.tolist(), costs, strict=True)
        model.objective = pyo.Objective(
            expr=sum_of_terms((weight * c, v) for weight, cost in weighted for c, v in _terms(cost)), sense=pyo.minimize
        )
    return model


def _terms(expression: LinearExpression) -> Iterator[tuple[float, Any]]:
    return zip(expression.linear_coefs, expression.linear_vars, strict=True)


def _most(ways: Ways, w: int, moments: Sequence[int]) -> int:
    """Return more replicas than a way can ever be of use."""
    server = ways.problem.servers[int(ways.rows.server[w])]
    most = max(ways.replicas(w, t) for t in moments)
    return max(most, server.min_replicas, 1)


def _add_variables(model: pyo.ConcreteModel, ways: Ways, setup: Setup) -> None:
    moments = range(len(setup.weights))
    most = [_most(ways, w, moments) for w in range(len(ways.rows))]
    model.replicas = pyo.Var(
        model.PAIRS, domain=pyo.NonNegativeIntegers, bounds=lambda m, w, t: (0, most[w]), doc="n_wt"
    )
    single = ways.problem.options.assignment == "single"
    stages = moments if setup.moves else range(1)
    homes = [(w, t) for w in range(len(ways.rows)) for t in stages] if single else []
    model.home = pyo.Var(homes, domain=pyo.Binary, doc="y_w: 1 if its server runs so; y_wt where it may move")
    accelerators = ways.problem.accelerators
    units = np.zeros(len(accelerators), dtype=np.int64)
    np.add.at(units, ways.rows.accelerator, np.array(most, dtype=np.int64) * ways.units)
    can = [a for a, one in enumerate(accelerators) if one.reserved_cost_per_hour is not None and units[a]]
    model.reserved = pyo.Var(
        can, domain=pyo.NonNegativeIntegers, bounds=lambda m, a: (0, int(units[a])), doc="z_a: units reserved"
    )
    if setup.reserved is not None:
        for a in can:
            model.reserved[a].setub(int(setup.reserved[a]))
            model.reserved[a].setlb(int(setup.reserved[a]))
    _add_tiers(model, ways)
    used = sorted(set(ways.rows.accelerator.tolist()))
    model.extra = pyo.Var(
        [(a, t) for a in used for t in moments], bounds=lambda m, a, t: (0, float(units[a])), doc="o_at: units beyond"
    )
    some = setup.served < 1
    model.serve = pyo.Var(list(moments) if some else [], domain=pyo.Binary, doc="v_t: 1 if all are served in it")
    if some:
        likely = sum_of_terms((weight, model.serve[t]) for t, weight in enumerate(setup.weights.tolist()))
        model.likely = pyo.Constraint(expr=likely >= setup.served - 1e-9, doc="Σ_t p_t v_t ≥ served")


def _add_tiers(model: pyo.ConcreteModel, ways: Ways) -> None:
    """Share reserved units out among the prices that count for them: a lower one only beyond its number of units."""
    tiers = {a: ways.problem.accelerators[a].reserved_tiers for a in model.reserved}
    keys = [(a, k) for a, found in tiers.items() for k in range(len(found)) if len(found) > 1]
    model.tier = pyo.Var(keys, bounds=(0, None), doc="z_ak: units reserved at the k-th price")
    model.reached = pyo.Var([(a, k) for a, k in keys if k], domain=pyo.Binary, doc="1 if units are reserved at it")
    model.tiers = pyo.ConstraintList(doc="Σ_k z_ak = z_a; all of the prices before, then the next")
    for a, found in tiers.items():
        if len(found) == 1:
            continue
        parts = [(1.0, model.tier[a, k]) for k in range(len(found))]
        model.tiers.add(sum_of_terms([*parts, (-1.0, model.reserved[a])]) == 0.0)
        ends = [start for start, _ in found[1:]] + [max(model.reserved[a].ub, found[-1][0])]
        for k, (start, _) in enumerate(found):
            width = float(ends[k] - start)
            if k:
                model.tiers.add(model.tier[a, k] - width * model.reached[a, k] <= 0.0)
            else:
                model.tier[a, k].setub(width)
            if k + 1 < len(found):
                model.tiers.add(model.tier[a, k] - width * model.reached[a, k + 1] >= 0.0)


def _add_demand(
    model: pyo.ConcreteModel, ways: Ways, setup: Setup, *, losable: bool, left_s: Callable[[], float]
) -> None:
    """Every server is carried in every moment, or in those that are served, unless it may be left out."""
    moments, problem = range(len(setup.weights)), ways.problem
    single = problem.options.assignment == "single"
    model.demand = pyo.ConstraintList()
    some = [s for s in range(len(problem.servers)) if losable and ways.of(s)]
    model.lost = pyo.Var(some, domain=pyo.Binary, doc="x_s: 1 if the server is left out")
    for s in range(len(problem.servers)):
        stop_if_late(left_s)
        own = ways.of(s)
        needed = [t for t in moments if ways.needs(s, t)]
        if not needed:
            for w in own:
                for t in moments:
                    model.replicas[w, t].setub(0)
            continue
        if not own:
            _without_ways(model, ways, s, needed)
            continue
        if single:
            for t in moments if setup.moves else range(1):
                homes = [*((1.0, model.home[w, t]) for w in own), *_lost(model, s)]
                model.demand.add(sum_of_terms(homes) == 1.0)
        for t in moments:
            _demand_in(model, ways, s, t, t if setup.moves else 0)


def _without_ways(model: pyo.ConcreteModel, ways: Ways, s: int, needed: Sequence[int]) -> None:
    """Leave moments unserved in which a server has a rate that nothing can carry; that may not be allowed."""
    may = not ways.problem.servers[s].min_replicas and all(t in model.serve for t in needed)
    assert may, "servers without ways are left out beforehand"
    for t in needed:
        model.serve[t].setub(0)


def _lost(model: pyo.ConcreteModel, s: int) -> list[tuple[float, Any]]:
    """Return what carries a server in name where it is left out."""
    return [(1.0, model.lost[s])] if s in model.lost else []


def _demand_in(model: pyo.ConcreteModel, ways: Ways, s: int, t: int, stage: int) -> None:
    own, server = ways.of(s), ways.problem.servers[s]
    if ways.problem.options.assignment == "single":
        for w in own:
            _demand_of_one(model, ways, w, t, stage)
    else:
        _demand_of_several(model, ways, s, t)
    if server.max_replicas is not None:
        model.demand.add(sum_of_terms((1.0, model.replicas[w, t]) for w in own) <= float(server.max_replicas))


def _demand_of_one(model: pyo.ConcreteModel, ways: Ways, w: int, t: int, stage: int) -> None:
    """n_wt ≥ r_wt (y_w + v_t − 1), at least the minimum, and none where the server does not run so."""
    needed, least = ways.replicas(w, t), ways.problem.servers[int(ways.rows.server[w])].min_replicas
    variable, home = model.replicas[w, t], model.home[w, stage]
    if t in model.serve:
        model.demand.add(variable - float(needed) * home - float(needed) * model.serve[t] >= -float(needed))
        if least:
            model.demand.add(variable - float(least) * home >= 0.0)
    elif needed:
        model.demand.add(variable - float(needed) * home >= 0.0)
    model.demand.add(variable - float(variable.ub) * home <= 0.0)


def _demand_of_several(model: pyo.ConcreteModel, ways: Ways, s: int, t: int) -> None:
    """Σ_w R_w n_wt ≥ rate_st v_t, and at least the minimum."""
    own, least = ways.of(s), ways.problem.servers[s].min_replicas
    required = float(ways.required_per_s[s, t])
    if required > 0:
        # Relative to what is required: the tolerances of solvers are absolute. And however little it is, somebody runs.
        parts = [min(float(ways.rows.max_rate_per_s[w]) / required, ENOUGH) for w in own]
        for coefficients in (parts, [1.0] * len(own)):
            carried = [(part, model.replicas[w, t]) for part, w in zip(coefficients, own, strict=True)]
            carried += _lost(model, s)
            if t in model.serve:
                model.demand.add(sum_of_terms([*carried, (-1.0, model.serve[t])]) >= 0.0)
            else:
                model.demand.add(sum_of_terms(carried) >= 1.0)
        if ways.problem.servers[s].survive_pools:
            _without_each_pool(model, ways, s, t)
    if least:
        parts_of_least = [(1.0, model.replicas[w, t]) for w in own]
        parts_of_least += [(float(least), variable) for _, variable in _lost(model, s)]
        model.demand.add(sum_of_terms(parts_of_least) >= float(least))


def _without_each_pool(model: pyo.ConcreteModel, ways: Ways, s: int, t: int) -> None:
    """Σ_{w of s, not in the pool} R_w n_wt ≥ rate_st without its reserve, for every pool."""
    own, problem = ways.of(s), ways.problem
    required = float(ways.required_per_s[s, t]) / (1 + problem.servers[s].reserve)
    homes = {w: problem.accelerators[ways.rows.accelerator[w]].pool for w in own}
    for pool in sorted({pool for pool in homes.values() if pool is not None}):
        rest = [w for w in own if homes[w] != pool]
        parts = [(min(float(ways.rows.max_rate_per_s[w]) / required, ENOUGH), model.replicas[w, t]) for w in rest]
        parts += _lost(model, s)
        if t in model.serve:
            model.demand.add(sum_of_terms([*parts, (-1.0, model.serve[t])]) >= 0.0)
        elif parts:
            model.demand.add(sum_of_terms(parts) >= 1.0)
        else:
            model.demand.add(pyo.Constraint.Infeasible)


def _add_devices(model: pyo.ConcreteModel, ways: Ways, moments: Sequence[int], left_s: Callable[[], float]) -> None:
    """Units beyond those that are reserved, and devices that there are."""
    rows, limits = ways.rows, ways.limits
    model.beyond = pyo.ConstraintList(doc="o_at ≥ Σ_w units_w n_wt − z_a")
    model.devices = pyo.ConstraintList(doc="Σ_w devices_w n_wt ≤ devices, and room in nodes")
    upper, cut_up = limits.side.upper.tolist(), limits.side.usage
    cuts = [(c, t) for c in range(len(limits.side.names)) for t in moments]
    model.cut = pyo.Var(cuts, domain=pyo.NonNegativeIntegers, bounds=lambda m, c, t: (0, upper[c]), doc="nodes cut so")
    for t in moments:
        stop_if_late(left_s)
        for a in sorted(set(rows.accelerator.tolist())):
            used = [
                (-float(ways.units[w]), model.replicas[w, t]) for w in np.flatnonzero(rows.accelerator == a).tolist()
            ]
            free = [(1.0, model.reserved[a])] if a in model.reserved else []
            model.beyond.add(sum_of_terms([(1.0, model.extra[a, t]), *free, *used]) >= 0.0)
        for j, most in enumerate(limits.most.tolist()):
            used = [(float(ways.usage[w, j]), model.replicas[w, t]) for w in np.flatnonzero(ways.usage[:, j]).tolist()]
            cut = [(float(cut_up[c, j]), model.cut[c, t]) for c in np.flatnonzero(cut_up[:, j]).tolist()]
            if used or cut:
                model.devices.add(sum_of_terms([*used, *cut]) <= most)


def _held_costs(model: pyo.ConcreteModel, ways: Ways, t: int) -> Iterator[tuple[float, Any]]:
    """Yield what is paid per hour in moment t: reserved units, and those beyond."""
    accelerators = ways.problem.accelerators
    for a in model.reserved:
        tiers = accelerators[a].reserved_tiers
        for k, (_, price) in enumerate(tiers):
            yield float(price), model.tier[a, k] if len(tiers) > 1 else model.reserved[a]
    for a in sorted(set(ways.rows.accelerator.tolist())):
        yield accelerators[a].cost_per_hour, model.extra[a, t]
