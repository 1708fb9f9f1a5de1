"""Random systems of any size in the manner of a given one, with capacities that make types compete."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import linprog

from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.columns.rows import Rows
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import LARGEST, LARGEST_COUNT
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Profile, Server, ServiceClass

RATE_SIGMA = 0.8
SERVER_SPEED_SIGMA = 0.35
PAIR_SPEED_SIGMA = 0.15
OUTPUT_TOKENS = (128, 1024)
INPUT_TOKENS = (64, 512)
MUCH_USED = 0.1
"""A type is used much if it takes at least this share of the cost of the plan without limits."""
MOST_HALVINGS = 30
NOT_MUCH_DEARER = 4.0
"""A server may be moved to candidates that cost at most this many times its cheapest."""
SPARE = 1.12
"""Devices of the other types, as a multiple of what a feasible substitution takes."""


def generate_problem(base: Problem, *, servers: int, tightness: float | None = 0.9, seed: int = 0) -> Problem:
    """Make a random problem in the manner of `base`.

    The (class, model) pairs of `base` are repeated. Each server has a model of its own: arrival rates are those of
    `base` × lognormal(σ 0.8), times × lognormal(0.35) per server and lognormal(0.15) per (server, accelerator), outputs
    of 128 to 1024 and prompts of 64 to 512 tokens. A server that no accelerator could serve is made faster.

    Parameters
    ----------
    base : the problem whose accelerators, profiles, classes and servers are varied.
    servers : number of servers, ≥ 1.
    tightness : devices of the types that the plan without limits uses much, as a multiple of that use; the other types
        get just enough, and 12 %, for a substitution that serves everybody. None: no limits.
    seed : of the random generator; the same seed gives the same problem.

    Raises
    ------
    ValueError
        If `servers` or `tightness` is not positive, nothing can serve a server of `base`, or it takes more devices than
        a problem may have.
    """
    if servers < 1:
        raise ValueError(f"servers must be at least 1, not {servers}")
    if tightness is not None and not tightness > 0:
        raise ValueError(f"tightness must be greater than 0, not {tightness}")
    rng = np.random.default_rng(seed)
    position = {a.name: i for i, a in enumerate(base.accelerators)}
    server_speed = rng.lognormal(0, SERVER_SPEED_SIGMA, servers)
    pair_speed = rng.lognormal(0, PAIR_SPEED_SIGMA, (servers, len(position)))
    loads = _loads(base, servers, rng)
    for _ in range(MOST_HALVINGS):
        problem = _build(base, loads, server_speed[:, None] * pair_speed, position)
        table = find_candidates(problem)
        if not table.unservable.size:
            break
        server_speed[table.unservable] /= 2
    else:
        origin = base.servers[int(table.unservable[0]) % len(base.servers)].name
        raise ValueError(f"no accelerator can serve {origin} of {base.name}, however fast it is made")
    if tightness is None:
        return problem
    capacity = _capacity(table, tightness)
    return problem.model_copy(update={"capacity": capacity, "name": f"{problem.name}-{tightness:g}"})


def _loads(base: Problem, servers: int, rng: np.random.Generator) -> list[Load]:
    rates = rng.lognormal(0, RATE_SIGMA, servers)
    outputs = rng.integers(*OUTPUT_TOKENS, servers, endpoint=True)
    inputs = rng.integers(*INPUT_TOKENS, servers, endpoint=True)
    loads = []
    for i in range(servers):
        load = base.servers[i % len(base.servers)].load
        rate = (load.arrival_rate_per_s if load else 1.0) * rates[i]
        loads.append(Load(rate_per_s=float(rate), input_tokens=float(inputs[i]), output_tokens=float(outputs[i])))
    return loads


def _build(base: Problem, loads: list[Load], factors: npt.NDArray[np.float64], position: dict[str, int]) -> Problem:
    by_model: dict[str, list[Profile]] = {}
    for profile in base.profiles:
        by_model.setdefault(profile.model, []).append(profile)
    base_targets = {c.name: c.targets for c in base.service_classes}
    targets = {c.name: dict(c.targets) for c in base.service_classes}
    times = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "kappa_ms")
    servers, profiles = [], []
    for i, load in enumerate(loads):
        origin = base.servers[i % len(base.servers)]
        model = f"{origin.model}-{i}"
        targets[origin.service_class][model] = base_targets[origin.service_class][origin.model]
        servers.append(Server(name=f"s{i}", service_class=origin.service_class, model=model, load=load))
        for profile in by_model[origin.model]:
            factor = float(factors[i, position[profile.accelerator]])
            scaled = {name: min(getattr(profile, name) * factor, LARGEST) for name in times}
            profiles.append(profile.model_copy(update={"model": model, **scaled}))
    return Problem(
        name=f"{base.name}-{len(servers)}",
        currency=base.currency,
        accelerators=base.accelerators,
        profiles=tuple(profiles),
        capacity="unlimited",
        service_classes=tuple(
            ServiceClass(name=c.name, priority=c.priority, targets=targets[c.name]) for c in base.service_classes
        ),
        servers=tuple(servers),
        options=base.options,
    )


def _sensible(table: Candidates) -> Rows:
    """Candidates that a server might sensibly be moved to; at least two types for each server that has two."""
    rows = table.one_per_accelerator().rows
    kinds = len(table.types)
    least = np.full((len(table.needs), kinds), np.inf)
    np.minimum.at(least, (rows.server, rows.type), rows.cost_per_hour)
    least.sort(axis=1)
    second = np.where(np.isfinite(least[:, 1]), least[:, 1], least[:, 0]) if kinds > 1 else least[:, 0]
    limit = np.maximum(NOT_MUCH_DEARER * least[:, 0], second)
    return rows.take(rows.cost_per_hour <= limit[rows.server])


def _capacity(table: Candidates, tightness: float) -> dict[str, int]:
    """Devices by type: scarce where the plan without limits uses much, just enough elsewhere.

    The other types are held in proportion to what each would need to serve all that it suits. The least multiple of
    that at which everybody can be served, in fractions, is one linear program. Then 12 % are added, and no type gets
    less than it takes to round each server to its largest fraction, which shows the problem to be feasible.
    """
    rows = _sensible(table)
    kinds, count = len(table.types), len(rows)
    order = np.lexsort((rows.accelerator, rows.cost_per_hour, rows.server))
    cheapest = order[np.unique(rows.server[order], return_index=True)[1]]
    cost = np.bincount(rows.type[cheapest], weights=rows.cost_per_hour[cheapest], minlength=kinds)
    use = np.bincount(rows.type[cheapest], weights=rows.devices[cheapest], minlength=kinds)
    scarce = cost >= MUCH_USED * cost.sum()
    least = np.full((len(table.needs), kinds), np.inf)
    np.minimum.at(least, (rows.server, rows.type), rows.devices)
    demand = np.where(np.isfinite(least), least, 0).sum(axis=0)

    # Variables: a fraction per row, and the multiple; rows of the program: the types, then the servers.
    types = sparse.csr_array((rows.devices, (rows.type, np.arange(count))), shape=(kinds, count))
    multiple = sparse.csr_array(np.where(scarce, 0.0, -demand)[:, None])
    servers = sparse.csr_array((np.ones(count), (rows.server, np.arange(count))), shape=(len(table.needs), count + 1))
    fractions = linprog(  # type: ignore[call-overload]  # its stubs know no sparse arrays
        np.append(np.zeros(count), 1.0),
        A_ub=sparse.hstack([types, multiple]),
        b_ub=np.where(scarce, np.floor(tightness * use), 0.0),
        A_eq=servers,
        b_eq=np.ones(len(table.needs)),
    )
    if not fractions.success:
        raise ValueError(
            f"no capacity at tightness {tightness:g} serves everybody: some servers suit scarce types only"
        )
    largest = np.lexsort((-fractions.x[:count], rows.server))
    rounded = largest[np.unique(rows.server[largest], return_index=True)[1]]
    taken = np.bincount(rows.type[rounded], weights=rows.devices[rounded], minlength=kinds)
    enough = np.where(scarce, np.floor(tightness * use), np.ceil(SPARE * fractions.x[-1] * demand))
    found = np.maximum(enough, taken)
    if found.max() > LARGEST_COUNT:
        raise ValueError(f"{found.max():.3g} devices of one type: a problem has {LARGEST_COUNT:.0e} at most")
    return {name: int(found[t]) for t, name in enumerate(table.types)}
