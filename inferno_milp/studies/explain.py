"""Why a plan is as it is: what each server pays for, what else it could run on, and what that would add."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.options import Program, make_program
from inferno_milp.columns.rows import rows_of
from inferno_milp.columns.shortfall import latency_name
from inferno_milp.errors import OptionError, PlanCheckError
from inferno_milp.plan import DEFAULT_GAP, Plan, ServerPlan
from inferno_milp.plan.differences import diff
from inferno_milp.planning.conflict import find_conflict
from inferno_milp.planning.optimize import PURCHASE_TIME_S, plan_candidates
from inferno_milp.planning.purchase import find_purchase
from inferno_milp.planning.reasons import find_rejections
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server
from inferno_milp.queueing import analyze
from inferno_milp.studies.explanation import PARTS, Alternative, Explanation, ServerExplanation, TypeUse
from inferno_milp.studies.whatif import compare, outcome_of

EACH_S = 5.0
"""Seconds for each of the plans that an explanation compares."""
BINDS = 1e-3
"""A latency within this part of its target binds."""


def explain(
    problem: Problem,
    *,
    plan: Plan | None = None,
    servers: Sequence[str] | None = None,
    compared: Sequence[str] | None = None,
    gap: float = DEFAULT_GAP,
    time_limit_s: float | None = EACH_S,
    compare_time_s: float | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Explain a plan.

    Parameters
    ----------
    plan : of the problem; made here if there is none. It must be the plan of the solver "milp".
    servers : names of those whose alternatives are told; None for all.
    compared : names of those for which the whole is planned anew with each alternative, which takes as long as so many
        plans; by default `servers`, and nobody where these are all.
    gap : relative gap of each plan; the additions are exact with 0, and may be off by the gap otherwise.
    time_limit_s : of each plan, seconds; None is no limit.
    compare_time_s : seconds for all plans that are compared; alternatives that are not reached in time have no
        `adds_per_hour`. None is no limit.
    on_done : called with the number of plans made, and of all.

    Raises
    ------
    OptionError
        If a server is not known, or the plan is not of this problem.

    Examples
    --------
    >>> import inferno_milp as im
    >>> why = im.explain(im.read_problem("instances/small.yaml"), servers=["batch-chat-8b"])
    >>> why.servers[0].accelerators, round(why.servers[0].cost_per_hour, 2)
    (('A100',), 6.6)
    """
    problem.positions_of([*(servers or ()), *(compared or ())])
    table = find_attainable_candidates(problem)
    program = make_program(table)
    if plan is None:
        plan = plan_candidates(table, gap=gap, time_limit_s=time_limit_s)
    if [server.name for server in plan.servers] != [server.name for server in problem.servers]:
        raise OptionError("the plan is not of this problem: its servers are others")
    alone = plan_candidates(_alone(table), gap=0.0)  # each server by itself: quick, whatever their number
    compared = (servers or ()) if compared is None else compared
    told = [s for s, server in enumerate(problem.servers) if servers is None or server.name in servers]
    reasons: dict[str, dict[str, str]] = {}
    for rejection in find_rejections(table, program, told):
        reasons.setdefault(rejection.server, {})[rejection.accelerator] = rejection.reason
    types = _types(plan)
    listed = {s: _alternatives(table, program, plan, s, reasons.get(problem.servers[s].name, {}), types) for s in told}
    tried = [
        (s, i)
        for s, alternatives in listed.items()
        if problem.servers[s].name in compared
        for i, alternative in enumerate(alternatives)
        if _may_do(table, alternative) and not _is_as_planned(plan.servers[s], alternative)
    ]
    end = math.inf if compare_time_s is None else time.monotonic() + compare_time_s
    for done, (s, i) in enumerate(tried):
        if time.monotonic() >= end:
            break
        listed[s][i] = _compared(table, plan, s, listed[s][i], gap, time_limit_s)
        if on_done is not None:
            on_done(done + 1, len(tried))
    there = problem.availabilities
    parts = [
        _parts(server, planned, least, there) for server, planned, least in zip(
            problem.servers, plan.servers, alone.servers, strict=True
        )
    ]  # fmt: skip
    _check_parts(plan, parts)
    short = plan.status in ("partial", "infeasible")
    return Explanation(
        plan=plan,
        total_cost_per_hour=plan.total_cost_per_hour,
        parts={name: math.fsum(part.get(name, 0.0) for part in parts) for name in PARTS},
        servers=tuple(_server(plan.servers[s], parts[s], tuple(listed[s])) for s in told),
        types=tuple(types),
        purchase=find_purchase(table, time_limit_s=PURCHASE_TIME_S) if short else None,
        conflict=find_conflict(table, time_limit_s=PURCHASE_TIME_S) if short else None,
    )


