"""Best effort: what is left when not everybody can be served in full, shared among those who are not.

The four policies are llm-inferno's (optimizer v0.6.0). Replicas are given one at a time, and the candidates of a server
are looked at again each time: it takes one more where it runs, or, where there is no room for that, moves to one that
carries more with what is left (not after the greedy heuristic, whose plans are llm-inferno's). Unlike there, the rate
that replicas carry is what keeps the targets, and no server has more replicas than it may, or than would serve it in
full.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.choice import Choice
from inferno_milp.columns.limits import CHANGES
from inferno_milp.columns.rows import rows_of
from inferno_milp.planning.priorities import priorities_of
from inferno_milp.planning.slack import Room


@dataclass(slots=True)
class _Taker:
    """A server that is not served: the replicas that it has of one of its candidates (None: of none yet)."""

    server: int
    row: int | None = None
    replicas: int = 0


def share_what_is_left(choice: Choice, room: Room) -> Choice:
    """Give replicas to servers that are not served in full, as the problem's saturation policy says.

    Parameters
    ----------
    room : after the allocations of the choice; what is given is taken from it.
    """
    table = choice.candidates
    policy = table.problem.options.saturation_policy
    if policy == "none" or choice.served.all() or choice.outcome == "no_solution":  # what is left is not known
        return choice
    priority = priorities_of(table)
    waiting = sorted(np.flatnonzero(~choice.served).tolist(), key=lambda s: priority[s])
    sharing = _Sharing(table, room, moves=choice.outcome != "heuristic")
    takers: list[_Taker] = []
    if policy == "round_robin":
        takers += sharing.in_turn(waiting)
    elif policy == "priority_round_robin":
        for _, level in groupby(waiting, key=lambda s: priority[s]):
            takers += sharing.in_turn(list(level))
    else:
        for server in waiting:
            takers += sharing.in_turn([server])
    given = [(taker.server, taker.row, taker.replicas) for taker in takers if taker.row is not None]
    servers, rows, replicas = (np.array([one[k] for one in given], dtype=np.int64) for k in range(3))
    servers = np.concatenate((choice.server, servers))
    order = np.argsort(servers, kind="stable")
    rows, replicas = np.concatenate((choice.row, rows)), np.concatenate((choice.replicas, replicas))
    return replace(choice, server=servers[order], row=rows[order], replicas=replicas[order])


class _Sharing:
    """Gives replicas one at a time; a server has replicas of one candidate."""

    def __init__(self, table: Candidates, room: Room, *, moves: bool):
        self.table, self.room, self.moves = table, room, moves

    def in_turn(self, servers: list[int]) -> list[_Taker]:
        """Give each server a replica in turn, those with the fewest candidates first, until nothing more helps."""
        takers = [_Taker(s) for s in sorted(servers, key=lambda s: rows_of(self.table.rows.server, s).size)]
        active = takers
        while active:
            self._skip_rounds(active)
            active = [taker for taker in active if self._give(taker)]
        return takers

    def _skip_rounds(self, takers: list[_Taker]) -> None:
        """Give what all rounds would in which each server takes one more where it runs: there may be millions."""
        step = 1
        while step:
            step = 2 * step if self._give_all(takers, step) else step // 2

    def _give_all(self, takers: list[_Taker], more: int) -> bool:
        """Give each server more replicas where it runs, if there is room for all of them; return whether there is."""
        if any(taker.row is None or taker.replicas + more > self._most(taker.row) for taker in takers):
            return False
        for i, taker in enumerate(takers):
            assert taker.row is not None
            if not self._fits(taker.row, taker.replicas, taker.replicas + more):
                for given in takers[:i]:
                    self._give_back(given, more)
                return False
            self._take(taker, taker.row, taker.replicas + more)
        return True

    def _give_back(self, taker: _Taker, count: int) -> None:
        assert taker.row is not None
        taker.replicas -= count
        usage = self._usage(taker.row, taker.replicas, taker.replicas + count)
        self.room.take(-usage, taker.row, self.table.rows, -count)

    def _give(self, taker: _Taker) -> bool:
        """Give one more replica, or move to a candidate that carries more; return whether either was possible."""
        if taker.row is not None:
            if taker.replicas >= self._most(taker.row):
                return False
            if self._fits(taker.row, taker.replicas, taker.replicas + 1):
                self._take(taker, taker.row, taker.replicas + 1)
                return True
            if not self.moves:
                return False
        for row, replicas in self._better(taker):
            self._take(taker, row, replicas)
            return True
        return False

    def _better(self, taker: _Taker) -> Iterator[tuple[int, int]]:
        """Yield the cheapest candidate with room for enough replicas to carry more than the server has now."""
        rows, now, had = self.table.rows, self._carried(taker.row, taker.replicas), (taker.row, taker.replicas)
        mine = rows_of(rows.server, taker.server).tolist()
        self._release(taker)
        for row in sorted(mine, key=lambda i: (rows.cost_per_hour[i], rows.devices[i], i)):
            each = self._carried(row, 1)
            fewest = math.floor(now / each * (1 + 1e-9)) + 1 if each else 1
            if row != had[0] and fewest <= self._most(row) and self._fits(row, 0, fewest):
                self._restore(taker, *had)
                yield row, fewest
                return
        self._restore(taker, *had)

    def _most(self, row: int) -> int:
        """Replicas of a candidate that the server may have and has a use for, one short of what serves it in full."""
        most = self.table.problem.servers[int(self.table.rows.server[row])].max_replicas
        short = int(self.table.rows.replicas[row]) - 1
        return short if most is None else min(short, most)

    def _carried(self, row: int | None, replicas: int) -> float:
        """Rate that replicas carry; their number where there is no load."""
        if row is None:
            return 0.0
        rate = float(self.table.rows.max_rate_per_s[row])
        return replicas * (1.0 if math.isnan(rate) else rate)

    def _usage(self, row: int, had: int, replicas: int) -> np.ndarray:
        """Return what replicas beyond those there are use; a change of accelerator counts with the first."""
        part = self.table.rows.take(np.array([row]))
        usage: np.ndarray = self.room.usage(part, np.array([replicas - had]), part.max_rate_per_s)[0]
        if had and (j := self.room.limits.index(CHANGES)) is not None:
            usage[j] = 0.0
        return usage

    def _fits(self, row: int, had: int, replicas: int) -> bool:
        return not self.room.lacks(self._usage(row, had, replicas), row, self.table.rows, replicas - had)

    def _take(self, taker: _Taker, row: int, replicas: int) -> None:
        if taker.row != row:
            self._release(taker)
        self._restore(taker, row, replicas)

    def _release(self, taker: _Taker) -> None:
        """Give back what a server has."""
        if taker.row is not None:
            usage = self._usage(taker.row, 0, taker.replicas)
            self.room.take(-usage, taker.row, self.table.rows, -taker.replicas)
        taker.row, taker.replicas = None, 0

    def _restore(self, taker: _Taker, row: int | None, replicas: int) -> None:
        """Let a server have replicas of a candidate: those that it has, and more."""
        if row is not None and replicas > taker.replicas:
            usage = self._usage(row, taker.replicas, replicas)
            self.room.take(usage, row, self.table.rows, replicas - taker.replicas)
        taker.row, taker.replicas = row, replicas
