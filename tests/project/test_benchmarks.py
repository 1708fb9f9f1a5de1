"""The benchmarks run, at their smallest; what they measure decides no test."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from pathlib import Path

import pytest
from small_problems import ROOT

from benchmarks import (
    control_day,
    figures,
    forecast,
    mixes,
    queueing,
    queueing_accuracy,
    simulation,
    solver_speed,
    solver_vs_greedy,
    startup,
    sweeps,
)


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


@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_solver_speed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assignment: str) -> None:
    run(monkeypatch, solver_speed, "--sizes", "8", "--seeds", "1", "--repeats", "1", "--assignment", assignment)
    assert "median of highs seconds / ours" in capsys.readouterr().out


def test_queueing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, queueing, "--count", "50", "--repeats", "1")
    assert "sample's own batch sizes" in capsys.readouterr().out


def test_sweeps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, sweeps, "--cases", "3", "--repeats", "1")
    assert "two processes" in capsys.readouterr().out


def test_startup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, startup, "--repeats", "1")
    assert "ratio" in capsys.readouterr().out


def test_queueing_accuracy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, queueing_accuracy, "--count", "8", "--requests", "2000")
    assert "continuous-batch" in capsys.readouterr().out


def test_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Figures are drawn; of those in the docs, none is missing and none is left over."""
    run(monkeypatch, figures, "--folder", str(tmp_path), "--only", "prediction", "cost_parts", "--format", "png")
    assert (tmp_path / "prediction.png").stat().st_size > 10_000
    assert (tmp_path / "cost_parts.png").stat().st_size > 5_000
    assert sorted(path.stem for path in (ROOT / "docs" / "figures").iterdir()) == sorted(figures.FIGURES)
    shown = {
        name for page in (ROOT / "docs").glob("*.md") for name in re.findall(r"figures/([\w-]+)\.svg", page.read_text())
    }
    assert shown == {*figures.FIGURES}


@pytest.mark.parametrize("name", ["engine", "limited-assignment", "limited-load-change-differences", "targets"])
def test_figures_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A figure in the docs shows what the code draws today: the same words and numbers, whatever draws the letters."""
    run(monkeypatch, figures, "--folder", str(tmp_path), "--only", name)
    drawn, shipped = ((folder / f"{name}.svg").read_text() for folder in (tmp_path, ROOT / "docs" / "figures"))
    comments = re.compile(r"<!-- (.*?) -->")
    assert comments.findall(drawn) == comments.findall(shipped)


def test_simulation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, simulation, "--requests", "500", "--servers", "3")
    assert "3 servers planned" in capsys.readouterr().out


def test_the_plain_port_sizes_alike() -> None:
    engine = {name: float(values[0]) for name, values in queueing.engines(1, 3, 40).items()}
    sized = queueing.queueing.size("inferno", **engine, ttft_ms=2000.0, itl_ms=80.0)  # type: ignore[arg-type]
    assert 1000 * queueing.plain_size(engine, 2000.0, 80.0) == pytest.approx(float(sized.max_rate_per_s), rel=1e-9)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")
def test_control_day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, control_day, "--hours", "0.1", "--plot", str(tmp_path / "day.svg"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:3]] == ["the loop", "static, daily peak"]
    assert (tmp_path / "day.svg").stat().st_size > 5000


def test_forecast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, forecast, "--last", "4")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["last", "trend", "seasonal"]


def test_mixes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, mixes, "--tables", "0", "--loads", "1")
    assert "engines under mixes" in capsys.readouterr().out
