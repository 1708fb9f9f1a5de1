"""What pools can carry: the queueing analysis of a mix of requests, and how much of a pool each bucket takes.

F(f), the replicas that a flow f of buckets takes, is the rate of f over the highest rate of one replica under the
targets at that mix. It grows in proportion to f, so that F(f) = Σ_b f_b ∂F/∂f_b: its gradient says what each bucket
takes as long as the mix stays about as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.candidates import find_candidates
from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Bucket, Load, moments
from inferno_milp.problem.sections import CurrentAllocation, Server

FloatArray = npt.NDArray[np.float64]
STEP = 0.02
"""Part of a mix that is moved to one bucket, to see what that bucket takes."""
DEAR = 20.0
"""What a bucket is taken to take, in multiples of the mean, where a little more of it could not be carried at all."""
LEAST = 1e-3
"""The same where more of it seems to take less."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A routed server on an accelerator.

    Attributes
    ----------
    server : position in the problem.
    accelerator : position in the problem.
    """

    server: int
    accelerator: int


@dataclass(frozen=True, slots=True)
class Carried:
    """Highest rate of one replica under the targets, requests/s, and the batch size that it takes; NaN and 0: none."""

    rate_per_s: float
    batch_size: int


def buckets_of(server: Server) -> tuple[Bucket, ...]:
    """Return the buckets of a server's mix."""
    assert server.load is not None
    return server.load.mix


def flows_of(server: Server) -> FloatArray:
    """Return the rate of each bucket, requests/s."""
    assert server.load is not None
    shares = np.array([bucket.share for bucket in server.load.mix])
    flows: FloatArray = server.load.arrival_rate_per_s * shares / shares.sum()
    return flows


def part_of(server: Server, flow: FloatArray) -> Load:
    """Return the load of a part of a server's requests.

    Parameters
    ----------
    flow : rate of each of its buckets, requests/s.
    """
    assert server.load is not None
    rate, which = float(flow.sum()), np.flatnonzero(flow > 0).tolist()
    mix = tuple(
        bucket.model_copy(update={"share": float(flow[b] / rate)})
        for b, bucket in enumerate(server.load.mix)
        if b in which
    )
    return Load.model_validate({"rate_per_s": rate, "mix": mix, "cv2_arrival": server.load.cv2_arrival})


def find_carried(
    problem: Problem,
    pools: Sequence[Pool],
    flows: Sequence[FloatArray],
    left_s: Callable[[], float] = lambda: math.inf,
    *,
    batch_sizes: Sequence[int] | None = None,
) -> list[Carried]:
    """Return what one replica of each pool carries of a flow.

    Parameters
    ----------
    flows : of each pool, rates of its server's buckets; only their proportions matter.
    left_s : seconds left.
    batch_sizes : of each pool; None: the one that carries most.

    Raises
    ------
    OutOfTimeError
        When no seconds are left.
    """
    servers = []
    for i, (pool, flow) in enumerate(zip(pools, flows, strict=True)):
        server, accelerator = problem.servers[pool.server], problem.accelerators[pool.accelerator]
        assert server.load is not None
        rate = float(flow.sum())
        mix = [b.model_copy(update={"share": f / rate}) for b, f in zip(server.load.mix, flow, strict=True) if f > 0]
        load = Load.model_validate({"rate_per_s": rate, "cv2_arrival": server.load.cv2_arrival, **moments(mix)})
        update = {
            "name": str(i),
            "load": load,
            "keep_accelerator": True,
            "current": (CurrentAllocation(accelerator=accelerator.name, replicas=1),),
        }
        if batch_sizes is not None:
            update["max_batch_size"] = batch_sizes[i]
        servers.append(server.model_copy(update=update))
    rows = find_candidates(problem.model_copy(update={"servers": tuple(servers)}), left_s=left_s).rows
    best = rows.best_batches(by_rate=True)
    found = [Carried(np.nan, 0)] * len(pools)
    for row in best.tolist():
        found[int(rows.server[row])] = Carried(float(rows.max_rate_per_s[row]), int(rows.batch_size[row]))
    return found


def find_weights(
    problem: Problem, pools: Sequence[Pool], flows: Sequence[FloatArray], carried: Sequence[Carried]
) -> list[FloatArray]:
    """Return how many replicas a request per second of each bucket takes, beside a flow: the gradient of F there.

    Parameters
    ----------
    flows : of each pool, where the gradient is taken.
    carried : of each pool, what `find_carried` says.
    """
    moved, owners, batches = [], [], []
    for pool, flow, one in zip(pools, flows, carried, strict=True):
        mix = flow / flow.sum()
        for b in range(len(mix)):
            step = (1 - STEP) * mix
            step[b] += STEP
            moved.append(step)
            owners.append(pool)
            batches.append(one.batch_size)
    there = find_carried(problem, owners, moved, batch_sizes=batches)
    weights, at = [], 0
    for flow, one in zip(flows, carried, strict=True):
        rates = np.array([found.rate_per_s for found in there[at : at + len(flow)]])
        at += len(flow)
        mean = 1 / one.rate_per_s
        gradient = (1 / rates - (1 - STEP) * mean) / STEP
        taken = np.where(np.isnan(gradient), DEAR * mean, np.clip(gradient, LEAST * mean, DEAR * mean))
        weights.append(taken * (mean / (flow / flow.sum() @ taken)))  # at the flow itself it is F
    return weights
