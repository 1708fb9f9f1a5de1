"""Whom to serve when not everybody can be: priority by priority, each step a program of its own.

A step serves as much weight of its priority as can be, while no priority before it loses more than it had to. Servers
of later priorities are not in it. The last step is the whole problem at least cost, within what the steps before found.
So nothing is weighed against anything by large numbers, which tolerances would swallow; and for the same reason weights
count relative to the smallest of their priority, whatever unit they are given in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.limits import FITS
from inferno_milp.columns.options import Program
from inferno_milp.program.core import Solved, solve_master
from inferno_milp.program.covers import Covers
from inferno_milp.program.highs import Runner
from inferno_milp.program.master import FloatArray, IntArray, Master, Options, join_options, of_servers


@dataclass(frozen=True, slots=True)
class Level:
    """What of a priority is served.

    Attributes
    ----------
    served, could : weight served in full, and a proven bound on how much could be.
    """

    served: float
    could: float


def weights_of(table: Candidates) -> FloatArray:
    """Return the weight of each server of the problem."""
    return np.array([server.weight for server in table.problem.servers])


def relative_weights(weights: FloatArray, priority: IntArray) -> FloatArray:
    """Return each weight as a multiple of the smallest one of its priority."""
    levels, which = np.unique(priority, return_inverse=True)
    least = np.full(len(levels), np.inf)
    np.minimum.at(least, which, weights)
    found: FloatArray = weights / least[which]
    return found


def priorities_of(table: Candidates) -> IntArray:
    """Return the priority of each server of the problem."""
    by_class = {c.name: c.priority for c in table.problem.service_classes}
    return np.array([by_class[server.service_class] for server in table.problem.servers], dtype=np.int64)


def solve_by_priority(
    program: Program, *, gap: float, left_s: Callable[[], float], run: Runner
) -> tuple[Solved, dict[int, Level]]:
    """Serve whom can be served, highest priority first, at least cost.

    Returns
    -------
    Solved
        Of the last step; servers left out have an option without replicas.
    dict
        What is served of each priority.
    """
    steps = _Steps(program)
    levels: dict[int, Level] = {}
    chosen = steps.nobody(np.empty(0, dtype=np.int64))
    for level in np.unique(steps.priority).tolist():
        here = np.flatnonzero(steps.priority == level)
        chosen = join_options((chosen, steps.nobody(here)))
        total = lost = float(steps.weights[here].sum())
        bound, unit = 0.0, float(weights_of(program.table)[program.servers[here]].min())
        if left_s() > 0:
            members = np.flatnonzero(steps.priority <= level)
            master, covers = steps.program_of(members, level)
            start = steps.within(chosen, members)
            solved = solve_master(master, covers, gap=0.0, left_s=left_s, run=run, start=start, whole=steps.is_whole)
            assert solved.chosen is not None
            chosen = steps.outside(solved.chosen, members)
            lost, bound = float(solved.objective or 0.0), max(solved.bound or 0.0, 0.0)
        steps.lost[level] = lost
        levels[level] = Level(unit * (total - lost), unit * (total - min(bound, lost)))
    everybody = np.arange(len(steps.priority))
    master, covers = steps.program_of(everybody, None)
    start = replace(steps.within(chosen, everybody), cost=chosen.price)
    solved = solve_master(master, covers, gap=gap, left_s=left_s, run=run, start=start)
    if solved.outcome == "optimal" and any(level.served < level.could for level in levels.values()):
        solved = replace(solved, outcome="feasible")
    return solved, levels


class _Steps:
    """Makes the programs of the steps; `lost` is the relative weight that each priority before has lost."""

    def __init__(self, program: Program):
        self.program = program
        self.priority = priorities_of(program.table)[program.servers]
        self.weights = relative_weights(weights_of(program.table)[program.servers], self.priority)
        self.is_whole = bool((self.weights == np.floor(self.weights)).all())
        self.lost: dict[int, float] = {}

    def nobody(self, servers: IntArray) -> Options:
        """Return an option without replicas for each of some servers."""
        count, empty = len(servers), np.empty(0, dtype=np.int64)
        usage = np.zeros((count, len(self.program.master.limits)))
        return Options(
            servers, np.zeros(count), np.zeros(count), usage, np.zeros(count + 1, dtype=np.int64), empty, empty
        )

    @property
    def _losing(self) -> list[int]:
        """Priorities before that have lost somebody."""
        return [level for level, weight in self.lost.items() if weight > 0]

    def program_of(self, members: IntArray, level: int | None) -> tuple[Master, Covers | None]:
        """Return the program of some servers: of a priority's step, or of the last, which is about cost."""
        whole, covers = self.program.master, self.program.covers
        losing = self._losing
        losable = members[np.isin(self.priority[members], losing if level is None else [*losing, level])]
        options = join_options((whole.options, self.nobody(losable)))
        if level is not None:
            is_lost = (np.diff(options.starts) == 0) & (self.priority[options.server] == level)
            options = replace(options, cost=np.where(is_lost, self.weights[options.server], 0.0))
        options = of_servers(self._widened(options), members)
        zeros = np.zeros(len(losing))
        side = replace(
            whole.side, usage=np.concatenate((whole.side.usage, np.tile(zeros, (len(whole.side.cost), 1))), axis=1)
        )
        limits = (*whole.limits, *(f"unserved[{lower}]" for lower in losing))
        most = np.concatenate((whole.most, [self.lost[lower] * (1 + FITS) for lower in losing]))
        if covers is not None:
            covers = covers.of(members) if level is None else covers.of(members).without_cost()
            covers = replace(
                covers,
                fixed_usage=np.concatenate((covers.fixed_usage, np.tile(zeros, (len(covers), 1))), axis=1),
                usage=np.concatenate((covers.usage, np.tile(zeros, (*covers.entries.shape, 1))), axis=2),
            )
        return Master(options, side, limits, most), covers

    def _widened(self, options: Options) -> Options:
        """Options with their use of what the priorities before may lose."""
        nobody = np.diff(options.starts) == 0
        lost = np.where(nobody, self.weights[options.server], 0.0)
        columns = [np.where(self.priority[options.server] == level, lost, 0.0)[:, None] for level in self._losing]
        return replace(options, usage=np.concatenate((options.usage, *columns), axis=1))

    def within(self, chosen: Options, members: IntArray) -> Options:
        """Return a choice as options of a step's program: at its costs, with its limits."""
        inside = self._widened(chosen)
        nobody = np.diff(inside.starts) == 0
        losable = self.priority[inside.server] == self.priority[members].max()
        cost = np.where(nobody & losable, self.weights[inside.server], 0.0)
        return replace(inside, cost=cost, server=np.searchsorted(members, inside.server))

    def outside(self, chosen: Options, members: IntArray) -> Options:
        """Return a choice of a step's program as options of the whole."""
        return replace(
            chosen,
            cost=np.zeros(len(chosen)),
            usage=chosen.usage[:, : len(self.program.master.limits)],
            server=members[chosen.server],
        )
