"""The front door: `optimize(problem) -> Plan`, and the program itself for those who want it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.columns.batches import slow_batches
from inferno_milp.columns.candidates import Candidates, find_candidates, without_candidates
from inferno_milp.columns.choice import Choice
from inferno_milp.columns.options import make_program
from inferno_milp.errors import OptionError, PlanCheckError
from inferno_milp.plan import DEFAULT_GAP, SOLVERS, Plan, SolverName
from inferno_milp.plan.check import Considered, check_plan
from inferno_milp.plan.differences import changes_from_today
from inferno_milp.planning.assemble import Assigned, assemble, assign
from inferno_milp.planning.greedy import solve_greedy
from inferno_milp.planning.milp import solve_milp
from inferno_milp.planning.purchase import find_purchase, words_of
from inferno_milp.planning.reasons import why_left_out
from inferno_milp.planning.saturation import share_what_is_left
from inferno_milp.planning.second_opinion import better_of, disputes, find_second_opinion
from inferno_milp.planning.trust import profile_warnings
from inferno_milp.problem import Problem
from inferno_milp.program._pyomo import pyo
from inferno_milp.program.deadline import OutOfTimeError
from inferno_milp.program.statement import build_model as make_model

logger = logging.getLogger(__name__)

PURCHASE_TIME_S = 10.0
"""Time for finding what would have to be bought to serve everybody."""


def build_model(problem: Problem) -> pyo.ConcreteModel:
    """Build the mixed-integer program that serves everybody at least cost, without options that are never needed.

    With mixed assignment it is the direct form: replicas of each candidate are counted, not patterns listed.

    Raises
    ------
    OptionError
        If a server has no candidate that fits: there is no program then.
    """
    table = find_candidates(problem)
    program = make_program(table)
    if program.left_out.size:
        reasons = [f"{problem.servers[s].name}: {why_left_out(table, program, s)}" for s in program.left_out.tolist()]
        raise OptionError(f"there is no program to build: {'; '.join(reasons)}")
    import pyomo.environ  # noqa: F401 - registers the writers and solvers for whoever gets the model

    return make_model(program.listed_only(), program.covers)


def optimize(
    problem: Problem,
    *,
    solver: SolverName = "milp",
    time_limit_s: float | None = None,
    gap: float = DEFAULT_GAP,
    on_stage: Callable[[str], None] | None = None,
    advised: bool = True,
) -> Plan:
    """Find the plan of least cost.

    Parameters
    ----------
    solver : "milp" proves its plan; "greedy" is the heuristic of llm-inferno, for comparison, and knows single
        assignments alone.
    time_limit_s : seconds; None is no limit. The solver is stopped when they are up, and a plan found but not proven
        by then has status "feasible"; if there is none, or the analysis of the candidates takes longer, it is
        "no_solution".
    gap : relative gap between cost and bound at which a plan counts as optimal; 0 asks for the very least cost.
    on_stage : called with the name of each stage as it begins: "candidates", "build", "solve", "check".
    advised : whether a plan that does not serve everybody says what would have to be bought, which takes a moment.

    Returns
    -------
    Plan
        Checked against the problem: cost recomputed, capacity recounted, targets re-evaluated, bound ≤ cost.

    Raises
    ------
    OptionError
        For an option that cannot be.
    PlanCheckError
        If the plan does not pass its check, which is a defect of this program.

    Examples
    --------
    >>> import inferno_milp as im
    >>> im.optimize(im.read_problem("instances/limited.yaml"))
    <Plan limited: optimal, 26300.5 cents/h, 27 of 27 servers served>
    """
    _check_options(problem, solver, time_limit_s, gap)
    clock = _Clock(on_stage, time_limit_s)
    with clock.stage("candidates"):
        find = find_candidates if solver == "greedy" else find_attainable_candidates
        try:
            table = find(problem, left_s=clock.left_s)
        except OutOfTimeError:
            table, advised = without_candidates(problem), False
    logger.info("%d candidates for %d servers", len(table.rows), len(problem.servers))
    return _plan(table, solver, gap, clock, advised=advised)


def plan_candidates(table: Candidates, *, time_limit_s: float | None = None, gap: float = DEFAULT_GAP) -> Plan:
    """Plan with the candidates of a table, some of which may have been left out: what else could be, at what cost.

    As `optimize` with solver "milp", and checked as there, but nothing is advised in the plan's messages.
    """
    _check_options(table.problem, "milp", time_limit_s, gap)
    considered = _considered(table) if table.problem.relaxed_targets else None
    return _plan(table, "milp", gap, _Clock(None, time_limit_s), advised=False, considered=considered)


def _considered(table: Candidates) -> Considered:
    """Return the server, accelerator and batch size of every row of a table, good or rejected."""
    problem = table.problem
    servers, accelerators = [s.name for s in problem.servers], [a.name for a in problem.accelerators]
    return frozenset(
        (servers[s], accelerators[a], n)
        for part in (table.rows, table.rejected)
        for s, a, n in zip(part.server.tolist(), part.accelerator.tolist(), part.batch_size.tolist(), strict=True)
    )


def _plan(
    table: Candidates,
    solver: str,
    gap: float,
    clock: _Clock,
    *,
    advised: bool,
    considered: Considered | None = None,
) -> Plan:
    problem = table.problem
    with clock.stage("build"):
        program = make_program(table, pruned=solver == "milp")
    with clock.stage("solve"):
        if solver == "greedy":
            choice = solve_greedy(program)
        else:
            choice = _confirmed(table, solve_milp(program, gap=gap, left_s=clock.left_s))
    clock.announce("check")
    assigned = assign(table, choice)
    room = assigned.room_left(program)
    shared = share_what_is_left(choice, room)
    if shared is not choice:
        assigned = assign(table, shared)
    plan = assemble(table, program, shared, assigned, room, clock.stages_s)
    advice = (*_messages(table, plan, clock), *_hints(table, assigned)) if advised else ()
    messages = (*_not_planned(problem), *advice, *(profile_warnings(problem, plan) if advised else ()))
    plan = replace(plan, changes=changes_from_today(problem, plan), messages=messages)
    check_plan(problem, plan, gap=gap, considered=considered)
    return plan


def _not_planned(problem: Problem) -> Iterator[str]:
    """Yield what of the problem is for other commands."""
    for name in ("periods", "scenarios"):
        if moments := getattr(problem, name):
            yield f"the problem's {len(moments)} {name} are not planned here: `inferno-milp {name} FILE` plans them"


def _confirmed(table: Candidates, choice: Choice) -> Choice:
    """Hold a solved choice against a second opinion; return the better of the two."""
    second = find_second_opinion(table)
    if second is None:
        return choice
    wrong = list(disputes(table, choice, second))
    if wrong:
        raise PlanCheckError(wrong)
    return better_of(choice, second)


def _check_options(problem: Problem, solver: str, time_limit_s: float | None, gap: float) -> None:
    wrong = []
    if solver not in SOLVERS:
        wrong.append(f"unknown solver {solver!r}; known: {', '.join(SOLVERS)}")
    if solver == "greedy" and problem.options.assignment == "mixed":
        wrong.append("the greedy solver knows single assignments alone")
    wrong += wrong_limits(time_limit_s, gap)
    kept = [server.name for server in problem.servers if server.survive_pools]
    if kept:
        wrong.append(f"{', '.join(kept)}: `survive_pools` is for `periods` and `scenarios`")
    if wrong:
        raise OptionError("; ".join(wrong))


def wrong_limits(time_limit_s: float | None, gap: float) -> Iterator[str]:
    """Yield what is wrong with the limits of a solver."""
    if time_limit_s is not None and not (math.isfinite(time_limit_s) and time_limit_s > 0):
        yield f"time_limit_s must be a number of seconds above 0, not {time_limit_s}"
    if not (math.isfinite(gap) and 0 <= gap < 1):
        yield f"gap must be within [0, 1), not {gap}"


class _Clock:
    """Seconds per stage, and what is left of the time limit."""

    def __init__(self, on_stage: Callable[[str], None] | None, time_limit_s: float | None):
        self._on_stage = on_stage
        self._end = None if time_limit_s is None else time.perf_counter() + time_limit_s
        self.stages_s: dict[str, float] = {}

    def announce(self, name: str) -> None:
        """Report that a stage begins."""
        if self._on_stage:
            self._on_stage(name)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        self.announce(name)
        start = time.perf_counter()
        yield
        self.stages_s[name] = time.perf_counter() - start

    def left_s(self) -> float:
        """Seconds left; infinite without a limit."""
        return math.inf if self._end is None else max(self._end - time.perf_counter(), 0.0)


def _hints(table: Candidates, assigned: Assigned) -> Iterator[str]:
    options = table.problem.options
    if options.batch_choice == "smallest" and options.every_batch_size and not options.uses_power:
        yield from slow_batches(table, assigned.rows, assigned.rate_per_s)


def _messages(table: Candidates, plan: Plan, clock: _Clock) -> Iterator[str]:
    if not plan.short or plan.status == "no_solution" or plan.solver.name == "greedy":
        return
    purchase = find_purchase(table, time_limit_s=min(clock.left_s(), PURCHASE_TIME_S))
    yield from words_of(table, purchase)
    if any(use.served < use.could for use in plan.priorities):
        yield "the time ran out before it was proven that no more can be served"
    if table.problem.options.saturation_policy == "none" and plan.status == "infeasible":
        yield "a saturation policy would give what there is to servers that cannot be served in full"
