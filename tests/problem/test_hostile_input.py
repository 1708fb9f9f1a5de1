"""What files and texts may hold that is no honest input: halves of characters, devices, formulas."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_problems import ROOT, problem_data, with_server

import inferno_milp as im
from inferno_milp.plan.file import read_plan
from inferno_milp.problem.reading import read_problem_data, read_problem_text
from inferno_milp.problem.reading.settings import read_setting
from inferno_milp.problem.spreadsheet import FORMULA_STARTS, csv_text

HALF = "\ud800"


class TestHalfCharacters:
    """JSON can write half of a surrogate pair; nothing can store it."""

    @pytest.mark.parametrize("place", ["name", "key"])
    @pytest.mark.parametrize("suffix", ["json", "yaml"])
    def test_in_a_file(self, tmp_path: Path, suffix: str, place: str) -> None:
        data = problem_data(name=HALF) if place == "name" else {**problem_data(), HALF: 1}
        file = tmp_path / f"p.{suffix}"
        file.write_text(json.dumps(data))
        with pytest.raises(im.InputError):
            im.read_problem(file)

    def test_in_a_text(self) -> None:
        text = json.dumps(problem_data())
        for wrong in (f"name: {HALF}", f"{HALF}: 1", text.replace("tiny", HALF)):
            with pytest.raises(im.InputError, match=r"half of a character, \\ud800"):
                read_problem_text(wrong)
        for data in (problem_data(name=HALF), {**problem_data(), "x": [{HALF: 1}]}):
            with pytest.raises(im.InputError, match="half of a character"):
                read_problem_data(data)

    def test_in_a_setting_and_a_plan(self, tmp_path: Path) -> None:
        with pytest.raises(im.InputError, match="half of a character"):
            read_setting(f"name={HALF}")
        (tmp_path / "plan.json").write_text(json.dumps({"problem": HALF}))
        with pytest.raises(im.InputError, match="half of a character"):
            read_plan(tmp_path / "plan.json")

    def test_whole_ones_are_read(self) -> None:
        assert read_problem_data(problem_data(name="🐢 é")).name == "🐢 é"


def reading(*arguments: str | Path) -> tuple[int, str]:
    """Run the command line in a process of its own: one that waits for ever is ended."""
    command = [sys.executable, "-m", "inferno_milp", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


class TestFilesThatKeepAReaderWaiting:
    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Path:
        os.mkfifo(tmp_path / "pipe")
        return tmp_path / "pipe"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["validate"],
            ["explain"],
            [ROOT / "instances/small.yaml", "--current"],
            ["fit", "--model", "m", "--accelerator", "a"],
            ["mix"],
            ["serve", "--token-file"],
            ["models", "list", "--catalogue"],
        ],
        ids=lambda arguments: str(arguments[0]).rpartition("/")[2],
    )
    def test_a_pipe(self, pipe: Path, arguments: list[Any]) -> None:
        code, err = reading(*arguments, pipe)
        assert code == 2
        assert "it is no regular file" in err

    def test_a_pipe_that_is_included(self, pipe: Path, tmp_path: Path) -> None:
        (tmp_path / "p.yaml").write_text(f"include: [{pipe.name}]")
        with pytest.raises(im.InputError, match="it is no regular file"):
            im.read_problem(tmp_path / "p.yaml")

    @pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/proc/kmsg", "/proc/self/environ", "/proc/uptime"])
    def test_a_file_of_the_kernel(self, name: str) -> None:
        if not Path(name).exists():
            pytest.skip("not here")
        with pytest.raises(im.InputError, match="it is no regular file"):
            im.read_problem(name)


class TestFormulas:
    def test_no_cell_begins_with_one(self) -> None:
        frame = pd.DataFrame({"=a": [f"{start}cmd|' /C calc'!A0" for start in FORMULA_STARTS], "n": -1.5})
        frame["plain"] = "a\r=b"
        header, *rows = csv.reader(io.StringIO(csv_text(frame), newline=""))
        assert header == ["'=a", "n", "plain"]
        assert [row[0][:2] for row in rows] == [f"'{start}".replace("\r", " ") for start in FORMULA_STARTS]
        assert {tuple(row[1:]) for row in rows} == {("-1.5", "a =b")}  # numbers are no texts

    def test_what_the_command_line_writes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from inferno_milp.cli import main
        from inferno_milp.problem.writing import problem_text

        file = tmp_path / "p.yaml"
        file.write_text(problem_text(with_server(name='=HYPERLINK("http://x")')))
        for command in ("optimize", "candidates", "explain", "simulate"):
            more = ["--requests", "1000"] if command == "simulate" else []
            assert main([command, str(file), "--csv", "-", *more]) == 0
            assert '''"'=HYPERLINK(""http://x"")"''' in capsys.readouterr().out

    def test_there_is_one_writer_of_tables(self) -> None:
        """Nothing else writes CSV, so that no table is forgotten."""
        writers = [
            path.name
            for path in (ROOT / "inferno_milp").rglob("*.py")
            if ".to_csv(" in path.read_text(encoding="utf-8") or "csv.writer" in path.read_text(encoding="utf-8")
        ]
        assert writers == ["spreadsheet.py"]
