"""The mixed-integer program of the single assignment, and its solution: docs/optimization.md has it in mathematics."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from inferno_milp._pyomo import LinearExpression, pyo
from inferno_milp.candidates import Candidates
from inferno_milp.choice import Choice
from inferno_milp.highs import solve_with_highs
from inferno_milp.highs_engine import version

NAME = "milp (HiGHS)"


def build_model(candidates: Candidates) -> pyo.ConcreteModel:
    """Build the program of the single assignment.

    Parameters
    ----------
    candidates : the table; every server that needs an allocation must have a candidate.

    Returns
    -------
    ConcreteModel
        With the sets SERVERS, CANDIDATES and TYPES, the binary `choose`, the constraints `one_candidate` and
        `capacity`, and the objective `cost`.
    """
    rows = candidates.rows
    model = pyo.ConcreteModel(name="single_assignment")
    model.SERVERS = pyo.Set(initialize=np.unique(rows.server).tolist(), doc="positions of servers")
    model.CANDIDATES = pyo.Set(initialize=range(len(rows)), doc="positions of candidates")
    model.TYPES = pyo.Set(initialize=_limited_types(candidates), doc="positions of types that may run short")
    model.choose = pyo.Var(model.CANDIDATES, domain=pyo.Binary, doc="x_c: 1 if the server runs candidate c")
    model.cost = pyo.Objective(expr=_cost(model, candidates), sense=pyo.minimize, doc="Σ_c cost_c x_c")
    model.one_candidate = _one_candidate(model, candidates)
    model.capacity = _capacity(model, candidates)
    return model


def _limited_types(candidates: Candidates) -> list[int]:
    """Types whose capacity the candidates could exceed, if each server took its largest."""
    if candidates.available is None:
        return []
    rows = candidates.rows
    most = np.zeros((len(candidates.problem.servers), len(candidates.types)), dtype=np.int64)
    np.maximum.at(most, (rows.server, rows.type), rows.devices)
    return np.flatnonzero(most.sum(axis=0) > candidates.available).tolist()


def _cost(model: pyo.ConcreteModel, candidates: Candidates) -> pyo.Expression:
    costs = candidates.rows.cost_per_hour.tolist()
    return LinearExpression(linear_coefs=costs, linear_vars=list(model.choose.values()))


def _one_candidate(model: pyo.ConcreteModel, candidates: Candidates) -> pyo.Constraint:
    members = _members(candidates.rows.server)

    def rule(model: pyo.ConcreteModel, server: int) -> pyo.Expression:
        chosen = [model.choose[c] for c in members[server]]
        return LinearExpression(linear_coefs=[1] * len(chosen), linear_vars=chosen) == 1

    return pyo.Constraint(model.SERVERS, rule=rule, doc="Σ_{c of s} x_c = 1")


def _capacity(model: pyo.ConcreteModel, candidates: Candidates) -> pyo.Constraint:
    members = _members(candidates.rows.type)
    devices = candidates.rows.devices.tolist()
    available = candidates.available
    extra = model.component("extra")

    def rule(model: pyo.ConcreteModel, type_: int) -> pyo.Expression:
        chosen = members[type_]
        coefficients, variables = [devices[c] for c in chosen], [model.choose[c] for c in chosen]
        if extra is not None:
            coefficients, variables = [*coefficients, -1], [*variables, extra[type_]]
        assert available is not None
        used = LinearExpression(linear_coefs=coefficients, linear_vars=variables)
        return used <= int(available[type_])

    return pyo.Constraint(model.TYPES, rule=rule, doc="Σ_{c of t} devices_c x_c ≤ capacity_t")


def _members(keys: npt.NDArray[np.int64]) -> dict[int, list[int]]:
    """Positions by key."""
    result: dict[int, list[int]] = {}
    for position, key in enumerate(keys.tolist()):
        result.setdefault(key, []).append(position)
    return result


def solve_milp(candidates: Candidates, model: pyo.ConcreteModel, *, time_limit_s: float | None, gap: float) -> Choice:
    """Solve the program and read off the candidates chosen."""
    solution = solve_with_highs(model, time_limit_s=time_limit_s, gap=gap)
    chosen = [c for c in model.CANDIDATES if solution.objective is not None and pyo.value(model.choose[c]) > 0.5]
    return Choice(
        candidates=candidates,
        rows=np.array(chosen, dtype=np.intp),
        outcome=solution.outcome,
        objective=solution.objective,
        bound=solution.bound,
        solver=NAME,
        version=version(),
        wall_s=solution.wall_s,
    )


def find_shortfall(candidates: Candidates, *, time_limit_s: float) -> dict[str, int]:
    """Find the cheapest devices which, added to the capacity, would serve every server that has a candidate.

    Parameters
    ----------
    candidates : the table, nothing dropped; a device's price is the least at which an accelerator sells it.

    Returns
    -------
    dict
        Extra devices by type, those that are needed; empty if none are, or if the time ran out.
    """
    if candidates.available is None or not len(candidates.rows):
        return {}
    model = pyo.ConcreteModel(name="smallest_purchase")
    rows = candidates.rows
    model.SERVERS = pyo.Set(initialize=np.unique(rows.server).tolist())
    model.CANDIDATES = pyo.Set(initialize=range(len(rows)))
    model.TYPES = pyo.Set(initialize=np.unique(rows.type).tolist())
    model.choose = pyo.Var(model.CANDIDATES, domain=pyo.Binary)
    model.extra = pyo.Var(model.TYPES, domain=pyo.NonNegativeIntegers, doc="devices of type t to add")
    prices = device_prices(candidates)
    # A device that costs nothing still counts a little: nobody wants more of them than it takes.
    least = min((price for price in prices if price > 0), default=1.0)
    prices = [price or 1e-6 * least for price in prices]
    model.price = pyo.Objective(
        expr=LinearExpression(
            linear_coefs=[prices[t] for t in model.TYPES], linear_vars=[model.extra[t] for t in model.TYPES]
        )
    )
    model.one_candidate = _one_candidate(model, candidates)
    model.capacity = _capacity(model, candidates)
    if solve_with_highs(model, time_limit_s=time_limit_s, gap=0.0).outcome != "optimal":
        return {}
    return {candidates.types[t]: n for t in model.TYPES if (n := round(pyo.value(model.extra[t]))) > 0}


def device_prices(candidates: Candidates) -> list[float]:
    """Return the least price per device and hour of each type."""
    prices = [math.inf] * len(candidates.types)
    for accelerator in candidates.problem.accelerators:
        t = candidates.types.index(accelerator.type)
        prices[t] = min(prices[t], accelerator.cost_per_hour / accelerator.devices)
    return prices
