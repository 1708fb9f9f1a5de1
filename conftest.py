"""Runs the examples in README.md and docs/: Python blocks as they stand, console blocks with their output compared."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent


def run_console(example: Example) -> None:
    """Run each `$ command`; what it prints must match the lines below it, where `...` stands for anything.

    A command that ends with `&` is a service; it listens at a free port, which takes the place of 8080 in the others,
    and is stopped with the end of the block.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "INFERNO_HOST": "127.0.0.1",
        "INFERNO_PORT": str(port),
    }
    blocks = re.split(r"^\$ ", str(example.parsed), flags=re.M)[1:]
    with ExitStack() as stack:
        for block in blocks:
            command, _, expected = block.partition("\n")
            command = command.replace("localhost:8080", f"127.0.0.1:{port}")
            if command.endswith("&"):
                stack.enter_context(service(command.removesuffix("&"), environment, port))
            else:
                compare(command, expected, environment)


@contextmanager
def service(command: str, environment: dict[str, str], port: int) -> Iterator[None]:
    """Run a service until the end of the block."""
    with subprocess.Popen(shlex.split(command), env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert process.poll() is None, command
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


def compare(command: str, expected: str, environment: dict[str, str]) -> None:
    """Run a command, and compare what it prints."""
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
    (tmp_path / "tests").mkdir()
    for name in ("instances", "models", "tests/data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


pytest_collect_file = Sybil(
    parsers=[ConsoleParser(), PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["working_folder"],
).pytest()

SYSTEM = ("cli", "control", "service", "project")
"""Rooms whose tests start processes, servers or a browser."""
LONG = (
    "disaggregation", "exact", "fitting", "horizon", "horizon_apart", "html", "judging", "plots", "prices", "purchase",
    "replications", "routing", "saturation", "seed_parity", "sharing", "simulate", "tables_shown", "workers",
)  # fmt: skip
"""Modules whose tests take minutes together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test: `property`, `system`, and `fast` what is neither and does not take long."""
    for item in items:
        is_test = item.path.is_relative_to(ROOT / "tests")
        is_property = getattr(getattr(item, "function", None), "is_hypothesis_test", False)
        is_system = not is_test or item.path.parent.name in SYSTEM
        if is_property:
            item.add_marker("property")
        if is_system:
            item.add_marker("system")
        if not (is_property or is_system or item.path.stem.removeprefix("test_") in LONG):
            item.add_marker("fast")
