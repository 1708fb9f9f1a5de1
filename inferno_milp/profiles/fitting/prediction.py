"""What the queueing law says of runs: sent at a rate, by clients, or as one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from inferno_milp.profiles.fitting.runs import Runs
from inferno_milp.profiles.fitting.terms import FloatArray, engine_terms
from inferno_milp.queueing import analyze, analyze_closed

ROOM = 3.0
"""The chain of a run sent at a rate is walked up to this many times the number of requests that are in the batch."""


def predict(parameters: FloatArray, runs: Runs, token_budget: int, max_batch: int) -> tuple[FloatArray, FloatArray]:
    """Predict mean latencies by the law `continuous-batching`.

    Parameters
    ----------
    parameters : terms of one or several profiles; shape (profiles, terms).
    runs : the runs.
    token_budget, max_batch : M and N of the engine.

    Returns
    -------
    ttft_ms, itl_ms
        Shape (profiles, runs).
    """
    shape = (len(parameters), len(runs.shapes))
    ttft_ms, itl_ms = np.full(shape, np.nan), np.full(shape, np.nan)
    open_runs = ~(runs.closed | runs.batch)
    if open_runs.any():
        part = runs.take(open_runs)
        found = analyze(
            rate_per_s=part.rate_per_s[None],
            cv2_arrival=part.cv2_arrival[None],
            max_batch=_reach(part, max_batch)[None],
            max_queue=10 * max_batch,
            max_blocking=0.5,
            **_engine(parameters, part, token_budget),
        )
        ttft_ms[:, open_runs], itl_ms[:, open_runs] = found.ttft_ms, found.itl_ms
    if runs.closed.any():
        part = runs.take(runs.closed)
        clients = np.maximum(part.clients, 1.0)
        closed = analyze_closed(
            concurrency=clients[None],
            max_batch=np.maximum(np.ceil(clients), 1)[None],
            **_engine(parameters, part, token_budget),
        )
        ttft_ms[:, runs.closed], itl_ms[:, runs.closed] = closed.ttft_ms, closed.itl_ms
    if runs.batch.any():
        ttft_ms[:, runs.batch], itl_ms[:, runs.batch] = _one_batch(parameters, runs.take(runs.batch))
    return ttft_ms, itl_ms


def _engine(parameters: FloatArray, runs: Runs, token_budget: int) -> dict[str, Any]:
    lengths = {name: getattr(runs, name)[None] for name in ("input_tokens", "output_tokens", "cv2_input", "cv2_output")}
    return {**engine_terms(parameters), **lengths, "token_budget": token_budget}


def _reach(runs: Runs, max_batch: int) -> FloatArray:
    """Batch beyond which no run comes near, which ends the chain; not known without latencies."""
    busy = runs.rate_per_s * (runs.ttft_ms + runs.output_tokens * runs.itl_ms) / 1e3
    return np.asarray(np.fmin(np.ceil(ROOM * busy + 32), max_batch))


def _one_batch(parameters: FloatArray, runs: Runs) -> tuple[FloatArray, FloatArray]:
    """Of B requests that begin together: one iteration with all prompts, then iterations that decode all."""
    terms = engine_terms(parameters)
    size, inputs = runs.clients[None], runs.input_tokens[None]
    context = inputs + runs.output_tokens[None] / 2
    square = terms["prefill_quadratic_ms"] * inputs**2 * (1 + runs.cv2_input[None])
    prompts = size * ((terms["delta_ms"] + terms["kappa_ms"]) * inputs + square)
    ttft_ms = terms["gamma_ms"] + prompts + terms["overhead_ms"]
    itl_ms = terms["alpha_ms"] + size * (terms["beta_ms"] + terms["kappa_ms"] * context)
    return ttft_ms, itl_ms
