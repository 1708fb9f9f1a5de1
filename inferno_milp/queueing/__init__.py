"""Queueing analysis of inference engines that run continuous batching: arrays in, arrays out, no I/O.

`analyze` gives latencies and throughput at a rate, `size` the highest rate that meets targets.
"""

from inferno_milp.queueing.analysis import DEFAULT_LAW, LAWS, Analysis, analyze
from inferno_milp.queueing.closed import ClosedAnalysis, analyze_closed
from inferno_milp.queueing.continuous_parameters import largest_kv_batch
from inferno_milp.queueing.parameters import QUEUE_PER_BATCH, EngineParameters, mean_context_tokens
from inferno_milp.queueing.sizing import Sizing, size
from inferno_milp.queueing.targets import Target

__all__ = [
    "DEFAULT_LAW",
    "LAWS",
    "QUEUE_PER_BATCH",
    "Analysis",
    "ClosedAnalysis",
    "EngineParameters",
    "Sizing",
    "Target",
    "analyze",
    "analyze_closed",
    "largest_kv_batch",
    "mean_context_tokens",
    "size",
]
