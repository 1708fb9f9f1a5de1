"""The master program in arrays: every server picks one of its options, within limits that all of them share.

An option is a set of replicas, with a cost and a use of each limit. `Side` columns are what else may use or widen the
limits: nodes cut up one way or another, devices to be bought. docs/optimization.md has the program in mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from inferno_milp.program.highs_engine import Program

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Options:
    """Ways to serve, in the order of the servers; every server has at least one.

    Attributes
    ----------
    server : position of the server among those of the program.
    cost : what the option adds to the objective of the program at hand.
    price : what it adds to the objective of the whole, where the program at hand is a step towards that.
    usage : what it uses of each limit, options × limits.
    starts, row, replicas : its replicas: those of option i are `row[starts[i]:starts[i + 1]]`, positions in the table
        of candidates, with as many `replicas` of each.
    """

    server: IntArray
    cost: FloatArray
    price: FloatArray
    usage: FloatArray
    starts: IntArray
    row: IntArray
    replicas: IntArray

    def __len__(self) -> int:
        return len(self.server)

    def take(self, which: npt.NDArray[np.intp]) -> Options:
        """Return the chosen options, which must be in the order of the servers."""
        counts = np.diff(self.starts)[which]
        starts = np.concatenate(([0], np.cumsum(counts)))
        members = np.repeat(self.starts[which] - starts[:-1], counts) + np.arange(starts[-1])
        return Options(
            self.server[which],
            self.cost[which],
            self.price[which],
            self.usage[which],
            starts,
            self.row[members],
            self.replicas[members],
        )

    @property
    def first(self) -> IntArray:
        """Position of each server's first option."""
        return np.searchsorted(self.server, np.arange(self.servers))

    @property
    def last(self) -> IntArray:
        """Position of each server's last option."""
        return np.searchsorted(self.server, np.arange(self.servers), side="right") - 1

    @property
    def servers(self) -> int:
        """Number of servers."""
        return int(self.server[-1]) + 1 if len(self.server) else 0


def join_options(parts: Sequence[Options]) -> Options:
    """Put options together, and into the order of the servers; within a server their order stays."""
    lengths = [len(part.row) for part in parts]
    offsets = np.cumsum([0, *lengths])
    joined = Options(
        np.concatenate([part.server for part in parts]),
        np.concatenate([part.cost for part in parts]),
        np.concatenate([part.price for part in parts]),
        np.concatenate([part.usage for part in parts]),
        np.concatenate([[0], *(part.starts[1:] + offset for part, offset in zip(parts, offsets, strict=False))]),
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.replicas for part in parts]),
    )
    return joined.take(np.argsort(joined.server, kind="stable"))


def prune(options: Options) -> Options:
    """Leave out options that are never needed: another one of the server costs no more and uses no more of anything.

    Among equals the first one stays, which is the one with the fewest replicas, then the smallest batch.
    """
    if not len(options):
        return options
    counts = np.bincount(options.server, minlength=options.servers)
    width, servers = int(counts.max()), options.servers
    column = np.arange(len(options)) - np.repeat(np.cumsum(counts) - counts, counts)

    def grid(values: FloatArray) -> FloatArray:
        padded = np.full((servers, width), np.inf)
        padded[options.server, column] = values
        return padded

    cost = grid(options.cost)
    # Whether the first is beaten by the second, and whether they are equal.
    beaten = cost[:, :, None] >= cost[:, None, :]
    equal = cost[:, :, None] == cost[:, None, :]
    for j in np.flatnonzero(options.usage.any(axis=0)):
        use = grid(options.usage[:, j])
        beaten &= use[:, :, None] >= use[:, None, :]
        equal &= use[:, :, None] == use[:, None, :]
    later = np.arange(width)[:, None] > np.arange(width)[None, :]
    is_beaten = np.asarray((beaten & (~equal | later)).any(axis=2))
    return options.take(np.flatnonzero(~is_beaten[options.server, column]))


def distinct(options: Options, *, last: bool) -> npt.NDArray[np.intp]:
    """Return the positions of options, of those of a server that cost and use the same only the first or the last."""
    mark = options.cost + options.usage @ np.random.default_rng(0).random(options.usage.shape[1])
    order = np.lexsort((mark, options.server))
    here, following = order[:-1], order[1:]
    twin = (options.server[here] == options.server[following]) & (options.cost[here] == options.cost[following])
    twin &= (options.usage[here] == options.usage[following]).all(axis=1)
    kept = np.ones(len(options), dtype=bool)
    kept[(here if last else following)[twin]] = False
    return np.flatnonzero(kept)


