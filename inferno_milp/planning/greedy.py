"""The greedy heuristic: what the field runs today, for comparison and as a fallback.

Source: llm-inferno/optimizer v0.6.0, restated. Servers are taken by priority, then by regret (what the next candidate
would cost more); each takes its cheapest candidate that still fits, and returns to the queue with the next one where
its type has run out. Ties go by cost, then by the server's name, so that a run can be repeated. It knows single
assignments alone.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass

import numpy as np

from inferno_milp._version import __version__
from inferno_milp.columns.choice import Choice
from inferno_milp.columns.options import Program
from inferno_milp.planning.priorities import priorities_of
from inferno_milp.planning.slack import Room


@dataclass(frozen=True, slots=True)
class _Entry:
    """A server waiting for its turn with one of its options."""

    server: int
    options: tuple[int, ...]  # by rising cost
    turn: int

    @property
    def option(self) -> int:
        return self.options[self.turn]


def solve_greedy(program: Program) -> Choice:
    """Assign options one server at a time.

    Parameters
    ----------
    program : of a single assignment, its options not pruned, since the regret depends on all of them.
    """
    start = time.perf_counter()
    table, options = program.table, program.master.options
    costs, usage, rows = options.cost.tolist(), options.usage, options.row.tolist()
    room = Room(table, program.limits)
    priority = priorities_of(table)[program.servers].tolist()
    names = [table.problem.servers[s].name for s in program.servers.tolist()]

    def key(entry: _Entry) -> tuple[int, float, float, str]:
        following = entry.options[entry.turn + 1 : entry.turn + 2]
        regret = costs[following[0]] - costs[entry.option] if following else math.inf
        return priority[entry.server], -regret, -costs[entry.option], names[entry.server]

    entries = [_Entry(server, found, 0) for server, found in _by_cost(program).items()]
    queue = [(key(entry), entry.server, entry) for entry in entries]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue:
        entry = heapq.heappop(queue)[2]
        row, replicas = rows[entry.option], int(options.replicas[entry.option])
        if not room.lacks(usage[entry.option], row, table.rows, replicas):
            chosen.append(entry.option)
            room.take(usage[entry.option], row, table.rows, replicas)
        elif entry.turn + 1 < len(entry.options):
            waiting = _Entry(entry.server, entry.options, entry.turn + 1)
            heapq.heappush(queue, (key(waiting), waiting.server, waiting))
    picked = np.array(sorted(chosen), dtype=np.int64)
    served = ~table.needs
    served[program.servers[options.server[picked]]] = True
    return Choice(
        candidates=table,
        server=program.servers[options.server[picked]],
        row=options.row[picked],
        replicas=options.replicas[picked],
        served=served,
        outcome="heuristic",
        priorities=(),
        objective=None,
        bound=None,
        solver="greedy",
        version=__version__,
        wall_s=time.perf_counter() - start,
    )


def _by_cost(program: Program) -> dict[int, tuple[int, ...]]:
    """Each server's options by rising cost; among equals fewer devices, then the order of the accelerators."""
    options, rows = program.master.options, program.table.rows
    order = np.lexsort((rows.accelerator[options.row], rows.devices[options.row], options.cost, options.server))
    result: dict[int, list[int]] = {}
    for option, server in zip(order.tolist(), options.server[order].tolist(), strict=True):
        result.setdefault(server, []).append(option)
    return {server: tuple(found) for server, found in result.items()}
