"""Small problems to vary, and where the files of the tests are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

from inferno_milp.problem import Problem

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"


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


def slow_problem(servers: int = 200, types: int = 20, tightness: float = 0.39) -> dict[str, Any]:
    """A generalized assignment problem: every server fits on every type, takes a random number of devices of each, and
    there are hardly enough of them. Proving the last digit takes minutes."""
    random = Random(1)
    prices = [round(random.uniform(1, 2), 3) for _ in range(types)]
    takes = [[random.randint(20, 100) for _ in range(types)] for _ in range(servers)]
    speeds = {"alpha_ms": 10.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.01, "max_batch_size": 8}
    load = {"rate_per_min": 6.0, "input_tokens": 10.0, "output_tokens": 10.0}
    return {
        "name": "slow",
        "capacity": {f"A{j}": int(tightness * sum(row[j] for row in takes) / types) for j in range(types)},
        "accelerators": [{"name": f"A{j}", "cost_per_hour": price} for j, price in enumerate(prices)],
        "profiles": [
            {"model": f"m{i}", "accelerator": f"A{j}", "accelerators_per_replica": taken, **speeds}
            for i, row in enumerate(takes) for j, taken in enumerate(row)
        ],
        "service_classes": [{"name": "c", "priority": 1, "targets": {f"m{i}": {} for i in range(servers)}}],
        "servers": [{"service_class": "c", "model": f"m{i}", "load": load} for i in range(servers)],
        "options": {"law": "inferno"},
    }  # fmt: skip


SYSTEM: dict[str, Any] = {
    "acceleratorData": {"accelerators": [
        {"name": "A", "type": "A", "multiplicity": 1, "memSize": 80, "memBW": 2000, "cost": 40.0,
         "power": {"idle": 150, "full": 400, "midPower": 320, "midUtil": 0.6}},
        {"name": "2xA", "type": "A", "multiplicity": 2, "cost": 80.0}]},
    "modelData": {"models": [
        {"name": "m", "acc": "A", "accCount": 0, "maxBatchSize": 32, "atTokens": 512,
         "decodeParms": {"alpha": 20.58, "beta": 0.41}, "prefillParms": {"gamma": 5.2, "delta": 0.1}},
        {"name": "m", "acc": "2xA", "maxBatchSize": 64, "perfParms": {"alpha": 8, "beta": 0.04, "gamma": 0.00005}}]},
    "serviceClassData": {"serviceClasses": [
        {"name": "Free", "priority": 0, "modelTargets": [
            {"model": "m", "slo-itl": 40, "slo-ttft": 1000, "slo-tps": 0}]}]},
    "serverData": {"servers": [
        {"name": "f", "class": "", "model": "m", "keepAccelerator": True, "minNumReplicas": 1, "maxBatchSize": 0,
         "currentAlloc": {"accelerator": "", "numReplicas": 0,
                          "load": {"arrivalRate": 120, "AvgInTokens": 128, "AvgOutTokens": 256}}},
        {"name": "idle", "class": "Free", "model": "m"}]},
    "optimizerData": {"optimizer": {"unlimited": False, "milpsolver": True, "saturationPolicy": "None"}},
    "capacityData": {"count": [{"type": "A", "count": 10}]},
}  # fmt: skip


def system() -> dict[str, Any]:
    return json.loads(json.dumps(SYSTEM))  # type: ignore[no-any-return]
