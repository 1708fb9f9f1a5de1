"""Scenarios: how the program grows with their number.

`python -m benchmarks.scenarios [--counts 20 100 300 1000] [--mixed] [--time-limit 120]`. The servers of `limited.yaml`,
without limits on the devices, reserved at 60 % of the price; every server's rate of a scenario is lognormal about its
own, by itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import inferno_milp as im
from inferno_milp.problem import Problem
from inferno_milp.sections import Scenario

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
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--time-limit", type=float, default=120.0)
    arguments = parser.parse_args()
    first = 0.0
    print("| scenarios | times as long | status | gap |\n|---|---|---|---|")
    for count in arguments.counts:
        case = problem(count, "mixed" if arguments.mixed else "single")
        began = time.perf_counter()
        plan = im.plan_scenarios(case, time_limit_s=arguments.time_limit, gap=GAP).plan
        taken = time.perf_counter() - began
        first = first or taken
        cost, bound = plan.cost_per_hour, plan.bound
        gap = "–" if not cost or bound is None else f"{(cost - bound) / cost:.1e}"
        print(f"| {count} | {taken / first:.1f} | {plan.status} | {gap} |")


if __name__ == "__main__":
    main()
