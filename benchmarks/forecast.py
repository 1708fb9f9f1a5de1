"""Forecasts beside one another on a trace: how far off, and how often the load stays below the quantile.

    python -m benchmarks.forecast [--series tests/data/burstgpt_5min.csv] [--ahead 1] [--season-s 86400] [--last 300]

A series has two columns, `time_s` and `requests` in each bin. Every method sees what came before alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from inferno_milp.control.forecast import Method, forecast_rate

METHODS: tuple[Method, ...] = ("last", "trend", "seasonal")


def main() -> None:
    """Backtest the three methods, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=Path, default=Path("tests/data/burstgpt_5min.csv"))
    parser.add_argument("--ahead", type=int, default=1, help="bins")
    parser.add_argument("--season-s", type=float, default=86_400.0)
    parser.add_argument("--quantile", type=float, default=0.9)
    parser.add_argument("--last", type=int, default=300, help="bins to forecast, the last ones")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.series, comment="#")
    bin_s = float(table["time_s"].diff().median())
    rates = table["requests"].to_numpy(dtype=float) / bin_s
    season, first = round(arguments.season_s / bin_s), max(len(rates) - arguments.last, 20)
    print(f"{len(rates)} bins of {bin_s:g} s, {len(rates) - first} forecast, {arguments.ahead} ahead")
    print(f"{'method':10} {'mean abs. error/s':>18} {'of last':>8} {'below quantile':>15} {'planned/mean':>13}  really")
    base = None
    for method in METHODS:
        errors, below, planned, really = [], [], [], set()
        for i in range(first, len(rates) - arguments.ahead + 1):
            found = forecast_rate(
                rates[:i], steps=arguments.ahead, bin_s=bin_s, method=method, quantile=arguments.quantile,
                season_bins=season,
            )  # fmt: skip
            actual = rates[i + arguments.ahead - 1]
            errors.append(abs(found.mean_per_s - actual))
            below.append(actual <= found.quantile_per_s)
            planned.append(found.quantile_per_s)
            really.add(found.method)
        error = float(np.mean(errors))
        base = base or error
        mean = float(np.mean(rates[first:]))
        print(
            f"{method:10} {error:18.4f} {error / base:8.2f} {np.mean(below):15.1%} {np.mean(planned) / mean:13.2f}  "
            f"{', '.join(sorted(really))}",
            flush=True,
        )


if __name__ == "__main__":
    main()
