"""A plan of all moments as a solution that the solver starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inferno_milp.planning.horizon.reservations import extra_per_hour, fixed_per_hour
from inferno_milp.planning.horizon.ways import IntArray, Ways
from inferno_milp.program._pyomo import pyo

if TYPE_CHECKING:
    from inferno_milp.planning.horizon.program import Found, Setup


def set_start(model: pyo.ConcreteModel, ways: Ways, setup: Setup, start: Found) -> None:
    """Write a plan into the variables of `build_horizon`'s model."""
    replicas, reserved = start.replicas, start.reserved
    for w, t in model.PAIRS:
        model.replicas[w, t].set_value(int(replicas[w, t]), skip_validation=True)
    _set_homes(model, ways, replicas)
    for a in model.reserved:
        model.reserved[a].set_value(int(reserved[a]), skip_validation=True)
    _set_tiers(model, ways, reserved)
    beyond = np.maximum(ways.units_used(replicas) - reserved[:, None], 0)
    for a, t in model.extra:
        model.extra[a, t].set_value(float(beyond[a, t]), skip_validation=True)
    for t in model.serve:
        model.serve[t].set_value(1, skip_validation=True)
    if hasattr(model, "started"):
        cyclic = setup.planning is not None and setup.planning.cyclic
        for w, t in model.PAIRS:
            before = replicas[w, t - 1] if t or cyclic else 0
            model.started[w, t].set_value(max(int(replicas[w, t] - before), 0), skip_validation=True)
    if hasattr(model, "worst"):
        dearest = fixed_per_hour(ways, reserved) + max(extra_per_hour(ways, replicas, reserved), default=0.0)
        model.worst.set_value(dearest / ways.cost_unit, skip_validation=True)


def _set_homes(model: pyo.ConcreteModel, ways: Ways, replicas: IntArray) -> None:
    """Let each server be at home where it has replicas, or on its first way where it has none."""
    stages = sorted({t for _, t in model.home})
    for s in range(len(ways.problem.servers)):
        own = [w for w in ways.of(s) if (w, 0) in model.home]
        for t in stages:
            now = replicas[own, t] if len(stages) > 1 else replicas[own].max(axis=1, initial=0)
            home = own[int(np.argmax(now))] if own else None
            for w in own:
                model.home[w, t].set_value(int(w == home), skip_validation=True)


def _set_tiers(model: pyo.ConcreteModel, ways: Ways, reserved: IntArray) -> None:
    for a, k in model.tier:
        starts = [start for start, _ in ways.problem.accelerators[a].reserved_tiers]
        end = starts[k + 1] if k + 1 < len(starts) else np.inf
        units = min(max(int(reserved[a]) - starts[k], 0), end - starts[k])
        model.tier[a, k].set_value(float(units), skip_validation=True)
        if k:
            model.reached[a, k].set_value(int(units > 0), skip_validation=True)
