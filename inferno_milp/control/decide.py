"""From loads to a plan that does not flap: what is right now, and what is held until it has been right for a while.

The optimization says what is right now. What it would take away from a server, replicas or its accelerator, is held
until it has said so for `scale_down_after_s`, by planning again with these servers held to what they have. A hold is
given up at once where it stands in the way: of the server itself, or of one of a higher priority.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.rows import IntArray
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.fleet import Fleet, devices_per_replica
from inferno_milp.plan import Plan
from inferno_milp.planning.optimize import plan_candidates
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import CurrentAllocation, Server

Wanted = Mapping[str, int]
"""Replicas by accelerator."""
Moment = tuple[float, Wanted, Wanted]
"""When it was, what was right then, and what would have been right on the accelerators that ran."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What every server is to run.

    Attributes
    ----------
    right_now : the plan without holds.
    plan : the plan that is followed.
    targets : replicas by server and accelerator; servers that are left alone are not among them.
    reasons : by server, in words.
    """

    right_now: Plan
    plan: Plan
    targets: Mapping[str, Wanted]
    reasons: Mapping[str, str]


@dataclass(slots=True)
class Decider:
    """Plans, and remembers what was right lately."""

    config: ControlConfig
    _wanted: dict[str, deque[Moment]] = field(default_factory=dict)

    def forget(self, servers: Iterable[str] | None = None) -> None:
        """Forget what was right lately, for servers or, as when a clock was set, for all."""
        for name in list(self._wanted if servers is None else servers):
            self._wanted.pop(name, None)

    @property
    def _gap_s(self) -> float:
        """Longest time between two rounds of which it is known what was right between them."""
        return 3 * self.config.interval_s + 2 * self.config.time_limit_s + self.config.prometheus.deadline_s

    def decide(self, problem: Problem, fleet: Fleet, now_s: float) -> Decision | None:
        """Plan; None if the time ran out before any plan was found.

        Parameters
        ----------
        problem : servers to plan for, with their loads; those that are left alone, and what they hold, are not in it.
        fleet : what runs.
        """
        current = {s.name: _running(fleet, s.name) for s in problem.servers}
        problem = _with_today(problem, current)
        cooling = {s.name for s in problem.servers if self._is_cooling(fleet, s.name, now_s)}
        problem = _held(problem, {name: {} for name in cooling if current[name]})
        table = candidates_at_hand(problem, fleet, may_move=self.config.actuation.move)
        right_now = plan_candidates(table, time_limit_s=self.config.time_limit_s)
        if right_now.status == "no_solution":
            return None
        holds: dict[str, Wanted] = {}
        staying = _replicas_alone(table)
        most = {s.name: math.inf if s.max_replicas is None else s.max_replicas for s in problem.servers}
        useless = _without_adapters(problem)
        unserved = {s.name for s in right_now.servers if not s.is_carried}
        for name, wanted in _wanted_of(right_now).items():
            history = self._wanted.setdefault(name, deque())
            stays = {accelerator: staying.get((name, accelerator), 0) for accelerator in current[name]}
            if history and now_s - history[-1][0] > self._gap_s:
                history.clear()  # what was right meanwhile is not known
            history.append((now_s, wanted, stays))
            hold = self._hold(history, current[name], now_s)
            if name in unserved:
                hold = _at_most(current[name], stays)  # who is short keeps what is of use to it
            hold = {on: count for on, count in (hold or {}).items() if (name, on) not in useless}
            if hold and sum(hold.values()) <= most[name]:
                holds[name] = hold
        plan, aside = self._with_holds(problem, fleet, right_now, dict(holds), current)
        targets = _targets(problem, plan, current) | aside
        reasons = {s.name: _reason(s.name, plan, targets, current, holds, cooling) for s in problem.servers}
        return Decision(right_now, plan, targets, reasons)

    def _optimize(self, problem: Problem, fleet: Fleet) -> Plan:
        """Plan with the candidates at hand."""
        table = candidates_at_hand(problem, fleet, may_move=self.config.actuation.move)
        return plan_candidates(table, time_limit_s=self.config.time_limit_s)

    def _is_cooling(self, fleet: Fleet, server: str, now_s: float) -> bool:
        cooldown = self.config.stability.move_cooldown_s
        return any(d.moved_at_s is not None and 0 <= now_s - d.moved_at_s < cooldown for d in fleet.of(server))

    def _hold(self, history: deque[Moment], current: Wanted, now_s: float) -> Wanted | None:
        """Return what a server must keep for now; None if it may have what is right now.

        An accelerator that was right at any moment lately is kept, with the most replicas that were right on it, or
        would have been, had it stayed there.
        """
        length = self.config.stability.scale_down_after_s
        while len(history) > 1 and history[1][0] <= now_s - length:
            history.popleft()
        latest = history[-1][1]
        if all(latest.get(name, 0) >= count for name, count in current.items()):
            return None  # nothing is taken away
        is_known = history[0][0] <= now_s - length
        kept = {}
        for name, count in current.items():
            was_right = not is_known or any(wanted.get(name) for _, wanted, _ in history)
            most = max(max(wanted.get(name, 0), stays.get(name, 0)) for _, wanted, stays in history)
            kept[name] = min(count, most if is_known else max(most, count)) if was_right else 0
        if all(latest.get(name, 0) >= count for name, count in kept.items()):
            return None
        return {name: count for name, count in kept.items() if count}

    def _with_holds(
        self, problem: Problem, fleet: Fleet, right_now: Plan, holds: dict[str, Wanted], current: Mapping[str, Wanted]
    ) -> tuple[Plan, dict[str, Wanted]]:
        """Plan with what is held; give up the holds that stand in the way of what could be served without them.

        A hold of several accelerators, or one that the plan does not give (nobody is served a little less than in full
        by the program), is set aside: the server keeps it, and its devices are not there for the others.
        """
        priority = {s.name: s.priority for s in right_now.servers}
        served = {s.name for s in right_now.servers if s.is_carried}
        least = {s.name: _first_of(current[s.name], s.min_replicas) for s in problem.servers}
        aside = {name: hold for name, hold in holds.items() if len(hold) > 1}
        holds = {name: hold for name, hold in holds.items() if name not in aside}
        for _ in range(4 * len(problem.servers) + 4):
            rest, aside = _without(problem, aside, least)
            if not rest.servers:
                return right_now, aside
            plan = self._optimize(_held(rest, holds), fleet)
            if plan.status == "no_solution":
                break
            hurt = [s.name for s in plan.servers if not s.is_carried and s.name in served]
            highest = min((priority[name] for name in hurt), default=0)
            in_the_way = [name for name in (*holds, *aside) if hurt and (name in hurt or priority[name] > highest)]
            given_up = [name for name in in_the_way if holds.get(name, aside.get(name)) != least[name]]
            for name in given_up:
                holds.pop(name, None)
                if aside.pop(name, None) is not None and least[name]:
                    aside[name] = least[name]
            if given_up:
                continue
            wanted = _wanted_of(plan)
            broken = {name: hold for name, hold in holds.items() if sum(wanted[name].values()) < sum(hold.values())}
            broken |= {name: least[name] for name in wanted if not wanted[name] and least[name] and name not in broken}
            if not broken:
                return plan, aside
            aside |= broken
            holds = {name: hold for name, hold in holds.items() if name not in broken}
        return right_now, {}


def advise(problem: Problem, servers: Iterable[Server], left: Mapping[str, int] | None, time_limit_s: float) -> Plan:
    """Return what servers that are deployed nowhere yet would run, with the load that they are said to have.

    Parameters
    ----------
    left : devices of each type that those that are deployed leave; None: no limit.
    """
    listed = tuple(servers)
    rest = problem.model_copy(update={"servers": listed, "capacity": left, "nodes": ()})
    table = find_attainable_candidates(_with_today(rest, {server.name: {} for server in listed}))
    return plan_candidates(table, time_limit_s=time_limit_s)


def candidates_at_hand(problem: Problem, fleet: Fleet, *, may_move: bool) -> Candidates:
    """Find the candidates: unless deployments may move, those where a server has one, with the batch size it runs.

    A server that keeps its targets on none of them is planned for the best attainable there.
    """
    if may_move:
        return find_attainable_candidates(problem)

    def at_hand(table: Candidates) -> Candidates:
        rows, rejected = table.rows, table.rejected
        good = _at_hand(problem, fleet, rows.server, rows.accelerator, rows.batch_size)
        bad = _at_hand(problem, fleet, rejected.server, rejected.accelerator, rejected.batch_size)
        return replace(table, rows=rows.take(good), rejected=rejected.take(bad))

    return find_attainable_candidates(problem, kept=at_hand)


def _at_hand(
    problem: Problem, fleet: Fleet, server: IntArray, accelerator: IntArray, batch_size: IntArray
) -> npt.NDArray[np.bool_]:
    """Return which rows are of a deployment: with its batch size, or the nearest below."""
    kept = np.zeros(len(server), dtype=bool)
    positions = {a.name: i for i, a in enumerate(problem.accelerators)}
    for s, one in enumerate(problem.servers):
        for d in fleet.of(one.name):
            own = (server == s) & (accelerator == positions[d.accelerator])
            if d.batch_size is not None and own.any():
                smaller = own & (batch_size <= d.batch_size)
                at = batch_size[smaller].max() if smaller.any() else batch_size[own].min()
                own &= batch_size == at
            kept |= own
    return kept


def _replicas_alone(table: Candidates) -> dict[tuple[str, str], int]:
    """Return the replicas that would carry a server's load on one accelerator, by server and accelerator."""
    problem, rows = table.problem, table.one_per_accelerator().rows
    names = zip(rows.server.tolist(), rows.accelerator.tolist(), rows.replicas.tolist(), strict=True)
    return {(problem.servers[s].name, problem.accelerators[a].name): int(n) for s, a, n in names}


