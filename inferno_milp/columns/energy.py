"""Power that replicas draw: the curve of their accelerator at their utilisation."""

from __future__ import annotations

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.rows import FloatArray, Rows
from inferno_milp.problem.supply import Power
from inferno_milp.queueing import analyze


def power_w(power: Power, utilization: float) -> float:
    """Return the power of an accelerator: straight from idle to the middle point, straight on to full.

    Source: llm-inferno/optimizer v0.6.0.
    """
    u, middle = min(max(utilization, 0.0), 1.0), power.mid_utilization
    if u <= middle:
        return power.idle_w + (power.mid_w - power.idle_w) * (u / middle)
    return power.mid_w + (power.full_w - power.mid_w) * ((u - middle) / (1 - middle))


def replica_power_w(table: Candidates, rows: Rows, rate_per_s: FloatArray) -> FloatArray:
    """Return the power of one replica of each row at a rate; NaN where its accelerator's power is not known.

    Parameters
    ----------
    rate_per_s : of one replica, on average; NaN for one without a load, which is idle.
    """
    loaded = np.flatnonzero(~np.isnan(rate_per_s))
    utilization = np.zeros(len(rows))
    if loaded.size:
        part = rows.take(loaded)
        engines = table.engines.of(part.server, part.profile, part.batch_size)
        there = table.while_there_per_s(part, rate_per_s[loaded])
        found = analyze(table.problem.options.law, **engines, rate_per_s=there)
        utilization[loaded] = found.utilization
    accelerators, profiles = table.problem.accelerators, table.problem.profiles
    result = np.full(len(rows), np.nan)
    for i, (accelerator, profile) in enumerate(zip(rows.accelerator.tolist(), rows.profile.tolist(), strict=True)):
        curve = accelerators[accelerator].power
        if curve is not None:
            result[i] = power_w(curve, float(utilization[i])) * profiles[profile].accelerators_per_replica
    return result
