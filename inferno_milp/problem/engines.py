"""From a problem's servers and profiles to the parameters of the queueing analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from inferno_milp.problem import Problem
from inferno_milp.problem.fields import Targets
from inferno_milp.queueing import EngineParameters, largest_kv_batch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OF_PROFILE = (
    "alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "kappa_ms", "overhead_ms", "prefill_quadratic_ms",
    "lag_iterations", "token_budget", "kv_tokens",
)  # fmt: skip
"""Fields of a profile that are parameters of an engine, by their own names."""
OF_LOAD = ("input_tokens", "output_tokens", "cv2_input", "cv2_output", "cov_lengths", "cv2_arrival")
"""The same of a load."""
OF_CONTEXT = ("input_tokens", "output_tokens", "cv2_output", "cov_lengths")
"""What the KV cache holds depends on these."""
UNLOADED = {
    "input_tokens": 0.0,
    "output_tokens": 1.0,
    "cv2_input": 0.0,
    "cv2_output": 1.0,
    "cov_lengths": 0.0,
    "cv2_arrival": 1.0,
}
"""What stands for the load of a server that has none."""


def optional(values: Sequence[float | None]) -> FloatArray:
    """Return values as an array, NaN for None."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


@dataclass(frozen=True, slots=True)
class EngineTable:
    """Parameters by profile and by server, as arrays, and latencies between their regions, servers × profiles."""

    of_profile: dict[str, FloatArray]
    of_server: dict[str, FloatArray]
    max_queue: FloatArray
    max_blocking: float
    latency_ms: FloatArray | None = None

    def of(self, server: IntArray, profile: IntArray, batch_size: npt.ArrayLike) -> EngineParameters:
        """Return the parameters of engines, given the positions of their servers and profiles."""
        parameters: dict[str, Any] = {name: values[profile] for name, values in self.of_profile.items()}
        parameters |= {name: values[server] for name, values in self.of_server.items()}
        if self.latency_ms is not None:
            parameters["overhead_ms"] = parameters["overhead_ms"] + self.latency_ms[server, profile]
        parameters |= {"max_batch": batch_size, "max_queue": self.max_queue[server], "max_blocking": self.max_blocking}
        return cast(EngineParameters, parameters)

    def kv_batch(self, server: IntArray, profile: IntArray) -> FloatArray:
        """Return the largest batch that the KV caches hold, infinity where they are not known."""
        load = {name: self.of_server[name][server] for name in OF_CONTEXT}
        return largest_kv_batch(self.of_profile["kv_tokens"][profile], **load)


def engine_table(problem: Problem) -> EngineTable:
    """Read the parameters off a problem."""
    loads = [server.load for server in problem.servers]
    return EngineTable(
        of_profile={name: optional([getattr(p, name) for p in problem.profiles]) for name in OF_PROFILE},
        of_server={
            name: optional([getattr(load, name) if load else UNLOADED[name] for load in loads]) for name in OF_LOAD
        },
        max_queue=optional([server.max_queue_size for server in problem.servers]),
        max_blocking=problem.options.max_blocking,
        latency_ms=_latencies_ms(problem),
    )


def _latencies_ms(problem: Problem) -> FloatArray | None:
    if not problem.latencies_ms:
        return None
    regions = {a.name: a.region for a in problem.accelerators}
    there = [regions[profile.accelerator] for profile in problem.profiles]
    found = np.array(
        [[problem.latencies_ms.get(s.region or "", {}).get(to or "", 0.0) for to in there] for s in problem.servers],
        dtype=float,
    )
    return found.reshape(len(problem.servers), len(there))


def latency_targets(targets: Sequence[Targets]) -> dict[str, dict[str, FloatArray]]:
    """Return promises of latency as `queueing.size` takes them, by latency and statistic; NaN is no promise."""
    result: dict[str, dict[str, FloatArray]] = {"ttft_ms": {}, "itl_ms": {}}
    for i, promised in enumerate(targets):
        for latency, statistic, limit in promised.limits_ms():
            values = result[latency].setdefault(statistic, np.full(len(targets), np.nan))
            values[i] = limit
    return result
