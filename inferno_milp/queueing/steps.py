"""A geometric number of exponential steps, cut off at Q: what waits in a queue are made of."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincc, gammaln

from inferno_milp.queueing.arrays import FloatArray

DROWNED = 1e10
"""Above this r the geometric sums are their last term, to the precision of a double."""
SERIES_LIMIT = 0.5
"""Below this |Q·(1 − r)| the geometric sums are computed by forms that do not divide by 1 − r."""


def geometric_sums(ratio: FloatArray, count: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Σ_{k<Q} r^k, Σ_{k<Q} (k+1) r^k and r^Q for 0 ≤ r ≤ 1, without cancellation near r = 1."""
    gap = 1 - ratio
    safe = np.where(gap == 0, 1.0, gap)
    # r = 0 is held a hair above it: log 0 · Q would be NaN for Q = 0.
    log_power = count * np.where(ratio < 0.5, np.log(np.maximum(ratio, 1e-300)), np.log1p(-np.minimum(gap, 0.9)))
    plain = np.where(gap == 0, count, -np.expm1(log_power) / safe)
    power = np.exp(log_power)
    weighted = (plain - count * power) / safe
    near = count * gap < SERIES_LIMIT
    if near.any():
        weighted[near] = _weighted_sum_near_one(gap[near], count[near])
    return plain, weighted, power


def _weighted_sum_near_one(gap: FloatArray, count: FloatArray) -> FloatArray:
    """Σ_{k<Q} (k+1)(1−d)^k = Σ_j (−d)^j (j+1) C(Q+1, j+2): binomial expansion, d·Q small."""
    term = count * (count + 1) / 2
    total = term.copy()
    for j in range(30):
        term = term * (-gap) * ((j + 2) / (j + 1)) * (count - 1 - j) / (j + 3)
        total += term
        if np.all(np.abs(term) <= np.finfo(float).eps * np.abs(total)):
            break
    return total


def mean_steps(ratio: FloatArray, count: FloatArray) -> FloatArray:
    """Mean of a number of steps 1 … Q with P(k+1) ∝ r^k, for any r ≥ 0 and any real Q ≥ 1: nondecreasing in r."""
    over = ratio > 1
    small = np.where(over, 1 / np.where(over, ratio, 1.0), ratio)
    plain, weighted, _ = geometric_sums(small, count)
    mean = weighted / plain
    return np.asarray(np.where(over, count + 1 - mean, mean))


def steps_exceed(time: FloatArray, ratio: FloatArray, count: FloatArray) -> FloatArray:
    """P(T > t) of as many exponential steps of mean 1, with P(k+1 steps) ∝ r^k for k < Q; t > 0, r > 0, Q ≥ 1.

    Σ_{k<Q} r^k·Q(k+1, t), with Q the upper regularised gamma function, sums to
    [e^{−(1−r)t}·Q(Q, rt) − r^Q·Q(Q, t)]/(1−r).
    """
    gap = 1 - ratio
    safe = np.where(gap == 0, 1.0, gap)
    log_power = count * np.log(ratio)
    scale = np.maximum(log_power, 0)  # where r > 1, all is divided by r^Q, which would overflow
    with np.errstate(over="ignore", under="ignore"):
        first = np.exp(-gap * time - scale + _log_gammaincc(count, ratio * time))
        second = np.exp(log_power - scale) * gammaincc(count, time)
        total = (first - second) / safe
    near = np.abs(gap) * np.maximum(count, time) < SERIES_LIMIT
    if near.any():
        total[near] = _tail_near_one(time[near], ratio[near], count[near]) * np.exp(-scale[near])
    over = ratio > 1
    small = np.where(over, 1 / np.where(over, ratio, 1.0), ratio)
    plain, _, _ = geometric_sums(small, count)
    exceeds = total / np.where(over, small * plain, plain)
    # In a deluge whoever gets in finds all Q − 1 others waiting; the differences above are lost in r.
    return np.asarray(np.where(ratio > DROWNED, gammaincc(count, time), exceeds))


def _tail_near_one(x: FloatArray, ratio: FloatArray, count: FloatArray) -> FloatArray:
    """Compute the same sum for r near 1, as the mean slope of its numerator between r and 1 (8-point Gauss-Legendre).

    Its numerator f(s) = e^{−(1−s)x}·Q(q, sx) − s^q·Q(q, x), with Q the upper regularised gamma function, is zero at
    s = 1, so f(r)/(1−r) = −mean of f' over [r, 1], with f'(s) = x·e^{−(1−s)x}·Q(q−1, sx) − q·s^{q−1}·Q(q, x).
    At r = 1 this is the known q·Q(q, x) − x·Q(q−1, x).
    """
    nodes, weights = np.polynomial.legendre.leggauss(8)
    constant = gammaincc(count, x)
    total = np.zeros_like(x)
    for node, weight in zip(nodes, weights, strict=True):
        s = ratio + (1 - ratio) * (node + 1) / 2
        slope = count * s ** (count - 1) * constant - x * np.exp(-(1 - s) * x) * gammaincc(count - 1, s * x)
        total += weight / 2 * slope
    return total


def _log_gammaincc(shape: FloatArray, x: FloatArray) -> FloatArray:
    """Logarithm of the upper regularised gamma function, also where the function itself underflows."""
    value = gammaincc(shape, x)
    with np.errstate(divide="ignore"):
        result = np.log(value)
    tiny = (value < 1e-280) & (shape > 0)
    if tiny.any():
        a, z = shape[tiny], x[tiny]
        # Continued fraction of Legendre (DLMF 8.9.2) from the tail; it converges at once since x is far above a here.
        fraction = np.zeros_like(a)
        for k in range(40, 0, -1):
            fraction = k * (a - k) / (z + (2 * k + 1) - a + fraction)
        result[tiny] = a * np.log(z) - z - gammaln(a) - np.log(z + 1 - a + fraction)
    return np.asarray(result)
