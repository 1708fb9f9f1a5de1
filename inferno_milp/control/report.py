"""What a round found, decided and did: one object, which is the status, the log and the answer of `/invoke`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from inferno_milp.control.collector import Observation
from inferno_milp.plan import Plan

Outcome = Literal["done", "failed", "told"]
Role = Literal["leader", "follower", "unknown"]


@dataclass(frozen=True, slots=True)
class Applied:
    """A step, and what became of it.

    Attributes
    ----------
    step : in words.
    outcome : `done`; `failed`; or only `told`, since nothing is to be changed.
    reason : why it failed.
    """

    deployment: str
    step: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServerReport:
    """A server in a round.

    Attributes
    ----------
    observation : what it did; None without a deployment.
    planned_rate_per_s : rate that is planned for; None where it is left alone.
    running, ready : replicas asked for, and serving, by accelerator.
    target : what it is to run; None where it is left alone.
    reason : why.
    waiting : what it waits for.
    """

    observation: Observation | None
    planned_rate_per_s: float | None
    running: Mapping[str, int]
    ready: Mapping[str, int]
    target: Mapping[str, int] | None
    reason: str
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentReport:
    """A deployment in a round.

    Attributes
    ----------
    current, desired : replicas that are asked for, and that are to be by the end of the round.
    """

    namespace: str
    name: str
    accelerator: str
    current: int
    desired: int


@dataclass(frozen=True, slots=True)
class Report:
    """A round.

    Attributes
    ----------
    at_s : when, s since 1970.
    round : its number, from 1.
    plan : that was followed; None if there was none.
    errors : what went wrong, in words.
    capacity : devices of each type that the servers may hold, and that they hold; empty without limits.
    running_cost_per_hour : of all devices that are held.
    deployments : those that are controlled.
    seconds : that the round took.
    advice : plan of the servers that are deployed nowhere yet; None if there are none.
    """

    at_s: float
    round: int
    role: Role
    plan: Plan | None
    servers: Mapping[str, ServerReport]
    steps: tuple[Applied, ...] = ()
    errors: tuple[str, ...] = ()
    capacity: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    running_cost_per_hour: float = 0.0
    deployments: tuple[DeploymentReport, ...] = ()
    seconds: float = 0.0
    advice: Plan | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a step waits for room, so that the next round should be soon."""
        return any(server.waiting for server in self.servers.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without NaN; the plan in short."""
        document = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("plan", "advice", "servers", "steps", "deployments")
        }
        plan = self.plan
        document["plan"] = None if plan is None else {
            "status": plan.status,
            "total_cost_per_hour": plan.total_cost_per_hour,
            "currency": plan.currency,
            "gap": plan.gap,
            "unserved": {s.name: s.reason for s in plan.servers if not s.meets_targets},
        }  # fmt: skip
        document["servers"] = {name: asdict(server) for name, server in self.servers.items()}
        document["deployments"] = [asdict(deployment) for deployment in self.deployments]
        document["steps"] = [asdict(step) for step in self.steps]
        found = _plain(document)
        assert isinstance(found, dict)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
