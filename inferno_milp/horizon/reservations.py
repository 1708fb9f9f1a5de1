"""What reservations cost, and which pay, given what is used in every moment."""

from __future__ import annotations

import math

import numpy as np

from inferno_milp.horizon.program import Setup
from inferno_milp.horizon.ways import FloatArray, IntArray, Ways
from inferno_milp.supply import Accelerator


def cost_of(ways: Ways, setup: Setup, replicas: IntArray, reserved: IntArray) -> float:
    """Return what replicas (ways × moments) and a reservation cost, weighted: without starts and ends."""
    accelerators, used = ways.problem.accelerators, ways.units_used(replicas)
    counts = zip(accelerators, used, reserved.tolist(), strict=True)
    return math.fsum(_cost_of_one(one, units, count, setup.weights) for one, units, count in counts)


def costs_of_moments(ways: Ways, replicas: IntArray, reserved: IntArray) -> list[float]:
    """Return what replicas and a reservation cost per hour in each moment."""
    moments = range(replicas.shape[1])
    return [cost_of(ways, Setup(np.ones(1)), replicas[:, t : t + 1], reserved) for t in moments]


def _cost_of_one(accelerator: Accelerator, used: IntArray, reserved: int, weights: FloatArray) -> float:
    """Return what an accelerator costs over all moments, given the units of it that are used in each."""
    always = accelerator.cost_of_reserved(reserved) if reserved else 0.0
    return always * float(weights.sum()) + accelerator.cost_per_hour * float(np.maximum(used - reserved, 0) @ weights)


def best_reservation(ways: Ways, replicas: IntArray, weights: FloatArray) -> IntArray:
    """Return the units of each accelerator that pay to be reserved: as many as are used in one of the moments."""
    used = ways.units_used(replicas)
    reserved = np.zeros(len(used), dtype=np.int64)
    for a, one in enumerate(ways.problem.accelerators):
        if one.reserved_cost_per_hour is not None:
            counts = np.unique([0, *used[a]]).tolist()
            reserved[a] = counts[int(np.argmin([_cost_of_one(one, used[a], count, weights) for count in counts]))]
    return reserved


def prices_of(ways: Ways) -> tuple[FloatArray, FloatArray]:
    """Return the prices of reserved units, infinite where there are none, and of those on demand."""
    accelerators = ways.problem.accelerators
    reserved = [math.inf if a.reserved_cost_per_hour is None else a.reserved_cost_per_hour for a in accelerators]
    return np.array(reserved), np.array([a.cost_per_hour for a in accelerators])


def most_often(units: FloatArray, weights: FloatArray, fixed: FloatArray, price: FloatArray) -> FloatArray:
    """Return the units of each accelerator that are used for enough of the time, accelerators × moments given."""
    order = np.argsort(-units, axis=1, kind="stable")
    part = np.cumsum(weights[order], axis=1) / weights.sum()
    enough = price[:, None] * part >= fixed[:, None]
    at = np.take_along_axis(units, np.take_along_axis(order, enough.argmax(axis=1)[:, None], axis=1), axis=1)[:, 0]
    return np.where(enough.any(axis=1), at, 0.0)
