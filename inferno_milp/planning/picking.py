"""One program over ways to serve: every server is in exactly one of those that are picked, within the limits.

A way may serve one server or several, and may take devices of several types. `sharing` and `disaggregation` find ways;
docs/sharing.md and docs/disaggregation.md have the program in mathematics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.limits import CHANGES, Limits
from inferno_milp.columns.rows import FloatArray, Rows
from inferno_milp.errors import OptionError
from inferno_milp.problem import Problem
from inferno_milp.problem.transition import price_today
from inferno_milp.program._pyomo import pyo, weighted_sum
from inferno_milp.program.deadline import until
from inferno_milp.program.in_time import solve_in_time

LEAST_S = 0.1
"""Seconds that the program gets at the least."""


@dataclass(frozen=True, slots=True)
class Ways:
    """Ways to serve.

    Attributes
    ----------
    covers : positions of the servers that each serves.
    cost_per_hour : of each, with what a change from today is charged.
    usage : what each uses of each limit, ways × limits.
    """

    covers: Sequence[Sequence[int]]
    cost_per_hour: FloatArray
    usage: FloatArray


def candidates_alone(table: Candidates) -> Rows:
    """Return the candidates of each server and accelerator that may be its only one: within its most replicas."""
    rows = table.one_per_accelerator().rows
    most = np.array([table.problem.servers[s].max_replicas or math.inf for s in rows.server.tolist()])
    return rows.take(rows.replicas <= most)


def alone(table: Candidates, rows: Rows, limits: Limits) -> tuple[FloatArray, FloatArray]:
    """Return what candidates cost and use, one for one server, as ways: with what a change from today is charged."""
    options, today = table.problem.options, price_today(table.problem)
    names = [a.name for a in table.problem.accelerators]
    costs, usage = rows.cost_per_hour.copy(), limits.of_replicas(rows) * rows.replicas[:, None]
    changes = limits.index(CHANGES)
    for i, (server, accelerator) in enumerate(zip(rows.server.tolist(), rows.accelerator.tolist(), strict=True)):
        now, name = today[server], names[accelerator]
        if now.price_per_hour:
            taken_on = 0.0 if name in now.price_per_hour else float(rows.cost_per_hour[i])
            costs[i] += options.change_penalty * (now.left([name]) + taken_on)
            if changes is not None:
                usage[i, changes] = now.is_changed([name])
    return costs, usage


@dataclass(frozen=True, slots=True)
class Picked:
    """Ways of least cost that serve everybody together.

    Attributes
    ----------
    ways : their positions, rising.
    bound : proven lower bound of the cost of all; None where nothing is proven.
    """

    ways: tuple[int, ...]
    bound: float | None


def pick_ways(
    ways: Ways, servers: Sequence[int], limits: Limits, *, gap: float, time_limit_s: float | None
) -> Picked | None:
    """Pick ways of least cost.

    Parameters
    ----------
    servers : positions of those that must be served.
    time_limit_s : seconds for building and solving; None: no limit.

    Returns
    -------
    Picked or None
        None if not everybody can be served so, or nothing was found in time.
    """
    end = math.inf if time_limit_s is None else time.perf_counter() + time_limit_s
    of_server: dict[int, list[int]] = {s: [] for s in servers}
    for k, covered in enumerate(ways.covers):
        for s in covered:
            if s in of_server:
                of_server[s].append(k)
    if not all(of_server.values()):
        return None
    model = pyo.ConcreteModel(name="ways")
    model.WAYS = pyo.Set(initialize=range(len(ways.covers)))
    model.CUTS = pyo.Set(initialize=range(len(limits.side.names)))
    model.pick = pyo.Var(model.WAYS, domain=pyo.Binary, doc="x_k: 1 if it is picked")
    most = limits.side.upper.tolist()
    model.cut = pyo.Var(
        model.CUTS, domain=pyo.NonNegativeIntegers, bounds=lambda _, c: (0, most[c]), doc="nodes cut up in a way"
    )
    picks, cuts = list(model.pick.values()), list(model.cut.values())
    model.cost = pyo.Objective(expr=weighted_sum(ways.cost_per_hour.tolist(), picks), sense=pyo.minimize)
    model.one = pyo.ConstraintList(doc="Σ of the ways that serve s = 1")
    for own in of_server.values():
        model.one.add(weighted_sum([1.0] * len(own), [picks[k] for k in own]) == 1.0)
    model.limit = pyo.ConstraintList(doc="Σ of what the ways use of a limit ≤ what there is of it")
    usage = np.vstack([ways.usage, limits.side.usage])
    variables = [*picks, *cuts]
    for j, available in enumerate(limits.most.tolist()):
        users = np.flatnonzero(usage[:, j]).tolist()
        if users:
            model.limit.add(weighted_sum(usage[users, j].tolist(), [variables[i] for i in users]) <= available)
    left_s = max(end - time.perf_counter(), LEAST_S)
    solution = solve_in_time(model, gap=gap, left_s=until(time.perf_counter() + left_s))
    if solution.objective is None:
        return None
    chosen = tuple(k for k, pick in enumerate(picks) if pick.value > 0.5)
    return Picked(chosen, solution.bound)


def without_today(problem: Problem, servers: Collection[int], what: str) -> Problem:
    """Return the problem without what the servers at these positions run today, which is not priced.

    Raises
    ------
    OptionError
        If the problem asks for something that is not counted in ways; `what` says who does not.
    """
    wrong = []
    if problem.options.uses_power or problem.options.assignment == "mixed":
        wrong.append("does not count power, and knows single assignment alone")
    if problem.options.max_changes is not None and any(problem.servers[s].current for s in servers):
        wrong.append("does not count limited changes")
    if wrong:
        raise OptionError(f"{what} {'; '.join(wrong)}")
    return problem.without_current(servers)
