"""Result types: a plan, its allocations, and how they are written as frames and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from inferno_milp.errors import Fault, InputError

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["optimal", "feasible", "partial", "infeasible", "no_solution"]
"""optimal: proven within the gap asked for; feasible: serves everybody, not proven; partial: some are not served in
full; infeasible: proven that nobody can be; no_solution: the time ran out before any plan was found."""

SERVING_ALL = ("optimal", "feasible")
"""Statuses of plans that serve everybody in full."""
SolverName = Literal["milp", "greedy"]
SOLVERS: tuple[str, ...] = get_args(SolverName)
MOST_FAULTS = 20
"""Faults told of a file that is no plan."""
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
DEFAULT_GAP = 1e-4
"""Relative gap between cost and bound at which a plan counts as optimal, unless another is asked for."""


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


@dataclass(frozen=True, slots=True)
class Plan:
    """The allocations of all servers, what they cost, and what is proven of that.

    Attributes
    ----------
    status : see `Status`.
    total_cost_per_hour : price of all allocations, in `currency`; None without a plan.
    objective : value of the optimization's objective; None without allocations of an optimization.
    objective_parts : what it is the sum of: `price` of the servers served in full, and what `changes`, `energy` and
        `carbon` are charged; empty without an objective.
    bound : proven lower bound of the objective, for plans that serve as much of each priority; None where nothing is
        proven.
    gap : (objective − bound) / objective; None where nothing is proven.
    stages_s : seconds spent in each stage.
    power_w : power that all replicas draw; None where an accelerator's is not known.
    priorities : where not all servers are served by the program, how much of each priority is, and could be.
    changes : servers that do not run what they run today.
    nodes : nodes in use, of the types that come in nodes.
    messages : what the user should know besides.
    assignment : what plans were considered: of one accelerator per server, or of any mix.
    rests_on_estimates : whether profiles were considered that are estimated, not measured.
    """

    problem_name: str
    currency: str
    status: Status
    total_cost_per_hour: float | None
    objective: float | None
    objective_parts: dict[str, float]
    bound: float | None
    gap: float | None
    solver: SolverRun
    stages_s: dict[str, float]
    servers: tuple[ServerPlan, ...]
    capacity: tuple[CapacityUse, ...]
    power_w: float | None = None
    priorities: tuple[PriorityUse, ...] = ()
    changes: tuple[Change, ...] = ()
    nodes: tuple[NodeUse, ...] = ()
    messages: tuple[str, ...] = ()
    assignment: Literal["single", "mixed"] = "single"
    rests_on_estimates: bool = False

    @property
    def used_profiles(self) -> tuple[UsedProfile, ...]:
        """Profiles that the plan uses, each once."""
        used = {(s.model, a.accelerator): a.profile for s in self.servers for a in s.allocations}
        return tuple(UsedProfile(model, accelerator, use) for (model, accelerator), use in used.items())

    @property
    def is_cost_the_objective(self) -> bool:
        """Whether the objective is the cost of all allocations, nothing else charged and nothing given on top."""
        if self.objective is None or self.total_cost_per_hour is None:
            return True
        return math.isclose(self.objective, self.total_cost_per_hour, rel_tol=1e-9, abs_tol=1e-12)

    @property
    def unserved(self) -> tuple[str, ...]:
        """Names of the servers that are not served in full within their targets."""
        return tuple(server.name for server in self.servers if not server.meets_targets)

    @property
    def short(self) -> tuple[str, ...]:
        """Names of the servers whose rate is not carried in full."""
        return tuple(server.name for server in self.servers if not server.is_carried)

    @property
    def serves_all(self) -> bool:
        """Whether every server is fully served."""
        return not self.unserved

    @property
    def solving_s(self) -> float:
        """Seconds spent on building and solving, the analysis of the candidates apart."""
        return self.stages_s.get("build", 0.0) + self.stages_s.get("solve", 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as the JSON document of docs/plan.md: plain dicts, lists, numbers, text and None."""
        return {
            "problem": self.problem_name,
            "currency": self.currency,
            "status": self.status,
            "total_cost_per_hour": self.total_cost_per_hour,
            "objective": self.objective,
            "objective_parts": dict(self.objective_parts),
            "bound": self.bound,
            "gap": self.gap,
            "solver": asdict(self.solver),
            "stages_s": dict(self.stages_s),
            "assignment": self.assignment,
            "rests_on_estimates": self.rests_on_estimates,
            "power_w": self.power_w,
            "messages": list(self.messages),
            "servers": {server.name: _server_dict(server) for server in self.servers},
            "capacity": {use.type: {"available": use.available, "used": use.used} for use in self.capacity},
            "priorities": [asdict(use) for use in self.priorities],
            "changes": [asdict(change) for change in self.changes],
            "nodes": [asdict(node) for node in self.nodes],
        }

    @classmethod
    def from_dict(cls, document: Any) -> Plan:
        """Read back what `to_dict` wrote; keys it did not write are left alone.

        Raises
        ------
        InputError
            With everything that is wrong with the document.
        """
        from pydantic import TypeAdapter, ValidationError

        fields = dict(document) if isinstance(document, dict) else {}
        fields["problem_name"] = fields.get("problem")
        for name, key in (("servers", "name"), ("capacity", "type")):
            if isinstance(fields.get(name), dict):
                fields[name] = [{**_mapping(part), key: label} for label, part in fields[name].items()]
        try:
            return TypeAdapter(cls).validate_json(json.dumps(fields, allow_nan=False), strict=True)
        except (ValueError, TypeError) as error:
            if not isinstance(error, ValidationError):
                raise InputError([Fault(f"no plan: {error}")]) from None
            details = error.errors(include_url=False)
            raise InputError(
                [Fault(f"{d['msg']}, in a plan", "", _place(d["loc"])) for d in details[:MOST_FAULTS]]
            ) from None

    def nodes_frame(self) -> pd.DataFrame:
        """Return one row per server and accelerator in a node: what sits where."""
        import pandas as pd

        rows = [
            {"node": i, "type": node.type, "devices": node.devices, "used": node.used, **asdict(placed)}
            for i, node in enumerate(self.nodes)
            for placed in node.holds
        ]
        return pd.DataFrame(rows, columns=["node", "type", "devices", "used", *Placed.__slots__])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per allocation (and one for each server without any), with units in the columns' names."""
        import pandas as pd

        rows = []
        for server in self.servers:
            head = {
                "server": server.name,
                "service_class": server.service_class,
                "model": server.model,
                "priority": server.priority,
                "offered_rate_per_s": server.offered_rate_per_s,
                "required_rate_per_s": server.required_rate_per_s,
                "served_rate_per_s": server.served_rate_per_s,
                "meets_targets": server.meets_targets,
                "is_carried": server.is_carried,
                "reason": server.reason,
            }
            allocations: list[dict[str, Any]] = [_allocation_row(a) for a in server.allocations] or [{}]
            rows += [{**head, **allocation} for allocation in allocations]
        names = [*(name for name in Allocation.__slots__ if name not in NESTED), *PROFILE_COLUMNS.values()]
        columns = [*rows[0], *(name for name in names if name not in rows[0])] if rows else []
        frame = pd.DataFrame(rows, columns=columns)
        whole = {name: "Int64" for name in ("batch_size", "replicas", "devices") if name in frame}
        return frame.astype(whole)

    def capacity_frame(self) -> pd.DataFrame:
        """Return one row per accelerator type: devices available (missing: no limit) and used."""
        import pandas as pd

        frame = pd.DataFrame([asdict(use) for use in self.capacity], columns=["type", "available", "used"])
        return frame.astype({"available": "Int64", "used": "Int64"}).set_index("type")


def _place(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return tuple("problem" if part == "problem_name" else part for part in location)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _allocation_row(allocation: Allocation) -> dict[str, Any]:
    row = {name: getattr(allocation, name) for name in Allocation.__slots__ if name not in NESTED}
    return {**row, **{PROFILE_COLUMNS[name]: getattr(allocation.profile, name) for name in PROFILE_COLUMNS}}


def _server_dict(server: ServerPlan) -> dict[str, Any]:
    result = asdict(server)
    del result["name"]
    return result
