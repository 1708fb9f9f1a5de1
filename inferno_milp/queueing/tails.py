"""Tails of sums of a uniform and of exponential times, in closed form."""

from __future__ import annotations

import numpy as np

from inferno_milp.queueing.arrays import FloatArray

TINY = 1e-305
NARROW = 1e-12
"""A uniform time narrower than this, relative to the exponential one, is taken as this wide."""
APART = 1e-5
"""Means of exponentials that differ by less, relatively, are taken as this far apart: their difference divides."""


def uniform_exponential_exceeds(time: FloatArray, width: FloatArray, mean: FloatArray) -> FloatArray:
    """P(U + V > t), U uniform on [0, width] and V exponential; either may be 0."""
    mean = np.maximum(mean, TINY)
    width = np.maximum(width, np.maximum(NARROW * mean, TINY))
    least = np.maximum(time, 0.0)
    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        slope = mean / width
        within = 1 - least / width - slope * np.expm1(-least / mean)
        beyond = -slope * np.expm1(-width / mean) * np.exp(-np.maximum(least - width, 0.0) / mean)
    exceeds = np.where(least < width, within, beyond)
    return np.asarray(np.where(time < 0, 1.0, np.clip(exceeds, 0.0, 1.0)))


def uniform_exponentials_exceed(time: FloatArray, width: FloatArray, mean: FloatArray, other: FloatArray) -> FloatArray:
    """P(U + V + W > t), U uniform on [0, width], V and W exponential; each may be 0."""
    near = np.abs(other - mean) <= APART * np.maximum(other, mean)
    middle = (mean + other) / 2  # symmetric about the middle, so that the error is of second order
    mean = np.where(near, middle * (1 - APART), mean)
    other = np.where(near, middle * (1 + APART) + TINY, other)
    of_mean = uniform_exponential_exceeds(time, width, mean)
    of_other = uniform_exponential_exceeds(time, width, other)
    with np.errstate(under="ignore", invalid="ignore", divide="ignore"):
        exceeds = of_mean + other * (of_other - of_mean) / (other - mean)
    exceeds = np.where((mean <= 0) | (other <= 0), np.where(mean <= 0, of_other, of_mean), exceeds)
    return np.asarray(np.where(time < 0, 1.0, np.clip(exceeds, 0.0, 1.0)))
