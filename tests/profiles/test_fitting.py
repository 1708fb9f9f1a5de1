"""Profiles fitted to measurements: real ones, judged on what was left out, and those of our own simulator."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import DATA

from benchmarks.catalogue import EXP1_CV2
from benchmarks.profile_accuracy import SIZES, TRUTH, recovery, simulated
from inferno_milp import simulation
from inferno_milp.errors import OptionError
from inferno_milp.problem.sections import Profile
from inferno_milp.profiles.catalogue import shipped_catalogue
from inferno_milp.profiles.fitting import Fit, fit_profile
from inferno_milp.profiles.fitting.beforehand import roofline_priors
from inferno_milp.profiles.fitting.memory import find_memory
from inferno_milp.profiles.fitting.runs import find_shapes, make_runs
from inferno_milp.profiles.fitting.tracking import Tracker, track_profile
from inferno_milp.profiles.measurements import Measurement, read_measurements
from inferno_milp.queueing import analyze, analyze_closed


def real_runs() -> list[Measurement]:
    """16 shapes × 10 loads of vLLM on one H100."""
    read = read_measurements([DATA / "vllm_llama31_8b_h100.csv"]).measurements
    return [dataclasses.replace(m, cv2_input=EXP1_CV2, cv2_output=EXP1_CV2) for m in read]


@pytest.fixture(scope="module")
def real_fit() -> Fit:
    return fit_profile(real_runs(), model="meta-llama/Llama-3.1-8B-Instruct", accelerator="H100", source="a test")


def a_run(**changes: object) -> Measurement:
    figures: dict[str, object] = {
        "place": "here",
        "tool": "table",
        "sent": "concurrency",
        "concurrency": 4.0,
        "input_tokens": 500.0,
        "output_tokens": 100.0,
        "ttft_ms": {"mean": 60.0},
        "itl_ms": {"mean": 10.0},
    }
    return Measurement(**{**figures, **changes})  # type: ignore[arg-type]


class TestRealRuns:
    def test_half_of_the_shapes_predicts_the_other(self) -> None:
        """The rate alone as input: within 4 % in ITL and 8 % in TTFT, both ways round."""
        every = real_runs()
        runs = make_runs(every)
        odd = np.array([sum(SIZES.index(int(t)) for t in m.nominal or ()) % 2 for m in every], dtype=bool)
        for fitted, closed_too in ((odd, False), (~odd, False), (odd, True), (~odd, True)):
            chosen = fitted if closed_too else fitted & runs.counts & ~runs.closed
            fit = fit_profile([m for m, kept in zip(every, chosen, strict=True) if kept], model="m", accelerator="H100")
            judged = runs.take(~fitted & runs.counts & ~runs.closed)
            assert len(judged.shapes) > 50
            ttft_ms, itl_ms = fit.estimate.predict(judged)
            assert np.abs(itl_ms / judged.itl_ms - 1).mean() <= 0.04
            assert np.abs(ttft_ms / judged.ttft_ms - 1).mean() <= 0.08

    def test_what_is_told_of_the_fit(self, real_fit: Fit) -> None:
        origin = real_fit.profile.origin
        assert origin is not None
        assert (origin.kind, origin.shapes, origin.errors_on) == ("measured", 16, "held-out shapes")
        assert origin.itl_error is not None
        assert 0.01 < origin.itl_error < 0.05
        assert 4000 < (origin.longest_input_tokens or 0) < 4500
        assert not real_fit.certainty.not_identified
        assert real_fit.certainty.condition < 30
        frame = real_fit.terms_frame()
        fitted = frame[frame["state"] == "runs"]
        assert (fitted["low"] < fitted["value"]).all()
        assert (fitted["value"] < fitted["high"]).all()
        assert frame.loc["gamma_ms", "state"] == "not kept"
        document = real_fit.to_dict()
        assert len(document["runs"]) == 158
        assert Profile.model_validate(document["profile"]) == real_fit.profile

    def test_how_rows_were_judged(self, real_fit: Fit) -> None:
        reasons = [reason for reason in real_fit.runs.reasons if reason]
        assert sum("saturated: sent at what the engine can serve" in r for r in reasons) == 13
        assert sum("ended early" in r for r in reasons) == 3
        assert sum("clients" in m.load_text and m.crowd for m in real_fit.runs.measurements) == 14
        notes = [note for m in real_fit.runs.measurements for note in m.notes]
        assert sum("the median is taken" in note for note in notes) == 7

    def test_the_memory_is_found(self, real_fit: Fit) -> None:
        """0.9 · 80 GB less 16 GB of weights, at 128 KiB a token: some 420,000 tokens."""
        assert real_fit.profile.kv_tokens == pytest.approx(420_000, rel=0.05)

    def test_engines_of_a_number_of_clients(self) -> None:
        """Half of the shapes of TensorRT-LLM's and vLLM's points predict TPOT on the rest within 8 %, at the median."""
        measurements = read_measurements([DATA / "aiconfigurator_points.csv"]).measurements
        catalogue = shipped_catalogue()
        off = []
        engines = (("Qwen/Qwen3-32B", "2"), ("moonshotai/Kimi-K2.5", "8"), ("openai/gpt-oss-120b", "4"))
        for model, devices in engines:
            mine = [m for m in measurements if (m.labels["model"], m.labels["devices"]) == (model, devices)]
            runs = make_runs(mine)
            accelerator = catalogue.accelerator(mine[0].labels["accelerator"], int(devices))
            priors = roofline_priors(catalogue.language_model(model), accelerator, mine[0].labels["precision"])
            for half in (0, 1):
                fitted = runs.shapes % 2 == half
                used = [m for m, kept in zip(mine, fitted, strict=True) if kept]
                fit = fit_profile(used, model=model, accelerator=accelerator.name, priors=priors)
                judged = runs.take(~fitted & runs.counts)
                _, itl_ms = fit.estimate.predict(judged)
                off.append(np.abs(itl_ms / judged.itl_ms - 1))
        assert len(np.concatenate(off)) > 80
        assert np.median(np.concatenate(off)) <= 0.08


class TestOwnSimulator:
    @pytest.mark.parametrize("loads", ["clients", "rates", "both"])
    def test_terms_are_found_again(self, loads: str) -> None:
        assert max(map(abs, recovery(loads, seed=8).values())) < 0.03

    def test_two_runs_at_the_least(self) -> None:
        """One request at a time, and a throughput run: with what is known of the pair, TPOT in between is right."""
        rng, engine = np.random.default_rng(4), simulation.Engine(**TRUTH, max_batch=256)  # type: ignore[arg-type]
        alone, many = (simulated(engine, rng, 512, 256, clients=c) for c in (1, 64))
        fit = fit_profile([alone, dataclasses.replace(many, crowd=True)], model="m", accelerator="a")
        assert fit.held_out is None
        assert fit.profile.origin is not None
        assert fit.profile.origin.errors_on == "fitted runs"
        assert len(fit.advice) == 2
        between = make_runs([simulated(engine, rng, 512, 256, clients=16)])
        _, itl_ms = fit.estimate.predict(between)
        assert itl_ms[0] == pytest.approx(between.itl_ms[0], rel=0.05)

    def test_the_runs_advised_identify(self) -> None:
        """What the runs do not tell is told by the two runs that are advised."""
        rng, engine = np.random.default_rng(5), simulation.Engine(**TRUTH, max_batch=256)  # type: ignore[arg-type]
        few = [simulated(engine, rng, 512, 256, clients=c) for c in (1, 8)]
        before = fit_profile(few, model="m", accelerator="a")
        assert before.certainty.not_identified
        more = []
        for words in before.advice:
            clients, tokens = words.split(",")
            inputs, outputs = (int(part.split()[0]) for part in tokens.replace("prompt and", "|").split("|"))
            count = 1 if clients.startswith("one") else int(clients.split()[0])
            more.append(simulated(engine, rng, inputs, outputs, clients=count))
        after = fit_profile([*few, *more], model="m", accelerator="a")
        assert len(after.certainty.not_identified) < len(before.certainty.not_identified)

    def test_memory_limits(self) -> None:
        """A limit of tokens is told from one of sequences."""
        rng = np.random.default_rng(6)
        tokens = simulation.Engine(**TRUTH, max_batch=512, kv_tokens=40_000)  # type: ignore[arg-type]
        places = simulation.Engine(**TRUTH, max_batch=24)  # type: ignore[arg-type]
        found = []
        for engine in (tokens, places):
            shapes = ((256, 128), (1024, 256), (2048, 128))
            runs = [simulated(engine, rng, i, o, clients=c, requests=2000) for i, o in shapes for c in (1, 120)]
            found.append(find_memory(make_runs(runs)))
        assert found[0].kv_tokens == pytest.approx(40_000, rel=0.1)
        assert found[0].max_batch is None
        assert found[1].kv_tokens is None
        assert found[1].max_batch == pytest.approx(24, abs=2)


class TestRefusals:
    def test_different_engines(self) -> None:
        runs = [a_run(labels={"model": "a", "backend": "x"}), a_run(labels={"model": "b", "backend": "x"})]
        with pytest.raises(OptionError, match=r"2 values of model \(a, b\): choose, as with --where model="):
            fit_profile(runs, model="m", accelerator="a")

    def test_too_few_figures(self) -> None:
        short = a_run(duration_s=3.0, requests=100, concurrency=1.0)
        with pytest.raises(OptionError, match="too few to fit: a request takes 35% of the run"):
            fit_profile([short], model="m", accelerator="a")

    def test_light_runs_are_no_capacity(self) -> None:
        """What two clients are served is not what the engine can serve: rates above it count."""
        clients = [a_run(concurrency=float(c), throughput_per_s=c * 0.95) for c in (1, 2)]
        rates = [
            a_run(sent="rate", rate_per_s=r, concurrency=None, throughput_per_s=r, ttft_ms={"mean": 70.0})
            for r in (2.5, 5.0, 10.0)
        ]
        assert make_runs([*clients, *rates]).counts.all()

    def test_very_many_clients(self) -> None:
        runs = [a_run(concurrency=c, itl_ms={"mean": 8 + c / 1e3}) for c in (1.0, 1e5)]
        assert fit_profile(runs, model="m", accelerator="a").profile.max_batch_size <= 16_384

    def test_shapes(self) -> None:
        runs = [a_run(input_tokens=float(i)) for i in (1018, 1034, 2000)]
        assert find_shapes(runs).tolist() == [0, 0, 1]
        named = [a_run(input_tokens=827.0, nominal=(1024.0, 64.0)), a_run(input_tokens=1100.0, nominal=(1024.0, 64.0))]
        assert find_shapes(named).tolist() == [0, 0]


class TestClients:
    """The law with a number of clients, against the simulator and against itself."""

    @pytest.mark.parametrize(
        ("clients", "inputs", "outputs"), [(1, 512, 128), (16, 512, 128), (64, 256, 256), (16, 4096, 1024)]
    )
    def test_against_the_simulator(self, clients: int, inputs: int, outputs: int) -> None:
        rng, engine = np.random.default_rng(7), simulation.Engine(**TRUTH, max_batch=256)  # type: ignore[arg-type]
        run = simulated(engine, rng, inputs, outputs, clients=clients, requests=6000)
        found = analyze_closed(
            concurrency=clients, input_tokens=inputs, output_tokens=outputs, cv2_output=1 / 12, max_batch=256, **TRUTH
        )  # type: ignore[arg-type]
        assert found.ttft_ms == pytest.approx(run.ttft_ms["mean"], rel=0.04)
        assert found.itl_ms == pytest.approx(run.itl_ms["mean"], rel=0.01)
        assert found.throughput_per_s == pytest.approx(run.throughput_per_s, rel=0.02)

    @given(
        clients=st.integers(1, 600),
        batch=st.integers(1, 300),
        inputs=st.floats(1, 9000),
        outputs=st.floats(1, 2000),
        beta=st.floats(0, 0.5),
    )
    @settings(max_examples=60)
    def test_more_clients(self, clients: int, batch: int, inputs: float, outputs: float, beta: float) -> None:
        """Little's law holds, more clients are served no slower in all, and each of them no sooner."""
        engine = {**TRUTH, "beta_ms": beta, "input_tokens": inputs, "output_tokens": outputs, "max_batch": batch}
        found = analyze_closed(concurrency=np.array([clients, clients + 1, 2 * clients + 7]), **engine)  # type: ignore[arg-type]
        stay_ms = found.ttft_ms + (outputs - 1) * found.itl_ms
        assert found.throughput_per_s * stay_ms / 1e3 == pytest.approx(found.concurrency, rel=1e-6)
        for more, less in pairwise(reversed(list(zip(found.itl_ms, found.ttft_ms, strict=True)))):
            assert more[0] >= less[0] * (1 - 1e-9)

    def test_bounds(self) -> None:
        with pytest.raises(ValueError, match="concurrency must be finite and at least 1"):
            analyze_closed(concurrency=0.5, input_tokens=1, output_tokens=1, max_batch=1, **TRUTH)  # type: ignore[arg-type]


