"""Speed of the simulator: requests per second of processor time, and the time that verifying a plan takes.

Run `python -m benchmarks.simulation --help`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from inferno_milp import simulation
from inferno_milp.planning.optimize import optimize
from inferno_milp.problem.reading import read_problem
from inferno_milp.studies.generate import generate_problem
from inferno_milp.studies.simulate import simulate_plan

BASE = Path(__file__).parent.parent / "instances" / "limited.yaml"
LOADS = (("light", 0.03), ("half", 0.5), ("busy", 0.9))
HIGHEST_PER_S = 11.4
"""What the engine below serves at most."""


def requests_per_s(rate_per_s: float, count: int, *, compiled: bool | None) -> float:
    """Simulate an engine of 32 sequences with prompts and outputs of 256 tokens."""
    rng = np.random.default_rng(1)
    engine = simulation.Engine(alpha_ms=8.0, beta_ms=0.03, gamma_ms=8.0, delta_ms=0.02, max_batch=32)
    arrivals = simulation.draw_arrivals(rng, rate_per_s, count)
    inputs, outputs = (simulation.draw_lengths(rng, 256, count, cv2=cv2, least=1) for cv2 in (0, 1))
    simulation.run(engine, arrivals[:10], inputs[:10], outputs[:10], compiled=compiled)  # compiles
    start = time.process_time()
    simulation.run(engine, arrivals, inputs, outputs, compiled=compiled)
    return count / (time.process_time() - start)


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400_000)
    parser.add_argument("--servers", type=int, default=300, help="servers of the plan to verify (default: 300)")
    arguments = parser.parse_args()
    speeds = Table("load", "plain Python, requests/s", "with numba, requests/s")
    for name, load in LOADS:
        rate, count = load * HIGHEST_PER_S, arguments.requests
        plain = requests_per_s(rate, max(count // 5, 1), compiled=False)
        speeds.add_row(name, f"{plain:,.0f}", f"{requests_per_s(rate, count, compiled=None):,.0f}")
    base = read_problem(BASE).with_options(law="continuous-batching", batch_sizes="every")
    problem = generate_problem(base, servers=arguments.servers, seed=1)
    start = time.perf_counter()
    plan = optimize(problem)
    planned = time.perf_counter()
    found = simulate_plan(problem, plan)
    verified = time.perf_counter()
    Console().print(
        speeds,
        f"{arguments.servers} servers planned in {planned - start:.1f} s, verified with {found.requests:,} requests in "
        f"{verified - planned:.1f} s",
    )


if __name__ == "__main__":
    main()
