"""What several test modules need: where things are, and small problems to vary."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from inferno_milp.problem import Problem

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"

settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def instances() -> Path:
    return ROOT / "instances"


def read_csv(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def problem_data(**changes: Any) -> dict[str, Any]:
    """One server, two types; `changes` replace whole sections."""
    return {
        "name": "tiny",
        "accelerators": [
            {"name": "A", "cost_per_hour": 10.0},
            {"name": "B", "cost_per_hour": 25.0},
            {"name": "2xB", "type": "B", "devices": 2, "cost_per_hour": 50.0},
        ],
        "profiles": [
            {"model": "m", "accelerator": "A", "alpha_ms": 20.0, "beta_ms": 0.4, "gamma_ms": 25.0, "delta_ms": 0.1,
             "max_batch_size": 16},
            {"model": "m", "accelerator": "B", "alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02,
             "max_batch_size": 64},
            {"model": "m", "accelerator": "2xB", "alpha_ms": 5.0, "beta_ms": 0.05, "gamma_ms": 6.0, "delta_ms": 0.01,
             "max_batch_size": 128},
        ],
        "capacity": {"A": 20, "B": 6},
        "service_classes": [{"name": "gold", "priority": 1, "targets": {"m": {"ttft_ms": 1000.0, "itl_ms": 30.0}}}],
        "servers": [
            {"service_class": "gold", "model": "m",
             "load": {"rate_per_s": 4.0, "input_tokens": 200.0, "output_tokens": 100.0}}
        ],
        "options": {"law": "inferno"},
        **changes,
    }  # fmt: skip


def make_problem(**changes: Any) -> Problem:
    return Problem.model_validate(problem_data(**changes))


def with_server(**changes: Any) -> Problem:
    """The tiny problem with its one server changed."""
    server = {**problem_data()["servers"][0], **changes}
    return make_problem(servers=[server])


def as_system_data(problem: Problem) -> dict[str, Any]:
    """Write a problem in llm-inferno's own form."""
    assert problem.capacity is not None
    return {
        "acceleratorData": {"accelerators": [
            {"name": a.name, "type": a.type, "multiplicity": a.devices, "cost": a.cost_per_hour}
            for a in problem.accelerators]},
        "modelData": {"models": [
            {"name": p.model, "acc": p.accelerator, "accCount": p.accelerators_per_replica,
             "maxBatchSize": p.max_batch_size, "atTokens": p.at_output_tokens,
             "decodeParms": {"alpha": p.alpha_ms, "beta": p.beta_ms},
             "prefillParms": {"gamma": p.gamma_ms, "delta": p.delta_ms}}
            for p in problem.profiles]},
        "serviceClassData": {"serviceClasses": [
            {"name": c.name, "priority": c.priority, "modelTargets": [
                {"model": model, "slo-itl": t.itl_ms or 0, "slo-ttft": t.ttft_ms or 0, "slo-tps": t.tps or 0}
                for model, t in c.targets.items()]}
            for c in problem.service_classes]},
        "serverData": {"servers": [
            {"name": s.name, "class": s.service_class, "model": s.model, "currentAlloc": {"load": {
                "arrivalRate": s.load.rate_per_min, "AvgInTokens": s.load.input_tokens,
                "AvgOutTokens": s.load.output_tokens}}}
            for s in problem.servers if s.load]},
        "capacityData": {"count": [{"type": name, "count": count} for name, count in problem.capacity.items()]},
    }  # fmt: skip
