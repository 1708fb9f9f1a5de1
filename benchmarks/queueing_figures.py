"""The figures of docs/queueing.md."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from inferno_milp import queueing, simulation

TRUTH = Path(__file__).parent.parent / "tests" / "data" / "simulated_truth.csv"
ENGINE: dict[str, Any] = {
    "alpha_ms": 8.0,
    "beta_ms": 0.03,
    "gamma_ms": 8.0,
    "delta_ms": 0.02,
    "input_tokens": 1000.0,
    "output_tokens": 250.0,
    "cv2_input": 1.0,
}
BATCH = 64
BLUE, RED, GREY = "#2a6fbb", "#c2452d", "#8a8f98"


def figure(columns: int, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """Make a row of axes."""
    made = Figure(figsize=(3.6 * columns, height), layout="constrained")
    axes = [made.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(visible=True, color="#e6e8eb", linewidth=0.8)
        ax.set_axisbelow(True)
    return made, axes


def batching() -> Figure:
    """Four requests in an engine that runs three at a time; prompts are dark, tokens light."""
    made, (ax,) = figure(1, 2.2)
    made.set_size_inches(8.0, 2.4)
    # Arrival, then iterations (start, end) of the prompt and of each token, in ms.
    lengths = [30, 12, 34, 13, 13, 36, 14, 12]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    prompts, tokens = {0: 0, 1: 2, 2: 2, 3: 5}, {0: (1, 4), 1: (3, 6), 2: (3, 7), 3: (6, 7)}
    arrivals = {0: 0.0, 1: 33.0, 2: 37.0, 3: 60.0}
    for request in range(4):
        first = prompts[request]
        ax.plot([arrivals[request]], [request], marker="|", markersize=16, color="black")
        ax.plot([arrivals[request], starts[first]], [request, request], color=GREY, linewidth=1.2, linestyle=":")
        ax.add_patch(Rectangle((starts[first], request - 0.32), lengths[first], 0.64, color=BLUE))
        for i in range(tokens[request][0], tokens[request][1] + 1):
            ax.add_patch(Rectangle((starts[i] + 0.4, request - 0.32), lengths[i] - 0.8, 0.64, color="#b8d2ee"))
        ax.text(ends[first] + 1, request, "first token", fontsize=7, va="center", color="#1d3d5c")
    for end in [0, *ends]:
        ax.axvline(end, color="#cfd3d8", linewidth=0.8, zorder=0)
    words = "time, ms; a line ends an iteration"
    ax.set(yticks=range(4), yticklabels=[f"request {i + 1}" for i in range(4)], xlabel=words)
    ax.set_ylim(3.6, -0.6)
    ax.grid(visible=False)
    return made


def _simulate(engine: dict[str, Any], rate_per_s: float, batch: int) -> tuple[float, float, float]:
    """Mean and 95th percentile of the time to first token, and inter-token latency, ms."""
    rng, count = np.random.default_rng([batch, int(1000 * rate_per_s)]), 150_000
    names = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms")
    inputs = simulation.draw_lengths(rng, engine["input_tokens"], count, cv2=1, least=1, law="geometric")
    outputs = simulation.draw_lengths(rng, engine["output_tokens"], count, cv2=1, least=1)
    arrivals = simulation.draw_arrivals(rng, rate_per_s, count)
    one = simulation.Engine(**{name: engine[name] for name in names}, max_batch=batch)
    trace = simulation.run(one, arrivals, inputs, outputs)
    kept = slice(count // 10, count - count // 50)
    gaps = (trace.end_to_end_ms - trace.ttft_ms)[kept]
    served = ~np.isnan(gaps)
    ttft = trace.ttft_ms[kept][served]
    itl = gaps[served].sum() / (outputs[kept][served] - 1).sum()
    return float(ttft.mean()), float(np.percentile(ttft, 95)), float(itl)


def against_rate() -> Figure:
    """Latencies and throughput against the rate; dots are simulated."""
    made, (ttft, itl, out) = figure(3)
    full = float(queueing.size(**ENGINE, max_batch=BATCH).max_rate_per_s)
    rates = np.linspace(0.02, 1.12, 150) * full
    for law, color, words in (("continuous-batching", BLUE, "continuous-batching"), ("inferno", RED, "inferno")):
        extra = {name: value for name, value in ENGINE.items() if law != "inferno" or not name.startswith("cv2")}
        found = queueing.analyze(law, **extra, max_batch=BATCH, rate_per_s=rates)
        ttft.plot(rates, found.ttft_ms, color=color, label=f"mean, {words}")
        if law != "inferno":
            ttft.plot(rates, found.ttft_percentile(95), color=color, linestyle="--", label="p95")
        itl.plot(rates, found.itl_ms, color=color)
        out.plot(rates, found.throughput_per_s, color=color)
    dots = np.linspace(0.1, 0.97, 8) * full
    truth = np.array([_simulate(ENGINE, float(rate), BATCH) for rate in dots])
    style: dict[str, Any] = {"linestyle": "", "color": "black", "markersize": 4}
    ttft.plot(dots, truth[:, 0], marker="o", label="simulated mean", **style)
    ttft.plot(dots, truth[:, 1], marker="^", label="simulated p95", **style)
    itl.plot(dots, truth[:, 2], marker="o", **style)
    out.plot(dots, dots, marker="o", **style)
    ttft.set(yscale="log", ylabel="time to first token, ms", ylim=(20, 2e4))
    itl.set(ylabel="inter-token latency, ms", ylim=(0, None))
    out.set(ylabel="throughput, requests/s", ylim=(0, None))
    for ax in (ttft, itl, out):
        ax.set_xlabel("arrival rate, requests/s")
    ttft.legend(fontsize=7, frameon=False)
    return made


def against_batch() -> Figure:
    """Draw the highest rate and the latencies against the max batch size; dots are simulated."""
    made, (rate, ttft, itl) = figure(3)
    batches = np.arange(1, 257)
    targets: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("mean TTFT ≤ 500 ms", BLUE, {"ttft_ms": 500.0}),
        ("TTFT p95 ≤ 500 ms", BLUE, {"ttft_ms": {"p95": 500.0}}),
        ("… and ITL ≤ 14 ms", RED, {"ttft_ms": 500.0, "itl_ms": 14.0}),
    )
    for i, (words, color, limits) in enumerate(targets):
        sized = queueing.size(**ENGINE, max_batch=batches, **limits)
        rate.plot(batches, sized.max_rate_per_s, color=color, linestyle="--" if i == 1 else "-", label=words)
    fixed = 6.0
    found = queueing.analyze(**ENGINE, max_batch=batches, rate_per_s=fixed)
    enough = found.blocking < 0.01
    ttft.plot(batches[enough], found.ttft_ms[enough], color=BLUE, label="mean")
    ttft.plot(batches[enough], found.ttft_percentile(95)[enough], color=BLUE, linestyle="--", label="p95")
    itl.plot(batches[enough], found.itl_ms[enough], color=BLUE)
    dots = [b for b in (24, 28, 32, 48, 64, 96, 128, 192, 256) if enough[b - 1]]
    truth = np.array([_simulate(ENGINE, fixed, b) for b in dots])
    style: dict[str, Any] = {"linestyle": "", "color": "black", "markersize": 4}
    ttft.plot(dots, truth[:, 0], marker="o", **style)
    ttft.plot(dots, truth[:, 1], marker="^", **style)
    itl.plot(dots, truth[:, 2], marker="o", label="simulated", **style)
    rate.set(ylabel="highest rate, requests/s", ylim=(0, None))
    ttft.set(yscale="log", ylabel=f"TTFT at {fixed:g} requests/s, ms")
    itl.set(ylabel=f"ITL at {fixed:g} requests/s, ms", ylim=(0, 14))
    for ax in (rate, ttft, itl):
        ax.set_xlabel("max batch size N")
        ax.legend(fontsize=7, frameon=False)
    return made


def prediction() -> Figure:
    """Predicted against simulated, 302 runs of another simulator."""
    with TRUTH.open(newline="") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(r[name]) for r in rows]) for name in rows[0] if not name.endswith("_law")}
    plain = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "input_tokens", "output_tokens", "max_batch", "max_queue")
    made, axes = figure(3)
    for law, color, size in (("inferno", RED, 5), ("continuous-batching", BLUE, 7)):
        names = plain if law == "inferno" else (*plain, "cv2_input", "cv2_output", "token_budget")
        found = queueing.analyze(law, **{n: column[n] for n in names}, rate_per_s=1000 * column["rate_per_ms"])
        pairs = (
            ("ttft_mean_ms", found.ttft_ms), ("ttft_p95_ms", found.ttft_percentile(95)), ("itl_mean_ms", found.itl_ms)
        )  # fmt: skip
        for ax, (truth, values) in zip(axes, pairs, strict=True):
            ax.scatter(column[truth], values, s=size, color=color, alpha=0.6, label=law, linewidths=0)
    for ax, words in zip(axes, ("mean TTFT", "TTFT p95", "mean ITL"), strict=True):
        ends = np.array(ax.get_xlim())
        ends[0] = max(ends[0], 8)
        ax.plot(ends, ends, color="black", linewidth=0.8)
        ax.set(xscale="log", yscale="log", xlabel=f"{words} simulated, ms", ylabel="predicted, ms")
    axes[0].legend(fontsize=7, frameon=False)
    return made


FIGURES = {
    "batching": batching,
    "against_rate": against_rate,
    "against_batch": against_batch,
    "prediction": prediction,
}
