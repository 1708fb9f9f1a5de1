"""The greedy heuristic: what the field runs today, for comparison and as a fallback.

Source: llm-inferno/optimizer v0.6.0, restated. Servers are taken by priority, then by regret (what the next candidate
would cost more); each takes its cheapest candidate that still fits, and returns to the queue with the next one where
its type has run out. Ties go by cost, then by the server's name, so that a run can be repeated.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass

import numpy as np

from inferno_milp._version import __version__
from inferno_milp.candidates import Candidates
from inferno_milp.choice import Choice


@dataclass(frozen=True, slots=True)
class _Entry:
    """A server waiting for its turn with one of its candidates."""

    server: int
    rows: tuple[int, ...]  # its candidates by rising cost
    turn: int

    @property
    def row(self) -> int:
        return self.rows[self.turn]


def solve_greedy(candidates: Candidates) -> Choice:
    """Assign candidates one server at a time.

    Parameters
    ----------
    candidates : one per (server, accelerator); dominated ones kept, since the regret depends on them.
    """
    start = time.perf_counter()
    costs, devices = candidates.rows.cost_per_hour.tolist(), candidates.rows.devices.tolist()
    types = candidates.rows.type.tolist()
    left = None if candidates.available is None else candidates.available.tolist()
    priority, names = _priorities(candidates), [s.name for s in candidates.problem.servers]

    def key(entry: _Entry) -> tuple[int, float, float, str]:
        following = entry.rows[entry.turn + 1 : entry.turn + 2]
        regret = costs[following[0]] - costs[entry.row] if following else math.inf
        return priority[entry.server], -regret, -costs[entry.row], names[entry.server]

    entries = [_Entry(server, rows, 0) for server, rows in _by_cost(candidates).items()]
    queue = [(key(entry), entry.server, entry) for entry in entries]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue:
        entry = heapq.heappop(queue)[2]
        kind, needed = types[entry.row], devices[entry.row]
        if left is None or needed <= left[kind]:
            chosen.append(entry.row)
            if left is not None:
                left[kind] -= needed
        elif entry.turn + 1 < len(entry.rows):
            waiting = _Entry(entry.server, entry.rows, entry.turn + 1)
            heapq.heappush(queue, (key(waiting), waiting.server, waiting))
    return Choice(
        candidates=candidates,
        rows=np.array(sorted(chosen), dtype=np.intp),
        outcome="heuristic",
        objective=None,
        bound=None,
        solver="greedy",
        version=__version__,
        wall_s=time.perf_counter() - start,
    )


def _priorities(candidates: Candidates) -> list[int]:
    by_class = {c.name: c.priority for c in candidates.problem.service_classes}
    return [by_class[s.service_class] for s in candidates.problem.servers]


def _by_cost(candidates: Candidates) -> dict[int, tuple[int, ...]]:
    """Each server's rows by rising cost; among equals fewer devices, then the order of the accelerators."""
    rows = candidates.rows
    order = np.lexsort((rows.accelerator, rows.devices, rows.cost_per_hour, rows.server))
    result: dict[int, list[int]] = {}
    for row, server in zip(order.tolist(), rows.server[order].tolist(), strict=True):
        result.setdefault(server, []).append(row)
    return {server: tuple(found) for server, found in result.items()}
