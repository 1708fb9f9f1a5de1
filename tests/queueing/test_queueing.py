"""The queueing analysis against 60-digit figures, an enumeration of its states, closed forms and theory."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammainccinv
from small_problems import read_csv

from inferno_milp import queueing
from inferno_milp.queueing.inferno import HIGHEST_RATE, LOWEST_RATE, TPS_RATE

ENGINE: dict[str, Any] = {
    "alpha_ms": 20.0,
    "beta_ms": 0.4,
    "gamma_ms": 5.0,
    "delta_ms": 0.1,
    "input_tokens": 128.0,
    "output_tokens": 64.0,
    "max_batch": 16,
    "max_queue": 160,
}
PARAMETERS = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "input_tokens", "output_tokens", "max_batch", "max_queue")

REFERENCE = read_csv("queueing_reference.csv")


def column(name: str) -> np.ndarray:
    return np.array([float(case[name] or "nan") for case in REFERENCE])


def reference_engines() -> dict[str, Any]:
    return {name: column(name) for name in PARAMETERS}


class TestAgainstReference:
    """121 engines, some of them extreme, whose figures were computed with 60 digits."""

    def test_analysis(self) -> None:
        found = queueing.analyze("inferno", **reference_engines(), rate_per_s=column("rate_per_ms") * 1000)
        expected = {
            "ttft_ms": column("ttft"),
            "itl_ms": column("itl"),
            "wait_ms": column("wait"),
            "throughput_per_s": column("throughput") * 1000,
            "running": column("in_service"),
            "blocking": column("block"),
            "p_wait": column("p_wait"),
            "p_empty": column("p0") / (1 - column("block")),  # the reference's p0 is the time average
        }
        for name, truth in expected.items():
            # Below 1e-290 doubles have fewer digits than the tolerance.
            np.testing.assert_allclose(getattr(found, name), truth, rtol=1e-11, atol=1e-290, err_msg=name)

    @pytest.mark.parametrize("percent", [50, 90, 95, 99])
    def test_percentiles_of_the_wait(self, percent: int) -> None:
        found = queueing.analyze("inferno", **reference_engines(), rate_per_s=column("rate_per_ms") * 1000)
        np.testing.assert_allclose(found.wait_percentile(percent), column(f"wait_p{percent}"), rtol=1e-11)

    @pytest.mark.parametrize("which", ["", "_ttft", "_itl"])
    def test_highest_rates(self, which: str) -> None:
        targets = {
            name: np.where(column(f"target_{name}") > 0, column(f"target_{name}"), np.inf)
            for name in ("ttft_ms", "itl_ms")
            if which in ("", f"_{name[:-3]}")
        }
        found = queueing.size("inferno", **reference_engines(), **targets)
        words = {"root": "met", "none": "capped"}
        verdicts = [words.get(case[f"status{which}"], case[f"status{which}"]) for case in REFERENCE]
        assert found.verdict.tolist() == verdicts
        expected = np.nan_to_num(column(f"max_rate{which}") * 1000)  # nothing is written where infeasible
        np.testing.assert_allclose(found.max_rate_per_s, expected, rtol=1e-8)


@st.composite
def engines(draw: st.DrawFn) -> dict[str, float]:
    """Any engine, edge cases and all, that takes some time."""
    zero_or = lambda low, high: st.one_of(st.just(0.0), st.floats(low, high))  # noqa: E731
    engine = {
        "alpha_ms": draw(zero_or(0.5, 100)),
        "beta_ms": draw(zero_or(1e-6, 5)),
        "gamma_ms": draw(zero_or(0.5, 500)),
        "delta_ms": draw(zero_or(1e-6, 0.5)),
        "input_tokens": draw(st.one_of(st.just(0.0), st.floats(1, 8000))),
        "output_tokens": draw(st.one_of(st.just(1.0), st.floats(1.5, 1200))),
        "max_batch": draw(st.sampled_from([1, 2, 3, 8, 17, 40])),
        "max_queue": draw(st.sampled_from([0, 1, 2, 10, 60])),
    }
    if service_ms(engine, 1) <= 0:
        engine |= {"alpha_ms": 7.0, "output_tokens": 32.0}
    return engine


def service_ms(engine: dict[str, float], n: int) -> float:
    prompt = engine["gamma_ms"] + engine["delta_ms"] * engine["input_tokens"] * n if engine["input_tokens"] > 0 else 0
    return prompt + (engine["output_tokens"] - 1) * (engine["alpha_ms"] + engine["beta_ms"] * n)


def full_rate_per_s(engine: dict[str, float]) -> float:
    return 1000 * engine["max_batch"] / service_ms(engine, int(engine["max_batch"]))


class TestAgainstEnumeration:
    """Every state of the chain, added up one by one."""

    @given(engine=engines(), load=st.one_of(st.sampled_from([1.0, 1 - 1e-9, 1 + 1e-7]), st.floats(1e-3, 8.0)))
    def test_analysis(self, engine: dict[str, float], load: float) -> None:
        rate = load * full_rate_per_s(engine)
        found = queueing.analyze("inferno", **engine, rate_per_s=rate)
        truth = oracle.solve(
            alpha=engine["alpha_ms"],
            beta=engine["beta_ms"],
            gamma=engine["gamma_ms"],
            delta=engine["delta_ms"],
            inputs=engine["input_tokens"],
            outputs=engine["output_tokens"],
            n=int(engine["max_batch"]),
            q=int(engine["max_queue"]),
            rate=rate / 1000,
        )
        close = {"rel": 1e-9, "abs": 1e-250}
        assert found.wait_ms == pytest.approx(truth.wait, **close)
        assert found.running == pytest.approx(truth.running, **close)
        assert found.throughput_per_s == pytest.approx(truth.throughput * 1000, **close)
        assert found.blocking == pytest.approx(truth.blocking, **close)
        assert found.p_wait == pytest.approx(truth.p_wait, **close)
        assert found.p_empty == pytest.approx(truth.p_empty, **close)
        prompt = 0.0
        if engine["input_tokens"] > 0:
            prompt = engine["gamma_ms"] + engine["delta_ms"] * engine["input_tokens"] * truth.batch
        assert found.ttft_ms == pytest.approx(truth.wait + prompt, **close)
        assert found.itl_ms == pytest.approx(engine["alpha_ms"] + engine["beta_ms"] * truth.batch, **close)
        for percent in (50, 95, 99.9):
            time_ms = float(found.wait_percentile(percent))
            if time_ms == 0:
                assert truth.p_wait <= 1 - percent / 100 + 1e-12
            else:
                assert truth.wait_exceeds(time_ms) == pytest.approx(1 - percent / 100, rel=1e-7)

    @pytest.mark.parametrize("load", [3.0, 30.0])
    def test_tail_of_a_drowned_queue(self, load: float) -> None:
        """r > 1 with Q in the thousands: r^Q overflows, and the second gamma function of the tail underflows."""
        engine = {**ENGINE, "max_batch": 2, "max_queue": 3000}
        found = queueing.analyze("inferno", **engine, rate_per_s=load * full_rate_per_s(engine))
        mean_departures = 3000 - 1 / (load - 1)  # the queue is full but for a geometric number of places
        assert found.wait_ms == pytest.approx(mean_departures * 1000 / full_rate_per_s(engine), rel=1e-3)
        truth = oracle.solve(
            alpha=20.0, beta=0.4, gamma=5.0, delta=0.1, inputs=128.0, outputs=64.0, n=2, q=3000,
            rate=load * full_rate_per_s(engine) / 1000,
        )  # fmt: skip
        for percent in (5, 50, 99.9):
            time_ms = float(found.wait_percentile(percent))
            assert truth.wait_exceeds(time_ms) == pytest.approx(1 - percent / 100, rel=1e-6)


class TestTheory:
    """Cases with an answer of their own."""

    def test_one_at_a_time_is_the_finite_single_server_queue(self) -> None:
        """N = 1 is M/M/1/K: π_n = (1−ρ)ρⁿ/(1−ρ^{K+1}) (any textbook)."""
        engine = {**ENGINE, "max_batch": 1, "max_queue": 9}
        mean_ms = service_ms(engine, 1)
        rho, places = 0.8, 10
        found = queueing.analyze("inferno", **engine, rate_per_s=1000 * rho / mean_ms)
        probabilities = [(1 - rho) * rho**n / (1 - rho ** (places + 1)) for n in range(places + 1)]
        accepted = [p / (1 - probabilities[-1]) for p in probabilities[:-1]]
        assert found.blocking == pytest.approx(probabilities[-1], rel=1e-12)
        assert found.wait_ms == pytest.approx(sum(n * mean_ms * p for n, p in enumerate(accepted)), rel=1e-12)

    def test_no_slope_is_erlangs_loss_and_delay(self) -> None:
        """β = δ = 0 is M/M/N/N+Q: Erlang B for Q = 0, and nearly Erlang C for a long queue."""
        engine = {**ENGINE, "beta_ms": 0.0, "delta_ms": 0.0, "max_batch": 10}
        offered = 7.0  # erlang
        rate = 1000 * offered / service_ms(engine, 1)
        b = 1.0
        for n in range(1, 11):
            b = offered * b / (n + offered * b)
        loss = queueing.analyze("inferno", **{**engine, "max_queue": 0}, rate_per_s=rate)
        assert loss.blocking == pytest.approx(b, rel=1e-13)
        assert loss.wait_ms == 0
        delay = queueing.analyze("inferno", **{**engine, "max_queue": 400}, rate_per_s=rate)
        c = b / (1 - offered / 10 * (1 - b))
        assert delay.p_wait == pytest.approx(c, rel=1e-12)
        assert delay.wait_ms == pytest.approx(c * service_ms(engine, 1) / (10 - offered), rel=1e-12)

    @given(engine=engines(), load=st.floats(0, 4))
    def test_littles_law(self, engine: dict[str, float], load: float) -> None:
        """Running = throughput × mean service time, which lies between the shortest and the longest."""
        found = queueing.analyze("inferno", **engine, rate_per_s=load * full_rate_per_s(engine))
        if found.throughput_per_s > 0:
            mean_ms = 1000 * float(found.running / found.throughput_per_s)
            longest = service_ms(engine, int(engine["max_batch"]))
            assert service_ms(engine, 1) * (1 - 1e-9) <= mean_ms <= longest * (1 + 1e-9)

    @given(engine=engines(), loads=st.tuples(st.floats(1e-4, 5), st.floats(1e-4, 5)))
    def test_nothing_falls_as_the_rate_grows(self, engine: dict[str, float], loads: tuple[float, float]) -> None:
        rates = np.sort(loads) * full_rate_per_s(engine)
        found = queueing.analyze("inferno", **engine, rate_per_s=rates)
        for name in ("ttft_ms", "itl_ms", "wait_ms", "throughput_per_s", "running", "blocking", "p_wait"):
            low, high = getattr(found, name)
            assert low <= high * (1 + 1e-9) + 1e-12, name
        for percent in (50, 99):
            low, high = found.wait_percentile(percent)
            assert low <= high * (1 + 1e-7) + 1e-12

    def test_an_idle_engine(self) -> None:
        found = queueing.analyze("inferno", **ENGINE, rate_per_s=0.0)
        assert found.wait_ms == found.p_wait == found.blocking == found.running == found.throughput_per_s == 0
        assert found.p_empty == 1
        assert found.ttft_ms == pytest.approx(5.0 + 0.1 * 128)
        assert found.itl_ms == pytest.approx(20.4)
        assert found.ttft_percentile(99) == pytest.approx(5.0 + 0.1 * 128)

    def test_context_reads_steepen_the_slopes(self) -> None:
        """κ: β + κ(I + K) for geometric outputs, δ + κ (QUEUEING: effective slopes of the workload)."""
        plain = {**ENGINE, "beta_ms": 0.4 + 0.001 * (128 + 64), "delta_ms": 0.1 + 0.001}
        with_context = queueing.analyze("inferno", **ENGINE, kappa_ms=0.001, rate_per_s=4.0)
        expected = queueing.analyze("inferno", **plain, rate_per_s=4.0)
        assert with_context.ttft_ms == pytest.approx(expected.ttft_ms)
        assert with_context.itl_ms == pytest.approx(expected.itl_ms)


class TestSizing:
    """One root, three verdicts, and what the seed gets wrong."""

    @given(engine=engines(), tightness=st.floats(1.0001, 50), which=st.sampled_from(["ttft", "itl", "both"]))
    def test_the_rate_meets_its_targets_and_no_higher_one_does(
        self, engine: dict[str, float], tightness: float, which: str
    ) -> None:
        idle = queueing.analyze("inferno", **engine, rate_per_s=0.0)
        targets: dict[str, float] = {}
        if which != "itl" and idle.ttft_ms > 0:
            targets["ttft_ms"] = float(idle.ttft_ms) * tightness
        if which != "ttft" and idle.itl_ms > 0:
            targets["itl_ms"] = float(idle.itl_ms) * tightness
        sizing = queueing.size("inferno", **engine, **targets)
        if sizing.verdict == "infeasible":
            assert sizing.max_rate_per_s == 0
            at_lowest = queueing.analyze("inferno", **engine, rate_per_s=LOWEST_RATE * 1000 / service_ms(engine, 1))
            assert any(getattr(at_lowest, name) > target for name, target in targets.items())
            return
        found = queueing.analyze("inferno", **engine, rate_per_s=sizing.max_rate_per_s)
        for name, target in targets.items():
            assert getattr(found, name) <= target * (1 + 1e-12)
        if sizing.verdict == "met":
            above = queueing.analyze("inferno", **engine, rate_per_s=sizing.max_rate_per_s * (1 + 1e-9))
            assert any(getattr(above, name) > target * (1 - 1e-12) for name, target in targets.items())
        else:
            assert sizing.max_rate_per_s == pytest.approx(HIGHEST_RATE * full_rate_per_s(engine), rel=1e-12)

    def test_analysis_is_that_of_the_rate(self) -> None:
        sizing = queueing.size("inferno", **ENGINE, ttft_ms=500.0, itl_ms=24.0)
        again = queueing.analyze("inferno", **ENGINE, rate_per_s=sizing.max_rate_per_s)
        assert sizing.analysis.ttft_ms == again.ttft_ms
        assert sizing.analysis.throughput_per_s == again.throughput_per_s

    def test_infeasible_shows_the_best_there_can_be(self) -> None:
        sizing = queueing.size("inferno", **ENGINE, itl_ms=10.0)
        assert sizing.verdict == "infeasible"
        assert sizing.max_rate_per_s == 0
        assert sizing.analysis.itl_ms == pytest.approx(20.4, rel=1e-3)

    @pytest.mark.parametrize("target", [None, math.nan, math.inf])
    def test_without_targets_the_engine_is_filled(self, target: float | None) -> None:
        sizing = queueing.size("inferno", **ENGINE, ttft_ms=target)
        assert sizing.verdict == "capped"
        assert sizing.max_rate_per_s == pytest.approx(HIGHEST_RATE * full_rate_per_s(ENGINE))

    def test_tokens_per_second_keep_the_rate_below_nine_tenths(self) -> None:
        free = queueing.size("inferno", **ENGINE)
        promised = queueing.size("inferno", **ENGINE, tps=2000.0)
        assert promised.max_rate_per_s == pytest.approx(TPS_RATE * free.max_rate_per_s)

    @pytest.mark.parametrize("change", [{"beta_ms": 0.0}, {"max_batch": 1, "max_queue": 10}])
    def test_constant_itl(self, change: dict[str, float]) -> None:
        """The seed inverts the verdict where the ITL does not depend on the rate: it looks at the slope's sign."""
        engine = {**ENGINE, **change}
        itl = float(queueing.analyze("inferno", **engine, rate_per_s=1.0).itl_ms)
        assert queueing.size("inferno", **engine, itl_ms=itl * 1.01).verdict == "capped"
        assert queueing.size("inferno", **engine, itl_ms=itl * 0.99).verdict == "infeasible"

    @pytest.mark.parametrize(
        ("change", "targets"),
        [
            ({"beta_ms": 0.0}, {"itl_ms": 20.0, "ttft_ms": 400.0}),
            ({"max_batch": 1, "max_queue": 10}, {"itl_ms": 20.4, "ttft_ms": 400.0}),
            ({"delta_ms": 0.0, "max_queue": 0}, {"ttft_ms": 5.0, "itl_ms": 24.0}),
        ],
    )
    def test_a_constant_latency_that_equals_its_target(
        self, change: dict[str, float], targets: dict[str, float]
    ) -> None:
        """It is met at every rate: the other target decides, and the search does not stop on the plateau."""
        engine = {**ENGINE, **change}
        loose = {name: target * 1.000001 for name, target in targets.items()}
        both, nearly = queueing.size("inferno", **engine, **targets), queueing.size("inferno", **engine, **loose)
        assert both.verdict == nearly.verdict == "met"
        assert both.max_rate_per_s == pytest.approx(nearly.max_rate_per_s, rel=1e-4)

    def test_no_prompt_takes_no_prompt_time(self) -> None:
        """The seed still subtracts γ from the target where I = 0, and so sizes too low."""
        engine = {**ENGINE, "input_tokens": 0.0, "gamma_ms": 400.0}
        sizing = queueing.size("inferno", **engine, ttft_ms=500.0)
        assert sizing.verdict == "met"
        assert sizing.analysis.wait_ms == pytest.approx(500.0)

    @pytest.mark.parametrize(
        "change",
        [
            {"input_tokens": 0.0, "output_tokens": 1.0},
            {"alpha_ms": 0.0, "beta_ms": 0.0, "gamma_ms": 0.0, "delta_ms": 0.0},
        ],
    )
    def test_requests_that_take_no_time(self, change: dict[str, float]) -> None:
        """The seed never returns: there is no finite rate to search for. Here any rate is served."""
        engine = {**ENGINE, **change}
        sizing = queueing.size("inferno", **engine, ttft_ms=100.0)
        assert sizing.verdict == "capped"
        assert np.isinf(sizing.max_rate_per_s)
        found = queueing.analyze("inferno", **engine, rate_per_s=50.0)
        assert found.wait_ms == found.running == found.blocking == 0
        assert found.throughput_per_s == 50.0

    def test_requests_that_take_no_time_may_still_miss_a_target(self) -> None:
        """One token and no prompt: no work, but the inter-token latency that the engine would have is known."""
        engine = {**ENGINE, "input_tokens": 0.0, "output_tokens": 1.0}
        sizing = queueing.size("inferno", **engine, itl_ms=20.0)
        assert (sizing.verdict, sizing.max_rate_per_s) == ("infeasible", 0)

    def test_one_place_and_no_queue(self) -> None:
        """The seed calls N = 1 with Q = 0 invalid: it is Erlang's loss system with one line."""
        engine = {**ENGINE, "max_batch": 1, "max_queue": 0}
        found = queueing.analyze("inferno", **engine, rate_per_s=1000 / service_ms(engine, 1))
        assert found.blocking == pytest.approx(0.5)
        assert queueing.size("inferno", **engine, ttft_ms=100.0, itl_ms=50.0).verdict == "capped"


