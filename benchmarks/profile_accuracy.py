"""How well fitted profiles predict what they were not fitted to, beside a line through the averages.

Run `python -m benchmarks.profile_accuracy --data FOLDER`; the folder as for `benchmarks.catalogue`. Three trials: half
of the 16 shapes of experiment 1 predict the other half, at the rate alone; half of the shapes of each of
aiconfigurator's engines predict the rest; and the terms of our own simulator are found again from its output.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.catalogue import EXP1_CV2, SYSTEMS, silicon_engines
from inferno_milp import queueing, simulation
from inferno_milp.errors import OptionError
from inferno_milp.profiles.catalogue import shipped_catalogue
from inferno_milp.profiles.fitting import Prior, fit_profile
from inferno_milp.profiles.fitting.beforehand import roofline_priors
from inferno_milp.profiles.fitting.runs import Runs, make_runs
from inferno_milp.profiles.measurements import Measurement, read_measurements

SIZES = (64, 256, 1024, 4096)
TRUTH = {"alpha_ms": 8.0, "beta_ms": 0.04, "gamma_ms": 8.0, "delta_ms": 0.025, "kappa_ms": 3e-5, "overhead_ms": 10.0}
SHAPES = ((256, 256), (1024, 128), (2048, 1024), (128, 1024), (6000, 512))
CLIENTS, LOADS = (1, 4, 16, 48), (0.05, 0.2, 0.4, 0.6)
"""Numbers of clients, and rates as shares of the highest."""
REQUESTS_BY_CLIENTS, REQUESTS_AT_RATES = 4000, 40_000
THINK_MS = 8.0
"""Mean time that a client of the simulation takes until it sends the next request."""


def checkerboard(folder: Path) -> Iterator[tuple[str, float, float, int]]:
    """Fit on shapes whose indices of input and output have an even sum, judge on the others; and reversed."""
    read = read_measurements([folder / "inferno_exp1_llama31_8b_h100.csv"]).measurements
    every = [dataclasses.replace(m, cv2_input=EXP1_CV2, cv2_output=EXP1_CV2) for m in read]
    runs = make_runs(every)
    odd = np.array([sum(SIZES.index(int(tokens)) for tokens in m.nominal or ()) % 2 for m in every], dtype=bool)
    stable = runs.counts & ~runs.closed
    for name, fitted in (("even", ~odd), ("odd", odd)):
        used = [m for m, kept in zip(every, fitted & stable, strict=True) if kept]
        fit = fit_profile(used, model="model", accelerator="H100")
        judged = runs.take(~fitted & stable)
        ttft_ms, itl_ms = fit.estimate.predict(judged)
        ttft, itl = np.abs(ttft_ms / judged.ttft_ms - 1), np.abs(itl_ms / judged.itl_ms - 1)
        yield f"law, fitted on {name} shapes", float(ttft.mean()), float(itl.mean()), len(ttft)
        line = _line(runs.take(fitted & stable), judged)
        yield f"line in the batch, fitted on {name} shapes", float("nan"), float(np.mean(line)), len(line)


def _line(fitted: Runs, judged: Runs) -> np.ndarray:
    """Return relative errors of a line through (requests in the system, ITL), given the true number of them."""
    running, others = (np.array([m.running for m in part.measurements], dtype=float) for part in (fitted, judged))
    slope, base = np.polyfit(running, fitted.itl_ms, 1)
    return np.asarray(np.abs((base + slope * others) / judged.itl_ms - 1))


def silicon(folder: Path) -> tuple[dict[str, np.ndarray], int]:
    """Fit each of aiconfigurator's engines on every other shape, judge on the rest; and reversed."""
    engines = [(key, runs) for key, runs in silicon_engines(folder).items() if len(runs) >= 4]
    found = joblib.Parallel(n_jobs=-1)(joblib.delayed(_halves)(key, runs) for key, runs in engines)
    parts = [part for part in found if part is not None]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("itl", "ttft", "line")}, len(parts)


def _halves(key: Sequence[str], every: Sequence[Measurement]) -> dict[str, np.ndarray] | None:
    runs = make_runs(every)
    shapes = np.unique(runs.shapes)
    if len(shapes) < 2:
        return None
    errors: dict[str, list[np.ndarray]] = {"itl": [], "ttft": [], "line": []}
    for half in (0, 1):
        fitted = np.isin(runs.shapes, shapes[half::2])
        judged = runs.take(~fitted & runs.counts)
        used = [m for m, kept in zip(every, fitted, strict=True) if kept]
        if not len(judged.shapes):
            continue
        try:
            fit = fit_profile(used, model=key[0], accelerator=key[1], priors=_priors(key))
        except (OptionError, ValueError):
            continue
        ttft_ms, itl_ms = fit.estimate.predict(judged)
        errors["itl"].append(np.abs(itl_ms / judged.itl_ms - 1))
        errors["ttft"].append(np.abs(ttft_ms / judged.ttft_ms - 1))
        some = runs.take(fitted & runs.counts)
        slope, base = (
            np.polyfit(some.clients, some.itl_ms, 1) if len(np.unique(some.clients)) > 1 else (0.0, some.itl_ms.mean())
        )
        errors["line"].append(np.abs((base + slope * judged.clients) / judged.itl_ms - 1))
    return {name: np.concatenate(parts) for name, parts in errors.items()} if errors["itl"] else None


