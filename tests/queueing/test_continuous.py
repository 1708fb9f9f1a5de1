"""The law `continuous-batching`: against simulations, theory, and its own promise that nothing falls with the rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_problems import read_csv

from inferno_milp import queueing, simulation

ENGINE: dict[str, Any] = {
    "alpha_ms": 8.0,
    "beta_ms": 0.03,
    "gamma_ms": 8.0,
    "delta_ms": 0.02,
    "input_tokens": 500.0,
    "output_tokens": 200.0,
    "max_batch": 32,
}
MEANS = ("ttft_ms", "itl_ms", "wait_ms", "throughput_per_s", "running", "blocking", "p_wait")
PERCENTS = (50, 90, 95, 99, 99.9)


def truth() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    rows = read_csv("simulated_truth.csv")
    numbers = [name for name in rows[0] if not name.endswith("_law")]
    column = {name: np.array([float(row[name]) for row in rows]) for name in numbers}
    names = (
        "alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "input_tokens", "output_tokens", "cv2_input", "cv2_output",
        "max_batch", "max_queue", "token_budget",
    )  # fmt: skip
    return {name: column[name] for name in names}, column


def errors(found: np.ndarray, expected: np.ndarray, *percents: float) -> list[float]:
    return np.percentile(np.abs(found / expected - 1), percents).tolist()


class TestAgainstSimulation:
    """302 runs of a simulator that is not ours, three engines, four mixes, loads up to 0.95."""

    def test_latencies(self) -> None:
        engines, column = truth()
        found = queueing.analyze(**engines, rate_per_s=1000 * column["rate_per_ms"])
        median, p90 = errors(found.ttft_ms, column["ttft_mean_ms"], 50, 90)
        assert median <= 0.03
        assert p90 <= 0.15
        median, p90 = errors(found.itl_ms, column["itl_mean_ms"], 50, 90)
        assert median <= 0.002
        assert p90 <= 0.04
        median, p90 = errors(found.ttft_percentile(95), column["ttft_p95_ms"], 50, 90)
        assert median <= 0.06
        assert p90 <= 0.25
        assert errors(found.running, column["running_mean"], 50, 90)[1] < 0.1

    def test_sized_rates(self) -> None:
        """Given what was simulated at a rate as the target, that rate should be sized."""
        engines, column = truth()
        unloaded = column["gamma_ms"] + column["delta_ms"] * column["input_tokens"]
        queued = column["ttft_mean_ms"] > 1.5 * unloaded  # below, the latency hardly depends on the rate
        sized = queueing.size(**engines, ttft_ms=column["ttft_mean_ms"], max_blocking=0.5)
        close = np.abs(sized.max_rate_per_s / (1000 * column["rate_per_ms"]) - 1) < 0.1
        assert close[queued].mean() >= 0.95
        seeds = {name: engines[name] for name in engines if not name.startswith(("cv2", "token"))}
        theirs = queueing.size("inferno", **seeds, ttft_ms=column["ttft_mean_ms"])
        seed_close = np.abs(theirs.max_rate_per_s / (1000 * column["rate_per_ms"]) - 1) < 0.1
        assert seed_close[queued].mean() < 0.5

    @pytest.mark.parametrize("cv2_arrival", [0.0, 4.0])
    def test_regular_and_bursty_arrivals(self, cv2_arrival: float) -> None:
        """Poisson's answer would be far off, on either side."""
        rng, count = np.random.default_rng(5), 150_000
        engine = {**ENGINE, "cv2_input": 0.0, "cv2_output": 1.0}
        rate = 0.8 * float(queueing.size(**engine).max_rate_per_s)
        parameters = {name: engine[name] for name in ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "max_batch")}
        arrivals = simulation.draw_arrivals(rng, rate, count, cv2=cv2_arrival)
        outputs = simulation.draw_lengths(rng, 200, count, cv2=1, least=1)
        trace = simulation.run(simulation.Engine(**parameters), arrivals, np.full(count, 500), outputs)
        simulated = float(np.nanmean(trace.ttft_ms[10_000:]))
        found = queueing.analyze(**engine, cv2_arrival=cv2_arrival, rate_per_s=rate)
        poisson = queueing.analyze(**engine, rate_per_s=rate)
        assert abs(math.log(found.ttft_ms / simulated)) < abs(math.log(poisson.ttft_ms / simulated)) / 2

    def test_optional_terms(self) -> None:
        """κ, q, overhead and lag, in the law and in the simulator."""
        rng, count, rate = np.random.default_rng(6), 100_000, 6.0
        terms = {"kappa_ms": 2e-5, "prefill_quadratic_ms": 2e-6, "overhead_ms": 15.0, "lag_iterations": 0.7}
        parameters = {name: ENGINE[name] for name in ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "max_batch")}
        outputs = simulation.draw_lengths(rng, 200, count, cv2=1, least=1)
        arrivals, inputs = simulation.draw_arrivals(rng, rate, count), np.full(count, 1500)
        trace = simulation.run(simulation.Engine(**parameters, **terms), arrivals, inputs, outputs)
        engine = {**ENGINE, "input_tokens": 1500.0}
        found = queueing.analyze(**engine, **terms, rate_per_s=rate)
        plain = queueing.analyze(**engine, rate_per_s=rate)
        assert found.ttft_ms == pytest.approx(np.nanmean(trace.ttft_ms), rel=0.04)
        tokens = trace.output_tokens - 1
        itl_ms = np.nansum(trace.end_to_end_ms - trace.ttft_ms) / tokens.sum()
        assert found.itl_ms == pytest.approx(itl_ms, rel=0.01)
        assert found.itl_percentile(95) == pytest.approx(simulation.gap_percentile(trace.gaps, 95), rel=0.1)
        assert plain.ttft_ms < 0.7 * found.ttft_ms


