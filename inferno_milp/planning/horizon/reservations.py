"""What reservations cost, and which pay, given what is used in every moment."""

from __future__ import annotations

import math

import numpy as np

from inferno_milp.planning.horizon.ways import FloatArray, IntArray, Ways
from inferno_milp.problem.supply import Accelerator


def fixed_per_hour(ways: Ways, reserved: IntArray) -> float:
    """Return what reserved units of each accelerator cost, used or not."""
    counts = zip(ways.problem.accelerators, reserved.tolist(), strict=True)
    return math.fsum(one.cost_of_reserved(count) for one, count in counts)


def extra_per_hour(ways: Ways, replicas: IntArray, reserved: IntArray) -> list[float]:
    """Return what units beyond those that are reserved cost in each moment."""
    prices = np.array([one.cost_per_hour for one in ways.problem.accelerators])
    beyond: list[float] = (prices @ np.maximum(ways.units_used(replicas) - reserved[:, None], 0)).tolist()
    return beyond


def costs_of_moments(ways: Ways, replicas: IntArray, reserved: IntArray) -> list[float]:
    """Return what replicas (ways × moments) and a reservation cost per hour in each moment: without starts and ends."""
    fixed = fixed_per_hour(ways, reserved)
    return [fixed + extra for extra in extra_per_hour(ways, replicas, reserved)]


def cost_of(ways: Ways, weights: FloatArray, replicas: IntArray, reserved: IntArray) -> float:
    """Return what `costs_of_moments` come to, weighted."""
    return math.fsum((weights * costs_of_moments(ways, replicas, reserved)).tolist())


def _cost_of_one(accelerator: Accelerator, used: IntArray, reserved: int, weights: FloatArray) -> float:
    """Return what an accelerator costs over all moments, given the units of it that are used in each."""
    always = accelerator.cost_of_reserved(reserved) * float(weights.sum())
    return always + accelerator.cost_per_hour * float(np.maximum(used - reserved, 0) @ weights)


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
