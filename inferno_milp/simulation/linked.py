"""Engines of prompts and engines of outputs, with KV caches on their way between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from inferno_milp.simulation.engine import Engine, FloatArray, IntArray, Trace, run

MS_PER_S = 1000.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Replicas that are alike.

    Attributes
    ----------
    engine : each of them.
    replicas : how many.
    bytes_per_s : speed of each one's network, at which it sends, or receives.
    """

    engine: Engine
    replicas: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests, one element each, in the order of arrival.

    Attributes
    ----------
    arrival_ms : when they come, not falling.
    input_tokens, output_tokens : their lengths; prompts of at least one token.
    sender, receiver : replicas of the prompts' and the outputs' engines that they go to.
    """

    arrival_ms: FloatArray
    input_tokens: IntArray
    output_tokens: IntArray
    sender: IntArray
    receiver: IntArray

    def take(self, which: IntArray) -> Requests:
        """Return the chosen ones."""
        return Requests(*(getattr(self, field.name)[which] for field in fields(self)))


def run_linked(
    prefill: Stage,
    decode: Stage,
    requests: Requests,
    *,
    bytes_per_token: float,
    overhead_ms: float,
    measured_from_ms: float = 0.0,
    measured_until_ms: float = math.inf,
    compiled: bool | None = None,
) -> Trace:
    """Run requests through engines of prompts, over a network, and through engines of outputs.

    Parameters
    ----------
    bytes_per_token : of a KV cache.
    overhead_ms : what a transfer takes besides.
    measured_from_ms, measured_until_ms, compiled : as for `run`.

    Returns
    -------
    Trace
        From arrival at the prompts' engine to tokens of the outputs' engine. Preemptions are those of both; gaps and
        running requests are of the outputs' engines, the latter the mean of one.

    Notes
    -----
    A prompt's engine makes one token. The cache then waits until the sender has sent those before, and takes as long as
    the slower end needs; a receiver that was still busy is later by what is left of its own work. The outputs' engine
    computes the last token of the prompt once more. A request that either stage turns away is turned away.
    """
    measured: dict[str, Any] = {
        "measured_from_ms": measured_from_ms, "measured_until_ms": measured_until_ms, "compiled": compiled
    }  # fmt: skip
    first = _run_stage(
        prefill, requests.sender, requests, np.ones_like(requests.output_tokens), np.zeros_like(requests.input_tokens),
        **measured,
    )  # fmt: skip
    done_ms = _transfers(prefill, decode, requests, first.arrival_ms + first.ttft_ms, bytes_per_token, overhead_ms)
    handed = np.flatnonzero(~np.isnan(done_ms))
    handed = handed[np.argsort(done_ms[handed], kind="stable")]
    sent = replace(requests.take(handed), arrival_ms=done_ms[handed])
    second = _run_stage(decode, sent.receiver, sent, sent.output_tokens, sent.input_tokens - 1, **measured)
    count = len(done_ms)
    ttft_ms, end_to_end_ms = np.full(count, np.nan), np.full(count, np.nan)
    before_ms = sent.arrival_ms - requests.arrival_ms[handed]
    ttft_ms[handed] = before_ms + second.ttft_ms
    end_to_end_ms[handed] = before_ms + second.end_to_end_ms
    preemptions = first.preemptions.copy()
    preemptions[handed] += second.preemptions
    return replace(
        second,
        arrival_ms=requests.arrival_ms,
        ttft_ms=ttft_ms,
        end_to_end_ms=end_to_end_ms,
        output_tokens=requests.output_tokens,
        preemptions=preemptions,
    )


def _run_stage(
    stage: Stage, to: IntArray, requests: Requests, outputs: IntArray, cached: IntArray, **measured: Any
) -> Trace:
    """Run all replicas of a stage; the trace is of all requests, in their order."""
    count = len(to)
    ttft_ms, end_to_end_ms, preemptions = np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.int64)
    traces = []
    for replica in range(stage.replicas):
        mine = np.flatnonzero(to == replica)
        trace = run(
            stage.engine,
            requests.arrival_ms[mine],
            requests.input_tokens[mine],
            outputs[mine],
            cached_tokens=cached[mine],
            **measured,
        )
        ttft_ms[mine], end_to_end_ms[mine], preemptions[mine] = trace.ttft_ms, trace.end_to_end_ms, trace.preemptions
        traces.append(trace)
    return Trace(
        arrival_ms=requests.arrival_ms,
        ttft_ms=ttft_ms,
        end_to_end_ms=end_to_end_ms,
        output_tokens=outputs,
        preemptions=preemptions,
        gaps=np.sum([trace.gaps for trace in traces], axis=0),
        running=float(np.mean([trace.running for trace in traces])),
    )


def _transfers(
    prefill: Stage,
    decode: Stage,
    requests: Requests,
    ready_ms: FloatArray,
    bytes_per_token: float,
    overhead_ms: float,
) -> FloatArray:
    """Return when each cache has arrived; NaN where the prompt was turned away."""
    size = bytes_per_token * requests.input_tokens * MS_PER_S
    sending_ms, receiving_ms = (size / prefill.bytes_per_s).tolist(), (size / decode.bytes_per_s).tolist()
    sender_free, receiver_free = [0.0] * prefill.replicas, [0.0] * decode.replicas
    done = np.full(len(ready_ms), np.nan)
    order = np.argsort(ready_ms, kind="stable")
    for i in order[: int((~np.isnan(ready_ms)).sum())].tolist():  # those that are NaN come last
        sender, receiver = int(requests.sender[i]), int(requests.receiver[i])
        start = max(float(ready_ms[i]), sender_free[sender])
        sender_free[sender] = start + sending_ms[i]
        alone = start + max(sending_ms[i], receiving_ms[i])
        receiver_free[receiver] = max(alone, receiver_free[receiver] + receiving_ms[i])
        done[i] = receiver_free[receiver] + overhead_ms
    return done
