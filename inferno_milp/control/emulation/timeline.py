"""What happened over an emulated day: a row per server and round, and what it comes to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from inferno_milp.control.emulation.cluster import Served
from inferno_milp.problem import Problem

if TYPE_CHECKING:
    import pandas as pd

WINDOW_S = 300.0
"""Promises of means are judged over windows of this length."""


@dataclass(frozen=True, slots=True)
class Row:
    """A server at the end of a round.

    Attributes
    ----------
    rate_per_s : that was offered since the last row.
    running : replicas asked for, by accelerator.
    ready : replicas that serve.
    ttft_ms, itl_ms : mean latencies of the requests that were done since the last row; None where there were none.
    waiting : requests that wait.
    cost_per_hour : of what the server holds.
    """

    time_s: float
    server: str
    rate_per_s: float
    running: Mapping[str, int]
    ready: int
    ttft_ms: float | None
    itl_ms: float | None
    waiting: int
    cost_per_hour: float
    reason: str = ""


@dataclass(slots=True)
class Timeline:
    """A day.

    Attributes
    ----------
    rows : in order of time.
    requests : that were served, or waited for longer than their promise when the day ended; and `kept` those of them in
        windows in which their promises were kept.
    cost : of the day; `mean_cost_per_hour` over it.
    changes : of deployments.
    reversals : changes of a deployment that went the other way than its last, within half an hour.
    most_held, available : devices of each type at the worst moment, and that there are.
    """

    name: str
    currency: str
    rows: list[Row] = field(default_factory=list)
    requests: int = 0
    kept: int = 0
    mean_cost_per_hour: float = 0.0
    hours: float = 0.0
    changes: int = 0
    reversals: int = 0
    most_held: dict[str, int] = field(default_factory=dict)
    available: dict[str, int] | None = None
    errors: list[str] = field(default_factory=list)

    @property
    def attainment(self) -> float:
        """Share of the requests whose promises were kept; NaN without requests."""
        return self.kept / self.requests if self.requests else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**{name: getattr(self, name) for name in self.__slots__ if name != "rows"},
                "attainment": self.attainment if self.requests else None,
                "rows": [asdict(row) for row in self.rows]}  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """Return one row per server and round."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])


def judge(problem: Problem, served: Iterable[Served]) -> tuple[int, int]:
    """Count the requests, and those in windows in which their server kept its promises of latency.

    A promise of a mean is kept if the window's mean keeps it, one of a percentile if that of its requests does; that of
    inter-token latencies is over requests here.
    """
    import numpy as np

    windows: dict[tuple[str, int], list[Served]] = defaultdict(list)
    for one in served:
        windows[one.server, int(one.arrival_s // WINDOW_S)].append(one)
    targets = {s.name: list(problem.targets_of(s).limits_ms()) for s in problem.servers}
    requests = kept = 0
    for (server, _), ones in windows.items():
        requests += len(ones)
        fine = True
        for latency, statistic, limit in targets[server]:
            values = np.array([getattr(one, latency) for one in ones])
            values = values[np.isfinite(values)]
            if not values.size:
                continue
            found = values.mean() if statistic == "mean" else np.percentile(values, float(statistic[1:]))
            fine = fine and float(found) <= limit
        kept += len(ones) if fine else 0
    return requests, kept
