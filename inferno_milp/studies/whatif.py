"""What-if cases: a problem with other figures, planned anew, and what comes of it in a few words and numbers."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.columns.candidates import Candidates
from inferno_milp.errors import Fault, InfernoError, InputError
from inferno_milp.plan import DEFAULT_GAP, SERVING_ALL, Plan, Status
from inferno_milp.planning.optimize import plan_candidates
from inferno_milp.planning.workers import Lost, spread
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import Setting, with_settings
from inferno_milp.studies.outcomes import Parts, fingerprint

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
logger = logging.getLogger(__name__)

NUMBERS = ("total_cost_per_hour", "objective", "bound", "gap", "power_w", "ttft_p95_ms", "servers_served", "replicas")
"""Columns of outcomes that are numbers, besides the devices of each type."""

MOST_FAULTS = 20
"""Faults told of many cases, which mostly have one cause."""
_ANALYSED: list[Candidates] = []
"""The candidates of the problem that this process had cases of last."""
_ONE_AT_A_TIME = threading.Lock()
"""Pyomo keeps state for a whole process, and the workers of a Dask cluster may have threads."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case.

    Attributes
    ----------
    status : of the plan; None if there is none, for a defect, or because workers died over it.
    total_cost_per_hour, objective, bound, gap, power_w : as in `Plan`.
    servers_served : servers served in full.
    unserved : names of the others.
    replicas : of all servers.
    ttft_p95_ms : the highest of all allocations.
    devices : used of each type.
    error : what went wrong, in words; None if nothing did.
    plan : the whole plan, where it was asked for.
    """

    status: Status | None
    total_cost_per_hour: float | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    power_w: float | None = None
    servers_served: int = 0
    unserved: tuple[str, ...] = ()
    replicas: int = 0
    ttft_p95_ms: float | None = None
    devices: tuple[tuple[str, int], ...] = ()
    error: str | None = None
    plan: Plan | None = None

    @property
    def serves_all(self) -> bool:
        """Whether there is a plan that serves everybody."""
        return self.status in SERVING_ALL

    @property
    def is_exact(self) -> bool:
        """Whether it is proven that no plan costs less, to the last digit but rounding, or that there is none."""
        if self.status == "infeasible":
            return True
        return self.objective is not None and self.gap is not None and self.gap <= 1e-9


def outcome_of(plan: Plan) -> Outcome:
    """Sum a plan up."""
    allocations = [a for server in plan.servers for a in server.allocations]
    late = [a.ttft_p95_ms for a in allocations if a.ttft_p95_ms is not None]
    return Outcome(
        status=plan.status,
        total_cost_per_hour=plan.total_cost_per_hour,
        objective=plan.objective,
        bound=plan.bound,
        gap=plan.gap,
        power_w=plan.power_w,
        servers_served=plan.served_count,
        unserved=plan.unserved,
        replicas=sum(a.replicas for a in allocations),
        ttft_p95_ms=max(late, default=None),
        devices=tuple((use.type, use.used) for use in plan.capacity),
    )


@dataclass(frozen=True, slots=True)
class Worth:
    """What becomes of a plan if something changes.

    Attributes
    ----------
    saves_per_hour : objective before less objective after; None where one of them serves others than the other, or
        nothing is known.
    is_exact : whether both plans are proven to be of least cost, to the last digit but rounding. If not, the saving is
        that of the plans found. What is proven is proven of the program: with energy or carbon priced and mixed
        assignment that counts power at each replica's highest rate (docs/optimization.md).
    served, unserved : servers that are served in full only after, and only before, the change.
    is_known : whether there are two plans to compare; False where the time ran out, or one could not be made.
    """

    saves_per_hour: float | None
    is_exact: bool
    served: tuple[str, ...]
    unserved: tuple[str, ...]
    is_known: bool

    @property
    def matters(self) -> bool:
        """Whether the change makes any difference, as far as is known."""
        return bool(self.saves_per_hour or self.served or self.unserved)


KNOWN = ("optimal", "feasible", "partial", "infeasible")


def compare(before: Outcome, after: Outcome) -> Worth:
    """Return what a change is worth."""
    if not (_is_known(before) and _is_known(after)):
        return Worth(None, is_exact=False, served=(), unserved=(), is_known=False)
    served = tuple(name for name in before.unserved if name not in after.unserved)
    unserved = tuple(name for name in after.unserved if name not in before.unserved)
    saves = None if served or unserved else _difference(before.objective, after.objective)
    return Worth(saves, before.is_exact and after.is_exact, served, unserved, is_known=True)


def _is_known(outcome: Outcome) -> bool:
    """Whether a plan says something of the least cost: one with no bound at all is only better than none."""
    return outcome.status in KNOWN and (outcome.status != "feasible" or outcome.bound is not None)


def _difference(before: float | None, after: float | None) -> float | None:
    """Return what is saved, 0 where it is but rounding."""
    if before is None and after is None:
        return 0.0  # nobody can be served, before and after
    if before is None or after is None:
        return None
    saved = before - after
    return saved if abs(saved) > 1e-9 * max(abs(before), abs(after)) else 0.0


def guarded(plan: Callable[[], Outcome]) -> Outcome:
    """Plan, one plan at a time in this process; what goes wrong is told in the outcome."""
    try:
        with _ONE_AT_A_TIME:
            return plan()
    except InfernoError as error:
        return Outcome(None, error=str(error))
    except Exception as error:
        logger.exception("a case could not be planned")
        return Outcome(None, error=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans a case; picklable."""

    problem: Problem
    gap: float
    time_limit_s: float | None

    def __call__(self, settings: tuple[Setting, ...]) -> Outcome:
        return guarded(lambda: outcome_of(self._plan(with_settings(self.problem, settings))))

    def _plan(self, problem: Problem) -> Plan:
        """Plan; servers that are as in the problem itself are analysed once for all cases."""
        known = _ANALYSED[0] if _ANALYSED else None
        if known is None or known.problem is not self.problem:
            _ANALYSED[:] = [known := find_attainable_candidates(self.problem, known=known)]
        table = find_attainable_candidates(problem, known=known)
        return plan_candidates(table, gap=self.gap, time_limit_s=self.time_limit_s)


