"""`analyze`: the latencies, throughput and occupancy of engines at given arrival rates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise
from scipy.special import gammainccinv

from inferno_milp.queueing.chain import Chain, FloatArray, wait_exceeds
from inferno_milp.queueing.engine import Engines, Number, make_engines

LAWS = ("inferno",)
"""Names of the laws that `analyze` and `size` know."""

MS_PER_S = 1000.0


@dataclass(frozen=True, slots=True)
class _Origin:
    """The solved chains behind an analysis, and how their order becomes the caller's."""

    engines: Engines
    chain: Chain
    order: npt.NDArray[np.intp]
    shape: tuple[int, ...]

    def restored(self, values: FloatArray) -> FloatArray:
        """Put sorted values back into the caller's order and shape."""
        result = np.empty_like(values)
        result[self.order] = values
        return result.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Analysis:
    """Figures of engines at an arrival rate; every array has the shape of the broadcast parameters.

    Attributes
    ----------
    rate_per_s : arrival rate, requests/s.
    ttft_ms : mean time to first token, wait in the queue included, ms.
    itl_ms : mean inter-token latency, ms.
    wait_ms : mean wait in the queue of an accepted arrival, ms.
    throughput_per_s : rate of accepted requests, 1/s.
    running : mean number of requests in the batch (time average).
    utilization : `running` as a fraction of the max batch size.
    blocking : probability that an arrival is turned away because the queue is full.
    p_wait, p_empty : probability that an accepted arrival has to wait, or finds the engine empty.
    """

    rate_per_s: FloatArray
    ttft_ms: FloatArray
    itl_ms: FloatArray
    wait_ms: FloatArray
    throughput_per_s: FloatArray
    running: FloatArray
    utilization: FloatArray
    blocking: FloatArray
    p_wait: FloatArray
    p_empty: FloatArray
    _origin: _Origin = field(repr=False, compare=False)

    def wait_percentile(self, percent: float) -> FloatArray:
        """Percentile of the wait of an accepted arrival, ms; exact for the chain.

        Parameters
        ----------
        percent : within [0, 100).

        Raises
        ------
        ValueError
            If `percent` is outside [0, 100).
        """
        if not 0 <= percent < 100:
            raise ValueError(f"percent must be within [0, 100), not {percent}")
        return self._origin.restored(_wait_quantile(percent / 100, self._origin))

    def ttft_percentile(self, percent: float) -> FloatArray:
        """Percentile of the time to first token, ms: that of the wait, plus the mean time of the own prompt.

        The law `inferno` has no spread in the prompt's time, so all spread is in the wait.
        """
        return self.wait_percentile(percent) + (self.ttft_ms - self.wait_ms)


def analyze(
    law: str = "inferno",
    *,
    alpha_ms: Number,
    beta_ms: Number,
    gamma_ms: Number,
    delta_ms: Number,
    input_tokens: Number,
    output_tokens: Number,
    max_batch: Number,
    max_queue: Number | None = None,
    rate_per_s: Number,
    kappa_ms: Number = 0.0,
) -> Analysis:
    """Analyse inference engines at given arrival rates.

    All parameters broadcast against one another as NumPy arrays do.

    Parameters
    ----------
    law : name of the law, one of `LAWS`.
    alpha_ms, beta_ms : iteration time of decoding: base, and slope per running sequence, ms.
    gamma_ms, delta_ms : prompt processing: base, and slope per prompt token, ms.
    input_tokens, output_tokens : mean tokens per request; inputs ≥ 0, outputs ≥ 1.
    max_batch : max batch size N ≥ 1 (whole).
    max_queue : queue limit Q ≥ 0 (whole); None or NaN is 10 · N.
    rate_per_s : arrival rate, requests/s, ≥ 0. It may exceed what the engine can serve: some are turned away.
    kappa_ms : slope per context token read, ms; folded into β and δ at the mean context.

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
        If a parameter is not finite, is negative or too small, or the law is not known.

    Notes
    -----
    Source: the state-dependent queue M/M(n)/1/N+Q of llm-inferno/optimizer v0.6.0 (queue-analysis v0.1.0).
    """
    check_law(law)
    rate = np.asarray(rate_per_s, dtype=float) / MS_PER_S
    if not (np.isfinite(rate) & (rate >= 0)).all():
        raise ValueError("rate_per_s must be finite and at least 0")
    engines, order, shape = make_engines(
        alpha_ms=alpha_ms,
        beta_ms=beta_ms,
        gamma_ms=gamma_ms,
        delta_ms=delta_ms,
        kappa_ms=kappa_ms,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        max_batch=max_batch,
        max_queue=max_queue,
        others=(rate,),
    )
    return analyze_engines(engines, np.broadcast_to(rate, shape).ravel()[order], order, shape)


def check_law(law: str) -> None:
    """Raise ValueError unless `law` is one of `LAWS`."""
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; known: {', '.join(LAWS)}")


def analyze_engines(
    engines: Engines, rate: FloatArray, order: npt.NDArray[np.intp], shape: tuple[int, ...]
) -> Analysis:
    """Analyse sorted engines at `rate` (requests/ms) and put the figures back into the caller's order and shape."""
    chain = engines.chain(rate)
    ttft_ms, itl_ms = engines.latencies_ms(chain)
    origin = _Origin(engines, chain, order, shape)
    return Analysis(
        rate_per_s=origin.restored(rate * MS_PER_S),
        ttft_ms=origin.restored(ttft_ms),
        itl_ms=origin.restored(itl_ms),
        wait_ms=origin.restored(chain.wait_ms),
        throughput_per_s=origin.restored(chain.throughput_per_ms * MS_PER_S),
        running=origin.restored(chain.running),
        utilization=origin.restored(chain.running / engines.max_batch),
        blocking=origin.restored(chain.blocking),
        p_wait=origin.restored(chain.p_wait),
        p_empty=origin.restored(chain.p_empty),
        _origin=origin,
    )


def _wait_quantile(level: float, origin: _Origin) -> FloatArray:
    """Smallest t with P(W ≤ t) ≥ level, in ms.

    The longest an accepted arrival can have to wait is Q departures, so the quantile of that gamma time bounds it.
    """
    engines, chain = origin.engines, origin.chain
    result = np.zeros(engines.size)
    waits = np.flatnonzero(chain.p_wait > 1 - level)
    if not waits.size:
        return result
    chains, queues = chain.take(waits), engines.max_queue[waits]

    def excess(time_ms: FloatArray, index: npt.NDArray[np.intp]) -> FloatArray:
        return wait_exceeds(time_ms, chains.take(index), queues[index]) - (1 - level)

    upper = gammainccinv(queues, 1 - level) / chains.full_rate
    found = elementwise.find_root(
        excess,
        (upper * 1e-300, upper * (1 + 1e-9)),
        args=(np.arange(waits.size),),
        tolerances={"xatol": 0, "xrtol": 1e-14, "fatol": 0, "frtol": 0},
    )
    result[waits] = np.where(found.success, found.x, 0.0)
    return result
