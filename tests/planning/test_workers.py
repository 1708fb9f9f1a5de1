"""Work spread over processes and over a real Dask cluster: the same results, whoever dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.errors import OptionError
from inferno_milp.planning.workers import Lost, spread
from inferno_milp.problem.sections import Scenario
from inferno_milp.studies.sweeps import sweep


@dataclass
class Cluster:
    """A scheduler and two workers, processes of their own."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process and its children."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(*command: str, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # for the functions of this file
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *command], stderr=file, stdout=file, cwd=log.parent, env=environment,
            start_new_session=True,
        )  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A real Dask cluster on this machine: a scheduler and two workers that are not started again."""
    logs = [tmp_path / f"{name}.log" for name in ("scheduler", "w0", "w1")]
    scheduler = start(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", log=logs[0]
    )
    processes = [scheduler]
    try:
        address = logged(logs[0], r"tcp://127\.0\.0\.1:\d+")
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard")
        workers = [start("distributed.cli.dask_worker", address, *options, log=log) for log in logs[1:]]
        processes += workers
        for log in logs[1:]:
            logged(log, "Registered to")
        yield Cluster(address, scheduler, workers)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def logged(log: Path, pattern: str) -> str:
    """Wait for what a process logs."""
    for _ in range(600):
        if match := re.search(pattern, log.read_text(errors="replace")):
            return match[0]
        time.sleep(0.1)
    raise AssertionError(f"no {pattern} in {log.read_text(errors='replace')}")


def square(number: int) -> int:
    return number * number


@dataclass(frozen=True)
class DiesOnce:
    """Kills its process over one number, the first time."""

    number: int
    marker: Path

    def __call__(self, number: int) -> int:
        if number == self.number and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


@dataclass(frozen=True)
class DiesAlways:
    """Kills its process over one number, but not the one it was made in."""

    number: int
    maker: int

    def __call__(self, number: int) -> int:
        if number == self.number and os.getpid() != self.maker:
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


SQUARES = [number * number for number in range(40)]


class TestHere:
    def test_order_and_progress(self) -> None:
        seen: list[tuple[int, int]] = []
        assert spread(square, range(5), on_done=lambda done, of: seen.append((done, of))) == [0, 1, 4, 9, 16]
        assert seen == [(i, 5) for i in range(1, 6)]
        assert spread(square, []) == []

    @pytest.mark.parametrize("jobs", [0, -2])
    def test_jobs_that_cannot_be(self, jobs: int) -> None:
        with pytest.raises(OptionError, match="jobs must be"):
            spread(square, [1], jobs=jobs)


class TestProcesses:
    def test_order(self) -> None:
        assert spread(square, range(40), jobs=2) == SQUARES

    def test_a_worker_that_dies(self, tmp_path: Path) -> None:
        assert spread(DiesOnce(17, tmp_path / "died"), range(40), jobs=2) == SQUARES

    def test_a_piece_that_kills(self) -> None:
        results = spread(DiesAlways(17, os.getpid()), range(40), jobs=2)
        assert isinstance(results[17], Lost)
        assert [*results[:17], *results[18:]] == [*SQUARES[:17], *SQUARES[18:]]


class TestDask:
    def test_order(self, cluster: Cluster) -> None:
        assert spread(square, range(40), scheduler=cluster.address) == SQUARES

    def test_a_piece_that_kills_its_worker(self, cluster: Cluster, tmp_path: Path) -> None:
        """One of the two dies over it; the other one does its work."""
        assert spread(DiesOnce(17, tmp_path / "died"), range(40), scheduler=cluster.address) == SQUARES

    def test_a_scheduler_that_goes_away(self, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
        def on_done(done: int, of: int) -> None:
            if done == 5:
                cluster.kill(cluster.scheduler)

        assert spread(slow_square, range(40), scheduler=cluster.address, on_done=on_done) == SQUARES
        assert "done here" in caplog.text

    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("inferno_milp.planning.workers.CONNECT_S", 1.0)
        with pytest.raises(OptionError, match="no Dask scheduler answers at tcp:"):
            spread(square, [1], scheduler="tcp://127.0.0.1:1")
        with pytest.raises(OptionError, match="no Dask scheduler answers"):
            spread(square, [1], scheduler="nonsense://x")


def slow_square(number: int) -> int:
    time.sleep(0.05)
    return number * number


def test_a_thousand_what_ifs(instances: Path, cluster: Cluster) -> None:
    """The same frame alone, in two processes, and on a cluster that loses a worker in the middle."""
    problem = im.read_problem(instances / "limited.yaml")
    loads = [0.5 + i / 100 for i in range(50)]
    axes = {
        "servers.*.load.rate_per_s *=": loads,
        "capacity.MI300X": list(range(100, 200, 10)),
        "capacity.G2": [96, 128],
    }
    alone = sweep(problem, axes)
    assert len(alone) == 1000
    assert alone.error.isna().all()
    pd.testing.assert_frame_equal(sweep(problem, axes, jobs=2), alone)

    def on_done(done: int, of: int) -> None:
        if done > 300 and cluster.workers[0].poll() is None:
            cluster.kill(cluster.workers[0])

    spreaded = sweep(problem, axes, scheduler=cluster.address, on_done=on_done)
    assert cluster.workers[0].poll() is not None
    pd.testing.assert_frame_equal(spreaded, alone)


def test_from_the_command_line(instances: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", str(instances / "small.yaml"), "--vary", "capacity.H100=0,4,6", "--json", "-"]
    assert main(argv) == 0
    alone = capsys.readouterr().out
    assert main([*argv, "--scheduler", cluster.address]) == 0
    assert capsys.readouterr().out == alone


def test_scenarios_that_come_apart(cluster: Cluster) -> None:
    scenarios = tuple(Scenario(name=f"s{k}", probability=0.05, factor=0.5 + 0.05 * k) for k in range(20))
    base = im.read_problem("instances/day.yaml").with_options(assignment="mixed")
    problem = base.model_copy(update={"scenarios": scenarios})
    alone = im.plan_scenarios(problem, gap=1e-3)
    assert im.plan_scenarios(problem, gap=1e-3, scheduler=cluster.address).to_dict() == alone.to_dict()
