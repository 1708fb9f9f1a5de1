"""Our own API: it answers as the library does, keeps what it has done, and stays up whatever is sent to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from running_service import PATIENCE_S, RunningService
from small_problems import ROOT, as_system_data, make_problem, problem_data, slow_problem

import inferno_milp as im
from benchmarks import service as service_benchmark
from inferno_milp.service import documents

SMALL = (ROOT / "instances" / "small.yaml").read_text(encoding="utf-8")
LIMITED = (ROOT / "instances" / "limited.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("v1"), "--workers", "2", "--body-limit", "2") as running:
        yield running


@pytest.fixture(scope="module")
def slow() -> dict[str, Any]:
    return slow_problem()


def same_plan(found: dict[str, Any], plan: im.Plan) -> bool:
    """Whether two plans are the same but for the time that they took."""
    ours = json.loads(json.dumps(plan.to_dict()))
    timed = ("stages_s", "solver")
    return {k: v for k, v in found.items() if k not in timed} == {k: v for k, v in ours.items() if k not in timed}


class TestAnswers:
    """What each path answers is what the library finds."""

    def test_optimize(self, service: RunningService) -> None:
        found = service.client.post("/v1/optimize", json={"problem": LIMITED}).json()
        assert (found["status"], found["total_cost_per_hour"]) == ("optimal", pytest.approx(26300.5))
        assert same_plan(found, im.optimize(im.read_problem(ROOT / "instances" / "limited.yaml"), time_limit_s=60))

    def test_a_problem_as_an_object(self, service: RunningService) -> None:
        found = service.client.post("/v1/optimize", json={"problem": problem_data(), "solver": "greedy"}).json()
        assert same_plan(found, im.optimize(make_problem(), solver="greedy"))

    def test_without_the_content_type_of_json(self, service: RunningService) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}  # as `curl -d` has it
        answer = service.client.post("/v1/validate", content=json.dumps({"problem": SMALL}), headers=headers)
        assert answer.status_code == 200
        more = {"problem": SMALL, "time_limit_s": 3, "solver": "greedy"}
        assert service.client.post("/v1/validate", json=more).status_code == 200

    def test_settings_in_both_forms(self, service: RunningService) -> None:
        costs = []
        for settings in (["servers.*.load.rate_per_s*=2"], {"servers.*.load.rate_per_s *=": 2}):
            body = {"problem": problem_data(), "settings": settings}
            costs.append(service.client.post("/v1/optimize", json=body).json()["total_cost_per_hour"])
        plan = im.optimize(im.with_settings(make_problem(), ["servers.*.load.rate_per_s*=2"]))
        assert costs == [plan.total_cost_per_hour] * 2

    def test_what_runs_today(self, service: RunningService) -> None:
        before = service.client.post("/v1/optimize", json={"problem": problem_data()}).json()
        body = {"problem": problem_data(), "current": before}
        assert service.client.post("/v1/optimize", json=body).json()["changes"] == []

    def test_system_data(self, service: RunningService, instances: Path) -> None:
        system = {"system": as_system_data(im.read_problem(instances / "limited.yaml"))}
        for problem in (system, json.dumps(system)):
            found = service.client.post("/v1/optimize", json={"problem": problem}).json()
            assert found["total_cost_per_hour"] == pytest.approx(26300.5)

    def test_files_that_are_included(self, service: RunningService) -> None:
        data = problem_data()
        parts = {"accelerators": data.pop("accelerators"), "profiles": data.pop("profiles")}
        body = {
            "problem": yaml.safe_dump({**data, "include": ["../mine/parts.yaml"]}),
            "files": {"parts.yaml": yaml.safe_dump(parts)},
        }
        assert same_plan(service.client.post("/v1/optimize", json=body).json(), im.optimize(make_problem()))

    def test_analyze_an_engine(self, service: RunningService) -> None:
        engine = {"alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02, "input_tokens": 500.0,
                  "output_tokens": 100.0, "max_batch": 32}  # fmt: skip
        body = {"engine": engine, "targets": {"ttft_ms": {"p95": 500}}, "rates_per_s": [1, 2], "batch_sizes": [1, 32]}
        found = service.client.post("/v1/analyze", json=body).json()
        sizing = im.size(**engine, ttft_ms={"p95": 500.0})
        analysis = im.analyze(**engine, rate_per_s=[1.0, 2.0])
        assert found["max_rate_per_s"] == pytest.approx(float(sizing.max_rate_per_s))
        assert [rate["ttft_ms"] for rate in found["rates"]] == pytest.approx(analysis.ttft_ms.tolist())
        assert found["batch_sizes"][1]["max_rate_per_s"] == pytest.approx(float(sizing.max_rate_per_s))
        assert found["batch_sizes"][0]["max_rate_per_s"] < found["batch_sizes"][1]["max_rate_per_s"]
        assert found["sentence"].startswith("highest rate")

    def test_analyze_a_server_of_a_problem(self, service: RunningService) -> None:
        body = {"problem": problem_data(), "server": "gold-m", "accelerator": "B", "engine": {"max_batch": 8}}
        found = service.client.post("/v1/analyze", json=body).json()
        assert found["law"] == "inferno"
        assert (found["engine"]["max_batch"], found["engine"]["input_tokens"]) == (8, 200)

    def test_many_analyses_at_once(self, service: RunningService) -> None:
        """Done together, each gets its own answer, and a wrong one its own error."""
        engine = {"alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02, "output_tokens": 100.0,
                  "max_batch": 32}  # fmt: skip
        bodies = [{"engine": {**engine, "input_tokens": 10.0 * i}, "rates_per_s": [1]} for i in range(150)]
        bodies[70] = {"engine": engine}
        bodies[90]["engine"]["kv_tokens"] = 5  # type: ignore[index]
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda body: service.client.post("/v1/analyze", json=body), bodies))
        assert [i for i, answer in enumerate(answers) if answer.status_code != 200] == [70, 90]
        assert "input_tokens" in answers[70].text
        assert "kv_tokens cannot hold" in answers[90].text
        for i in (0, 69, 149):
            ours = im.size(**engine, input_tokens=10.0 * i)  # type: ignore[misc]
            assert answers[i].json()["max_rate_per_s"] == pytest.approx(float(ours.max_rate_per_s))

    @pytest.mark.parametrize("figure", ["ttft_ms", "itl_ms", "batch_sizes"])
    def test_plots(self, service: RunningService, figure: str) -> None:
        body = {"problem": problem_data(), "server": "gold-m", "accelerator": "B"}
        answer = service.client.post("/v1/analyze/plot", params={"figure": figure}, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        assert "</svg>" in answer.text

    def test_explain(self, service: RunningService) -> None:
        found = service.client.post("/v1/explain", json={"problem": problem_data()}).json()
        why = im.explain(make_problem())
        assert found["servers"]["gold-m"]["words"] == why.servers[0].words("cents")
        assert found["parts"] == pytest.approx(why.parts)

    def test_whatif(self, service: RunningService) -> None:
        body = {"problem": problem_data(), "changes": ["servers.*.load.rate_per_s*=3"]}
        found = service.client.post("/v1/whatif", json=body).json()
        assert same_plan(found["before"], im.optimize(make_problem()))
        after = im.optimize(im.with_settings(make_problem(), body["changes"]))  # type: ignore[arg-type]
        assert same_plan(found["after"], after)
        assert [change["server"] for change in found["changes"]] == ["gold-m"]

    def test_simulate(self, service: RunningService) -> None:
        body = {"problem": problem_data(), "requests": 2000, "seed": 3}
        found = service.client.post("/v1/simulate", json=body).json()
        problem = make_problem()
        ours = im.simulate_plan(problem, im.optimize(problem), requests=2000, seed=3).to_dict()
        assert found == json.loads(json.dumps(ours))

    def test_prices(self, service: RunningService) -> None:
        found = service.client.post("/v1/prices", json={"problem": problem_data(capacity={"B": 2}), "gap": 0}).json()
        prices = im.find_prices(make_problem(capacity={"B": 2})).to_dict()
        assert found["devices"] == json.loads(json.dumps(prices["devices"]))

    def test_validate(self, service: RunningService) -> None:
        found = service.client.post("/v1/validate", json={"problem": SMALL}).json()
        assert (found["name"], found["servers"]) == (
            "small",
            len(im.read_problem(ROOT / "instances/small.yaml").servers),
        )


class TestDocuments:
    """The OpenAPI document says what is answered."""

    def test_their_fields_are_the_librarys_own(self) -> None:
        plan = im.optimize(make_problem())
        why = im.explain(make_problem())
        prices = im.find_prices(make_problem())
        for model, document in {
            documents.PlanDocument: plan.to_dict(),
            documents.ExplanationDocument: why.to_dict(),
            documents.PricesDocument: prices.to_dict(),
            documents.SimulationDocument: im.simulate_plan(make_problem(), plan, requests=1000).to_dict(),
            documents.ServerDocument: plan.to_dict()["servers"]["gold-m"],
            documents.ServerExplanationDocument: why.to_dict()["servers"]["gold-m"],
        }.items():
            assert model.model_fields.keys() == document.keys(), model
            model.model_validate(document)

    def test_the_docs_page_needs_nothing_from_elsewhere(self, service: RunningService) -> None:
        page = service.client.get("/docs")
        assert page.status_code == 200
        for source in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            assert source.startswith((service.url, "/")), source
            assert service.client.get(source).status_code == 200


class TestFaults:
    def test_all_of_them_with_their_lines(self, service: RunningService) -> None:
        text = LIMITED.replace("H100: 64", "H10: 64").replace("service_class: Free, model: llama_7b", "model: llama_7x")
        answer = service.client.post("/v1/optimize", json={"problem": text})
        assert answer.status_code == 422
        found = {fault["path"]: fault for fault in answer.json()["errors"]}
        assert found["capacity.H10"]["line"] == 9
        assert "H100" in found["capacity.H10"]["remedy"]
        assert found["servers[18].service_class"]["problem"] == "is missing"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]

    def test_of_an_object_without_lines(self, service: RunningService) -> None:
        answer = service.client.post("/v1/optimize", json={"problem": problem_data(capacity={"C": 1, "B": -1})})
        assert answer.status_code == 422
        for fault in answer.json()["errors"]:
            assert (fault["path"], fault["line"], fault["file"]) == ("capacity.B", None, "")

    @pytest.mark.parametrize(
        "include", ["/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "/dev/zero", "x" * 180]
    )
    def test_no_file_of_the_machine_is_read(self, service: RunningService, include: str) -> None:
        answer = service.client.post("/v1/optimize", json={"problem": yaml.safe_dump({"include": [include]})})
        assert answer.status_code == 422
        assert "root:" not in answer.text
        assert str(ROOT) not in answer.text
        assert "no such file was given" in answer.text

    @pytest.mark.parametrize(
        ("path", "body", "word"),
        [
            ("optimize", {"problem": SMALL, "time_limit_s": 1000}, "ask as a job"),
            ("optimize", {"problem": SMALL, "tme_limit_s": 1}, "tme_limit_s"),
            ("optimize", {"problem": SMALL, "settings": ["capacity.H10=1"]}, "H10"),
            ("optimize", {"problem": SMALL, "current": {"status": "fine"}}, "in a plan"),
            ("optimize", {}, "problem"),
            ("analyze", {"engine": {"alpha_ms": 1}}, "beta_ms"),
            ("analyze", {"problem": SMALL}, "server and accelerator"),
            ("analyze", {"server": "x"}, "give one"),
            ("analyze", {"problem": SMALL, "server": "interactive-chat-8", "accelerator": "H100"}, "did you mean"),
            ("explain", {"problem": SMALL, "servers": ["nobody"]}, "nobody"),
            ("simulate", {"problem": SMALL, "plan": {}}, "in a plan"),
            ("whatif", {"problem": SMALL}, "changes"),
            ("prices", {"problem": SMALL, "relaxed": 2}, "relaxed"),
        ],
    )
    def test_what_else_may_be_wrong(self, service: RunningService, path: str, body: dict[str, Any], word: str) -> None:
        answer = service.client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 422, answer.text
        assert word in answer.text


class TestJobs:
    def add(self, service: RunningService, **body: Any) -> str:
        answer = service.client.post("/v1/jobs", json={"kind": "optimize", **body})
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
        return str(answer.json()["id"])

    def test_followed_until_it_is_deleted(self, service: RunningService, slow: dict[str, Any]) -> None:
        job = self.add(service, problem=slow, gap=0, time_limit_s=3600)
        service.wait_for(job, "running")
        with service.client.stream("GET", f"/v1/jobs/{job}/events") as followed:
            lines = followed.iter_lines()
            assert next(lines) == "event: status"
            service.client.post(f"/v1/jobs/{job}/cancel")
            service.client.delete(f"/v1/jobs/{job}")
            assert "event: end" in list(lines)
        assert no_solver_left(service)

    def test_followed_to_its_end(self, service: RunningService) -> None:
        job = self.add(service, problem=LIMITED)
        events = []
        with service.client.stream("GET", f"/v1/jobs/{job}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("event:"):
                    events.append(line.removeprefix("event: "))
                if line.startswith("data:"):
                    last = json.loads(line.removeprefix("data: "))
        assert events[-1] == "end"
        assert (last["status"], last["summary"]["total_cost_per_hour"]) == ("done", pytest.approx(26300.5))
        assert "owner" not in last
        found = service.client.get(f"/v1/jobs/{job}/result").json()
        assert found == {**service.client.post("/v1/optimize", json={"problem": LIMITED}).json(),
                         "solver": found["solver"], "stages_s": found["stages_s"]}  # fmt: skip
        table = service.client.get(f"/v1/jobs/{job}/plan.csv")
        assert table.text.startswith("server,service_class,")
        assert "plan.csv" in table.headers["content-disposition"]
        text = service.client.get(f"/v1/jobs/{job}/problem.yaml").text
        assert im.read_problem_text(text) == im.read_problem(ROOT / "instances" / "limited.yaml")
        assert service.client.get(f"/v1/jobs/{job}/request").json()["problem"] == LIMITED

    def test_progress(self, service: RunningService) -> None:
        """A job that makes many plans says how many it has made."""
        job = self.add(service, kind="prices", problem=LIMITED)
        with service.client.stream("GET", f"/v1/jobs/{job}/events") as stream:
            lines = [line for line in stream.iter_lines() if line.startswith("data:")]
        told = [json.loads(line.removeprefix("data: ")) for line in lines]
        counts = [message["done"] for message in told if message.get("of")]
        assert counts
        assert counts == sorted(counts)
        assert service.wait_for(job, "done")["summary"]["name"] == "limited"

    @pytest.mark.parametrize(
        ("kind", "more"),
        [
            ("analyze", {"server": "gold-m", "accelerator": "B"}),
            ("explain", {}),
            ("whatif", {"changes": {"capacity.B": 9}}),
            ("simulate", {"requests": 1000}),
        ],
    )
    def test_each_kind_answers_as_its_path(self, service: RunningService, kind: str, more: dict[str, Any]) -> None:
        body = {"problem": problem_data(), **more}
        job = self.add(service, kind=kind, **body)
        service.wait_for(job, "done")
        found, own = (
            answer.json() for answer in (
                service.client.get(f"/v1/jobs/{job}/result"), service.client.post(f"/v1/{kind}", json=body)
            )
        )  # fmt: skip
        assert found.keys() == own.keys()
        assert kind == "whatif" or found == own

    def test_one_that_fails(self, service: RunningService) -> None:
        job = self.add(service, problem={"servers": []})
        assert service.wait_for(job, "failed")["summary"]["message"]
        answer = service.client.get(f"/v1/jobs/{job}/result")
        assert answer.status_code == 422
        assert answer.json()["errors"]
        assert service.client.get(f"/v1/jobs/{job}/plan.csv").status_code == 409

    def test_cancelled_while_it_runs(self, service: RunningService, slow: dict[str, Any]) -> None:
        job = self.add(service, problem=slow, gap=0, time_limit_s=3600)
        service.wait_for_work(job)
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 409
        assert service.client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
        assert service.client.get(f"/v1/jobs/{job}/result").status_code == 409
        assert service.client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
        after = self.add(service, problem=SMALL)
        service.wait_for(after, "done")
        assert no_solver_left(service)
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
        assert service.client.get(f"/v1/jobs/{job}").status_code == 404

    def test_cancelled_while_it_waits(self, service: RunningService, slow: dict[str, Any]) -> None:
        first = [self.add(service, problem=slow, gap=0, time_limit_s=3600) for _ in range(2)]
        for job in first:
            service.wait_for(job, "running")
        waiting = self.add(service, problem=SMALL)
        assert service.client.get(f"/v1/jobs/{waiting}").json()["status"] == "queued"
        assert service.client.post(f"/v1/jobs/{waiting}/cancel").json()["status"] == "cancelled"
        for job in first:
            service.client.post(f"/v1/jobs/{job}/cancel")

    def test_listed(self, service: RunningService) -> None:
        job = self.add(service, problem=SMALL)
        service.wait_for(job, "done")
        jobs = service.client.get("/v1/jobs", params={"limit": 500}).json()
        assert jobs[0]["id"] == job
        assert [j["created_at"] for j in jobs] == sorted((j["created_at"] for j in jobs), reverse=True)
        earlier = service.client.get("/v1/jobs", params={"before": jobs[0]["created_at"], "limit": 500}).json()
        assert earlier == jobs[1:]
        done = service.client.get("/v1/jobs", params={"status": "done"}).json()
        assert {j["status"] for j in done} == {"done"}

    @pytest.mark.parametrize("job", ["nothing", "a" * 64])
    def test_one_that_is_not_there(self, service: RunningService, job: str) -> None:
        for path in ("", "/result", "/events", "/request", "/plan.csv", "/problem.yaml"):
            assert service.client.get(f"/v1/jobs/{job}{path}").status_code == 404
        assert service.client.post(f"/v1/jobs/{job}/cancel").status_code == 404


def no_solver_left(service: RunningService, seconds: float = PATIENCE_S) -> bool:
    """Whether nothing that a service started still takes up a processor."""

    def used() -> dict[int, int]:
        found = {}
        for process in service.processes()[1:]:
            try:
                fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            found[process] = int(fields[11]) + int(fields[12])
        return found

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = used()
        time.sleep(0.5)
        after = used()
        if all(after[process] - before.get(process, 0) < 10 for process in after if process in before):
            return True
    return False


class TestRestarts:
    def test_killed_in_the_middle_of_a_job(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        """What was done is there, what ran is marked, what waited is done, and no process is left behind."""
        with RunningService(tmp_path, "--workers", "1") as first:
            done = first.client.post("/v1/jobs", json={"kind": "optimize", "problem": LIMITED}).json()["id"]
            first.wait_for(done, "done")
            plan = first.client.get(f"/v1/jobs/{done}/result").json()
            body = {"kind": "optimize", "problem": slow, "gap": 0, "time_limit_s": 3600}
            running = first.client.post("/v1/jobs", json=body).json()["id"]
            waiting = first.client.post("/v1/jobs", json={"kind": "optimize", "problem": SMALL}).json()["id"]
            first.wait_for_work(running)
            first.wait_until(lambda: seen_lately(tmp_path / "jobs.sqlite3", waiting), "seen")
            processes = first.processes()
            assert len(processes) >= 3
            first.kill()
            assert gone(processes)
        with RunningService(tmp_path, "--workers", "1") as second:
            assert second.client.get(f"/v1/jobs/{done}/result").json() == plan
            assert second.client.get(f"/v1/jobs/{running}").json()["status"] == "interrupted"
            assert second.client.get(f"/v1/jobs/{running}/result").status_code == 409
            assert second.client.get(f"/v1/jobs/{running}/request").json()["problem"] == slow
            second.wait_for(waiting, "done")

    def test_told_to_stop(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        """What can end in time ends; what cannot is done from the start by the next service."""
        with RunningService(tmp_path, "--workers", "1", "--grace", "2") as first:
            short = first.client.post("/v1/jobs", json={"kind": "optimize", "problem": LIMITED}).json()["id"]
            body = {"kind": "optimize", "problem": slow, "gap": 0, "time_limit_s": 3600}
            first.wait_for(short, "done")
            long = first.client.post("/v1/jobs", json=body).json()["id"]
            first.wait_for(long, "running")
            processes = first.processes()
            assert first.stop() == 0
            assert gone(processes)
        with RunningService(tmp_path, "--workers", "1", "--grace", "1") as second:
            assert second.client.get(f"/v1/jobs/{short}").json()["status"] == "done"
            second.wait_for(long, "running")
            second.client.post(f"/v1/jobs/{long}/cancel")

    def test_a_request_ends_before_the_service_does(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        with RunningService(tmp_path, "--workers", "1", "--grace", "3600") as running, ThreadPoolExecutor(1) as pool:
            body = {"problem": slow, "gap": 0, "time_limit_s": 5}
            asked = pool.submit(running.client.post, "/v1/optimize", json=body)
            running.wait_for_running(1)
            assert running.stop() == 0
            assert asked.result().status_code == 200

    def test_stops_at_once_though_jobs_are_followed(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        # Who follows must not hold the service up: it would then last as long as the grace.
        with RunningService(tmp_path, "--workers", "1", "--grace", "3600") as running:
            body = {"kind": "optimize", "problem": slow, "gap": 0, "time_limit_s": 4}
            job = running.client.post("/v1/jobs", json=body).json()["id"]
            running.wait_for(job, "running")
            with running.client.stream("GET", f"/v1/jobs/{job}/events") as followed:
                lines = followed.iter_lines()
                assert next(lines) == "event: status"
                running.process.terminate()
                assert "event: end" not in list(lines)
            assert running.stop() == 0
        with RunningService(tmp_path, "--workers", "1") as second:
            assert second.client.get(f"/v1/jobs/{job}").json()["status"] == "done"

    def test_what_this_version_cannot_do(self, tmp_path: Path) -> None:
        """A job that another version was asked for fails, and holds nothing up."""
        with RunningService(tmp_path, "--workers", "1") as first:
            assert first.stop() == 0
        with sqlite3.connect(tmp_path / "jobs.sqlite3") as database:
            row = ("old", "dance", "queued", 1.0, "else", 1.0, '{"kind": "dance"}', "{}")
            columns = "id, kind, status, created_at, owner, seen_at, request, summary"
            database.execute(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        with RunningService(tmp_path, "--workers", "1") as second:
            assert "this version" in second.wait_for("old", "failed")["summary"]["message"]
            job = second.client.post("/v1/jobs", json={"kind": "optimize", "problem": SMALL}).json()["id"]
            second.wait_for(job, "done")

    def test_two_services_on_one_file(self, tmp_path: Path) -> None:
        with RunningService(tmp_path), pytest.raises(AssertionError, match="another service uses"):
            RunningService(tmp_path)


def seen_lately(path: Path, job: str) -> bool:
    """Whether a service has said of a job, since it was added, that it is alive."""
    with sqlite3.connect(path) as database:
        ((created_at, seen_at),) = database.execute("SELECT created_at, seen_at FROM jobs WHERE id = ?", (job,))
    return bool(seen_at > created_at)


def gone(processes: list[int], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = [process for process in processes if Path(f"/proc/{process}").exists() and not _is_zombie(process)]
        if not alive:
            return True
        time.sleep(0.1)
    return False


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


class TestSafety:
    def test_health_while_all_workers_are_stuck(self, service: RunningService, slow: dict[str, Any]) -> None:
        body = {"problem": slow, "gap": 0, "time_limit_s": 5}
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(service.client.post, "/v1/optimize", json=body) for _ in range(2)]
            service.wait_for_running(2)
            stuck = service.processes()[1:]
            for process in stuck:
                os.kill(process, signal.SIGSTOP)
            try:
                for path in ("/healthz", "/readyz", "/metrics"):
                    assert service.client.get(path).status_code == 200
                assert not any(answer.done() for answer in asked)
            finally:
                for process in stuck:
                    os.kill(process, signal.SIGCONT)
            for answer in asked:
                found = answer.result()
                # A worker that stood still for longer than its time limit and what it may take beyond is ended.
                assert found.status_code in (200, 504)

    def test_a_client_that_goes_away(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        """Nobody works for who is not there any more."""
        with RunningService(tmp_path, "--workers", "1", "--grace", "1", "--time-limit", "3600") as running:
            with pytest.raises(httpx.ReadTimeout):
                running.client.post("/v1/optimize", json={"problem": slow, "gap": 0}, timeout=2)
            running.wait_for_running(0)
            assert no_solver_left(running)

    def test_full(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        """Who finds no room is told when to come again."""
        with RunningService(tmp_path, "--workers", "1", "--most-jobs", "3", "--grace", "1") as running:
            body = {"kind": "optimize", "problem": slow, "gap": 0, "time_limit_s": 3600}
            first = running.client.post("/v1/jobs", json=body).json()["id"]
            running.wait_for(first, "running")
            answers = [running.client.post("/v1/jobs", json={**body, "problem": "x"}) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
            assert int(answers[-1].headers["retry-after"]) >= 1
            running.client.post(f"/v1/jobs/{answers[0].json()['id']}/cancel")
            assert running.client.post("/v1/jobs", json=body).status_code == 202

    def test_workers_that_die(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        """Busy or idle: what they did fails in words, and there are new ones."""
        with RunningService(tmp_path, "--workers", "1", "--grace", "1") as running:
            bodies = {"optimize": {"problem": SMALL}, "validate": {"problem": SMALL}}
            for path, body in bodies.items():
                assert running.client.post(f"/v1/{path}", json=body).status_code == 200
            job = running.client.post("/v1/jobs", json={"kind": "optimize", "problem": SMALL}).json()["id"]
            running.wait_for(job, "done")
            for process in running.processes()[1:]:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            for path, body in bodies.items():
                # One that was given to a worker which is dead, and not known to be, fails.
                running.wait_until(
                    lambda p=path, b=body: running.client.post(f"/v1/{p}", json=b).status_code == 200, path
                )
            job = running.client.post("/v1/jobs", json={"kind": "optimize", "problem": SMALL}).json()["id"]
            running.wait_for(job, "done")
            body = {"kind": "optimize", "problem": slow, "gap": 0, "time_limit_s": 3600}
            job = running.client.post("/v1/jobs", json=body).json()["id"]
            running.wait_for_work(job)
            for process in running.processes()[1:]:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            assert "died" in running.wait_for(job, "failed")["summary"]["message"]
            assert running.client.get(f"/v1/jobs/{job}/result").status_code == 500
            job = running.client.post("/v1/jobs", json={"kind": "optimize", "problem": SMALL}).json()["id"]
            running.wait_for(job, "done")

    def test_no_room_but_for_what_is_done_now(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        with RunningService(
            tmp_path, "--workers", "1", "--most-waiting", "0", "--most-jobs", "3", "--grace", "1"
        ) as running:
            assert running.client.post("/v1/optimize", json={"problem": SMALL}).status_code == 200
            busy = {"kind": "optimize", "problem": slow, "gap": 0, "time_limit_s": 3600}
            running.wait_for(running.client.post("/v1/jobs", json=busy).json()["id"], "running")
            body = {"kind": "prices", "problem": LIMITED}
            with ThreadPoolExecutor(30) as pool:
                answers = list(pool.map(lambda _: running.client.post("/v1/jobs", json=body).status_code, range(30)))
            assert (answers.count(202), answers.count(429)) == (3, 27)

    def test_a_store_that_is_locked(self, tmp_path: Path) -> None:
        """Whoever asks for jobs waits a moment and is told; nothing else is held up."""
        with RunningService(tmp_path, "--workers", "1", "--grace", "1") as running, ThreadPoolExecutor(60) as pool:
            running.client.post("/v1/optimize", json={"problem": SMALL})
            with sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None) as database:
                database.execute("BEGIN IMMEDIATE")
                body = {"kind": "optimize", "problem": SMALL}
                asked = [pool.submit(running.client.post, "/v1/jobs", json=body) for _ in range(30)]
                for path in ("/healthz", "/static/page.css", "/getServers"):
                    assert running.client.get(path).status_code == 200
                assert running.client.post("/v1/optimize", json={"problem": SMALL}).status_code == 200
                assert running.client.post("/optimizeOne", json={"system": {}}).status_code == 200
                assert {answer.result().status_code for answer in asked} == {503}
                database.execute("ROLLBACK")
            assert running.client.post("/v1/jobs", json=body).status_code == 202

    def test_a_client_of_llm_inferno_that_goes_away(self, tmp_path: Path, slow: dict[str, Any]) -> None:
        system = as_system_data(im.read_problem_data(slow))
        body = {"system": {**system, "optimizerData": {"optimizer": {"milpSolver": True}}}}
        with RunningService(tmp_path, "--workers", "1", "--grace", "1", "--time-limit", "3600") as running:
            running.client.post("/v1/optimize", json={"problem": SMALL})
            with pytest.raises(httpx.ReadTimeout):
                running.client.post("/optimizeOne", json=body, timeout=3)
            running.wait_for_running(0)

    def test_large_bodies(self, service: RunningService) -> None:
        answer = service.client.post("/v1/optimize", json={"problem": "x" * 3_000_000})
        assert answer.status_code == 413

        def chunks() -> Iterator[bytes]:
            for _ in range(300):
                yield b"x" * 10_000

        answer = service.client.post("/v1/optimize", content=chunks(), headers={"content-type": "application/json"})
        assert answer.status_code == 413

    def test_hostile_bodies(self, service: RunningService) -> None:
        """A hundred of them: each is refused, and the memory of the service does not grow with them."""
        for path in ("validate", "optimize", "simulate", "jobs"):  # so that all workers have started
            kind = {"kind": "optimize"} if path == "jobs" else {}
            started = service.client.post(f"/v1/{path}", json={**kind, "problem": SMALL})
        service.wait_for(started.json()["id"], "done")
        before = service.memory_mb()
        bodies = list(hostile_bodies())
        assert len(bodies) >= 100
        for path, body in bodies:
            headers = {"content-type": "application/json"}
            answer = service.client.post(path, content=body, headers=headers)
            assert 400 <= answer.status_code < 500, (path, body[:200], answer.text[:300])
            assert "Traceback" not in answer.text
            assert len(answer.content) < 200_000
        assert service.memory_mb() < before + 400
        assert service.client.get("/healthz").status_code == 200

    def test_a_slow_body(self, tmp_path: Path) -> None:
        """A client that never ends its body holds nothing up."""
        with RunningService(tmp_path) as running:
            host, port = running.url.removeprefix("http://").split(":")
            sockets = []
            for _ in range(50):
                sock = socket.create_connection((host, int(port)))
                sock.sendall(b"POST /v1/optimize HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
                sockets.append(sock)
            assert running.client.get("/healthz").status_code == 200
            for sock in sockets:
                sock.close()

    def test_half_a_request(self) -> None:
        """A connection that never ends its first request is closed, one that has asked is not."""
        from inferno_milp.service import connections

        async def main() -> tuple[bytes, bytes]:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    await send({"type": "http.response.start", "status": 204, "headers": []})
                    await send({"type": "http.response.body", "body": b""})

            config = uvicorn.Config(app, port=0, log_config=None, http=connections.TimedProtocol, lifespan="off")
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            half, half_writer = await asyncio.open_connection("127.0.0.1", port)
            half_writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-")
            whole, whole_writer = await asyncio.open_connection("127.0.0.1", port)
            whole_writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            first = await asyncio.wait_for(half.read(), 10)
            whole_writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            second = await asyncio.wait_for(whole.read(), 10)
            for writer in (half_writer, whole_writer):
                writer.close()
                await writer.wait_closed()
            server.should_exit = True
            await running
            return first, second

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections, "FIRST_REQUEST_S", 0.3)
            first, second = asyncio.run(main())
        assert first == b""
        assert second.count(b"HTTP/1.1 204") == 2

    def test_no_trace_and_no_path_gets_out(self, service: RunningService) -> None:
        for path in ("/v1/nothing", "/static/../app.py", "/static/%2e%2e/app.py", "/page/examples/..%2f..%2fpyproject"):
            answer = service.client.get(path)
            assert answer.status_code == 404
            assert str(ROOT) not in answer.text

    def test_headers(self, service: RunningService) -> None:
        headers = service.client.get("/").headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


class TestLoad:
    """All at once, and none lost; how fast is for `python -m benchmarks.service`."""

    @pytest.mark.parametrize(
        ("path", "body", "count"),
        [
            ("/v1/analyze", {"engine": service_benchmark.ENGINE, "targets": {"ttft_ms": 1000}}, 2000),
            ("/v1/optimize", {"problem": LIMITED}, 50),
        ],
    )
    def test_none_is_lost(self, service: RunningService, path: str, body: dict[str, Any], count: int) -> None:
        _, _, statuses = asyncio.run(service_benchmark.at_once(service.url, path, [body] * count))
        assert statuses == {"200": count}


class TestWhoMayAsk:
    def test_the_token(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("secret\n")
        with RunningService(tmp_path, "--token-file", str(tmp_path / "token"), token="secret") as running:
            with httpx.Client(base_url=running.url) as stranger:
                for path in ("/v1/jobs", "/metrics", "/getServers", "/page/plans/x"):
                    answer = stranger.get(path)
                    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                    assert stranger.get(path, headers={"authorization": "Bearer secre"}).status_code == 401
                assert stranger.post("/v1/optimize", json={"problem": SMALL}).status_code == 401
                for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/static/page.js", "/p/abc"):
                    assert stranger.get(path).status_code == 200
            assert running.client.get("/v1/jobs").status_code == 200
            assert "secret" not in running.log_path.read_text()

    def test_pages_of_other_origins(self, service: RunningService) -> None:
        evil = {"origin": "https://evil.example"}
        assert service.client.post("/v1/validate", json={"problem": SMALL}, headers=evil).status_code == 403
        assert "access-control-allow-origin" not in service.client.get("/v1/jobs").headers
        for strange in ("http://[", "null", "", "https://", "x" * 5000):
            answer = service.client.post("/v1/validate", json={"problem": SMALL}, headers={"origin": strange})
            assert answer.status_code == 403, strange
        own = {"origin": service.url}
        assert service.client.post("/v1/validate", json={"problem": SMALL}, headers=own).status_code == 200

    def test_a_page_that_gives_its_own_name_our_address(self, service: RunningService) -> None:
        """DNS rebinding: the page's origin and the host it asks are the same, and neither is ours."""
        headers = {"host": "evil.example", "origin": "http://evil.example"}
        assert service.client.get("/v1/jobs", headers=headers).status_code == 403
        assert service.client.get("/v1/jobs", headers={"host": "localhost:1234"}).status_code == 200

    def test_an_origin_that_is_let_in(self, tmp_path: Path) -> None:
        with RunningService(tmp_path, "--allow-origin", "https://ours.example") as running:
            ours = {"origin": "https://ours.example"}
            answer = running.client.post("/v1/validate", json={"problem": SMALL}, headers=ours)
            assert answer.headers["access-control-allow-origin"] == "https://ours.example"
            asked = {**ours, "access-control-request-method": "POST"}
            assert running.client.options("/v1/validate", headers=asked).status_code == 200
            answer = running.client.get("/v1/jobs", headers={"origin": "https://theirs.example"})
            assert answer.status_code == 403
            assert running.client.get("/v1/jobs", headers={"host": "ours.example"}).status_code == 200

    def test_an_origin_that_is_let_in_with_the_token(self, tmp_path: Path) -> None:
        """A browser asks first, without the token, and its page may read that a token is needed."""
        environment = {"INFERNO_TOKEN": "secret"}
        with RunningService(tmp_path, "--allow-origin", "https://ours.example", environment=environment) as running:
            ours = {"origin": "https://ours.example"}
            asked = {**ours, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            assert running.client.options("/v1/validate", headers=asked).status_code == 200
            answer = running.client.get("/v1/jobs", headers=ours)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, ours["origin"])
            token = {**ours, "authorization": "Bearer secret"}
            assert running.client.get("/v1/jobs", headers=token).status_code == 200


