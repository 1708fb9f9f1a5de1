"""What a round acts on, and what is reported of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inferno_milp.control.collector import Observation, Observed
from inferno_milp.control.decide import Decision
from inferno_milp.control.fleet import Fleet, devices_held, devices_per_replica
from inferno_milp.control.report import ServerReport
from inferno_milp.control.steps import Steps
from inferno_milp.plan import Plan, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server


@dataclass(frozen=True, slots=True)
class View:
    """What a round acts on: the problem, what runs, and what that does."""

    problem: Problem
    fleet: Fleet
    observed: Observed
    available: Mapping[str, int] | None
    planned: Problem | None
    undeployed: tuple[Server, ...] = ()


def devices_available(problem: Problem, fleet: Fleet) -> dict[str, int] | None:
    """Return the devices of each type that all controlled deployments may hold."""
    if fleet.devices is None:
        return problem.devices_available
    types = {a.type for a in problem.accelerators}
    return {name: max(fleet.devices.get(name, 0) - fleet.foreign.get(name, 0), 0) for name in types}


def capacity(view: View) -> dict[str, tuple[int, int]]:
    """Return by type the devices that the fleet may hold, and that it holds; empty without limits."""
    held = devices_held(view.problem, view.fleet.holders)
    return {name: (count, held.get(name, 0)) for name, count in (view.available or {}).items()}


def undeployed_servers(problem: Problem, fleet: Fleet, observed: Observed) -> Iterator[Server]:
    """Yield the servers that have a load, and no deployment."""
    aside = {d.server for d in fleet.set_aside}
    for server in problem.servers:
        if server.name not in observed.servers and server.name not in aside and server.load is not None:
            yield server


def server_reports(
    view: View, decision: Decision | None, steps: Steps, advice: Plan | None
) -> Iterator[tuple[str, ServerReport]]:
    """Yield what is reported of every server."""
    loads = {} if view.planned is None else {s.name: s.load for s in view.planned.servers}
    loads |= {server.name: server.load for server in view.undeployed if advice is not None}
    advised = {} if advice is None else {s.name: s for s in advice.servers}
    plans = {} if decision is None else {s.name: s for s in decision.plan.servers}
    for server in view.problem.servers:
        own, seen = view.fleet.of(server.name), view.observed.servers.get(server.name)
        load = loads.get(server.name)
        reason = "" if decision is None else decision.reasons.get(server.name, "")
        target = None if decision is None else decision.targets.get(server.name)
        if server.name in advised:
            target = {a.accelerator: a.replicas for a in advised[server.name].allocations}
            reason = advised[server.name].reason or ""
        planned = plans.get(server.name)
        held = "" if planned is None else _held_by_others(view, planned)
        parts = (reason or _why_alone(view, server.name, seen), held, steps.missing.get(server.name, ""))
        yield (
            server.name,
            ServerReport(
                observation=seen,
                planned_rate_per_s=(0.0 if load is None else load.arrival_rate_per_s) if server.name in loads else None,
                running={d.accelerator: d.replicas for d in own},
                ready={d.accelerator: d.ready for d in own},
                target=target,
                reason="; ".join(part for part in parts if part),
                waiting=steps.waiting.get(server.name, ""),
            ),
        )


def _why_alone(view: View, name: str, seen: Observation | None) -> str:
    """Return why nothing is planned for a server."""
    keys = [d.key for d in view.fleet.set_aside if d.server == name]
    aside = [problem for problem in view.fleet.problems if problem.partition(": ")[0] in keys]
    if aside:
        return f"left alone: {'; '.join(aside)}"
    if seen is None:
        return "it has no deployment"
    return f"left alone: {seen.reason}" if seen.state == "frozen" else ""


def _held_by_others(view: View, server: ServerPlan) -> str:
    """Return which devices a server that is not served in full cannot have: those of servers that are left alone."""
    if view.planned is None or view.planned.capacity is None or server.is_carried:
        return ""
    parts = [
        f"{count - view.planned.capacity.get(name, 0)} of {count} {name}"
        for name, count in sorted((view.available or {}).items())
        if count > view.planned.capacity.get(name, 0)
    ]
    return f"servers that are left alone hold {', '.join(parts)}" if parts else ""


def running_cost(problem: Problem, fleet: Fleet) -> float:
    """Return what the devices cost per hour that the fleet's deployments hold."""
    prices = {a.name: a.cost_per_hour / a.devices for a in problem.accelerators}
    models, pieces = {s.name: s.model for s in problem.servers}, devices_per_replica(problem)
    return sum(
        d.holding * pieces.get((models[d.server], d.accelerator), 1) * prices[d.accelerator] for d in fleet.deployments
    )
