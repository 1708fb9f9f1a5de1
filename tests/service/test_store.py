"""What is kept, in SQLite and in a real PostgreSQL: jobs, their ends, and what other services have left."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_service import RunningService
from small_problems import problem_data

import inferno_milp as im
from inferno_milp.service import store as module
from inferno_milp.service.store import Store

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) if Path("/usr/lib/postgresql").is_dir() else []
FOUND = shutil.which("pg_ctl") or (str(SERVERS[-1]) if SERVERS else None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL of our own, on a socket in a folder; its URL."""
    if FOUND is None:
        pytest.skip("no PostgreSQL here; .ci/run installs it")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to other users
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        folder.chmod(0o755)
    data, control = folder / "data", Path(FOUND)
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    for command in (
        [str(control.parent / "initdb"), "-D", str(data), "-U", "inferno", "--auth", "trust"],
        [FOUND, "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start"],
    ):
        done = subprocess.run([*as_user, *command], capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    yield f"postgresql+psycopg://inferno@/postgres?host={folder}"
    subprocess.run([*as_user, FOUND, "-D", str(data), "-m", "immediate", "stop"], check=False, capture_output=True)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        yield "sqlite://"
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    else:
        found: str = request.getfixturevalue("postgres")
        yield found
        store = Store(found, "cleaner")
        for job in store.jobs(limit=1000):
            store.finish(job.id, "cancelled", None, {})
            store.delete(job.id)
        store.close()


def test_the_life_of_a_job(url: str) -> None:
    store = Store(url, "me")
    store.ping()
    store.add("a", "optimize", '{"problem": "x"}')
    assert store.request_of("a") == '{"problem": "x"}'
    assert store.get("b") is None
    found = store.get("a")
    assert found is not None
    assert (found.status, found.started_at, found.owner) == ("queued", None, "me")
    assert not store.delete("a")
    assert store.start("a")
    assert not store.start("a")
    assert store.requeue("a")
    assert store.start("a")
    assert store.finish("a", "done", (200, '{"π": 1}'), {"cost": 3})
    assert not store.finish("a", "cancelled", None, {})
    found = store.get("a")
    assert found is not None
    assert (found.status, found.summary) == ("done", {"cost": 3})
    assert store.result_of("a") == (200, '{"π": 1}')
    assert store.result_of("b") is None
    assert [job.id for job in store.jobs()] == ["a"]
    assert store.jobs(status="failed") == []
    assert store.jobs(before=found.created_at) == []
    assert store.delete_older(1) == 0
    assert store.delete("a")
    assert store.jobs() == []
    store.close()


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_what_another_service_left(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waiting jobs are ours, its running ones are interrupted; but only when it is gone."""
    first = Store(url, "first")
    for job in ("running", "waiting", "done"):
        first.add(job, "optimize", "{}")
    first.start("running")
    first.finish("done", "done", (200, "{}"), {})
    first.beat()
    if url.startswith("postgres"):
        second = Store(url, "second")
        assert second.adopt() == ([], [])
        monkeypatch.setattr(module, "ALIVE_S", -1.0)
        assert second.adopt() == (["waiting"], ["running"])
    else:
        first.close()
        second = Store(url, "second")
        assert second.adopt() == (["waiting"], ["running"])
        first = second
    assert second.adopt() == ([], [])
    assert second.ended(["waiting", "running"]) == ["running"]
    assert {job.id: (job.status, job.owner) for job in second.jobs()} == {
        "running": ("interrupted", "first"),
        "waiting": ("queued", "second"),
        "done": ("done", "first"),
    }
    assert not second.finish("running", "cancelled", None, {})
    assert first.finish("running", "done", (200, "{}"), {})  # it was there all the time, but could not say so
    assert second.finish("waiting", "cancelled", None, {})
    assert second.ended(["waiting", "done", "gone"]) == ["waiting", "done", "gone"]
    second.close()
    first.close()


def test_old_jobs_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(url, "me")
    store.add("old", "optimize", "{}")
    store.finish("old", "done", (200, "{}"), {})
    store.add("unfinished", "optimize", "{}")
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 10 * 86400)
    assert store.delete_older(11) == 0
    assert store.delete_older(9) == 1
    assert [job.id for job in store.jobs()] == ["unfinished"]
    store.close()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ("nonsense", "--database"),
        ("unknown://x", "--database"),
        ("sqlite:////nowhere/at/all.sqlite3", "No such file"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/x?connect_timeout=2", "cannot be used"),
    ],
)
def test_a_database_that_cannot_be(wrong: str, word: str) -> None:
    with pytest.raises(im.OptionError, match=word):
        Store(wrong, "me")


def test_two_services_on_one_postgres(postgres: str, tmp_path: Path) -> None:
    """Each sees the other's jobs, and cancels them; when one is killed the other does what waited."""
    from small_problems import slow_problem

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    arguments = ("--database", postgres, "--workers", "1", "--grace", "1")
    slow = {"kind": "optimize", "problem": slow_problem(), "gap": 0, "time_limit_s": 3600}
    with (
        RunningService(tmp_path / "first", *arguments) as first,
        RunningService(tmp_path / "second", *arguments) as second,
    ):
        done = first.client.post("/v1/jobs", json={"kind": "optimize", "problem": problem_data()}).json()["id"]
        cost = first.wait_for(done, "done")["summary"]["total_cost_per_hour"]
        assert second.client.get(f"/v1/jobs/{done}/result").json()["total_cost_per_hour"] == cost
        with second.client.stream("GET", f"/v1/jobs/{done}/events") as stream:
            assert "event: end" in list(stream.iter_lines())
        running = first.client.post("/v1/jobs", json=slow).json()["id"]
        first.wait_for(running, "running")
        assert second.client.post(f"/v1/jobs/{running}/cancel").json()["status"] == "cancelled"
        again = first.client.post("/v1/jobs", json=slow).json()["id"]
        first.wait_for(again, "running")  # so the cancelled one was ended there
        waiting = first.client.post("/v1/jobs", json={"kind": "optimize", "problem": problem_data()}).json()["id"]
        first.kill()
        assert second.client.get(f"/v1/jobs/{waiting}").json()["status"] == "queued"
        second.wait_for(waiting, "done")
        assert second.client.get(f"/v1/jobs/{again}").json()["status"] == "interrupted"


def test_a_store_that_goes_away(tmp_path: Path) -> None:
    """Planning goes on without it; what needs it says so, and it is used again when it is back."""
    database = tmp_path / "jobs.sqlite3"
    with RunningService(tmp_path, "--grace", "1") as running:
        done = running.client.post("/v1/jobs", json={"kind": "optimize", "problem": problem_data()}).json()["id"]
        running.wait_for(done, "done")
        with sqlite3.connect(database, isolation_level=None) as other:
            other.execute("ALTER TABLE jobs RENAME TO gone")
            assert running.client.get("/v1/jobs").status_code == 503
            assert running.client.get(f"/v1/jobs/{done}").headers["retry-after"] == "5"
            assert running.client.post("/v1/optimize", json={"problem": problem_data()}).status_code == 200
            assert running.client.get("/healthz").status_code == 200
            assert "jobs" not in running.client.get("/v1/jobs").json()["message"].replace("the store of jobs", "")
            other.execute("ALTER TABLE gone RENAME TO jobs")
        assert running.client.get(f"/v1/jobs/{done}").json()["status"] == "done"
        after = running.client.post("/v1/jobs", json={"kind": "optimize", "problem": problem_data()}).json()["id"]
        running.wait_for(after, "done")
