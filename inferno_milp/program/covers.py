"""Servers that may run several candidates at once: the covering problem of each, and its best patterns at prices.

A pattern is a number of replicas of each candidate; those that carry the server's rate cover it. At prices of the
limits, a server's cheapest patterns solve a small covering knapsack. All servers' knapsacks are solved together:
candidates are taken from the worst to the best rate for the money, and a partial pattern lives while what it wastes
against the best one's rate for the money is within a budget. The last, best candidate fills up what is left.

What a server may do splits into `Covers` cases, of which it takes one: which accelerators of today it keeps, and which
of its replicas counts as the weakest of those whose loss it survives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.program.master import BoolArray, FloatArray, IntArray, Options

TRIED = 8
"""Replicas of a second candidate that are tried beside the best one for a first, good pattern."""
MOST_STATES = 4000
"""Partial patterns of one case beyond which its enumeration is given up."""
MANY_STATES = 400_000
"""The same where few cases are enumerated again."""
CHUNK = 4096
"""Cases enumerated at once."""
COVERED = 1e-9
"""Part of the rate that may be missing: rounding."""
KEPT = 1e-6
"""The same in a solver's solution, made whole."""


@dataclass(frozen=True, slots=True)
class Covers:
    """Cases, in the order of their servers, and the candidates of each.

    Attributes
    ----------
    server : position of the server among those of the program.
    required : rate to be carried, requests/s.
    fixed_cost, fixed_price, fixed_usage : cost of the case itself (`Options` says what is a price and what a cost), and
        its use of each limit (cases × limits).
    least, most : bounds on the number of replicas.
    entries : cases × candidates, padded: whether there is one.
    row : position in the table of candidates.
    rate, cost, price, usage : of one replica, requests/s; usage is cases × candidates × limits.
    forced : replicas that there must be at least.
    """

    server: IntArray
    required: FloatArray
    fixed_cost: FloatArray
    fixed_price: FloatArray
    fixed_usage: FloatArray
    least: IntArray
    most: IntArray
    entries: BoolArray
    row: IntArray
    rate: FloatArray
    cost: FloatArray
    price: FloatArray
    usage: FloatArray
    forced: IntArray

    def __len__(self) -> int:
        return len(self.server)

    def take(self, which: IntArray | BoolArray) -> Covers:
        """Return some of the cases."""
        return Covers(*(getattr(self, name)[which] for name in Covers.__slots__))

    def without_cost(self) -> Covers:
        """Return the same, with nothing costing anything."""
        return replace(self, cost=np.zeros_like(self.cost), fixed_cost=np.zeros_like(self.fixed_cost))

    def are_kept(self, case: IntArray, counts: IntArray) -> bool:
        """Return whether replicas (cases × candidates) carry what the cases require, within their numbers."""
        carried, number = (counts * self.rate[case]).sum(axis=1), counts.sum(axis=1)
        kept = carried >= self.required[case] * (1 - KEPT)
        kept &= (number >= np.maximum(self.least[case], 1)) & (number <= self.most[case])
        return bool((kept & (counts >= self.forced[case]).all(axis=1)).all())

    def of(self, servers: IntArray) -> Covers:
        """Return the cases of some servers, which are numbered anew."""
        taken = self.take(np.isin(self.server, servers))
        return replace(taken, server=np.searchsorted(servers, taken.server))


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns: the case of each, its replicas (patterns × candidates), and its cost at the prices asked for."""

    case: IntArray
    counts: IntArray
    full_cost: FloatArray

    def take(self, which: IntArray | BoolArray) -> Patterns:
        """Return some of them."""
        return Patterns(self.case[which], self.counts[which], self.full_cost[which])


def join_patterns(*parts: Patterns) -> Patterns:
    """Put patterns together."""
    return Patterns(*(np.concatenate([getattr(part, name) for part in parts]) for name in Patterns.__slots__))


@dataclass(frozen=True, slots=True)
class Priced:
    """Cases at prices, their candidates sorted by cost for the rate, forced replicas taken off.

    Attributes
    ----------
    order : candidates of each case in their new order.
    cost, rate : of one replica, in that order; infinite and 0 where there is none.
    base : cost of the case itself and its forced replicas.
    need, least, most : rate and replicas still to be found.
    price : of the best candidate's rate.
    bound : lower bound of the cost of any pattern.
    """

    order: IntArray
    cost: FloatArray
    rate: FloatArray
    base: FloatArray
    need: FloatArray
    least: IntArray
    most: IntArray
    price: FloatArray
    bound: FloatArray


def price_cases(covers: Covers, prices: FloatArray) -> Priced:
    """Put prices on the cases' candidates."""
    cost = covers.cost + covers.usage @ prices
    base = covers.fixed_cost + covers.fixed_usage @ prices + (cost * covers.forced).sum(axis=1)
    need = np.maximum(covers.required - (covers.rate * covers.forced).sum(axis=1), 0.0)
    need[need <= COVERED * covers.required] = 0.0
    taken = covers.forced.sum(axis=1)
    ratio = np.where(covers.entries, cost / np.where(covers.entries, covers.rate, 1.0), np.inf)
    order = np.argsort(ratio, axis=1, kind="stable")
    cost = np.take_along_axis(np.where(covers.entries, cost, np.inf), order, axis=1)
    rate = np.take_along_axis(np.where(covers.entries, covers.rate, 0.0), order, axis=1)
    price = cost[:, 0] / rate[:, 0]
    least, most = np.maximum(covers.least - taken, 0), covers.most - taken
    bound = base + np.maximum(price * need, least * cost.min(axis=1))
    return Priced(order, cost, rate, base, need, least, most, price, bound)


