"""What a plan says of the profiles and of the proofs that it rests on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_problems import problem_data

import inferno_milp as im
from inferno_milp.plan.check import check_plan
from inferno_milp.plan.claims import bound_words, profile_rows, proof_sentence, status_words
from inferno_milp.planning.horizon.check import check_horizon
from inferno_milp.report.horizon import horizon_lines
from inferno_milp.report.html.page import report_html
from inferno_milp.report.manifests import export_manifests


def with_origin(**origin: Any) -> im.Problem:
    data = problem_data()
    for profile in data["profiles"]:
        profile["origin"] = {"kind": "measured", "itl_error": 0.12, **origin}
    return im.Problem.model_validate(data)


def test_allocations_name_precision_engine_origin_and_error() -> None:
    problem = with_origin(precision="fp8", engine="vllm", engine_version="0.12")
    plan = im.optimize(problem)
    for server in plan.to_dict()["servers"].values():
        for allocation in server["allocations"]:
            assert allocation["profile"] == {
                "kind": "measured", "precision": "fp8", "engine": "vllm", "engine_version": "0.12",
                "ttft_error": None, "itl_error": 0.12,
            }  # fmt: skip
    frame = plan.to_frame()
    assert frame[["precision", "engine", "profile_kind"]].iloc[0].tolist() == ["fp8", "vllm", "measured"]
    assert im.Plan.from_dict(plan.to_dict()) == plan


def test_the_check_holds_profiles_against_the_problem() -> None:
    plan = im.optimize(with_origin(precision="fp8"))
    with pytest.raises(im.PlanCheckError, match="precision of its profile 'fp8'"):
        check_plan(with_origin(precision="bf16"), plan)


def test_tables_and_pages_name_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from inferno_milp.cli import main

    problem = with_origin(precision="fp8", engine="trtllm")
    path = tmp_path / "problem.yaml"
    path.write_text(yaml.safe_dump(problem.model_dump(mode="json", exclude_none=True)))
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "precision" in out
    assert "trtllm" in out
    page = report_html(problem, requests=1000)
    assert '<td class="t">fp8</td>' in page


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"precision": "fp8"}, ["--quantization", "fp8"]),
        ({"precision": "bf16", "engine": "vllm"}, ["--dtype", "bfloat16"]),
        ({}, ["--max-num-batched-tokens", "8192"]),
    ],
)
def test_exported_engines_are_those_that_were_planned(origin: dict[str, Any], expected: list[str]) -> None:
    problem = with_origin(**origin)
    for document in yaml.safe_load_all(export_manifests(problem, im.optimize(problem))):
        arguments = document["spec"]["template"]["spec"]["containers"][0]["args"]
        at = arguments.index(expected[0])
        assert arguments[at : at + 2] == expected


@pytest.mark.parametrize(
    ("origin", "words"),
    [({"engine": "trtllm", "precision": "fp8"}, "profile of trtllm"), ({"precision": "int4"}, "int4 weights")],
)
def test_an_engine_that_is_not_the_one_planned_is_refused(origin: dict[str, Any], words: str) -> None:
    problem = with_origin(**origin)
    plan = im.optimize(problem)
    with pytest.raises(im.OptionError, match=words):
        export_manifests(problem, plan)
    assert "--model" in export_manifests(problem, plan, force=True)
    assert "ScaledObject" in export_manifests(problem, plan, kind="keda")


def test_weights_as_published_need_no_flag(instances: Path) -> None:
    data = problem_data()
    data["profiles"][0]["origin"] = {"kind": "measured", "precision": "fp4"}
    data["capacity"] = {"A": 20}
    data["language_models"] = [
        {"name": "m", "parameters_b": 20.0, "layers": 24, "kv_values_per_layer": 1024, "precision": "fp4"}
    ]
    problem = im.Problem.model_validate(data)
    text = export_manifests(problem, im.optimize(problem))
    assert "--quantization" not in text


def test_every_measured_profile_of_an_engine_names_it() -> None:
    """The source says it in words, too: both agree."""
    from inferno_milp.profiles.catalogue import shipped_catalogue

    named = [p.origin for p in shipped_catalogue().profiles if p.origin and p.origin.engine]
    assert len(named) > 30
    for origin in named:
        assert f"{origin.precision}, {origin.engine}" in str(origin.source)


class TestProofs:
    """What is claimed, and over which plans."""

    def test_what_was_considered(self) -> None:
        plan = im.optimize(im.Problem.model_validate(problem_data()))
        assert status_words(plan) == "optimal, one accelerator per server"
        assert proof_sentence(plan) == "Proven: no plan with one accelerator per server costs less."
        mixed = im.optimize(im.Problem.model_validate(problem_data()).with_options(assignment="mixed"), gap=0.0)
        assert status_words(mixed) == "optimal"
        assert proof_sentence(mixed) == "Proven: no plan costs less."

    def test_estimates_are_said(self) -> None:
        plan = im.optimize(with_origin(kind="estimated"))
        assert plan.rests_on_estimates
        assert status_words(plan) == "optimal, one accelerator per server, by estimated profiles"
        assert "if the estimated profiles hold" in proof_sentence(plan)
        data = problem_data(capacity={"A": 1, "B": 0})
        data["profiles"][0]["origin"] = {"kind": "estimated"}
        data["servers"][0]["load"]["rate_per_s"] = 40.0
        nobody = im.optimize(im.Problem.model_validate(data))
        assert nobody.status == "infeasible"
        assert status_words(nobody).endswith("by estimated profiles")
        # Of accelerators that are not there, nothing depends on what is known.
        none = im.optimize(im.Problem.model_validate({**data, "capacity": {"A": 0, "B": 0}}))
        assert (none.status, none.rests_on_estimates) == ("infeasible", False)

    def test_the_bound_is_of_the_objective_where_changes_are_charged(self) -> None:
        data = problem_data()
        data["servers"][0]["current"] = [{"accelerator": "2xB", "replicas": 3}]
        plan = im.optimize(im.Problem.model_validate(data))
        assert plan.objective is not None
        assert plan.total_cost_per_hour is not None
        assert plan.objective > plan.total_cost_per_hour
        assert f"objective {plan.objective:.10g}" in bound_words(plan)
        assert "has a lower objective" in proof_sentence(plan)
        assert bound_words(replace(plan, bound=None)) == ""

    def test_periods_in_a_file_are_not_ignored_in_silence(self, instances: Path) -> None:
        messages = im.optimize(im.read_problem(instances / "day.yaml")).messages
        assert any("24 periods are not planned here: `inferno-milp periods FILE`" in message for message in messages)


class TestPlansOfPeriodsAndScenarios:
    def problem(self, **origin: Any) -> im.Problem:
        data = problem_data()
        data["profiles"][0]["origin"] = {"kind": "measured", **origin}
        data["capacity"] = {"A": 20}
        rates = [{"name": name, "factor": factor} for name, factor in (("low", 0.5), ("high", 1.5))]
        data["periods"] = [{**one, "hours": 12.0} for one in rates]
        data["scenarios"] = [{**one, "probability": 0.5} for one in rates]
        return im.Problem.model_validate(data)

    @pytest.mark.parametrize("plan_of", [im.plan_periods, im.plan_scenarios])
    def test_they_name_their_profiles(self, plan_of: Any) -> None:
        plan = plan_of(self.problem(precision="fp8", engine="vllm", ttft_error=0.07)).plan
        (used,) = plan.profiles
        assert (used.model, used.accelerator, used.profile.precision, used.profile.engine) == ("m", "A", "fp8", "vllm")
        assert profile_rows(plan.profiles) == [("m", "A", "fp8", "vllm", "measured", "±7%", "–")]
        assert plan.to_dict()["profiles"][0]["profile"]["ttft_error"] == 0.07
        assert not plan.rests_on_estimates
        estimated = plan_of(self.problem(kind="estimated")).plan
        assert estimated.rests_on_estimates
        assert any("optimal, by estimated profiles" in line for line in horizon_lines(estimated))

    def test_the_check_holds_them_against_the_problem(self) -> None:
        problem = self.problem(precision="fp8")
        plan = im.plan_periods(problem).plan
        (used,) = plan.profiles
        other = replace(used, profile=replace(used.profile, precision="bf16"))
        for profiles, words in (((), "not those of its replicas"), ((other,), "does not say that of itself")):
            with pytest.raises(im.PlanCheckError, match=words):
                check_horizon(problem, replace(plan, profiles=profiles), problem.periods, planning=problem.planning)


def test_the_words_below_a_table_are_about_it() -> None:
    page = report_html(with_origin(precision="fp8"), requests=1000)
    assert (
        page.index("Use: mean running requests") < page.index("<h3>Profiles</h3>") < page.index("What the speeds rest")
    )
    assert "for 1 server of language models" in page
