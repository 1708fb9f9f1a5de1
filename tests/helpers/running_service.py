"""A service in a process of its own, as users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 600.0
"""How long tests wait for what must come: no machine is so slow, and only a test that fails takes so long."""


class RunningService:
    """`python -m inferno_milp serve` on a free port; a context that ends it.

    Attributes
    ----------
    url : where it listens.
    client : asks it.
    """

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None, token: str = ""):
        self.log_path = folder / "service.log"
        self._log = self.log_path.open("ab")
        before = self.log_path.stat().st_size
        defaults = ["--host", "127.0.0.1", "--port", "0"]
        if not any(argument.startswith("--database") for argument in arguments):
            defaults += ["--database", f"sqlite:///{folder / 'jobs.sqlite3'}"]
        # A session of its own, so that signals to the tests' group do not reach it.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inferno_milp", "serve", *defaults, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent), **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        self.url = self._listening(before)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S, headers=headers)

    def _listening(self, before: int) -> str:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for line in self.lines(before):
                if line.get("event") == "listening":
                    return f"http://{line['addresses'][0]}"
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the service did not start: {self.log_path.read_text()}")

    def lines(self, before: int = 0) -> list[dict[str, Any]]:
        """Return what it has logged."""
        found = []
        for line in self.log_path.read_bytes()[before:].decode().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": line})
        return found

    def line(self, seconds: float = PATIENCE_S, **fields: Any) -> dict[str, Any]:
        """Wait for a line of the log with such fields: it is written once the answer is sent."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.lines():
                if fields.items() <= line.items():
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no line of the log with {fields}: {self.log_path.read_text()[-2000:]}")

    def wait_for(self, job: str, *statuses: str, seconds: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until a job has one of some statuses."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found: dict[str, Any] = self.client.get(f"/v1/jobs/{job}").json()
            if found["status"] in statuses:
                return found
            time.sleep(0.05)
        raise AssertionError(f"the job is {found['status']}, not {' or '.join(statuses)}")

    def wait_until(self, holds: Callable[[], bool], words: str) -> None:
        """Wait until something holds."""
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, f"never {words}"
            time.sleep(0.05)

    def wait_for_work(self, job: str) -> None:
        """Wait until a worker works on a job."""
        self.wait_until(lambda: bool(self.client.get(f"/v1/jobs/{job}").json()["progress"]), "begun")

    def wait_for_running(self, count: int) -> None:
        """Wait until so many requests are being solved."""
        line = f'inferno_work_running{{pool="solve"}} {count:.1f}'
        self.wait_until(lambda: line in self.client.get("/metrics").text, line)

    def processes(self) -> list[int]:
        """Return the process ids of the service and all that it has started."""
        return [self.process.pid, *_descendants(self.process.pid)]

    def memory_mb(self) -> float:
        """Return the resident memory of all its processes."""
        kilobytes = 0
        for process in self.processes():
            try:
                status = Path(f"/proc/{process}/status").read_text()
            except OSError:
                continue
            kilobytes += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return kilobytes / 1000

    def kill(self) -> None:
        """Kill it, as a machine that fails would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_S)

    def stop(self, seconds: float = PATIENCE_S) -> int:
        """Tell it to stop, and wait until it has; return the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=seconds)
        finally:
            if self.process.poll() is None:
                self.kill()
            self._log.close()

    def __enter__(self) -> RunningService:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found
