"""Fit the profiles of the catalogue to published measurements, and the efficiencies of the estimates to them.

Run `python -m benchmarks.catalogue --data FOLDER --write` to write `models/measured.yaml` and `models/estimated.yaml`.
The folder holds the tables as published: `inferno_exp1_llama31_8b_h100.csv` (llm-inferno/model-trainer),
`silicon_agg_measured.csv` (aiconfigurator-core 0.12.0), `splitwise_perf_model.csv` (Splitwise, ISCA'24) and
`sageserve_llama31_8b_llama32_3b_a100.csv` (SageServe).
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import least_squares

from inferno_milp.errors import OptionError
from inferno_milp.profiles.catalogue import Catalogue, shipped_catalogue
from inferno_milp.profiles.fitting import Fit, fit_profile
from inferno_milp.profiles.fitting.beforehand import roofline_priors
from inferno_milp.profiles.fitting.prediction import predict
from inferno_milp.profiles.fitting.runs import Runs, make_runs
from inferno_milp.profiles.fitting.terms import as_array
from inferno_milp.profiles.measurements import Measurement, read_measurements
from inferno_milp.profiles.roofline import DEFAULT_EFFICIENCY, Efficiency, estimate_profile, estimate_terms, memory_fit

SYSTEMS = {"h100_sxm": "H100", "h200_sxm": "H200", "b200_sxm": "B200", "b300_sxm": "B300", "gb200": "GB200",
           "a100-80gb": "A100", "h100-80gb": "H100"}  # fmt: skip
SOURCES = {
    "exp1": "guidellm against vLLM, llm-inferno/model-trainer, experiment 1",
    "silicon": "aiconfigurator-core 0.12.0 (NVIDIA), measured points",
    "splitwise": "Splitwise (ISCA'24) performance model, MIT",
    "sageserve": "SageServe performance model, MIT",
}
EXP1_CV2 = 1 / 12
"""Lengths of experiment 1 are uniform between half and one and a half times the mean."""
SERVICEABLE = 0.25
"""A fit whose time between tokens errs by more on shapes left out is not taken into the catalogue."""
ESTIMATE_MODELS = (
    "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct", "Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-32B",
    "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-14B", "Qwen/Qwen2.5-72B-Instruct", "openai/gpt-oss-20b",
    "openai/gpt-oss-120b", "mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "google/gemma-2-9b-it", "microsoft/phi-4", "ibm-granite/granite-3.1-8b-instruct", "deepseek-ai/DeepSeek-R1",
    "Qwen/Qwen3-235B-A22B",
)  # fmt: skip
ESTIMATE_TYPES = ("L4", "L40S", "A10G", "A100", "A100-40GB", "H100", "H200", "B200", "MI300X", "RTX-4090", "Gaudi3")
MOST = {"weights": 0.95, "context": 0.95, "prompts": 0.95, "overhead_ms": 15.0, "lag_iterations": 2.0}
"""What efficiencies may be at most."""
FEWEST_RUNS, MOST_TRIED = 6, 2
LEAST_KV_TOKENS = 8192
"""Arrangements that hold fewer tokens beside the weights are of no use."""
HEAD_MEASURED = """description: |
  Profiles of real models on real accelerators, fitted to published measurements: each names its source, how many runs
  and shapes it rests on, and its mean relative errors on shapes left out. Precision and engine are those of the
  measurements, and differ from accelerator to accelerator. Written by
  `python -m benchmarks.catalogue`; docs/profiles.md says how they were fitted.

profiles:
"""
HEAD_ESTIMATED = """description: |
  Profiles estimated from the figures of models and accelerators, for pairs that were not measured: a roofline whose
  efficiencies are fitted to the measured profiles. Errors are those on measured pairs that the estimate did not see.
  Written by `python -m benchmarks.catalogue`.

