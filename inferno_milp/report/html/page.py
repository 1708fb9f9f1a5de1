"""Makes the page: plans, explains, prices, sweeps and simulates a problem, and fills the template."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from inferno_milp._version import __version__
from inferno_milp.errors import InfernoError
from inferno_milp.plan import DEFAULT_GAP, Plan
from inferno_milp.plan.claims import profile_rows, proof_sentence
from inferno_milp.planning.optimize import optimize
from inferno_milp.problem import Problem
from inferno_milp.report.html.templates import load_template
from inferno_milp.report.plots import (
    figure_bytes,
    new_figure,
    plot_assignment,
    plot_capacity,
    plot_cost_parts,
    plot_device_prices,
    plot_frontier,
    plot_servers,
    plot_simulation,
    plot_target_prices,
    plot_targets,
)
from inferno_milp.studies.explain import explain
from inferno_milp.studies.explanation import Explanation, ServerExplanation
from inferno_milp.studies.prices import Prices, find_prices
from inferno_milp.studies.simulate import PlanSimulation, simulate_plan
from inferno_milp.studies.sweeps import MEASURED, find_frontier

if TYPE_CHECKING:
    import pandas as pd

REPORT_STAGES = ("plan", "explain", "price", "sweep", "simulate", "draw")
REQUESTS = 4000
"""Requests simulated for each allocation."""
POINTS = 9
"""Points of a curve."""
MOST_SENTENCES = 4
COMPARE_S = 20.0
"""Seconds for all plans that are compared with this one."""
MOST_COMPARED = 12
"""Servers, the dearest ones, for which every other accelerator is tried."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as a data address, and what it shows, in words."""

    address: str
    words: str