def first_patterns(priced: Priced) -> Patterns:
    """Find for each case a good pattern of one candidate, or of a few replicas of one and the best for the rest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = np.ceil((priced.need * (1 - COVERED))[:, None] / priced.rate)
    alone = np.maximum(np.where(priced.rate > 0, alone, np.inf), priced.least[:, None])
    tried = np.arange(TRIED + 1)
    rest = np.ceil(
        (priced.need[:, None, None] * (1 - COVERED) - priced.rate[:, :, None] * tried) / priced.rate[:, :1, None]
    )
    rest = np.maximum(np.maximum(rest, priced.least[:, None, None] - tried), 0.0)
    most = priced.most[:, None]
    with np.errstate(invalid="ignore"):
        of_one = np.where(alone <= most, alone * priced.cost, np.inf)
        of_two = (
            tried * np.where(np.isfinite(priced.cost), priced.cost, 0.0)[:, :, None] + rest * priced.cost[:, :1, None]
        )
    allowed = (tried + rest <= most[:, :, None]) & np.isfinite(priced.cost)[:, :, None]
    allowed[:, 0] = False
    of_two = np.where(allowed, of_two, np.inf).reshape(len(alone), alone.shape[1] * len(tried))
    cases = np.arange(len(alone))
    single, double = np.argmin(of_one, axis=1), np.argmin(of_two, axis=1)
    second, number = np.divmod(double, len(tried))
    counts = np.zeros(alone.shape, dtype=np.int64)
    two = of_two[cases, double] < of_one[cases, single]
    ones = np.flatnonzero(~two & np.isfinite(of_one[cases, single]))
    counts[ones, single[ones]] = alone[ones, single[ones]]
    twos = np.flatnonzero(two)
    counts[twos, second[twos]] = number[twos]
    counts[twos, 0] += rest[twos, second[twos], number[twos]].astype(np.int64)
    best = np.minimum(of_one[cases, single], of_two[cases, double])
    return Patterns(cases, counts, priced.base + best)


def enumerate_patterns(priced: Priced, limit: FloatArray, most_states: int = MOST_STATES) -> tuple[Patterns, BoolArray]:
    """Find every pattern that costs no more than its case's limit.

    Patterns with a replica too many, whose loss would leave the rate and the numbers covered, may be left out.

    Returns
    -------
    patterns : in no order.
    complete : for each case, whether its enumeration was not given up.
    """
    complete = np.ones(len(limit), dtype=bool)
    promising = np.flatnonzero(limit >= priced.bound)
    found = [
        _enumerate(priced, limit, promising[start : start + CHUNK], complete, most_states)
        for start in range(0, len(promising), CHUNK)
    ]
    if not found:
        width = priced.cost.shape[1]
        return Patterns(np.empty(0, dtype=np.int64), np.empty((0, width), dtype=np.int64), np.empty(0)), complete
    joined = join_patterns(*found)
    return joined.take(complete[joined.case]), complete


def _enumerate(priced: Priced, limit: FloatArray, cases: IntArray, complete: BoolArray, most_states: int) -> Patterns:
    budget = limit - priced.base - priced.price * priced.need  # for what is wasted: no rate for the money
    case, missing = cases, priced.need[cases]
    wasted, number = np.zeros(len(cases)), np.zeros(len(cases), dtype=np.int64)
    counts = np.zeros((len(cases), priced.cost.shape[1]), dtype=np.int32)
    for i in range(counts.shape[1] - 1, 0, -1):
        cost, rate = priced.cost[case, i], priced.rate[case, i]
        exists = rate > 0
        if not exists.any():
            continue
        waste = np.where(exists, cost - priced.price[case] * rate, np.inf)
        useful = np.maximum(np.ceil(missing / np.where(exists, rate, 1.0)), priced.least[case] - number)
        with np.errstate(divide="ignore", over="ignore"):
            affordable = np.floor((budget[case] - wasted) / np.maximum(waste, 1e-300))
        most = np.minimum(np.minimum(useful, affordable), priced.most[case] - number)
        most = np.where(exists, np.maximum(most, 0), 0).astype(np.int64)
        states = np.bincount(case, weights=most + 1, minlength=len(complete))
        many = states > most_states
        if many.any():
            complete[many] = False
            keep = ~many[case]
            case, missing, wasted, number, counts = case[keep], missing[keep], wasted[keep], number[keep], counts[keep]
            cost, rate, waste, most = cost[keep], rate[keep], waste[keep], most[keep]
        if not most.any():
            continue
        origin = np.repeat(np.arange(len(case)), most + 1)
        taken = np.arange(len(origin)) - np.repeat(np.cumsum(most + 1) - (most + 1), most + 1)
        case = case[origin]
        missing = missing[origin] - taken * rate[origin]
        missing[missing <= COVERED * priced.need[case]] = np.minimum(
            missing[missing <= COVERED * priced.need[case]], 0.0
        )
        wasted = wasted[origin] + np.where(taken > 0, taken * np.where(np.isfinite(waste), waste, 0.0)[origin], 0.0)
        number = number[origin] + taken
        counts = counts[origin]
        counts[:, i] = taken
        fine = wasted + priced.price[case] * np.maximum(-missing, 0.0) <= budget[case]
        case, missing, wasted, number, counts = case[fine], missing[fine], wasted[fine], number[fine], counts[fine]
    rate = priced.rate[case, 0]
    filled = np.maximum(np.ceil(missing * (1 - COVERED) / rate), np.maximum(priced.least[case] - number, 0))
    filled = np.maximum(filled, 0)
    counts[:, 0] = filled
    full = priced.base[case] + (counts * np.where(np.isfinite(priced.cost), priced.cost, 0.0)[case]).sum(axis=1)
    fine = (full <= limit[case]) & (number + filled <= priced.most[case])
    return Patterns(case[fine], counts[fine].astype(np.int64), full[fine])


def as_options(covers: Covers, priced: Priced, patterns: Patterns) -> Options:
    """Make options of patterns."""
    counts = np.zeros_like(patterns.counts)
    np.put_along_axis(counts, priced.order[patterns.case], patterns.counts, axis=1)
    return options_of(covers, patterns.case, counts + covers.forced[patterns.case])


def options_of(covers: Covers, case: IntArray, counts: IntArray) -> Options:
    """Make options of replicas of each candidate, in the candidates' own order, for some cases."""
    order = np.argsort(covers.server[case], kind="stable")
    case, counts = case[order], counts[order]
    pattern, entry = np.nonzero(counts)
    return Options(
        server=covers.server[case],
        cost=covers.fixed_cost[case] + (counts * covers.cost[case]).sum(axis=1),
        price=covers.fixed_price[case] + (counts * covers.price[case]).sum(axis=1),
        usage=covers.fixed_usage[case] + np.einsum("pk,pkl->pl", counts, covers.usage[case]),
        starts=np.searchsorted(pattern, np.arange(len(counts) + 1)),
        row=covers.row[case][pattern, entry],
        replicas=counts[pattern, entry],
    )


