"""Starts and ends of replicas from one period to the next, and the least times that they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from inferno_milp.planning.horizon.ways import Ways
from inferno_milp.problem.sections import Planning
from inferno_milp.program._pyomo import pyo, sum_of_terms

if TYPE_CHECKING:
    from inferno_milp.planning.horizon.program import Setup

MOST_LAPS = 100
"""Replicas that must run for so many times the whole are never started or ended."""


def has_starts(planning: Planning) -> bool:
    """Whether starts, ends or least times join periods."""
    return bool(planning.start_cost_hours or planning.stop_cost_hours or planning.min_up_hours)


def add_starts(model: pyo.ConcreteModel, ways: Ways, setup: Setup) -> None:
    """Count starts from one period to the next, and keep replicas that must not end yet."""
    assert setup.planning is not None
    planning, hours = setup.planning, setup.weights.tolist()
    never = never_starts(hours, planning)
    model.started = pyo.Var(
        model.PAIRS, bounds=lambda m, w, t: (0, m.replicas[w, t].ub), doc="u_wt: replicas started as t begins"
    )
    model.starts = pyo.ConstraintList(doc="u_wt ≥ n_wt − n_w,t−1")
    model.up = pyo.ConstraintList(doc="n_wt ≥ Σ of the starts so lately that they must still run")
    for w, t in model.PAIRS:
        before = before_of(t, len(hours), planning)
        now = [(1.0, model.started[w, t]), (-1.0, model.replicas[w, t])]
        model.starts.add(sum_of_terms(now if before is None else [*now, (1.0, model.replicas[w, before])]) >= 0.0)
        if never:
            model.started[w, t].setub(0)
        recent = Counter() if never else Counter(recent_of(t, hours, planning))
        if recent.total() > 1:
            starts = [(-float(number), model.started[w, k]) for k, number in recent.items()]
            model.up.add(sum_of_terms([(1.0, model.replicas[w, t]), *starts]) >= 0.0)


def never_starts(hours: Sequence[float], planning: Planning) -> bool:
    """Whether least times are so many laps long that nothing is started: what runs, runs in all periods."""
    return planning.cyclic and planning.min_up_hours > MOST_LAPS * sum(hours)


def before_of(t: int, count: int, planning: Planning) -> int | None:
    """Return the period before one; None before the first, where that does not come again after the last."""
    if t:
        return t - 1
    return count - 1 if planning.cyclic else None


def recent_of(t: int, hours: Sequence[float], planning: Planning) -> Iterator[int]:
    """Yield the periods of which a start must still run in period t: t itself, and those shortly before.

    One comes up several times if what was started in it laps ago must run still.
    """
    yield t
    since, k = 0.0, t
    while True:
        k -= 1
        if k < 0 and not planning.cyclic:
            return
        k %= len(hours)
        since += hours[k]
        if since >= planning.min_up_hours - 1e-9:
            return
        yield k


def changing_costs(model: pyo.ConcreteModel, ways: Ways, setup: Setup, t: int) -> Iterator[tuple[float, Any]]:
    """Yield what starts and ends cost in moment t, per hour of it."""
    planning = setup.planning
    if planning is None or not has_starts(planning):
        return
    hours = float(setup.weights[t])
    for w in range(len(ways.rows)):
        price = float(ways.rows.price_per_replica[w]) / hours
        # Ends are starts less what is more now than before.
        yield price * (planning.start_cost_hours + planning.stop_cost_hours), model.started[w, t]
        before = before_of(t, len(setup.weights), planning)
        yield -price * planning.stop_cost_hours, model.replicas[w, t]
        if before is not None:
            yield price * planning.stop_cost_hours, model.replicas[w, before]