class TestTracking:
    profile = Profile(model="m", accelerator="a", max_batch_size=256, **TRUTH)  # type: ignore[arg-type]

    def observations(self, count: int, slower: float, seed: int) -> list[Measurement]:
        """What an engine shows that takes `slower` times as long, in the law's own words, with noise."""
        rng = np.random.default_rng(seed)
        truth = {name: value * slower for name, value in TRUTH.items() if name != "overhead_ms"}
        found = []
        for rate in rng.uniform(0.5, 8, count):
            inputs, outputs = float(rng.choice([256, 1024, 3000])), float(rng.choice([64, 256]))
            a = analyze(
                rate_per_s=rate, input_tokens=inputs, output_tokens=outputs, max_batch=256, overhead_ms=10.0, **truth
            )  # type: ignore[arg-type]
            if a.blocking > 0.01:
                continue
            noise = rng.normal(0, 0.03, 2)
            found.append(
                a_run(
                    sent="rate",
                    rate_per_s=float(rate),
                    concurrency=None,
                    cv2_arrival=1.0,
                    input_tokens=inputs,
                    output_tokens=outputs,
                    cv2_output=1.0,
                    ttft_ms={"mean": float(a.ttft_ms) * math.exp(noise[0])},
                    itl_ms={"mean": float(a.itl_ms) * math.exp(noise[1])},
                )
            )
        return found

    def test_follows_a_slower_engine(self) -> None:
        tracker = track_profile(self.profile, self.observations(120, 1.3, seed=1))
        first, last = tracker.steps[0], tracker.steps[-20:]
        assert first.itl_error < -0.15
        assert np.mean([abs(step.itl_error) for step in last]) < 0.05
        assert tracker.updated.alpha_ms == pytest.approx(1.3 * 8.0, rel=0.05)
        assert tracker.updated.model == "m"

    def test_forgetting_follows_a_change(self) -> None:
        stream = [*self.observations(200, 1.0, seed=2), *self.observations(60, 1.25, seed=3)]
        ends = {f: track_profile(self.profile, stream, forgetting=f).steps[-15:] for f in (1.0, 0.9)}
        errors = {f: np.mean([abs(step.itl_error) for step in steps]) for f, steps in ends.items()}
        assert errors[0.9] < 0.05
        assert errors[0.9] < errors[1.0]

    def test_bounds_and_outliers(self) -> None:
        """No stream leads out of the corridor, and one wild observation is told of and hardly counts."""
        tracker = Tracker(self.profile, forgetting=0.9)
        for observation in self.observations(60, 6.0, seed=4):
            tracker.observe(observation)
        assert tracker.updated.alpha_ms <= 3 * 8.0 * 1.001
        calm = Tracker(self.profile)
        for observation in self.observations(40, 1.0, seed=5):
            calm.observe(observation)
        before = calm.updated.alpha_ms
        step = calm.observe(dataclasses.replace(self.observations(1, 1.0, seed=6)[0], itl_ms={"mean": 900.0}))
        assert "an outlier" in step.reason
        assert calm.updated.alpha_ms == pytest.approx(before, rel=0.15)
        assert np.isfinite(list(calm.spread.values())).all()

    def test_what_cannot_be(self) -> None:
        with pytest.raises(OptionError, match="forgetting"):
            Tracker(self.profile, forgetting=0.0)
        zero = Profile(model="m", accelerator="a", alpha_ms=0.0, beta_ms=0.0, max_batch_size=1)  # type: ignore[call-arg]
        with pytest.raises(OptionError, match="all 0"):
            Tracker(zero)
