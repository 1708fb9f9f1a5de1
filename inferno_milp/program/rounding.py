"""A first plan from the relaxation: rounded, repaired where it breaks limits, bettered by one and by two moves."""

from __future__ import annotations

import numpy as np

from inferno_milp.program.master import FloatArray, IntArray, Master

MOST_REPAIRS = 400
MOST_BETTERMENTS = 60
PAIRED = 400
"""Moves that are tried in pairs: those of the least reduced cost."""
SLIGHT = 1e-9
"""Slack below this, relative to the limit, is none."""


class _State:
    """One option chosen per server, and what they leave of the limits."""

    def __init__(self, master: Master, chosen: IntArray, most: FloatArray):
        self.options = master.options
        self.chosen = chosen
        self.slack = most - self.options.usage[chosen].sum(axis=0)
        self.tolerance = SLIGHT * np.maximum(np.abs(most), 1.0)

    def changes(self, values: FloatArray) -> FloatArray:
        """By how much each option's value differs from that of its server's chosen one."""
        return values - values[self.chosen][self.options.server]

    def move(self, option: int) -> None:
        """Choose another option."""
        server = self.options.server[option]
        self.slack = self.slack + self.options.usage[self.chosen[server]] - self.options.usage[option]
        self.chosen[server] = option

    @property
    def is_feasible(self) -> bool:
        """Whether no limit is broken."""
        return bool((self.slack >= -self.tolerance).all())


def round_relaxation(
    master: Master, reduced: FloatArray, values: FloatArray, side_values: FloatArray, prices: FloatArray
) -> IntArray | None:
    """Find a choice of options within the limits.

    Parameters
    ----------
    reduced, values, prices : of the relaxation.
    side_values : whole values of the side columns, which are kept.

    Returns
    -------
    array or None
        Position of each server's option; None if the repair does not succeed.
    """
    options = master.options
    order = np.lexsort((reduced, -values, options.server))
    state = _State(master, order[options.first], master.most - side_values @ master.side.usage)
    if not _repair(state, reduced, prices):
        return None
    for _ in range(MOST_BETTERMENTS):
        if not (_better_by_one(state) or _better_by_two(state, reduced)):
            break
    return state.chosen


def _repair(state: _State, reduced: FloatArray, prices: FloatArray) -> bool:
    """Move to other options, each time where the least is lost per violation mended, until no limit is broken."""
    usage = state.options.usage
    weight = prices + 0.01 * prices.max(initial=0.0) + 1e-9
    for _ in range(MOST_REPAIRS):
        if state.is_feasible:
            return True
        violation = float(np.maximum(-state.slack - state.tolerance, 0.0) @ weight)
        left = state.slack - (usage - usage[state.chosen][state.options.server])
        mended = violation - np.maximum(-left - state.tolerance, 0.0) @ weight
        worth = np.flatnonzero(mended > 1e-12 * violation)
        if not worth.size:
            return False
        lost = np.maximum(state.changes(reduced)[worth], 0.0)
        state.move(int(worth[np.argmin((lost + 1e-9) / mended[worth])]))
    return state.is_feasible


def _better_by_one(state: _State) -> bool:
    """Make the one move that lowers the cost most; False if there is none."""
    options = state.options
    change = state.changes(options.cost)
    cheaper = np.flatnonzero(change < -1e-9 * np.abs(options.cost).max(initial=0.0))
    used = options.usage[cheaper] - options.usage[state.chosen[options.server[cheaper]]]
    fits = cheaper[(used <= state.slack + state.tolerance).all(axis=1)]
    if not fits.size:
        return False
    state.move(int(fits[np.argmin(change[fits])]))
    return True


def _better_by_two(state: _State, reduced: FloatArray) -> bool:
    """Make the two moves, of two servers, that together lower the cost most; False if there are none."""
    options = state.options
    change = state.changes(reduced)
    change[state.chosen] = np.inf
    count = min(PAIRED, len(change))
    moves = np.argpartition(change, count - 1)[:count]
    moves = moves[np.isfinite(change[moves])]
    servers = options.server[moves]
    cost = options.cost[moves] - options.cost[state.chosen[servers]]
    used = options.usage[moves] - options.usage[state.chosen[servers]]
    total = cost[:, None] + cost[None, :]
    good = (total < -1e-9 * np.abs(options.cost).max(initial=0.0)) & (servers[:, None] != servers[None, :])
    for j in np.flatnonzero((used > 0).any(axis=0)):
        good &= used[:, j][:, None] + used[:, j][None, :] <= state.slack[j] + state.tolerance[j]
    if not good.any():
        return False
    one, other = np.unravel_index(np.argmin(np.where(good, total, np.inf)), total.shape)
    state.move(int(moves[one]))
    state.move(int(moves[other]))
    return True
