"""MILP and greedy side by side on generated systems of growing size: cost, unserved, bound, gap, time.

Run `python -m benchmarks.solver_vs_greedy --help`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from inferno_milp.plan import Plan
from inferno_milp.planning.optimize import optimize
from inferno_milp.problem.reading import read_problem
from inferno_milp.studies.generate import generate_problem

BASE = Path(__file__).parent.parent / "instances" / "limited.yaml"
COLUMNS = (
    "servers", "tightness", "candidates_s", "greedy_cost", "greedy_unserved", "greedy_s", "milp_status", "milp_cost",
    "milp_unserved", "bound", "gap", "milp_s", "greedy_over_milp",
)  # fmt: skip


def main() -> None:
    """Measure, print a table, write CSV if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 100, 300, 1000, 3000], metavar="SERVERS")
    parser.add_argument("--tightness", type=float, nargs="+", default=[1.2, 0.9, 0.6])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gap", type=float, default=1e-4)
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    base = read_problem(BASE)
    cases = [(size, tightness) for size in arguments.sizes for tightness in arguments.tightness]
    rows = []
    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
        for size, tightness in progress.track(cases, description="systems"):
            problem = generate_problem(base, servers=size, tightness=tightness, seed=arguments.seed)
            greedy = optimize(problem, solver="greedy")
            milp = optimize(problem, time_limit_s=arguments.time_limit, gap=arguments.gap)
            rows.append(compare(size, tightness, greedy, milp))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    show(frame)
    if arguments.csv:
        frame.to_csv(arguments.csv, index=False)


def compare(size: int, tightness: float, greedy: Plan, milp: Plan) -> dict[str, Any]:
    """One row: what each solver found for one system, solver time apart from the analysis of candidates."""
    both = greedy.serves_all and milp.serves_all and greedy.total_cost_per_hour and milp.total_cost_per_hour
    return {
        "servers": size,
        "tightness": tightness,
        "candidates_s": milp.stages_s["candidates"],
        "greedy_cost": greedy.total_cost_per_hour,
        "greedy_unserved": len(greedy.unserved),
        "greedy_s": greedy.stages_s["build"] + greedy.stages_s["solve"],
        "milp_status": milp.status,
        "milp_cost": milp.total_cost_per_hour,
        "milp_unserved": len(milp.unserved),
        "bound": milp.bound,
        "gap": milp.gap,
        "milp_s": milp.stages_s["build"] + milp.stages_s["solve"],
        "greedy_over_milp": both and greedy.total_cost_per_hour / milp.total_cost_per_hour,  # type: ignore[operator]
    }


def show(frame: pd.DataFrame) -> None:
    """Print the measurements as a table."""
    table = Table()
    for column in frame.columns:
        table.add_column(column.replace("_", " "), justify="right")
    for record in frame.to_dict("records"):
        table.add_row(*(text(value) for value in record.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def text(value: Any) -> str:
    """Write one cell."""
    if value is None or value is False or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
