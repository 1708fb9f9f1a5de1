"""`serve` on the command line: what it takes, and what it says when it cannot start."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from running_service import PATIENCE_S, RunningService
from small_problems import ROOT

from inferno_milp.cli import main, output


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferno_milp", "serve", *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    assert main(["serve"]) == 2
    assert "pip install 'inferno-milp[service]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environment", "word"),
    [
        (("--port", "70000"), {}, "--port"),
        ((), {"INFERNO_PORT": "tcp://10.0.0.1:8080"}, "--port"),
        (("--workers", "0"), {}, "--workers"),
        (("--time-limit", "-1"), {}, "--time-limit"),
        (("--token-file", "nothing"), {}, "--token-file: nothing: no such file"),
        (("--token-file", "empty"), {}, "it is empty"),
        (("--database", "nonsense"), {}, "--database"),
        (("--database", "sqlite:////nowhere/at/all"), {}, "--database"),
    ],
)
def test_what_cannot_be(arguments: tuple[str, ...], environment: dict[str, str], word: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    done = run(*arguments, folder=tmp_path, **environment)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("--host", "127.0.0.1", "--port", port, folder=tmp_path)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: is another service there?" in done.stderr


def test_where_it_listens_is_said_once_it_answers(tmp_path: Path) -> None:
    with RunningService(tmp_path, "--workers", "1") as running:
        assert running.client.get("/healthz").status_code == 200
        told = [line["event"] for line in running.lines() if str(line["event"]).startswith("serving ")]
        assert told == [f"serving a page and an API on {running.url} (Ctrl-C ends it)"]