def cheaper_options(covers: Covers, prices: FloatArray, listed: FloatArray) -> tuple[FloatArray, Options]:
    """Find, at prices, each server's least cost (or a lower bound of it), and options that cost less than those listed.

    Parameters
    ----------
    listed : least cost of each server's listed options.

    Returns
    -------
    least : of all servers, those without covers included.
    options : up to three for each server.
    """
    priced = price_cases(covers, prices)
    first = first_patterns(priced)
    cheapest = listed.copy()
    np.minimum.at(cheapest, covers.server, first.full_cost)
    slightly = 1e-9 * np.abs(cheapest)
    limit = (cheapest - slightly)[covers.server]
    more, complete = enumerate_patterns(priced, limit)
    if not complete.all():
        rest, completed = enumerate_patterns(priced, np.where(complete, -np.inf, limit), MANY_STATES)
        more, complete = join_patterns(more, rest), complete | completed
    least = cheapest - slightly
    np.minimum.at(least, covers.server[more.case], more.full_cost)
    np.minimum.at(least, covers.server[~complete], priced.bound[~complete])
    everything = join_patterns(first, more)
    better = everything.take(everything.full_cost < (listed - 1e-9 * np.abs(listed))[covers.server[everything.case]])
    return least, as_options(covers, priced, cheapest_patterns(covers, better, 3))


def cheapest_patterns(covers: Covers, patterns: Patterns, number: int) -> Patterns:
    """Keep so many patterns of each server, the cheapest."""
    server = covers.server[patterns.case]
    order = np.lexsort((patterns.full_cost, server))
    rank = np.arange(len(order)) - np.searchsorted(server[order], server[order])
    return patterns.take(order[rank < number])
