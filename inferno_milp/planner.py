"""The front door: `optimize(problem) -> Plan`, and the program itself for those who want it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from inferno_milp._pyomo import pyo
from inferno_milp.candidates import Candidates, Rows, find_candidates
from inferno_milp.check import check_plan
from inferno_milp.choice import Choice, Outcome
from inferno_milp.errors import OptionError
from inferno_milp.greedy import solve_greedy
from inferno_milp.highs_engine import version
from inferno_milp.milp import NAME, find_shortfall, solve_milp
from inferno_milp.milp import build_model as make_program
from inferno_milp.plan import (
    DEFAULT_GAP,
    SOLVERS,
    Allocation,
    BatchSizeChoice,
    CapacityUse,
    Plan,
    ServerPlan,
    SolverName,
    SolverRun,
    Status,
    TargetUse,
)
from inferno_milp.problem import Problem
from inferno_milp.queueing import analyze
from inferno_milp.reasons import why_no_candidate, why_not_placed

logger = logging.getLogger(__name__)

BATCH_SIZES_SHOWN = 24
"""Batch sizes of which a plan says what they would take, evenly spaced on a logarithmic scale."""
PURCHASE_TIME_S = 10.0
"""Time for finding what would have to be bought, once a problem is proven infeasible."""


def build_model(problem: Problem) -> pyo.ConcreteModel:
    """Build the mixed-integer program of a problem, dominated candidates dropped.

    Raises
    ------
    OptionError
        If a server has no candidate that fits: there is no program then.
    """
    table = find_candidates(problem)
    candidates = table.undominated()
    if candidates.unservable.size:
        reasons = [f"{problem.servers[s].name}: {why_no_candidate(table, s)}" for s in candidates.unservable.tolist()]
        raise OptionError(f"there is no program to build: {'; '.join(reasons)}")
    import pyomo.environ  # noqa: F401 - registers the writers and solvers for whoever gets the model

    return make_program(candidates)


def optimize(
    problem: Problem,
    *,
    solver: SolverName = "milp",
    time_limit_s: float | None = None,
    gap: float = DEFAULT_GAP,
    on_stage: Callable[[str], None] | None = None,
) -> Plan:
    """Find the plan of least cost.

    Parameters
    ----------
    solver : "milp" proves its plan; "greedy" is the heuristic of llm-inferno, for comparison.
    time_limit_s : seconds; None is no limit. The solver is stopped when they are up, and a plan found but not proven
        by then has status "feasible". The analysis of the candidates and the check of the plan are not cut short.
    gap : relative gap between cost and bound at which a plan counts as optimal; 0 asks for the very least cost.
    on_stage : called with the name of each stage as it begins: "candidates", "build", "solve", "check".

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
    """
    _check_options(solver, time_limit_s, gap)
    clock = _Clock(on_stage, time_limit_s)
    with clock.stage("candidates"):
        table = find_candidates(problem)
    logger.info("%d candidates for %d servers", len(table.rows), len(problem.servers))
    choice = _run_greedy(table, clock) if solver == "greedy" else _run_milp(table, clock, gap)
    clock.stages_s.setdefault("solve", 0.0)  # where there was nothing to solve
    clock.announce("check")
    plan = _assemble(table, choice, clock)
    check_plan(problem, plan, gap=gap)
    return plan


def _check_options(solver: str, time_limit_s: float | None, gap: float) -> None:
    wrong = []
    if solver not in SOLVERS:
        wrong.append(f"unknown solver {solver!r}; known: {', '.join(SOLVERS)}")
    if time_limit_s is not None and not (math.isfinite(time_limit_s) and time_limit_s > 0):
        wrong.append(f"time_limit_s must be a number of seconds above 0, not {time_limit_s}")
    if not (math.isfinite(gap) and 0 <= gap < 1):
        wrong.append(f"gap must be within [0, 1), not {gap}")
    if wrong:
        raise OptionError("; ".join(wrong))


class _Clock:
    """Seconds per stage, and what is left of the time limit."""

    def __init__(self, on_stage: Callable[[str], None] | None, time_limit_s: float | None):
        self._on_stage = on_stage
        self._end = None if time_limit_s is None else time.perf_counter() + time_limit_s
        self.stages_s: dict[str, float] = {}

    def announce(self, name: str) -> None:
        """Say that a stage begins."""
        if self._on_stage:
            self._on_stage(name)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        self.announce(name)
        start = time.perf_counter()
        yield
        self.stages_s[name] = time.perf_counter() - start

    @property
    def left_s(self) -> float | None:
        """Seconds left; None without a limit."""
        return None if self._end is None else max(self._end - time.perf_counter(), 0.0)


def _run_greedy(table: Candidates, clock: _Clock) -> Choice:
    with clock.stage("build"):
        candidates = table.one_per_accelerator()
    with clock.stage("solve"):
        return solve_greedy(candidates)


def _run_milp(table: Candidates, clock: _Clock, gap: float) -> Choice:
    with clock.stage("build"):
        candidates = table.undominated()
        if candidates.unservable.size:
            return _without_solving(candidates, "infeasible", None)
        if not len(candidates.rows):
            return _without_solving(candidates, "optimal", 0.0)
        if clock.left_s == 0:
            return _without_solving(candidates, "no_solution", None)
        model = make_program(candidates)
    with clock.stage("solve"):
        return solve_milp(candidates, model, time_limit_s=clock.left_s, gap=gap)


def _without_solving(candidates: Candidates, outcome: Outcome, objective: float | None) -> Choice:
    return Choice(
        candidates=candidates,
        rows=np.empty(0, dtype=np.intp),
        outcome=outcome,
        objective=objective,
        bound=objective,
        solver=NAME,
        version=version(),
        wall_s=0.0,
    )


def relative_gap(cost: float, bound: float) -> float:
    """Return (cost − bound) / cost; 0 where the cost is 0 or not above the bound."""
    return max(cost - bound, 0.0) / cost if cost > 0 else 0.0


def _assemble(table: Candidates, choice: Choice, clock: _Clock) -> Plan:
    """Turn the chosen rows into a plan: latencies at the assigned rates, reasons for what is unserved, totals."""
    allocations = _allocations(table, choice)
    used = np.zeros(len(table.types), dtype=np.int64)
    np.add.at(used, choice.candidates.rows.type[choice.rows], choice.candidates.rows.devices[choice.rows])
    servers = _servers(table, choice, allocations, used)
    served = all(server.meets_targets for server in servers)
    found = "feasible" if served else "partial"
    status = cast(Status, found if choice.outcome == "heuristic" else choice.outcome)
    without_plan = status in ("infeasible", "no_solution")
    cost = math.fsum(a.cost_per_hour for found in allocations.values() for a in found)
    objective, bound = choice.objective, choice.bound
    # Rounding alone may lift a bound above the cost; more than that is left for the check to refuse.
    if objective is not None and bound is not None and cost < bound <= cost * (1 + 1e-9):
        bound = cost
    capacity = table.problem.capacity
    return Plan(
        problem_name=table.problem.name,
        currency=table.problem.currency,
        status=status,
        total_cost_per_hour=None if without_plan else cost,
        objective=objective,
        bound=bound,
        gap=None if objective is None or bound is None else relative_gap(cost, bound),
        solver=SolverRun(choice.solver, choice.version, choice.wall_s),
        stages_s=clock.stages_s,
        servers=servers,
        capacity=tuple(
            CapacityUse(name, None if capacity is None else capacity.get(name, 0), int(used[t]))
            for t, name in enumerate(table.types)
        ),
        messages=tuple(_messages(table, status, clock)),
    )


def _allocations(table: Candidates, choice: Choice) -> dict[int, tuple[Allocation, ...]]:
    """Make the allocations by server, with latencies at the rate that each replica carries."""
    rows, problem = choice.candidates.rows.take(choice.rows), table.problem
    if not len(rows):
        return {}
    rate = table.required_rate_per_s[rows.server] / rows.replicas
    engines = table.engines.of(rows.server, rows.profile, rows.batch_size)
    analysis = analyze(problem.options.law, **engines, rate_per_s=rate)
    figures = {
        "ttft_ms": analysis.ttft_ms,
        "ttft_p95_ms": analysis.ttft_percentile(95),
        "ttft_p99_ms": analysis.ttft_percentile(99),
        "itl_ms": analysis.itl_ms,
        "itl_p95_ms": analysis.itl_percentile(95),
        "utilization": analysis.utilization,
    }
    promised = {
        (latency, statistic): analysis.statistic(latency, statistic)
        for latency, by_statistic in table.latency_targets.items()
        for statistic in by_statistic
    }
    result: dict[int, tuple[Allocation, ...]] = {}
    for i, s in enumerate(rows.server.tolist()):
        accelerator = problem.accelerators[rows.accelerator[i]]
        loaded = problem.servers[s].load is not None
        targets = problem.targets_of(problem.servers[s])
        uses = [
            TargetUse(latency, statistic, limit, float(promised[latency, statistic][i]))
            for latency, statistic, limit in targets.limits_ms()
        ]
        result[s] = (
            Allocation(
                accelerator=accelerator.name,
                type=accelerator.type,
                batch_size=int(rows.batch_size[i]),
                replicas=int(rows.replicas[i]),
                share=1.0,
                rate_per_s=float(rate[i]),
                max_rate_per_s=float(rows.max_rate_per_s[i]) if loaded else None,
                cost_per_hour=float(rows.cost_per_hour[i]),
                devices=int(rows.devices[i]),
                **{name: float(values[i]) if loaded else None for name, values in figures.items()},
                targets=tuple(uses) if loaded else (),
                batch_sizes=tuple(_batch_size_choices(table, rows, i)) if loaded else (),
            ),
        )
    return result


def _batch_size_choices(table: Candidates, rows: Rows, i: int) -> Iterator[BatchSizeChoice]:
    """Say what the server of a row would take with the other batch sizes analysed for its accelerator."""
    first, last = np.searchsorted(table.rows.server, [rows.server[i], rows.server[i] + 1])
    same = first + np.flatnonzero(table.rows.profile[first:last] == rows.profile[i])
    good = {int(table.rows.batch_size[row]): row for row in same.tolist()}
    rejected = table.rejected
    first, last = np.searchsorted(rejected.server, [rows.server[i], rows.server[i] + 1])
    bad = rejected.batch_size[first:last][rejected.profile[first:last] == rows.profile[i]]
    sizes = np.array(sorted({*good, *bad.tolist()}))
    thin = np.unique(np.round(np.geomspace(1, len(sizes), BATCH_SIZES_SHOWN)).astype(int) - 1)
    for size in sorted({*sizes[thin].tolist(), int(rows.batch_size[i])}):
        row = good.get(size)
        if row is None:
            yield BatchSizeChoice(size, 0.0, None, None)
        else:
            cost, replicas = float(table.rows.cost_per_hour[row]), int(table.rows.replicas[row])
            yield BatchSizeChoice(size, float(table.rows.max_rate_per_s[row]), replicas, cost)


def _servers(
    table: Candidates, choice: Choice, allocations: dict[int, tuple[Allocation, ...]], used: Any
) -> tuple[ServerPlan, ...]:
    problem = table.problem
    priority = {c.name: c.priority for c in problem.service_classes}
    hopeless = set(choice.candidates.unservable.tolist())
    left = [] if table.available is None else (table.available - used).tolist()
    result = []
    for s, server in enumerate(problem.servers):
        offered = server.load.arrival_rate_per_s if server.load else 0.0
        found = allocations.get(s, ())
        reason = None
        if not found and table.needs[s]:
            reason = _reason(table, choice, s, hopeless, left)
        result.append(
            ServerPlan(
                name=server.name,
                service_class=server.service_class,
                model=server.model,
                priority=priority[server.service_class],
                offered_rate_per_s=offered,
                required_rate_per_s=float(table.required_rate_per_s[s]),
                served_rate_per_s=0.0 if reason else offered,
                meets_targets=reason is None,
                reason=reason,
                allocations=found,
            )
        )
    return tuple(result)


def _reason(table: Candidates, choice: Choice, server: int, hopeless: set[int], left: list[int]) -> str:
    if server in hopeless:
        return why_no_candidate(table, server)
    if choice.outcome == "infeasible":
        if hopeless:
            return "not planned, because other servers cannot be served at all"
        return "the servers do not all fit into the capacity together"
    if choice.outcome == "no_solution":
        return "the time ran out before a plan was found"
    return why_not_placed(table, server, left)


def _messages(table: Candidates, status: Status, clock: _Clock) -> Iterator[str]:
    if status == "infeasible":
        left = clock.left_s
        limit = PURCHASE_TIME_S if left is None else min(left, PURCHASE_TIME_S)
        extra = find_shortfall(table, time_limit_s=limit) if limit > 0 else {}
        servable = "all servers" if not table.unservable.size else "all servers that an accelerator can serve"
        if extra:
            devices = ", ".join(f"{count} {name}" for name, count in extra.items())
            yield f"{servable} would fit with {devices} more, the cheapest devices to add"
        yield "the greedy solver plans what it can of an infeasible problem"
