"""Law `continuous-batching` with a fixed number of clients: each sends its next request when it has its last token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
from scipy.optimize import elementwise

from inferno_milp.queueing.arrays import TINY, FloatArray, IntArray
from inferno_milp.queueing.continuous import ContinuousEngines
from inferno_milp.queueing.continuous_means import find_iteration, first_token_ms, itl_beside, itl_excess_ms
from inferno_milp.queueing.parameters import EngineParameters, Number, read_parameters

MS_PER_S = 1000.0
LONG_MEET = 0.25
"""Clients' long prompts meet one another this share of the way from arrivals at a constant pace to Poisson ones."""
FAR_BELOW = 0.1
"""The throughput lies above this share of what follows from the latencies at the highest one."""


@dataclass(frozen=True, slots=True)
class ClosedAnalysis:
    """Figures of engines with a fixed number of clients; every array has the shape of the broadcast parameters.

    Attributes
    ----------
    concurrency : clients, each of whom always has one request in the system.
    ttft_ms, itl_ms : mean time to first token, wait included, and mean inter-token latency, ms.
    wait_ms : mean wait for a place in the batch: 0 unless there are more clients than places.
    throughput_per_s : requests/s.
    max_batch : N, after what the KV cache holds.
    """

    concurrency: FloatArray
    ttft_ms: FloatArray
    itl_ms: FloatArray
    wait_ms: FloatArray
    throughput_per_s: FloatArray
    max_batch: IntArray


def analyze_closed(*, concurrency: Number, **engine: Unpack[EngineParameters]) -> ClosedAnalysis:
    """Analyse inference engines with a fixed number of clients, as benchmarks with a set concurrency have them.

    Parameters
    ----------
    concurrency : clients, ≥ 1.
    **engine : as for `analyze`; `max_queue`, `cv2_arrival` and `max_blocking` mean nothing here.

    Raises
    ------
    TypeError, ValueError
        As in `analyze`, and for a concurrency below 1.

    Notes
    -----
    The number in the batch does not vary: it is min(C, N), so that a request always has one fewer beside it. The rest
    is
    the open law's (docs/queueing.md), at the throughput X = min(C, N)/(time in the batch), its one fixed point.
    """
    clients = np.asarray(concurrency, dtype=float)
    if not (np.isfinite(clients) & (clients >= 1)).all():
        raise ValueError("concurrency must be finite and at least 1")
    parameters, shape = read_parameters({**engine, "cv2_arrival": 1.0}, clients)
    engines = ContinuousEngines.make(parameters)
    if not engines.fits.all():
        raise ValueError("kv_tokens cannot hold one request of input_tokens and output_tokens, or too many of them")
    clients = np.broadcast_to(clients, shape).ravel()
    running = np.minimum(clients, engines.max_batch)
    throughput = _find_throughput(engines, running)
    in_batch_ms, itl_ms = _latencies(engines, running, throughput)
    with np.errstate(divide="ignore", invalid="ignore"):
        wait_ms = np.where(clients > running, (clients - running) / throughput, 0.0)
    figures = {
        "concurrency": clients,
        "ttft_ms": in_batch_ms + wait_ms,
        "itl_ms": itl_ms,
        "wait_ms": wait_ms,
        "throughput_per_s": throughput * MS_PER_S,
    }
    shaped = {name: np.asarray(values, dtype=float).reshape(shape) for name, values in figures.items()}
    return ClosedAnalysis(**shaped, max_batch=engines.max_batch.reshape(shape))


def _find_throughput(engines: ContinuousEngines, running: FloatArray) -> FloatArray:
    """Find X (requests/ms) with X · (time in the batch at X) = running: the time never falls as X grows."""
    alone_ms, itl_ms = _latencies(engines, np.ones_like(running), np.zeros_like(running))
    least_ms = np.maximum(alone_ms + engines.decodes * itl_ms, 1e-9)

    def excess(rate: FloatArray, index: IntArray) -> FloatArray:
        some = engines.take(index)
        in_batch_ms, itl_ms = _latencies(some, running[index], rate)
        return np.asarray(np.log(rate * (in_batch_ms + some.decodes * itl_ms) / running[index]))

    highest = running / least_ms
    most_ms, itl_ms = _latencies(engines, running, highest)
    lowest = running / np.maximum(most_ms + engines.decodes * itl_ms, least_ms)
    found = elementwise.find_root(
        excess,
        (lowest * FAR_BELOW, highest * (1 + 1e-9)),
        args=(np.arange(running.size),),
        tolerances={"xatol": 0, "xrtol": 1e-10, "fatol": 0, "frtol": 0},
    )
    return np.asarray(found.x)


def _latencies(
    engines: ContinuousEngines, running: FloatArray, throughput: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Time to first token without the wait for a place, and time between tokens, with `running` clients.

    Who waits for what happens outside the engine is not in the batch.
    """
    poisson = _latencies_of(engines, running, throughput)
    # Clients come round in their turn, which keeps long prompts apart: those that take longer than an iteration of
    # decoding.
    regular = _latencies_of(replace(engines, cv2_arrival=np.zeros_like(running)), running, throughput)
    decode_ms = engines.decode_base_ms + engines.beta_ms * (running - 1)
    short = decode_ms / np.maximum(decode_ms + engines.prompt_ms, TINY)
    chance = np.minimum(LONG_MEET + (1 - LONG_MEET) * 2 * short, 1.0)
    return tuple(chance * p + (1 - chance) * r for p, r in zip(poisson, regular, strict=True))  # type: ignore[return-value]


def _latencies_of(
    engines: ContinuousEngines, running: FloatArray, throughput: FloatArray
) -> tuple[FloatArray, FloatArray]:
    outside_ms = engines.overhead_ms + engines.lag_iterations * engines.alpha_ms
    share = np.clip(1 - throughput * outside_ms / running, 0.0, 1.0)
    others, p_empty = (running - 1) * share, np.where(running > 1, 0.0, 1.0)
    iteration = find_iteration(engines, throughput, others)
    alone_ms, found_busy_ms, _ = first_token_ms(engines, throughput, others, p_empty, iteration)
    itl_ms = itl_beside(engines, others)
    excess_ms, _ = itl_excess_ms(engines, itl_ms, p_empty, iteration)
    lag_ms = engines.lag_iterations * (engines.alpha_ms + engines.beta_ms * iteration.decoding)
    in_batch_ms = p_empty * alone_ms + (1 - p_empty) * (found_busy_ms + lag_ms) + engines.overhead_ms
    return in_batch_ms, itl_ms + excess_ms
