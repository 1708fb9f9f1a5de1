"""Routing the mixes of a problem: solve with what buckets are thought to take, analyse, mend what was wrong, again.

The program takes what a pool must carry for linear. It is linear only nearly: so every answer is analysed, and where a
pool could not carry what it was given, the program learns what that mix takes. What is returned is a plan of a problem
in which every pool is a server of its own, and has passed the check of plans like any other.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.columns.candidates import find_candidates
from inferno_milp.errors import OptionError
from inferno_milp.plan import DEFAULT_GAP, Plan
from inferno_milp.planning.optimize import optimize, plan_candidates
from inferno_milp.planning.routing.plans import SMALL_SHARE, Route, RoutedPlan
from inferno_milp.planning.routing.pools import Carried, FloatArray, Pool, find_carried, find_weights, flows_of, part_of
from inferno_milp.planning.routing.program import Cut, Limits, Others, Pools, Routed, solve_routing
from inferno_milp.planning.trust import resting_as
from inferno_milp.problem import Problem, new_name
from inferno_milp.problem.sections import CurrentAllocation, Server
from inferno_milp.program.deadline import OutOfTimeError, until
from inferno_milp.program.highs import Runner
from inferno_milp.program.in_time import runner_for

logger = logging.getLogger(__name__)

MOST_ROUNDS = 25
PROGRAMS_PART = 0.75
"""Part of a time limit that the programs of routing have; the rest is for the plan made of the best answer."""
LEAST_S = 1.0
"""Seconds that the programs without routing have at the least: the analysis before them is not cut short."""
SAFE = 1 + 1e-5
"""Loads are taken for so much larger: the program keeps its limits but for rounding, and replicas are whole."""


def find_routes(problem: Problem, *, time_limit_s: float | None = None, gap: float = DEFAULT_GAP) -> RoutedPlan:
    """Plan with requests routed by their sizes.

    Parameters
    ----------
    problem : with a `mix` in the load of one server or more; those without are planned as always.
    time_limit_s : seconds, for the plan without routing and for routing; None: no limit.
    gap : relative gap between cost and bound of each program.

    Returns
    -------
    RoutedPlan
        Never dearer than the plan without routing. Its plan is checked; that no routing is cheaper still is not proven.

    Raises
    ------
    OptionError
        If no server has a mix that can be routed, or power is limited or priced.
    """
    members = [s for s, server in enumerate(problem.servers) if _is_routable(problem, server)]
    if not members:
        raise OptionError("no server has a load with a mix of two buckets or more, and no target in tokens per second")
    _refuse(problem, members)
    problem = _without_today(problem, members)
    began = time.perf_counter()
    end = math.inf if time_limit_s is None else began + time_limit_s
    with runner_for(until(end)) as runner:
        search = _Search(problem, members, gap, end, runner)
        search.run_alike()
        alike, split = search.plan(), tuple(search.routes())
        plain = optimize(problem, time_limit_s=_left_s(end), gap=gap)
        unrouted = RoutedPlan(problem, plain, (), plain, 0)
        if alike is not None and _cost(alike[1]) < _cost(plain):
            mixed = resting_as(alike[1], plain)
            unrouted = RoutedPlan(alike[0], mixed, split, mixed, 0)
        search.run(until(began + PROGRAMS_PART * (end - began)))
    found = search.plan()
    if found is None or _cost(found[1]) >= _cost(unrouted.plan):
        return replace(unrouted, rounds=search.rounds)
    routed = resting_as(found[1], plain)
    return RoutedPlan(found[0], routed, tuple(search.routes()), unrouted.plan, search.rounds)


def _left_s(end: float) -> float | None:
    return None if math.isinf(end) else max(end - time.perf_counter(), LEAST_S)


def _refuse(problem: Problem, members: Sequence[int]) -> None:
    wrong = []
    if problem.options.uses_power:
        wrong.append("power: take its limits and prices out")
    if problem.nodes:
        wrong.append("nodes: give their devices as capacity")
    if problem.options.max_changes is not None and any(problem.servers[s].current for s in members):
        wrong.append("limited changes of servers that it routes")
    if wrong:
        raise OptionError(f"routing does not count {'; or '.join(wrong)}")


def _without_today(problem: Problem, members: Sequence[int]) -> Problem:
    """Return the problem without what routed servers run today, unless they are held to it: it is not priced."""
    emptied = problem.without_current([i for i in members if not problem.servers[i].keep_accelerator])
    return emptied.with_servers(emptied.servers)


def _cost(plan: Plan | None) -> float:
    return math.inf if plan is None or plan.objective is None or not plan.serves_all else plan.objective


def _is_routable(problem: Problem, server: Server) -> bool:
    load = server.load
    return (
        load is not None
        and len(load.mix) > 1
        and load.arrival_rate_per_s > 0
        and problem.targets_of(server).tps is None
    )


@dataclass(frozen=True, slots=True)
class _Best:
    """The cheapest routing that was analysed and holds: shares by pool, and replicas."""

    cost: float
    shares: list[FloatArray]
    replicas: list[int]


class _Search:
    """What is known of the pools, and the best routing so far."""

    def __init__(self, problem: Problem, members: Sequence[int], gap: float, end: float, runner: Runner):
        self.problem, self.members, self.gap, self.end = problem, list(members), gap, end
        self.runner = runner
        self.rounds = 0
        self.best: _Best | None = None
        self.flows = {s: flows_of(problem.servers[s]) for s in members}
        self.pools = list(self._all_pools())
        self.types = list(dict.fromkeys(a.type for a in problem.accelerators))
        self.arrays, self.others, self.limits = self._arrays(), self._others(), self._limits()
        self.whole = find_carried(problem, self.pools, [self.flows[pool.server] for pool in self.pools])
        self.alone: list[FloatArray] = []

    def _all_pools(self) -> Iterator[Pool]:
        positions = {a.name: i for i, a in enumerate(self.problem.accelerators)}
        for s in self.members:
            server = self.problem.servers[s]
            today = {now.accelerator for now in server.current}
            for profile in self.problem.profiles:
                if profile.model != server.model or (server.keep_accelerator and profile.accelerator not in today):
                    continue
                yield Pool(s, positions[profile.accelerator])

    def _starts(self) -> Iterator[list[Cut]]:
        """Yield what buckets take: in the whole mix or, where a pool cannot carry that, alone; then, all alone."""
        fits = [p for p, one in enumerate(self.whole) if one.batch_size]
        flows = [self.flows[self.pools[p].server] for p in fits]
        weights = self._weights(fits, flows, [self.whole[p] for p in fits])
        yield [Cut(p, weights.get(p, alone)) for p, alone in enumerate(self.alone)]
        yield [Cut(p, alone) for p, alone in enumerate(self.alone)]

    def _weights_alone(self, left_s: Callable[[], float]) -> list[FloatArray]:
        owners, flows = [], []
        for pool in self.pools:
            for b in range(len(self.flows[pool.server])):
                flow = np.zeros(len(self.flows[pool.server]))
                flow[b] = 1.0
                owners.append(pool)
                flows.append(flow)
        there = find_carried(self.problem, owners, flows, left_s)
        found, at = [], 0
        for pool in self.pools:
            flow = self.flows[pool.server]
            rates = np.array([one.rate_per_s for one in there[at : at + len(flow)]])
            at += len(flow)
            found.append(np.where(np.isnan(rates), np.inf, self._wanted(pool) / rates))
        return found

    def _wanted(self, pool: Pool) -> FloatArray:
        """Return the rate of each bucket with what its server wants in reserve."""
        return SAFE * self.flows[pool.server] * (1 + self.problem.servers[pool.server].reserve)

    def _weights(
        self, pools: Sequence[int], flows: Sequence[FloatArray], carried: Sequence[Carried]
    ) -> dict[int, FloatArray]:
        there = find_weights(self.problem, [self.pools[p] for p in pools], flows, carried)
        return {p: weights * self._wanted(self.pools[p]) for p, weights in zip(pools, there, strict=True)}

    def _arrays(self) -> Pools:
        problem = self.problem
        pieces = problem.accelerators_per_replica
        price, usage, spare = [], np.zeros((len(self.pools), len(self.types))), []
        for p, pool in enumerate(self.pools):
            server, accelerator = problem.servers[pool.server], problem.accelerators[pool.accelerator]
            count = pieces[server.model, accelerator.name]
            price.append(count * accelerator.cost_per_hour)
            usage[p, self.types.index(accelerator.type)] = count * accelerator.devices
            spare.append(server.survive)
        servers = [problem.servers[s] for s in self.members]
        return Pools(
            buckets=[len(self.flows[s]) for s in self.members],
            least=np.array([server.min_replicas for server in servers], dtype=np.int64),
            most=np.array([math.inf if s.max_replicas is None else float(s.max_replicas) for s in servers]),
            server=np.array([self.members.index(pool.server) for pool in self.pools], dtype=np.int64),
            price=np.array(price),
            usage=usage,
            spare=np.array(spare, dtype=np.int64),
        )

    def _others(self) -> Others:
        """Return the ways of the servers that are not routed: one for each accelerator."""
        problem = self.problem
        rest = tuple(s for i, s in enumerate(problem.servers) if i not in self.members)
        if not rest:
            return Others.none(len(self.types))
        single = problem.model_copy(update={"servers": rest}).with_options(assignment="single")
        rows = find_candidates(single).one_per_accelerator().rows
        most = np.array([math.inf if s.max_replicas is None else s.max_replicas for s in rest])
        kept = rows.take(rows.replicas <= most[rows.server])
        usage = np.zeros((len(kept), len(self.types)))
        usage[np.arange(len(kept)), kept.type] = kept.devices
        return Others(kept.server, kept.cost_per_hour, usage)

    def _limits(self) -> Limits:
        problem = self.problem
        available = problem.devices_available
        devices = [math.inf if available is None else float(available.get(name, 0)) for name in self.types]
        budget = problem.options.max_cost_per_hour
        return Limits(np.array(devices), math.inf if budget is None else budget)

    def run_alike(self) -> None:
        """Find the best routing in which all pools of a server get the same mix: one bucket each, all linear."""
        pools = replace(self.arrays, buckets=[1] * len(self.members))
        cuts = []
        for p, one in enumerate(self.whole):
            wanted = float(self._wanted(self.pools[p]).sum())
            cuts.append(Cut(p, np.array([wanted / one.rate_per_s if one.batch_size else math.inf])))
        left = max(self.end - time.perf_counter(), LEAST_S)
        found = self._solve(pools, cuts, left)
        if found.cost is not None:
            sizes = [len(self.flows[pool.server]) for pool in self.pools]
            shares = [np.full(size, share[0]) for size, share in zip(sizes, found.shares, strict=True)]
            self._learn(replace(found, shares=shares))

    def run(self, left_s: Callable[[], float]) -> None:
        """From each start: solve, analyse, and correct, until an answer holds as it is, or no seconds are left."""
        try:
            self.alone = self._weights_alone(left_s)
        except OutOfTimeError:
            return
        for cuts in self._starts():
            for _ in range(MOST_ROUNDS):
                if left_s() <= 0:
                    return
                self.rounds += 1
                found = self._solve(self.arrays, cuts, left_s())
                if found.cost is None or (self.best is not None and found.cost >= self.best.cost * (1 - self.gap)):
                    break
                learnt = self._learn(found)
                if not learnt:
                    break
                cuts += learnt

    def _solve(self, pools: Pools, cuts: Sequence[Cut], left_s: float) -> Routed:
        return solve_routing(
            pools, cuts, self.others, self.limits, gap=self.gap, time_limit_s=left_s, runner=self.runner
        )

    def _learn(self, found: Routed) -> list[Cut]:
        """Analyse what pools were given; return what is learnt of those that cannot carry it."""
        shares = self._tidied(found.shares)
        used = [p for p, share in enumerate(shares) if share.any()]
        flows = [shares[p] * self.flows[self.pools[p].server] for p in used]
        carried = find_carried(self.problem, [self.pools[p] for p in used], flows)
        replicas = found.replicas.copy()
        replicas[[p for p in range(len(shares)) if p not in used]] = 0
        wrong = []
        for i, p in enumerate(used):
            wanted = float((shares[p] * self._wanted(self.pools[p])).sum()) / SAFE
            enough = math.inf if not carried[i].batch_size else math.ceil(wanted / carried[i].rate_per_s)
            enough += self.problem.servers[self.pools[p].server].survive
            if enough > replicas[p]:
                wrong.append(i)
                replicas[p] = min(enough, 10**9)
        self._top_up(used, replicas, found.picked)
        self._offer(shares, replicas, found.picked)
        logger.debug("round %d: %s, %d of %d pools wrong", self.rounds, found.cost, len(wrong), len(used))
        fits = [i for i in wrong if carried[i].batch_size]
        weights = self._weights([used[i] for i in fits], [flows[i] for i in fits], [carried[i] for i in fits])
        unfit = [used[i] for i in wrong if not carried[i].batch_size]
        return [
            *(Cut(p, weight) for p, weight in weights.items()),
            *(Cut(p, self.alone[p]) for p in unfit if self.alone),
        ]

    def _used(self, replicas: np.ndarray, picked: np.ndarray) -> FloatArray:
        """Return the devices of each type that pools and the other servers take."""
        used: FloatArray = replicas @ self.arrays.usage + self.others.usage[picked].sum(axis=0)
        return used

    def _top_up(self, used: Sequence[int], replicas: np.ndarray, picked: np.ndarray) -> None:
        """Give a server the replicas of its minimum that its pools do not need: the cheapest that there is room for."""
        for s in range(len(self.members)):
            own = sorted((p for p in used if self.arrays.server[p] == s), key=lambda p: float(self.arrays.price[p]))
            for p in own:
                missing = int(self.arrays.least[s]) - int(sum(replicas[q] for q in own))
                free = self.limits.devices - self._used(replicas, picked)
                takes = self.arrays.usage[p]
                room = [
                    f // n for f, n in zip(free.tolist(), takes.tolist(), strict=True) if n > 0 and math.isfinite(f)
                ]
                replicas[p] += max(int(min([missing, *room])), 0)

    def _tidied(self, shares: list[FloatArray]) -> list[FloatArray]:
        """Give what would be next to nothing of a server's requests to the pools that have the rest of its buckets."""
        kept = []
        for p, share in enumerate(shares):
            flows = self.flows[self.pools[p].server]
            kept.append(share if share @ flows > SMALL_SHARE * flows.sum() else np.zeros_like(share))
        for s in range(len(self.members)):
            own = self.arrays.of(s)
            whole = np.sum([kept[p] for p in own], axis=0)
            if (whole <= 0).any():
                return shares
            for p in own:
                kept[p] = kept[p] / whole
        return kept

    def _offer(self, shares: list[FloatArray], replicas: np.ndarray, picked: np.ndarray) -> None:
        """Keep a routing if it is within the limits, and cheaper than any before."""
        cost = math.fsum([*(replicas * self.arrays.price).tolist(), *self.others.price[picked].tolist()])
        counts = np.array([replicas[self.arrays.of(s)].sum() for s in range(len(self.members))])
        wrong = (counts > self.arrays.most).any() or (counts < self.arrays.least).any()
        if wrong or (self._used(replicas, picked) > self.limits.devices).any() or cost > self.limits.cost:
            return
        if self.best is None or cost < self.best.cost:
            self.best = _Best(cost, shares, replicas.tolist())

    def plan(self) -> tuple[Problem, Plan] | None:
        """Return the plan of the best routing, with the problem that it is of; None if there is none."""
        if self.best is None:
            return None
        servers: list[Server] = []
        names = {server.name for server in self.problem.servers}
        for s, server in enumerate(self.problem.servers):
            if s not in self.members:
                servers.append(server)
                continue
            for p, pool in enumerate(self.pools):
                if pool.server == s and self.best.shares[p].any():
                    servers.append(self._pool_server(server, p, names))
                    names.add(servers[-1].name)
        problem = self.problem.model_copy(update={"servers": tuple(servers)})
        table = find_candidates(problem)
        plan = plan_candidates(table, time_limit_s=_left_s(self.end), gap=self.gap)
        return (problem, plan) if plan.serves_all else None

    def _pool_server(self, server: Server, p: int, taken: Collection[str]) -> Server:
        assert self.best is not None
        pool = self.pools[p]
        name = self.problem.accelerators[pool.accelerator].name
        update = {
            "name": new_name(f"{server.name}@{name}", taken),
            "load": part_of(server, self.best.shares[p] * self.flows[pool.server]),
            "min_replicas": self.best.replicas[p] if server.min_replicas else 0,
            "max_replicas": self.best.replicas[p] if server.max_replicas is not None else None,
            # It is held to its accelerator by what it is said to run there.
            "keep_accelerator": True,
            "current": (CurrentAllocation(accelerator=name, replicas=self.best.replicas[p]),),
        }
        return server.model_copy(update=update)

    def routes(self) -> Iterator[Route]:
        """Yield the router's table of the best routing; it is empty where there is none."""
        if self.best is None:
            return
        for s in self.members:
            server, flows = self.problem.servers[s], self.flows[s]
            assert server.load is not None
            own = [(p, pool) for p, pool in enumerate(self.pools) if pool.server == s]
            for b, bucket in enumerate(server.load.mix):
                weights = {
                    self.problem.accelerators[pool.accelerator].name: float(self.best.shares[p][b]) for p, pool in own
                }
                given = {name: weight for name, weight in weights.items() if weight > 0}
                yield Route(server.name, bucket.input_tokens, bucket.output_tokens, float(flows[b]), given)
