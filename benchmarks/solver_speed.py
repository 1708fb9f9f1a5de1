"""Our solver beside plain HiGHS, CBC and CP-SAT on the same systems in one run: seconds, gaps, ratios.

Ours counts all that comes after the analysis of candidates: leaving options out, prices, Pyomo, HiGHS. The rivals are
given the program of all candidates, with one batch size per (server, accelerator), the best, which is much less than
every batch size; only their solving counts. Run `python -m benchmarks.solver_speed --help`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from benchmarks.rivals import Outcome, solve_apart
from benchmarks.solver_vs_greedy import BASE, show
from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.columns.options import make_program
from inferno_milp.planning.milp import solve_milp
from inferno_milp.problem import Problem
from inferno_milp.problem.reading import read_problem
from inferno_milp.program.highs import lay_out
from inferno_milp.program.master import as_program
from inferno_milp.program.statement import build_model
from inferno_milp.studies.generate import generate_problem


def main() -> None:
    """Measure, print a table, write CSV if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 300, 1000, 3000], metavar="SERVERS")
    parser.add_argument("--tightness", type=float, nargs="+", default=[0.9, 0.6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--assignment", choices=("single", "mixed"), default="single")
    parser.add_argument("--load", type=float, default=1.0, help="factor on all rates: more is more replicas")
    parser.add_argument("--law", choices=("inferno", "continuous-batching"), default="inferno")
    parser.add_argument("--batch-sizes", choices=("largest", "every"), default="largest")
    parser.add_argument("--rivals", nargs="*", choices=("highs", "cbc", "cpsat"), default=["highs"])
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--limit", type=float, default=60.0, metavar="S", help="for each rival")
    parser.add_argument("--own-limit", type=float, metavar="S", help="for ours (default: none)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours, of which the median counts")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    cases = [(n, t, seed) for n in arguments.sizes for t in arguments.tightness for seed in arguments.seeds]
    rows = []
    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
        for size, tightness, seed in progress.track(cases, description="systems"):
            table = find_candidates(system(arguments, size, tightness, seed))
            rows.append(dict(measure(arguments, table, size, tightness, seed)))
    frame = pd.DataFrame(rows)
    show(frame)
    for name in arguments.rivals:
        ratios = frame.groupby(["servers", "tightness"])[f"{name}_ratio"].median()
        print(f"median of {name} seconds / ours:", ", ".join(f"{key}: {value:.3g}" for key, value in ratios.items()))
    if arguments.csv:
        frame.to_csv(arguments.csv, index=False)


def system(arguments: argparse.Namespace, size: int, tightness: float, seed: int) -> Problem:
    """Generate a system."""
    base = read_problem(BASE).with_options(
        law=arguments.law, batch_sizes=arguments.batch_sizes, assignment=arguments.assignment
    )
    servers = []
    for server in base.servers:
        assert server.load is not None
        load = {"rate_per_min": None, "rate_per_s": server.load.arrival_rate_per_s * arguments.load}
        servers.append(server.model_copy(update={"load": server.load.model_copy(update=load)}))
    base = base.model_copy(update={"servers": tuple(servers)})
    return generate_problem(base, servers=size, tightness=tightness, seed=seed)


def measure(
    arguments: argparse.Namespace, table: Candidates, size: int, tightness: float, seed: int
) -> Iterator[tuple[str, Any]]:
    """One row."""
    yield from (("servers", size), ("tightness", tightness), ("seed", seed), ("candidates", len(table.rows)))
    runs = sorted((ours(arguments, table) for _ in range(arguments.repeats)), key=lambda run: run.solve_s)
    own = runs[len(runs) // 2]
    yield from (("ours_s", own.solve_s), ("ours_gap", own.gap), ("ours_cost", own.objective))
    for name in arguments.rivals:
        found = solve_apart(name, plain(table), gap=arguments.gap, limit_s=arguments.limit)
        yield from ((f"{name}_s", found.solve_s), (f"{name}_gap", found.gap))
        yield from ((f"{name}_ratio", found.solve_s / own.solve_s), (f"{name}_cost", found.objective))


def ours(arguments: argparse.Namespace, table: Candidates) -> Outcome:
    """Our solver, from the table of candidates on."""
    start = time.perf_counter()
    end = math.inf if arguments.own_limit is None else start + arguments.own_limit
    choice = solve_milp(make_program(table), gap=arguments.gap, left_s=lambda: max(end - time.perf_counter(), 0.0))
    return Outcome(time.perf_counter() - start, choice.objective, choice.bound)


def plain(table: Candidates) -> Any:
    """Return the plain program, nothing left out; for mixed assignments the direct one, which counts replicas."""
    program = make_program(table, pruned=False)
    if program.covers is None:
        return as_program(program.master)
    model = build_model(program.listed_only(), program.covers)
    from inferno_milp.program._pyomo import pyo

    return lay_out(model, list(model.component_data_objects(pyo.Var, active=True)))


if __name__ == "__main__":
    main()
