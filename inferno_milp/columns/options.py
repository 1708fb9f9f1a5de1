"""From the table of candidates to the master program: every server's options or covers, with cost and usage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.energy import replica_power_w
from inferno_milp.columns.limits import CHANGES, POWER, Limits, find_limits
from inferno_milp.columns.rows import Rows
from inferno_milp.problem.sections import Server
from inferno_milp.problem.transition import Today, price_today
from inferno_milp.program.covers import Covers, Patterns, as_options, first_patterns, price_cases
from inferno_milp.program.master import (
    BoolArray,
    FloatArray,
    IntArray,
    Master,
    Options,
    join_options,
    prune,
    without_slack_limits,
)

MOST_KEPT = 6
"""Accelerators of today of which every choice of those kept is a case; of more, all or none."""
UNLIMITED_REPLICAS = 10**9


@dataclass(frozen=True, slots=True)
class Program:
    """The master program of a problem.

    Attributes
    ----------
    table : the candidates, one batch size per (server, accelerator), that its options are made of.
    limits : what it shares.
    master : options; of servers with covers, only some of them.
    covers : None where every option is listed.
    servers : position in the problem of each server in the program: those that need an allocation and could have one.
    """

    table: Candidates
    limits: Limits
    master: Master
    covers: Covers | None
    servers: IntArray

    @property
    def left_out(self) -> IntArray:
        """Positions in the problem of the servers that need an allocation and can have none, whatever the others do."""
        needing = np.flatnonzero(self.table.needs)
        return needing[~np.isin(needing, self.servers)]

    def listed_only(self) -> Master:
        """Return the master program without the options of servers that have covers: these hold all of them."""
        if self.covers is None:
            return self.master
        listed = ~np.isin(self.master.options.server, self.covers.server)
        return replace(self.master, options=self.master.options.take(np.flatnonzero(listed)))

    def useful_rows(self) -> npt.NDArray[np.intp]:
        """Return the positions in the table of the candidates that a plan of least cost may need."""
        found = [self.listed_only().options.row]
        if self.covers is not None:
            found.append(self.covers.row[self.covers.entries])
        return np.unique(np.concatenate(found))


def make_program(table: Candidates, *, pruned: bool = True) -> Program:
    """Make the master program.

    Parameters
    ----------
    table : all candidates.
    pruned : whether options that break a limit alone, or are never needed, are left out.
    """
    best, limits = table.one_per_accelerator(), find_limits(table)
    problem, mixed = table.problem, table.problem.options.assignment == "mixed"
    loaded = table.required_rate_per_s[best.rows.server] > 0
    power_at = table.required_rate_per_s[best.rows.server] / np.maximum(best.rows.replicas, 1)
    power_at = np.where(np.isnan(best.rows.max_rate_per_s), np.nan, best.rows.max_rate_per_s if mixed else power_at)
    power = replica_power_w(best, best.rows, power_at) if problem.options.uses_power else np.zeros(len(best.rows))
    rows = _Priced(best.rows, limits.of_replicas(best.rows), power, price_today(problem))
    if (j := limits.index(POWER)) is not None:
        rows.usage[:, j] = power
    listed = np.flatnonzero(~loaded if mixed else np.ones(len(loaded), dtype=bool))
    options = _single_options(best, rows, listed, limits)
    if pruned:
        options = options.take(np.flatnonzero(limits.admits(options.usage)))
    covers = None
    if mixed:
        fits = limits.admits(rows.usage) if pruned else True
        which = np.flatnonzero(loaded & fits)
        covers = _covers(best, rows, which, limits) if which.size else None
    if covers is not None:
        options = join_options((options, first_options(covers)))
    servers = np.unique(options.server)
    options = replace(options, server=np.searchsorted(servers, options.server))
    if pruned:
        # Among equals the first stays: the one with the fewest devices, then the smallest batch.
        devices = np.add.reduceat(best.rows.devices_per_replica[options.row] * options.replicas, options.starts[:-1])
        batch = best.rows.batch_size[options.row[options.starts[:-1]]]
        options = prune(options.take(np.lexsort((batch, devices, options.cost, options.server))))
    if covers is not None:
        covers = covers.of(servers)
    master = Master(options, limits.side, limits.names, limits.most)
    if covers is None and pruned:
        master = without_slack_limits(master)
    return Program(best, limits, master, covers, servers)


@dataclass(frozen=True, slots=True)
class _Priced:
    """Candidates with what one replica of each uses and draws, and what servers run today."""

    rows: Rows
    usage: FloatArray
    power_w: FloatArray
    todays: Sequence[Today]


def _single_options(table: Candidates, priced: _Priced, which: npt.NDArray[np.intp], limits: Limits) -> Options:
    """Options of one candidate each."""
    rows, problem = priced.rows.take(which), table.problem
    most = np.array([np.inf if s.max_replicas is None else s.max_replicas for s in problem.servers])
    fine = rows.replicas <= most[rows.server]
    which, rows = which[fine], rows.take(fine)
    cost = rows.cost_per_hour + _power_cost(table, priced.power_w[which] * rows.replicas)
    usage = priced.usage[which] * rows.replicas[:, None]
    changes = limits.index(CHANGES)
    runs = np.array([bool(before.price_per_hour) for before in priced.todays], dtype=bool)
    for i in np.flatnonzero(runs[rows.server]).tolist():
        before, name = priced.todays[rows.server[i]], problem.accelerators[rows.accelerator[i]].name
        given_up = before.left([name])
        taken_on = 0.0 if name in before.price_per_hour else float(rows.cost_per_hour[i])
        cost[i] += problem.options.change_penalty * (given_up + taken_on)
        if changes is not None:
            usage[i, changes] = before.is_changed([name])
    count = len(rows)
    return Options(rows.server, cost, cost, usage, np.arange(count + 1), which.astype(np.int64), rows.replicas)


def _power_cost(table: Candidates, power_w: FloatArray) -> FloatArray:
    price = table.problem.options.power_price_per_kwh
    return price * power_w / 1000 if price else np.zeros(len(power_w))


def _covers(table: Candidates, priced: _Priced, which: npt.NDArray[np.intp], limits: Limits) -> Covers:
    """Cases of all servers with a rate to carry."""
    servers = priced.rows.server[which]
    cases: list[_Case] = []
    for s in np.unique(servers).tolist():
        first, last = np.searchsorted(servers, [s, s + 1])
        cases += _cases_of(table, priced, s, which[first:last])
    width = max((len(case.rows) for case in cases), default=1)
    count = len(limits.of)
    covers = Covers(
        server=np.array([case.server for case in cases], dtype=np.int64),
        required=np.array([case.required for case in cases]),
        fixed_cost=np.array([case.cost for case in cases]),
        fixed_price=np.array([case.cost for case in cases]),
        fixed_usage=np.zeros((len(cases), count)),
        least=np.array([table.problem.servers[case.server].min_replicas for case in cases], dtype=np.int64),
        most=np.array(
            [table.problem.servers[c.server].max_replicas or UNLIMITED_REPLICAS for c in cases], dtype=np.int64
        ),
        entries=np.zeros((len(cases), width), dtype=bool),
        row=np.zeros((len(cases), width), dtype=np.int64),
        rate=np.zeros((len(cases), width)),
        cost=np.zeros((len(cases), width)),
        price=np.zeros((len(cases), width)),
        usage=np.zeros((len(cases), width, count)),
        forced=np.zeros((len(cases), width), dtype=np.int64),
    )
    changes = limits.index(CHANGES)
    power_cost = _power_cost(table, priced.power_w)
    for i, case in enumerate(cases):
        here = slice(0, len(case.rows))
        covers.entries[i, here] = True
        covers.row[i, here] = case.rows
        covers.rate[i, here] = case.rate
        covers.price[i, here] = priced.rows.price_per_replica[case.rows] * case.markup + power_cost[case.rows]
        covers.usage[i, here] = priced.usage[case.rows]
        covers.forced[i, here] = case.forced
        if changes is not None:
            covers.fixed_usage[i, changes] = case.is_change
    return pruned_covers(replace(covers, cost=covers.price))


def pruned_covers(covers: Covers) -> Covers:
    """Leave out candidates that are never needed: some replicas of another carry as much and cost and use no more."""
    rate = np.where(covers.entries, covers.rate, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        copies = np.ceil(rate[:, :, None] / rate[:, None, :])  # of the second that stand for one of the first
    copies = np.where(covers.entries[:, None, :] & covers.entries[:, :, None], copies, np.inf)
    copies[(covers.most < UNLIMITED_REPLICAS)[:, None, None] & (copies > 1)] = np.inf

    def compare(values: FloatArray) -> tuple[BoolArray, BoolArray]:
        with np.errstate(invalid="ignore"):
            other = copies * values[:, None, :]
        return other <= values[:, :, None] * (1 + 1e-12), other >= values[:, :, None] * (1 - 1e-12)

    beaten, equal = compare(covers.cost)
    for j in np.flatnonzero(covers.usage.any(axis=(0, 1))):
        no_more, no_less = compare(covers.usage[:, :, j])
        beaten &= no_more
        equal &= no_less
    equal &= (copies == 1) & (copies.transpose(0, 2, 1) == 1)
    width = rate.shape[1]
    beaten &= ~equal | (np.arange(width)[:, None] > np.arange(width)[None, :])
    beaten[:, np.arange(width), np.arange(width)] = False
    kept = covers.entries & ~(beaten.any(axis=2) & (covers.forced == 0))
    order = np.argsort(~kept, axis=1, kind="stable")[:, : max(int(kept.sum(axis=1).max(initial=1)), 1)]
    wide = {
        name: np.take_along_axis(getattr(covers, name), order, axis=1)
        for name in ("row", "rate", "cost", "price", "forced")
    }
    usage = np.take_along_axis(covers.usage, order[:, :, None], axis=1)
    return replace(covers, entries=np.take_along_axis(kept, order, axis=1), usage=usage, **wide)


@dataclass(frozen=True, slots=True)
class _Case:
    """A case of `Covers` in the making: positions of its candidates, and what holds for each of them."""

    server: int
    required: float
    cost: float
    is_change: bool
    rows: npt.NDArray[np.intp]
    rate: FloatArray
    markup: FloatArray
    forced: IntArray


def _cases_of(table: Candidates, priced: _Priced, s: int, rows: npt.NDArray[np.intp]) -> Iterator[_Case]:
    """Every choice of the accelerators that a server keeps × every replica that may be the weakest of the lost ones."""
    problem, server, before = table.problem, table.problem.servers[s], priced.todays[s]
    options, penalty = problem.options, problem.options.change_penalty
    names = [problem.accelerators[a].name for a in priced.rows.accelerator[rows].tolist()]
    for kept, allowed in _kept(before, names, matters=penalty > 0 or options.max_changes is not None):
        chosen = rows[[name in allowed for name in names]]
        taken = [name for name in names if name in allowed]
        new = np.array([bool(before.price_per_hour) and name not in before.price_per_hour for name in taken])
        case = _Case(
            server=s,
            required=float(table.required_rate_per_s[s]) * (1 + server.reserve),
            cost=penalty * before.left(kept),
            is_change=before.is_changed(allowed),
            rows=chosen,
            rate=priced.rows.max_rate_per_s[chosen],
            markup=1 + penalty * new,
            forced=np.array([int(name in kept) for name in taken], dtype=np.int64),
        )
        if chosen.size:
            yield from _surviving(case, server)


def _kept(before: Today, names: Sequence[str], *, matters: bool) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Choices of the accelerators of today that are kept, and of those that may be used at all.

    Whatever is kept, all accelerators that are new to the server may be added; where all is kept, also nothing.
    """
    if not before.price_per_hour or not matters:
        yield (), set(names)
        return
    usable = [name for name in before.price_per_hour if name in names]
    new = {name for name in names if name not in before.price_per_hour}
    numbers = range(len(usable) + 1) if len(usable) <= MOST_KEPT else (0, len(usable))
    for number in numbers:
        for kept in combinations(usable, number):
            yield kept, {*kept, *new}
    if new and len(usable) == len(before.price_per_hour):
        yield tuple(usable), set(usable)