def _check_parts(plan: Plan, parts: Sequence[dict[str, float]]) -> None:
    """Make sure that the parts add up to the cost of the plan."""
    total = math.fsum(value for part in parts for value in part.values())
    if not math.isclose(total, plan.total_cost_per_hour or 0.0, rel_tol=1e-9, abs_tol=1e-300):
        raise PlanCheckError([f"the parts of the cost add up to {total}, not to {plan.total_cost_per_hour}"])


def _alone(table: Candidates) -> Candidates:
    """Return the same candidates without any limit that the servers share."""
    free = table.problem.with_unlimited_capacity().with_options(
        max_changes=None, max_cost_per_hour=None, max_power_w=None, max_carbon_kg_per_hour=None
    )
    return find_attainable_candidates(free, known=table)


def _server(planned: ServerPlan, parts: dict[str, float], alternatives: tuple[Alternative, ...]) -> ServerExplanation:
    accelerators = tuple(a.accelerator for a in planned.allocations)
    return ServerExplanation(planned.name, accelerators, planned.cost_per_hour, parts, planned.reason, alternatives)


def _may_do(table: Candidates, alternative: Alternative) -> bool:
    """Whether an accelerator can serve its server, and there are devices enough for that."""
    available = table.available
    if alternative.devices is None:
        return False
    return available is None or alternative.devices <= available[table.types.index(alternative.type)]


def _is_as_planned(planned: ServerPlan, alternative: Alternative) -> bool:
    """Whether the plan runs the server on this accelerator alone."""
    return planned.is_carried and [a.accelerator for a in planned.allocations] == [alternative.accelerator]


def _compared(
    table: Candidates, plan: Plan, s: int, alternative: Alternative, gap: float, time_limit_s: float | None
) -> Alternative:
    """Plan the whole with a server on one accelerator."""
    names = [a.name for a in table.problem.accelerators]
    narrowed = table.only(s, [names.index(alternative.accelerator)])
    other = plan_candidates(narrowed, gap=gap, time_limit_s=time_limit_s)
    worth = compare(outcome_of(plan), outcome_of(other))
    if not worth.is_known:
        return replace(alternative, timed_out=True)
    has_objective = plan.objective is not None and worth.saves_per_hour is not None
    moves = (change for change in diff(plan, other) if change.moves and change.server != plan.servers[s].name)
    return replace(
        alternative,
        adds_per_hour=0.0 - (worth.saves_per_hour or 0.0) if has_objective else None,
        is_exact=worth.is_exact,
        moves=tuple(moves),
        unserved=worth.unserved,
        served=worth.served,
    )


def _alternatives(
    table: Candidates, program: Program, plan: Plan, s: int, reasons: dict[str, str], types: Sequence[TypeUse]
) -> list[Alternative]:
    """All accelerators, those that can serve the server first, by what it would pay alone.

    Parameters
    ----------
    reasons : by accelerator, why no plan of least cost uses it.
    """
    problem = table.problem
    best = program.table.rows
    mine = rows_of(best.server, s)
    rows = best.take(mine[np.argsort(best.cost_per_hour[mine], kind="stable")])
    chosen = {a.accelerator for a in plan.servers[s].allocations}
    binding = _binding(table, s)
    uses = {use.type: use for use in types}
    result = []
    for i in range(len(rows)):
        accelerator = problem.accelerators[rows.accelerator[i]]
        rate = float(rows.max_rate_per_s[i])
        result.append(
            Alternative(
                accelerator=accelerator.name,
                type=accelerator.type,
                batch_size=int(rows.batch_size[i]),
                max_rate_per_s=None if math.isnan(rate) else rate,
                replicas=int(rows.replicas[i]),
                devices=int(rows.devices[i]),
                cost_per_hour=float(rows.cost_per_hour[i]),
                binds=None if math.isnan(rate) else binding[int(rows.profile[i])],
                is_chosen=accelerator.name in chosen,
                taken_by=_takers(uses[accelerator.type], problem.servers[s].name, int(rows.devices[i])),
                reason=None if accelerator.name in chosen else reasons.get(accelerator.name),
            )
        )
    able = {alternative.accelerator for alternative in result}
    type_of = {a.name: a.type for a in problem.accelerators}
    result += [Alternative(name, type_of[name], reason=why) for name, why in reasons.items() if name not in able]
    return result


def _takers(use: TypeUse, server: str, devices: int) -> tuple[tuple[str, int], ...]:
    """Other servers that use a type, where what they leave is too little; empty where it is enough, or never was."""
    others = tuple((name, count) for name, count in use.takers if name != server)
    if use.available is None or not use.available - sum(count for _, count in others) < devices <= use.available:
        return ()
    return others


