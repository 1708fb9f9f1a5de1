"""The command line: what it prints, where, its exit codes, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from small_problems import ROOT, problem_data

from inferno_milp import cli
from inferno_milp.studies.simulate import MOST_REQUESTS

LIMITED, SMALL = str(ROOT / "instances" / "limited.yaml"), str(ROOT / "instances" / "small.yaml")
INFEASIBLE = str(ROOT / "instances" / "infeasible.yaml")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = cli.main(argv)
    except SystemExit as stop:  # argparse ends this way for usage errors and --help
        code = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    return code, out, err


def process(*argv: str, stdin: bytes | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "inferno_milp", *argv], capture_output=True, text=True, check=False, **options
    )


class TestOptimize:
    def test_the_main_job(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = run(capsys, LIMITED)
        assert code == 0
        assert (
            "26300.5 cents/h  optimal, one accelerator per server (bound 26300.5, gap 0.00%); 27 of 27 servers served"
            in out
        )
        assert err == ""

    def test_subcommand_by_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "optimize", SMALL)[0] == 0

    def test_options_may_come_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "--solver", "greedy", LIMITED)
        assert code == 1
        assert "19208 cents/h  partial: not everybody is served in full; 26 of 27 servers served" in out
        assert "what is left is too little: it needs 38 MI300X (1 left)" in out

    def test_unlimited(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, LIMITED, "--unlimited")
        assert code == 0
        assert "18205 cents/h  optimal" in out

    def test_infeasible(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, INFEASIBLE)
        assert code == 1
        assert "partial: not everybody is served in full (bound 2.2, gap 0.00%); 0 of 2 servers served" in out
        assert "ITL 8 ms is promised, 11.12 ms is the least that any accelerator attains" in out
        assert "would fit with 3 A100 more" in out

    def test_the_program_is_written(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        for name, word in (("m.lp", "one_option"), ("m.mps", "ROWS")):
            assert run(capsys, SMALL, "--quiet", "--write-model", str(tmp_path / name))[0] == 0
            assert word in (tmp_path / name).read_text()
        code, _, err = run(capsys, SMALL, "--write-model", str(tmp_path / "m.txt"))
        assert (code, "writes .lp or .mps" in err) == (2, True)

    def test_changes_from_a_plan(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        before, after = str(tmp_path / "before.json"), str(tmp_path / "after.json")
        assert run(capsys, LIMITED, "--quiet", "--json", before)[0] == 0
        code, out, _ = run(capsys, LIMITED, "--unlimited", "--current", before, "--max-changes", "2", "--json", after)
        assert code == 0
        assert "objective" in out
        changes = json.loads(Path(after).read_text())["changes"]
        assert sum(change["moves"] for change in changes) <= 2
        code, out, _ = run(capsys, "diff", before, after, "--json", "-")
        assert code == 0
        assert {c["server"]: c["after"] for c in json.loads(out)} == {c["server"]: c["after"] for c in changes}

    def test_time_limit(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, LIMITED, "--time-limit", "1e-9")
        assert code == 1
        assert "no solution: the time ran out before a plan was found" in out

    def test_every_batch_size(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, SMALL, "--batch-sizes", "every", "--gap", "0")
        assert code == 0
        assert "38.3 usd/h" in out

    def test_table_has_a_line_per_server(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = run(capsys, SMALL)
        lines = out.splitlines()
        assert lines[0].split() == (
            [
                "server",
                "model",
                "accelerator",
                "repl.",
                "devices",
                "batch",
                "usd/h",
                "TTFT",
                "ms",
                "p95",
                "ITL",
                "ms",
                "load/min",
                "util.",
            ]
        )
        assert lines[1].split() == [
            "interactive-chat-8b",
            "chat-8b",
            "H100",
            "1",
            "1",
            "36",
            "4",
            "45.1",
            "135",
            "9.76",
            "720",
            "72%",
        ]
        assert lines[6].split() == ["standby", "chat-8b", "L4", "1", "1", "24", "0.7", "–", "–", "–", "0"]


class TestOutput:
    def test_json_on_stdout_is_one_document(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = run(capsys, LIMITED, "--json", "-")
        document = json.loads(out)
        assert (code, err) == (0, "")
        assert document["status"] == "optimal"
        assert document["total_cost_per_hour"] == 26300.5
        assert list(document["stages_s"]) == ["read", "candidates", "build", "solve"]
        assert len(document["servers"]) == 27

    def test_files(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        in_json, in_csv = tmp_path / "plan.json", tmp_path / "plan.csv"
        code, out, _ = run(capsys, SMALL, "--json", str(in_json), "--csv", str(in_csv))
        assert code == 0
        assert "38.3 usd/h" in out
        assert json.loads(in_json.read_text())["status"] == "optimal"
        with in_csv.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(float(row["cost_per_hour"]) for row in rows) == pytest.approx(38.3)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.csv", "plan.json"]

    def test_quiet(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        target = tmp_path / "plan.json"
        assert run(capsys, SMALL, "--quiet", "--json", str(target)) == (0, "", "")
        assert target.exists()

    def test_a_file_that_cannot_be_written_is_told_before_any_work(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        for target in (tmp_path / "none" / "plan.json", tmp_path):
            code, out, err = run(capsys, SMALL, "--json", str(target))
            assert (code, out) == (2, "")
            assert str(target) in err

    def test_an_old_file_survives_bad_input(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        target, bad = tmp_path / "plan.json", tmp_path / "bad.yaml"
        target.write_text("old")
        bad.write_text("servers: 7")
        code, out, err = run(capsys, str(bad), "--json", str(target))
        assert (code, out) == (2, "")
        assert "nothing was written" in err
        assert target.read_text() == "old"

    def test_piped_output_is_plain_and_whole(self) -> None:
        done = process(LIMITED, env={**os.environ, "COLUMNS": "40"})
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert done.stderr == ""
        assert any(
            line.startswith("Premium  mixtral_8_7b") and line.rstrip().endswith("%")
            for line in done.stdout.splitlines()
        )

    def test_a_reader_that_leaves(self) -> None:
        """`| head -1`: no complaint, and nothing that looks like a failure of the program."""
        command = f"{sys.executable} -m inferno_milp candidates {LIMITED} | head -1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""

    @pytest.mark.parametrize(("instance", "code"), [(LIMITED, 0), (INFEASIBLE, 1)])
    def test_a_reader_that_leaves_does_not_change_the_exit_code(self, instance: str, code: int) -> None:
        command = f"{sys.executable} -m inferno_milp {instance} | true; exit ${{PIPESTATUS[0]}}"
        assert subprocess.run(["bash", "-c", command], check=False).returncode == code

    def test_what_is_no_regular_file_is_written_to_as_it_is(self, tmp_path: Path) -> None:
        kept, link, pipe = tmp_path / "kept.json", tmp_path / "link.json", tmp_path / "pipe"
        kept.write_text("old")
        kept.chmod(0o640)
        link.symlink_to(kept)
        assert process(SMALL, "--quiet", "--json", str(link)).returncode == 0
        assert link.is_symlink()
        assert json.loads(kept.read_text())["status"] == "optimal"
        assert kept.stat().st_mode & 0o777 == 0o640
        os.mkfifo(pipe)
        with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
            assert process(SMALL, "--quiet", "--json", str(pipe)).returncode == 0
            assert json.loads(reader.communicate()[0])["status"] == "optimal"
        assert pipe.is_fifo()
        assert process(SMALL, "--quiet", "--json", "/dev/null").returncode == 0
        assert Path("/dev/null").is_char_device()

    def test_the_problem_is_not_written_over(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_text(yaml.safe_dump(problem_data()))
        code, _, err = run(capsys, str(path), "--json", f"{tmp_path}/./p.yaml")
        assert code == 2
        assert "would be written over" in err
        assert yaml.safe_load(path.read_text()) == problem_data()

    @pytest.mark.parametrize("target", ["-", "x.out"])
    def test_not_two_results_in_one_place(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, target: str
    ) -> None:
        target = target if target == "-" else str(tmp_path / target)
        code, out, err = run(capsys, SMALL, "--json", target, "--csv", target)
        assert (code, out) == (2, "")
        assert "cannot go to the same place" in err

    def test_stdout_that_takes_nothing(self) -> None:
        for redirection, reason in ((">/dev/full", "No space left"), (">&-", "stdout is closed")):
            command = f"{sys.executable} -m inferno_milp {SMALL} --json - {redirection}"
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
            assert done.returncode == 2
            assert reason in done.stderr
            assert "Traceback" not in done.stderr

    def test_no_stderr(self) -> None:
        command = f"{sys.executable} -m inferno_milp none.yaml 2>&-"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")

    def test_a_terminal_without_the_characters(self) -> None:
        done = process(SMALL, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
        assert done.returncode == 0
        assert "standby" in done.stdout

    def test_names_are_not_markup(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        data = problem_data()
        data["servers"] = [{**data["servers"][0], "name": name} for name in ("[/foo]", "[red]x", "a:rocket:b")]
        data["currency"] = "[bold]"
        path = tmp_path / "p.yaml"
        path.write_text(yaml.safe_dump(data))
        for argv in ((str(path),), ("candidates", str(path)), ("compare", str(path))):
            code, out, err = run(capsys, *argv)
            assert (code, err) == (0, "")
            assert "[bold]" in out
            assert argv[0] == "compare" or all(name in out for name in ("[/foo]", "[red]x", "a:rocket:b"))

    def test_json_does_not_pay_for_pandas_or_plots(self) -> None:
        code = (
            "import sys; from inferno_milp.cli import main; main([sys.argv[1], '--json', '-']);"
            "print({'pandas', 'matplotlib', 'scipy.stats'} & set(sys.modules), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code, LIMITED], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "set()"

    def test_a_terminal_gets_bars_and_progress(self, tmp_path: Path) -> None:
        """`script` gives the command a terminal of 120 columns."""
        inner = f"stty cols 120; {sys.executable} -m inferno_milp {SMALL}"
        done = subprocess.run(
            ["script", "-qec", inner, "/dev/null"], capture_output=True, text=True, check=True,
            env={**os.environ, "TERM": "xterm-256color"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "██████████" in done.stdout
        assert re.search("starting|reading|analysing|building|solving|checking", done.stdout)

    @pytest.mark.parametrize("columns", [60, 80, 100, 140])
    @pytest.mark.parametrize("argv", [(LIMITED,), ("analyze", SMALL, "--server", "interactive-chat-8b", "-a", "A100")])
    def test_no_digit_is_lost_on_a_narrow_terminal(self, columns: int, argv: tuple[str, ...]) -> None:
        """What does not fit is left out column by column, and said; numbers are never cut or folded."""
        inner = f"stty cols {columns}; {sys.executable} -m inferno_milp {' '.join(argv)}"
        done = subprocess.run(
            ["script", "-qec", inner, "/dev/null"], capture_output=True, text=True, check=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout).splitlines()
        whole = {word for line in process(*argv).stdout.splitlines() for word in line.split()}
        # Rows of the table: a class, or two numbers, at the beginning; the total line may fold into odd pieces.
        table = [line for line in lines if re.match(r" *(Premium|Free|Bronze|[0-9.]+ +[0-9.]+) ", line)]
        assert len(table) >= 10
        numbers = {word for line in table for word in line.split() if re.fullmatch(r"[0-9.]+%?", word)}
        assert numbers <= whole
        assert any("left out" in line for line in lines) == (columns < (110 if argv == (LIMITED,) else 100))


class TestErrors:
    def test_bad_input(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        data = problem_data()
        data["servers"][0]["modle"] = data["servers"][0].pop("model")
        data["capacity"]["A"] = -1
        path = tmp_path / "bad.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        code, out, err = run(capsys, str(path))
        assert (code, out) == (2, "")
        assert "servers[0].modle: unknown key; did you mean 'model'?" in err
        assert "capacity.A: must be at least 0, is -1" in err
        assert err.endswith("errors in the input; nothing was written\n")

    @pytest.mark.parametrize(
        "argv",
        [
            [],
            ["optimize"],
            [LIMITED, "--solver", "cplex"],
            [LIMITED, "--gap", "1"],
            [LIMITED, "--gap", "nan"],
            [LIMITED, "--time-limit", "0"],
            [LIMITED, "--time-limit", "inf"],
            [LIMITED, "--law", "infernal"],
            [LIMITED, "--no-such-option"],
            [LIMITED, "--quiet", "--verbose"],
            [LIMITED, LIMITED],
            ["candidates", LIMITED, "--server", "Premium-llama_7"],
            ["analyze"],
            ["analyze", LIMITED],
            ["analyze", LIMITED, "--server", "x", "-a", "H100"],
            ["analyze", LIMITED, "--server", "Free-llama_7b", "-a", "H1000"],
            ["analyze", "--server", "x"],
            ["analyze", "--alpha-ms", "-1"],
            ["analyze", "--alpha-ms", "abc"],
            ["analyze", "--alpha-ms", "1e308"],
            ["analyze", "--max-batch", "100000000"],
            ["analyze", "--max-batch", "9" * 30],
            ["analyze", "--max-queue", "-1"],
            ["analize", LIMITED],
            ["no/such/problem.yaml"],
            [LIMITED, "--json", "x" * 5000],
            [LIMITED, "--json", "/proc/x.json"],
        ],
    )
    def test_usage(self, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
        code, out, err = run(capsys, *argv)
        assert (code, out) == (2, "")
        assert err
        assert "Traceback" not in err

    def test_a_misspelt_subcommand(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "no subcommand and no file 'analize'; did you mean 'analyze'?" in run(capsys, "analize", LIMITED)[2]

    def test_internal_errors_have_their_own_code(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("of its own making")

        monkeypatch.setattr("inferno_milp.planning.optimize.find_attainable_candidates", fail)
        code, out, err = run(capsys, SMALL)
        assert (code, out) == (3, "")
        assert "internal error: RuntimeError: of its own making" in err
        assert "Traceback" not in err
        assert "Traceback" in run(capsys, SMALL, "--verbose")[2]

    def test_interrupted(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("inferno_milp.planning.optimize.find_attainable_candidates", interrupt)
        assert run(capsys, SMALL) == (130, "", "interrupted\n")

    def test_warnings_go_to_stderr(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        from small_problems import system

        data = system()
        data["optimizerData"]["optimizer"]["delayedBestEffort"] = True
        path = tmp_path / "s.json"
        path.write_text(json.dumps({"system": data}))
        code, out, err = run(capsys, str(path), "--json", "-")
        assert code == 0
        assert json.loads(out)
        assert "delayedBestEffort is not applied" in err


class TestOtherSubcommands:
    def test_compare(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "compare", LIMITED)
        assert code == 0
        greedy, milp = (line.split() for line in out.splitlines()[1:3])
        assert greedy[:4] == ["greedy", "partial", "19208", "1"]
        assert milp[:4] == ["milp", "optimal", "26300.5", "0"]

    def test_compare_as_data(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        target = tmp_path / "both.csv"
        _, out, _ = run(capsys, "compare", SMALL, "--json", "-", "--csv", str(target))
        assert set(json.loads(out)) == {"greedy", "milp"}
        assert target.read_text().startswith("solver,status,total_cost_per_hour")

    def test_candidates(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "candidates", LIMITED)
        assert code == 0
        assert len(out.splitlines()) == 1 + 495
        _, out, _ = run(capsys, "candidates", LIMITED, "--undominated")
        assert len(out.splitlines()) < 300

    def test_candidates_of_one_server(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        target = tmp_path / "c.csv"
        _, out, _ = run(capsys, "candidates", SMALL, "--server", "standby", "--json", "-", "--csv", str(target))
        document = json.loads(out)
        assert {row["accelerator"] for row in document["candidates"]} == {"L4", "A100", "H100"}
        assert document["rejected"] == [
            {"server": "standby", "accelerator": "2xH100", "reason": "no profile of chat-8b on 2xH100"}
        ]
        assert len(target.read_text().splitlines()) == 4

    def test_rejected(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = run(capsys, "candidates", SMALL, "--rejected")
        assert "interactive-chat-8b   L4           ITL at least 55.9 ms at batch 1, target 25 ms" in out

    def test_analyze_a_server(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "analyze", SMALL, "--server", "interactive-chat-8b", "-a", "H100")
        assert code == 0
        assert len(out.splitlines()) == 1 + 10 + 2
        assert "highest rate: 31.7866 requests/s (1907.19 per minute), with TTFT ≤ 500 ms and ITL ≤ 25 ms" in out

    ENGINE: ClassVar = [
        "--alpha-ms",
        "20",
        "--beta-ms",
        "0.4",
        "--gamma-ms",
        "5",
        "--delta-ms",
        "0.1",
        "--input-tokens",
        "128",
        "--output-tokens",
        "64",
        "--max-batch",
        "16",
    ]

    def test_analyze_an_engine(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        target = tmp_path / "a.csv"
        code, out, _ = run(
            capsys, "analyze", *self.ENGINE, "--rate-per-s", "1", "2.5", "--json", "-", "--csv", str(target)
        )
        assert code == 0
        document = json.loads(out)
        assert [row["rate_per_s"] for row in document["rates"]] == [1, 2.5]
        assert document["verdict"] == "capped"
        assert len(target.read_text().splitlines()) == 3

    def test_analyze_what_takes_no_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        timeless = ["--input-tokens", "0", "--output-tokens", "1"]
        code, out, _ = run(capsys, "analyze", *self.ENGINE, *timeless)
        assert code == 0
        assert "any rate is served: such requests take no time" in out

    def test_analyze_what_cannot_be(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "analyze", *self.ENGINE, "--itl-ms", "10")
        assert code == 0
        assert "no rate keeps ITL ≤ 10 ms: at best" in out

    def test_figures_given_replace_the_problems(self, capsys: pytest.CaptureFixture[str]) -> None:
        argv = ["analyze", SMALL, "--server", "interactive-chat-8b", "-a", "H100", "--json", "-", "--max-batch", "8"]
        _, out, _ = run(capsys, *argv)
        assert json.loads(out)["engine"]["max_batch"] == 8

    def test_validate(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        code, out, _ = run(capsys, "validate", LIMITED, SMALL)
        assert code == 0
        assert out.splitlines() == [
            f"{LIMITED}: good: 27 servers, 21 accelerators, 189 profiles, 4 service classes",
            f"{SMALL}: good: 6 servers, 4 accelerators, 5 profiles, 3 service classes",
        ]
        bad, worse = tmp_path / "bad.yaml", tmp_path / "worse.yaml"
        bad.write_text("servers: 7")
        code, out, err = run(capsys, "validate", str(bad), SMALL, str(worse))
        assert code == 2
        assert out.startswith(SMALL)
        assert str(bad) in err
        assert str(worse) in err

    def test_version_and_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "--version")
        assert (code, out) == (0, "inferno-milp 0.1.0\n")
        code, out, _ = run(capsys, "--help")
        assert code == 0
        assert all(name in out for name in ("optimize", "analyze", "candidates", "compare", "validate"))


class TestSimulate:
    def test_a_plan_made_now(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "simulate", SMALL, "--requests", "4000")
        assert code in (0, 1)
        assert out.splitlines()[0].split()[:4] == ["server", "accelerator", "batch", "repl."]
        assert "requests for 5 allocations" in out

    def test_a_plan_from_a_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        plan, target = tmp_path / "plan.json", tmp_path / "s.csv"
        run(capsys, SMALL, "--json", str(plan), "--quiet")
        options = ("--plan", str(plan), "--requests", "2000", "--burstiness", "16", "--seed", "3")
        code, out, _ = run(capsys, "simulate", SMALL, *options, "--json", "-", "--csv", str(target))
        document = json.loads(out)
        assert code == 1
        assert not document["meets_targets"]
        assert document["allocations"][0]["server"] == "interactive-chat-8b"
        assert target.read_text().startswith("server,accelerator,")

    def test_a_file_that_is_no_plan(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = run(capsys, "simulate", SMALL, "--plan", SMALL)
        assert code == 2
        assert "in a plan" in err

    def test_the_plan_is_not_written_over(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        plan = tmp_path / "plan.json"
        plan.write_text("{}")
        code, _, err = run(capsys, "simulate", SMALL, "--plan", str(plan), "--json", str(plan))
        assert code == 2
        assert "would be written over" in err

    @pytest.mark.parametrize("requests", ["10", "x", "1e6"])
    def test_requests(self, capsys: pytest.CaptureFixture[str], requests: str) -> None:
        code, _, err = run(capsys, "simulate", SMALL, "--requests", requests)
        assert code == 2
        assert "must be a whole number from 1000" in err

    def test_the_default_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, out, _ = run(capsys, "simulate", "--help")
        assert f"(default: {MOST_REQUESTS}," in out

    def test_verify(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = run(capsys, "optimize", SMALL, "--verify", "--json", "-")
        document = json.loads(out)
        assert code == 0
        assert document["status"] == "optimal"
        assert len(document["simulation"]["allocations"]) == 5


class TestAnalyzeTargets:
    def test_means_and_percentiles(self, capsys: pytest.CaptureFixture[str]) -> None:
        engine = ("analyze", SMALL, "--server", "interactive-chat-8b", "-a", "H100")
        _, out, _ = run(capsys, *engine, "--ttft-ms", "500", "p95=60", "--cv2-input", "1")
        assert "with TTFT ≤ 500 ms and TTFT p95 ≤ 60 ms and ITL ≤ 25 ms" in out

    @pytest.mark.parametrize("target", ["p20=5", "fast", "p95=", "p95=0", "median=3"])
    def test_bad_targets(self, capsys: pytest.CaptureFixture[str], target: str) -> None:
        code, _, err = run(capsys, "analyze", SMALL, "--ttft-ms", target)
        assert code == 2
        assert "--ttft-ms" in err

    def test_a_request_too_long_for_the_cache(self, capsys: pytest.CaptureFixture[str]) -> None:
        engine = ("analyze", SMALL, "--server", "interactive-chat-8b", "-a", "H100", "--kv-tokens", "100")
        code, _, err = run(capsys, *engine)
        assert code == 2
        assert "kv_tokens cannot hold one request" in err
