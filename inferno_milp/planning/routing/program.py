"""The program: whole replicas, and continuous shares of every bucket, so that nobody carries more than he can.

No bucket is cut into slices, and no rate is rounded: a share is any number from 0 to 1. docs/mixes.md has it in
mathematics, with these names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inferno_milp.errors import OptionError
from inferno_milp.program._pyomo import pyo, weighted_sum
from inferno_milp.program.highs import Runner, solve_with_highs
from inferno_milp.program.highs_engine import Result, run

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
MOST_REPLICAS = 10**9
ROUNDED = 1e-9
"""Shares below this are rounding."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a pool must be able to carry: its replicas, less those to spare, are at least Σ_b weight_b · share_b.

    Attributes
    ----------
    pool : position.
    weight : replicas that a whole bucket takes, buckets of its server; infinite where it cannot carry the bucket.
    """

    pool: int
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class Pools:
    """Servers whose buckets are shared out among pools, one for each accelerator that may serve them.

    Attributes
    ----------
    buckets : number of buckets of each server.
    least, most : replicas of all pools of each server together.
    server : of each pool.
    price : of a replica.
    usage : devices that a replica takes, pools × types.
    spare : replicas that a pool that is used has beyond what carries its load.
    """

    buckets: Sequence[int]
    least: IntArray
    most: FloatArray
    server: IntArray
    price: FloatArray
    usage: FloatArray
    spare: IntArray

    def of(self, server: int) -> list[int]:
        """Return the positions of a server's pools."""
        return np.flatnonzero(self.server == server).tolist()


@dataclass(frozen=True, slots=True)
class Others:
    """Servers that are not routed: each picks one of its ways, at a price, with a use of devices."""

    server: IntArray
    price: FloatArray
    usage: FloatArray

    @classmethod
    def none(cls, types: int) -> Others:
        """Return no servers."""
        return cls(np.empty(0, dtype=np.int64), np.empty(0), np.empty((0, types)))


@dataclass(frozen=True, slots=True)
class Limits:
    """Devices of each type, infinite without a limit; what all may cost together."""

    devices: FloatArray
    cost: float = math.inf


@dataclass(frozen=True, slots=True)
class Routed:
    """What came of the program.

    Attributes
    ----------
    outcome : optimal (proven within the gap), feasible, infeasible (proven), no_solution (the time ran out).
    replicas : of each pool.
    shares : of each bucket in each pool, by pool, buckets of its server.
    picked : positions in `Others` of the ways that were picked.
    cost, bound : of all; None where there is none.
    """

    outcome: Result
    replicas: IntArray
    shares: list[FloatArray] = field(default_factory=list)
    picked: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    cost: float | None = None
    bound: float | None = None


def solve_routing(
    pools: Pools,
    cuts: Sequence[Cut],
    others: Others,
    limits: Limits,
    *,
    gap: float = 1e-6,
    time_limit_s: float = math.inf,
    runner: Runner = run,
) -> Routed:
    """Find replicas and shares of least cost."""
    model = build_routing(pools, cuts, others, limits)
    solution = solve_with_highs(model, gap=gap, time_limit_s=time_limit_s, run=runner)
    if solution.objective is None:
        return Routed(solution.outcome, np.zeros(len(pools.server), dtype=np.int64), bound=solution.bound)
    replicas = np.array([round(variable.value) for variable in model.replicas.values()], dtype=np.int64)
    shares = []
    for p, server in enumerate(pools.server.tolist()):
        values = np.array([_value(model.share[p, b]) for b in range(pools.buckets[server])])
        shares.append(np.where(values > ROUNDED, values, 0.0))
    for server in range(len(pools.buckets)):
        own = pools.of(server)
        whole = np.sum([shares[p] for p in own], axis=0)
        for p in own:
            shares[p] = shares[p] / whole
    picked = np.flatnonzero([variable.value > 0.5 for variable in model.pick.values()])
    cost = math.fsum((pools.price * replicas).tolist() + others.price[picked].tolist())
    return Routed(solution.outcome, replicas, shares, picked, cost, solution.bound)


def _value(variable: pyo.Var | float) -> float:
    return float(pyo.value(variable))


