"""Figures of docs/profiles.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.catalogue import EXP1_CV2
from inferno_milp.profiles.fitting import fit_profile
from inferno_milp.profiles.measurements import read_measurements
from inferno_milp.report.plots import plot_fit

RUNS = Path(__file__).parent.parent / "tests" / "data" / "vllm_llama31_8b_h100.csv"


def draw_fit() -> Figure:
    """Predicted over measured, of vLLM on one H100."""
    read = read_measurements([RUNS]).measurements
    runs = [dataclasses.replace(m, cv2_input=EXP1_CV2, cv2_output=EXP1_CV2) for m in read]
    fit = fit_profile(runs, model="meta-llama/Llama-3.1-8B-Instruct", accelerator="H100")
    figure = Figure(figsize=(10, 4), layout="constrained")
    plot_fit(fit, [figure.add_subplot(1, 2, i) for i in (1, 2)])
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {"fit": draw_fit}
