"""Parameters of the queueing analysis, read off the problem for the checks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Profile, Server
from inferno_milp.queueing import EngineParameters


@dataclass(frozen=True, slots=True)
class Run:
    """An engine to be analysed: a server's load, on a profile, with a batch size."""

    server: Server
    load: Load
    profile: Profile
    batch_size: int


def engine_parameters(problem: Problem, runs: Sequence[Run]) -> EngineParameters:
    """Return the parameters of engines, one element for each."""

    def of_profile(name: str) -> list[Any]:
        return [np.nan if (value := getattr(run.profile, name)) is None else value for run in runs]

    def of_load(name: str) -> list[float]:
        return [getattr(run.load, name) for run in runs]

    return {
        "alpha_ms": of_profile("alpha_ms"),
        "beta_ms": of_profile("beta_ms"),
        "gamma_ms": of_profile("gamma_ms"),
        "delta_ms": of_profile("delta_ms"),
        "kappa_ms": of_profile("kappa_ms"),
        "overhead_ms": [
            run.profile.overhead_ms + problem.latency_ms(run.server, run.profile.accelerator) for run in runs
        ],
        "prefill_quadratic_ms": of_profile("prefill_quadratic_ms"),
        "lag_iterations": of_profile("lag_iterations"),
        "token_budget": of_profile("token_budget"),
        "kv_tokens": of_profile("kv_tokens"),
        "input_tokens": of_load("input_tokens"),
        "output_tokens": of_load("output_tokens"),
        "cv2_input": of_load("cv2_input"),
        "cv2_output": of_load("cv2_output"),
        "cov_lengths": of_load("cov_lengths"),
        "cv2_arrival": of_load("cv2_arrival"),
        "max_batch": [run.batch_size for run in runs],
        "max_queue": [np.nan if run.server.max_queue_size is None else run.server.max_queue_size for run in runs],
        "max_blocking": problem.options.max_blocking,
    }


def limits_by_statistic(
    problem: Problem, servers: Sequence[Server]
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Return targets as `size` takes them, one element for each server: by latency and statistic, and in tokens/s."""
    limits: dict[str, dict[str, list[float]]] = {"ttft_ms": {}, "itl_ms": {}}
    for i, server in enumerate(servers):
        for latency, statistic, limit in problem.targets_of(server).limits_ms():
            limits[latency].setdefault(statistic, [np.nan] * len(servers))[i] = limit
    return limits, [problem.targets_of(server).tps or np.nan for server in servers]
