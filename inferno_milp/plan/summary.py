"""A plan at a glance: one line of what it costs and what is proven, and a table of who runs what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferno_milp.plan.claims import bound_words, status_words
from inferno_milp.plan.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "server": "server",
    "accelerator": "accelerator",
    "replicas": "replicas",
    "batch_size": "max batch",
    "cost_per_hour": "{currency}/h",
    "ttft_ms": "TTFT ms",
    "itl_ms": "ITL ms",
}
"""Columns of `Plan.to_frame` that are shown, and their titles."""
DIGITS = {"replicas": 10, "batch_size": 10, "cost_per_hour": 6}
"""Digits of their numbers; of the others four."""


def headline(plan: Plan) -> str:
    """Return what a plan costs, what is proven of it, and how many servers it serves within their targets."""
    cost = "" if plan.total_cost_per_hour is None else f"{plan.total_cost_per_hour:.10g} {plan.currency}/h, "
    return f"{plan.problem_name}: {cost}{status_words(plan)}{bound_words(plan)}; {plan.served_words}"


def summary_frame(plan: Plan) -> pd.DataFrame:
    """Return one row of texts for each allocation, numbers written with the digits that matter."""
    import pandas as pd

    frame = plan.to_frame()
    titles = {name: title.format(currency=plan.currency) for name, title in COLUMNS.items()}
    shown = frame.reindex(columns=[*COLUMNS]).astype(object)
    for name in COLUMNS:
        digits = DIGITS.get(name, 4)
        shown[name] = ["–" if pd.isna(value) else _written(value, digits) for value in shown[name]]
    return shown.rename(columns=titles)


def _written(value: str | float, digits: int) -> str:
    return value if isinstance(value, str) else f"{value:.{digits}g}"
