"""Speed of the queueing analysis on one core: candidates sized, engines analysed and percentiles found per second.

Run `python -m benchmarks.queueing --help`. Times are of the processor, not of the wall.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from inferno_milp import queueing
from inferno_milp.problem.reading import read_problem

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


def plain_size(engine: dict[str, float], ttft_ms: float, itl_ms: float) -> float:
    """Port of the law `inferno` to plain Python: every state summed, the rate found by bisection, requests/ms."""
    batch, queue = int(engine["max_batch"]), 10 * int(engine["max_batch"])
    decodes, prompt_ms = engine["output_tokens"] - 1, engine["delta_ms"] * engine["input_tokens"]

    def departures(n: int) -> float:
        served = min(n, batch)
        decode_ms = decodes * (engine["alpha_ms"] + engine["beta_ms"] * served)
        return served / (engine["gamma_ms"] + prompt_ms * served + decode_ms)

    rates = [departures(n) for n in range(1, batch + queue + 1)]

    def meets(rate: float) -> bool:
        weight, total, wait, joined = 1.0, 0.0, 0.0, 0.0
        for n in range(batch + queue):
            total += weight
            joined += weight * min(n + 1, batch)
            if n >= batch:
                wait += weight * (n - batch + 1) / rates[batch - 1]
            weight *= rate / rates[n]
        mean = joined / total
        ttft = wait / total + engine["gamma_ms"] + prompt_ms * mean
        return ttft <= ttft_ms and engine["alpha_ms"] + engine["beta_ms"] * mean <= itl_ms

    low, high = 0.001 * rates[0], 0.999 * rates[batch - 1]
    for _ in range(40):  # to 1e-12
        middle = (low + high) / 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


TARGETS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("inferno", "means", {"ttft_ms": 2000.0, "itl_ms": 80.0}),
    ("continuous-batching", "means", {"ttft_ms": 2000.0, "itl_ms": 80.0}),
    ("continuous-batching", "TTFT p95, mean ITL", {"ttft_ms": {"p95": 2000.0}, "itl_ms": 80.0}),
)


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    count, repeats = arguments.count, arguments.repeats
    sizing = Table("law", "targets", "sample's own batch sizes, sized /s", "N = 16", "N = 64", "N = 256")
    fleets = [engines(count, arguments.seed, batch) for batch in (None, 16, 64, 256)]
    fleet = fleets[0]
    few = min(count, 100)
    ones = [{name: float(values[i]) for name, values in fleet.items()} for i in range(few)]
    plain = per_second(few, lambda: [plain_size(one, 2000.0, 80.0) for one in ones], 1)
    sizing.add_row("inferno, plain Python", "means", f"{plain:,.0f}", "", "", "")
    for law, words, targets in TARGETS:
        works = [partial(queueing.size, law, **some, **targets) for some in fleets]
        sizing.add_row(law, words, *(f"{per_second(count, work, repeats):,.0f}" for work in works))
    analysing = Table("law", "analysed /s", "TTFT p95 /s")
    for law in queueing.LAWS:
        rate = 0.7 * queueing.size(law, **fleet, ttft_ms=2000.0, itl_ms=80.0).max_rate_per_s
        analysis = queueing.analyze(law, **fleet, rate_per_s=rate)
        both = (partial(queueing.analyze, law, **fleet, rate_per_s=rate), partial(analysis.ttft_percentile, 95))
        analysing.add_row(law, *(f"{per_second(count, work, repeats):,.0f}" for work in both))
    Console().print(f"mean of the sample's own batch sizes: {fleet['max_batch'].mean():.1f}", sizing, analysing)


if __name__ == "__main__":
    main()
