"""Periods, scenarios, routes, shared replicas and phases apart, asked of a real service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running_service import RunningService

import inferno_milp as im
from inferno_milp.problem import Problem
from inferno_milp.service import documents

ROOT = Path(__file__).parent.parent.parent
TIMED = ("stages_s", "solver")
Asked = tuple[str, str, dict[str, Any], Callable[[Problem], Any], type[documents.DocumentModel]]
ASKED: list[Asked] = [
    ("periods", "day", {}, im.plan_periods, documents.PeriodsDocument),
    ("scenarios", "day", {}, im.plan_scenarios, documents.ScenariosDocument),
    (
        "scenarios",
        "day",
        {"criterion": "worst", "served": 0.9},
        lambda problem: im.plan_scenarios(problem, criterion="worst", served=0.9),
        documents.ScenariosDocument,
    ),
    ("route", "mixes", {}, im.find_routes, documents.RoutedDocument),
    ("share", "fleet", {}, im.share_replicas, documents.SharedDocument),
    (
        "disaggregate",
        "real-cloud",
        {"network_gb_per_s": 50},
        lambda problem: im.disaggregate(problem, network_gb_per_s=50),
        documents.DisaggregatedDocument,
    ),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("service")) as running:
        yield running


def untimed(value: Any) -> Any:
    """Leave out what no two runs have in common."""
    if isinstance(value, dict):
        return {key: untimed(item) for key, item in value.items() if key not in TIMED}
    return [untimed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("kind", "name", "more", "ours", "model"), ASKED)
def test_what_the_library_finds(
    service: RunningService,
    kind: str,
    name: str,
    more: dict[str, Any],
    ours: Callable[[Problem], Any],
    model: type[documents.DocumentModel],
) -> None:
    path = ROOT / "instances" / f"{name}.yaml"
    body = {"problem": path.read_text(), **more}
    answer = service.client.post(f"/v1/{kind}", json=body)
    assert answer.status_code == 200, answer.text
    expected = json.loads(json.dumps(ours(im.read_problem(path)).to_dict()))
    assert untimed(answer.json()) == untimed(expected)
    assert model.model_fields.keys() == expected.keys()
    model.model_validate(expected)


def test_as_a_job(service: RunningService) -> None:
    body = {"kind": "periods", "problem": (ROOT / "instances" / "day.yaml").read_text()}
    job = service.client.post("/v1/jobs", json=body).json()["id"]
    summary = service.wait_for(job, "done")["summary"]
    assert summary["status"] == "optimal"
    assert summary["total_cost_per_hour"] == pytest.approx(18.92333333)
    assert service.client.get(f"/v1/jobs/{job}/result").json()["plan"]["reserved"]


def test_the_plan_of_a_job_as_a_table(service: RunningService) -> None:
    body = {"kind": "share", "problem": (ROOT / "instances" / "fleet.yaml").read_text()}
    job = service.client.post("/v1/jobs", json=body).json()["id"]
    service.wait_for(job, "done")
    table = service.client.get(f"/v1/jobs/{job}/plan.csv").text
    assert table.startswith("server,service_class,model")
    assert "interactive-code-30b+relaxed-code-30b" in table


def test_what_cannot_be_is_said(service: RunningService) -> None:
    small = (ROOT / "instances" / "small.yaml").read_text()
    for kind, words in (
        ("periods", "no `periods`"),
        ("scenarios", "no `scenarios`"),
        ("route", "no server has a load"),
    ):
        answer = service.client.post(f"/v1/{kind}", json={"problem": small})
        assert (answer.status_code, words in answer.json()["message"]) == (422, True), answer.text
    answer = service.client.post("/v1/scenarios", json={"problem": small, "served": 0})
    assert answer.status_code == 422
