"""Speed of the queueing analysis on one core: candidates sized, engines analysed and percentiles found per second.

Run `python -m benchmarks.queueing --help`. Times are of the processor, not of the wall.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from inferno_milp import queueing
from inferno_milp.read import read_problem

BASE = Path(__file__).parent.parent / "instances" / "limited.yaml"


def engines(count: int, seed: int, max_batch: int | None) -> dict[str, np.ndarray]:
    """Parameters of the sample's profiles, drawn and varied as the generator of systems does."""
    rng = np.random.default_rng(seed)
    profiles = read_problem(BASE).profiles
    drawn = [profiles[i] for i in rng.integers(0, len(profiles), count)]
    factor = rng.lognormal(0, 0.35, count) * rng.lognormal(0, 0.15, count)
    outputs = rng.integers(128, 1024, count, endpoint=True)
    held = [profile.largest_batch(float(output)) for profile, output in zip(drawn, outputs, strict=True)]
    return {
        **{
            name: factor * np.array([getattr(profile, name) for profile in drawn])
            for name in ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms")
        },
        "input_tokens": rng.integers(64, 512, count, endpoint=True),
        "output_tokens": outputs,
        "max_batch": np.array(held) if max_batch is None else np.full(count, max_batch),
    }


def per_second(count: int, work: Callable[[], object], repeats: int) -> float:
    """Best of several runs, in elements per second of processor time."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return count / best


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    count, repeats = arguments.count, arguments.repeats
    table = Table("engines", "mean batch", "sized /s", "analysed /s", "TTFT p95 /s")
    for name, max_batch in (("sample's own batch sizes", None), ("N = 16", 16), ("N = 64", 64), ("N = 256", 256)):
        fleet = engines(count, arguments.seed, max_batch)
        sizing = queueing.size("inferno", **fleet, ttft_ms=2000.0, itl_ms=80.0)
        rate = 0.7 * sizing.max_rate_per_s
        analysis = queueing.analyze("inferno", **fleet, rate_per_s=rate)
        works: tuple[Callable[[], object], ...] = (
            partial(queueing.size, "inferno", **fleet, ttft_ms=2000.0, itl_ms=80.0),
            partial(queueing.analyze, "inferno", **fleet, rate_per_s=rate),
            partial(analysis.ttft_percentile, 95),
        )
        speeds = [per_second(count, work, repeats) for work in works]
        table.add_row(name, f"{fleet['max_batch'].mean():.1f}", *(f"{speed:,.0f}" for speed in speeds))
    Console().print(table)


if __name__ == "__main__":
    main()