def _without_adapters(problem: Problem) -> set[tuple[str, str]]:
    """Return the servers and accelerators whose engines do not hold the server's adapters: nothing is worth holding."""
    return {
        (server.name, profile.accelerator)
        for server in problem.servers
        if server.adapters
        for profile in problem.profiles
        if profile.model == server.model and not profile.holds(server.adapters)
    }


def _first_of(running: Wanted, count: int) -> dict[str, int]:
    """Return so many of the replicas that run."""
    kept: dict[str, int] = {}
    for name, replicas in running.items():
        kept[name] = min(replicas, count - sum(kept.values()))
    return {name: replicas for name, replicas in kept.items() if replicas}


def _at_most(running: Wanted, useful: Wanted) -> dict[str, int]:
    """Return what runs, but on one accelerator no more than would carry the whole load there."""
    kept = {name: min(count, useful.get(name) or count) for name, count in running.items()}
    return {name: count for name, count in kept.items() if count}


def _without(
    problem: Problem, aside: Mapping[str, Wanted], least: Mapping[str, Wanted]
) -> tuple[Problem, dict[str, Wanted]]:
    """Leave servers out of a problem, and what is set aside for them, by priority as far as there are devices.

    What is least for them is set aside whatever there is.
    """
    priorities = {c.name: c.priority for c in problem.service_classes}
    pieces, types = devices_per_replica(problem), {a.name: a.type for a in problem.accelerators}
    left = None if problem.capacity is None else dict(problem.capacity)
    fitting: dict[str, Wanted] = {}
    for server in sorted(problem.servers, key=lambda server: priorities[server.service_class]):
        counts = {}
        for name, count in aside.get(server.name, {}).items():
            each, type_name = pieces.get((server.model, name), 1), types[name]
            if left is not None:
                count = max(min(count, left.get(type_name, 0) // each), least[server.name].get(name, 0))
                left[type_name] = max(left.get(type_name, 0) - count * each, 0)
            counts[name] = count
        if server.name in aside:
            fitting[server.name] = {name: count for name, count in counts.items() if count}
    servers = tuple(server for server in problem.servers if server.name not in aside)
    return problem.model_copy(update={"servers": servers, "capacity": left}), fitting


def _running(fleet: Fleet, server: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for d in fleet.of(server):
        if d.replicas:
            found[d.accelerator] = found.get(d.accelerator, 0) + d.replicas
    return found


def _with_today(problem: Problem, current: Mapping[str, Wanted]) -> Problem:
    """Return what servers run today."""
    servers = []
    for server in problem.servers:
        now = tuple(CurrentAllocation(accelerator=a, replicas=n) for a, n in current[server.name].items())
        update: dict[str, object] = {"current": now, "keep_accelerator": server.keep_accelerator and bool(now)}
        servers.append(server.model_copy(update=update))
    return problem.model_copy(update={"servers": tuple(servers)})


def _held(problem: Problem, holds: Mapping[str, Wanted]) -> Problem:
    """Return the problem with servers held to their accelerators, and to so many replicas."""

    def hold(server: Server) -> Server:
        if server.name not in holds:
            return server
        held = holds[server.name]
        now = tuple(c for c in server.current if not held or c.accelerator in held)
        least = max(server.min_replicas, sum(held.values()))
        most = server.max_replicas if server.max_replicas is None else max(server.max_replicas, least)
        update = {"keep_accelerator": True, "current": now, "min_replicas": least, "max_replicas": most}
        return server.model_copy(update=update)

    return problem.model_copy(update={"servers": tuple(hold(server) for server in problem.servers)})


def _wanted_of(plan: Plan) -> dict[str, Wanted]:
    return {s.name: {a.accelerator: a.replicas for a in s.allocations if a.replicas} for s in plan.servers}


def _targets(problem: Problem, plan: Plan, current: Mapping[str, Wanted]) -> dict[str, Wanted]:
    """Return what is planned; a server that gets nothing keeps its minimum, as far as that runs."""
    targets = _wanted_of(plan)
    for server in problem.servers:
        if server.name in targets and not targets[server.name]:
            targets[server.name] = _first_of(current[server.name], server.min_replicas)
    return targets


def _reason(
    name: str,
    plan: Plan,
    targets: Mapping[str, Wanted],
    current: Mapping[str, Wanted],
    holds: Mapping[str, Wanted],
    cooling: Iterable[str],
) -> str:
    planned = next((server for server in plan.servers if server.name == name), None)
    parts = []
    if planned is not None and not planned.meets_targets:
        parts.append(planned.reason or "not served in full")
    if name in holds and sum(targets[name].values()) >= sum(holds[name].values()):
        parts.append(f"holds {_text(holds[name])}: fewer has not been right for long enough")
    if name in cooling:
        parts.append("moved lately: keeps its accelerator")
    if not parts:
        same = targets[name] == current[name]
        parts.append("as it is" if same else f"least cost: {_text(current[name])} → {_text(targets[name])}")
    return "; ".join(parts)


def _text(wanted: Wanted) -> str:
    return " + ".join(f"{count} × {name}" for name, count in wanted.items()) or "nothing"
