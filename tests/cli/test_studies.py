"""The subcommands that question a plan: what they print, write, refuse and return."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from small_problems import ROOT, problem_data

import inferno_milp as im
from inferno_milp.cli import BAD_INPUT, SERVES_ALL, UNSERVED, main
from inferno_milp.cli.axes import read_axes
from inferno_milp.cli.study_commands import PICTURES


@pytest.fixture
def small(instances: Path) -> str:
    return str(instances / "small.yaml")


@pytest.fixture
def limited(instances: Path) -> str:
    return str(instances / "limited.yaml")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    told = capsys.readouterr()
    return code, told.out, told.err


class TestExplain:
    def test_all(self, capsys: pytest.CaptureFixture[str], small: str) -> None:
        code, out, err = run(capsys, "explain", small)
        assert (code, err) == (SERVES_ALL, "")
        assert re.search(r"\ninteractive-chat-8b +H100 +4 +ITL and TTFT +4 +H100 *\n", out), (
            "the table has a line for each"
        )
        assert out.rstrip().endswith("38.3")

    def test_one_in_detail(self, capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path) -> None:
        target = tmp_path / "why.csv"
        code, out, _ = run(capsys, "explain", small, "--server", "relaxed-chat-8b", "--csv", str(target), "--gap", "0")
        assert code == SERVES_ALL
        assert "in the plan" in out
        with target.open(newline="") as file:
            rows = list(csv.DictReader(file))
        adds = {row["accelerator"]: row["adds_per_hour"] for row in rows}
        assert float(adds["L4"]) == pytest.approx(0.6)

    def test_infeasible(self, capsys: pytest.CaptureFixture[str], instances: Path) -> None:
        code, out, _ = run(capsys, "explain", str(instances / "infeasible.yaml"), "--json", "-")
        assert code == UNSERVED
        document = json.loads(out)
        assert document["purchase"] == [{"type": "A100", "devices": 1, "count": 3}]
        assert document["conflict"]["words"].startswith("busy-chat-8b cannot be served in full")


class TestPrices:
    def test_table_and_picture(self, capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path) -> None:
        code, out, _ = run(capsys, "prices", small, "--plot", str(tmp_path / "p.svg"))
        assert code == SERVES_ALL
        assert re.search(r"interactive +chat-8b +ITL ≤ 25 ms +27\.5 +1\.8\n", out)
        assert "the other 6 promises: 10% looser, they would save nothing" in out
        assert (tmp_path / "p.svg").read_bytes().startswith(b"<?xml")

    def test_json_and_csv(self, capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path) -> None:
        code, out, _ = run(capsys, "prices", small, "--json", "-", "--csv", str(tmp_path / "p.csv"), "--jobs", "2")
        assert code == SERVES_ALL
        assert len(json.loads(out)["devices"]) == 3
        assert len((tmp_path / "p.csv").read_text().splitlines()) == 1 + 3 + 8

    def test_no_time(self, capsys: pytest.CaptureFixture[str], small: str) -> None:
        """Where the time ran out nothing is said to be worth nothing."""
        code, out, _ = run(capsys, "prices", small, "--time-limit", "0.0001")
        assert code == UNSERVED
        assert "would save nothing" not in out
        assert "nothing is known: the time ran out" in out


class TestWhatIf:
    def test_difference(self, capsys: pytest.CaptureFixture[str], limited: str) -> None:
        settings = ("servers.Premium-llama_13b.load.rate_per_min=240", "capacity.H100=96")
        code, out, _ = run(capsys, "whatif", limited, *(word for s in settings for word in ("--set", s)))
        assert code == SERVES_ALL
        assert "Premium-llama_13b    10 × MI210  9 × G2         -53" in out
        assert "H100             0      0         96" in out
        assert out.rstrip().endswith("difference: +244 cents/h")

    def test_somebody_loses(self, capsys: pytest.CaptureFixture[str], limited: str) -> None:
        code, out, _ = run(capsys, "whatif", limited, "--set", "capacity.MI300X=100")
        assert code == UNSERVED
        assert "no longer served in full: Free-llama_70b: what is left is too little: it needs" in out
        assert "with 1 server(s) fewer served in full" in out
        code, out, _ = run(capsys, "whatif", limited, "--set", "capacity.MI300X*=2", "--json", "-")
        document = json.loads(out)
        assert code == SERVES_ALL
        assert document["settings"] == ["capacity.MI300X*=2"]
        assert document["after"]["total_cost_per_hour"] < document["before"]["total_cost_per_hour"]

    def test_batch_sizes_and_latencies_are_told(self, capsys: pytest.CaptureFixture[str], small: str) -> None:
        _, out, _ = run(capsys, "whatif", small, "--set", "servers.interactive-chat-8b.max_batch_size=60")
        assert re.search(r"\ninteractive-chat-8b +36 → 60 +45.1 → ", f"\n{out}")

    def test_changes_are_charged(self, capsys: pytest.CaptureFixture[str], limited: str) -> None:
        _, out, _ = run(
            capsys, "whatif", limited, "--set", "capacity.MI300X=200", "--transition", "--json", "-", "--quiet"
        )
        assert json.loads(out)["after"]["objective_parts"]["changes"] > 0

    def test_all_faults(self, capsys: pytest.CaptureFixture[str], limited: str) -> None:
        code, out, err = run(capsys, "whatif", limited, "--set", "capacity.H10=1", "--set", "servers.x.weight=2")
        assert (code, out) == (BAD_INPUT, "")
        assert "capacity.H10: unknown accelerator type 'H10'; did you mean 'H100'?" in err
        assert "unknown name 'x'" in err
        assert "2 errors in the input" in err
        assert run(capsys, "whatif", limited, "--set", "capacity.H100")[0] == BAD_INPUT


class TestSweep:
    def test_frame_and_picture(self, capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path) -> None:
        code, out, _ = run(
            capsys, "sweep", small, "--vary", "servers.*.load.rate_per_s*=0.5:1.5:3", "--vary", "capacity.H100=4,6",
            "--csv", str(tmp_path / "s.csv"), "--plot", str(tmp_path / "s.png"), "--jobs", "2",
        )  # fmt: skip
        assert code == SERVES_ALL
        assert len(out.splitlines()) == 7
        with (tmp_path / "s.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["servers.*.load.rate_per_s *="], row["capacity.H100"]) for row in rows][:3] == [
            ("0.5", "4"), ("0.5", "6"), ("1.0", "4")
        ]  # fmt: skip
        assert (tmp_path / "s.png").stat().st_size > 5000

    def test_json(self, capsys: pytest.CaptureFixture[str], small: str) -> None:
        code, out, _ = run(capsys, "sweep", small, "--vary", "capacity.H100=0,6", "--json", "-")
        assert code == SERVES_ALL, "the sweep is done"
        assert [row["status"] for row in json.loads(out)] == ["partial", "optimal"]

    @pytest.mark.parametrize("command", ["sweep", "frontier"])
    def test_json_has_every_digit_of_small_figures(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
    ) -> None:
        data = problem_data(
            accelerators=[{"name": n, "cost_per_hour": c * 1e-12} for n, c in (("A", 1 / 3), ("B", 7 / 9))]
        )
        data["profiles"] = data["profiles"][:2]
        file = tmp_path / "p.json"
        file.write_text(json.dumps(data))
        more = (
            ("--vary", "servers.*.load.rate_per_s=0.1,4")
            if command == "sweep"
            else ("--against", "load", "--points", "2")
        )
        code, out, _ = run(capsys, command, str(file), *more, "--json", "-")
        problem = im.read_problem(file)
        found = (
            im.sweep(problem, {"servers.*.load.rate_per_s": [0.1, 4]})
            if command == "sweep"
            else im.find_frontier(problem, "load", points=2)
        )
        assert code == SERVES_ALL
        assert [row["total_cost_per_hour"] for row in json.loads(out)] == found["total_cost_per_hour"].tolist()

    def test_axes(self) -> None:
        assert read_axes(["capacity.A=1,2", "capacity.**=0.5:1:2", "options.law=inferno"]) == {
            "capacity.A": [1, 2], "capacity.* *=": [0.5, 1], "options.law": ["inferno"]
        }  # fmt: skip
        assert read_axes(["capacity={A: 1, B: 2},unlimited", "a.b*=0.00001:0.00002:2"]) == {
            "capacity": [{"A": 1, "B": 2}, "unlimited"], "a.b *=": [1e-05, 2e-05]
        }  # fmt: skip
        with pytest.raises(im.InputError, match="'4:8' is no range; write FIRST:LAST:COUNT"):
            read_axes(["capacity.A=4:8"])
        with pytest.raises(im.InputError) as caught:
            read_axes(["capacity.A", "capacity.A=", "a=1:2:1", "b=1", "b=2"])
        assert len(caught.value.faults) == 4

    def test_what_cannot_be(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small: str
    ) -> None:
        monkeypatch.setattr("inferno_milp.planning.workers.CONNECT_S", 1.0)
        vary = ("--vary", "capacity.H100=1,2")
        for more, words in (
            (("--plot", "s.doc"), "a figure is written as .svg, .png or .pdf"),
            (("--scheduler", "tcp://127.0.0.1:1"), "no Dask scheduler answers"),
            (("--plot", "/nowhere/s.svg"), "no folder /nowhere"),
        ):
            code, out, err = run(capsys, "sweep", small, *vary, *more)
            assert (code, out) == (BAD_INPUT, "")
            assert words in err
        code, _, err = run(capsys, "sweep", small, *vary, "--plot", "s.svg", "--plot-y", "speed")
        assert code == BAD_INPUT
        assert "--plot-y draws total_cost_per_hour" in err


def test_frontier(capsys: pytest.CaptureFixture[str], limited: str, tmp_path: Path) -> None:
    code, out, _ = run(
        capsys, "frontier", limited, "--against", "power", "--points", "3", "--plot", str(tmp_path / "f.pdf")
    )
    assert code == SERVES_ALL
    assert len(out.splitlines()) == 4
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")


def test_scale(capsys: pytest.CaptureFixture[str], limited: str) -> None:
    code, out, _ = run(
        capsys, "scale", limited, "--server", "Premium-llama3_8b", "--rate-factor", "2.5", "--tokens-factor", "1.5"
    )
    assert code == SERVES_ALL
    lines = out.splitlines()
    assert lines[1].split()[-4:] == ["3", "138", "26300.5", "0"]
    assert lines[4].split()[-4:] == ["33", "759", "27922.5", "5"]


def test_transition(capsys: pytest.CaptureFixture[str], limited: str, instances: Path, tmp_path: Path) -> None:
    target = tmp_path / "after.yaml"
    code, out, _ = run(
        capsys, "transition", limited, "--write", str(target), "--plot", str(tmp_path / "t.svg"), "--gap", "0"
    )
    assert code == SERVES_ALL
    assert "after: 19696 cents/h, optimal, 27 of 27 served" in out
    written, shipped = im.read_problem(target), im.read_problem(instances / "limited-load-change.yaml")
    assert [server.load for server in written.servers] == [server.load for server in shipped.servers]
    code, _, err = run(capsys, "transition", limited, "--write", limited)
    assert code == BAD_INPUT
    assert "would be written over" in err


def test_nothing_that_is_read_is_written_over(
    capsys: pytest.CaptureFixture[str], small: str, instances: Path, tmp_path: Path
) -> None:
    """Neither the problem, nor a plan that says what runs today, nor a file that the problem includes."""
    for name in ("instances", "models"):
        shutil.copytree(instances.parent / name, tmp_path / name)
    plan, copied = tmp_path / "plan.json", str(tmp_path / "instances" / "limited.yaml")
    run(capsys, small, "--json", str(plan))
    for argv in (
        ("transition", small, "--current", str(plan), "--write", str(plan)),
        ("report", small, "--current", str(plan), "--html", str(plan)),
        ("plot", small, "--plan", str(plan), "--write", str(plan)),
        ("transition", copied, "--write", str(tmp_path / "models" / "sample.yaml")),
        ("optimize", copied, "--csv", str(tmp_path / "models" / "sample_classes.yaml")),
    ):
        code, out, err = run(capsys, *argv)
        assert (code, out, "would be written over" in err) == (BAD_INPUT, "", True)
    assert im.read_plan(plan).status == "optimal"
    assert im.read_problem(copied) == im.read_problem(instances / "limited.yaml")


@pytest.mark.parametrize(
    "argv",
    [
        ("transition", "--write", "x.yaml", "--json", "x.yaml"),
        ("prices", "--plot", "x.svg", "--csv", "x.svg"),
        ("transition", "--write", "-", "--json", "-"),
    ],
)
def test_two_outputs_to_one_place(capsys: pytest.CaptureFixture[str], small: str, argv: tuple[str, ...]) -> None:
    code, out, err = run(capsys, argv[0], small, *argv[1:])
    assert (code, out, "cannot go to the same place" in err) == (BAD_INPUT, "", True)


def test_generate(capsys: pytest.CaptureFixture[str], limited: str, tmp_path: Path) -> None:
    target = tmp_path / "g.yaml"
    argv = ("generate", limited, "--servers", "12", "--tightness", "0.8", "--seed", "3")
    assert run(capsys, *argv, "--write", str(target))[:2] == (SERVES_ALL, "")
    assert run(capsys, *argv)[1] == target.read_text()
    assert len(im.read_problem(target).servers) == 12
    assert run(capsys, str(target), "--quiet")[0] == SERVES_ALL
    code, out, err = run(capsys, "generate", limited, "--servers", "12", "--write", limited)
    assert (code, out, "would be written over" in err) == (BAD_INPUT, "", True)


@pytest.mark.parametrize("what", PICTURES)
def test_plot(capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path, what: str) -> None:
    target = tmp_path / "p.svg"
    server = ("--server", "batch-chat-8b") if what == "batch_sizes" else ()
    assert run(capsys, "plot", small, "--what", what, *server, "--write", str(target)) == (0, "", "")
    assert target.stat().st_size > 3000


def test_plot_of_a_plan_and_its_faults(capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path) -> None:
    plan, target = tmp_path / "plan.json", tmp_path / "p.svg"
    run(capsys, small, "--json", str(plan))
    assert run(capsys, "plot", small, "--plan", str(plan), "--write", str(target)) == (0, "", "")
    code, _, err = run(capsys, "plot", small, "--what", "batch_sizes", "--write", str(target))
    assert (code, "needs --server" in err) == (BAD_INPUT, True)
    code, _, err = run(capsys, "plot", small, "--what", "batch_sizes", "--server", "standby", "--write", str(target))
    assert (code, "no allocation with a load" in err) == (BAD_INPUT, True)


def test_analyze_draws(capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path) -> None:
    target = tmp_path / "a.svg"
    argv = ("analyze", small, "--server", "interactive-chat-8b", "-a", "A100", "--plot", str(target))
    code, out, _ = run(capsys, *argv)
    assert code == SERVES_ALL
    assert "highest rate" in out
    assert target.stat().st_size > 10_000


def test_report(capsys: pytest.CaptureFixture[str], small: str, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    assert run(capsys, "report", small, "--html", str(target), "--requests", "1000") == (0, "", "")
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    code, _, err = run(capsys, "report", small, "--html", "/nowhere/r.html")
    assert (code, "no folder" in err) == (BAD_INPUT, True)


def test_a_missing_extra_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, small: str, tmp_path: Path
) -> None:
    from inferno_milp.cli import output

    monkeypatch.setattr(output, "find_spec", lambda name: None)
    code, _, err = run(capsys, "plot", small, "--write", str(tmp_path / "p.svg"))
    assert (code, "pip install 'inferno-milp[plots]'" in err) == (BAD_INPUT, True)
    code, _, err = run(capsys, "report", small, "--html", str(tmp_path / "p.html"))
    assert (code, "pip install 'inferno-milp[report]'" in err) == (BAD_INPUT, True)


class TestProgress:
    """On a terminal every command that plans says that it does; a bar whose end is not known does not stand at 0 %."""

    @pytest.mark.parametrize(
        ("command", "problem"),
        [
            ("route", "mixes"), ("share", "small"), ("disaggregate", "small"), ("periods", "day"),
            ("explain", "small"), ("prices", "small"), ("transition", "small"),
        ],
    )  # fmt: skip
    def test_it_is_shown(self, monkeypatch: pytest.MonkeyPatch, command: str, problem: str) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        told = Terminal()
        monkeypatch.setattr("sys.stderr", told)
        monkeypatch.setenv("TERM", "xterm")
        assert main([command, str(ROOT / "instances" / f"{problem}.yaml"), "--json", os.devnull, "--csv", "-"]) in (
            0,
            1,
        )
        assert "planning" in told.getvalue()
        assert " 0%" not in told.getvalue()