@dataclass(frozen=True, slots=True)
class Side:
    """Whole-numbered columns beside the options.

    Attributes
    ----------
    names : one for each.
    cost, upper : per unit, and the most units there can be.
    usage : of each limit per unit, columns × limits; less than 0 where they widen a limit.
    """

    names: tuple[str, ...]
    cost: FloatArray
    upper: FloatArray
    usage: FloatArray


def no_side(limits: int) -> Side:
    """Return no columns."""
    return Side((), np.empty(0), np.empty(0), np.empty((0, limits)))


@dataclass(frozen=True, slots=True)
class Master:
    """Options, and the limits that they share.

    Attributes
    ----------
    limits : a name for each limit.
    most : what of each may be used.
    """

    options: Options
    side: Side
    limits: tuple[str, ...]
    most: FloatArray

    def reduced_costs(self, prices: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return, at prices of the limits, each option's cost above the least of its server, and the leasts."""
        options = self.options
        full = options.cost + options.usage @ prices
        least = np.minimum.reduceat(full, options.first)
        return full - least[options.server], least

    def dual_bound(self, prices: FloatArray, least: FloatArray) -> float:
        """Return the Lagrangian bound at prices ≥ 0: no choice of options within the limits costs less."""
        side = np.minimum(self.side.cost + self.side.usage @ prices, 0.0) @ self.side.upper
        return float(least.sum() + side - self.most @ prices)

    def without_cost(self) -> Master:
        """Return the program in which nothing costs anything."""
        options = replace(self.options, cost=np.zeros_like(self.options.cost))
        return replace(self, options=options, side=replace(self.side, cost=np.zeros_like(self.side.cost)))

    def sample(self, servers: IntArray) -> Master:
        """Return the program of some of the servers, with their part of the limits."""
        part = len(servers) / self.options.servers
        side = replace(self.side, upper=self.side.upper * part)
        return replace(self, options=of_servers(self.options, servers), side=side, most=self.most * part)


def without_slack_limits(master: Master) -> Master:
    """Return the program without the limits that hold even if each server picks the option that uses most of it."""
    options = master.options
    most = np.maximum.reduceat(options.usage, options.first, axis=0).sum(axis=0) if len(options) else 0.0
    binding = np.flatnonzero((most > master.most) | master.side.usage.any(axis=0))
    return Master(
        replace(options, usage=options.usage[:, binding]),
        replace(master.side, usage=master.side.usage[:, binding]),
        tuple(master.limits[j] for j in binding.tolist()),
        master.most[binding],
    )


def of_servers(options: Options, servers: IntArray) -> Options:
    """Return the options of some servers, which are numbered anew."""
    wanted = np.zeros(options.servers, dtype=bool)
    wanted[servers] = True
    taken = options.take(np.flatnonzero(wanted[options.server]))
    return replace(taken, server=(np.cumsum(wanted) - 1)[taken.server])


def as_program(master: Master) -> Program:
    """Lay a master program out for HiGHS: a column per option and side column, a row per server and limit."""
    options, side = master.options, master.side
    count, servers = len(options), options.servers
    first = np.append(options.first, count)
    usage = np.concatenate((options.usage, side.usage))
    used = [np.flatnonzero(usage[:, j]) for j in range(usage.shape[1])]
    lengths = np.array([len(columns) for columns in used], dtype=np.int64)
    width = count + len(side.cost)
    return Program(
        costs=np.concatenate((options.cost, side.cost)),
        offset=0.0,
        lower=np.zeros(width),
        upper=np.concatenate((np.ones(count), side.upper)),
        whole=np.ones(width, dtype=bool),
        starts=np.concatenate((first, count + np.cumsum(lengths))).astype(np.int32),
        columns=np.concatenate((np.arange(count), *used)).astype(np.int32),
        values=np.concatenate((np.ones(count), *(usage[columns, j] for j, columns in enumerate(used)))),
        row_lower=np.concatenate((np.ones(servers), np.full(len(used), -np.inf))),
        row_upper=np.concatenate((np.ones(servers), master.most)),
    )
