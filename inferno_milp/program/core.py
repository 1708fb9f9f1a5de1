"""Solving a master program: prices first, then only the servers that the prices leave in doubt.

The relaxation gives prices and a bound. Rounded and repaired, it gives a plan, nearly always within some thousandths.
What is left to decide or to prove is the core: options whose reduced cost is within a threshold of their server's
least; the others are left out, and servers with one option left are held to it. Any choice that takes an option left
out costs at least the relaxation's bound and the threshold. So the smaller of that sum and the core's own bound is a
bound of the whole, and once the threshold reaches the difference between the best plan and the bound, nothing is lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.program._pyomo import pyo
from inferno_milp.program.covers import (
    Covers,
    as_options,
    cheapest_patterns,
    enumerate_patterns,
    options_of,
    price_cases,
)
from inferno_milp.program.highs import Runner, solve_with_highs
from inferno_milp.program.highs_engine import Result
from inferno_milp.program.master import BoolArray, FloatArray, Master, Options, distinct, join_options, of_servers
from inferno_milp.program.relaxation import Relaxation, list_options, second_reduced, solve_relaxation
from inferno_milp.program.rounding import round_relaxation
from inferno_milp.program.statement import build_model

logger = logging.getLogger(__name__)

FIRST_FREE = 60
"""Servers that the first core leaves free; each further one twice as many."""
NEARLY_ALL = 0.3
"""A core with this part of the options that the last one will have is left out for the last one."""
MOST_PATTERNS = 150
"""Patterns of one server that are listed in a core; of more, all are there as replicas to be counted."""
STEP_S = 3.0
"""Seconds for a core of patterns that is not the last: it is there to better the plan, not to prove it."""
ENRICHED = ((0.01, 12), (0.05, 30), (0.2, 40))
"""Thresholds, as parts of the mean cost of a server, and patterns of a server that are listed for rounding."""
EQUAL = 1e-9
"""Relative difference of costs that are the same but for rounding."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What came of a master program.

    Attributes
    ----------
    outcome : optimal (proven within the gap), feasible (a choice that is not), infeasible (proven), or no_solution.
    chosen : one option for each server; None without a choice.
    units : of the side columns.
    objective, bound : of the choice, and proven for all; None where there is none.
    """

    outcome: Result
    chosen: Options | None
    units: FloatArray
    objective: float | None
    bound: float | None


def solve_master(
    master: Master,
    covers: Covers | None,
    *,
    gap: float,
    left_s: Callable[[], float],
    run: Runner,
    start: Options | None = None,
    start_units: FloatArray | None = None,
    relaxation: Relaxation | None = None,
    whole: bool = False,
) -> Solved:
    """Find the choice of least cost.

    Parameters
    ----------
    gap : relative gap between cost and bound at which the choice counts as optimal.
    left_s : seconds left; when there are none, the best choice and bound so far are returned.
    run : HiGHS, here or in another process.
    start : a choice within the limits, if one is known.
    start_units : of the side columns, with that choice; None: the relaxation's, made whole.
    relaxation : of the program, if it is known.
    whole : whether every choice costs a whole number, so that bounds may be rounded up.
    """
    if relaxation is None:
        relaxation = solve_relaxation(master, tolerance=tolerance_of(gap), covers=covers, left_s=left_s)
    if math.isinf(relaxation.bound) and relaxation.bound > 0:
        return Solved("infeasible", None, np.empty(0), None, None)
    search = _Search(relaxation, covers, gap, left_s, run, whole=whole)
    if start is not None:
        search.offer(start, _whole_units(master, relaxation.units) if start_units is None else start_units)
    search.round()
    search.search_cores()
    return search.result()


def tolerance_of(gap: float) -> float:
    """Return how close the relaxation must be to its optimum, where a gap is to be reached."""
    return max(0.02 * gap, EQUAL)


class _Search:
    """The best choice and bound so far, and the ways to better them."""

    def __init__(
        self,
        relaxation: Relaxation,
        covers: Covers | None,
        gap: float,
        left_s: Callable[[], float],
        run: Runner,
        *,
        whole: bool,
    ):
        self.relaxation, self.covers, self.gap = relaxation, covers, gap
        self.left_s, self.run, self.whole = left_s, run, whole
        self.chosen: Options | None = None
        self.units = np.empty(0)
        self.objective = math.inf
        self.bound = -math.inf
        self.proven_infeasible = False
        self.raise_bound(relaxation.bound)

    @property
    def is_done(self) -> bool:
        """Whether the choice is proven to be within the gap."""
        if math.isinf(self.objective):
            return self.proven_infeasible
        return self.objective - self.bound <= self.gap * abs(self.objective) + EQUAL * max(abs(self.objective), 1e-9)

    def raise_bound(self, bound: float) -> None:
        """Take note of a bound."""
        if self.whole and math.isfinite(bound):
            bound = math.ceil(bound - 1e-6)
        self.bound = max(self.bound, bound)

    def offer(self, chosen: Options, units: FloatArray) -> None:
        """Take note of a choice within the limits."""
        cost = float(chosen.cost.sum() + self.relaxation.master.side.cost @ units)
        if cost < self.objective:
            self.chosen, self.units, self.objective = chosen, units, cost

    def round(self) -> None:
        """Round the relaxation; with covers, over more and more patterns near the least."""
        self._round_listed()
        if self.covers is None:
            return
        mean = abs(self.relaxation.bound) / max(self.relaxation.master.options.servers, 1)
        for part, number in ENRICHED:
            if self.is_done or self.left_s() <= 0:
                return
            near, _ = self._near(part * mean, number)
            self.relaxation = list_options(self.relaxation, near)
            self._round_listed()

    def _round_listed(self) -> None:
        found, master = self.relaxation, self.relaxation.master
        units = _whole_units(master, found.units)
        positions = round_relaxation(master, found.reduced, found.values, units, found.prices)
        if positions is not None:
            self.offer(master.options.take(positions), units)
        logger.debug("rounded: %s, bound %s", self.objective, self.bound)

    def _near(self, threshold: float, number: int) -> tuple[Options, BoolArray]:
        """Patterns within a threshold of their server's least, the cheapest; and whether these are all, by server."""
        assert self.covers is not None
        covers, master = self.covers, self.relaxation.master
        priced = price_cases(covers, self.relaxation.prices)
        least = master.reduced_costs(self.relaxation.prices)[1]
        patterns, complete = enumerate_patterns(priced, least[covers.server] + threshold)
        counts = np.bincount(covers.server[patterns.case], minlength=len(least))
        is_all = counts <= number
        is_all[covers.server[~complete]] = False
        return as_options(covers, priced, cheapest_patterns(covers, patterns, number)), is_all

    def search_cores(self) -> None:
        """Solve larger and larger cores, until the best choice is proven to be within the gap."""
        second = np.sort(second_reduced(self.relaxation.master.options, self.relaxation.reduced))
        free, before = FIRST_FREE, 0.0
        while not self.is_done and self.left_s() > 0:
            threshold = float(second[free]) if free < len(second) else math.inf
            needed = math.inf
            if self.chosen is not None:
                needed = max(
                    self.objective * (1 - math.copysign(self.gap, self.objective)) - self.relaxation.bound, 0.0
                )
                needed += EQUAL * abs(self.objective)
            reduced = self.relaxation.reduced
            if self.covers is not None:
                # What is listed says little of how many patterns there are: they are let in little by little.
                threshold = max(min(threshold, 4 * before if before else threshold), 1.5 * before)
                before = threshold
            elif (reduced <= threshold).sum() > NEARLY_ALL * (reduced <= needed).sum():
                threshold = needed
            threshold = min(threshold, needed)
            is_last = threshold >= needed
            self._solve_core(threshold, is_last=is_last)
            if is_last:
                return
            free *= 2

    def _solve_core(self, threshold: float, *, is_last: bool) -> None:
        """Solve the core of a threshold; the last one leaves out nothing that could matter."""
        found = self.relaxation
        near = (found.reduced <= threshold) | (found.values > EQUAL)
        parts = [found.master.options.take(np.flatnonzero(near))]
        is_all = np.ones(found.master.options.servers, dtype=bool)
        if self.covers is not None:
            if math.isinf(threshold):
                is_all[self.covers.server] = False
            else:
                patterns, is_all = self._near(threshold, MOST_PATTERNS)
                parts.append(patterns)
        if self.chosen is not None:
            parts.append(self.chosen)  # comes last among its server's options
        options = join_options(parts)
        options = options.take(distinct(options, last=True))
        counted = None
        if self.covers is not None and is_last and not is_all.all():
            counted = self.covers.take(~is_all[self.covers.server])
        bounded_by = found.bound + threshold if is_last or is_all.all() else None
        self._solve_within(options, counted, bounded_by=bounded_by, is_last=is_last)

    def _solve_within(
        self, options: Options, counted: Covers | None, *, bounded_by: float | None, is_last: bool
    ) -> None:
        """Solve over options, and replicas to be counted.

        Parameters
        ----------
        bounded_by : least cost of any choice that is not among these; None if not known.
        is_last : whether this one has all the time that is left.
        """
        master = self.relaxation.master
        counts = np.bincount(options.server, minlength=options.servers)
        first = options.first
        several = counts > 1
        if counted is not None:
            several[counted.server] = True
        free = np.flatnonzero(several)
        held = first[~several]
        if not free.size and not master.side.names:
            self._only(options.take(held), bounded_by)
            return
        part = of_servers(options, free)
        within = Master(part, master.side, master.limits, master.most - options.usage[held].sum(axis=0))
        cases = None if counted is None else counted.of(free)
        model = build_model(within, cases, offset=float(options.cost[held].sum()))
        if self.chosen is not None:
            self._set_start(model, part, cases)
        good = self.bound / (1 - math.copysign(self.gap, self.bound))
        solution = solve_with_highs(
            model,
            gap=self.gap,
            time_limit_s=self.left_s() if is_last or self.covers is None else min(self.left_s(), STEP_S),
            from_values=self.chosen is not None,
            good_enough=good if good > 0 else None,
            run=self.run,
        )
        logger.debug(
            "core of %d servers, %d options: %s, %s, %s; %.3f s",
            len(free), len(part), solution.outcome, solution.objective, solution.bound, solution.wall_s,
        )  # fmt: skip
        if solution.objective is not None:
            self._read(model, options, part, cases, free, held)
        if bounded_by is not None:
            if solution.outcome == "infeasible":
                self._nothing_within(bounded_by)
            elif solution.bound is not None:
                self.raise_bound(min(solution.bound, bounded_by))

    def _only(self, choice: Options, bounded_by: float | None) -> None:
        """Take note of the only choice of a core."""
        most = self.relaxation.master.most
        if (choice.usage.sum(axis=0) <= most + EQUAL * np.maximum(np.abs(most), 1.0)).all():
            self.offer(choice, np.empty(0))
            if bounded_by is not None:
                self.raise_bound(min(float(choice.cost.sum()), bounded_by))
        elif bounded_by is not None:
            self._nothing_within(bounded_by)

    def _nothing_within(self, bounded_by: float) -> None:
        """Take note that no choice of a core is within the limits: the others cost at least so much."""
        if math.isfinite(bounded_by):
            self.raise_bound(bounded_by)
        else:
            self.proven_infeasible = self.chosen is None

    def _set_start(self, model: pyo.ConcreteModel, part: Options, cases: Covers | None) -> None:
        chosen = np.zeros(len(part))
        chosen[part.last] = 1.0
        starts = [(model.choose, chosen.tolist())]
        if self.units.size:
            starts.append((model.units, self.units.tolist()))
        if cases is not None:
            starts += [(model.use, [0.0] * len(model.use)), (model.replicas, [0.0] * len(model.replicas))]
        for variables, values in starts:
            for variable, value in zip(variables.values(), values, strict=True):
                variable.set_value(value, skip_validation=True)

    def _read(
        self,
        model: pyo.ConcreteModel,
        options: Options,
        part: Options,
        cases: Covers | None,
        free: np.ndarray,
        held: np.ndarray,
    ) -> None:
        """Offer the choice that is in the model's variables, if it is one: tolerances may let in what is none."""
        picked = np.flatnonzero([variable.value > 0.5 for variable in model.choose.values()])
        of_free = part.take(picked)
        found = [replace(of_free, server=free[of_free.server]), options.take(held)]
        if cases is not None:
            case = np.flatnonzero([variable.value > 0.5 for variable in model.use.values()])
            counts = np.zeros(cases.entries.shape, dtype=np.int64)
            for (k, c), variable in model.replicas.items():
                counts[k, c] = round(variable.value)
            if not cases.are_kept(case, counts[case]):
                logger.warning("a solution of HiGHS that does not keep its rows, made whole, is not used")
                return
            by_count = options_of(cases, case, counts[case])
            found.append(replace(by_count, server=free[by_count.server]))
        units = np.empty(0)
        if self.relaxation.master.side.names:
            units = np.array([variable.value for variable in model.units.values()], dtype=float)
        self.offer(join_options(found), units)

    def result(self) -> Solved:
        """Return what was found."""
        bound = self.bound if math.isfinite(self.bound) else None
        if self.chosen is None:
            return Solved("infeasible" if self.proven_infeasible else "no_solution", None, self.units, None, bound)
        outcome: Result = "optimal" if self.is_done else "feasible"
        return Solved(outcome, self.chosen, self.units, self.objective, bound)


def _whole_units(master: Master, units: FloatArray) -> FloatArray:
    """Round units down, then up where the limits that they use leave room, the largest fractions first."""
    whole = np.floor(units + 1e-6)
    usage = np.maximum(master.side.usage, 0.0)
    fractions = units - whole
    for i in np.argsort(-fractions).tolist():
        limited = usage[i] > 0
        if fractions[i] > 1e-6 and (whole @ usage + usage[i] <= master.most + EQUAL)[limited].all():
            whole[i] += 1
    return whole
