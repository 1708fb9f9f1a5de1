"""Phases apart: the law against the simulator, and where splitting pays.

    python -m benchmarks.disaggregation

The first table is of engines that only compute prompts, the second of whole splits (prompt, transfer, decoding), both
as predicted over simulated latencies; the third of what splitting saves by length of prompts and promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import inferno_milp as im
from inferno_milp import simulation
from inferno_milp.planning.disaggregation.split import disaggregate
from inferno_milp.problem import Problem
from inferno_milp.studies.simulate_splits import simulate_splits

REQUESTS = 40_000
NETWORK_GB_PER_S = 25.0
"""200 Gbit/s for each device."""


def engines() -> Iterator[dict[str, Any]]:
    """Engines that only compute prompts."""
    for cv2 in (0.0, 1.2):
        for inputs, gamma_ms, delta_ms in ((300, 15.0, 0.05), (1155, 12.0, 0.05), (2000, 8.0, 0.1), (4000, 10.0, 0.12)):
            for batch in (1, 4, 16, 64):
                yield {"alpha_ms": 8.0, "beta_ms": 0.05, "gamma_ms": gamma_ms, "delta_ms": delta_ms,
                       "input_tokens": inputs, "output_tokens": 1, "cv2_input": cv2, "cv2_output": 0.0,
                       "max_batch": batch}  # fmt: skip


def prompts_only() -> None:
    """Print how far the law is off for engines that only compute prompts."""
    rng = np.random.default_rng(0)
    print("| load | engines | mean TTFT 10 %, 50 %, 90 % | p95 10 %, 50 %, 90 % |\n|---|---|---|---|")
    for load in (0.4, 0.7, 0.9):
        ratios = []
        for engine in engines():
            rate = load * float(im.size(**engine).max_rate_per_s)
            found = im.analyze(**engine, rate_per_s=rate)
            arrivals = simulation.draw_arrivals(rng, rate, REQUESTS)
            inputs = simulation.draw_lengths(rng, engine["input_tokens"], REQUESTS, cv2=engine["cv2_input"], least=1)
            one = simulation.Engine(
                alpha_ms=engine["alpha_ms"],
                beta_ms=engine["beta_ms"],
                gamma_ms=engine["gamma_ms"],
                delta_ms=engine["delta_ms"],
                max_batch=int(engine["max_batch"]),
            )
            ttft = simulation.run(one, arrivals, inputs, np.ones(REQUESTS, dtype=int)).ttft_ms[REQUESTS // 10 :]
            ttft = ttft[~np.isnan(ttft)]
            ratios.append((found.ttft_ms / ttft.mean(), found.ttft_percentile(95) / np.percentile(ttft, 95)))
        mean, p95 = np.percentile(np.array(ratios), (10, 50, 90), axis=0).T
        print(f"| {load} | {len(ratios)} | {_three(mean)} | {_three(p95)} |")


def _three(values: np.ndarray) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def problem(inputs: float, outputs: float, rate: float, ttft_ms: float, itl_ms: float, cv2: float) -> Problem:
    """One server of Llama 3.1 8B on the cloud's accelerators."""
    base = im.read_problem("instances/real-cloud.yaml")
    model = "meta-llama/Llama-3.1-8B-Instruct"
    server = next(s for s in base.servers if s.model == model)
    load = {"rate_per_s": rate, "input_tokens": inputs, "output_tokens": outputs, "cv2_input": cv2, "cv2_output": 0.6}
    service_class = next(c for c in base.service_classes if c.name == server.service_class)
    targets = {model: type(service_class.targets[model]).model_validate({"ttft_ms": ttft_ms, "itl_ms": itl_ms})}
    assert server.load is not None
    changed = server.model_copy(update={"load": type(server.load).model_validate(load)})
    update = {
        "servers": (changed,),
        "service_classes": (service_class.model_copy(update={"targets": targets}),),
        "capacity": None,
        "options": base.options.model_copy(update={"batch_choice": "smallest"}),
    }
    return base.model_copy(update=update)


def splits() -> None:
    """Print how far splits are off, of random loads."""
    rng = np.random.default_rng(1)
    ratios: list[tuple[float, ...]] = []
    while len(ratios) < 40:
        inputs, outputs = 10 ** rng.uniform(2.7, 3.9), 10 ** rng.uniform(1.5, 2.7)
        case = problem(
            inputs,
            outputs,
            10 ** rng.uniform(0.5, 1.7),
            rng.uniform(500, 4000),
            rng.uniform(15, 60),
            rng.uniform(0, 1.5),
        )
        found = disaggregate(case, network_gb_per_s=NETWORK_GB_PER_S)
        for server in simulate_splits(case, found, requests=REQUESTS):
            by_name = {c.figure: c for c in server.comparisons}
            pairs = [(by_name[n].predicted or 0.0) / by_name[n].simulated.value for n in ("ttft_ms", "itl_ms")]
            ratios.append((*pairs, len(server.missed)))
    ttft, itl, missed = np.array(ratios).T
    print("\n| splits | mean TTFT 10 %, 50 %, 90 % | ITL 10 %, 50 %, 90 % | promises missed |\n|---|---|---|---|")
    quantiles = (10, 50, 90)
    print(f"| {len(ratios)} | {_three(np.percentile(ttft, quantiles))} | {_three(np.percentile(itl, quantiles))} "
          f"| {int((missed > 0).sum())} |")  # fmt: skip


def where_it_pays() -> None:
    """Print what splitting saves, by prompts and by the promise between tokens."""
    print("\n| ITL limit ms | " + " | ".join(f"{n} tokens" for n in (500, 2000, 8000)) + " |\n|---|---|---|---|")
    for itl_ms in (15.0, 25.0, 40.0, 80.0):
        cells = []
        for inputs in (500, 2000, 8000):
            found = disaggregate(
                problem(inputs, 200, 400_000 / inputs, 1500, itl_ms, 0.5), network_gb_per_s=NETWORK_GB_PER_S
            )
            together = found.together.total_cost_per_hour
            if found.saving_per_hour is None:
                cells.append("only apart" if found.plan.serves_all else "neither")
            else:
                cells.append(f"{found.saving_per_hour / (together or 1.0):.0%} of {together:.4g}")
        print(f"| {itl_ms:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    prompts_only()
    splits()
    where_it_pays()
