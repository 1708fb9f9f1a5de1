"""The birth-death chain of one engine: batch recursion, geometric queue, exact tail of the wait.

States are the number of requests in the system, n = 0 … N+Q. Arrivals come at rate λ; departures leave at
μ(n) = n/S(n) while the batch fills (n ≤ N) and at μ(N) above. Only the batch is walked, n = 1 … N; the queue
is geometric with ratio r = λ/μ(N), so it has closed forms (`steps`) and no state of it is ever stored.

Times are in ms and rates in requests/ms here; arrays are one-dimensional, one element per engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inferno_milp.queueing.arrays import FloatArray, IntArray, Takes
from inferno_milp.queueing.steps import geometric_sums, steps_exceed

FillLoad = Callable[[int, FloatArray], None]
"""`fill_load(n, out)`: write ρ_n = λ·S(n)/n, with S the law's mean service time in a batch of n, of the first
`len(out)` engines."""


@dataclass(frozen=True, slots=True)
class BatchSums(Takes):
    """What the recursion over the batch leaves behind; every sum is over n ≤ N and normalised."""

    p_full: FloatArray  # B = w_N / Σ w_n
    p_not_full: FloatArray  # 1 − B, kept apart because B may be close to 1
    p_zero: FloatArray  # w_0 / Σ w_n; NaN where it was not asked for
    mean_not_full: FloatArray  # E[n | n < N]


@dataclass(frozen=True, slots=True)
class Chain(Takes):
    """Stationary figures of the chain, one element per engine, computed as they are asked for.

    Where r > 1, `unit` and all sums are divided by r^Q, which would overflow; ratios of them are not affected.

    Attributes
    ----------
    rate : arrival rate λ.
    full_rate : μ(N), at which a full batch lets requests go.
    ratio : r = λ/μ(N), to the power p.
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

    def wait_exceeds(self, time_ms: FloatArray, max_queue: FloatArray) -> FloatArray:
        """P(W > t) of an accepted arrival, exactly; t ≥ 0.

        An arrival that finds k ahead of it in the queue waits for k+1 departures of a full batch, a gamma time.
        """
        exceeds = self.p_wait
        waits = np.flatnonzero((exceeds > 0) & (time_ms > 0))
        departures = self.full_rate[waits] * time_ms[waits]
        exceeds[waits] *= steps_exceed(departures, self.ratio[waits], max_queue[waits])
        return exceeds

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
    power: FloatArray | None = None,
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
    power : exponent p for arrivals that are not Poisson: the law that arrivals see has ratios ρ_n^p and r^p, so that
        p < 1 (bursts) spreads it out and p > 1 draws it together. Only figures as seen by arrivals mean anything then.
    """
    sums = _walk_batch(rate.size, fill_load, max_batch, with_empty=with_empty, power=power)
    ratio = rate / full_rate
    if power is not None:
        ratio = ratio**power
    over = ratio > 1
    small = np.where(over, 1 / np.where(over, ratio, 1.0), ratio)  # r or 1/r, whichever is ≤ 1
    plain, weighted, last = geometric_sums(small, max_queue)
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


def _walk_batch(
    size: int, fill_load: FillLoad, max_batch: IntArray, *, with_empty: bool, power: FloatArray | None
) -> BatchSums:
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
        if power is not None:
            np.power(weight, power[:active], out=weight)
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
