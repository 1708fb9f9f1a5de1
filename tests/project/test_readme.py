"""The README's set-up commands do what they promise, and CI runs these very commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from small_problems import ROOT

COMMANDS = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tracked and the new files of the project, without what git ignores."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a set-up command without a network: the dependencies are those of the environment that runs this test."""
    offline = {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this option's value the other way round
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env={**os.environ, **offline, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_there_are_two() -> None:
    assert len(COMMANDS) == 2
    assert COMMANDS[0].endswith("-m inferno_milp instances/limited.yaml")
    assert COMMANDS[1].endswith("checks.py")


def test_the_main_job(clone: Path) -> None:
    done = run(COMMANDS[0], clone)
    assert done.returncode == 0, done.stderr
    assert "26300.5 cents/h  optimal" in done.stdout


def test_the_checks(clone: Path) -> None:
    """All of them but the tests themselves, which are only collected: they are what is running now."""
    tools = Path(sysconfig.get_paths()["scripts"])
    linked = " && ".join(f"ln -s {tools / tool} .venv/bin/" for tool in ("ruff", "mypy", "lint-imports", "pytest"))
    command = COMMANDS[1].replace(" && .venv/bin/python checks.py", f" && {linked} && .venv/bin/python checks.py")
    done = run(command, clone, PYTEST_ADDOPTS="--collect-only -q")
    assert "$ pytest" in done.stdout, done.stderr
    assert "test_readme.py::test_the_checks" in done.stdout, done.stdout + done.stderr


def test_ci_runs_them() -> None:
    assert "grep '^python3 -m venv' README.md" in (ROOT / ".ci" / "run").read_text()