def _priors(key: Sequence[str]) -> dict[str, Prior]:
    catalogue = shipped_catalogue()
    model, system, devices, _, _, precision = key[:6]
    if not precision:
        return {}
    accelerator = catalogue.accelerator(SYSTEMS[system], int(devices))
    return roofline_priors(catalogue.language_model(model), accelerator, precision)


def recovery(loads: str, seed: int) -> dict[str, float]:
    """Return by how much each term differs from the simulator's, fitted to runs by clients, at rates, or both."""
    rng = np.random.default_rng(seed)
    engine = simulation.Engine(**TRUTH, max_batch=256)  # type: ignore[arg-type]
    runs = []
    for inputs, outputs in SHAPES:
        runs += [simulated(engine, rng, inputs, outputs, clients=c) for c in CLIENTS if loads != "rates"]
        most = float(queueing.size(**TRUTH, input_tokens=inputs, output_tokens=outputs, max_batch=256).max_rate_per_s)  # type: ignore[arg-type]
        rates = [most * load for load in LOADS if loads != "clients"]
        runs += [simulated(engine, rng, inputs, outputs, rate_per_s=r, requests=REQUESTS_AT_RATES) for r in rates]
    fit = fit_profile(runs, model="model", accelerator="accelerator")
    return {name: getattr(fit.profile, name) / value - 1 for name, value in TRUTH.items()}


def simulated(
    engine: simulation.Engine,
    rng: np.random.Generator,
    inputs: int,
    outputs: int,
    *,
    clients: int | None = None,
    rate_per_s: float | None = None,
    requests: int = REQUESTS_BY_CLIENTS,
) -> Measurement:
    """Measure an engine of the simulator, by a number of clients or at a rate; outputs are uniform about their mean."""
    lengths = rng.integers(outputs // 2, outputs + outputs // 2 + 1, requests)
    prompts = np.full(requests, inputs)
    if clients is not None:
        trace = simulation.run_clients(engine, clients, prompts, lengths, rng.exponential(THINK_MS, requests))
    else:
        assert rate_per_s is not None
        trace = simulation.run(engine, simulation.draw_arrivals(rng, rate_per_s, requests), prompts, lengths)
    kept = slice(requests // 5, requests - requests // 10)
    span_s = float(trace.arrival_ms[kept][-1] - trace.arrival_ms[kept][0]) / 1e3
    decoding_ms = (trace.end_to_end_ms - trace.ttft_ms)[kept].sum()
    return Measurement(
        place="simulation",
        tool="simulation",
        sent="rate" if clients is None else "concurrency",
        rate_per_s=rate_per_s,
        concurrency=clients,
        cv2_arrival=None if clients else 1.0,
        input_tokens=float(inputs),
        output_tokens=float(lengths.mean()),
        nominal=(float(inputs), float(outputs)),
        cv2_input=0.0,
        cv2_output=1 / 12,
        requests=requests,
        throughput_per_s=(requests - requests // 5 - requests // 10) / span_s,
        ttft_ms={"mean": float(trace.ttft_ms[kept].mean())},
        itl_ms={"mean": float(decoding_ms / (lengths[kept] - 1).sum())},
    )


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published tables")
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    console = Console()
    table = Table("experiment 1, judged on the other shapes", "TTFT, mean error", "ITL, mean error", "runs")
    for name, ttft, itl, count in checkerboard(arguments.data):
        table.add_row(name, "–" if np.isnan(ttft) else f"{ttft:.1%}", f"{itl:.1%}", str(count))
    console.print(table)
    errors, engines = silicon(arguments.data)
    table = Table(f"aiconfigurator's points, {engines} engines", "median error", "90th percentile", "points")
    for name, words in (("itl", "law, TPOT"), ("line", "line in the clients, TPOT"), ("ttft", "law, TTFT")):
        values = errors[name]
        table.add_row(words, f"{np.median(values):.1%}", f"{np.percentile(values, 90):.1%}", str(len(values)))
    console.print(table)
    table = Table("terms found again in our own simulator", *TRUTH)
    for loads in ("clients", "rates", "both"):
        table.add_row(loads, *(f"{off:+.1%}" for off in recovery(loads, arguments.seed).values()))
    console.print(table)


if __name__ == "__main__":
    main()
