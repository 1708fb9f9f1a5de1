"""What comes of splitting phases: which servers run them apart, and the plan that it is of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inferno_milp.plan import PROFILE_COLUMNS, Allocation, Plan
from inferno_milp.planning.disaggregation.transfer import Link
from inferno_milp.problem import Problem

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class PromiseParts:
    """A promise of the time to first token, shared out among what it is spent on, and what is spent of each part.

    Attributes
    ----------
    statistic : `mean`, or a percentile from the 80th on: those of the parts are added up, which is too long rather than
        too short.
    limit_ms : the promise.
    prefill_ms, transfer_ms, decode_ms : parts of it, which the phases' servers promise, and the transfer keeps.
    value_ms : what all parts come to together, at the rates of the plan.
    """

    statistic: str
    limit_ms: float
    prefill_ms: float
    transfer_ms: float
    decode_ms: float
    value_ms: float


@dataclass(frozen=True, slots=True)
class Split:
    """A server whose phases run on engines of their own.

    Attributes
    ----------
    server : by name.
    prefill, decode : names of the phases' servers, `chat@prefill` and `chat@decode`.
    link : the way of the KV caches.
    promises : parts of each promise of the time to first token.
    ttft_ms, itl_ms : mean latencies, that of the first token with prompt, transfer and first step of decoding.
    transfer_ms : mean time of a transfer, waits included.
    sender_utilization, receiver_utilization : part of the time that the network of a replica is busy.
    """

    server: str
    prefill: str
    decode: str
    link: Link
    promises: tuple[PromiseParts, ...]
    ttft_ms: float
    itl_ms: float
    transfer_ms: float
    sender_utilization: float
    receiver_utilization: float


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """A plan in which phases of servers may run apart, beside the plan in which none do.

    Attributes
    ----------
    problem : in which each phase of a server that is split is a server of its own.
    plan : of that problem; where splitting saves nothing, that of the problem as it is.
    splits : servers whose phases run apart.
    together : best plan in which every engine does both.
    bound : proven lower bound of the objective of any plan, split or not, with the numbers of replicas and batch sizes
        that are tried; None where nothing is proven, or not everybody is served.
    not_split : servers that could not be split, and why, by name.
    why_together : why the plan is that together; None where it is not.
    """

    problem: Problem
    plan: Plan
    splits: tuple[Split, ...]
    together: Plan
    bound: float | None
    not_split: dict[str, str]
    why_together: str | None

    @property
    def saving_per_hour(self) -> float | None:
        """Cost that splitting saves; None where one of the plans does not serve everybody."""
        if not (self.plan.serves_all and self.together.serves_all):
            return None
        return (self.together.total_cost_per_hour or 0.0) - (self.plan.total_cost_per_hour or 0.0)

    def allocation(self, name: str) -> Allocation:
        """Return the allocation of a phase, by its name; there is one of each."""
        return next(server for server in self.plan.servers if server.name == name).allocations[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "plan": self.plan.to_dict(),
            "splits": [asdict(split) for split in self.splits],
            "together": self.together.to_dict(),
            "saving_per_hour": self.saving_per_hour,
            "bound": self.bound,
            "not_split": dict(self.not_split),
            "why_together": self.why_together,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each phase of a server that is split."""
        import pandas as pd

        rows = []
        for split in self.splits:
            for phase, name in (("prefill", split.prefill), ("decode", split.decode)):
                a = self.allocation(name)
                run = (a.accelerator, a.batch_size, a.replicas, a.cost_per_hour, a.ttft_ms)
                rows.append((split.server, phase, *run, *(getattr(a.profile, name) for name in PROFILE_COLUMNS)))
        columns = ["server", "phase", "accelerator", "batch_size", "replicas", "cost_per_hour", "ttft_ms"]
        return pd.DataFrame(rows, columns=[*columns, *PROFILE_COLUMNS.values()])
