"""Numbers of prefill and decode replicas that keep a promise together, none of which is better in both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from inferno_milp.columns.rows import FloatArray
from inferno_milp.planning.disaggregation.curves import KEPT, Curve
from inferno_milp.planning.disaggregation.transfer import Link

ROOM = 1e-6
"""Relative room that each phase's part of a promise gets above what it comes to."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Replicas of both phases of a server.

    Attributes
    ----------
    prefill, decode : positions of candidates of each.
    prefill_replicas, decode_replicas : of each.
    prefill_ms, transfer_ms, decode_ms : parts of the promises of the time to first token, by statistic.
    """

    prefill: int
    decode: int
    prefill_replicas: int
    decode_replicas: int
    prefill_ms: dict[str, float]
    transfer_ms: dict[str, float]
    decode_ms: dict[str, float]


def find_pairs(
    prefill: Curve,
    decode: Curve,
    link: Link,
    promise: Mapping[str, float],
    least_replicas: int,
    most_replicas: int | None,
) -> Iterator[Pair]:
    """Find the pairs, the fewest decode replicas first.

    Parameters
    ----------
    promise : limits of the time to first token by statistic, ms; infinite where nothing is promised.
    least_replicas, most_replicas : of both together; None: no limit.
    """
    names = list(promise)
    decode_ms = _best_batch(decode, promise)
    transfer_ms = {
        name: link.transfer_ms(name, prefill.rate_per_s[:, None], decode.rate_per_s[None, :]) for name in names
    }
    fits = np.ones((len(prefill.replicas), prefill.ttft_ms[names[0]].shape[1], len(decode.replicas)), dtype=bool)
    left_ms = {}
    for name in names:
        with np.errstate(invalid="ignore"):  # infinite less infinite: what cannot be
            left = promise[name] - (transfer_ms[name] + decode_ms[name]) * (1 + ROOM)
        left_ms[name] = np.where(np.isfinite(transfer_ms[name] + decode_ms[name]), left, -np.inf)
        own_ms = prefill.ttft_ms[name][:, :, None]
        fits &= np.isfinite(own_ms) & (own_ms <= left_ms[name][:, None, :] * (1 - KEPT))
    can = np.asarray(fits.any(axis=1))
    both = prefill.replicas[:, None] + decode.replicas[None, :]
    can &= both >= least_replicas
    if most_replicas is not None:
        can &= both <= most_replicas
    fewest = math.inf
    for d in np.flatnonzero(can.any(axis=0)).tolist():
        p = int(np.argmax(can[:, d]))
        if p >= fewest:
            continue
        fewest = p
        shared = [name for name in names if math.isfinite(promise[name])]
        yield Pair(
            prefill.row,
            decode.row,
            int(prefill.replicas[p]),
            int(decode.replicas[d]),
            {name: float(left_ms[name][p, d]) for name in shared},
            {name: float(transfer_ms[name][p, d]) * (1 + ROOM) for name in shared},
            {name: float(decode_ms[name][d]) * (1 + ROOM) for name in shared},
        )


def _best_batch(curve: Curve, promise: Mapping[str, float]) -> dict[str, FloatArray]:
    """Return the latencies with, for each number of replicas, the batch size that takes least of any promise."""
    used = np.max([curve.ttft_ms[name] / min(limit, 1e12) for name, limit in promise.items()], axis=0)
    best = np.argmin(used, axis=1)
    return {name: curve.ttft_ms[name][np.arange(len(best)), best] for name in promise}
