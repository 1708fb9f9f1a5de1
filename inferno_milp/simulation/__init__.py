"""Iteration-level simulation of inference engines: the check of the queueing analysis, which it never imports.

`run` takes one engine over given requests, `run_clients` over those of a number of clients, `run_linked`
engines of prompts and of outputs with a network between them.
"""

from inferno_milp.simulation.engine import Engine, Trace, gap_percentile, run, run_clients
from inferno_milp.simulation.linked import Requests, Stage, run_linked
from inferno_milp.simulation.statistics import Estimate
from inferno_milp.simulation.workload import draw_arrivals, draw_lengths

__all__ = [
    "Engine",
    "Estimate",
    "Requests",
    "Stage",
    "Trace",
    "draw_arrivals",
    "draw_lengths",
    "gap_percentile",
    "run",
    "run_clients",
    "run_linked",
]
