"""By how much candidates that were rejected miss their targets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.candidates import Candidates
from inferno_milp.queueing import analyze


def over_targets(candidates: Candidates, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return by what factor rejected rows miss the target that they miss most."""
    rejected = candidates.rejected
    over = np.where(rejected.fits[rows], 0.0, np.inf)
    for (latency, statistic), least in least_latencies(candidates, rows).items():
        limits = candidates.latency_targets[latency][statistic][rejected.server[rows]]
        over = np.maximum(over, np.nan_to_num(least / limits, nan=0.0))
    return np.asarray(over)


def least_latencies(
    candidates: Candidates, rows: npt.NDArray[np.intp]
) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
    """Return latencies of rejected rows at the lowest admissible rate, by latency and statistic; NaN if not promised.

    Percentiles are analysed here, for the rows asked for: a plan that serves everybody needs none of them.
    """
    rejected = candidates.rejected
    server, profile, batch_size = rejected.server[rows], rejected.profile[rows], rejected.batch_size[rows]
    means = {"ttft_ms": rejected.ttft_ms, "itl_ms": rejected.itl_ms}
    result = {}
    for latency, by_statistic in candidates.latency_targets.items():
        for statistic, limits in by_statistic.items():
            promised = ~np.isnan(limits[server])
            found = np.where(promised, means[latency][rows], np.nan)
            some = np.flatnonzero(promised & rejected.fits[rows])
            if statistic != "mean" and some.size:
                engines = candidates.engines.of(server[some], profile[some], batch_size[some])
                law, rate_per_s = candidates.problem.options.law, rejected.rate_per_s[rows][some]
                found[some] = analyze(law, **engines, rate_per_s=rate_per_s).statistic(latency, statistic)
            result[latency, statistic] = found
    return result


def latency_name(latency: str, statistic: str) -> str:
    """Name a promise of latency: `TTFT`, `TTFT p95`."""
    name = {"ttft_ms": "TTFT", "itl_ms": "ITL"}[latency]
    return name if statistic == "mean" else f"{name} {statistic}"
