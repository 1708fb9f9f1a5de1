"""`size`: the highest arrival rate at which an engine still meets its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise

from inferno_milp.queueing.analysis import DEFAULT_LAW, MS_PER_S, Analysis, analyze_engines, make_engines
from inferno_milp.queueing.arrays import BoolArray, FloatArray, IntArray
from inferno_milp.queueing.law import Engines
from inferno_milp.queueing.parameters import EngineParameters, Number
from inferno_milp.queueing.targets import LatencyTarget, Target, read_limit, read_targets

FLOOR = 1e-300

BLOCK = 16384
"""Engines sized at once: their arrays together stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """The highest rate that meets the targets; every array has the shape of the broadcast parameters.

    Attributes
    ----------
    max_rate_per_s : highest arrival rate at which every target is met, requests/s; 0 where none is.
    verdict : "met" (a target is what limits the rate), "capped" (all targets are met at the highest admissible
        rate) or "infeasible" (a target is missed at the lowest one already, or a request does not fit into memory).
    analysis : figures at `max_rate_per_s`; where infeasible, at the lowest admissible rate, the best there can be;
        where requests take no time, and so the rate is infinite, at a rate of 0.
    fits : whether the KV cache holds a request at all.
    """

    max_rate_per_s: FloatArray
    verdict: npt.NDArray[np.str_]
    analysis: Analysis
    fits: BoolArray


def size(
    law: str = DEFAULT_LAW,
    *,
    ttft_ms: Target = None,
    itl_ms: Target = None,
    tps: Number | None = None,
    **engine: Unpack[EngineParameters],
) -> Sizing:
    """Find the highest rate at which engines meet their targets.

    Parameters
    ----------
    law, **engine : as in `analyze`.
    ttft_ms, itl_ms : targets of the time to first token and of the inter-token latency, ms: a number for the mean, or
        numbers by name, any of `mean` and `p50` to `p99.9`: `{"p95": 1000}`. None, NaN or infinity is no target.
        Numbers broadcast with the parameters.
    tps : target of tokens per second. What it asks of the number of replicas is the caller's (required rate =
        max(offered, tps / output tokens)); with law `inferno` it also keeps the rate below 0.9 of the highest.

    Returns
    -------
    Sizing

    Raises
    ------
    TypeError, ValueError
        As in `analyze`; also for a target that is not greater than 0, or not a mean or percentile.

    Notes
    -----
    No latency falls as the rate grows, so the verdict is decided by evaluation at the two ends of the admissible
    rates, and otherwise there is one root. Law `inferno` admits 0.001·μ(1) to 0.999·μ(N), law `continuous-batching`
    all rates of which no more than `max_blocking` is turned away.
    The rate returned meets the targets as evaluated; it lies within 1e-12 (relative) below the root.

    Examples
    --------
    >>> import inferno_milp as im
    >>> engine = {"alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02, "max_batch": 64}
    >>> found = im.size(ttft_ms=200.0, itl_ms=12.0, input_tokens=512, output_tokens=128, **engine)
    >>> f"{float(found.max_rate_per_s):.2f} requests/s"
    '13.01 requests/s'
    """
    targets, promised = read_targets(ttft_ms, itl_ms), read_limit("tps", tps)
    engines, layout = make_engines(law, engine, promised, *(target.limit_ms for target in targets))
    targets = [target.sorted(layout) for target in targets]
    promises_tps = np.isfinite(layout.sorted(promised))
    count = promises_tps.size
    rate, verdict = np.empty(count), np.empty(count, dtype="U10")
    for start in range(0, count, BLOCK):
        block = np.arange(start, min(start + BLOCK, count))
        some = engines.take(slice(start, start + BLOCK))
        rate[block], verdict[block] = _size_block(some, targets, promises_tps[block], start)
    analysis = analyze_engines(engines, np.where(np.isfinite(rate), rate, 0.0), layout)
    rates = np.asarray(layout.restored(np.where(verdict == "infeasible", 0.0, rate * MS_PER_S)), dtype=float)
    verdicts = np.asarray(layout.restored(verdict), dtype="U10")
    most = np.asarray(layout.restored(engines.max_blocking), dtype=float)
    turned_away = (verdicts == "met") & (most < 1) & (analysis.blocking >= most * (1 - 1e-6))
    verdicts[turned_away] = "capped"  # not by a target, but by what may be turned away
    return Sizing(rates, verdicts, analysis, np.asarray(layout.restored(engines.fits), dtype=bool))


def _size_block(
    engines: Engines, targets: list[LatencyTarget], promises_tps: BoolArray, offset: int
) -> tuple[FloatArray, npt.NDArray[np.str_]]:
    """Rates (requests/ms; the lowest where infeasible) and verdicts of a block of engines.

    Parameters
    ----------
    offset : position of the block in the targets.
    """
    lowest, highest = engines.lowest_rate, engines.highest_rate(promises_tps=promises_tps)

    def excess(rate: FloatArray, index: IntArray) -> FloatArray:
        """Logarithm of what is used of whichever limit is nearest to being passed: below 0 where all are kept."""
        some = engines.take(index)
        solution = some.solve(rate, with_empty=False)
        used = [np.zeros(index.size), *(target.used(solution, index + offset) for target in targets)]
        if (some.max_blocking < 1).any():
            used.append(np.where(some.max_blocking < 1, solution.blocking / some.max_blocking, 0.0))
        value = np.log(np.maximum(np.maximum.reduce(used), FLOOR))
        # A latency may equal its target over a whole range of rates (β = 0, say): that is met, and no root to stop at.
        return np.asarray(np.where(value <= 0, np.minimum(value, -1e-15), value))

    # An engine whose requests take no time serves any rate, or none: its latencies are constant.
    timeless = np.isinf(highest)
    served = np.zeros(timeless.size, dtype=bool)
    served[timeless] = excess(np.zeros(int(timeless.sum())), np.flatnonzero(timeless)) <= 0
    served &= engines.fits
    rate = np.where(served, np.inf, 0.0)
    verdict = np.where(served, "capped", "infeasible").astype("U10")
    rate[~timeless] = lowest[~timeless]
    work = np.flatnonzero(~timeless & engines.fits)
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
