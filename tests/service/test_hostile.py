"""The service among clients and neighbours that mean no good: halves of characters, floods, signals, curious users."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from running_service import PATIENCE_S, RunningService
from small_problems import ROOT, as_system_data, make_problem, slow_problem

from inferno_milp.service import bodies
from inferno_milp.service.bodies import EXAMPLE, Body
from inferno_milp.service.connections import limited_protocol

HALF = "\ud800"
SMALL = (ROOT / "instances" / "small.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("hostile"), "--workers", "1", "--stateful") as running:
        yield running


def with_half(value: Any) -> Iterator[Any]:
    """Yield a JSON value with half of a character in each of its places in turn."""
    if isinstance(value, dict):
        yield {**value, HALF: 1}
        for key, item in value.items():
            yield {(name + HALF if name == key else name): inner for name, inner in value.items()}
            yield from ({**value, key: other} for other in with_half(item))
    elif isinstance(value, list):
        yield [*value, HALF]
        for i, item in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in with_half(item))
    else:
        yield HALF


PROBLEM = {"problem": EXAMPLE, "settings": ["capacity.H100=5"], "files": {"a.yaml": "x: 1"}}
ENGINE = {"server": "gold-chat-8b", "accelerator": "L4"}
ASKED = {
    "/v1/validate": PROBLEM,
    "/v1/optimize": {**PROBLEM, "current": {"problem": "x"}},
    "/v1/analyze": {**PROBLEM, **ENGINE},
    "/v1/explain": {**PROBLEM, "servers": ["gold-chat-8b"]},
    "/v1/jobs": {**PROBLEM, "kind": "optimize"},
    "/page/curves": {**PROBLEM, **ENGINE},
    "/optimizeOne": {"system": as_system_data(make_problem())},
    "/addServer": {"name": "a", "class": "b", "model": "c"},
    "/setModels": {"models": [{"name": "a", "acc": "b", "maxBatchSize": 1}]},
}


class TestHalfCharacters:
    @pytest.mark.parametrize("path", ASKED)
    def test_nothing_breaks_on_one(self, service: RunningService, path: str) -> None:
        for body in with_half(ASKED[path]):
            answer = service.client.post(path, content=json.dumps(body).encode())
            ignored = path == "/v1/validate" or path[1] not in "vp"  # keys that are not known are left alone there
            assert answer.status_code in ((200, 400, 422) if ignored else (400, 422)), (body, answer.text)

    @pytest.mark.parametrize("as_text", [True, False])
    def test_in_a_problem(self, service: RunningService, as_text: bool) -> None:
        for problem in with_half(yaml.safe_load(EXAMPLE)):
            body = {"problem": json.dumps(problem) if as_text else problem}
            answer = service.client.post("/v1/validate", content=json.dumps(body).encode())
            assert answer.status_code == 422


def collections(annotation: Any, bounded: bool = False) -> Iterator[tuple[Any, bool]]:
    """Yield the lists and mappings of a type, and whether their length is bounded."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner, *notes = arguments
        bounds = [
            getattr(part, "max_length", None) for note in notes for part in (note, *getattr(note, "metadata", ()))
        ]
        yield from collections(inner, any(bound is not None for bound in bounds))
        return
    if origin in (list, dict, tuple, set) and annotation != bodies.Document.__origin__:
        yield annotation, bounded
    for argument in arguments:
        yield from collections(argument)


def bodies_of(kind: type[Body]) -> Iterator[type[Body]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from bodies_of(inner)


class TestBounds:
    def test_every_collection_of_a_request_is_bounded(self) -> None:
        found = [
            (body.__name__, name)
            for body in bodies_of(Body)
            for name, annotation in typing.get_type_hints(body, include_extras=True).items()
            if name != "model_config"
            for _, bounded in collections(annotation)
            if not bounded
        ]
        assert not found

    @pytest.mark.parametrize("settings", [["capacity.H100=5"] * 100_000, {f"a{i}": {} for i in range(100_000)}])
    def test_a_hundred_thousand_settings(self, service: RunningService, settings: Any) -> None:
        answer = service.client.post("/v1/validate", json={"problem": EXAMPLE, "settings": settings})
        assert answer.status_code == 422
        assert "at most 1000 items" in answer.text

    def test_connections_of_one_address(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def main() -> tuple[list[bytes], bytes]:
            config = uvicorn.Config(app, port=0, log_config=None, http=limited_protocol(2), lifespan="off")
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]

            async def ask() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                return reader, writer

            held = [await ask() for _ in range(2)]
            answers = [await reader.readline() for reader, _ in held]
            reader, last = await ask()
            answers.append(await reader.readline())
            assert b"too many connections from this address" in await reader.read()
            for _, writer in [*held, (reader, last)]:
                writer.close()
            again = b""
            while b"204" not in again:  # once the server has seen that they are gone
                reader, last = await ask()
                again = await reader.readline()
                last.close()
            server.should_exit = True
            await running
            return answers, again

        answers, again = asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
        assert [answer.split()[1] for answer in answers] == [b"204", b"204", b"429"]
        assert again.split()[1] == b"204"


class TestSignals:
    def test_what_stops_the_whole_group(self, tmp_path: Path) -> None:
        """A supervisor tells all processes of a service to stop: work is handed back to the next one all the same."""
        with RunningService(tmp_path, "--workers", "1", "--grace", "1") as first:
            body = {"kind": "optimize", "problem": slow_problem(), "gap": 0, "time_limit_s": 3600}
            job = first.client.post("/v1/jobs", json=body).json()["id"]
            first.wait_for_work(job)
            os.killpg(first.process.pid, signal.SIGTERM)
            assert first.process.wait(PATIENCE_S) == 0
        with sqlite3.connect(tmp_path / "jobs.sqlite3") as database:
            assert database.execute("SELECT status, result FROM jobs").fetchall() == [("queued", None)]


class TestTheStore:
    def test_nobody_else_may_read_the_jobs(self, tmp_path: Path) -> None:
        (tmp_path / "jobs.sqlite3").touch(0o644)  # as an earlier version left it
        with RunningService(tmp_path, "--workers", "1") as running:
            running.client.post("/v1/jobs", json={"kind": "optimize", "problem": SMALL})
            files = [path for path in tmp_path.iterdir() if path.name.startswith("jobs.sqlite3")]
            assert len(files) >= 3
            assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    def test_not_ready_while_it_cannot_be_written(self, service: RunningService) -> None:
        assert service.client.get("/readyz").status_code == 200
        folder = service.log_path.parent
        with sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None) as database:
            database.execute("BEGIN IMMEDIATE")
            answer = httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S)
            assert answer.status_code == 503
            assert service.client.get("/healthz").status_code == 200
            database.execute("ROLLBACK")
        assert service.client.get("/readyz").status_code == 200
