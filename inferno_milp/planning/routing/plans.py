"""What comes of routing a problem: a router's table, and the plan that it is of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inferno_milp.plan import Plan
from inferno_milp.problem import Problem

if TYPE_CHECKING:
    import pandas as pd

SMALL_SHARE = 1e-4
"""A smaller part of a server's requests is no reason for a pool: it goes where the rest of its bucket goes."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the requests of a bucket go.

    Attributes
    ----------
    server : by name.
    input_tokens, output_tokens : of the bucket.
    rate_per_s : of the bucket.
    weights : part of it that goes to each accelerator, by name; they sum to 1.
    """

    server: str
    input_tokens: float
    output_tokens: float
    rate_per_s: float
    weights: dict[str, float]


@dataclass(frozen=True, slots=True)
class RoutedPlan:
    """A plan with a router's table, beside the plan without one.

    Attributes
    ----------
    problem : in which each pool of a routed server is a server of its own, `chat@L4`.
    plan : of that problem; where routing by size saves nothing, that without.
    routes : the router's table; empty where each server runs on one accelerator, or any mix of those that the problem
        allows, with the same mix of requests everywhere.
    unrouted : best plan in which all replicas of a server get the same mix, on one accelerator or several.
    rounds : times that the program was solved.
    """

    problem: Problem
    plan: Plan
    routes: tuple[Route, ...]
    unrouted: Plan
    rounds: int

    @property
    def saving_per_hour(self) -> float | None:
        """Cost that routing saves; None where one of the plans does not serve everybody."""
        if not (self.plan.serves_all and self.unrouted.serves_all):
            return None
        return (self.unrouted.total_cost_per_hour or 0.0) - (self.plan.total_cost_per_hour or 0.0)

    @property
    def is_by_size(self) -> bool:
        """Whether it matters to the plan how long a request is."""
        by_server: dict[str, list[dict[str, float]]] = {}
        for route in self.routes:
            by_server.setdefault(route.server, []).append(route.weights)
        return any(
            abs(weights.get(name, 0.0) - first) > SMALL_SHARE
            for listed in by_server.values()
            for name, first in listed[0].items()
            for weights in listed
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the router's table: a row for each bucket and accelerator that it goes to."""
        import pandas as pd

        columns = ["server", "input_tokens", "output_tokens", "rate_per_s", "accelerator", "weight"]
        rows = [
            (route.server, route.input_tokens, route.output_tokens, route.rate_per_s, name, weight)
            for route in self.routes
            for name, weight in route.weights.items()
        ]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "plan": self.plan.to_dict(),
            "routes": [asdict(route) for route in self.routes],
            "unrouted": self.unrouted.to_dict(),
            "saving_per_hour": self.saving_per_hour,
            "rounds": self.rounds,
        }