def _surviving(case: _Case, server: Server) -> Iterator[_Case]:
    """Yield cases that say in linear terms that the loss of the strongest replicas is survived.

    The k strongest of a pattern carry at most kθ + Σ n·max(r − θ, 0), whatever θ is. So their loss is survived if, for
    the rate θ of some candidate, Σ n·min(r, θ) ≥ kθ + required. With θ the rate of the strongest of those that stay,
    the left side is kθ + what these carry, which is at least θ: so max(required, θ) loses no pattern, and a rate
    however small is not lost in rounding.
    """
    if not server.survive:
        yield case
        return
    for threshold in np.unique(case.rate).tolist():
        capped = np.minimum(case.rate, threshold)
        yield replace(case, rate=capped, required=max(case.required, threshold) + server.survive * threshold)


def first_options(covers: Covers) -> Options:
    """Patterns of one candidate each, and the good ones at no prices: every server that can be served has one."""
    width = covers.entries.shape[1]
    priced = price_cases(covers, np.zeros(covers.usage.shape[2]))
    alone = np.ceil(priced.need[:, None] / np.where(priced.rate > 0, priced.rate, 1.0))
    alone = np.maximum(alone, priced.least[:, None])
    case, entry = np.nonzero((priced.rate > 0) & (alone <= priced.most[:, None]))
    counts = np.zeros((len(case), width), dtype=np.int64)
    counts[np.arange(len(case)), entry] = alone[case, entry]
    singles = Patterns(case, counts, np.zeros(len(case)))
    best = first_patterns(priced)
    best = best.take(np.isfinite(best.full_cost))
    return join_options((as_options(covers, priced, best), as_options(covers, priced, singles)))