profiles:
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Runs of one engine.

    Attributes
    ----------
    model, accelerator, devices, precision : what it is.
    source : where it was published.
    engine, engine_version : inference engine; empty where the source does not say.
    """

    model: str
    accelerator: str
    devices: int
    precision: str
    source: str
    runs: tuple[Measurement, ...]
    engine: str = ""
    engine_version: str = ""


def groups(folder: Path) -> Iterator[Group]:
    """Take the tables apart into engines."""
    exp1 = read_measurements([folder / "inferno_exp1_llama31_8b_h100.csv"]).measurements
    runs = tuple(dataclasses.replace(m, cv2_input=EXP1_CV2, cv2_output=EXP1_CV2) for m in exp1)
    yield Group("meta-llama/Llama-3.1-8B-Instruct", "H100", 1, "bf16", f"{SOURCES['exp1']} (bf16, vllm)", runs)
    yield from _silicon(folder)
    yield from _batches(folder / "splitwise_perf_model.csv", "splitwise", 1.0)
    yield from _batches(folder / "sageserve_llama31_8b_llama32_3b_a100.csv", "sageserve", 1e3)


def silicon_engines(folder: Path) -> dict[tuple[str, ...], list[Measurement]]:
    """Group aiconfigurator's points by all that makes an engine; points listed twice count once."""
    names = ("model", "accelerator", "devices", "backend", "backend_version", "precision", "moe_tp_size", "moe_ep_size")
    found: dict[tuple[str, ...], list[Measurement]] = collections.defaultdict(list)
    seen = set()
    for m in read_measurements([folder / "silicon_agg_measured.csv"]).measurements:
        key = tuple(m.labels.get(name, "") for name in (*names, "attention_dp_size"))
        point = (
            key,
            m.input_tokens,
            m.output_tokens,
            m.concurrency,
            round(m.ttft_ms["mean"]),
            round(m.itl_ms["mean"], 1),
        )
        if point not in seen and not m.notes:
            seen.add(point)
            found[key].append(m)
    return found


def _silicon(folder: Path) -> Iterator[Group]:
    for key, runs in silicon_engines(folder).items():
        model, system, devices, backend, version, precision = key[:6]
        words = ", ".join(word for word in (precision, backend, version) if word)
        if precision:
            source = f"{SOURCES['silicon']} ({words})"
            yield Group(model, SYSTEMS[system], int(devices), precision, source, tuple(runs), backend, version)


def _batches(path: Path, name: str, ms: float) -> Iterator[Group]:
    """Read times of whole batches; repetitions of a point are one, by their median."""
    table = pd.read_csv(path)
    table = table[table["hardware"].isin(list(SYSTEMS))]
    if name == "sageserve":  # the sum over all tokens
        table = table.assign(token_time=table["token_time"] / table["token_size"])
    keys = ["model", "hardware", "tensor_parallel"]
    for pair, part in table.groupby(keys):
        model, hardware, devices = (str(value) for value in pair)
        points = part.groupby(["prompt_size", "batch_size", "token_size"], as_index=False)[
            ["prompt_time", "token_time"]
        ].median()
        runs = tuple(
            Measurement(
                place=f"{path.name}: {model} {hardware} x{devices}",
                tool=name,
                sent="batch",
                concurrency=float(p["batch_size"]),
                input_tokens=float(p["prompt_size"]),
                output_tokens=float(p["token_size"]),
                cv2_input=0.0,
                cv2_output=0.0,
                ttft_ms={"mean": float(p["prompt_time"]) * ms},
                itl_ms={"mean": float(p["token_time"]) * ms},
            )
            for p in points.to_dict("records")
        )
        yield Group(_name(model), SYSTEMS[hardware], int(devices), "bf16", f"{SOURCES[name]} (16 bit)", runs)


def _name(model: str) -> str:
    return {"llama2-70b": "meta-llama/Llama-2-70b", "bloom-176b": "bigscience/bloom",
            "Llama-3.1-8B": "meta-llama/Llama-3.1-8B-Instruct", "Llama-3.2-3B":
            "meta-llama/Llama-3.2-3B-Instruct"}[model]  # fmt: skip


def fit_group(group: Group, catalogue: Catalogue, efficiency: Efficiency) -> Fit:
    """Fit one engine."""
    accelerator = catalogue.accelerator(group.accelerator, group.devices)
    model = catalogue.language_model(group.model)
    kv_tokens = max(memory_fit(model, accelerator, group.precision).kv_tokens, 1)
    fit = fit_profile(
        group.runs,
        model=group.model,
        accelerator=accelerator.name,
        source=group.source,
        precision=group.precision,  # type: ignore[arg-type]
        priors=roofline_priors(model, accelerator, group.precision, efficiency),
    )
    engine = {"engine": group.engine or None, "engine_version": group.engine_version or None}
    assert fit.profile.origin is not None
    origin = fit.profile.origin.model_copy(update=engine)
    fit = dataclasses.replace(fit, profile=fit.profile.model_copy(update={"origin": origin}))
    return fit.with_kv_tokens(kv_tokens) if fit.memory.kv_tokens is None else fit