def _binding(table: Candidates, s: int) -> dict[int, str]:
    """By profile, say what keeps a replica's rate from being higher, whatever the batch size.

    At the batch size with the highest rate it is what binds there, and what binds with a batch larger by one: that is
    why no larger one is better.
    """
    rows = table.rows.take(rows_of(table.rows.server, s))
    result: dict[int, str] = {}
    chosen: list[tuple[int, int]] = []
    for profile in np.unique(rows.profile).tolist():
        mine = np.flatnonzero((rows.profile == profile) & ~np.isnan(rows.max_rate_per_s))
        if mine.size:
            best = int(np.argmax(rows.max_rate_per_s[mine]))
            chosen += [(profile, int(i)) for i in mine[best : best + 2]]
    if not chosen:
        return result
    which = np.array([i for _, i in chosen], dtype=np.intp)
    rates = table.while_there_per_s(rows.take(which), rows.max_rate_per_s[which])
    found = _binding_promises(table, s, rows.profile[which], rows.batch_size[which], rates)
    for profile in dict.fromkeys(profile for profile, _ in chosen):
        names = [name for (other, _), names in zip(chosen, found, strict=True) if other == profile for name in names]
        result[profile] = " and ".join(dict.fromkeys(names)) or "full"
    return result


def _binding_promises(
    table: Candidates,
    s: int,
    profile: npt.NDArray[np.int64],
    batch_size: npt.NDArray[np.int64],
    rate_per_s: npt.NDArray[np.float64],
) -> list[list[str]]:
    """Name the promises that are just kept at each rate."""
    problem = table.problem
    engines = table.engines.of(np.full(len(profile), s), profile, batch_size)
    analysis = analyze(problem.options.law, **engines, rate_per_s=rate_per_s)
    names: list[list[str]] = [[] for _ in profile]
    for latency, statistic, limit in problem.targets_of(problem.servers[s]).limits_ms():
        for i in np.flatnonzero(analysis.statistic(latency, statistic) > limit * (1 - BINDS)).tolist():
            names[i].append(latency_name(latency, statistic))
    return names


def _parts(server: Server, planned: ServerPlan, alone: ServerPlan, there: Mapping[str, float]) -> dict[str, float]:
    """Take a server's cost apart: what it would pay alone for, then what the limits add.

    Parameters
    ----------
    there : part of the time that a replica on each accelerator is there.
    """
    cost = planned.cost_per_hour
    if not planned.is_carried:
        return {"best_effort": cost} if cost else {}
    left = alone.cost_per_hour
    parts: dict[str, float] = {}

    def take(name: str, wanted: float) -> None:
        nonlocal left
        part = min(wanted, left)
        left -= part
        if part > 0:
            parts[name] = part

    used = [(a, a.cost_per_hour * a.rate_per_s / a.max_rate_per_s) for a in alone.allocations if a.max_rate_per_s]
    load = math.fsum(part for _, part in used)
    taken_away = math.fsum(part * (1 - there[a.accelerator]) for a, part in used)
    take("load", load - taken_away)
    take("interruptions", taken_away)
    take("reserve", load * server.reserve)
    strongest = sorted(
        ((a.max_rate_per_s or 0.0, a.cost_per_hour / a.replicas, a.replicas) for a in alone.allocations), reverse=True
    )
    each = [price for _, price, replicas in strongest for price in [price] * min(replicas, server.survive)]
    take("survive", math.fsum(each[: server.survive]))
    take("min_replicas", _beyond_need(server, planned, alone))
    take("whole_replicas", left)
    added = cost - alone.cost_per_hour
    if abs(added) > 1e-11 * max(cost, alone.cost_per_hour):  # less is rounding
        parts["limits"] = added
    return parts


def _beyond_need(server: Server, planned: ServerPlan, alone: ServerPlan) -> float:
    """Price of the replicas that are there for `min_replicas` alone, where all are on one accelerator."""
    if len(alone.allocations) != 1:
        return 0.0
    (a,) = alone.allocations
    needed = 0
    if planned.required_rate_per_s and a.max_rate_per_s:
        needed = math.ceil(planned.required_rate_per_s * (1 + server.reserve) / a.max_rate_per_s * (1 - 1e-12))
        needed += server.survive
    return a.cost_per_hour / a.replicas * max(a.replicas - needed, 0)


def _types(plan: Plan) -> list[TypeUse]:
    result = []
    for use in plan.capacity:
        takers = [
            (server.name, sum(a.devices for a in server.allocations if a.type == use.type)) for server in plan.servers
        ]
        takers = sorted(((name, count) for name, count in takers if count), key=lambda taker: -taker[1])
        result.append(TypeUse(use.type, use.available, use.used, tuple(takers)))
    return result
