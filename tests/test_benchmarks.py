"""The benchmarks run, at their smallest; what they measure decides no test."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from benchmarks import queueing, solver_vs_greedy, startup


def run(monkeypatch: pytest.MonkeyPatch, module: object, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *argv])
    module.main()  # type: ignore[attr-defined]


def test_solver_vs_greedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "b.csv"
    run(monkeypatch, solver_vs_greedy, "--sizes", "5", "12", "--tightness", "0.6", "--csv", str(target))
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["servers"] for row in rows] == ["5", "12"]
    assert {row["milp_status"] for row in rows} == {"optimal"}
    assert all(row["milp_unserved"] == "0" for row in rows)
    assert "tightness" in capsys.readouterr().out


def test_queueing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, queueing, "--count", "50", "--repeats", "1")
    assert "sample's own batch sizes" in capsys.readouterr().out


def test_startup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, startup, "--repeats", "1")
    assert "ratio" in capsys.readouterr().out
