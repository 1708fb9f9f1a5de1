"""Scenarios: how the program grows with their number.

`python -m benchmarks.scenarios [--counts 20 100 300 1000] [--mixed] [--time-limit 120] [--jobs 1]`. The servers of
`limited.yaml`, without limits on the devices, reserved at 60 % of the price; every server's rate of a scenario is
lognormal about its own, by itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import inferno_milp as im
from inferno_milp.planning.horizon.decomposition import solve_apart
from inferno_milp.planning.horizon.program import Effort, Found, Setup, solve_horizon
from inferno_milp.planning.horizon.solve import solve_moments
from inferno_milp.planning.horizon.ways import Ways, find_ways
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Scenario

INSTANCE = Path(__file__).parent.parent / "instances" / "limited.yaml"
RESERVED = 0.6
SPREAD = 0.3
GAP = 1e-3


def problem(count: int, assignment: str) -> Problem:
    """Return the problem with so many scenarios."""
    base = im.read_problem(INSTANCE).with_options(law="continuous-batching", assignment=assignment)
    rng = np.random.default_rng(0)
    scenarios = [
        Scenario(
            name=f"s{k}",
            probability=1 / count,
            rates_per_s={
                server.name: float(server.load.arrival_rate_per_s * rng.lognormal(-(SPREAD**2) / 2, SPREAD))
                for server in base.servers
                if server.load
            },
        )
        for k in range(count)
    ]
    accelerators = tuple(
        a.model_copy(update={"reserved_cost_per_hour": RESERVED * a.cost_per_hour}) for a in base.accelerators
    )
    update = {"scenarios": tuple(scenarios), "accelerators": accelerators, "capacity": None, "nodes": ()}
    return base.model_copy(update=update)


def main() -> None:
    """Plan each number of scenarios, and print time, relative to the first, and gap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 100, 300, 1000])
    parser.add_argument("--mixed", action="store_true", help="mixed: taken apart, beside one program for all")
    parser.add_argument("--time-limit", type=float, default=120.0)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    effort = Effort(GAP, arguments.time_limit, arguments.jobs)
    if arguments.mixed:
        _compare(arguments.counts, effort)
    else:
        _grow(arguments.counts, effort)


def _grow(counts: Sequence[int], effort: Effort) -> None:
    first = 0.0
    print("| scenarios | times as long | status | gap |\n|---|---|---|---|")
    for count in counts:
        found, taken = _timed(solve_moments, problem(count, "single"), effort)
        first = first or taken
        print(f"| {count} | {taken / first:.1f} | {found.outcome} | {_gap(found)} |", flush=True)


def _compare(counts: Sequence[int], effort: Effort) -> None:
    print("| scenarios | apart: gap | one program: gap | its time, of that apart | cost apart, of that of one |")
    print("|---|---|---|---|---|")
    for count in counts:
        case = problem(count, "mixed")
        apart, apart_s = _timed(solve_apart, case, effort)
        whole, whole_s = _timed(solve_horizon, case, effort)
        cost = f"{apart.objective / whole.objective - 1:+.2%}" if apart.objective and whole.objective else "–"
        print(f"| {count} | {_gap(apart)} | {_gap(whole)} | {whole_s / apart_s:.1f} | {cost} |", flush=True)


def _timed(solve: Callable[[Ways, Setup, Effort], Found], case: Problem, effort: Effort) -> tuple[Found, float]:
    ways = find_ways(case, case.scenarios)
    began = time.perf_counter()
    found = solve(ways, Setup(np.array([scenario.probability for scenario in case.scenarios])), effort)
    return found, time.perf_counter() - began


def _gap(found: Found) -> str:
    if not found.objective or found.bound is None:
        return "–"
    return f"{(found.objective - found.bound) / found.objective:.1e}"


if __name__ == "__main__":
    main()
