"""Explanations, prices, what-ifs, sweeps and changes of load, laid out for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.differences import diff
from inferno_milp.explanation import PARTS, Alternative, Explanation, ServerExplanation
from inferno_milp.load_change import Scaling
from inferno_milp.plan import Plan
from inferno_milp.prices import Prices, TargetPrice, Worth
from inferno_milp.purchase import words_of_items
from inferno_milp.reasons import latency_name
from inferno_milp.report.grid import Grid, fitted, make_grid
from inferno_milp.report.plans import changes_table

if TYPE_CHECKING:
    import pandas as pd

PART_WORDS = {
    "load": "the load itself",
    "reserve": "reserve",
    "survive": "replicas whose loss is survived",
    "min_replicas": "minimum replicas",
    "whole_replicas": "rounding up to whole replicas",
    "limits": "too few devices, and other limits",
    "best_effort": "best effort",
}


def explanation_report(why: Explanation, console: Console, *, detailed: bool) -> Iterator[RenderableType]:
    """Lay out an explanation: what the cost is made of, then each server.

    Parameters
    ----------
    detailed : whether every alternative is shown, or a sentence for each server.
    """
    currency = why.plan.currency
    for server in why.servers:
        if detailed:
            yield Text(server.words(currency))
            yield Text()
            yield _alternatives_table(server, currency, console)
        else:
            yield Text(f"- {server.words(currency)}")
        if detailed:
            yield Text()
    if not detailed:
        yield Text()
    if why.conflict is not None:
        yield Text(f"conflict: {why.conflict}", style="red")
    if why.purchase:
        yield Text(f"to buy: {words_of_items(why.purchase)}, the cheapest devices to add")
    if why.total_cost_per_hour is None:
        return
    rows = [(PART_WORDS[name], f"{why.parts[name]:.8g}") for name in PARTS if why.parts[name]]
    rows.append(("total", f"{why.total_cost_per_hour:.10g}"))
    yield fitted(make_grid(("the plan pays for",), (f"{currency}/h",), rows), console)


def _alternatives_table(server: ServerExplanation, currency: str, console: Console) -> RenderableType:
    rows = [
        (
            Text(a.accelerator, style="bold" if a.is_chosen else ""),
            _whole(a.batch_size),
            "" if a.max_rate_per_s is None else f"{60 * a.max_rate_per_s:.4g}",
            _whole(a.replicas),
            _whole(a.devices),
            "" if a.cost_per_hour is None else f"{a.cost_per_hour:.6g}",
            a.binds or "",
            _added(a),
            _why(a),
        )
        for a in server.alternatives
    ]
    numbers = ("batch", "max/min", "repl.", "devices", f"{currency}/h", "adds")
    columns = ("accelerator", *numbers[:-1], "binds", "adds", "why not")
    return fitted(Grid(columns, tuple(rows), frozenset(numbers), ("batch", "devices", "binds")), console)


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _added(alternative: Alternative) -> str:
    if alternative.adds_per_hour is None:
        return ""
    return f"{'' if alternative.is_exact else '~'}{alternative.adds_per_hour:+.6g}"


def _why(alternative: Alternative) -> str:
    if alternative.is_chosen:
        return "in the plan"
    if alternative.unserved:
        return f"leaves {', '.join(alternative.unserved)} unserved"
    if alternative.reason is not None:
        return alternative.reason
    if alternative.taken_by:
        name, count = alternative.taken_by[0]
        others = len(alternative.taken_by) - 1
        return f"{alternative.type} taken by {name} ({count})" + (f" and {others} more" if others else "")
    return ""


def prices_report(prices: Prices, console: Console) -> Iterator[RenderableType]:
    """Lay out prices of devices and of promises."""
    currency = prices.plan.currency
    if prices.devices:
        rows = [
            (
                price.type if price.devices == 1 else f"{price.devices} {price.type} (node)",
                f"{price.used}",
                f"{price.available}",
                _saving(price.one_more),
                "none" if price.one_fewer is None else _saving(price.one_fewer, sign=-1),
                "–" if price.dual_per_hour is None else f"{price.dual_per_hour:.6g}",
            )
            for price in prices.devices
        ]
        numbers = ("used", "available", "one more saves", "one fewer costs", "dual")
        yield fitted(make_grid(("device",), numbers, rows, ("dual",)), console)
        yield Text()
    dear = [price for price in prices.targets if price.worth.saves_per_hour or price.worth.served]
    if dear:
        cells = ((price.service_class, price.model, _promise(price), f"{price.relaxed:.6g}", _saving(price.worth))
                 for price in dear)  # fmt: skip
        yield fitted(make_grid(("class", "model", "promise"), ("if it were", "saves"), cells), console)
    rest = len(prices.targets) - len(dear)
    if rest:
        looser = "the other" if dear else "the"
        yield Text(f"{looser} {rest} promises: a little looser, they would save nothing")
    yield Text(f"{currency}/h, by planning anew; ~ where it is not proven to the last digit")


def _promise(price: TargetPrice) -> str:
    if price.statistic is None:
        return f"{price.value:g} tokens/s"
    return f"{latency_name(price.target, price.statistic)} ≤ {price.value:g} ms"


def _saving(worth: Worth, *, sign: int = 1) -> str:
    if worth.served or worth.unserved:
        words = [f"serves {name}" for name in worth.served] + [f"{name} unserved" for name in worth.unserved]
        return ", ".join(words)
    if worth.saves_per_hour is None:
        return "–"
    return f"{'' if worth.is_exact else '~'}{sign * worth.saves_per_hour + 0.0:.6g}"


def difference_report(before: Plan, after: Plan, console: Console) -> Iterator[RenderableType]:
    """Lay out the difference of two plans: servers, devices, totals."""
    changes = diff(before, after)
    if changes:
        yield changes_table(changes, after.currency, console)
        yield Text()
    was = {use.type: use for use in before.capacity}
    uses = [(was.get(use.type), use) for use in after.capacity]
    rows = [
        (use.type, str(old.used if old else 0), str(use.used), _available(use.available))
        for old, use in uses
        if old is None or (old.used, old.available) != (use.used, use.available)
    ]  # fmt: skip
    if rows:
        yield fitted(make_grid(("type",), ("used before", "after", "available"), rows), console)
        yield Text()
    for name in after.unserved:
        if name not in before.unserved:
            yield Text(f"no longer served in full: {name}", style="red")
    for name in before.unserved:
        if name not in after.unserved:
            yield Text(f"now served in full: {name}", style="green")
    for word, plan in (("before", before), ("after", after)):
        cost = "no plan" if plan.total_cost_per_hour is None else f"{plan.total_cost_per_hour:.10g} {plan.currency}/h"
        served = len(plan.servers) - len(plan.unserved)
        yield Text(f"{word}: {cost}, {plan.status}, {served} of {len(plan.servers)} served")
    if before.total_cost_per_hour is not None and after.total_cost_per_hour is not None:
        more = after.total_cost_per_hour - before.total_cost_per_hour
        yield Text(f"difference: {more:+.10g} {after.currency}/h", style="bold")


def _available(devices: int | None) -> str:
    return "no limit" if devices is None else str(devices)


def sweep_table(frame: pd.DataFrame, console: Console) -> RenderableType:
    """Lay out a sweep or a frontier: what was varied, then what came of it."""
    columns = list(frame.columns)
    axes = columns[: columns.index("status")]
    shown = [*axes, "status", "total_cost_per_hour", "gap", "replicas", "power_w", "ttft_p95_ms", "unserved"]
    has_errors = frame.error.notna().any()
    rows = [
        tuple(_cell(name, row[name]) for name in [*shown, *(["error"] if has_errors else [])])
        for row in frame.to_dict("records")
    ]
    heads = {"total_cost_per_hour": "cost/h", "power_w": "power W", "ttft_p95_ms": "TTFT p95", "is_efficient": "best"}
    names = [heads.get(name, name) for name in shown] + (["error"] if has_errors else [])
    texts = ("status", "unserved", "is_efficient", "error")
    numbers = frozenset(heads.get(name, name) for name in shown if name not in texts)
    return fitted(Grid(tuple(names), tuple(rows), numbers, ("gap", "power W", "replicas", "TTFT p95")), console)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–" if name != "error" else ""
    if name == "gap":
        return f"{value:.2%}"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def scaling_table(scaling: Scaling, console: Console) -> Sequence[RenderableType]:
    """Lay out what one server may do when its load changes."""
    currency = scaling.before.currency
    words = {
        "before": "before the change",
        "scaled": "more or fewer replicas where it is",
        "moved": "it may move, the others stay",
        "replanned": "everybody may move",
    }
    rows = [
        (
            words[row["plan"]],
            row["accelerator"] or "nothing",
            row["unserved"],
            str(row["replicas"]),
            f"{row['cost_per_hour']:.6g}",
            "–" if row["total_cost_per_hour"] is None else f"{row['total_cost_per_hour']:.10g}",
            str(row["moves"]),
        )
        for row in scaling.to_frame().to_dict("records")
    ]
    numbers = ("repl.", f"its {currency}/h", f"all {currency}/h", "moves")
    return [fitted(make_grid((scaling.server, "accelerator", "not served"), numbers, rows), console)]
