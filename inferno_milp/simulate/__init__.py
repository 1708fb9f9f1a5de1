"""Iteration-level simulation of inference engines: the check of the queueing analysis, which it never imports.

`run` takes one engine over given requests, `run_clients` over those of a number of clients, `run_linked`
engines of prompts and of outputs with a network between them, `simulate_plan` all replicas of a plan.
"""

from inferno_milp.simulate.comparison import Comparison
from inferno_milp.simulate.engine import Engine, Trace, gap_percentile, run, run_clients
from inferno_milp.simulate.fleet import AllocationSimulation, PlanSimulation, simulate_plan
from inferno_milp.simulate.linked import Requests, Stage, run_linked
from inferno_milp.simulate.statistics import Estimate
from inferno_milp.simulate.workload import draw_arrivals, draw_lengths

__all__ = [
    "AllocationSimulation",
    "Comparison",
    "Engine",
    "Estimate",
    "PlanSimulation",
    "Requests",
    "Stage",
    "Trace",
    "draw_arrivals",
    "draw_lengths",
    "gap_percentile",
    "run",
    "run_clients",
    "run_linked",
    "simulate_plan",
]