def best_fit(some: Sequence[Group], catalogue: Catalogue, efficiency: Efficiency) -> Fit | str:
    """Fit the engine of a pair that has the most runs; if that is of no use, the next; else say why not."""
    reason = "too few runs or shapes"
    for group in sorted(some, key=lambda g: -len(g.runs))[:MOST_TRIED]:
        if len(group.runs) < FEWEST_RUNS or len({(m.input_tokens, m.output_tokens) for m in group.runs}) < 2:
            continue
        try:
            fit = fit_group(group, catalogue, efficiency)
        except (OptionError, ValueError) as error:
            reason = str(error)
            continue
        origin = fit.profile.origin
        assert origin is not None
        if origin.errors_on == "held-out shapes" and (origin.itl_error or 1.0) <= SERVICEABLE:
            return fit
        reason = f"ITL errs by {origin.itl_error:.0%} on {origin.errors_on}"
    return reason


def fit_efficiency(pairs: Sequence[tuple[Group, Runs]], catalogue: Catalogue) -> Efficiency:
    """Fit the efficiencies to measured runs: each pair counts alike, by the logarithms of its latencies."""
    names = (
        "weights",
        "context",
        "prompts",
        "layer_us",
        "link_us",
        "experts_us",
        "sequence_us",
        "overhead_ms",
        "lag_iterations",
    )
    start = np.array([getattr(DEFAULT_EFFICIENCY, name) for name in names])
    most = np.array([MOST.get(name, np.inf) for name in names])

    def residuals(z: np.ndarray) -> np.ndarray:
        efficiency = dataclasses.replace(DEFAULT_EFFICIENCY, **dict(zip(names, start * np.exp(z), strict=True)))
        parts = []
        for group, runs in pairs:
            ttft_ms, itl_ms = estimated(group, runs, catalogue, efficiency)
            weight = 1 / np.sqrt(len(runs.shapes))
            parts += [weight * np.log(itl_ms / runs.itl_ms), 0.5 * weight * np.log(ttft_ms / runs.ttft_ms)]
        return np.concatenate([*parts, 0.05 * z])

    limits = (-np.inf, np.log(most / start))
    found = least_squares(
        residuals,
        np.zeros(len(names)),
        bounds=limits,
        loss="soft_l1",
        f_scale=0.1,
        diff_step=[1e-3] * len(names),
        max_nfev=15,
    )
    values = {name: float(f"{value:.3g}") for name, value in zip(names, start * np.exp(found.x), strict=True)}
    return dataclasses.replace(DEFAULT_EFFICIENCY, **values)


def estimated(group: Group, runs: Runs, catalogue: Catalogue, efficiency: Efficiency) -> tuple[np.ndarray, np.ndarray]:
    """Predict a pair's runs from its estimated profile."""
    accelerator = catalogue.accelerator(group.accelerator, group.devices)
    terms = estimate_terms(catalogue.language_model(group.model), accelerator, group.precision, efficiency=efficiency)
    ttft_ms, itl_ms = predict(as_array(terms)[None], runs, 8192, 1024)
    return ttft_ms[0], itl_ms[0]


def errors_of(pairs: Sequence[tuple[Group, Runs]], catalogue: Catalogue, efficiency: Efficiency) -> tuple[float, float]:
    """Return the mean over pairs of the mean relative errors of TTFT and ITL."""
    ttft, itl = [], []
    for group, runs in pairs:
        ttft_ms, itl_ms = estimated(group, runs, catalogue, efficiency)
        ttft.append(np.mean(np.abs(ttft_ms / runs.ttft_ms - 1)))
        itl.append(np.mean(np.abs(itl_ms / runs.itl_ms - 1)))
    return float(np.mean(ttft)), float(np.mean(itl))


def fitted_efficiency(every: Sequence[Group], catalogue: Catalogue) -> Efficiency:
    """Fit the efficiencies to all engines whose shapes tell enough, with the errors on models left out."""
    runs_of = [(g, r.take(r.counts & r.counts_itl & r.counts_ttft)) for g in every for r in [make_runs(g.runs)]]
    return held_out_efficiency([(g, r) for g, r in runs_of if len(r.shapes) >= 3 and g.devices <= 8], catalogue)


