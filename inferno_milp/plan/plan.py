"""A plan, and how it is written: as a summary, as frames and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from inferno_milp.errors import Fault, InputError
from inferno_milp.plan.parts import (
    NESTED,
    PROFILE_COLUMNS,
    Allocation,
    CapacityUse,
    Change,
    NodeUse,
    Placed,
    PriorityUse,
    ServerPlan,
    SolverRun,
    UsedProfile,
    allocation_row,
    server_dict,
)

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
DEFAULT_GAP = 1e-4
"""Relative gap between cost and bound at which a plan counts as optimal, unless another is asked for."""


@dataclass(frozen=True, slots=True, repr=False)
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

    def __repr__(self) -> str:
        cost = "no plan" if self.total_cost_per_hour is None else f"{self.total_cost_per_hour:.10g} {self.currency}/h"
        return f"<Plan {self.problem_name}: {self.status}, {cost}, {self.served_words}>"

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Return the plan as text: its cost and what is proven of it, and a line for each allocation.

        Examples
        --------
        >>> import inferno_milp as im
        >>> plan = im.optimize(im.read_problem("instances/small.yaml"))
        >>> print(plan.summary().splitlines()[0])
        small: 38.3 usd/h, optimal, one accelerator per server (bound 38.3, gap 0.00%); 6 of 6 servers served
        """
        from inferno_milp.plan.summary import headline, summary_frame

        return f"{headline(self)}\n\n{summary_frame(self).to_string(index=False)}"

    def _repr_html_(self) -> str:
        from html import escape

        from inferno_milp.plan.summary import headline, summary_frame

        return f"<p>{escape(headline(self))}</p>{summary_frame(self).to_html(index=False)}"

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
    def served_count(self) -> int:
        """Number of servers that are served in full within their targets."""
        return len(self.servers) - len(self.unserved)

    @property
    def served_words(self) -> str:
        """How many servers are served, in words."""
        return f"{self.served_count} of {len(self.servers)} servers served"

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
            "servers": {server.name: server_dict(server) for server in self.servers},
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
            allocations: list[dict[str, Any]] = [allocation_row(a) for a in server.allocations] or [{}]
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
