"""Sweeps: plans per second one after the other, in two processes, and without what one case knows from another.

`python -m benchmarks.sweeps [--cases 100] [--repeats 3]`. Cases differ in a capacity alone, or in every load.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inferno_milp as im

INSTANCE = Path(__file__).parent.parent / "instances" / "limited.yaml"


def seconds(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def anew(problem: im.Problem, axes: dict[str, list[Any]]) -> None:
    """Plan each case by itself."""
    ((path, values),) = axes.items()
    for value in values:
        im.optimize(im.with_settings(problem, {path: value}), advised=False)


def main() -> None:
    """Measure the three side by side, taking turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.cases
    print(f"{'law':20} {'varied':8} {'plans/s':>8} {'two processes':>14} {'each by itself':>15}  (times as fast)")
    for law in ("inferno", "continuous-batching"):
        problem = im.read_problem(INSTANCE).with_options(law=law)
        for varied, axes in {
            "capacity": {"capacity.MI300X": [100 + i for i in range(count)]},
            "loads": {"servers.*.load.rate_per_s *=": [0.5 + 0.5 * i / count for i in range(count)]},
        }.items():
            ways: dict[str, Callable[[], Any]] = {
                "alone": lambda axes=axes, p=problem: im.sweep(p, axes),  # type: ignore[misc]
                "two": lambda axes=axes, p=problem: im.sweep(p, axes, jobs=2),  # type: ignore[misc]
                "anew": lambda axes=axes, p=problem: anew(p, axes),  # type: ignore[misc]
            }
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(arguments.repeats):
                for name, way in ways.items():
                    taken[name].append(seconds(way))
            median = {name: statistics.median(times) for name, times in taken.items()}
            two, each = (median["alone"] / median[name] for name in ("two", "anew"))
            print(f"{law:20} {varied:8} {count / median['alone']:8.1f} {two:14.2f} {each:15.2f}")


if __name__ == "__main__":
    main()
