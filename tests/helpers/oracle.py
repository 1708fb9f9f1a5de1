"""An independent account of the chain: every state enumerated, in 40 digits. Slow and plain on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath as mp


@dataclass(frozen=True)
class Truth:
    wait: float
    batch: float
    running: float
    throughput: float
    blocking: float
    p_wait: float
    p_empty: float
    accepted: list[mp.mpf]
    full_rate: mp.mpf
    max_batch: int

    def wait_exceeds(self, time_ms: float) -> float:
        """P(W > t): an arrival that finds n ≥ N in the system waits for n − N + 1 departures."""
        x = self.full_rate * mp.mpf(time_ms)
        total = mp.mpf(0)
        term, cdf = mp.exp(-x), mp.exp(-x)  # P(Poisson(x) ≤ k), k = n − N
        for k, probability in enumerate(self.accepted[self.max_batch :]):
            if k:
                term *= x / k
                cdf += term
            total += probability * cdf
        return float(total)


def solve(
    *, alpha: float, beta: float, gamma: float, delta: float, inputs: float, outputs: float, n: int, q: int, rate: float
) -> Truth:
    """Rates per ms."""
    mp.mp.dps = 40
    a, b, g, d, i, k, lam = (mp.mpf(v) for v in (alpha, beta, gamma, delta, inputs, outputs, rate))

    def service(size: int) -> mp.mpf:
        return (g + d * i * size if inputs > 0 else 0) + (k - 1) * (a + b * size)

    weights = [mp.mpf(1)]
    for state in range(1, n + q + 1):
        departures = min(state, n) / service(min(state, n))
        weights.append(weights[-1] * lam / departures)
    total = mp.fsum(weights)
    time = [w / total for w in weights]
    open_states = mp.fsum(time[:-1])
    accepted = [w / open_states for w in time[:-1]]
    full = n / service(n)
    return Truth(
        wait=float(mp.fsum(p * (s - n + 1) / full for s, p in enumerate(accepted) if s >= n)),
        batch=float(mp.fsum(p * min(s + 1, n) for s, p in enumerate(accepted))),
        running=float(mp.fsum(p * min(s, n) for s, p in enumerate(time))),
        throughput=float(lam * open_states),
        blocking=float(time[-1]),
        p_wait=float(mp.fsum(accepted[n:])),
        p_empty=float(accepted[0]),
        accepted=accepted,
        full_rate=full,
        max_batch=n,
    )
