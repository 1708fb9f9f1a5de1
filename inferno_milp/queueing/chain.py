"""The birth-death chain of one engine: batch recursion, geometric queue, exact tail of the wait.

States are the number of requests in the system, n = 0 … N+Q. Arrivals come at rate λ; departures leave at
μ(n) = n/S(n) while the batch fills (n ≤ N) and at μ(N) above. Only the batch is walked, n = 1 … N; the queue
is geometric with ratio r = λ/μ(N), so it has closed forms and no state of it is ever stored.

Times are in ms and rates in requests/ms here; arrays are one-dimensional, one element per engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, gammaln

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FillLoad = Callable[[int, FloatArray], None]
"""`fill_load(n, out)`: write ρ_n = λ·S(n)/n, with S the law's mean service time in a batch of n, of the first
`len(out)` engines."""

DROWNED = 1e10
"""Above this r the geometric sums are their last term, to the precision of a double."""
SERIES_LIMIT = 0.5
"""Below this |Q·(1 − r)| the geometric sums are computed by forms that do not divide by 1 − r."""


@dataclass(frozen=True, slots=True)
class BatchSums:
    """What the recursion over the batch leaves behind; every sum is over n ≤ N and normalised."""

    p_full: FloatArray  # B = w_N / Σ w_n
    p_not_full: FloatArray  # 1 − B, kept apart because B may be close to 1
    p_zero: FloatArray  # w_0 / Σ w_n; NaN where it was not asked for
    mean_not_full: FloatArray  # E[n | n < N]


@dataclass(frozen=True, slots=True)
class Chain:
    """Stationary figures of the chain, one element per engine, computed as they are asked for.

    Where r > 1, `unit` and all sums are divided by r^Q, which would overflow; ratios of them are not affected.

    Attributes
    ----------
    rate : arrival rate λ.
    full_rate : μ(N), at which a full batch lets requests go.
    ratio : r = λ/μ(N).
    unit : 1.
    geometric, geometric_weighted : Σ_{k<Q} r^k and Σ_{k<Q} (k+1)·r^k.
    last : r^Q.
    accepted : weight of the states that accept an arrival.
    """

    rate: FloatArray
    full_rate: FloatArray
    max_batch: IntArray
    sums: BatchSums
    ratio: FloatArray
    unit: FloatArray
    geometric: FloatArray
    geometric_weighted: FloatArray
    last: FloatArray
    accepted: FloatArray

    def take(self, which: npt.NDArray[np.intp]) -> Chain:
        """Return the chains of the chosen engines."""
        sums = BatchSums(*(getattr(self.sums, f.name)[which] for f in fields(BatchSums)))
        others = {f.name: getattr(self, f.name)[which] for f in fields(Chain) if f.name != "sums"}
        return Chain(sums=sums, **others)

    @property
    def wait_ms(self) -> FloatArray:
        """Mean wait in the queue of an accepted arrival."""
        return self.sums.p_full * self.geometric_weighted / (self.full_rate * self.accepted)

    @property
    def batch(self) -> FloatArray:
        """Mean batch that an accepted arrival joins, itself included; within [1, N]."""
        sums = self.sums
        joins_room = sums.p_not_full * self.unit * (sums.mean_not_full + 1)
        return (joins_room + self.max_batch * sums.p_full * self.geometric) / self.accepted

    @property
    def _all_states(self) -> FloatArray:
        return self.unit + self.sums.p_full * self.ratio * self.geometric

    @property
    def running(self) -> FloatArray:
        """Time average of the number of requests in the batch."""
        sums = self.sums
        mean = sums.p_not_full * sums.mean_not_full + sums.p_full * self.max_batch  # E[n | n ≤ N]
        return (mean * self.unit + self.max_batch * sums.p_full * self.ratio * self.geometric) / self._all_states

    @property
    def throughput_per_ms(self) -> FloatArray:
        """Rate of accepted arrivals."""
        return self.rate * (self.accepted / self._all_states)

    @property
    def blocking(self) -> FloatArray:
        """Probability that an arrival is turned away."""
        return self.sums.p_full * self.last / self._all_states

    @property
    def p_wait(self) -> FloatArray:
        """Probability that an accepted arrival has to wait."""
        return self.sums.p_full * self.geometric / self.accepted

    @property
    def p_empty(self) -> FloatArray:
        """Probability that an accepted arrival finds the engine empty."""
        return self.sums.p_zero * self.unit / self.accepted


def solve_chain(
    rate: FloatArray,
    full_rate: FloatArray,
    fill_load: FillLoad,
    max_batch: IntArray,
    max_queue: FloatArray,
    *,
    with_empty: bool = True,
) -> Chain:
    """Solve the chain of every engine.

    Parameters
    ----------
    rate : arrival rates in requests/ms, ≥ 0.
    full_rate : μ(N) in requests/ms.
    fill_load : the law's ρ_n; called once for every n, for the engines whose batch reaches n.
    max_batch : N ≥ 1, **in falling order**, so that those whose batch reaches n are always the first.
    max_queue : Q ≥ 0, whole numbers.
    with_empty : whether `p_empty` will be wanted.
    """
    sums = _walk_batch(rate.size, fill_load, max_batch, with_empty=with_empty)
    ratio = rate / full_rate
    over = ratio > 1
    small = np.where(over, 1 / np.where(over, ratio, 1.0), ratio)  # r or 1/r, whichever is ≤ 1
    plain, weighted, last = _geometric_sums(small, max_queue)
    if over.any():
        # Σ r^{k−Q} = Σ_{j=1}^{Q} r^{−j}, and Σ (k+1) r^{k−Q} = Σ_{j=1}^{Q} (Q+1−j) r^{−j}
        unit = np.where(over, last, 1.0)
        weighted = np.where(over, small * ((max_queue + 1) * plain - weighted), weighted)
        plain = np.where(over, small * plain, plain)
        last = np.where(over, 1.0, last)
    else:
        unit = np.ones_like(rate)
    return Chain(
        rate=rate,
        full_rate=full_rate,
        max_batch=max_batch,
        sums=sums,
        ratio=ratio,
        unit=unit,
        geometric=plain,
        geometric_weighted=weighted,
        last=last,
        accepted=sums.p_not_full * unit + sums.p_full * plain,
    )


def _walk_batch(size: int, fill_load: FillLoad, max_batch: IntArray, *, with_empty: bool) -> BatchSums:
    """Recursion B ← ρB/(1+ρB), m ← m + (n − m)·B over n = 1 … N, with ρ_n = λ·S(n)/n.

    Positive terms only, so each element keeps full relative precision. The mean is carried one step behind,
    over n < N, because the mean over n ≤ N would have to be taken apart again by a difference.
    """
    p_full, p_zero = np.ones(size), np.ones(size) if with_empty else np.full(size, np.nan)
    p_not_full, mean, mean_before = np.zeros(size), np.zeros(size), np.zeros(size)
    weight_buffer, stay_buffer = np.empty(size), np.empty(size)
    longest = int(max_batch.max(initial=0))
    # How many engines' batches reach n, for n = 1 … longest + 1.
    reach = np.searchsorted(-max_batch, -np.arange(1, longest + 2), side="right").tolist()
    for n in range(1, longest + 1):
        active, ending = reach[n - 1], reach[n]
        if n == 1 or active < reach[n - 2]:
            full, zero, means = p_full[:active], p_zero[:active], mean[:active]
            weight, stay = weight_buffer[:active], stay_buffer[:active]
        fill_load(n, weight)
        weight *= full
        np.add(weight, 1, out=stay)
        np.reciprocal(stay, out=stay)
        np.multiply(weight, stay, out=full)
        if with_empty:
            zero *= stay
        if ending < active:
            done = slice(ending, active)
            p_not_full[done], mean_before[done] = stay[done], mean[done]
        np.subtract(n, means, out=weight)
        weight *= full
        means += weight
    return BatchSums(p_full, p_not_full, p_zero, mean_before)


def _geometric_sums(ratio: FloatArray, count: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
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


def wait_exceeds(time_ms: FloatArray, chain: Chain, max_queue: FloatArray) -> FloatArray:
    """P(W > t) of an accepted arrival, exactly; t > 0, λ > 0, Q ≥ 1.

    An arrival that finds k ahead of it in the queue waits for k+1 departures of a full batch, a gamma time, so
    P(W > t) = (B/D)·Σ_{k<Q} r^k·Γ(k+1, μt)/k!, which sums to the closed forms below.
    """
    ratio, full_rate = chain.ratio, chain.full_rate
    x = full_rate * time_ms
    gap = 1 - ratio
    safe = np.where(gap == 0, 1.0, gap)
    log_power = max_queue * np.log(ratio)
    scale = np.maximum(log_power, 0)  # the chain's sums are divided by r^Q where r > 1
    with np.errstate(over="ignore", under="ignore"):
        first = np.exp(-gap * x - scale + _log_gammaincc(max_queue, ratio * x))
        second = np.exp(log_power - scale) * gammaincc(max_queue, x)
        total = (first - second) / safe
    near = np.abs(gap) * np.maximum(max_queue, x) < SERIES_LIMIT
    if near.any():
        total[near] = _tail_near_one(x[near], ratio[near], max_queue[near]) * np.exp(-scale[near])
    # Where hardly any arrival is accepted, one finds all Q − 1 others waiting; the differences above are lost in r.
    total = np.where(ratio > DROWNED, gammaincc(max_queue, x) / ratio, total)
    return np.asarray(chain.sums.p_full / chain.accepted * total)


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
