"""`size`: the highest arrival rate at which an engine still meets its targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise

from inferno_milp.queueing.analysis import MS_PER_S, Analysis, analyze_engines, check_law
from inferno_milp.queueing.chain import FloatArray, IntArray
from inferno_milp.queueing.engine import Engines, Number, make_engines

LOWEST_RATE = 0.001
"""The lowest admissible rate, as a fraction of μ(1)."""
HIGHEST_RATE = 0.999
"""The highest admissible rate, as a fraction of μ(N)."""
TPS_RATE = 0.9
"""With a target in tokens per second, the highest rate as a fraction of the highest admissible one."""

BLOCK = 16384
"""Engines sized at once: their arrays together stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """The highest rate that meets the targets; every array has the shape of the broadcast parameters.

    Attributes
    ----------
    max_rate_per_s : highest arrival rate at which every target is met, requests/s; 0 where none is.
    verdict : "met" (a target is what limits the rate), "capped" (all targets are met at the highest admissible
        rate) or "infeasible" (a target is missed at the lowest one already).
    analysis : figures at `max_rate_per_s`; where infeasible, at the lowest admissible rate, the best there can be;
        where requests take no time, and so the rate is infinite, at a rate of 0.
    """

    max_rate_per_s: FloatArray
    verdict: npt.NDArray[np.str_]
    analysis: Analysis


def size(
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
    kappa_ms: Number = 0.0,
    ttft_ms: Number | None = None,
    itl_ms: Number | None = None,
    tps: Number | None = None,
) -> Sizing:
    """Find the highest rate at which engines meet their targets.

    Parameters are those of `analyze`, less the rate, and the targets, which broadcast with them.

    Parameters
    ----------
    ttft_ms, itl_ms : targets of the mean time to first token and inter-token latency, ms. None, NaN or infinity
        is no target.
    tps : target of tokens per second. What it asks of the number of replicas is the caller's (required rate =
        max(offered, tps / output tokens)); here it keeps the rate below `TPS_RATE` of the highest.

    Returns
    -------
    Sizing

    Raises
    ------
    ValueError
        As in `analyze`; also for a target that is not greater than 0.

    Notes
    -----
    Both latencies never fall as the rate grows (the law of accepted arrivals is ordered by likelihood ratio in λ), so
    the verdict is decided by evaluation at the two ends of the admissible rates, and otherwise there is one root.
    The rate returned meets the targets as evaluated; it lies within 1e-12 (relative) below the root.
    """
    check_law(law)
    targets = [_target(name, value) for name, value in (("ttft_ms", ttft_ms), ("itl_ms", itl_ms), ("tps", tps))]
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
        others=tuple(targets),
    )
    ttft, itl, tokens = (np.broadcast_to(target, shape).ravel()[order] for target in targets)
    rate, verdict = np.empty(engines.size), np.empty(engines.size, dtype="U10")
    for start in range(0, engines.size, BLOCK):
        block = slice(start, start + BLOCK)
        rate[block], verdict[block] = _size_block(engines.take(block), ttft[block], itl[block], tokens[block])
    verdicts, rates = np.empty_like(verdict), np.empty_like(rate)
    verdicts[order] = verdict
    rates[order] = np.where(verdict == "infeasible", 0.0, rate * MS_PER_S)
    analysis = analyze_engines(engines, np.where(np.isfinite(rate), rate, 0.0), order, shape)
    return Sizing(rates.reshape(shape), verdicts.reshape(shape), analysis)


def _target(name: str, value: Number | None) -> FloatArray:
    target = np.asarray(np.inf if value is None else value, dtype=float)
    target = np.where(np.isnan(target), np.inf, target)
    if (target <= 0).any():
        raise ValueError(f"{name} must be greater than 0")
    return target


def _size_block(
    engines: Engines, ttft_ms: FloatArray, itl_ms: FloatArray, tps: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.str_]]:
    """Rates (requests/ms; the lowest where infeasible) and verdicts of a block of engines; infinity is no target."""
    lowest = LOWEST_RATE * engines.lightest_rate
    highest = HIGHEST_RATE * engines.full_rate * np.where(np.isfinite(tps), TPS_RATE, 1.0)

    def excess(rate: FloatArray, index: IntArray) -> FloatArray:
        """log(latency / target) of whichever target is nearer to being missed: below 0 where both are met.

        A latency may equal its target over a whole range of rates (β = 0, say): that is met, and no root to stop at.
        """
        some = engines.take(index)
        ttft, itl = some.latencies_ms(some.chain(rate, with_empty=False))
        used = np.maximum(ttft / ttft_ms[index], itl / itl_ms[index])
        value = np.log(np.maximum(used, 1e-300))
        return np.where(value <= 0, np.minimum(value, -1e-15), value)

    # An engine whose requests take no time serves any rate, or none: its latencies are constant.
    timeless = np.isinf(highest)
    served = np.zeros(engines.size, dtype=bool)
    served[timeless] = excess(np.zeros(int(timeless.sum())), np.flatnonzero(timeless)) <= 0
    rate = np.where(served, np.inf, 0.0)
    verdict = np.where(served, "capped", "infeasible").astype("U10")
    work = np.flatnonzero(~timeless)
    if not work.size:
        return rate, verdict
    found = elementwise.find_root(
        excess,
        (lowest[work], highest[work]),
        args=(work,),
        tolerances={"xatol": 0, "xrtol": 1e-12, "fatol": 0, "frtol": 0},
    )
    # Where the ends have the same sign the bracket is left as it was, so the verdict reads off its ends.
    (left, right), (at_left, at_right) = found.bracket, found.f_bracket
    swapped = left > right
    low, at_low = np.where(swapped, right, left), np.where(swapped, at_right, at_left)
    high, at_high = np.where(swapped, left, right), np.where(swapped, at_left, at_right)
    met = at_low <= 0
    capped = met & (at_high <= 0) & (high == highest[work])
    root = np.where(found.success & (found.f_x <= 0), found.x, low)
    rate[work] = np.where(capped, high, np.where(met, root, lowest[work]))
    verdict[work] = np.where(capped, "capped", np.where(met, "met", "infeasible"))
    return rate, verdict
