"""Sweeps: every combination of some figures of a problem, planned anew, as a frame; and efficient frontiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, get_args

import numpy as np

from inferno_milp.errors import OptionError
from inferno_milp.plan import DEFAULT_GAP, SERVING_ALL, Plan
from inferno_milp.planning.optimize import optimize
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import Setting, read_target
from inferno_milp.studies.whatif import frame_of, outcome_of, plan_cases

if TYPE_CHECKING:
    import pandas as pd

Against = Literal["load", "power", "ttft-p95"]
AGAINST: tuple[str, ...] = get_args(Against)
"""What a frontier sets cost against."""
MEASURED = {"load": "load_factor", "power": "power_w", "ttft-p95": "ttft_p95_ms"}
"""Column of the frame that holds what cost is set against."""
LOADS = (0.25, 2.0)
"""Factors of the load, first and last, of a frontier of cost against load."""
TIGHTEST = 0.05
"""Strictest limit of the time to first token that a frontier tries, as a part of that of the plan of least cost."""
HALVINGS = 7
CHEAP = 1e-6
"""Factor on all prices at which next to energy they count for nothing."""
MOST_CASES = 100_000
EQUAL = 1e-9


class Running(TypedDict, total=False):
    """How cases are run, as in `cases.plan_cases`."""

    gap: float
    time_limit_s: float | None
    jobs: int
    scheduler: str | None
    on_done: Callable[[int, int], None] | None
    into: Path | None


def sweep(problem: Problem, axes: Mapping[str, Sequence[Any]], **running: Unpack[Running]) -> pd.DataFrame:
    """Plan every combination of values.

    Parameters
    ----------
    axes : by the path of what is set, its values: `{"servers.*.load.rate_per_s *=": [0.5, 1, 2], "capacity.H100":
        [48, 64]}`. Paths are those of `with_settings`.
    **running : `gap`, `time_limit_s`, `jobs=1`, `scheduler=None`, `on_done=None`, `into=None`: see `plan_cases`.

    Returns
    -------
    DataFrame
        A row for each combination, the last axis fastest: a column for each axis, named as it was given, then
        `status`, `total_cost_per_hour`, `objective`, `bound`, `gap`, `power_w`, `servers_served`, `unserved` (names),
        `replicas`, `ttft_p95_ms` (the highest of all allocations), `error`, and `devices_TYPE` for each accelerator
        type. Nothing in it depends on who did the work, or when, unless there is a time limit.

    Raises
    ------
    InputError, OptionError
        As `plan_cases` does.
    """
    targets = {name: read_target(name) for name in axes}
    count = int(np.prod([len(values) for values in axes.values()], dtype=float))
    if not axes or not count:
        raise OptionError("a sweep needs something to vary, and values for it")
    if count > MOST_CASES:
        raise OptionError(f"{count:,} cases are more than {MOST_CASES:,}")
    combinations = list(product(*axes.values()))
    cases = [
        tuple(Setting(*target, value) for target, value in zip(targets.values(), values, strict=True))
        for values in combinations
    ]
    outcomes = plan_cases(problem, cases, **running)
    return frame_of([dict(zip(axes, values, strict=True)) for values in combinations], outcomes)


def find_frontier(
    problem: Problem,
    against: Against,
    *,
    points: int = 12,
    values: Iterable[float] | None = None,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Find what less power, a shorter time to first token, or more load costs.

    For power and time to first token it is the efficient (Pareto) frontier, by the ε-constraint method: the least cost
    with every limit of a grid on the other one. For load there is nothing to choose: it is the curve of least cost.

    Parameters
    ----------
    against : "power": the power of all replicas; "ttft-p95": the highest 95th percentile of the time to first token of
        any allocation, each server's own promises kept; "load": a factor on every server's rate.
    points : limits that are tried, from the plan of least cost to where not everybody can be served.
    values : limits (W, ms) or factors in place of those.
    **running : as in `sweep`.

    Returns
    -------
    DataFrame
        As of `sweep`, after a column `limit` (`load_factor` for load), and `is_efficient`: whether it serves everybody
        and no other row costs less and is no worse, or costs no more and is better.

    Raises
    ------
    InputError, OptionError
        As `plan_cases` does; OptionError also if the plan of least cost does not serve everybody, so that there is
        nothing to begin from.
    """
    if against not in AGAINST:
        raise OptionError(f"cost can be set against {', '.join(AGAINST)}, not {against!r}")
    if points < 2:
        raise OptionError(f"points must be at least 2, not {points}")
    if against == "load":
        factors = [*(np.geomspace(*LOADS, points).tolist() if values is None else values)]
        frame = sweep(problem, {"servers.*.load.rate_per_s *=": factors}, **running)
        frame = frame.rename(columns={"servers.*.load.rate_per_s *=": "load_factor"})
        frame.insert(1, "is_efficient", frame.status.isin(SERVING_ALL))
        return frame
    base = optimize(problem, gap=running.get("gap", DEFAULT_GAP), time_limit_s=running.get("time_limit_s"))
    if not base.serves_all:
        raise OptionError(f"{', '.join(base.unserved)} cannot be served in full: no frontier begins there")
    limits = [*(_limits(problem, base, against, points, running.get("time_limit_s")) if values is None else values)]
    cases = [_limited(problem, against, limit) for limit in limits]
    outcomes = [outcome_of(base), *plan_cases(problem, cases, **running)]
    frame = frame_of([{"limit": limit} for limit in (None, *limits)], outcomes).astype({"limit": "float64"})
    frame.insert(1, "is_efficient", _efficient(frame, MEASURED[against]))
    return frame


