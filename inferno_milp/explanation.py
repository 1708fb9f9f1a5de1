"""Why a plan is as it is: what each server pays for, what else it could run on, and what that would add."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inferno_milp.candidates import Candidates, find_candidates
from inferno_milp.conflict import Conflict, find_conflict
from inferno_milp.differences import diff
from inferno_milp.errors import OptionError, PlanCheckError, nearest
from inferno_milp.options import Program, make_program
from inferno_milp.plan import DEFAULT_GAP, Change, Plan, ServerPlan
from inferno_milp.planner import PURCHASE_TIME_S, plan_candidates
from inferno_milp.problem import Problem
from inferno_milp.purchase import Purchase, find_purchase
from inferno_milp.queueing import analyze
from inferno_milp.reasons import find_rejections, latency_name
from inferno_milp.sections import Server

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("load", "reserve", "survive", "min_replicas", "whole_replicas", "limits", "best_effort")
"""What a plan's cost is made of; see `ServerExplanation`."""
EACH_S = 5.0
"""Seconds for each of the plans that an explanation or a price compares."""
TAKERS_NAMED = 3
MOVES_NAMED = 3
BINDS = 1e-3
"""A latency within this part of its target binds."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """An accelerator that a server could run on, or could not.

    Attributes
    ----------
    accelerator, type : its name and type.
    batch_size, max_rate_per_s, replicas, devices, cost_per_hour : of the best batch size, the server alone; None where
        the accelerator cannot serve it.
    binds : what keeps the rate from being higher: `TTFT`, `ITL p95`, or `full` for the engine itself; None without a
        load.
    is_chosen : whether the plan uses it.
    adds_per_hour : what the objective of the whole plan would be more, with this server on this accelerator alone and
        all others free to move; None where that was not asked for, or others would be served than now.
    is_exact : whether both plans are proven to be of least cost, to the last digit.
    moves : what else would change.
    unserved : servers that would no longer be served in full.
    served : servers that would be, and are not now.
    taken_by : other servers with the devices of the type that they take, where too few are left for this one.
    reason : why no plan of least cost uses it, in words; None where one may.
    """

    accelerator: str
    type: str
    batch_size: int | None = None
    max_rate_per_s: float | None = None
    replicas: int | None = None
    devices: int | None = None
    cost_per_hour: float | None = None
    binds: str | None = None
    is_chosen: bool = False
    adds_per_hour: float | None = None
    is_exact: bool = False
    moves: tuple[Change, ...] = ()
    unserved: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    taken_by: tuple[tuple[str, int], ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ServerExplanation:
    """What a server costs, and why it runs where it does.

    Attributes
    ----------
    parts : what its cost per hour is the sum of. If it were alone, on what is cheapest for it: the `load` itself, in
        fractions of replicas; what it wants in `reserve`; the replicas whose loss it is to `survive`; those that it has
        for its `min_replicas`; rounding up to `whole_replicas`. Then what the `limits` that it shares with the others
        add (with today's allocations that may be less than 0: what is saved on changes is no part of the price). Of a
        server that is not served in full: `best_effort`.
    alternatives : the cheapest first, then those that cannot serve it.
    """

    name: str
    accelerators: tuple[str, ...]
    cost_per_hour: float
    parts: dict[str, float]
    reason: str | None
    alternatives: tuple[Alternative, ...]

    def words(self, currency: str) -> str:
        """Say in a sentence or two why it runs where it does."""
        return " ".join(_sentences(self, currency))


@dataclass(frozen=True, slots=True)
class TypeUse:
    """Who uses the devices of a type.

    Attributes
    ----------
    available : None without a limit.
    takers : servers with the devices that they take, the largest first.
    """

    type: str
    available: int | None
    used: int
    takers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a plan is as it is.

    Attributes
    ----------
    parts : what its cost is the sum of, over all servers; each server's own are `ServerExplanation.parts`.
    total_cost_per_hour : of the plan.
    types : who uses what.
    purchase : the cheapest devices which, added, would serve everybody that can be served; None where there is nothing
        to buy for, or nothing that would do.
    conflict : as few requirements as possible that cannot all be kept; None where everybody is served, or could be.
    """

    plan: Plan
    total_cost_per_hour: float | None
    parts: dict[str, float]
    servers: tuple[ServerExplanation, ...]
    types: tuple[TypeUse, ...]
    purchase: tuple[Purchase, ...] | None
    conflict: Conflict | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers, text and None."""
        return {
            "currency": self.plan.currency,
            "status": self.plan.status,
            "total_cost_per_hour": self.total_cost_per_hour,
            "parts": dict(self.parts),
            "servers": {
                server.name: {**asdict(server), "words": server.words(self.plan.currency)} for server in self.servers
            },
            "types": [asdict(use) for use in self.types],
            "purchase": None if self.purchase is None else [asdict(item) for item in self.purchase],
            "conflict": None if self.conflict is None else {**asdict(self.conflict), "words": str(self.conflict)},
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per server and alternative."""
        import pandas as pd

        names = [name for name in Alternative.__slots__ if name not in ("moves", "served", "unserved", "taken_by")]
        rows = [
            {
                "server": server.name,
                **{name: getattr(alternative, name) for name in names},
                "unserved": ", ".join(alternative.unserved),
            }
            for server in self.servers
            for alternative in server.alternatives
        ]
        frame = pd.DataFrame(rows, columns=["server", *names, "unserved"])
        return frame.astype(dict.fromkeys(("batch_size", "replicas", "devices"), "Int64"))

    def parts_frame(self) -> pd.DataFrame:
        """Return one row per server with the parts of its cost, the last one their sums."""
        import pandas as pd

        rows = {server.name: {**server.parts, "cost_per_hour": server.cost_per_hour} for server in self.servers}
        columns = [*PARTS, "cost_per_hour"]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype(float).fillna(0.0)
        frame.loc["total"] = frame.sum()
        return frame


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
    """
    _check_names(problem, [*(servers or ()), *(compared or ())])
    table = find_candidates(problem)
    program = make_program(table)
    if plan is None:
        plan = plan_candidates(table, gap=gap, time_limit_s=time_limit_s)
    if [server.name for server in plan.servers] != [server.name for server in problem.servers]:
        raise OptionError("the plan is not of this problem: its servers are others")
    alone = plan_candidates(_alone(table), gap=0.0, time_limit_s=time_limit_s)
    compared = (servers or ()) if compared is None else compared
    told = [s for s, server in enumerate(problem.servers) if servers is None or server.name in servers]
    listed = {s: _alternatives(table, program, plan, s) for s in told}
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
    parts = [
        _parts(server, planned, least) for server, planned, least in zip(
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
        types=tuple(_types(plan)),
        purchase=find_purchase(table, time_limit_s=PURCHASE_TIME_S) if short else None,
        conflict=find_conflict(table, time_limit_s=PURCHASE_TIME_S) if short else None,
    )


def _check_parts(plan: Plan, parts: Sequence[dict[str, float]]) -> None:
    """Make sure that the parts add up to the cost of the plan."""
    total = math.fsum(value for part in parts for value in part.values())
    if not math.isclose(total, plan.total_cost_per_hour or 0.0, rel_tol=1e-9, abs_tol=1e-9):
        raise PlanCheckError([f"the parts of the cost add up to {total}, not to {plan.total_cost_per_hour}"])


def _check_names(problem: Problem, names: Sequence[str]) -> None:
    known = {server.name for server in problem.servers}
    wrong = [f"unknown server {name!r}; {nearest(name, known)}" for name in dict.fromkeys(names) if name not in known]
    if wrong:
        raise OptionError("; ".join(wrong))


def _alone(table: Candidates) -> Candidates:
    """Return the same candidates without any limit that the servers share."""
    free = table.problem.with_unlimited_capacity().with_options(
        max_changes=None, max_cost_per_hour=None, max_power_w=None, max_carbon_kg_per_hour=None
    )
    return table.under(free)


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
    return planned.meets_targets and [a.accelerator for a in planned.allocations] == [alternative.accelerator]


def _compared(
    table: Candidates, plan: Plan, s: int, alternative: Alternative, gap: float, time_limit_s: float | None
) -> Alternative:
    """Plan the whole with a server on one accelerator."""
    names = [a.name for a in table.problem.accelerators]
    narrowed = table.only(s, [names.index(alternative.accelerator)])
    other = plan_candidates(narrowed, gap=gap, time_limit_s=time_limit_s)
    was, is_ = set(plan.unserved), set(other.unserved)
    comparable = was == is_ and plan.objective is not None and other.objective is not None
    return replace(
        alternative,
        adds_per_hour=_added(plan, other) if comparable else None,
        is_exact=all(p.gap is not None and p.gap <= 1e-9 for p in (plan, other)),
        moves=tuple(change for change in diff(plan, other) if change.server != plan.servers[s].name),
        unserved=tuple(name for name in other.unserved if name not in was),
        served=tuple(name for name in plan.unserved if name not in is_),
    )


def _added(plan: Plan, other: Plan) -> float:
    assert plan.objective is not None
    assert other.objective is not None
    added = other.objective - plan.objective
    return added if abs(added) > 1e-9 * max(abs(plan.objective), 1.0) else 0.0


def _alternatives(table: Candidates, program: Program, plan: Plan, s: int) -> list[Alternative]:
    """All accelerators, those that can serve the server first, by what it would pay alone."""
    problem = table.problem
    best = program.table.rows
    mine = np.flatnonzero(best.server == s)
    rows = best.take(mine[np.argsort(best.cost_per_hour[mine], kind="stable")])
    reasons = {r.accelerator: r.reason for r in find_rejections(table, program, [s])}
    chosen = {a.accelerator for a in plan.servers[s].allocations}
    binding = _binding(table, s, rows.profile, rows.batch_size, rows.max_rate_per_s)
    uses = {use.type: use for use in _types(plan)}
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
                binds=None if math.isnan(rate) else binding[i],
                is_chosen=accelerator.name in chosen,
                taken_by=_takers(uses[accelerator.type], problem.servers[s].name, int(rows.devices[i])),
                reason=None if accelerator.name in chosen else reasons.get(accelerator.name),
            )
        )
    able = {alternative.accelerator for alternative in result}
    types = {a.name: a.type for a in problem.accelerators}
    result += [Alternative(name, types[name], reason=why) for name, why in reasons.items() if name not in able]
    return result


def _takers(use: TypeUse, server: str, devices: int) -> tuple[tuple[str, int], ...]:
    """Other servers that use a type, where what they leave is too little; empty where it is enough, or never was."""
    others = tuple((name, count) for name, count in use.takers if name != server)
    if use.available is None or not use.available - sum(count for _, count in others) < devices <= use.available:
        return ()
    return others


def _binding(
    table: Candidates,
    s: int,
    profile: npt.NDArray[np.int64],
    batch_size: npt.NDArray[np.int64],
    rate: npt.NDArray[np.float64],
) -> list[str]:
    """Say which promise keeps each rate from being higher."""
    loaded = np.flatnonzero(~np.isnan(rate))
    words = ["full"] * len(rate)
    if not loaded.size:
        return words
    problem = table.problem
    engines = table.engines.of(np.full(len(loaded), s), profile[loaded], batch_size[loaded])
    analysis = analyze(problem.options.law, **engines, rate_per_s=rate[loaded])
    closest = np.full(len(loaded), 1 - BINDS)
    for latency, statistic, limit in problem.targets_of(problem.servers[s]).limits_ms():
        part = analysis.statistic(latency, statistic) / limit
        for i in np.flatnonzero(part > closest).tolist():
            words[loaded[i]], closest[i] = latency_name(latency, statistic), part[i]
    return words


def _parts(server: Server, planned: ServerPlan, alone: ServerPlan) -> dict[str, float]:
    """Take a server's cost apart: what it would pay alone for, then what the limits add."""
    cost = planned.cost_per_hour
    if not planned.meets_targets:
        return {"best_effort": cost} if cost else {}
    left = alone.cost_per_hour
    parts: dict[str, float] = {}

    def take(name: str, wanted: float) -> None:
        nonlocal left
        part = min(wanted, left)
        left -= part
        if part > 0:
            parts[name] = part

    load = math.fsum(a.cost_per_hour * a.rate_per_s / a.max_rate_per_s for a in alone.allocations if a.max_rate_per_s)
    take("load", load)
    take("reserve", load * server.reserve)
    strongest = sorted(
        ((a.max_rate_per_s or 0.0, a.cost_per_hour / a.replicas, a.replicas) for a in alone.allocations), reverse=True
    )
    each = [price for _, price, replicas in strongest for price in [price] * min(replicas, server.survive)]
    take("survive", math.fsum(each[: server.survive]))
    take("min_replicas", _beyond_need(server, planned, alone))
    take("whole_replicas", left)
    if (added := cost - alone.cost_per_hour) and abs(added) > 1e-9 * max(cost, 1.0):
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


def _sentences(server: ServerExplanation, currency: str) -> list[str]:
    if server.reason is not None:
        return [f"{server.name} is not served in full: {server.reason}."]
    if not server.accelerators:
        return [f"{server.name} needs no replicas."]
    chosen = [a for a in server.alternatives if a.is_chosen]
    names = " and ".join(server.accelerators)
    text = f"{server.name} runs on {names} for {server.cost_per_hour:.6g} {currency}/h"
    binds = sorted({a.binds for a in chosen if a.binds is not None})
    if binds:
        what = " and ".join("the engine itself is full" if word == "full" else word for word in binds)
        text += f", where {what}" + ("" if binds == ["full"] else " sets the rate of a replica")
    sentences = [f"{text}."]
    cheaper = [a for a in server.alternatives if a.cost_per_hour is not None and not a.is_chosen]
    cheaper = [a for a in cheaper if (a.cost_per_hour or 0.0) < server.cost_per_hour * (1 - 1e-9)]
    sentences += [_why_not(a, currency) for a in cheaper[:2]]
    other = min(
        (a for a in server.alternatives if a.adds_per_hour is not None and not a.is_chosen and a not in cheaper[:2]),
        key=lambda a: a.adds_per_hour or 0.0,
        default=None,
    )
    if other is not None:
        sentences.append(f"The next best is {other.accelerator}, which would add {other.adds_per_hour:.6g}.")
    return sentences


def _why_not(alternative: Alternative, currency: str) -> str:
    text = f"{alternative.accelerator} would cost it {alternative.cost_per_hour:.6g}"
    if alternative.taken_by:
        takers = ", ".join(f"{name} ({count})" for name, count in alternative.taken_by[:TAKERS_NAMED])
        more = len(alternative.taken_by) - TAKERS_NAMED
        text += f", but needs {alternative.devices} {alternative.type}, which {takers}"
        text += f" and {more} more have" if more > 0 else " has" if len(alternative.taken_by) == 1 else " have"
    elif alternative.reason is not None:
        return f"{text}, but {alternative.reason}."
    if alternative.unserved:
        return f"{text}: taking them leaves {', '.join(alternative.unserved)} without full service."
    if alternative.adds_per_hour is None:
        return f"{text}."
    moved = [
        f"{change.server} to {' and '.join(r.accelerator for r in change.after) or 'nothing'}"
        for change in alternative.moves
    ]
    more = len(moved) - MOVES_NAMED
    listed = ", ".join(moved[:MOVES_NAMED]) + (f" and {more} more" if more > 0 else "")
    about = "" if alternative.is_exact else "about "
    adds = f"the whole would cost {about}{alternative.adds_per_hour:.6g} {currency}/h more"
    return f"{text}: {adds}{f', moving {listed}' if moved else ''}."
