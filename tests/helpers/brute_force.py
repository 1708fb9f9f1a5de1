"""Plans by trying everything: the least cost of small problems, with every limit, written from the rules alone.

It takes from the package the rates of candidates and nothing else; what an option costs and uses is reckoned here.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server
from inferno_milp.problem.supply import Power

EPSILON = 1e-9
MOST_OF_ONE = 12


@dataclass(frozen=True)
class Way:
    """A way to serve a server: replicas by accelerator, and what it costs and uses."""

    replicas: tuple[tuple[str, int], ...]
    objective: float
    price: float
    power_w: float
    moves: bool
    devices: tuple[tuple[str, int, int], ...]  # type, devices of a replica, replicas


@dataclass(frozen=True)
class Best:
    """Weight served by priority, highest first, and the least objective with that."""

    served: tuple[float, ...]
    objective: float


def best_plan(problem: Problem) -> Best:
    """Try every combination of ways, and of leaving servers out."""
    table = find_attainable_candidates(problem)
    ways = [list(ways_of(problem, table, s)) for s in range(len(problem.servers))]
    choices = [[None, *found] if table.needs[s] else [None] for s, found in enumerate(ways)]
    priority = {c.name: c.priority for c in problem.service_classes}
    levels = sorted(set(priority.values()))
    best: tuple[tuple[float, ...], float] | None = None
    for combination in itertools.product(*choices):
        if not fits(problem, [way for way in combination if way]):
            continue
        served = [0.0] * len(levels)
        for server, way in zip(problem.servers, combination, strict=True):
            if way:
                served[levels.index(priority[server.service_class])] += server.weight
        objective = math.fsum(way.objective for way in combination if way)
        key = (tuple(-float(f"{weight:.9g}") for weight in served), objective)
        best = key if best is None else min(best, key)
    assert best is not None
    return Best(tuple(-weight for weight in best[0]), best[1])


def all_served(problem: Problem) -> bool:
    """Whether all servers of a problem can be served, by trying everything."""
    priority = {c.name: c.priority for c in problem.service_classes}
    weights: dict[int, float] = dict.fromkeys(sorted(set(priority.values())), 0.0)
    for server, needs in zip(problem.servers, find_candidates(problem).needs, strict=True):
        weights[priority[server.service_class]] += server.weight * bool(needs)
    return best_plan(problem).served == pytest.approx(tuple(weights.values()))


def ways_of(problem: Problem, table: Candidates, s: int) -> Iterator[Way]:
    """Every way to serve a server that is not plainly too large."""
    server, required = problem.servers[s], float(table.required_rate_per_s[s])
    rates: dict[str, tuple[float, int]] = {}
    rows = table.rows
    wanted = required * (1 + server.reserve)
    for i in np.flatnonzero(rows.server == s).tolist():
        name = problem.accelerators[rows.accelerator[i]].name
        rate = float(rows.max_rate_per_s[i])
        if name not in rates or better(rate, rates[name][0], problem, server, wanted):
            rates[name] = (rate, i)
    names = sorted(name for name in rates if may_use(problem, server, name))
    assert names == sorted(rates)  # the table holds no others
    if required == 0:
        counts = [Counter({name: server.min_replicas}) for name in names]
    elif problem.options.assignment == "single":
        counts = []
        for name in names:
            number = math.ceil(wanted / rates[name][0]) + server.survive
            counts.append(Counter({name: max(number, server.min_replicas)}))
    else:
        limits = [math.ceil(wanted / rates[n][0]) + server.survive + server.min_replicas for n in names]
        assume(max(limits, default=0) <= MOST_OF_ONE)  # of more, not everything can be tried
        grid = itertools.product(*(range(limit + 1) for limit in limits))
        counts = [Counter(dict(zip(names, numbers, strict=True))) for numbers in grid]
    for count in counts:
        replicas = tuple((name, count[name]) for name in names if count[name])
        number = sum(count.values())
        if not number or number < server.min_replicas or (server.max_replicas and number > server.max_replicas):
            continue
        if required > 0 and remaining(replicas, rates, server.survive) < wanted * (1 - EPSILON):
            continue
        yield priced(problem, table, server, replicas, rates, required)


def may_use(problem: Problem, server: Server, name: str) -> bool:
    """Whether the server's pools, adapters and accelerators of today leave it an accelerator."""
    accelerator = next(a for a in problem.accelerators if a.name == name)
    profile = next(p for p in problem.profiles if (p.model, p.accelerator) == (server.model, name))
    in_pool = server.pools is None or accelerator.pool in server.pools
    holds = profile.max_adapters is None or len(set(server.adapters)) <= profile.max_adapters
    return in_pool and holds and (not server.keep_accelerator or name in {c.accelerator for c in server.current})


def better(rate: float, known: float, problem: Problem, server: Server, wanted: float) -> bool:
    """Whether a larger batch is to be preferred: for fewer replicas, or where that is open for a higher rate."""
    if problem.options.assignment == "mixed":
        return rate > known
    numbers = [max(math.ceil(wanted / r) + server.survive, server.min_replicas) if wanted else 0 for r in (rate, known)]
    return numbers[0] < numbers[1]