class TestExtremes:
    @pytest.mark.parametrize("load", [1e-12, 1e-9, 1e-6, 1e-3])
    def test_blocking_at_tiny_loads(self, load: float) -> None:
        """N = 1: π_{Q+1} = (1−ρ)ρ^{Q+1}/(1−ρ^{Q+2}), tens of orders of magnitude down."""
        engine = {**ENGINE, "max_batch": 1, "max_queue": 20}
        found = queueing.analyze("inferno", **engine, rate_per_s=load * full_rate_per_s(engine))
        truth = (1 - load) * load**21 / (1 - load**22)
        assert found.blocking == pytest.approx(truth, rel=1e-11)

    @pytest.mark.parametrize("load", [1e9, 1e11, 1e15, 1e200])
    def test_percentiles_of_a_deluge(self, load: float) -> None:
        """Whoever gets in is the last of the queue: the wait is Q departures, a gamma time."""
        found = queueing.analyze("inferno", **ENGINE, rate_per_s=load * full_rate_per_s(ENGINE))
        departure_ms = 1000 / full_rate_per_s(ENGINE)
        for percent in (1, 50, 99):
            truth = departure_ms * gammainccinv(160, 1 - percent / 100)
            assert found.wait_percentile(percent) == pytest.approx(truth, rel=1e-8)

    def test_an_analysis_can_be_sent_to_another_process(self) -> None:
        found = queueing.analyze("inferno", **ENGINE, rate_per_s=[1.0, 4.0])
        again = pickle.loads(pickle.dumps(found))
        assert again.ttft_percentile(95).tolist() == found.ttft_percentile(95).tolist()
        both = again.ttft_percentile((50, 95))
        assert both.tolist() == [found.ttft_percentile(50).tolist(), found.ttft_percentile(95).tolist()]