class TestLogs:
    def test_asked_with_head(self, service: RunningService) -> None:
        for path in ("/healthz", "/", "/v1/jobs"):
            answer = service.client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")

    def test_a_line_for_each_request(self, service: RunningService) -> None:
        answer = service.client.post("/v1/validate", json={"problem": SMALL}, headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        line = service.line(request_id="mine-1")
        assert sum(line.get("request_id") == "mine-1" for line in service.lines()) == 1
        assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/validate", 200)
        evil = service.client.get("/v1/jobs", headers={"x-request-id": 'a"b c'})
        assert re.fullmatch(r"[0-9a-f]{16}", evil.headers["x-request-id"])

    def test_metrics(self, service: RunningService) -> None:
        for method in ("ABCDE", "ABCDF"):
            assert service.client.request(method, "/v1/validate").status_code == 405
        headers = {"x-request-id": "counted"}
        assert service.client.post("/v1/validate", json={"problem": SMALL}, headers=headers).status_code == 200
        service.line(request_id="counted")
        text = service.client.get("/metrics").text
        assert "ABCD" not in text
        assert 'inferno_http_requests_total{method="POST",path="/v1/validate",status="200"}' in text
        assert "inferno_jobs_total" in text


def hostile_bodies() -> Iterator[tuple[str, bytes]]:
    """Malformed, deep, endless, huge and mean bodies, for the paths that take any."""
    paths = ("/v1/optimize", "/v1/analyze", "/v1/jobs", "/optimizeOne")
    anchors = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))
    bomb = f"a0: &a0 [x, x, x]\n{anchors}\n"
    merges = "a: &a {x: 1}\n" + "\n".join(f"b{i}: {{<<: [{', '.join(['*a'] * 500)}]}}" for i in range(500))
    texts = [
        bomb, merges, "[" * 20_000, "{" * 20_000, "- " * 20_000, "a: " * 10_000, "!!python/object/apply:os.system [id]",
        "&a [*a]", "? " * 5000, "\x00", "\ufeff", "%YAML 9.9\n---\na", "a: 1\n---\nb: 2", "'" * 9999,
        "servers: " + "9" * 9999,
        "name: " + "x" * 100_000, "capacity: {" + ", ".join(f"t{i}: 1" for i in range(20_000)) + "}",
        "servers: [" + ", ".join(["{}"] * 20_000) + "]", "include: [" + ", ".join(["a.yaml"] * 5000) + "]",
    ]  # fmt: skip
    for text in texts:
        yield "/v1/optimize", json.dumps({"problem": text}).encode()
        yield "/v1/validate", json.dumps({"problem": "include: [bad.yaml]", "files": {"bad.yaml": text}}).encode()
    raw = [
        b"", b"\x00", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 100_000, b"1e999", b"-" * 100,
        b'{"problem": ' + b"9" * 50_000 + b"}", b'{"problem": NaN}', b'{"problem": "\xff"}', b'"' * 1000, b"nul",
        b'{"problem": {"servers": ' + b"[" * 500 + b"]" * 500 + b"}}", b'{"system": ' * 300 + b"1" + b"}" * 300,
    ]  # fmt: skip
    for body in raw:
        for path in paths:
            yield path, body
    yield "/v1/jobs", b'{"kind": "optimize", "problem": {"name": "\\ud800"}}'
    yield "/v1/validate", b'{"problem": {"\\ud800": {"\\udfff": 1}}}'
    yield "/v1/validate", b'{"problem": "a", "settings": {"\\ud800": 1}}'
    yield "/v1/validate", b'{"problem": {"a": [' + b"[]," * 600_000 + b"1]}}"
    yield "/optimizeOne", b'{"system": {"serverData": {"servers": [' + b'{"NAME":"a","name":"b"},' * 50_000 + b"1]}}}"
    figures = {"alpha_ms": 1, "beta_ms": 1, "gamma_ms": 1, "delta_ms": 1, "input_tokens": 1, "output_tokens": 1,
               "max_batch": 1}  # fmt: skip
    for name, value in (("alpha_ms", 1e308), ("max_batch", 10**9), ("input_tokens", -1), ("output_tokens", 0),
                        ("max_batch", 1.5), ("alpha_ms", "1"), ("max_queue", 10**12), ("beta_ms", None)):  # fmt: skip
        yield "/v1/analyze", json.dumps({"engine": {**figures, name: value}}).encode()
    yield "/v1/analyze", json.dumps({"engine": figures, "rates_per_s": [1.0] * 100_000}).encode()
    yield (
        "/v1/optimize",
        json.dumps({"problem": problem_data(), "settings": ["servers.*.load.rate_per_s*=1e308"]}).encode(),
    )
    yield "/v1/optimize", json.dumps({"problem": problem_data(), "settings": {"*" * 5000: 1}}).encode()
    yield "/v1/simulate", json.dumps({"problem": problem_data(), "requests": 10**9}).encode()
