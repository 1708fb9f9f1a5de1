"""Mixes of request sizes: our program against Mélange's sliced one in CBC, and the law against the simulator.

    python -m benchmarks.mixes [--tables 12] [--limit 60] [--loads 24]

The first part draws tables of throughputs in Mélange's layout: a rate for every bucket and GPU that falls with the
lengths, GPUs that differ in price and in what they are good at. Both programs get the same time. The second draws mixes
for a fleet's profiles, plans them, and simulates every allocation at its rate.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np

import inferno_milp as im
from inferno_milp.planning.routing.tables import ThroughputTable, route_table

SHAPES = ((10, 6, 4), (10, 6, 8), (20, 12, 8), (20, 12, 16), (40, 24, 16))
"""Input sizes, output sizes, GPU types."""


def draw_table(rng: np.random.Generator, inputs: int, outputs: int, gpus: int, slices: int) -> ThroughputTable:
    """Draw a table of throughputs."""
    prompt = np.geomspace(20, 16_000, inputs)[:, None]
    output = np.geomspace(20, 2_000, outputs)[None, :]
    info = {}
    for g in range(gpus):
        cost = float(rng.uniform(0.5, 8))
        power = cost ** rng.uniform(0.85, 1.2)
        work = prompt * rng.uniform(0.3, 1.5) * 1e-4 + output * rng.uniform(2, 12) * 1e-3
        tput = power / work * rng.lognormal(0, 0.15, (inputs, outputs))
        tput[prompt[:, 0] > rng.choice([4_000, 8_000, 20_000, 20_000]), :] = 0.0
        info[f"gpu{g}"] = {"cost": round(cost, 3), "tputs": np.round(tput, 4).tolist()}
    info["gpu0"]["tputs"] = np.maximum(info["gpu0"]["tputs"], 0.05).tolist()
    shares = rng.dirichlet(np.full(inputs * outputs, 0.3)).reshape(inputs, outputs)
    return ThroughputTable.model_validate(
        {
            "gpu_info": info,
            "workload_distribution": shares.tolist(),
            "total_request_rate": float(rng.uniform(20, 200)),
            "slice_factor": slices,
        }
    )


def solve_sliced(table: ThroughputTable, limit_s: float) -> tuple[str, float | None, float]:
    """Solve the sliced program in CBC: every slice of a bucket goes to one GPU type whole."""
    import pulp

    rates = np.repeat(table.rates_per_s().ravel() / table.slice_factor, table.slice_factor)
    names = list(table.gpu_info)
    loads = {}
    for name, gpu in table.gpu_info.items():
        tput = np.repeat(np.ravel(gpu.tputs), table.slice_factor)
        loads[name] = np.divide(rates, tput, out=np.full(len(rates), np.inf), where=tput > 0)
    wanted = np.flatnonzero(rates > 0).tolist()
    began = time.perf_counter()
    program = pulp.LpProblem("sliced", pulp.LpMinimize)
    count = {g: pulp.LpVariable(f"n_{i}", 0, None, pulp.LpInteger) for i, g in enumerate(names)}
    take = {
        (s, g): pulp.LpVariable(f"x_{s}_{i}", 0, 1, pulp.LpBinary)
        for s in wanted
        for i, g in enumerate(names)
        if math.isfinite(loads[g][s])
    }
    program += pulp.lpSum(table.gpu_info[g].cost * count[g] for g in names)
    for s in wanted:
        program += pulp.lpSum(take[s, g] for g in names if (s, g) in take) == 1
    for g in names:
        program += pulp.lpSum(loads[g][s] * take[s, g] for s in wanted if (s, g) in take) <= count[g]
    program.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=limit_s, gapRel=1e-4, threads=1))
    seconds = time.perf_counter() - began
    found = program.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    status = "optimal" if seconds < limit_s and program.sol_status == pulp.LpSolutionOptimal else "timed out"
    return status, pulp.value(program.objective) if found else None, seconds


def compare_tables(number: int, limit_s: float, seed: int) -> None:
    """Compare both programs."""
    rng = np.random.default_rng(seed)
    head = f"{'buckets':>7} {'GPUs':>4} {'slices':>6} {'ours':>9} {'sliced':>9} {'status':>9} {'saving':>7}"
    print(f"{head} {'time, sliced/ours':>18}")
    for i in range(number):
        inputs, outputs, gpus = SHAPES[i % len(SHAPES)]
        slices = int(rng.choice([1, 4, 8, 16]))
        table = draw_table(rng, inputs, outputs, gpus, slices)
        began = time.perf_counter()
        ours = route_table(table, time_limit_s=limit_s)
        seconds = time.perf_counter() - began
        status, cost, other_s = solve_sliced(table, limit_s)
        saving = "" if cost is None or ours.cost_per_hour is None else f"{1 - ours.cost_per_hour / cost:.2%}"
        own = "none" if ours.cost_per_hour is None else f"{ours.cost_per_hour:.3f}"
        mark = "" if ours.status == "optimal" else f" ({ours.status})"
        print(
            f"{inputs * outputs:7d} {gpus:4d} {slices:6d} {own:>9} {'none' if cost is None else f'{cost:.3f}':>9} "
            f"{status:>9} {saving:>7} {other_s / seconds:18.1f}{mark}",
            flush=True,
        )


def compare_with_simulator(number: int, seed: int) -> None:
    """Compare the law's latencies with those of simulated engines under mixes."""
    rng = np.random.default_rng(seed)
    base = im.read_problem("instances/real-cloud.yaml")
    errors: dict[str, list[float]] = {"mean TTFT": [], "mean ITL": [], "mean ITL, lengths taken for independent": []}
    for _ in range(number):
        buckets = int(rng.integers(2, 20))
        mix = [
            {"input_tokens": float(np.round(np.exp(rng.uniform(3, 8.3)))),
             "output_tokens": float(np.round(np.exp(rng.uniform(2.3, 6.5)))), "share": float(share)}
            for share in rng.dirichlet(np.ones(buckets))
        ]  # fmt: skip
        model = str(rng.choice([p.model for p in base.profiles]))
        homes = [p for p in base.profiles if p.model == model]
        profile = homes[int(rng.integers(len(homes)))]
        slack = rng.uniform(1.5, 6)
        data: dict[str, Any] = {
            "name": "one", "capacity": "unlimited", "options": {"batch_choice": "quickest"},
            "accelerators": [a.model_dump() for a in base.accelerators],
            "profiles": [profile.model_dump(exclude_unset=True)],
            "service_classes": [{"name": "c", "targets": {model: {"itl_ms": float(slack * profile.alpha_ms)}}}],
            "servers": [{"name": "s", "service_class": "c", "model": model, "reserve": 0.15,
                         "load": {"rate_per_s": float(rng.uniform(1, 20)), "mix": mix}}],
        }  # fmt: skip
        problem = im.read_problem_data(data)
        plan = im.optimize(problem)
        if not plan.serves_all or (plan.servers[0].allocations[0].utilization or 0) > 0.9:
            continue
        found = im.simulate_plan(problem, plan, requests=20_000, seed=int(rng.integers(1 << 30))).allocations[0]
        by_figure = {comparison.figure: comparison for comparison in found.comparisons}
        for name, figure in (("mean TTFT", "ttft_ms"), ("mean ITL", "itl_ms")):
            one = by_figure[figure]
            assert one.predicted is not None
            errors[name].append(abs(one.predicted / one.simulated.value - 1))
        (server,) = data["servers"]
        apart = im.read_problem_data({**data, "servers": [{**server, "load": _apart(problem)}]})
        allocation = plan.servers[0].allocations[0]
        from inferno_milp.problem.engines import engine_table

        engine = engine_table(apart).of(np.array([0]), np.array([0]), [allocation.batch_size])
        itl = float(im.analyze("continuous-batching", **engine, rate_per_s=allocation.rate_per_s).itl_ms[0])
        errors["mean ITL, lengths taken for independent"].append(abs(itl / by_figure["itl_ms"].simulated.value - 1))
    print(f"\n{len(errors['mean TTFT'])} engines under mixes of 2 to 19 buckets, at most 90 % of their batch in use")
    for name, values in errors.items():
        print(f"{name}: median error {np.median(values):.1%}, 90 % of them below {np.quantile(values, 0.9):.1%}")


def _apart(problem: im.Problem) -> dict[str, float]:
    load = problem.servers[0].load
    assert load is not None
    names = ("rate_per_s", "input_tokens", "output_tokens", "cv2_input", "cv2_output")
    return {name: getattr(load, name) for name in names}


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=15)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--loads", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    compare_tables(arguments.tables, arguments.limit, arguments.seed)
    compare_with_simulator(arguments.loads, arguments.seed)


if __name__ == "__main__":
    main()