def _limits(problem: Problem, base: Plan, against: Against, points: int, time_limit_s: float | None) -> list[float]:
    """Limits between the plan of least cost and the strictest that can be kept."""
    found = outcome_of(base)
    if against == "ttft-p95":
        if not found.ttft_p95_ms:
            raise OptionError("no server has a time to first token that could be shorter")
        strictest = _strictest(problem, found.ttft_p95_ms, time_limit_s)
        return [float(x) for x in np.geomspace(found.ttft_p95_ms, strictest, points)[1:]]
    if found.power_w is None:
        running = {a.accelerator for server in base.servers for a in server.allocations}
        unknown = [a.name for a in problem.accelerators if a.name in running and a.power is None]
        if not unknown:
            raise OptionError("nothing runs, and so nothing draws power")
        raise OptionError(f"the power of {', '.join(unknown)} is not known: give the accelerator its `power`")
    # With energy so dear that nothing else counts, the plan of least power.
    free = [Setting("accelerators.*.cost_per_hour", "*=", CHEAP), Setting("options.energy_price_per_kwh", "=", 1000.0)]
    if problem.options.max_cost_per_hour is not None:
        free.append(Setting("options.max_cost_per_hour", "*=", CHEAP))
    least = plan_cases(problem, [tuple(free)], gap=1e-6, time_limit_s=time_limit_s)[0].power_w
    if least is None or least >= found.power_w:
        return [found.power_w]
    return [float(x) for x in np.linspace(found.power_w, least, points)[1:] * (1 + EQUAL)]


def _strictest(problem: Problem, kept_ms: float, time_limit_s: float | None) -> float:
    """Strictest limit of the time to first token that can be kept, found by halving; `kept_ms` is one that can."""
    failed_ms = TIGHTEST * kept_ms
    for _ in range(HALVINGS):
        limit = float(np.sqrt(failed_ms * kept_ms))
        case = _limited(problem, "ttft-p95", limit)
        (found,) = plan_cases(problem, [case], gap=0.01, time_limit_s=time_limit_s)
        failed_ms, kept_ms = (failed_ms, limit) if found.serves_all else (limit, kept_ms)
    return kept_ms


def _limited(problem: Problem, against: Against, limit: float) -> tuple[Setting, ...]:
    """Return settings that hold a case to a limit, without loosening what was promised before."""
    if against == "power":
        old = problem.options.max_power_w
        return (Setting("options.max_power_w", "=", float(limit if old is None else min(limit, old))),)
    result = []
    for service_class in problem.service_classes:
        for model, targets in service_class.targets.items():
            promised = {name: ms for latency, name, ms in targets.limits_ms() if latency == "ttft_ms"}
            if promised.get("p95", np.inf) > limit:
                path = f"service_classes.{service_class.name}.targets.{model}.ttft_ms.p95"
                result.append(Setting(path, "=", float(limit)))
    return tuple(result)


def _efficient(frame: pd.DataFrame, measured: str) -> list[bool]:
    """Whether no other row that serves everybody costs less and is no worse, or costs no more and is better."""
    good = frame.status.isin(SERVING_ALL).to_numpy()
    cost, other = frame.total_cost_per_hour.to_numpy(float), frame[measured].to_numpy(float)
    result: list[bool] = []
    for i in range(len(frame)):
        no_worse = good & (cost <= cost[i] * (1 + EQUAL)) & (other <= other[i] * (1 + EQUAL))
        better = (cost < cost[i] * (1 - EQUAL)) | (other < other[i] * (1 - EQUAL))
        twin_before = no_worse[:i] & ~better[:i]
        result.append(bool(good[i] and not (no_worse & better).any() and not twin_before.any()))
    return result
