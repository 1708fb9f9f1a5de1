"""What a server could run on at any moment, and what it must carry in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.limits import Limits, find_limits, nodes_of, packs
from inferno_milp.columns.rows import Rows
from inferno_milp.errors import OptionError
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Moment, Server

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ways:
    """Servers on accelerators, each with the batch size that carries most.

    Attributes
    ----------
    table : candidates that they are from; of the problem with a rate of 1 request/s for every load.
    rows : one for each way, by server and accelerator.
    units : accelerators that a replica takes.
    required_per_s : rate that each server must carry in each moment, with its reserve, servers × moments.
    limits : devices, and room in nodes, that there are in every moment.
    usage : what a replica uses of each limit, ways × limits.
    left_out : positions of servers that no plan of all moments serves: they get nothing.
    """

    table: Candidates
    rows: Rows
    units: IntArray
    required_per_s: FloatArray
    limits: Limits
    usage: FloatArray
    left_out: frozenset[int] = frozenset()

    @property
    def problem(self) -> Problem:
        """The problem."""
        return self.table.problem

    @property
    def cost_unit(self) -> float:
        """Price that rows of costs are counted in, the dearest accelerator's: tolerances of solvers are absolute."""
        return max((one.cost_per_hour for one in self.problem.accelerators), default=0.0) or 1.0

    def needs(self, server: int, moment: int) -> bool:
        """Whether a server must have replicas in a moment."""
        least = self.problem.servers[server].min_replicas
        return server not in self.left_out and bool(self.required_per_s[server, moment] > 0 or least > 0)

    def leaving_out(self, servers: Iterable[int]) -> Ways:
        """Return the ways of the other servers."""
        gone = self.left_out | set(servers)
        which = ~np.isin(self.rows.server, np.array(sorted(gone), dtype=np.int64))
        required = self.required_per_s.copy()
        required[sorted(gone)] = 0.0
        return replace(
            self,
            rows=self.rows.take(which),
            units=self.units[which],
            usage=self.usage[which],
            required_per_s=required,
            left_out=frozenset(gone),
        )

    def of(self, server: int) -> list[int]:
        """Return the positions of a server's ways."""
        found: list[int] = np.flatnonzero(self.rows.server == server).tolist()
        return found

    def units_used(self, replicas: IntArray) -> IntArray:
        """Return the units of each accelerator that replicas take, accelerators × moments, given ways × moments."""
        return _summed(self.rows.accelerator, replicas * self.units[:, None], len(self.problem.accelerators))

    def devices_used(self, replicas: IntArray) -> IntArray:
        """Return the devices of each type that replicas take, types × moments, given ways × moments."""
        return _summed(self.rows.type, replicas * self.rows.devices_per_replica[:, None], len(self.table.types))

    def replicas_of_servers(self, replicas: IntArray) -> IntArray:
        """Return the replicas of each server, servers × moments, given ways × moments."""
        return _summed(self.rows.server, replicas, len(self.problem.servers))

    def fits(self, replicas: IntArray) -> bool:
        """Whether there are devices, and room in nodes, for the replicas of each way in one moment."""
        available = self.table.available
        if available is None:
            return True
        used = self.devices_used(replicas[:, None])[:, 0]
        return bool((used <= available).all()) and all(self._packs(replicas, t) for t in range(len(available)))

    def _packs(self, replicas: IntArray, type_: int) -> bool:
        here, counts = self.rows.type == type_, Counter[int]()
        for size, count in zip(self.rows.devices_per_replica[here].tolist(), replicas[here].tolist(), strict=True):
            counts[size] += count
        return not nodes_of(self.table, type_) or packs(self.table, type_, counts)

    def replicas(self, way: int, moment: int) -> int:
        """Return the replicas that carry all of a server's rate in one way."""
        server = self.problem.servers[int(self.rows.server[way])]
        required = self.required_per_s[self.rows.server[way], moment]
        needed = max(int(np.ceil(required / self.rows.max_rate_per_s[way])), 1) + server.survive if required > 0 else 0
        return max(needed, server.min_replicas)


def _summed(groups: IntArray, values: IntArray, count: int) -> IntArray:
    found = np.zeros((count, values.shape[1]), dtype=np.int64)
    np.add.at(found, groups, values)
    return found


def find_ways(problem: Problem, moments: Sequence[Moment]) -> Ways:
    """Analyse what servers could run on.

    Raises
    ------
    OptionError
        If something is asked for that these plans do not know.
    """
    _refuse(problem, moments)
    # Whoever has no rate in the problem may have one in a moment: what a replica carries does not depend on it.
    servers = tuple(_loaded(server) for server in problem.servers)
    table = find_attainable_candidates(problem.model_copy(update={"servers": servers}))
    rows = table.rows.take(table.rows.best_batches(by_rate=True))
    pieces = problem.accelerators_per_replica
    units = np.array(
        [
            pieces[problem.servers[s].model, problem.accelerators[a].name]
            for s, a in zip(rows.server.tolist(), rows.accelerator.tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    required = required_per_s(problem, moments)
    # A budget is on what is paid, reserved or not: that is the program's own.
    limits = find_limits(replace(table, problem=table.problem.with_options(max_cost_per_hour=None)))
    return Ways(table, rows, units, required, limits, limits.of_replicas(rows))


def required_per_s(problem: Problem, moments: Sequence[Moment]) -> FloatArray:
    """Return the rate that each server must carry in each moment, with its reserve, servers × moments."""
    required = np.zeros((len(problem.servers), len(moments)))
    for s, server in enumerate(problem.servers):
        if server.load is None:
            continue
        promised = (problem.targets_of(server).tps or 0.0) / server.load.output_tokens
        for t, moment in enumerate(moments):
            required[s, t] = max(moment.rate_per_s(server), promised) * (1 + server.reserve)
    return required


def _loaded(server: Server) -> Server:
    if server.load is None:
        return server
    return server.model_copy(update={"load": server.load.model_copy(update={"rate_per_s": 1.0, "rate_per_min": None})})


def _refuse(problem: Problem, moments: Sequence[Moment]) -> None:
    loadless = {server.name for server in problem.servers if server.load is None}
    given = {name for moment in moments for name in moment.rates_per_s}
    wrong = [f"rates of {name}, which has no load" for name in sorted(loadless & given)]
    if problem.options.max_changes is not None and any(server.current for server in problem.servers):
        wrong.append("changes from today are limited")
    if problem.options.uses_power:
        wrong.append("power is limited or priced")
    if problem.options.assignment == "single" and any(server.survive_pools for server in problem.servers):
        wrong.append("servers with `survive_pools` on one accelerator: let them be `mixed`")
    if problem.options.assignment == "mixed" and any(server.survive for server in problem.servers):
        wrong.append("servers with `survive` on mixes of accelerators")
    if wrong:
        raise OptionError(f"periods and scenarios do not know: {'; '.join(wrong)}")
