"""What a plan is made of: allocations with their targets and profiles, servers, devices, nodes, changes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

NESTED = ("targets", "batch_sizes", "profile")
"""What an allocation says in lists of its own, which have no place in a row of a frame."""
PROFILE_COLUMNS = {
    "kind": "profile_kind",
    "precision": "precision",
    "engine": "engine",
    "engine_version": "engine_version",
    "ttft_error": "profile_ttft_error",
    "itl_error": "profile_itl_error",
}
"""Columns of a frame for what an allocation says of its profile."""


@dataclass(frozen=True, slots=True)
class TargetUse:
    """A promise of latency, and the latency at the rate of an allocation.

    Attributes
    ----------
    latency : `ttft_ms` or `itl_ms`.
    statistic : `mean`, or a percentile, `p95`.
    limit_ms, value_ms : the promise, and what the analysis finds.
    """

    latency: str
    statistic: str
    limit_ms: float
    value_ms: float


@dataclass(frozen=True, slots=True)
class BatchSizeChoice:
    """What a server would take with another max batch size.

    Attributes
    ----------
    max_rate_per_s : highest rate of one replica under the targets, requests/s; 0 where they cannot be met.
    replicas, cost_per_hour : replicas that carry the server's rate, and their price; None where they cannot.
    """

    batch_size: int
    max_rate_per_s: float
    replicas: int | None
    cost_per_hour: float | None


@dataclass(frozen=True, slots=True)
class ProfileUse:
    """What an allocation's speed rests on, as its profile's `origin` says; None where it does not.

    Attributes
    ----------
    kind : `measured` or `estimated`.
    precision : of the weights.
    engine, engine_version : inference engine that was measured.
    ttft_error, itl_error : mean relative errors of the mean latencies.
    """

    kind: str | None
    precision: str | None
    engine: str | None
    engine_version: str | None
    ttft_error: float | None
    itl_error: float | None

    @property
    def is_known(self) -> bool:
        """Whether anything is known."""
        return any(getattr(self, name) is not None for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class UsedProfile:
    """A profile that a plan uses, by model and accelerator, and what it rests on."""

    model: str
    accelerator: str
    profile: ProfileUse


@dataclass(frozen=True, slots=True)
class Allocation:
    """A candidate with a number of replicas and its share of the server's traffic.

    Attributes
    ----------
    share : fraction of the server's traffic.
    rate_per_s : rate that each replica carries, requests/s.
    max_rate_per_s : highest rate of one replica under the targets, on average over the times that it is there and those
        that it is not (interruptions of its pool), requests/s; None without a load.
    cost_per_hour : price of all replicas.
    devices : devices of the type that all replicas take.
    power_w, max_power_w : power that all replicas draw, and would at their highest rate; None where that of the
        accelerator is not known.
    wait_ms : mean time in the queue at `rate_per_s`; None without a load, as all that follow.
    ttft_ms, ttft_p95_ms, ttft_p99_ms, itl_ms, itl_p95_ms : latencies at `rate_per_s`: means, and percentiles.
    utilization : mean running requests of a replica as a fraction of the batch size.
    targets : each latency promise, and what it comes to.
    batch_sizes : what smaller and larger batches on the same accelerator would take; where many were analysed, some of
        them, further and further apart.
    """

    accelerator: str
    type: str
    batch_size: int
    replicas: int
    share: float
    rate_per_s: float
    max_rate_per_s: float | None
    cost_per_hour: float
    devices: int
    power_w: float | None
    max_power_w: float | None
    wait_ms: float | None
    ttft_ms: float | None
    ttft_p95_ms: float | None
    ttft_p99_ms: float | None
    itl_ms: float | None
    itl_p95_ms: float | None
    utilization: float | None
    targets: tuple[TargetUse, ...]
    batch_sizes: tuple[BatchSizeChoice, ...]
    profile: ProfileUse = ProfileUse(None, None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class MissedTarget:
    """A promise that no accelerator can keep, and what is planned instead.

    Attributes
    ----------
    latency, statistic : `ttft_ms` or `itl_ms`, and `mean` or a percentile.
    promised_ms : the promise.
    planned_ms : limit that is planned for in its place: the least attainable, and a margin.
    """

    latency: str
    statistic: str
    promised_ms: float
    planned_ms: float


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """What a plan does for a server.

    Attributes
    ----------
    offered_rate_per_s : the load's arrival rate.
    required_rate_per_s : rate the allocations must carry: the offered one, or more for a target in tokens per second.
    served_rate_per_s : rate of the offered load that is served within the targets, or within those planned for.
    meets_targets : whether all of it is served within the targets. If not, and there are allocations all the same, the
        server is planned for the best attainable latencies (`missed`), or these are best effort: each replica carries
        the highest rate that keeps the targets.
    is_carried : whether all of its rate is carried, with what it wants in reserve: within the targets, or within the
        best attainable latencies where no accelerator can keep the promises.
    reason : why it does not meet its targets, in words; None if it does.
    missed : promises that no accelerator can keep.
    """

    name: str
    service_class: str
    model: str
    priority: int
    offered_rate_per_s: float
    required_rate_per_s: float
    served_rate_per_s: float
    meets_targets: bool
    is_carried: bool
    reason: str | None
    allocations: tuple[Allocation, ...]
    missed: tuple[MissedTarget, ...] = ()

    @property
    def cost_per_hour(self) -> float:
        """Price of the server's allocations."""
        return math.fsum(a.cost_per_hour for a in self.allocations)


@dataclass(frozen=True, slots=True)
class CapacityUse:
    """Devices of a type: how many there are (None: no limit) and how many the plan uses."""

    type: str
    available: int | None
    used: int


@dataclass(frozen=True, slots=True)
class PriorityUse:
    """Servers of a priority, by their weights: how much there is, is served in full, and could be at the most.

    `could` is proven: no plan serves more of this priority and as much of those before it.
    """

    priority: int
    weight: float
    served: float
    could: float


@dataclass(frozen=True, slots=True)
class Running:
    """Replicas on an accelerator."""

    accelerator: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a server's allocations.

    Attributes
    ----------
    before, after : what it ran, and what it is to run.
    cost_difference_per_hour : price after less price before.
    moves : whether it runs on other accelerators than before.
    """

    server: str
    before: tuple[Running, ...]
    after: tuple[Running, ...]
    cost_difference_per_hour: float
    moves: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """Replicas of a server in a node."""

    server: str
    accelerator: str
    replicas: int


@dataclass(frozen=True, slots=True)
class NodeUse:
    """A node and what it holds.

    Attributes
    ----------
    type, devices : of the node.
    used : devices that are in use.
    """

    type: str
    devices: int
    used: int
    holds: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class SolverRun:
    """Which solver made the plan."""

    name: str
    version: str
    wall_s: float


def allocation_row(allocation: Allocation) -> dict[str, Any]:
    """Return an allocation as a row of a frame."""
    row = {name: getattr(allocation, name) for name in Allocation.__slots__ if name not in NESTED}
    return {**row, **{PROFILE_COLUMNS[name]: getattr(allocation.profile, name) for name in PROFILE_COLUMNS}}


def server_dict(server: ServerPlan) -> dict[str, Any]:
    """Return a server as plain data, without its name."""
    result = asdict(server)
    del result["name"]
    return result
