"""The catalogue, estimates from data sheets, and what plans say of the profiles that they rest on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_problems import ROOT, problem_data

import inferno_milp as im
from inferno_milp.errors import InputError, OptionError
from inferno_milp.problem import Problem
from inferno_milp.problem.architecture import LanguageModel
from inferno_milp.problem.reading import read_sections
from inferno_milp.problem.sections import Profile, Sections
from inferno_milp.problem.supply import Accelerator
from inferno_milp.problem.writing import with_profile
from inferno_milp.profiles.catalogue import arrangement, make_catalogue, shipped_catalogue
from inferno_milp.profiles.roofline import DEFAULT_EFFICIENCY, estimate_profile, memory_fit
from inferno_milp.studies.compare_profiles import compare_profiles

CATALOGUE = shipped_catalogue()
LLAMA = CATALOGUE.language_model("Llama-3.1-8B-Instruct")


class TestShipped:
    def test_accelerators(self) -> None:
        """All that the issue names have memory, bandwidth, arithmetic, power, and a price with its date and source."""
        named = {"L4", "L40S", "A10G", "A100-40GB", "A100", "H100", "H200", "B200", "B300", "GB200", "MI300X", "Gaudi3"}
        assert named <= CATALOGUE.accelerators.keys()
        for accelerator in CATALOGUE.accelerators.values():
            assert accelerator.memory_gb
            assert accelerator.memory_bandwidth_gb_per_s
            assert accelerator.peak_tflops
            assert accelerator.power is not None
            if accelerator.devices == 1:
                assert accelerator.price_source is not None
                assert "202" in accelerator.price_source

    def test_arrangements_are_multiples(self) -> None:
        for accelerator in CATALOGUE.accelerators.values():
            one = CATALOGUE.accelerator(accelerator.type)
            made = arrangement(one, accelerator.devices)
            assert made.cost_per_hour == pytest.approx(accelerator.cost_per_hour)
            assert made.memory_gb == accelerator.memory_gb
            assert made.name == accelerator.name

    def test_measured_profiles(self) -> None:
        """Each names its source, its runs and its errors on shapes left out; real models on real accelerators."""
        measured = [p for p in CATALOGUE.profiles if p.origin is not None and p.origin.kind == "measured"]
        assert len(measured) >= 20
        assert len({p.model for p in measured}) >= 7
        for profile in measured:
            origin = profile.origin
            assert origin is not None
            assert origin.source
            assert origin.runs is not None
            assert origin.runs >= 4
            assert origin.errors_on == "held-out shapes"
            assert origin.itl_error is not None
            assert origin.itl_error <= 0.25
            assert profile.kv_tokens is not None
            assert profile.accelerator in CATALOGUE.accelerators
            CATALOGUE.language_model(profile.model)
        assert np.median([p.origin.itl_error for p in measured if p.origin and p.origin.itl_error]) < 0.12

    def test_estimated_profiles(self) -> None:
        """They are what the program estimates today, and none stands for a pair that was measured."""
        profiles = read_sections(ROOT / "models" / "estimated.yaml").profiles
        assert len(profiles) > 100
        measured = {(p.model, p.accelerator) for p in read_sections(ROOT / "models" / "measured.yaml").profiles}
        for profile in profiles:
            assert (profile.model, profile.accelerator) not in measured
            model, accelerator = CATALOGUE.language_model(profile.model), CATALOGUE.accelerator(profile.accelerator)
            now = estimate_profile(model, accelerator)
            assert profile.alpha_ms == pytest.approx(now.alpha_ms, rel=1e-3)
            assert profile.delta_ms == pytest.approx(now.delta_ms, rel=1e-3)
            assert profile.kv_tokens == now.kv_tokens
            assert profile.origin == now.origin


class TestNames:
    def test_found(self) -> None:
        assert CATALOGUE.accelerator("h100").name == "H100"
        assert CATALOGUE.accelerator("NVIDIA-H100").name == "H100"
        assert CATALOGUE.accelerator("H100", 4).name == "4xH100"
        assert CATALOGUE.accelerator("H100", 16).memory_gb == 1280
        assert LLAMA is CATALOGUE.language_model("meta-llama/llama-3.1-8b")

    def test_unknown(self) -> None:
        with pytest.raises(OptionError, match=r"unknown accelerator 'H1000'; did you mean 'H100'"):
            CATALOGUE.accelerator("H1000")
        with pytest.raises(OptionError, match=r"unknown model 'Lama-3\.1-8B'; did you mean"):
            CATALOGUE.language_model("Lama-3.1-8B")

    def test_one_s_own_first(self) -> None:
        mine = Sections(profiles=(Profile(model="m", accelerator="A", alpha_ms=1.0, beta_ms=0.1, max_batch_size=1),))  # type: ignore[call-arg]
        theirs = mine.profiles[0].model_copy(update={"alpha_ms": 2.0})
        catalogue = make_catalogue([mine, Sections(profiles=(theirs,))])
        assert [p.alpha_ms for p in catalogue.profiles] == [1.0]
        cheap = Sections(accelerators=(CATALOGUE.accelerator("H100").model_copy(update={"cost_per_hour": 1.0}),))
        theirs_too = Sections(accelerators=tuple(CATALOGUE.accelerators.values()))
        assert make_catalogue([cheap, theirs_too]).accelerator("H100").cost_per_hour == 1.0


class TestEstimate:
    def test_terms(self) -> None:
        """By hand: 8.03 · 10⁹ parameters of 2 bytes on an H100."""
        e = DEFAULT_EFFICIENCY
        profile = estimate_profile(LLAMA, CATALOGUE.accelerator("H100"))
        token_ms = 2 * 8.03e9 / (989.4e12 * e.prompts) * 1e3
        assert profile.alpha_ms == pytest.approx(16.06 / 3350 / e.weights * 1e3 + 32 * e.layer_us / 1e3)
        assert profile.delta_ms == pytest.approx(token_ms)
        assert profile.beta_ms == pytest.approx(token_ms + e.sequence_us / 1e3)
        assert profile.kappa_ms == pytest.approx(131072 / (3350e6 * e.context))
        assert profile.kv_tokens == pytest.approx((0.9 * 80 - 2 - 16.06) * 1e9 / 131072, rel=1e-4)
        assert profile.origin is not None
        assert profile.origin.kind == "estimated"
        assert profile.origin.itl_error == e.itl_error

    def test_the_measured_engine_is_near(self) -> None:
        """What was measured of the same pair lies within what the estimate says of its own error, twice."""
        measured = next(p for p in CATALOGUE.profiles if (p.model, p.accelerator) == (LLAMA.name, "H100"))
        guess = estimate_profile(LLAMA, CATALOGUE.accelerator("H100"))
        assert measured.alpha_ms == pytest.approx(guess.alpha_ms, rel=2 * DEFAULT_EFFICIENCY.itl_error)
        assert measured.kv_tokens == pytest.approx(guess.kv_tokens, rel=0.1)

    def test_does_not_fit(self) -> None:
        seventy = CATALOGUE.language_model("Llama-3.1-70B-Instruct")
        with pytest.raises(
            OptionError, match=r"does not fit H100: its weights take 141 GB \(bf16\) of 80; 4 H100 would hold"
        ):
            estimate_profile(seventy, CATALOGUE.accelerator("H100"))
        assert estimate_profile(seventy, CATALOGUE.accelerator("H100"), "int4").kv_tokens
        assert memory_fit(seventy, CATALOGUE.accelerator("H100", 4)).kv_tokens > 100_000

    def test_more_devices_are_quicker(self) -> None:
        alphas = [estimate_profile(LLAMA, CATALOGUE.accelerator("A100", n)).delta_ms for n in (1, 2, 4, 8)]
        assert alphas == sorted(alphas, reverse=True)

    def test_what_is_missing_is_named(self) -> None:
        bare = Accelerator(name="X", type="X", cost_per_hour=1.0)
        with pytest.raises(OptionError, match="X: memory_bandwidth_gb_per_s and peak_tflops for bf16 must be known"):
            estimate_profile(LLAMA, bare)
        known = bare.model_copy(update={"memory_bandwidth_gb_per_s": 100.0, "peak_tflops": {"bf16": 10.0}})
        with pytest.raises(OptionError, match="the memory of X is not known"):
            estimate_profile(LLAMA, known)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [({"experts": 8}, "experts_per_token"), ({"active_parameters_b": 9.0}, "more than parameters_b")],
    )
    def test_architectures_that_cannot_be(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            LanguageModel.model_validate({**LLAMA.model_dump(), **changes})


class TestCompare:
    def test_cheapest_first(self) -> None:
        rows = compare_profiles(
            CATALOGUE, "Llama-3.1-8B-Instruct", input_tokens=1000, output_tokens=200, ttft_ms=800, itl_ms=60
        )
        prices = rows["cost_per_million_output_tokens"].tolist()
        assert prices == sorted(prices)
        assert {"L4", "A100", "H100"} <= set(rows["accelerator"])
        first = rows.iloc[0]
        tokens_per_hour = first["max_rate_per_s"] * 200 * 3600
        assert first["cost_per_million_output_tokens"] == pytest.approx(first["cost_per_hour"] / tokens_per_hour * 1e6)
        long = compare_profiles(CATALOGUE, LLAMA.name, input_tokens=9000, output_tokens=9, ttft_ms=9e3, itl_ms=99)
        assert long.set_index("accelerator").loc["H100", "extrapolated"]
        with pytest.raises(OptionError, match="no profile of 'gpt-5'"):
            compare_profiles(CATALOGUE, "gpt-5", input_tokens=1, output_tokens=1, ttft_ms=1, itl_ms=1)


class TestPlansSayWhatTheyRestOn:
    def problem(self, origin: dict[str, Any], input_tokens: float = 200.0) -> Problem:
        data = problem_data()
        for profile in data["profiles"]:
            profile["origin"] = origin
        data["servers"][0]["load"]["input_tokens"] = input_tokens
        return Problem.model_validate(data)

    def test_prompts_longer_than_measured(self) -> None:
        origin = {"kind": "measured", "longest_input_tokens": 300.0}
        assert not im.optimize(self.problem(origin)).messages
        (message,) = im.optimize(self.problem(origin, 400.0)).messages
        assert "prompts of 400 tokens are longer than any measured (300): extrapolated" in message

    def test_estimates(self) -> None:
        (message,) = im.optimize(self.problem({"kind": "estimated", "itl_error": 0.3})).messages
        assert message.startswith("profiles that were estimated, not measured, 30% off in ITL")


class TestFiles:
    def test_a_profile_is_added_and_replaced(self, tmp_path: Any) -> None:
        profile = Profile(model="m", accelerator="A", alpha_ms=1.0, beta_ms=0.1, max_batch_size=8)  # type: ignore[call-arg]
        path = tmp_path / "mine.yaml"
        path.write_text("description: mine\naccelerators:\n  - {name: A, cost_per_hour: 1}\n")
        path.write_text(with_profile(path, profile))
        path.write_text(with_profile(path, profile.model_copy(update={"model": "other"})))
        path.write_text(with_profile(path, profile.model_copy(update={"alpha_ms": 2.0})))
        read = read_sections(path)
        assert [(p.model, p.alpha_ms) for p in read.profiles] == [("m", 2.0), ("other", 1.0)]
        assert read.accelerators[0].name == "A"
        assert path.read_text().startswith("description: mine\n")
        path.write_text("profiles: 3\n")
        with pytest.raises(InputError):
            with_profile(path, profile)
