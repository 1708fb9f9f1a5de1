"""Tables of plans of several moments."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.plan.claims import ESTIMATED
from inferno_milp.planning.horizon.plans import HorizonPlan
from inferno_milp.report.grid import fitted, make_grid


def moments_table(plan: HorizonPlan, console: Console) -> RenderableType:
    """Lay out a line for each server: what it runs in every moment, those alike together; and what moments cost."""
    return fitted(make_grid(("server", "accelerator", "moments"), ("replicas",), _runs(plan)), console)


def _runs(plan: HorizonPlan) -> Iterator[tuple[Text, str, str, str]]:
    names = [moment.name for moment in plan.moments]
    ways = dict.fromkeys((one.server, one.accelerator) for one in plan.held)
    counts = {(one.server, one.accelerator, one.moment): one.replicas for one in plan.held}
    for server, accelerator in ways:
        begin = 0
        for t in range(1, len(names) + 1):
            now = counts.get((server, accelerator, names[begin]), 0)
            if t < len(names) and counts.get((server, accelerator, names[t]), 0) == now:
                continue
            if now:
                where = names[begin] if t - begin == 1 else f"{names[begin]} … {names[t - 1]}"
                yield Text(server), accelerator, where, f"{now}"
            begin = t


def costs_table(plan: HorizonPlan, console: Console) -> RenderableType:
    """Lay out what every moment costs, and what of the devices is used."""
    types = list(plan.moments[0].devices) if plan.moments else []
    rows: Iterator[tuple[Text | str, ...]] = (
        (
            Text(moment.name + ("" if moment.is_served else " (not everybody in full)")),
            f"{moment.weight:.4g}",
            f"{moment.cost_per_hour:.6g}",
            *(f"{moment.devices[name]}" for name in types),
        )
        for moment in plan.moments
    )
    return fitted(make_grid(("moment",), ("weight", f"{plan.currency}/h", *types), rows), console)


def horizon_lines(plan: HorizonPlan) -> Iterator[str]:
    """Yield what a plan costs, of what parts, and what it reserves."""
    status: str = plan.status
    if plan.rests_on_estimates and status in ("optimal", "infeasible"):
        status = f"{status}, {ESTIMATED}"
    if plan.cost_per_hour is None:
        yield f"{status}: no plan"
        yield from _left_out(plan)
        return
    gap = "" if plan.gap is None or plan.bound is None else f" (bound {plan.bound:.10g}, gap {plan.gap:.2%})"
    yield f"{plan.cost_per_hour:.10g} {plan.currency}/h  {status}{gap}"
    words = {"reserved": "reserved", "extra": "on demand", "starts": "starts and ends"}
    yield ", ".join(f"{words[name]} {value:.6g}" for name, value in plan.parts.items())
    if plan.reserved:
        yield "reserve " + " + ".join(f"{count} × {name}" for name, count in plan.reserved.items())
    yield from _left_out(plan)


def _left_out(plan: HorizonPlan) -> Iterator[str]:
    yield from (f"{one.server} is left out: {one.reason}" for one in plan.unserved)
    yield from (f"{one.server} misses its targets: {one.reason}" for one in plan.missed)
