"""Queueing analysis of inference engines that run continuous batching: arrays in, arrays out, no I/O.

`analyze` gives latencies and throughput at a rate, `size` the highest rate that meets targets.
"""

from inferno_milp.queueing.analysis import LAWS, Analysis, analyze
from inferno_milp.queueing.sizing import Sizing, size

__all__ = ["LAWS", "Analysis", "Sizing", "analyze", "size"]