def build_routing(pools: Pools, cuts: Sequence[Cut], others: Others, limits: Limits) -> pyo.ConcreteModel:
    """Build the program as a Pyomo model.

    Returns
    -------
    ConcreteModel
        With `replicas` n_p, `share` x_pb, `used` u_p where there are spares, and `pick` y_k.
    """
    model = pyo.ConcreteModel(name="routing")
    _add_variables(model, pools, cuts, others)
    _add_servers(model, pools)
    _add_loads(model, pools, cuts)
    prices = [*pools.price.tolist(), *others.price.tolist()]
    variables = [*model.replicas.values(), *model.pick.values()]
    model.cost = pyo.Objective(expr=weighted_sum(prices, variables), sense=pyo.minimize)
    model.one = pyo.ConstraintList(doc="Σ_k y_k = 1")
    for server in np.unique(others.server).tolist():
        ways = [model.pick[k] for k in np.flatnonzero(others.server == server).tolist()]
        model.one.add(weighted_sum([1.0] * len(ways), ways) == 1.0)
    model.limit = pyo.ConstraintList(doc="Σ_p u_pt n_p + Σ_k u_kt y_k ≤ devices_t; the same of the cost")
    usage = np.concatenate([pools.usage, others.usage])
    for t in np.flatnonzero(np.isfinite(limits.devices)).tolist():
        which = np.flatnonzero(usage[:, t]).tolist()
        if which:
            used = weighted_sum(usage[which, t].tolist(), [variables[i] for i in which])
            model.limit.add(used <= float(limits.devices[t]))
    if math.isfinite(limits.cost):
        model.limit.add(weighted_sum(prices, variables) <= limits.cost)
    return model


def _add_variables(model: pyo.ConcreteModel, pools: Pools, cuts: Sequence[Cut], others: Others) -> None:
    servers = pools.server.tolist()
    members = [(p, b) for p, server in enumerate(servers) for b in range(pools.buckets[server])]
    barred = {(cut.pool, b) for cut in cuts for b in np.flatnonzero(~np.isfinite(cut.weight)).tolist()}
    most = _most_replicas(pools, cuts)
    model.POOLS = pyo.Set(initialize=range(len(servers)), doc="a server on an accelerator")
    model.SHARES = pyo.Set(dimen=2, initialize=members, doc="(pool, bucket)")
    model.OTHERS = pyo.Set(initialize=range(len(others.server)), doc="ways of servers that are not routed")
    model.replicas = pyo.Var(
        model.POOLS, domain=pyo.NonNegativeIntegers, bounds=lambda m, p: (0, most[p]), doc="n_p: replicas"
    )
    model.share = pyo.Var(
        model.SHARES, bounds=lambda m, p, b: (0, 0.0 if (p, b) in barred else 1.0), doc="x_pb: part of bucket b"
    )
    model.used = pyo.Var(
        np.flatnonzero(pools.spare > 0).tolist(), domain=pyo.Binary, doc="u_p: 1 if the pool carries anything"
    )
    model.pick = pyo.Var(model.OTHERS, domain=pyo.Binary, doc="y_k: 1 if its server picks way k")


def _most_replicas(pools: Pools, cuts: Sequence[Cut]) -> list[int]:
    """Return the most replicas that a pool can be of use with: for all requests, its spares, its server's minimum."""
    most = (pools.spare + pools.least[pools.server]).astype(float)
    load = np.zeros(len(most))
    for cut in cuts:
        whole = float(cut.weight[np.isfinite(cut.weight)].sum())
        load[cut.pool] = max(load[cut.pool], math.ceil(whole * (1 + ROUNDED)))
    found = np.minimum(most + load, pools.most[pools.server])
    if (found > MOST_REPLICAS).any():
        raise OptionError(f"more than {MOST_REPLICAS:.0e} replicas of one kind would be needed")
    return [int(count) for count in found]


def _add_servers(model: pyo.ConcreteModel, pools: Pools) -> None:
    """Every bucket goes somewhere, and replicas are counted."""
    model.whole = pyo.ConstraintList(doc="Σ_p x_pb = 1")
    model.counts = pyo.ConstraintList(doc="least_s ≤ Σ_p n_p ≤ most_s")
    for server, buckets in enumerate(pools.buckets):
        own = pools.of(server)
        if not own:
            model.whole.add(pyo.Constraint.Infeasible)
            continue
        for b in range(buckets):
            model.whole.add(weighted_sum([1.0] * len(own), [model.share[p, b] for p in own]) == 1.0)
        number = weighted_sum([1.0] * len(own), [model.replicas[p] for p in own])
        if pools.least[server] > 0:
            model.counts.add(number >= float(pools.least[server]))
        if pools.most[server] < MOST_REPLICAS:
            model.counts.add(number <= float(pools.most[server]))


def _add_loads(model: pyo.ConcreteModel, pools: Pools, cuts: Sequence[Cut]) -> None:
    """Nobody carries more than he can."""
    model.carry = pyo.ConstraintList(doc="n_p ≥ Σ_b w_pb x_pb + spare_p u_p")
    for cut in cuts:
        finite = np.flatnonzero(np.isfinite(cut.weight) & (cut.weight != 0)).tolist()
        weights = [-float(cut.weight[b]) for b in finite]
        terms = [model.share[cut.pool, b] for b in finite]
        if cut.pool in model.used:
            weights.append(-float(pools.spare[cut.pool]))
            terms.append(model.used[cut.pool])
        model.carry.add(weighted_sum([1.0, *weights], [model.replicas[cut.pool], *terms]) >= 0.0)
    model.only_used = pyo.ConstraintList(doc="x_pb ≤ u_p")
    for p, b in model.SHARES:
        if p in model.used:
            model.only_used.add(model.used[p] - model.share[p, b] >= 0.0)
