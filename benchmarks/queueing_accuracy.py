"""The laws of the queueing analysis against simulations of random engines: errors of latencies and of sized rates.

Run `python -m benchmarks.queueing_accuracy --help`. The simulator shares no code with the analysis.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from inferno_milp import queueing, simulation
from inferno_milp.simulation.engine import TOKEN_BUDGET
from inferno_milp.simulation.workload import LengthLaw

LAWS: tuple[LengthLaw, ...] = ("fixed", "geometric", "lognormal")
FLAT = 1.5
"""Where the latency is less than this many times that of an empty engine it hardly depends on the rate: no such
latency is taken as the target of a sizing."""


def random_engines(count: int, seed: int) -> tuple[dict[str, Any], list[tuple[LengthLaw, LengthLaw]]]:
    """Draw engines and loads: N of 1 to 256, prompts of 30 to 8000 tokens, outputs of 10 to 1200, three length laws."""
    rng = np.random.default_rng(seed)

    def between(least: float, most: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(least), np.log(most), count))

    alpha_ms = between(4, 60)
    laws = [(LAWS[i], LAWS[k]) for i, k in rng.integers(0, 3, (count, 2))]
    variability = {"fixed": np.zeros(count), "geometric": np.ones(count), "lognormal": between(0.2, 3)}
    engines = {
        "alpha_ms": alpha_ms,
        "beta_ms": alpha_ms * between(0.001, 0.03),
        "gamma_ms": alpha_ms * np.where(rng.random(count) < 0.5, 1.0, rng.uniform(1, 4, count)),
        "delta_ms": between(0.005, 0.3),
        "input_tokens": np.round(between(30, 8000)),
        "output_tokens": np.round(between(10, 1200)),
        "max_batch": np.round(between(1, 256)),
        "cv2_input": np.array([variability[law][i] for i, (law, _) in enumerate(laws)]),
        "cv2_output": np.array([variability[law][i] for i, (_, law) in enumerate(laws)]),
    }
    return engines, laws


def chunked_engines(count: int, seed: int) -> tuple[dict[str, Any], list[tuple[LengthLaw, LengthLaw]]]:
    """Draw engines whose prompts come in up to ten chunks: token budgets of 256 to 2048, and γ from α to 3α."""
    engines, laws = random_engines(count, seed)
    rng = np.random.default_rng([seed, 2])
    budget = rng.choice([256.0, 512.0, 1024.0, 2048.0], count)
    engines |= {
        "token_budget": budget,
        "gamma_ms": engines["alpha_ms"] * rng.uniform(1, 3, count),
        "delta_ms": np.exp(rng.uniform(np.log(0.005), np.log(0.05), count)),
        "input_tokens": np.round(budget * rng.uniform(0.3, 10, count)),
        "max_batch": np.minimum(engines["max_batch"], budget / 2),
    }
    return engines, laws


def simulated(
    engines: dict[str, Any],
    laws: list[tuple[LengthLaw, LengthLaw]],
    rate_per_s: np.ndarray,
    requests: int,
    seed: int,
    cv2_arrival: float,
) -> Iterator[dict[str, float]]:
    """Simulate every engine; yield its latencies."""
    for i in track(range(len(laws)), description="simulating", transient=True):
        one = {name: float(values[i]) for name, values in engines.items()}
        rng = np.random.default_rng([seed, i])
        engine = simulation.Engine(
            alpha_ms=one["alpha_ms"],
            beta_ms=one["beta_ms"],
            gamma_ms=one["gamma_ms"],
            delta_ms=one["delta_ms"],
            max_batch=int(one["max_batch"]),
            token_budget=int(one.get("token_budget", TOKEN_BUDGET)),
        )
        of = {"inputs": (one["input_tokens"], one["cv2_input"]), "outputs": (one["output_tokens"], one["cv2_output"])}
        inputs, outputs = (
            simulation.draw_lengths(rng, mean, requests, cv2=cv2, least=1, law=law)
            for (mean, cv2), law in zip(of.values(), laws[i], strict=True)
        )
        arrivals = simulation.draw_arrivals(rng, float(rate_per_s[i]), requests, cv2=cv2_arrival)
        trace = simulation.run(engine, arrivals, inputs, outputs)
        kept = slice(requests // 10, requests - requests // 50)
        gaps = (trace.end_to_end_ms - trace.ttft_ms)[kept]
        served = ~np.isnan(gaps)
        yield {
            "ttft_ms": float(np.nanmean(trace.ttft_ms[kept])),
            "ttft_p95_ms": float(np.nanpercentile(trace.ttft_ms[kept], 95)),
            "itl_ms": float(gaps[served].sum() / (outputs[kept][served] - 1).sum()),
        }


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="engines (default: 600)")
    parser.add_argument("--requests", type=int, default=300_000, help="requests for each (default: 300000)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--burstiness", type=float, default=1.0, help="c² of the times between arrivals (default: 1)")
    arguments = parser.parse_args()
    for title, draw in (("any engines", random_engines), ("prompts in chunks, γ up to 3α", chunked_engines)):
        measure(f"{title}: {arguments.count}, {arguments.requests:,} requests each", draw, arguments)


def measure(title: str, draw: Callable[..., Any], arguments: argparse.Namespace) -> None:
    """Draw engines, simulate them, and print how far the laws are off."""
    engines, laws = draw(arguments.count, arguments.seed)
    loads = np.random.default_rng([arguments.seed, 1]).uniform(0.2, 0.95, arguments.count)
    full = queueing.size(**engines, max_blocking=0.5).analysis
    rate_per_s = loads * np.minimum(full.throughput_per_s, 1e9)
    found = list(simulated(engines, laws, rate_per_s, arguments.requests, arguments.seed, arguments.burstiness))
    truth = {name: np.array([one[name] for one in found]) for name in found[0]}

    names = ("TTFT", "TTFT p95", "ITL")
    errors = Table("law", *(f"{name}: median, 90th percentile of the error" for name in names))
    sizes = Table("law", *(f"rate sized within 10 % from {name}" for name in names))
    for law, extra in _laws(engines, arguments.burstiness):
        analysis = queueing.analyze(law, **extra, rate_per_s=rate_per_s)
        figures = {"ttft_ms": analysis.ttft_ms, "ttft_p95_ms": analysis.ttft_percentile(95), "itl_ms": analysis.itl_ms}
        off = {name: np.abs(values / truth[name] - 1) for name, values in figures.items()}
        errors.add_row(law, *(f"{np.median(values):.1%}, {np.percentile(values, 90):.1%}" for values in off.values()))
        sizes.add_row(law, *_sized(law, extra, truth, rate_per_s))
    Console().print(title, errors, sizes)


def _laws(engines: dict[str, Any], burstiness: float) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "continuous-batching", {**engines, "cv2_arrival": burstiness, "max_blocking": 0.5}
    yield "inferno", {name: values for name, values in engines.items() if not name.startswith(("cv2", "token"))}


def _sized(law: str, engines: dict[str, Any], truth: dict[str, np.ndarray], rate_per_s: np.ndarray) -> Iterator[str]:
    """Take what was simulated at a rate as the target: that rate is the truth."""
    empty_ms = engines["gamma_ms"] + engines["delta_ms"] * engines["input_tokens"]
    cases: tuple[tuple[np.ndarray, dict[str, Any]], ...] = (
        (truth["ttft_ms"] > FLAT * empty_ms, {"ttft_ms": truth["ttft_ms"]}),
        (truth["ttft_p95_ms"] > FLAT * empty_ms, {"ttft_ms": {"p95": truth["ttft_p95_ms"]}}),
        (truth["itl_ms"] > 1.1 * engines["alpha_ms"], {"itl_ms": truth["itl_ms"]}),
    )
    for judged, targets in cases:
        sized = queueing.size(law, **engines, **targets).max_rate_per_s
        close = np.abs(sized / rate_per_s - 1)[judged] < 0.1
        yield f"{close.mean():.1%} of {judged.sum()}"


if __name__ == "__main__":
    main()
