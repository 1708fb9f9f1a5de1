"""Which runs count: runs of simulated engines, of which it is known whether they were saturated."""

from __future__ import annotations

import numpy as np
import pytest

import inferno_milp as im
from inferno_milp.profiles.fitting.runs import make_runs
from inferno_milp.profiles.measurements import Measurement
from inferno_milp.simulation import Engine, draw_arrivals, draw_lengths, run

HEALTHY, SATURATED = (0.1, 0.3, 0.5, 0.7, 0.8), (1.25, 1.5)
"""Rates, as parts of the highest that the engine carries."""


def measured(
    engine: Engine, rate_per_s: float, tokens: tuple[int, int], cv2: float, rng: np.random.Generator, until_s: float
) -> Measurement | None:
    """What a benchmark would report of some hundred requests, or of all that ended by a time; None of too few."""
    count = int(rng.choice([200, 500])) if np.isinf(until_s) else int(1.5 * rate_per_s * until_s) + 50
    arrival_ms = draw_arrivals(rng, rate_per_s, count)
    arrival_ms = arrival_ms[arrival_ms < 1e3 * until_s]
    outputs = draw_lengths(rng, tokens[1], len(arrival_ms), cv2=cv2, least=1)
    trace = run(engine, arrival_ms, np.full(len(arrival_ms), tokens[0]), outputs)
    end_ms = arrival_ms + trace.end_to_end_ms
    done = end_ms < 1e3 * until_s
    if done.sum() < 20:
        return None
    length_s = float(min(end_ms.max() / 1e3, until_s))

    def statistics(values: np.ndarray) -> dict[str, float]:
        values = values[done & np.isfinite(values)]
        return {"mean": values.mean(), "p50": float(np.median(values)), "p99": float(np.percentile(values, 99))}

    return Measurement(
        place="simulated",
        tool="simulator",
        sent="rate",
        rate_per_s=rate_per_s,
        cv2_arrival=1.0,
        input_tokens=tokens[0],
        output_tokens=float(outputs[done].mean()),
        requests=int(done.sum()),
        duration_s=length_s,
        throughput_per_s=done.sum() / length_s,
        ttft_ms=statistics(trace.ttft_ms),
        itl_ms=statistics(trace.itl_ms),
    )


@pytest.mark.parametrize("until_s", [np.inf, 60.0], ids=["requests", "seconds"])
def test_runs_of_simulated_engines(until_s: float) -> None:
    """150 sweeps: hardly a healthy run is called saturated, few saturated ones count."""
    rng = np.random.default_rng(11)
    wrong, known = dict.fromkeys((*HEALTHY, *SATURATED), 0), dict.fromkeys((*HEALTHY, *SATURATED), 0)
    for _ in range(150):
        alpha_ms, tokens = rng.uniform(5, 25), (int(rng.choice([200, 512, 2000])), int(rng.choice([60, 128, 256])))
        terms = {"alpha_ms": alpha_ms, "gamma_ms": alpha_ms, "delta_ms": rng.uniform(0.01, 0.06)}
        terms["beta_ms"], cv2, batch = float(rng.choice([0.03, 0.1, 0.25])), float(rng.integers(2)), 64
        lengths = {"input_tokens": tokens[0], "output_tokens": tokens[1], "cv2_output": cv2}
        most = float(im.size(**terms, **lengths, max_batch=batch, max_queue=10**5).max_rate_per_s)
        engine = Engine(**terms, max_batch=batch, max_queue=10**5)
        shares = (*HEALTHY, *SATURATED)
        found = [measured(engine, share * most, tokens, cv2, rng, until_s) for share in shares]
        runs = make_runs([m for m in found if m is not None])
        for share, reason in zip((s for s, m in zip(shares, found, strict=True) if m), runs.reasons, strict=True):
            known[share] += 1
            wrong[share] += reason.startswith(("saturated", "ended early")) if share < 1 else not reason
    for share in HEALTHY:
        assert wrong[share] <= 0.05 * known[share], share
    assert wrong[1.25] <= 0.35 * known[1.25]
    assert wrong[1.5] <= 0.1 * known[1.5]


def of_prompts(rate_per_s: float, duration_s: float, itl_ms: float = 10.0, p99_ms: float = 60.0, **changes: object):  # type: ignore[no-untyped-def]
    """A run of 200 prompts, as short benchmarks have them."""
    figures: dict[str, object] = {
        "place": "here", "tool": "vllm bench serve", "sent": "rate", "rate_per_s": rate_per_s, "cv2_arrival": 1.0,
        "input_tokens": 200.0, "output_tokens": 200.0, "requests": 200, "errors": 0, "duration_s": duration_s,
        "throughput_per_s": 200 / duration_s, "ttft_ms": {"mean": 30.0, "p50": 29.0, "p99": p99_ms},
        "itl_ms": {"mean": itl_ms},
    }  # fmt: skip
    return Measurement(**{**figures, **changes})  # type: ignore[arg-type]


def test_the_last_answers_end_long_after_the_last_request() -> None:
    """200 at 16/s are sent in 12.5 s; the longest of them took 6 s more, and none waited."""
    calm, waited = of_prompts(16.0, 19.0), of_prompts(16.0, 19.0, p99_ms=6000.0)
    assert make_runs([calm]).reasons == ("",)
    assert make_runs([waited]).reasons[0].startswith("saturated: 200 requests, sent within 12 s, took 19 s")


def test_a_sweep_of_one_number_of_requests_is_not_cut_off() -> None:
    sweep = [of_prompts(rate, 200 / rate + 2.1) for rate in (1.0, 2.0, 4.0, 8.0, 16.0)]
    assert not any(make_runs(sweep).reasons)
    timed = [of_prompts(r, 100.0, requests=int(97 * r), throughput_per_s=0.97 * r) for r in (1.0, 2.0, 4.0, 8.0)]
    cut = of_prompts(16.0, 30.0, requests=450, throughput_per_s=15.0)
    assert make_runs([*timed, cut]).reasons[-1] == "ended early: 30 s, where runs of this shape took 100 s"
    few = of_prompts(1.0, 60.0, requests=58, throughput_per_s=0.97)
    assert not make_runs([*sweep, few]).reasons[-1]