class TestShapes:
    def test_parameters_broadcast(self) -> None:
        batches, rates = np.array([4, 16, 8])[:, None], np.array([0.5, 1.0, 2.0, 3.0])
        engine = {**ENGINE, "max_batch": batches, "max_queue": None}
        found = queueing.analyze("inferno", **engine, rate_per_s=rates)
        assert found.ttft_ms.shape == found.ttft_percentile(90).shape == (3, 4)
        for i, batch in enumerate((4, 16, 8)):
            for j, rate in enumerate(rates):
                one = queueing.analyze(
                    "inferno", **{**ENGINE, "max_batch": batch, "max_queue": 10 * batch}, rate_per_s=rate
                )
                assert found.ttft_ms[i, j] == pytest.approx(float(one.ttft_ms), rel=1e-14)
                assert found.rate_per_s[i, j] == pytest.approx(rate)

    def test_targets_broadcast(self) -> None:
        sizing = queueing.size("inferno", **ENGINE, itl_ms=np.array([[22.0], [24.0]]), ttft_ms=np.array([300.0, 900.0]))
        assert sizing.max_rate_per_s.shape == sizing.verdict.shape == (2, 2)

    def test_scalars_in_scalars_out(self) -> None:
        assert queueing.analyze("inferno", **ENGINE, rate_per_s=1.0).ttft_ms.shape == ()
        assert queueing.size("inferno", **ENGINE, itl_ms=24.0).max_rate_per_s.shape == ()

    def test_nothing_in_nothing_out(self) -> None:
        engine = {**ENGINE, "alpha_ms": np.array([])}
        assert queueing.analyze("inferno", **engine, rate_per_s=1.0).ttft_percentile(95).size == 0
        assert queueing.size("inferno", **engine, itl_ms=24.0).max_rate_per_s.size == 0

    def test_arguments_are_left_alone(self) -> None:
        rates = np.array([3.0, 1.0, 2.0])
        batches = np.array([4, 16, 8])
        queueing.analyze("inferno", **{**ENGINE, "max_batch": batches}, rate_per_s=rates)
        assert rates.tolist() == [3.0, 1.0, 2.0]
        assert batches.tolist() == [4, 16, 8]