def plan_cases(
    problem: Problem,
    cases: Sequence[tuple[Setting, ...]],
    *,
    gap: float = DEFAULT_GAP,
    time_limit_s: float | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    on_done: Callable[[int, int], None] | None = None,
    into: Path | None = None,
) -> list[Outcome]:
    """Plan every case.

    Parameters
    ----------
    cases : the settings of each; all are tried on the problem before any is planned.
    gap, time_limit_s : of each, as in `optimize`.
    jobs, scheduler, on_done : as in `spread`.
    into : a folder into which outcomes are written as they come, as Parquet; those that it has already are taken.

    Raises
    ------
    InputError
        With what is wrong with the settings.
    OptionError
        As in `optimize` and `spread`.
    """
    faults: dict[Fault, None] = {}
    for settings in cases:
        try:
            with_settings(problem, settings)
        except InputError as error:
            faults.update(dict.fromkeys(error.faults))
    if faults:
        more = len(faults) - MOST_FAULTS
        told = [*faults][:MOST_FAULTS]
        raise InputError([*told, *([Fault(f"and {more} more faults like these")] if more > 0 else [])])
    planner = _Planner(problem, gap, time_limit_s)
    of = fingerprint(problem, list(cases), gap, time_limit_s)
    return run_cases(planner, cases, of=of, into=into, jobs=jobs, scheduler=scheduler, on_done=on_done)


def run_cases(
    planner: Callable[[T], Outcome],
    cases: Sequence[T],
    *,
    of: str,
    names: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    into: Path | None,
    jobs: int,
    scheduler: str | None,
    on_done: Callable[[int, int], None] | None,
) -> list[Outcome]:
    """Have every case planned, by many workers or here, and outcomes kept in a folder as they come.

    Parameters
    ----------
    planner : plans a case.
    of : which cases these are, by `fingerprint`.
    names, keys : of each case; outcomes in the folder are known again by their key. None: by their number.
    into, jobs, scheduler, on_done : as in `plan_cases`.
    """
    if into is None:
        return [_told(item) for item in spread(planner, cases, jobs=jobs, scheduler=scheduler, on_done=on_done)]
    parts = Parts(into, of)
    known = [str(number) for number in range(len(cases))] if keys is None else keys
    number_of = {key: number for number, key in enumerate(known)}
    kept = {number_of[row["key"]]: row for row in parts.read() if row["key"] in number_of}
    found = {number: _from_row(row) for number, row in kept.items()}
    left = [number for number in range(len(cases)) if number not in found]

    def keep(position: int, item: Outcome | Lost) -> None:
        number = left[position]
        found[number] = outcome = _told(item)
        if outcome.error is None and outcome.status != "no_solution":  # what went wrong, or was late, is tried again
            head = {"case": number, "key": known[number], "cluster": None if names is None else names[number]}
            parts.add({**head, **_row(outcome)})

    def done(count: int, _: int) -> None:
        if on_done is not None:
            on_done(len(cases) - len(left) + count, len(cases))

    try:
        spread(planner, [cases[i] for i in left], jobs=jobs, scheduler=scheduler, on_done=done, on_result=keep)
    finally:
        parts.flush()
    return [found[number] for number in range(len(cases))]


def _told(item: Outcome | Lost) -> Outcome:
    return Outcome(None, error=item.reason) if isinstance(item, Lost) else item


def _row(outcome: Outcome) -> dict[str, Any]:
    row = _summary(outcome)
    devices = row.pop("devices")
    row["plan"] = None if outcome.plan is None else json.dumps(outcome.plan.to_dict(), allow_nan=False)
    return {**row, "device_types": [name for name, _ in devices], "device_counts": [count for _, count in devices]}


def _from_row(row: dict[str, Any]) -> Outcome:
    devices = tuple(zip(row["device_types"], row["device_counts"], strict=True))
    heads = ("case", "key", "cluster", "device_types", "device_counts")
    kept = {name: value for name, value in row.items() if name not in heads}
    plan = None if kept["plan"] is None else Plan.from_dict(json.loads(kept["plan"]))
    return Outcome(**{**kept, "unserved": tuple(kept["unserved"]), "devices": devices, "plan": plan})


def frame_of(heads: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return a row for each outcome, after what it is of."""
    import pandas as pd

    rows = []
    for head, outcome in zip(heads, outcomes, strict=True):
        row = {**head, **_summary(outcome)}
        devices = row.pop("devices")
        row["unserved"] = ", ".join(outcome.unserved)
        rows.append({**row, **{f"devices_{name}": used for name, used in devices}})
    frame = pd.DataFrame(rows)
    whole = {name: "Int64" for name in frame if str(name).startswith("devices_")}
    return frame.astype({**dict.fromkeys(NUMBERS[:6], "float64"), **whole})


def _summary(outcome: Outcome) -> dict[str, Any]:
    return {field.name: getattr(outcome, field.name) for field in fields(outcome) if field.name != "plan"}
