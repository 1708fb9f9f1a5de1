"""Requirements that cannot all be kept: as few limits and servers as there can be, none of which may be left out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.limits import BUDGET, CHANGES, POWER, Limits, nodes_of
from inferno_milp.columns.options import make_program
from inferno_milp.program.core import Solved, solve_master
from inferno_milp.program.covers import Covers
from inferno_milp.program.deadline import until
from inferno_milp.program.highs_engine import run
from inferno_milp.program.master import Master, of_servers

T = TypeVar("T")
MOST_NAMED = 12
"""Servers of a conflict that are named in words."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Limits, and servers that cannot all be served in full within them.

    Attributes
    ----------
    limits : in words: `64 devices of H100`.
    servers : by name.
    is_minimal : whether each of them is needed for the conflict; if not, the time ran out while others were left out.
    remedies : what one of the limits would have to be, the others as they are, in words.
    """

    limits: tuple[str, ...]
    servers: tuple[str, ...]
    is_minimal: bool
    remedies: tuple[str, ...]

    def __str__(self) -> str:
        named = _listed(self.servers[:MOST_NAMED])
        more = len(self.servers) - MOST_NAMED
        whom = f"{named} and {more} more servers" if more > 0 else named
        text = f"{whom} cannot {'all ' if len(self.servers) > 1 else ''}be served in full with {_listed(self.limits)}"
        return f"{text}; {'; '.join(self.remedies)}" if self.remedies else text


def find_conflict(table: Candidates, *, time_limit_s: float) -> Conflict | None:
    """Find out which limits and servers are at odds: what is left when all that is not needed for it is left out.

    Servers that nothing can serve, whatever the others do, are no part of it: `reasons` has words for them.

    Parameters
    ----------
    table : all candidates.
    time_limit_s : seconds; when they are up the conflict is told as far as it has shrunk.

    Returns
    -------
    Conflict or None
        None if there is none, or none is found in time.
    """
    end = time.perf_counter() + time_limit_s
    program = make_program(table, pruned=False)
    groups = _groups(program.limits)
    search = _Search(program.master, program.covers, until(end))
    if not len(program.servers) or not search.fails(list(range(len(groups))), groups, None):
        return None
    # Few servers make it easier to see, so the limits go first; they are few.
    limits, enough = search.shrink(list(range(len(groups))), lambda kept: search.fails(kept, groups, None))
    servers, also = search.shrink(
        np.argsort(_sizes(program.master), kind="stable").tolist(), lambda kept: search.fails(limits, groups, kept)
    )
    chosen = sorted(servers)
    return Conflict(
        limits=tuple(_words(table, program.limits, groups[g]) for g in limits),
        servers=tuple(table.problem.servers[program.servers[s]].name for s in chosen),
        is_minimal=enough and also,
        remedies=tuple(_remedies(table, program.limits, search, [groups[g] for g in limits])),
    )


def _groups(limits: Limits) -> list[list[int]]:
    """Positions of the limits that stand or fall together: those about one type of accelerator."""
    groups: dict[str, list[int]] = {}
    for j, limit in enumerate(limits.of):
        name = limit.name if limit.type is None else f"type {limit.type}"
        if limit.name.startswith("nodes["):  # of the type whose room was listed just before
            name = next(reversed(groups))
        groups.setdefault(name, []).append(j)
    return list(groups.values())


def _sizes(master: Master) -> np.ndarray:
    """How much of what there is each server takes at least: large ones are kept, as they tell more."""
    share = master.options.usage / np.maximum(master.most, 1.0)
    return np.asarray(np.minimum.reduceat(share.max(axis=1, initial=0.0), master.options.first))


class _Search:
    """Whether some of the servers can be served within some of the limits."""

    def __init__(self, master: Master, covers: Covers | None, left_s: Callable[[], float]):
        self.master = master.without_cost()
        self.covers = None if covers is None else covers.without_cost()
        self.priced = (master, covers)
        self.left_s = left_s

    def fails(self, kept: Sequence[int], groups: list[list[int]], servers: Sequence[int] | None) -> bool:
        """Whether it is proven that they cannot."""
        limits = sorted(j for g in kept for j in groups[g])
        master, covers = _within(self.master, self.covers, limits, servers)
        return solve_master(master, covers, gap=0.0, left_s=self.left_s, run=run).outcome == "infeasible"

    def least(self, limit: int) -> Solved:
        """Solve for the least use of one limit, the others as they are."""
        others = [j for j in range(len(self.master.limits)) if j != limit]
        master, covers = _within(self.master, self.covers, others, None)
        usage = self.master.options.usage[:, limit]
        master = replace(master, options=replace(master.options, cost=usage, price=usage))
        if covers is not None and self.covers is not None:
            fixed, each = self.covers.fixed_usage[:, limit], self.covers.usage[:, :, limit]
            covers = replace(covers, cost=each, price=each, fixed_cost=fixed, fixed_price=fixed)
        return solve_master(master, covers, gap=1e-6, left_s=self.left_s, run=run)

    def shrink(self, items: list[T], fails: Callable[[list[T]], bool]) -> tuple[list[T], bool]:
        """Leave out items, first many at once, then one by one, as long as what is left fails."""
        size, kept = max(len(items) // 2, 1), items
        while True:
            i = 0
            while i < len(kept):
                if self.left_s() <= 0:
                    return kept, False
                trial = kept[:i] + kept[i + size :]
                if trial and fails(trial):
                    kept = trial
                else:
                    i += size
            if size == 1:
                return kept, True
            size //= 2


def _within(
    master: Master, covers: Covers | None, limits: list[int], servers: Sequence[int] | None
) -> tuple[Master, Covers | None]:
    """Keep some of the limits and of the servers."""
    options = replace(master.options, usage=master.options.usage[:, limits])
    side = replace(master.side, usage=master.side.usage[:, limits])
    if covers is not None:
        covers = replace(covers, fixed_usage=covers.fixed_usage[:, limits], usage=covers.usage[:, :, limits])
    if servers is not None:
        chosen = np.sort(np.asarray(servers, dtype=np.int64))
        options = of_servers(options, chosen)
        if covers is not None:
            covers = covers.of(chosen)
            covers = covers if len(covers) else None
    return Master(options, side, tuple(master.limits[j] for j in limits), master.most[limits]), covers


def _words(table: Candidates, limits: Limits, group: list[int]) -> str:
    limit = limits.of[group[0]]
    if limit.type is None:
        most = f"{limit.most * limit.unit:.10g}"
        return {
            BUDGET: f"a budget of {most} {table.problem.currency}/h",
            POWER: f"{most} W of power (or the carbon that goes with it)"
            if table.problem.options.max_carbon_kg_per_hour is not None
            else f"{most} W of power",
            CHANGES: f"{most} changes of accelerator",
        }[limit.name]
    name = table.types[limit.type]
    nodes = nodes_of(table, limit.type)
    if nodes:
        return f"{' and '.join(f'{group.count} nodes of {group.devices}' for group in nodes)} {name}"
    return f"{limit.most:g} device{'s' * (limit.most != 1)} of {name}"


def _remedies(table: Candidates, limits: Limits, search: _Search, groups: list[list[int]]) -> Iterator[str]:
    """Yield what a budget, power or number of changes would do, where it is one of those in conflict."""
    for group in groups:
        limit = limits.of[group[0]]
        if limit.type is not None or search.left_s() <= 0:
            continue
        solved = search.least(group[0])
        if solved.objective is None or math.isinf(solved.objective):
            continue
        unit = {BUDGET: f"{table.problem.currency}/h", POWER: "W", CHANGES: "changes"}[limit.name]
        word = "takes" if solved.outcome == "optimal" else "takes at most"
        yield f"to serve all within the other limits {word} {_up(solved.objective * limit.unit)} {unit}"


def _up(value: float) -> str:
    """Write a number with six digits, never less than it is."""
    digits = max(5 - math.floor(math.log10(value)), 0) if value > 0 else 0
    return f"{math.ceil(value * 10**digits * (1 - 1e-12)) / 10**digits:.10g}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