def remaining(replicas: tuple[tuple[str, int], ...], rates: dict[str, tuple[float, int]], lost: int) -> float:
    """What is carried without the strongest replicas."""
    single = sorted((rates[name][0] for name, number in replicas for _ in range(number)), reverse=True)
    return math.fsum(single[lost:])


def priced(
    problem: Problem,
    table: Candidates,
    server: Server,
    replicas: tuple[tuple[str, int], ...],
    rates: dict[str, tuple[float, int]],
    required: float,
) -> Way:
    """Reckon what a way costs and uses."""
    accelerators = {a.name: a for a in problem.accelerators}
    profiles = {p.accelerator: p for p in problem.profiles if p.model == server.model}
    options = problem.options
    prices = {
        name: number * profiles[name].accelerators_per_replica * accelerators[name].cost_per_hour
        for name, number in replicas
    }
    now = {
        c.accelerator: c.replicas
        * (profiles[c.accelerator].accelerators_per_replica if c.accelerator in profiles else 1)
        * accelerators[c.accelerator].cost_per_hour
        for c in server.current
    }
    moved = 0.0
    if now:
        moved = sum(price for name, price in prices.items() if name not in now)
        moved += sum(price for name, price in now.items() if name not in prices)
    power = 0.0
    if options.uses_power:
        for name, number in replicas:
            rate = rates[name][0] if options.assignment == "mixed" else required / number
            rate /= accelerators[name].availability
            use = utilization(problem, table, rates[name][1], rate) if server.load else 0.0
            curve = accelerators[name].power
            assert curve is not None
            power += number * profiles[name].accelerators_per_replica * watts(curve, use)
    charged = (
        power / 1000 * (options.energy_price_per_kwh + options.carbon_price_per_kg * (options.carbon_kg_per_kwh or 0.0))
    )
    return Way(
        replicas=replicas,
        objective=sum(prices.values()) + options.change_penalty * moved + charged,
        price=sum(prices.values()),
        power_w=power,
        moves=bool(now) and set(prices) != set(now),
        devices=tuple(
            (
                accelerators[name].type,
                profiles[name].accelerators_per_replica * accelerators[name].devices,
                number,
            )
            for name, number in replicas
        ),
    )


def utilization(problem: Problem, table: Candidates, row: int, rate_per_s: float) -> float:
    """Utilisation of one replica at a rate."""
    from inferno_milp.queueing import analyze

    one = table.rows.take(np.array([row]))
    engines = table.engines.of(one.server, one.profile, one.batch_size)
    return float(analyze(problem.options.law, **engines, rate_per_s=np.array([rate_per_s])).utilization[0])


def watts(power: Power, use: float) -> float:
    """Two straight lines."""
    if use <= power.mid_utilization:
        return power.idle_w + (power.mid_w - power.idle_w) * use / power.mid_utilization
    return power.mid_w + (power.full_w - power.mid_w) * (use - power.mid_utilization) / (1 - power.mid_utilization)


def fits(problem: Problem, ways: list[Way]) -> bool:
    """Whether ways keep every limit together."""
    options = problem.options
    if options.max_cost_per_hour is not None and sum(w.price for w in ways) > options.max_cost_per_hour * (1 + EPSILON):
        return False
    power = sum(w.power_w for w in ways)
    if options.max_power_w is not None and power > options.max_power_w * (1 + EPSILON):
        return False
    if options.max_carbon_kg_per_hour is not None:
        carbon = power / 1000 * (options.carbon_kg_per_kwh or 0.0)
        if carbon > options.max_carbon_kg_per_hour * (1 + EPSILON):
            return False
    if options.max_changes is not None and sum(w.moves for w in ways) > options.max_changes:
        return False
    if problem.capacity is None:
        return True
    sizes: dict[str, Counter[int]] = {}
    for way in ways:
        for kind, size, number in way.devices:
            sizes.setdefault(kind, Counter())[size] += number
    return all(holds(problem, kind, counts) for kind, counts in sizes.items())


def holds(problem: Problem, kind: str, counts: Counter[int]) -> bool:
    """Whether the devices, or nodes, of a type hold so many replicas of each size."""
    nodes = [group.devices for group in problem.nodes if group.type == kind for _ in range(group.count)]
    if not any(group.type == kind for group in problem.nodes):
        assert problem.capacity is not None
        return sum(size * number for size, number in counts.items()) <= problem.capacity.get(kind, 0)
    items = sorted((size for size, number in counts.items() for _ in range(number)), reverse=True)
    return packs(tuple(sorted(nodes)), tuple(items))


def packs(nodes: tuple[int, ...], items: tuple[int, ...]) -> bool:
    """Whether items fit into nodes, by trying the largest item in every node of another size."""
    if not items:
        return True
    if sum(items) > sum(nodes):
        return False
    item, rest = items[0], items[1:]
    for room in sorted(set(nodes)):
        if room >= item:
            left = list(nodes)
            left.remove(room)
            if packs(tuple(sorted([*left, room - item])), rest):
                return True
    return False
