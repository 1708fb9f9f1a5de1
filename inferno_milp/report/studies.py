"""Explanations, prices, what-ifs, sweeps and changes of load, laid out for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.plan import Plan
from inferno_milp.plan.differences import diff
from inferno_milp.planning.purchase import words_of_items
from inferno_milp.report.grid import Grid, fitted, make_grid
from inferno_milp.report.plans import changes_table, ms
from inferno_milp.studies.explanation import PARTS, Alternative, Explanation, ServerExplanation
from inferno_milp.studies.load_change import Scaling
from inferno_milp.studies.prices import Prices
from inferno_milp.studies.whatif import Worth

if TYPE_CHECKING:
    import pandas as pd


def explanation_report(why: Explanation, console: Console, *, detailed: bool) -> Iterator[RenderableType]:
    """Lay out an explanation: each server, what is at odds, and what the cost is made of.

    Parameters
    ----------
    detailed : whether every alternative is shown, or a line for each server.
    """
    currency = why.plan.currency
    if detailed:
        for server in why.servers:
            yield from (Text(server.words(currency)), Text(), _alternatives_table(server, currency, console), Text())
    else:
        yield from _servers_part(why, console)
    if why.conflict is not None:
        yield Text(f"conflict: {why.conflict}", style="red")
    if why.purchase:
        yield Text(f"to buy: {words_of_items(why.purchase)}, the cheapest devices to add")
    elif why.conflict is not None and why.purchase is None:
        yield Text("to buy: no devices are known that would do, within the other limits and the time")
    if why.total_cost_per_hour is None:
        return
    rows = [(words, _amount(why.parts[name])) for name, words in PARTS.items() if why.parts[name]]
    rows.append(("total", _amount(why.total_cost_per_hour)))
    yield fitted(make_grid(("the plan pays for",), (f"{currency}/h",), rows), console)


def _amount(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 100 else f"{value:.6g}"


def _servers_part(why: Explanation, console: Console) -> Iterator[RenderableType]:
    """Lay out a line for each server, a sentence for those not served in full, and who has what is scarce."""
    currency = why.plan.currency
    rows = []
    for server in (server for server in why.servers if server.reason is None):
        cheapest, best = server.cheapest, server.next_best
        rows.append(
            (
                server.name,
                " + ".join(server.accelerators) or "nothing",
                f"{server.cost_per_hour:.6g}",
                " and ".join(server.binds),
                "" if cheapest is None else f"{cheapest.cost_per_hour:.6g}",
                "" if cheapest is None else cheapest.accelerator,
                "" if best is None else best.accelerator,
                "" if best is None else _added(best),
            )
        )
    if rows:
        tried = any(row[-1] for row in rows)
        columns = ("server", "runs on", f"{currency}/h", "what sets the rate", "alone", "on", "next best", "adds")
        shown = len(columns) if tried else 6
        numbers = frozenset((f"{currency}/h", "alone", "adds"))
        yield fitted(Grid(columns[:shown], tuple(row[:shown] for row in rows), numbers), console)
        yield Text()
    short = [server for server in why.servers if server.reason is not None]
    for server in short:
        yield Text(f"- {server.words(currency)}", style="red")
    taken = [use for use in why.types if use.available is not None and use.used >= use.available > 0]
    for use in taken:
        takers = ", ".join(f"{name} {count}" for name, count in use.takers)
        yield Text(f"all {use.available} {use.type} are taken: {takers}")
    if short or taken:
        yield Text()


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
    return "" if value is None else str(value)


def _added(alternative: Alternative) -> str:
    if alternative.adds_per_hour is None:
        return ""
    return f"{'' if alternative.is_exact else '~'}{alternative.adds_per_hour:+.6g}"


def _why(alternative: Alternative) -> str:
    if alternative.is_chosen:
        return "in the plan"
    if alternative.timed_out:
        return "the time ran out"
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
    dear = [price for price in prices.targets if price.worth.matters]
    if dear:
        cells = ((p.service_class, p.model, p.words, f"{p.relaxed:.6g}", _saving(p.worth)) for p in dear)
        yield fitted(make_grid(("class", "model", "promise"), ("if it were", "saves"), cells), console)
    known = sum(price.worth.is_known for price in prices.targets) - len(dear)
    if known:
        looser = "the other" if dear else "the"
        yield Text(f"{looser} {known} promises: {prices.relaxed:.0%} looser, they would save nothing")
    unknown = [*(p.one_more for p in prices.devices), *(p.one_fewer for p in prices.devices if p.one_fewer)]
    lost = sum(not worth.is_known for worth in (*unknown, *(p.worth for p in prices.targets)))
    if lost:
        yield Text(f"of {lost} plans nothing is known: the time ran out", style="red")
    if prices.plan.unserved:
        names = ", ".join(prices.plan.unserved)
        yield Text(f"not served in full, before and after unless told: {names}", style="red")
    yield Text(f"{currency}/h, by planning anew; ~ where it is not proven to the last digit")


def _saving(worth: Worth, *, sign: int = 1) -> str:
    if worth.served or worth.unserved:
        words = [f"serves {name}" for name in worth.served] + [f"{name} unserved" for name in worth.unserved]
        return ", ".join(words)
    if not worth.is_known:
        return "not known"
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
    yield from _batch_changes(before, after, console)
    uses = [(was.get(use.type), use) for use in after.capacity]
    rows = [
        (use.type, str(old.used if old else 0), str(use.used), _available(use.available))
        for old, use in uses
        if old is None or (old.used, old.available) != (use.used, use.available)
    ]  # fmt: skip
    if rows:
        yield fitted(make_grid(("type",), ("used before", "after", "available"), rows), console)
        yield Text()
    for server in after.servers:
        if server.reason is not None and server.name not in before.unserved:
            yield Text(f"no longer served in full: {server.name}: {server.reason}", style="red")
    for name in before.unserved:
        if name not in after.unserved:
            yield Text(f"now served in full: {name}", style="green")
    for word, plan in (("before", before), ("after", after)):
        cost = "no plan" if plan.total_cost_per_hour is None else f"{plan.total_cost_per_hour:.10g} {plan.currency}/h"
        yield Text(f"{word}: {cost}, {plan.status}, {plan.served_count} of {len(plan.servers)} served")
    if before.total_cost_per_hour is not None and after.total_cost_per_hour is not None:
        more = after.total_cost_per_hour - before.total_cost_per_hour
        fewer = len(after.unserved) - len(before.unserved)
        with_ = "" if not fewer else f", with {abs(fewer)} server(s) {'fewer' if fewer > 0 else 'more'} served in full"
        yield Text(f"difference: {more:+.10g} {after.currency}/h{with_}", style="bold")
        charges = [plan.objective_parts.get("changes", 0.0) for plan in (before, after)]
        if any(charges):
            yield Text(f"besides, changes of accelerator are charged {charges[0]:.6g} before, {charges[1]:.6g} after")
    yield from (Text(f"note, after: {message}") for message in after.messages)


def _batch_changes(before: Plan, after: Plan, console: Console) -> Iterator[RenderableType]:
    """Servers that keep their replicas, but not their batch size or their latencies."""
    old = {server.name: server.allocations for server in before.servers}
    rows = []
    for server in after.servers:
        pairs = zip(old.get(server.name, ()), server.allocations, strict=False)
        for was, is_ in pairs if len(old.get(server.name, ())) == len(server.allocations) else ():
            same = (was.accelerator, was.replicas) == (is_.accelerator, is_.replicas)
            figures = [(was.ttft_ms, is_.ttft_ms), (was.ttft_p95_ms, is_.ttft_p95_ms), (was.itl_ms, is_.itl_ms)]
            differs = any(a != b and (not a or not b or abs(a - b) > 0.005 * a) for a, b in figures)
            if same and (was.batch_size != is_.batch_size or differs):
                latencies = (f"{ms(a)} → {ms(b)}" for a, b in figures)
                rows.append((server.name, f"{was.batch_size} → {is_.batch_size}", *latencies))
    if rows:
        numbers = ("batch", "TTFT ms", "p95", "ITL ms")
        yield fitted(make_grid(("same replicas",), numbers, rows), console)
        yield Text()


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
            "–" if math.isnan(row["total_cost_per_hour"]) else f"{row['total_cost_per_hour']:.10g}",
            str(row["moves"]),
        )
        for row in scaling.to_frame().to_dict("records")
    ]
    numbers = ("repl.", f"its {currency}/h", f"all {currency}/h", "moves")
    return [fitted(make_grid((scaling.server, "accelerator", "not served"), numbers, rows), console)]
