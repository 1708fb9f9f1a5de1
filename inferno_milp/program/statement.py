"""The master program as a Pyomo model: docs/optimization.md has it in mathematics, with these names."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from inferno_milp.program._pyomo import LinearExpression, pyo, sum_of_terms
from inferno_milp.program.covers import Covers
from inferno_milp.program.master import Master

MOST_UNITS = 10**9


def build_model(master: Master, covers: Covers | None = None, *, offset: float = 0.0) -> pyo.ConcreteModel:
    """Build the program: each server picks one of its options, or one of its cases with replicas that cover it.

    Parameters
    ----------
    master : options, side columns, limits.
    covers : cases of servers, each of which may have options as well.
    offset : constant part of the objective.

    Returns
    -------
    ConcreteModel
        With the sets SERVERS, OPTIONS, LIMITS, the binary `choose`, the constraints `one_option` and `limit`, and the
        objective `cost`; with covers also CASES and PARTS, `use`, `replicas`, `cover`, `fewest` and `most`; with side
        columns COLUMNS and `units`.
    """
    with collecting_no_garbage():
        return _built(master, covers, offset)


@contextmanager
def collecting_no_garbage() -> Iterator[None]:
    """Leave garbage where it is meanwhile: looking for it among so many new objects takes as long as making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _built(master: Master, covers: Covers | None, offset: float) -> pyo.ConcreteModel:
    model = pyo.ConcreteModel(name="plan")
    model.SERVERS = pyo.Set(initialize=range(_servers(master, covers)), doc="servers")
    model.OPTIONS = pyo.Set(initialize=range(len(master.options)), doc="options")
    model.LIMITS = pyo.Set(initialize=list(master.limits), doc="limits")
    model.choose = pyo.Var(model.OPTIONS, domain=pyo.Binary, doc="x_o: 1 if its server picks option o")
    if master.side.names:
        _add_columns(model, master)
    if covers is not None:
        _add_cases(model, covers)
    model.cost = pyo.Objective(rule=lambda m: _cost(m, master, covers, offset), sense=pyo.minimize, doc="Σ costs")
    model.one_option = _one_option(model, master, covers)
    if covers is not None:
        _add_covering(model, covers)
    model.limit = _limit(model, master, covers)
    return model


def _servers(master: Master, covers: Covers | None) -> int:
    last = -1 if covers is None else int(covers.server.max(initial=-1))
    return max(master.options.servers, last + 1)


def _add_columns(model: pyo.ConcreteModel, master: Master) -> None:
    upper = np.minimum(master.side.upper, MOST_UNITS).astype(int).tolist()
    model.COLUMNS = pyo.Set(initialize=range(len(upper)), doc="columns beside the options")
    model.units = pyo.Var(
        model.COLUMNS, domain=pyo.NonNegativeIntegers, bounds=lambda m, j: (0, upper[j]), doc="y_j: units of column j"
    )


def _add_cases(model: pyo.ConcreteModel, covers: Covers) -> None:
    model.CASES = pyo.Set(initialize=range(len(covers)), doc="cases")
    model.PARTS = pyo.Set(
        dimen=2, initialize=[tuple(pair) for pair in np.argwhere(covers.entries).tolist()], doc="(case, its candidate)"
    )
    model.use = pyo.Var(model.CASES, domain=pyo.Binary, doc="z_k: 1 if its server picks case k")
    with np.errstate(divide="ignore", invalid="ignore"):
        enough = np.ceil(covers.required[:, None] / covers.rate)
    enough = np.maximum(np.where(covers.entries, enough, 0), np.maximum(covers.least, 1)[:, None]) + 1
    upper = np.minimum(enough, covers.most[:, None]).astype(int)
    model.replicas = pyo.Var(
        model.PARTS,
        domain=pyo.NonNegativeIntegers,
        bounds=lambda m, k, c: (0, int(upper[k, c])),
        doc="n_kc: replicas of candidate c in case k",
    )


def _cost(model: pyo.ConcreteModel, master: Master, covers: Covers | None, offset: float) -> Any:
    options = master.options.cost.tolist()

    def pairs() -> Iterator[tuple[float, Any]]:
        yield from zip(options, model.choose.values(), strict=True)
        if master.side.names:
            yield from zip(master.side.cost.tolist(), model.units.values(), strict=True)
        if covers is not None:
            yield from zip(covers.fixed_cost.tolist(), model.use.values(), strict=True)
            costs = covers.cost.tolist()
            yield from ((costs[k][c], variable) for (k, c), variable in model.replicas.items())

    return sum_of_terms(pairs(), offset)


