"""What changes from one plan to another, or from what runs today to a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from inferno_milp.errors import OptionError
from inferno_milp.plan import Change, Plan, Running
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import CurrentAllocation
from inferno_milp.problem.transition import price_today
from inferno_milp.problem.transition import with_current as with_running

State: TypeAlias = Mapping[str, tuple[tuple[Running, ...], float]]
"""By server: what it runs, and its price per hour."""


def diff(before: Plan, after: Plan) -> tuple[Change, ...]:
    """Return which servers run something else in one plan than in another: batch sizes and loads apart.

    Raises
    ------
    OptionError
        If the plans are in different currencies.
    """
    if before.currency != after.currency:
        raise OptionError(f"one plan is in {before.currency}, the other in {after.currency}")
    return tuple(_changes(planned(before), planned(after)))


def changes_from_today(problem: Problem, plan: Plan) -> tuple[Change, ...]:
    """Return which servers are to run something else than today; those of which today is not known are left out."""
    known = {
        server.name: (
            tuple(Running(now.accelerator, now.replicas) for now in server.current if now.replicas),
            sum(before.price_per_hour.values()),
        )
        for server, before in zip(problem.servers, price_today(problem), strict=True)
        if server.current
    }
    return tuple(_changes(known, {name: state for name, state in planned(plan).items() if name in known}))


def with_current(problem: Problem, plan: Plan) -> Problem:
    """Return the same problem, its servers running today what a plan says; those it does not know run nothing."""
    running = {
        server.name: tuple(
            CurrentAllocation(accelerator=a.accelerator, replicas=a.replicas, batch_size=a.batch_size)
            for a in server.allocations
        )
        for server in plan.servers
    }
    known = {a.name for a in problem.accelerators}
    for name, allocations in running.items():
        for allocation in allocations:
            if allocation.accelerator not in known:
                raise OptionError(
                    f"{name} runs on {allocation.accelerator!r} in the plan, which the problem does not know"
                )
    return with_running(problem, running)


def planned(plan: Plan) -> State:
    """Return what each server is to run."""
    return {
        server.name: (
            tuple(Running(a.accelerator, a.replicas) for a in server.allocations),
            server.cost_per_hour,
        )
        for server in plan.servers
    }


def _changes(before: State, after: State) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        (was, cost_was), (is_, cost_is) = before.get(name, ((), 0.0)), after.get(name, ((), 0.0))
        if set(was) != set(is_):
            names_was, names_is = {r.accelerator for r in was}, {r.accelerator for r in is_}
            moves = bool(was) and bool(is_) and names_was != names_is
            yield Change(name, was, is_, cost_is - cost_was, moves)
