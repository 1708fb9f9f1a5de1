"""Measured throughputs by bucket and accelerator, in Mélange's layout, and the plan that they come to.

Source of the layout: Mélange (arXiv:2404.14527): `gpu_info` with `cost` and `tputs` (requests/s of one GPU, by input
and output size), `workload_distribution`, `total_request_rate`. Its `slice_factor` is not used: buckets are not cut.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from inferno_milp.errors import Fault, InputError
from inferno_milp.plan import DEFAULT_GAP
from inferno_milp.planning.routing.check import check_shares
from inferno_milp.planning.routing.program import Cut, Limits, Others, Pools, Routed, solve_routing
from inferno_milp.problem.fields import Count, Model, Name, NonNegative, Positive, PositiveCount
from inferno_milp.problem.reading.source import Source, load_source
from inferno_milp.problem.reading.validate import validate
from inferno_milp.program.deadline import until
from inferno_milp.program.highs_engine import Result

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Matrix = Annotated[tuple[tuple[NonNegative, ...], ...], Field(min_length=1)]


logger = logging.getLogger(__name__)

SHARES_OFF = 0.01
NEEDED = ("gpu_info", "workload_distribution", "total_request_rate")


class MeasuredGpu(Model):
    """One of `gpu_info`."""

    cost: NonNegative
    """Price per hour."""
    tputs: Matrix
    """Highest rate of one GPU under the targets, requests/s, by input and output size; 0 where it cannot serve."""
    count: Count | None = None
    """GPUs that there are; None: any number."""


class ThroughputTable(Model):
    """Throughputs by bucket, and the requests that come."""

    model_config = ConfigDict(extra="ignore")

    gpu_info: dict[Name, MeasuredGpu] = {}  # noqa: RUF012 - pydantic copies it
    """By name."""
    workload_distribution: Matrix = ((1.0,),)
    """Parts of the requests, by input and output size."""
    total_request_rate: Positive = 1.0
    """Rate of all requests, requests/s."""
    slice_factor: PositiveCount = 1
    """Not used."""

    def rates_per_s(self) -> FloatArray:
        """Return the rate of each bucket, inputs × outputs."""
        return np.array(self.workload_distribution) * self.total_request_rate


@dataclass(frozen=True, slots=True)
class TablePlan:
    """GPUs, and which requests each carries.

    Attributes
    ----------
    status : optimal, feasible (not proven), infeasible (proven), no_solution.
    gpus : how many, by name.
    cost_per_hour, bound : None without a plan.
    weights : by name, the part of each bucket that it carries, inputs × outputs.
    unrouted_gpus, unrouted_cost_per_hour : the same for a router that does not look at sizes; None if it cannot be.
    """

    status: Result
    gpus: dict[str, int]
    cost_per_hour: float | None
    bound: float | None
    weights: dict[str, FloatArray]
    unrouted_gpus: dict[str, int] | None
    unrouted_cost_per_hour: float | None

    def to_frame(self) -> pd.DataFrame:
        """Return the router's table: a row for each bucket and GPU that it goes to, buckets by row and column."""
        import pandas as pd

        rows = [
            (int(i), int(j), name, float(matrix[i, j]))
            for name, matrix in self.weights.items()
            for i, j in np.argwhere(matrix > 0)
        ]
        return pd.DataFrame(rows, columns=["input_bucket", "output_bucket", "gpu", "weight"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "status": self.status,
            "gpus": self.gpus,
            "cost_per_hour": self.cost_per_hour,
            "bound": self.bound,
            "weights": {name: matrix.tolist() for name, matrix in self.weights.items()},
            "unrouted_gpus": self.unrouted_gpus,
            "unrouted_cost_per_hour": self.unrouted_cost_per_hour,
        }


def is_throughput_table(data: Any) -> bool:
    """Return whether a document is in Mélange's layout."""
    return isinstance(data, dict) and "gpu_info" in data


def read_throughput_table(path: str | PathLike[str]) -> ThroughputTable:
    """Read a file in Mélange's layout, JSON or YAML.

    Raises
    ------
    InputError
        With every fault of it.
    """
    return table_of(load_source(Path(path), fspath(path)))


def table_of(source: Source) -> ThroughputTable:
    """Return what a file holds; InputError with every fault of it."""
    validated = validate(ThroughputTable, source.data)
    faults = [*source.faults, *map(source.placed, validated.faults)]
    faults += [source.fault(f"{key} is missing", "", (key,)) for key in NEEDED if key not in source.data]
    if not faults:
        table: ThroughputTable = validated.model
        faults = [source.placed(fault) for fault in _faults(table)]
        if not faults:
            return table
    raise InputError(faults)


def _faults(table: ThroughputTable) -> list[Fault]:
    shape = [len(row) for row in table.workload_distribution]
    faults = []
    if not table.gpu_info:
        faults.append(Fault("names no GPU", "", ("gpu_info",)))
    if len(set(shape)) > 1:
        faults.append(Fault("rows of different lengths", "", ("workload_distribution",)))
    if not np.any([share > 0 for row in table.workload_distribution for share in row]):
        faults.append(Fault("all shares are 0", "", ("workload_distribution",)))
    for name, gpu in table.gpu_info.items():
        if [len(row) for row in gpu.tputs] != shape:
            faults.append(Fault("not of the shape of workload_distribution", "", ("gpu_info", name, "tputs")))
    return faults


def route_table(table: ThroughputTable, *, time_limit_s: float = math.inf, gap: float = DEFAULT_GAP) -> TablePlan:
    """Find GPUs and shares of least cost.

    Parameters
    ----------
    time_limit_s : seconds; a plan found but not proven by then has status "feasible". It costs no more than one for
        which everybody gets the same mix.
    gap : relative gap between cost and bound at which a plan counts as optimal.

    Raises
    ------
    PlanCheckError
        If the plan does not pass its check: a defect of this program.
    """
    total = float(np.sum(table.workload_distribution))
    if abs(total - 1) > SHARES_OFF:
        logger.warning(
            "the workload distribution sums to %.4g: %.6g requests/s", total, total * table.total_request_rate
        )
    shape = np.shape(table.workload_distribution)
    rates = table.rates_per_s().ravel()
    wanted = np.flatnonzero(rates > 0)
    names = list(table.gpu_info)
    price = np.array([gpu.cost for gpu in table.gpu_info.values()])
    limits = Limits(np.array([math.inf if gpu.count is None else float(gpu.count) for gpu in table.gpu_info.values()]))
    throughput = np.array([np.ravel(gpu.tputs) for gpu in table.gpu_info.values()])[:, wanted]
    with np.errstate(divide="ignore"):
        weights = rates[wanted] / throughput
    left_s = until(time.perf_counter() + time_limit_s)
    # Everybody gets the same mix: a GPU that cannot serve one of its buckets cannot serve it.
    alike = weights.sum(axis=1, keepdims=True)
    unrouted = _solve(alike, price, limits, gap, left_s())
    check_shares(alike, price, limits.devices, unrouted)
    found = _no_dearer(_solve(weights, price, limits, gap, left_s()), unrouted, len(wanted))
    check_shares(weights, price, limits.devices, found)
    parts = {}
    for i, name in enumerate(names if found.cost is not None else []):
        matrix = np.zeros(rates.size)
        matrix[wanted] = found.shares[i]
        parts[name] = matrix.reshape(shape)
    return TablePlan(
        status=found.outcome,
        gpus=_counts(names, found) or {},
        cost_per_hour=found.cost,
        bound=found.bound,
        weights=parts,
        unrouted_gpus=_counts(names, unrouted),
        unrouted_cost_per_hour=unrouted.cost,
    )


def _no_dearer(found: Routed, unrouted: Routed, buckets: int) -> Routed:
    """Return what was found, or the same mix for everybody where that costs less.

    So it may where the time ran out, or where throughputs are so far apart that tolerances swallow the smallest. What
    HiGHS took for a bound is none then.
    """
    if unrouted.cost is None or (found.cost is not None and found.cost <= unrouted.cost):
        return found
    bound = None if found.bound is None or found.bound > unrouted.cost else found.bound
    shares = [np.repeat(part, buckets) for part in unrouted.shares]
    return replace(unrouted, outcome="feasible", shares=shares, bound=bound)


def _counts(names: list[str], found: Routed) -> dict[str, int] | None:
    return None if found.cost is None else dict(zip(names, found.replicas.tolist(), strict=True))


def _solve(weights: FloatArray, price: FloatArray, limits: Limits, gap: float, time_limit_s: float) -> Routed:
    count, buckets = weights.shape
    pools = Pools(
        buckets=(buckets,),
        least=np.zeros(1, dtype=np.int64),
        most=np.array([math.inf]),
        server=np.zeros(count, dtype=np.int64),
        price=price,
        usage=np.eye(count),
        spare=np.zeros(count, dtype=np.int64),
    )
    cuts = [Cut(i, weights[i]) for i in range(count)]
    return solve_routing(pools, cuts, Others.none(count), limits, gap=gap, time_limit_s=time_limit_s)