class TestPromptsInChunks:
    """A prompt in c chunks puts prompt work, and its longer base, into c iterations."""

    def test_the_highest_throughput(self) -> None:
        """Against engines that always have requests waiting: budgets of 256 to 2048, γ up to 3α, up to ten chunks."""
        rng, count, requests = np.random.default_rng(17), 60, 12_000
        budget = rng.choice([256.0, 512.0, 1024.0, 2048.0], count)
        alpha_ms = rng.uniform(4, 30, count)
        engine = {
            "alpha_ms": alpha_ms,
            "beta_ms": alpha_ms * rng.uniform(0.001, 0.02, count),
            "gamma_ms": alpha_ms * rng.uniform(1.05, 3, count),
            "delta_ms": rng.uniform(0.005, 0.05, count),
            "token_budget": budget,
            "input_tokens": np.round(budget * rng.uniform(0.3, 10, count)),
            "output_tokens": np.round(rng.uniform(20, 600, count)),
            "max_batch": np.minimum(np.round(np.exp(rng.uniform(np.log(4), np.log(128), count))), budget / 2),
            "cv2_input": np.where(rng.random(count) < 0.5, 0.0, 1.0),
            "cv2_output": np.ones(count),
        }
        per_s = []
        for i in range(count):
            one = {name: float(values[i]) for name, values in engine.items()}
            inputs, outputs = (
                simulation.draw_lengths(rng, one[f"{name}_tokens"], requests, cv2=one[f"cv2_{name}"], least=1)
                for name in ("input", "output")
            )
            terms = {name: one[name] for name in ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms")}
            sizes = {name: int(one[name]) for name in ("token_budget", "max_batch")}
            arrivals = np.arange(requests) * 1e-3
            trace = simulation.run(simulation.Engine(**terms, **sizes, max_queue=requests), arrivals, inputs, outputs)
            done_ms = np.sort(arrivals + trace.end_to_end_ms)[requests // 10 : -requests // 10]
            per_s.append(1000 * (done_ms.size - 1) / (done_ms[-1] - done_ms[0]))
        found = queueing.size(**engine, max_queue=10_000, max_blocking=0.9).analysis.throughput_per_s
        off = found / np.array(per_s) - 1
        median, p90 = np.percentile(np.abs(off), (50, 90))
        assert median < 0.01
        assert p90 < 0.04
        assert np.abs(off).max() < 0.2

    def test_itl(self) -> None:
        """At 60 and 90 % of what the engine serves; without the chunks it would be 20 % too short."""
        terms = {"alpha_ms": 6.8, "beta_ms": 0.024, "gamma_ms": 12.0, "delta_ms": 0.018}
        engine = {**terms, "token_budget": 512, "max_batch": 32, "input_tokens": 4000.0, "output_tokens": 100.0}
        rng, count = np.random.default_rng(3), 40_000
        outputs = simulation.draw_lengths(rng, 100, count, cv2=1, least=1)
        for rate in (2.8, 4.1):
            arrivals = simulation.draw_arrivals(rng, rate, count)
            sizes = {"token_budget": 512, "max_batch": 32}
            trace = simulation.run(simulation.Engine(**terms, **sizes), arrivals, np.full(count, 4000), outputs)
            itl_ms = np.nansum(trace.end_to_end_ms - trace.ttft_ms) / (trace.output_tokens - 1).sum()
            assert queueing.analyze(**engine, rate_per_s=rate).itl_ms == pytest.approx(itl_ms, rel=0.03)


@st.composite
def engines(draw: st.DrawFn) -> dict[str, Any]:
    """Any engine: edge cases and all."""
    zero_or = lambda low, high: st.one_of(st.just(0.0), st.floats(low, high))  # noqa: E731
    engine = {
        "alpha_ms": draw(zero_or(0.5, 100)),
        "beta_ms": draw(zero_or(1e-6, 5)),
        "gamma_ms": draw(zero_or(0.5, 500)),
        "delta_ms": draw(zero_or(1e-6, 0.5)),
        "kappa_ms": draw(zero_or(1e-7, 1e-3)),
        "overhead_ms": draw(zero_or(1, 30)),
        "prefill_quadratic_ms": draw(zero_or(1e-9, 1e-5)),
        "lag_iterations": draw(zero_or(0.1, 2)),
        "input_tokens": draw(zero_or(1, 20_000)),
        "output_tokens": draw(st.one_of(st.just(1.0), st.floats(1.5, 3000))),
        "cv2_input": draw(zero_or(0.05, 8)),
        "cv2_output": draw(zero_or(0.05, 8)),
        "cv2_arrival": draw(st.one_of(st.just(1.0), st.just(0.0), st.floats(0.1, 10))),
        "max_batch": draw(st.sampled_from([1, 2, 3, 8, 17, 40, 300, 4096])),
        "max_queue": draw(st.sampled_from([0, 1, 2, 10, 60, 1000, None])),
        "token_budget": draw(st.sampled_from([8192, 2048, 1024, 512, 256, 64])),
        "kv_tokens": draw(st.one_of(st.none(), st.floats(30_000, 1e6))),
    }
    if draw(st.booleans()):  # prompts in several chunks, whose iterations are longer
        engine["gamma_ms"] = engine["alpha_ms"] * draw(st.floats(1, 3))
        engine["input_tokens"] = engine["token_budget"] * draw(st.floats(0.3, 10))
    if engine["input_tokens"] == 0 or engine["alpha_ms"] == engine["gamma_ms"] == 0:  # every request takes some time
        engine |= {"alpha_ms": 7.0, "output_tokens": max(engine["output_tokens"], 32.0)}
    return engine


class TestNothingFalls:
    @given(
        engine=engines(),
        loads=st.lists(st.one_of(st.sampled_from([1.0, 1 - 1e-9, 1.5]), st.floats(1e-4, 8)), min_size=2, max_size=6),
    )
    @settings(max_examples=150)
    def test_as_the_rate_grows(self, engine: dict[str, Any], loads: list[float]) -> None:
        sized = queueing.size(**engine)
        assume(bool(sized.fits))
        full = float(sized.max_rate_per_s)
        found = queueing.analyze(**engine, rate_per_s=full * np.sort(loads))
        figures = {name: getattr(found, name) for name in MEANS}
        for percent in PERCENTS:
            figures[f"ttft p{percent}"] = found.ttft_percentile(percent)
            figures[f"itl p{percent}"] = found.itl_percentile(percent)
            figures[f"wait p{percent}"] = found.wait_percentile(percent)
        for name, values in figures.items():
            assert np.isfinite(values).all(), name
            assert (values[:-1] <= values[1:] * (1 + 1e-6) + 1e-9).all(), name
        assert ((found.blocking >= 0) & (found.blocking <= 1)).all()
        assert (found.utilization <= 1 + 1e-12).all()


class TestSizing:
    @given(engine=engines(), tightness=st.floats(1.05, 30), percent=st.sampled_from([None, 50, 95, 99.9]))
    @settings(max_examples=80)
    def test_the_rate_meets_its_targets_and_no_higher_one_does(
        self, engine: dict[str, Any], tightness: float, percent: float | None
    ) -> None:
        lowest = queueing.size(**engine, itl_ms=1e-300)  # so strict that it is left at the lowest admissible rate
        assume(bool(lowest.fits))
        slow = lowest.analysis
        ttft_ms = float(slow.ttft_ms if percent is None else slow.ttft_percentile(percent)) * tightness + 1e-3
        name = "mean" if percent is None else f"p{percent}"
        sized = queueing.size(**engine, ttft_ms={name: ttft_ms})
        if sized.verdict == "infeasible":  # bursts at an engine without a queue
            assert slow.blocking > 0.01
            return
        assert sized.verdict in ("met", "capped")

        def latency(rate_per_s: float) -> float:
            found = queueing.analyze(**engine, rate_per_s=rate_per_s)
            return float(found.ttft_ms if percent is None else found.ttft_percentile(percent))

        rate = float(sized.max_rate_per_s)
        assert latency(rate) <= ttft_ms * (1 + 1e-9)
        if sized.verdict == "met":
            assert latency(rate * (1 + 1e-5)) >= ttft_ms * (1 - 1e-5)
        else:
            assert sized.analysis.blocking == pytest.approx(0.01, rel=1e-3)

    def test_a_probability_that_stays_at_its_level(self) -> None:
        """Where the sized rate makes exactly 0.1 % wait, p99.9 is the short time, not the wait."""
        engine = {
            "alpha_ms": 20.0, "beta_ms": 0.0, "gamma_ms": 0.0, "delta_ms": 0.0, "input_tokens": 1.0,
            "output_tokens": 101.0, "cv2_output": 0.0, "max_batch": 2,
        }  # fmt: skip
        sized = queueing.size(**engine, ttft_ms={"p99.9": 50.0})
        assert sized.verdict == "met"
        assert sized.analysis.ttft_percentile(99.9) <= 50.0
        assert sized.analysis.p_wait == pytest.approx(0.001)

    def test_a_mean_and_percentiles_together(self) -> None:
        """The strictest decides; numbers and names mix, and broadcast."""
        one_by_one = [
            float(queueing.size(**ENGINE, **target).max_rate_per_s)
            for target in ({"ttft_ms": 400.0}, {"ttft_ms": {"p95": 900.0}}, {"itl_ms": {"p99": 40.0}}, {"itl_ms": 12.0})
        ]
        together = queueing.size(
            **ENGINE, ttft_ms={"mean": 400.0, "p95": 900.0}, itl_ms={"p99": 40.0, "mean": np.array([12.0, np.nan])}
        )
        assert together.max_rate_per_s[0] == pytest.approx(min(one_by_one))
        assert together.max_rate_per_s[1] == pytest.approx(min(one_by_one[:3]))

    def test_blocking_caps_the_rate(self) -> None:
        rates = [float(queueing.size(**ENGINE, max_blocking=share).max_rate_per_s) for share in (0.001, 0.01, 0.3)]
        assert rates == sorted(rates)
        assert queueing.size(**ENGINE).analysis.blocking == pytest.approx(0.01)

    @pytest.mark.parametrize("name", ["p49", "p99.95", "p100", "95", "median", "p9"])
    def test_statistics_that_are_none(self, name: str) -> None:
        with pytest.raises(ValueError, match="neither mean nor p50"):
            queueing.size(**ENGINE, ttft_ms={name: 100.0})


class TestMemory:
    def test_the_cache_holds_the_batch_down(self) -> None:
        """0.9 · 14000 / (500 + 200) = 18 requests; with fixed outputs 0.9 · 14000 / 600 = 21."""
        assert queueing.analyze(**ENGINE, kv_tokens=14_000, rate_per_s=1.0).max_batch == 18
        assert queueing.analyze(**ENGINE, kv_tokens=14_000, cv2_output=0, rate_per_s=1.0).max_batch == 21
        held = queueing.size(**ENGINE, kv_tokens=14_000, ttft_ms=500.0)
        small = queueing.size(**{**ENGINE, "max_batch": 18, "max_queue": 320 + 14}, ttft_ms=500.0)
        assert held.max_rate_per_s == pytest.approx(float(small.max_rate_per_s))

    def test_a_request_that_does_not_fit(self) -> None:
        sized = queueing.size(**ENGINE, kv_tokens=np.array([600.0, 14_000.0]))
        assert sized.verdict.tolist() == ["infeasible", "capped"]
        assert sized.fits.tolist() == [False, True]
        with pytest.raises(ValueError, match="kv_tokens cannot hold one request"):
            queueing.analyze(**ENGINE, kv_tokens=600, rate_per_s=1.0)

    def test_engines_are_put_back_in_order(self) -> None:
        """The cache changes the batches by which engines are sorted."""
        caches = np.array([14_000.0, np.nan, 7_000.0, 30_000.0])
        together = queueing.analyze(**{**ENGINE, "max_batch": [32, 8, 16, 20]}, kv_tokens=caches, rate_per_s=3.0)
        for i, (batch, cache) in enumerate(zip([32, 8, 16, 20], caches, strict=True)):
            alone = queueing.analyze(**{**ENGINE, "max_batch": batch}, kv_tokens=cache, rate_per_s=3.0)
            assert together.ttft_ms[i] == pytest.approx(float(alone.ttft_ms), rel=1e-12)
            assert together.max_batch[i] == alone.max_batch


class TestTheory:
    @pytest.mark.parametrize(("cv2_output", "load"), [(0.0, 0.3), (0.0, 0.8), (1.0, 0.5), (3.0, 0.7)])
    def test_one_at_a_time_is_pollaczek_khinchine(self, cv2_output: float, load: float) -> None:
        """N = 1 is M/G/1: W = λE[S²]/(2(1 − ρ))."""
        engine = {**ENGINE, "max_batch": 1, "max_queue": 100_000, "cv2_output": cv2_output}
        decode_ms, service_ms = 199 * 8.03, 8 + 0.02 * 500 + 199 * 8.03
        second_moment = service_ms**2 + cv2_output * decode_ms**2
        rate = load / service_ms
        found = queueing.analyze(**engine, rate_per_s=1000 * rate)
        assert found.wait_ms == pytest.approx(rate * second_moment / (2 * (1 - load)), rel=1e-6)

    def test_alone(self) -> None:
        found = queueing.analyze(**ENGINE, rate_per_s=0.0)
        assert [found.ttft_ms, found.ttft_percentile(99)] == pytest.approx([18.0, 18.0])
        assert [found.itl_ms, found.itl_percentile(99)] == pytest.approx([8.03, 8.03])

    def test_a_prompt_is_cut_to_the_budget(self) -> None:
        found = queueing.analyze(**{**ENGINE, "input_tokens": 2000.0}, token_budget=600, rate_per_s=0.0)
        assert found.ttft_ms == pytest.approx(4 * 8 + 0.02 * 2000)

    def test_without_prompts(self) -> None:
        """Nothing but the iteration under way stands between an arrival and its first token."""
        found = queueing.analyze(**{**ENGINE, "input_tokens": 0.0, "max_batch": 400}, rate_per_s=20.0)
        assert found.p_wait < 1e-9
        assert found.ttft_ms == pytest.approx(float(found.itl_ms) / 2, rel=0.02)

    def test_littles_law(self) -> None:
        found = queueing.analyze(**ENGINE, rate_per_s=5.0)
        stay_ms = found.ttft_ms - found.wait_ms + 199 * found.itl_ms
        assert found.running == pytest.approx(float(found.throughput_per_s * stay_ms / 1000))

    @pytest.mark.parametrize("change", [{"beta_ms": 0.0, "delta_ms": 0.0}, {"max_batch": 1}])
    def test_constant_itl(self, change: dict[str, float]) -> None:
        engine = {**ENGINE, **change}
        itl = float(queueing.analyze(**engine, rate_per_s=1.0).itl_ms)
        assert queueing.size(**engine, itl_ms=itl * 1.0001).verdict == "capped"
        assert queueing.size(**engine, itl_ms=itl * 0.9999).verdict == "infeasible"

    def test_requests_that_take_no_time(self) -> None:
        engine = {**ENGINE, "input_tokens": 0.0, "output_tokens": 1.0}
        assert np.isinf(queueing.size(**engine, ttft_ms=100.0).max_rate_per_s)


class TestParameters:
    def test_unknown_and_missing(self) -> None:
        with pytest.raises(TypeError, match="unknown parameter 'betas_ms'; missing parameter 'beta_ms'"):
            queueing.analyze(**{("betas_ms" if k == "beta_ms" else k): v for k, v in ENGINE.items()}, rate_per_s=1.0)

    @pytest.mark.parametrize(
        "bad",
        [
            {"cv2_input": -1.0}, {"cv2_arrival": math.inf}, {"token_budget": 0}, {"token_budget": 2.5},
            {"kv_tokens": 0.5}, {"max_blocking": 0.0}, {"max_blocking": 1.0}, {"overhead_ms": math.nan},
        ],
    )  # fmt: skip
    def test_bad_values(self, bad: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=next(iter(bad))):
            queueing.analyze(**ENGINE, **bad, rate_per_s=1.0)

    def test_it_is_the_default(self) -> None:
        assert queueing.DEFAULT_LAW == "continuous-batching"
        named = queueing.analyze("continuous-batching", **ENGINE, rate_per_s=3.0)
        assert queueing.analyze(**ENGINE, rate_per_s=3.0).ttft_ms == named.ttft_ms
