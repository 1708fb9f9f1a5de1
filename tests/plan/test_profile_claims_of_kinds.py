"""What plans with routes, shared replicas and phases apart say of the profiles that they rest on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.plan import Plan

SMALL = {"alpha_ms": 12.0, "beta_ms": 0.2, "gamma_ms": 10.0, "delta_ms": 0.3}
BIG = {"alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02}
WHERE = {"small": SMALL, "big": BIG, "dear": BIG}
KINDS = {"small": "measured", "big": "measured", "dear": "estimated"}
PRICES = {"small": 1.0, "big": 4.0, "dear": 400.0}
BUCKETS = [
    {"input_tokens": 100.0, "output_tokens": 50.0, "share": 0.8},
    {"input_tokens": 4000.0, "output_tokens": 100.0, "share": 0.2},
]


def document(*loads: dict[str, Any], kinds: dict[str, str] = KINDS) -> dict[str, Any]:
    origin = {"precision": "fp8", "engine": "vllm", "engine_version": "0.12", "itl_error": 0.1}
    return {
        "name": "many",
        "currency": "usd",
        "accelerators": [{"name": a, "cost_per_hour": p, "network_gb_per_s": 50.0} for a, p in PRICES.items()],
        "profiles": [
            {**figures, "model": "m", "accelerator": a, "kappa_ms": 1e-4, "max_batch_size": 64,
             "kv_bytes_per_token": 131072.0, "origin": {"kind": kinds[a], **origin}}
            for a, figures in WHERE.items()
        ],
        "capacity": {"big": 30, "small": 30, "dear": 30},
        "service_classes": [{"name": "c", "targets": {"m": {"ttft_ms": 900, "itl_ms": 40}}}],
        "servers": [
            {"name": f"s{i}", "service_class": "c", "model": "m", "load": load} for i, load in enumerate(loads)
        ],
    }  # fmt: skip


def mixed(**changes: Any) -> dict[str, Any]:
    return document({"rate_per_s": 30.0, "mix": BUCKETS}, **changes)


def little(**changes: Any) -> dict[str, Any]:
    load = {"rate_per_s": 0.4, "input_tokens": 300.0, "output_tokens": 100.0}
    return document(load, load, **changes)


def tight(**changes: Any) -> dict[str, Any]:
    load = {"rate_per_s": 20.0, "input_tokens": 800.0, "output_tokens": 60.0, "cv2_input": 0.5}
    changed = document(load, **changes)
    changed["service_classes"][0]["targets"]["m"] = {"ttft_ms": 1200.0, "itl_ms": 15.0}
    return changed


FINDERS: dict[str, tuple[Callable[..., Any], Callable[..., dict[str, Any]]]] = {
    "route": (im.find_routes, mixed),
    "share": (im.share_replicas, little),
    "disaggregate": (im.disaggregate, tight),
}


def beside(found: Any) -> Plan:
    plan: Plan = next(getattr(found, name) for name in ("unrouted", "apart", "together") if hasattr(found, name))
    return plan


@pytest.mark.parametrize("command", FINDERS)
def test_a_claim_rests_on_all_profiles_that_were_weighed(command: str) -> None:
    """The plan uses measured profiles alone; that it is the best rests on an estimate of those that it does not use."""
    finder, make = FINDERS[command]
    found = finder(im.read_problem_data(make()))
    assert found.plan is not beside(found), "else there is nothing to see"
    assert {used.profile.kind for used in found.plan.used_profiles} == {"measured"}
    assert found.plan.rests_on_estimates
    assert found.to_dict()["plan"]["rests_on_estimates"]
    known = finder(im.read_problem_data(make(kinds=dict.fromkeys(KINDS, "measured"))))
    assert not known.plan.rests_on_estimates


@pytest.mark.parametrize("command", FINDERS)
def test_tables_and_documents_name_them(command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, written = tmp_path / "problem.yaml", tmp_path / "plan.json"
    path.write_text(yaml.safe_dump(FINDERS[command][1]()))
    assert main([command, str(path)]) == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("fp8", "vllm 0.12", "±10%", "by estimated profiles"))
    assert main([command, str(path), "--json", str(written)]) == 0
    for server in json.loads(written.read_text())["plan"]["servers"].values():
        for allocation in server["allocations"]:
            profile = allocation["profile"]
            assert (profile["precision"], profile["engine_version"], profile["itl_error"]) == ("fp8", "0.12", 0.1)


def test_frames_of_phases_name_them() -> None:
    frame = im.disaggregate(im.read_problem_data(tight())).to_frame()
    assert frame[["phase", "precision", "engine", "profile_kind"]].to_numpy().tolist() == [
        ["prefill", "fp8", "vllm", "measured"],
        ["decode", "fp8", "vllm", "measured"],
    ]
