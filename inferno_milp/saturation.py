"""Best effort: what is left when not everybody can be served in full, shared among those who are not.

The four policies are llm-inferno's (optimizer v0.6.0). Each server that is not served takes replicas of the cheapest of
its candidates that has room for one at all. Unlike there, the rate that they carry is what keeps the targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from inferno_milp.candidates import Candidates, rows_of
from inferno_milp.choice import Choice
from inferno_milp.limits import CHANGES
from inferno_milp.priorities import priorities_of
from inferno_milp.room import Room


@dataclass(slots=True)
class _Taker:
    """A server that is not served: its candidate, and the replicas that it has got of it."""

    server: int
    row: int
    wanted: int
    got: int = 0


def share_what_is_left(choice: Choice, room: Room) -> Choice:
    """Give replicas to servers that are not served in full, as the problem's saturation policy says.

    Parameters
    ----------
    room : after the allocations of the choice; what is given is taken from it.
    """
    table = choice.candidates
    policy = table.problem.options.saturation_policy
    if policy == "none" or choice.served.all():
        return choice
    priority = priorities_of(table)
    waiting = sorted(np.flatnonzero(~choice.served).tolist(), key=lambda s: priority[s])
    takers: list[_Taker] = []
    if policy == "round_robin":
        takers += _in_turn(table, room, waiting)
    elif policy == "priority_round_robin":
        for _, level in groupby(waiting, key=lambda s: priority[s]):
            takers += _in_turn(table, room, list(level))
    else:
        for server in waiting:
            takers += _in_turn(table, room, [server])
    given = [taker for taker in takers if taker.got]
    servers = np.concatenate((choice.server, np.array([t.server for t in given], dtype=np.int64)))
    order = np.argsort(servers, kind="stable")
    row = np.concatenate((choice.row, np.array([t.row for t in given], dtype=np.int64)))
    replicas = np.concatenate((choice.replicas, np.array([t.got for t in given], dtype=np.int64)))
    return replace(choice, server=servers[order], row=row[order], replicas=replicas[order])


def _in_turn(table: Candidates, room: Room, servers: list[int]) -> list[_Taker]:
    """Give each server a replica in turn, until there is room for none; one short of what would serve it in full."""
    takers = [taker for server in servers for taker in _takers(table, room, server)]
    active = takers
    while active:
        active = [taker for taker in active if taker.got < taker.wanted and _give(table, room, taker)]
    return takers


def _takers(table: Candidates, room: Room, server: int) -> Iterator[_Taker]:
    """Find the cheapest of the server's candidates that has room for a replica."""
    rows = table.rows
    for row in sorted(rows_of(rows.server, server).tolist(), key=lambda i: (rows.cost_per_hour[i], rows.devices[i], i)):
        taker = _Taker(server, row, int(rows.replicas[row]) - 1)
        if taker.wanted > 0 and not _lacks(table, room, taker):
            yield taker
            return


def _usage(table: Candidates, room: Room, taker: _Taker) -> np.ndarray:
    """Say what one more replica uses; a change of accelerator counts with the first."""
    part = table.rows.take(np.array([taker.row]))
    usage: np.ndarray = room.usage(part, np.array([1]), part.max_rate_per_s)[0]
    if taker.got and (j := room.limits.index(CHANGES)) is not None:
        usage[j] = 0.0
    return usage


def _lacks(table: Candidates, room: Room, taker: _Taker) -> bool:
    return bool(room.lacks(_usage(table, room, taker), taker.row, table.rows, 1))


def _give(table: Candidates, room: Room, taker: _Taker) -> bool:
    if _lacks(table, room, taker):
        return False
    room.take(_usage(table, room, taker), taker.row, table.rows, 1)
    taker.got += 1
    return True
