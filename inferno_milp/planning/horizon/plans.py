"""What plans of periods and of scenarios are made of."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from inferno_milp.plan import UsedProfile
from inferno_milp.program.highs_engine import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Held:
    """Replicas of a server on an accelerator in a moment.

    Attributes
    ----------
    rate_per_s : that all of them carry, requests/s.
    max_rate_per_s : that one of them can under the targets; None without a load.
    """

    moment: str
    server: str
    accelerator: str
    batch_size: int
    replicas: int
    rate_per_s: float
    max_rate_per_s: float | None


@dataclass(frozen=True, slots=True)
class MomentPlan:
    """A moment.

    Attributes
    ----------
    weight : its hours, or its probability.
    is_served : whether everybody is served in full.
    cost_per_hour : of what is reserved, and of what is added to it; starts and ends of replicas apart.
    devices : of each type that are used.
    """

    name: str
    weight: float
    is_served: bool
    cost_per_hour: float
    devices: dict[str, int]


@dataclass(frozen=True, slots=True)
class Unserved:
    """A server that is not served within its targets, and why: it gets nothing in any moment, or misses them."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True)
class HorizonPlan:
    """Replicas in every moment, and what is reserved for all of them.

    Attributes
    ----------
    status : optimal (proven within the gap), feasible (not proven), partial (some servers are left out of all
        moments, or miss their targets), infeasible (proven: not a single server can be served), no_solution (the time
        ran out).
    cost_per_hour : mean over the hours, or expected; of the criterion `worst` the dearest scenario's. None without a
        plan, as `bound` and `gap`.
    parts : of the cost: `reserved`, `extra` (devices beyond), `starts` (starts and ends of replicas).
    reserved : units of each accelerator that are reserved.
    unserved : servers that are left out, since not every server can be served in every moment.
    missed : servers whose promises no accelerator can keep, planned for the best attainable latencies.
    profiles : those that are used, and what they rest on.
    rests_on_estimates : whether profiles were considered that are estimated, not measured.
    """

    problem_name: str
    currency: str
    status: Result | Literal["partial"]
    cost_per_hour: float | None
    bound: float | None
    parts: dict[str, float]
    reserved: dict[str, int]
    moments: tuple[MomentPlan, ...]
    held: tuple[Held, ...]
    unserved: tuple[Unserved, ...] = ()
    missed: tuple[Unserved, ...] = ()
    profiles: tuple[UsedProfile, ...] = ()
    rests_on_estimates: bool = False

    @property
    def has_plan(self) -> bool:
        """Whether there is one."""
        return self.cost_per_hour is not None

    @property
    def gap(self) -> float | None:
        """Relative gap between cost and bound."""
        if self.cost_per_hour is None or self.bound is None:
            return None
        return max(self.cost_per_hour - self.bound, 0.0) / self.cost_per_hour if self.cost_per_hour > 0 else 0.0

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each moment, server and accelerator."""
        import pandas as pd

        return pd.DataFrame([asdict(one) for one in self.held], columns=[*Held.__slots__])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "gap": self.gap}


@dataclass(frozen=True, slots=True)
class PeriodsPlan:
    """A plan of periods, beside what one would do otherwise.

    Attributes
    ----------
    plan : replicas of every period.
    peak_cost_per_hour : of running for each server's peak all the time; None if that cannot be.
    replanned_cost_per_hour : of planning every period by itself, with the starts and ends that this brings; None if
        one of them cannot be.
    replanned_moves : whether that moves servers between accelerators, which the plan may not.
    """

    plan: HorizonPlan
    peak_cost_per_hour: float | None
    replanned_cost_per_hour: float | None
    replanned_moves: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "plan": self.plan.to_dict(),
            "peak_cost_per_hour": self.peak_cost_per_hour,
            "replanned_cost_per_hour": self.replanned_cost_per_hour,
            "replanned_moves": self.replanned_moves,
        }


@dataclass(frozen=True, slots=True)
class ScenariosPlan:
    """A plan of scenarios, and what it would be worth to know which one comes.

    Attributes
    ----------
    plan : what is reserved and where servers run now, replicas for every scenario.
    known_cost_per_hour : expected cost if one knew beforehand which scenario comes; None if one cannot be served.
    mean_cost_per_hour : expected cost of who plans for the mean rates, and adds what he must; None if he cannot serve.
    """

    plan: HorizonPlan
    known_cost_per_hour: float | None
    mean_cost_per_hour: float | None

    @property
    def value_of_knowing_per_hour(self) -> float | None:
        """What knowing would save: the expected value of perfect information."""
        if self.plan.cost_per_hour is None or self.known_cost_per_hour is None:
            return None
        return self.plan.cost_per_hour - self.known_cost_per_hour

    @property
    def value_of_planning_per_hour(self) -> float | None:
        """What planning for scenarios saves over planning for the mean: the value of the stochastic solution."""
        if self.plan.cost_per_hour is None or self.mean_cost_per_hour is None:
            return None
        return self.mean_cost_per_hour - self.plan.cost_per_hour

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "plan": self.plan.to_dict(),
            "known_cost_per_hour": self.known_cost_per_hour,
            "mean_cost_per_hour": self.mean_cost_per_hour,
            "value_of_knowing_per_hour": self.value_of_knowing_per_hour,
            "value_of_planning_per_hour": self.value_of_planning_per_hour,
        }


def mean(values: list[float], weights: list[float]) -> float:
    """Return the weighted mean."""
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)