class TestBadArguments:
    def test_all_faults_at_once(self) -> None:
        bad = {**ENGINE, "alpha_ms": -1.0, "output_tokens": 0.5, "max_batch": 2.5, "delta_ms": np.nan}
        with pytest.raises(ValueError, match=r"alpha_ms.*delta_ms.*output_tokens.*max_batch must be whole"):
            queueing.analyze("inferno", **bad, rate_per_s=1.0)

    @pytest.mark.parametrize("rate", [-1.0, np.inf, np.nan])
    def test_rates(self, rate: float) -> None:
        with pytest.raises(ValueError, match="rate_per_s"):
            queueing.analyze("inferno", **ENGINE, rate_per_s=rate)

    @pytest.mark.parametrize("name", ["ttft_ms", "itl_ms", "tps"])
    def test_targets(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} must be greater than 0"):
            queueing.size("inferno", **ENGINE, **{name: 0.0})

    def test_laws(self) -> None:
        with pytest.raises(ValueError, match="unknown law 'infernal'; known: continuous-batching, inferno"):
            queueing.analyze("infernal", **ENGINE, rate_per_s=1.0)

    @pytest.mark.parametrize("percent", [-1, 100, 101, math.nan])
    def test_percentiles(self, percent: float) -> None:
        found = queueing.analyze("inferno", **ENGINE, rate_per_s=1.0)
        with pytest.raises(ValueError, match="percent"):
            found.wait_percentile(percent)