def report_html(
    problem: Problem,
    *,
    plan: Plan | None = None,
    requests: int = REQUESTS,
    gap: float = DEFAULT_GAP,
    time_limit_s: float | None = None,
    jobs: int = 1,
    made: datetime.date | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> str:
    """Make the page of a problem.

    Parameters
    ----------
    plan : of the problem, if there is one already.
    requests : simulated for each allocation.
    gap, time_limit_s : of the plan; the plans that it is compared with have limits of their own.
    jobs : processes for the plans that it is compared with.
    made : date on the page; today by default.
    on_stage : called with the name of each of `REPORT_STAGES` as it begins.

    Returns
    -------
    str
        HTML that needs nothing else: figures and style are in it, and nothing is fetched.

    Raises
    ------
    OptionError
        For an option that cannot be.
    """
    announce = on_stage or (lambda _: None)
    template = load_template("inferno_milp.report.html", "report.html")
    announce("plan")
    if plan is None:
        plan = optimize(problem, gap=gap, time_limit_s=time_limit_s)
    announce("explain")
    dearest = sorted(plan.servers, key=lambda server: -server.cost_per_hour)[:MOST_COMPARED]
    names = [server.name for server in dearest]
    exactly = plan.gap if plan.gap is not None and plan.gap < gap else gap
    why = explain(problem, plan=plan, compared=names, gap=exactly, compare_time_s=COMPARE_S)
    announce("price")
    prices = find_prices(problem, plan=plan, gap=exactly, jobs=jobs)
    announce("sweep")
    curves, notes = _curves(problem, plan, jobs)
    announce("simulate")
    has_load = any(a.ttft_ms is not None for server in plan.servers for a in server.allocations)
    simulation = simulate_plan(problem, plan, requests=requests) if has_load else None
    announce("draw")
    return template.render(
        plan=plan,
        problem=problem,
        proof=proof_sentence(plan),
        profiles=profile_rows(plan.used_profiles),
        why=why,
        reasons=[_reasons(server) for server in why.servers],
        compared=len(names),
        sentences=_sentences(plan, why),
        prices=prices,
        scarce=[p for p in prices.devices if p.matters or p.dual_per_hour],
        targets=[p for p in prices.targets if p.worth.matters],
        unknown=sum(not p.worth.is_known for p in prices.targets),
        off=[] if simulation is None else [a for a in simulation.allocations if a.off],
        simulation=simulation,
        pictures=_pictures(plan, why, prices, simulation),
        curves=curves,
        notes=notes,
        version=__version__,
        made=(made or datetime.date.today()).isoformat(),
    )


def _reasons(server: ServerExplanation) -> dict[str, Any]:
    """One row of the table of reasons."""
    cheapest = server.cheapest
    best = server.next_best if server.reason is None else None
    return {
        "name": server.name,
        "runs_on": " + ".join(server.accelerators) or "nothing",
        "cost_per_hour": server.cost_per_hour,
        "binds": " and ".join(server.binds),
        "alone_per_hour": None if cheapest is None else cheapest.cost_per_hour,
        "alone_on": "" if cheapest is None else cheapest.accelerator,
        "next_best": "" if best is None else best.accelerator,
        "adds_per_hour": None if best is None else best.adds_per_hour,
        "about": "" if best is None or best.is_exact else "~",
    }


def _sentences(plan: Plan, why: Explanation) -> list[str]:
    """Words on who is not served in full, and on those that pay most for what others have."""
    short = [server.words(plan.currency) for server in why.servers if server.reason is not None]
    paying = sorted(why.servers, key=lambda server: -server.parts.get("limits", 0.0))
    paying = [server for server in paying if server.parts.get("limits", 0.0) > 0 and server.reason is None]
    return [*short, *(server.words(plan.currency) for server in paying[:MOST_SENTENCES])]


def _picture(draw: Callable[[Axes], Any], words: str, width: float = 7.0, height: float = 3.6) -> Picture:
    figure, ax = new_figure(width, height)
    draw(ax)
    data = base64.b64encode(figure_bytes(figure, "svg")).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{data}", words)


def _pictures(plan: Plan, why: Explanation, prices: Prices, simulation: PlanSimulation | None) -> dict[str, Picture]:
    models = len({server.model for server in plan.servers})
    classes = len({server.service_class for server in plan.servers})
    rows, kinds = 1.0 + 0.6 * classes, 0.9 + 0.32 * len(plan.capacity)
    found = {
        "assignment": _picture(
            lambda ax: plot_assignment(plan, ax=ax),
            "What each service class and model runs on",
            1.5 + 1.0 * max(models, 5),
            rows,
        ),
        "capacity": _picture(lambda ax: plot_capacity(plan, ax=ax), "Devices in use", 7.0, kinds),
    }
    if plan.total_cost_per_hour:
        tall = 1.0 + 0.2 * len(plan.servers)
        found |= {
            "cost": _picture(lambda ax: plot_servers(plan, ax=ax), "What each model and service class costs", 9.0, 3.2),
            "targets": _picture(lambda ax: plot_targets(plan, ax=ax), "Latencies against their limits", 8.0, tall),
            "parts": _picture(lambda ax: plot_cost_parts(why, ax=ax), "What the cost is made of", 8.0, 3.2),
        }
    if any(p.matters or p.dual_per_hour for p in prices.devices):
        found["devices"] = _picture(
            lambda ax: plot_device_prices(prices, ax=ax), "What a device more or fewer is worth", 7.5, 3.0
        )
    if any(price.worth.saves_per_hour for price in prices.targets):
        found["promises"] = _picture(lambda ax: plot_target_prices(prices, ax=ax), "What promises cost", 8.0, 3.6)
    if simulation is not None:
        for name, words in (("ttft_ms", "mean time to first token"), ("itl_ms", "mean inter-token latency")):
            found[name] = _picture(
                lambda ax, name=name: plot_simulation(simulation, name, ax=ax),  # type: ignore[misc]
                f"{words}, predicted and simulated",
                4.2,
                3.8,
            )
    return found


def _only_one(frame: pd.DataFrame, against: str, plan: Plan) -> str:
    """Return what there is instead of a curve, where one plan is best in both."""
    best, first = frame[frame.is_efficient].iloc[0], frame.iloc[0]
    name = MEASURED[against]
    if best[name] >= first[name] * (1 - 1e-6):
        return "nothing better can be had at any price."
    unit, scale = ("kW", 1000) if against == "power" else ("ms at the highest", 1)
    cost, less, more = best.total_cost_per_hour, best[name] / scale, first[name] / scale
    return (
        f"nothing. At {cost:.8g} {plan.currency}/h it can be {less:.4g} {unit} instead of {more:.4g}, "
        "by other batch sizes or accelerators of the same price."
    )


def _curves(problem: Problem, plan: Plan, jobs: int) -> tuple[list[Picture], list[str]]:
    """Cost against load, time to first token and power; in words why one of them is not there."""
    pictures, notes = [], []
    words = {
        "load": "What more or less load costs",
        "ttft-p95": "What a shorter time to first token costs",
        "power": "What less power costs",
    }
    for against, what in words.items():
        try:
            frame = find_frontier(problem, against, points=POINTS, jobs=jobs, time_limit_s=10.0)  # type: ignore[arg-type]
        except InfernoError as error:
            notes.append(f"{what}: {error}")
            continue
        if frame.is_efficient.sum() < 2 and against != "load":
            notes.append(f"{what}: {_only_one(frame, against, plan)}")
            continue
        pictures.append(
            _picture(
                lambda ax, frame=frame, against=against: plot_frontier(  # type: ignore[misc]
                    frame, against, currency=plan.currency, ax=ax
                ),
                what,
                4.6,
                3.4,
            )
        )
    return pictures, notes