def _one_option(model: pyo.ConcreteModel, master: Master, covers: Covers | None) -> pyo.Constraint:
    members: list[list[Any]] = [[] for _ in model.SERVERS]
    for server, variable in zip(master.options.server.tolist(), model.choose.values(), strict=True):
        members[server].append(variable)
    if covers is not None:
        for server, variable in zip(covers.server.tolist(), model.use.values(), strict=True):
            members[server].append(variable)

    def rule(model: pyo.ConcreteModel, s: int) -> Any:
        return LinearExpression(linear_coefs=[1] * len(members[s]), linear_vars=members[s]) == 1

    return pyo.Constraint(model.SERVERS, rule=rule, doc="Σ_{o of s} x_o + Σ_{k of s} z_k = 1")


def _add_covering(model: pyo.ConcreteModel, covers: Covers) -> None:
    """Constraints of the cases: rate, fewest and most replicas, replicas that there must be.

    A replica counts for no more than what is required: of whole replicas that loses nothing, and the relaxation is
    closer. Rates below 1 are counted as parts of what is required: HiGHS takes a row as kept to within 1e-7, however
    small it is.
    """
    wanted = covers.required[:, None]
    unit = np.where(covers.required > 0, np.minimum(covers.required, 1.0), 1.0)
    rates, forced = (np.minimum(covers.rate, wanted) / unit[:, None]).tolist(), covers.forced.tolist()
    required, least, most = (covers.required / unit).tolist(), covers.least.tolist(), covers.most.tolist()
    parts: list[list[int]] = [np.flatnonzero(row).tolist() for row in covers.entries]

    def replicas(k: int, weights: list[float] | None = None) -> Iterator[tuple[float, Any]]:
        return ((1.0 if weights is None else weights[c], model.replicas[k, c]) for c in parts[k])

    def cover(model: pyo.ConcreteModel, k: int) -> Any:
        return sum_of_terms(iter([*replicas(k, rates[k]), (-required[k], model.use[k])])) >= 0

    def fewest(model: pyo.ConcreteModel, k: int) -> Any:
        return sum_of_terms(iter([*replicas(k), (-least[k], model.use[k])])) >= 0

    def most_(model: pyo.ConcreteModel, k: int) -> Any:
        return sum_of_terms(iter([*replicas(k), (-most[k], model.use[k])])) <= 0

    def kept(model: pyo.ConcreteModel, k: int, c: int) -> Any:
        return sum_of_terms(iter([(1.0, model.replicas[k, c]), (-forced[k][c], model.use[k])])) >= 0

    model.cover = pyo.Constraint(model.CASES, rule=cover, doc="Σ_c r_kc n_kc ≥ R_k z_k")
    counted = [k for k in model.CASES if least[k] > 1]
    model.fewest = pyo.Constraint(counted, rule=fewest, doc="Σ_c n_kc ≥ fewest_k z_k")
    bounded = [k for k in model.CASES if most[k] < MOST_UNITS]
    model.most = pyo.Constraint(bounded, rule=most_, doc="Σ_c n_kc ≤ most_k z_k")
    held = [(k, c) for k, c in model.PARTS if forced[k][c]]
    model.kept = pyo.Constraint(held, rule=kept, doc="n_kc ≥ z_k where case k keeps c")


def _limit(model: pyo.ConcreteModel, master: Master, covers: Covers | None) -> pyo.Constraint:
    choose = list(model.choose.values())
    position = {name: j for j, name in enumerate(master.limits)}

    def rule(model: pyo.ConcreteModel, name: str) -> Any:
        j = position[name]
        used = master.options.usage[:, j]
        which = np.flatnonzero(used)
        coefficients, variables = used[which].tolist(), [choose[o] for o in which.tolist()]
        if master.side.names:
            use = master.side.usage[:, j]
            coefficients += use[use != 0].tolist()
            variables += [model.units[i] for i in np.flatnonzero(use).tolist()]
        if covers is not None:
            fixed, parts = covers.fixed_usage[:, j], covers.usage[:, :, j] * covers.entries
            coefficients += fixed[fixed != 0].tolist() + parts[parts != 0].tolist()
            variables += [model.use[k] for k in np.flatnonzero(fixed).tolist()]
            variables += [model.replicas[k, c] for k, c in np.argwhere(parts).tolist()]
        if not coefficients:
            return pyo.Constraint.Feasible if master.most[j] >= 0 else pyo.Constraint.Infeasible
        return LinearExpression(linear_coefs=coefficients, linear_vars=variables) <= float(master.most[j])

    return pyo.Constraint(model.LIMITS, rule=rule, doc="Σ_o u_ol x_o + Σ_kc u_kcl n_kc + Σ_j v_jl y_j ≤ most_l")