def held_out_efficiency(pairs: Sequence[tuple[Group, Runs]], catalogue: Catalogue) -> Efficiency:
    """Fit on all pairs; take the errors from fits that leave the models out in five groups, one after the other."""
    models = sorted({group.model for group, _ in pairs})
    ttft, itl = [], []
    for fold in track(range(5), description="estimates", transient=True):
        left = set(models[fold::5])
        known = fit_efficiency([p for p in pairs if p[0].model not in left], catalogue)
        for pair in (p for p in pairs if p[0].model in left):
            errors = errors_of([pair], catalogue, known)
            ttft.append(errors[0])
            itl.append(errors[1])
    whole = fit_efficiency(pairs, catalogue)
    ttft_error, itl_error = (round(float(np.median(errors)), 2) for errors in (ttft, itl))
    return dataclasses.replace(whole, ttft_error=ttft_error, itl_error=itl_error)


def estimates(
    catalogue: Catalogue, measured: set[tuple[str, str]], efficiency: Efficiency
) -> Iterator[dict[str, object]]:
    """Estimate every pair of the lists that was not measured, on the two smallest arrangements that hold it."""
    for name in ESTIMATE_MODELS:
        model = catalogue.language_model(name)
        for kind in ESTIMATE_TYPES:
            arranged = sorted((a for a in catalogue.accelerators.values() if a.type == kind), key=lambda a: a.devices)
            fitting = [a for a in arranged if memory_fit(model, a).kv_tokens >= LEAST_KV_TOKENS][:2]
            for accelerator in fitting:
                if (name, accelerator.name) in measured:
                    continue
                try:
                    profile = estimate_profile(model, accelerator, efficiency=efficiency)
                except OptionError:
                    continue
                yield _rounded(profile.model_dump(mode="json", exclude_unset=True))


def _rounded(data: dict[str, object]) -> dict[str, object]:
    return {
        key: float(f"{value:.4g}")
        if isinstance(value, float)
        else _rounded(value)
        if isinstance(value, dict)
        else value
        for key, value in data.items()
        if value is not None
    }


def _lines(profiles: Sequence[dict[str, object]]) -> str:
    return "".join(
        f"  - {yaml.safe_dump(p, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000).strip()}\n"
        for p in profiles
    )


def main() -> None:
    """Fit, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published tables")
    parser.add_argument("--write", action="store_true", help="write models/measured.yaml and models/estimated.yaml")
    parser.add_argument(
        "--efficiency", action="store_true", help="fit the efficiencies of the estimates, and only these"
    )
    arguments = parser.parse_args()
    console, catalogue = Console(), shipped_catalogue()
    every = [group for group in groups(arguments.data) if len(group.runs) >= 4]
    if arguments.efficiency:
        console.print("for inferno_milp/profiles/roofline.py:", fitted_efficiency(every, catalogue))
        return
    efficiency = DEFAULT_EFFICIENCY
    by_pair: dict[tuple[str, str, int], list[Group]] = collections.defaultdict(list)
    for group in every:
        if group.devices <= 8:
            named = dataclasses.replace(group, model=catalogue.language_model(group.model).name)
            by_pair[named.model, group.accelerator, group.devices].append(named)
    order = sorted(by_pair, key=lambda pair: (pair[0].casefold(), pair[1], pair[2]))
    jobs = (joblib.delayed(best_fit)(by_pair[pair], catalogue, efficiency) for pair in order)
    chosen = []
    for pair, fit in zip(order, joblib.Parallel(n_jobs=-1, verbose=5)(jobs), strict=True):
        if isinstance(fit, str):
            console.print(f"left out: {pair[0]} on {pair[2]} {pair[1]}: {fit}")
        else:
            chosen.append(fit)
    table = Table("model", "accelerator", "runs", "shapes", "TTFT", "ITL", "terms kept")
    for fit in chosen:
        origin = fit.profile.origin
        assert origin is not None
        terms = " ".join(fit.estimate.setting.terms[4:])
        table.add_row(fit.profile.model, fit.profile.accelerator, str(origin.runs), str(origin.shapes),
                      f"{origin.ttft_error:.1%}", f"{origin.itl_error:.1%}", terms)  # fmt: skip
    console.print(table)
    if arguments.write:
        folder = Path(__file__).parent.parent / "models"
        profiles = [fit.profile.model_dump(mode="json", exclude_unset=True) for fit in chosen]
        (folder / "measured.yaml").write_text(HEAD_MEASURED + _lines(profiles), encoding="utf-8")
        measured = {(fit.profile.model, fit.profile.accelerator) for fit in chosen}
        guesses = list(estimates(catalogue, measured, efficiency))
        (folder / "estimated.yaml").write_text(HEAD_ESTIMATED + _lines(guesses), encoding="utf-8")
        console.print(f"{len(profiles)} measured, {len(guesses)} estimated")


if __name__ == "__main__":
    main()
