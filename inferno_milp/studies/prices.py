"""What a device more or fewer, and a looser promise, are worth: found by planning anew, not by duals alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.options import make_program
from inferno_milp.columns.shortfall import latency_name
from inferno_milp.errors import OptionError
from inferno_milp.plan import Plan
from inferno_milp.planning.optimize import optimize
from inferno_milp.planning.purchase import Purchase, purchasable, settings_of, widened
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import Setting
from inferno_milp.program.relaxation import solve_relaxation
from inferno_milp.studies.whatif import Worth, compare, outcome_of, plan_cases

if TYPE_CHECKING:
    import pandas as pd

RELAXED = 0.1
"""How much looser a promise is made to see what it costs."""
PRICED = ("devices", "promises")
EACH_S = 10.0
"""Seconds for each plan, unless told otherwise."""
PRECISION = 1e-7
"""Relative tolerance of the prices of the relaxation."""


@dataclass(frozen=True, slots=True)
class DevicePrice:
    """What devices of a type are worth.

    Attributes
    ----------
    type, devices : the type, and how many of its devices come at once: those of a node, or one.
    available, used : of the type's devices.
    one_more, one_fewer : what becomes of the plan; `one_fewer` is None where there is none to lose.
    dual_per_hour : price of one more in the linear relaxation, where allocations may be fractions; None where not all
        servers are served, and for a type without limit.
    """

    type: str
    devices: int
    available: int
    used: int
    one_more: Worth
    one_fewer: Worth | None
    dual_per_hour: float | None

    @property
    def matters(self) -> bool:
        """Whether one more or one fewer makes any difference, as far as is known."""
        return self.one_more.matters or (self.one_fewer is not None and self.one_fewer.matters)


@dataclass(frozen=True, slots=True)
class TargetPrice:
    """What a promise costs: what it would save to promise a tenth less.

    Attributes
    ----------
    service_class, model, target, statistic : which promise: `ttft_ms`, `itl_ms` or `tps`; of a latency its mean or a
        percentile, `p95`.
    value, relaxed : the promise, and the looser one.
    """

    service_class: str
    model: str
    target: str
    statistic: str | None
    value: float
    relaxed: float
    worth: Worth

    @property
    def words(self) -> str:
        """The promise itself: `TTFT ≤ 1000 ms`."""
        if self.statistic is None:
            return f"{self.value:g} tokens/s"
        return f"{latency_name(self.target, self.statistic)} ≤ {self.value:g} ms"


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of devices and of promises.

    Attributes
    ----------
    plan : what they are measured against.
    relaxed : how much looser the promises were made.
    devices : by type; empty without limits.
    targets : the dearest first.
    """

    plan: Plan
    relaxed: float
    devices: tuple[DevicePrice, ...]
    targets: tuple[TargetPrice, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers, text and None."""
        return {
            "currency": self.plan.currency,
            "status": self.plan.status,
            "objective": self.plan.objective,
            "relaxed": self.relaxed,
            "devices": [asdict(price) for price in self.devices],
            "targets": [asdict(price) for price in self.targets],
        }

    def devices_frame(self) -> pd.DataFrame:
        """Return one row per type, or size of node."""
        import pandas as pd

        columns = ["type", "devices", "available", "used", "saves_per_hour", "saves_is_exact", "serves",
                   "loses_per_hour", "loses_is_exact", "unserves", "dual_per_hour"]  # fmt: skip
        rows = [
            {
                "type": price.type,
                "devices": price.devices,
                "available": price.available,
                "used": price.used,
                "saves_per_hour": price.one_more.saves_per_hour,
                "saves_is_exact": price.one_more.is_exact,
                "serves": ", ".join(price.one_more.served),
                "loses_per_hour": _negative(price.one_fewer),
                "loses_is_exact": None if price.one_fewer is None else price.one_fewer.is_exact,
                "unserves": "" if price.one_fewer is None else ", ".join(price.one_fewer.unserved),
                "dual_per_hour": price.dual_per_hour,
            }
            for price in self.devices
        ]
        return pd.DataFrame(rows, columns=columns)

    def targets_frame(self) -> pd.DataFrame:
        """Return one row per promise."""
        import pandas as pd

        columns = ["service_class", "model", "target", "statistic", "value", "relaxed", "saves_per_hour", "is_exact",
                   "serves"]  # fmt: skip
        rows = [
            {
                **{name: getattr(price, name) for name in columns[:6]},
                "saves_per_hour": price.worth.saves_per_hour,
                "is_exact": price.worth.is_exact,
                "serves": ", ".join(price.worth.served),
            }
            for price in self.targets
        ]
        return pd.DataFrame(rows, columns=columns)


def _negative(worth: Worth | None) -> float | None:
    return None if worth is None or worth.saves_per_hour is None else -worth.saves_per_hour + 0.0


def find_prices(
    problem: Problem,
    *,
    plan: Plan | None = None,
    gap: float = 0.0,
    time_limit_s: float | None = EACH_S,
    relaxed: float = RELAXED,
    of: Collection[str] = PRICED,
    jobs: int = 1,
    scheduler: str | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> Prices:
    """Find what one device more and one fewer of each type is worth, and what each promise costs.

    Parameters
    ----------
    plan : the plan of the problem, if there is one already; it should be as exact as `gap` says.
    gap : relative gap of each plan; with 0 each difference is exact, with more it may be off by the gaps.
    time_limit_s : of each plan, seconds; None is no limit.
    relaxed : by how much promises are made looser: latencies are multiplied by 1 + this, tokens/s by 1 − this.
    of : what is priced, "devices", "promises" or both; each promise is a plan of its own.
    jobs, scheduler, on_done : as in `spread`.

    Raises
    ------
    OptionError
        For an option that cannot be.
    """
    if not 0 < relaxed < 1:
        raise OptionError(f"relaxed must be within (0, 1), not {relaxed}")
    if not set(of) <= set(PRICED):
        raise OptionError(
            f"prices are those of {' and '.join(PRICED)}, not of {', '.join(sorted(set(of) - set(PRICED)))}"
        )
    if plan is None:
        plan = optimize(problem, gap=gap, time_limit_s=time_limit_s, advised=False)
    table = find_attainable_candidates(problem)
    items = purchasable(table) if problem.capacity is not None and "devices" in of else []
    promises = list(_promises(problem, relaxed)) if "promises" in of else []
    more = [settings_of(problem, [item]) for item in items]
    fewer = [settings_of(problem, [replace(item, count=-1)]) if _has(problem, item) else None for item in items]
    cases = [*more, *(case for case in fewer if case is not None), *(case for _, case in promises)]
    outcomes = iter(
        plan_cases(problem, cases, gap=gap, time_limit_s=time_limit_s, jobs=jobs, scheduler=scheduler, on_done=on_done)
    )
    before = outcome_of(plan)
    gains = [compare(before, next(outcomes)) for _ in more]
    losses = [None if case is None else compare(before, next(outcomes)) for case in fewer]
    duals = _duals(table, items) if plan.serves_all else [None] * len(items)
    use = {capacity.type: capacity for capacity in plan.capacity}
    devices = tuple(
        DevicePrice(item.type, item.devices, use[item.type].available or 0, use[item.type].used, gain, loss, dual)
        for item, gain, loss, dual in zip(items, gains, losses, duals, strict=True)
    )
    targets = [replace(promise, worth=compare(before, next(outcomes))) for promise, _ in promises]
    targets.sort(key=lambda price: (-len(price.worth.served), -(price.worth.saves_per_hour or 0.0)))
    return Prices(plan, relaxed, devices, tuple(targets))


def _has(problem: Problem, item: Purchase) -> bool:
    """Whether there is one to lose."""
    sizes = [group for group in problem.nodes if group.type == item.type]
    if sizes:
        return any(group.devices == item.devices and group.count for group in sizes)
    return bool((problem.capacity or {}).get(item.type))


def _duals(table: Candidates, items: Sequence[Purchase]) -> list[float | None]:
    """Prices of one more of each item in the linear relaxation."""
    program = make_program(table)
    if not len(program.servers):
        return [0.0] * len(items)
    relaxation = solve_relaxation(program.master, tolerance=PRECISION, covers=program.covers)
    prices = dict(zip(relaxation.master.limits, relaxation.prices.tolist(), strict=True))
    of_limits = np.array([prices.get(name, 0.0) for name in program.limits.names])
    return [float(of_limits @ widened(table, program.limits, item)) for item in items]


def _promises(problem: Problem, relaxed: float) -> Iterator[tuple[TargetPrice, tuple[Setting, ...]]]:
    """Every promise that a server relies on, each with the settings that make it looser."""
    nothing = Worth(None, is_exact=False, served=(), unserved=(), is_known=False)
    for class_name, model, targets in problem.promises():
        path = f"service_classes.{class_name}.targets.{model}"
        for latency, statistic, limit in targets.limits_ms():
            looser = limit * (1 + relaxed)
            yield (
                TargetPrice(class_name, model, latency, statistic, limit, looser, nothing),
                (Setting(f"{path}.{latency}.{statistic}", "=", looser),),
            )
        if targets.tps is not None:
            looser = targets.tps * (1 - relaxed)
            yield (
                TargetPrice(class_name, model, "tps", None, targets.tps, looser, nothing),
                (Setting(f"{path}.tps", "=", looser),),
            )
