"""The figures of the worked examples, and of what questions a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import inferno_milp as im
from inferno_milp import queueing
from inferno_milp.plan import Plan
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import Targets
from inferno_milp.report import plots
from inferno_milp.studies.explain import explain
from inferno_milp.studies.prices import find_prices
from inferno_milp.studies.sweeps import find_frontier, sweep

INSTANCES = Path(__file__).parent.parent / "instances"
EXAMPLES = ("unlimited", "unlimited-load-change", "limited", "limited-load-change")
QUANTITIES = ("cost_per_hour", "replicas", "batch_size", "itl_ms", "wait_ms", "ttft_ms")


@cache
def problem(name: str) -> Problem:
    """Read an instance."""
    return im.read_problem(INSTANCES / f"{name}.yaml")


@cache
def plan(name: str) -> Plan:
    """Plan an instance, to the very least cost."""
    return im.optimize(problem(name), gap=0.0)


def panels(draw: Sequence[Callable[..., Any]], columns: int, width: float, height: float) -> Figure:
    """Draw panels in rows."""
    rows = -(-len(draw) // columns)
    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    for i, panel in enumerate(draw):
        panel(made.add_subplot(rows, columns, i + 1))
    return made


def assignment(name: str) -> Figure:
    """Accelerators by class × model."""
    return panels([lambda ax: plots.plot_assignment(plan(name), ax=ax)], 1, 10.0, 2.8)


def accelerators(name: str) -> Figure:
    """Accelerator counts and their cost."""
    kinds: list[Any] = ["devices", "cost_per_hour"]
    return panels([lambda ax, k=k: plots.plot_types(plan(name), k, ax=ax) for k in kinds], 2, 5.4, 3.2)


def servers(name: str) -> Figure:
    """Cost, replicas, batch size, token time, wait and time to first token of each server."""
    draw = [lambda ax, q=q: plots.plot_servers(plan(name), q, ax=ax) for q in QUANTITIES]
    return panels(draw, 2, 5.4, 2.7)


def changes(name: str) -> Figure:
    """Accelerators that change."""
    before = plan(name.removesuffix("-load-change"))
    return panels([lambda ax: plots.plot_accelerator_changes(before, plan(name), ax=ax)], 1, 10.0, 2.8)


def differences(name: str) -> Figure:
    """Scaling of replicas, and the difference of cost."""
    before, after = plan(name.removesuffix("-load-change")), plan(name)
    draw = [
        lambda ax: plots.plot_replica_scaling(before, after, ax=ax),
        lambda ax: plots.plot_cost_difference(before, after, ax=ax),
    ]
    return panels(draw, 1, 9.0, 3.2)


def cost_parts() -> Figure:
    """Draw what the cost of the sample is made of."""
    why = explain(problem("limited"), plan=plan("limited"))
    return panels([lambda ax: plots.plot_cost_parts(why, ax=ax)], 1, 7.0, 3.0)


def prices() -> Figure:
    """Draw what devices and promises of the sample are worth."""
    found = find_prices(problem("limited"), plan=plan("limited"))
    draw = [
        lambda ax: plots.plot_device_prices(found, ax=ax),
        lambda ax: plots.plot_target_prices(found, ax=ax),
    ]
    return panels(draw, 2, 5.4, 3.2)


def swept() -> Figure:
    """Cost against load, for several counts of a device."""
    loads = [i / 20 for i in range(10, 31)]
    axes: dict[str, Any] = {"servers.*.load.rate_per_s *=": loads, "capacity.MI300X": [96, 144, 240]}
    frame = sweep(problem("limited"), axes)
    return panels([lambda ax: plots.plot_sweep(frame, "servers.*.load.rate_per_s *=", ax=ax)], 1, 7.0, 3.6)


def frontiers() -> Figure:
    """Cost against load, time to first token, and power."""
    kinds: list[Any] = ["load", "ttft-p95", "power"]
    frames = {kind: find_frontier(problem("limited"), kind, points=12) for kind in kinds}
    draw = [lambda ax, k=k: plots.plot_frontier(frames[k], k, currency="cents", ax=ax) for k in kinds]
    return panels(draw, 3, 4.2, 3.2)


def targets() -> Figure:
    """Every promise of the sample against its limit."""
    return panels([lambda ax: plots.plot_targets(plan("limited"), ax=ax)], 1, 8.0, 5.6)


def engine() -> Figure:
    """One engine against its rate."""
    figures: dict[str, Any] = {
        "alpha_ms": 11.0, "beta_ms": 0.12, "gamma_ms": 14.0, "delta_ms": 0.045, "input_tokens": 300.0,
        "output_tokens": 200.0, "max_batch": 64,
    }  # fmt: skip
    promised = Targets(ttft_ms={"p95": 200.0}, itl_ms=25.0)
    highest = float(queueing.size(**figures, ttft_ms={"p95": 200.0}, itl_ms=25.0).max_rate_per_s)
    found = queueing.analyze(**figures, rate_per_s=[1.15 * highest * i / 80 for i in range(81)])
    kinds: list[Any] = ["ttft_ms", "itl_ms"]
    draw = [
        lambda ax, k=k: plots.plot_analysis(found, k, targets=promised, max_rate_per_s=highest, ax=ax) for k in kinds
    ]
    return panels(draw, 2, 5.0, 3.2)


FIGURES: dict[str, Callable[[], Figure]] = {
    "cost_parts": cost_parts,
    "engine": engine,
    "frontiers": frontiers,
    "prices": prices,
    "sweep": swept,
    "targets": targets,
    **{
        f"{name}-{what.__name__}": partial(what, name)
        for name in EXAMPLES
        for what in (assignment, accelerators, servers, *((changes, differences) if name.endswith("change") else ()))
    },
}
