"""Runs the examples in README.md and docs/: Python blocks as they stand, console blocks with their output compared."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent


def run_console(example: Example) -> None:
    """Run each `$ command`; what it prints must match the lines below it, where `...` stands for anything."""
    for block in re.split(r"^\$ ", str(example.parsed), flags=re.M)[1:]:
        command, _, expected = block.partition("\n")
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
        printed = "\n".join(line.rstrip() for line in (done.stdout + done.stderr).splitlines())
        pattern = r"\n?.*\n?".join(re.escape(part.strip("\n")) for part in expected.rstrip().split("..."))
        if not re.fullmatch(pattern, printed, flags=re.S):
            difference = difflib.unified_diff(expected.rstrip().splitlines(), printed.splitlines(), lineterm="")
            raise AssertionError("\n".join([command, *difference]))


class ConsoleParser(CodeBlockParser):
    """Finds ```console blocks."""

    language = "console"

    def evaluate(self, example: Example) -> None:
        """Run the block."""
        run_console(example)


@pytest.fixture
def working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run the examples where their relative paths are true, and what they write is nobody's loss."""
    for name in ("instances", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


pytest_collect_file = Sybil(
    parsers=[ConsoleParser(), PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["working_folder"],
).pytest()
