"""llm-inferno's own paths: the same JSON, the same plans, and a session over every one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_service import RunningService
from small_problems import DATA, as_system_data

import inferno_milp as im
from inferno_milp.problem.reading import read_problem_data

ALLOCATION = ["accelerator", "numReplicas", "maxBatch", "cost", "itlAverage", "ttftAverage", "load"]
LOAD = ["arrivalRate", "throughput", "avgInTokens", "avgOutTokens"]
STATELESS = {
    "/optimizeOne", "/getAccelerators", "/getAccelerator/{name}", "/getCapacities", "/getCapacity/{type}", "/getModels",
    "/getModel/{name}", "/getServiceClasses", "/getServiceClass/{name}", "/getServiceClassModelTarget/{name}/{model}",
    "/getServers", "/getServer/{name}", "/getModelAcceleratorPerf/{name}/{acc}",
}  # fmt: skip
STATEFUL = STATELESS | {
    "/setAccelerators", "/addAccelerator", "/removeAccelerator/{name}", "/setCapacities", "/setCapacity",
    "/removeCapacity/{type}", "/setModels", "/addModel/{name}", "/removeModel/{name}", "/setServiceClasses",
    "/addServiceClass/{name}/{priority}", "/removeServiceClass/{name}", "/addServiceClassModelTargets",
    "/removeServiceClassModelTarget/{name}/{model}", "/setServers", "/addServer", "/removeServer/{name}",
    "/addModelAcceleratorPerf", "/removeModelAcceleratorPerf/{name}/{acc}", "/optimize", "/applyAllocation",
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("seed"), "--stateful", "--workers", "1") as running:
        yield running


@pytest.fixture(scope="module")
def sample(instances: Path) -> dict[str, Any]:
    return as_system_data(im.read_problem(instances / "limited.yaml"))


def with_flags(system: dict[str, Any], **flags: Any) -> dict[str, Any]:
    return {"system": {**system, "optimizerData": {"optimizer": flags}}}


def total(answer: httpx.Response) -> float:
    assert answer.status_code == 200, answer.text
    return sum(allocation["cost"] for allocation in answer.json()["allocations"].values())


class TestOptimizeOne:
    def test_greedy_as_the_seed_computes_it(self, service: RunningService, sample: dict[str, Any]) -> None:
        answer = service.client.post("/optimizeOne", json=with_flags(sample, unlimited=False, milpSolver=False))
        assert total(answer) == pytest.approx(19208)
        found = answer.json()["allocations"]
        seed = json.loads((DATA / "seed_greedy.json").read_text())
        assert {name: a["cost"] for name, a in found.items()} == {name: cost for name, (_, _, cost) in seed.items()}
        assert "Free-mixtral_8_7b" not in found
        same = [name for name in found if [found[name]["accelerator"], found[name]["numReplicas"]] == seed[name][:2]]
        assert len(same) == 24  # two more are picked by the order of a Go map, see test_seed_parity

    def test_the_program(self, service: RunningService, sample: dict[str, Any]) -> None:
        answer = service.client.post("/optimizeOne", json=with_flags(sample, milpSolver=True))
        assert total(answer) == pytest.approx(26300.5)
        assert len(answer.json()["allocations"]) == 27

    @pytest.mark.parametrize("solver", [True, False])
    def test_unlimited(self, service: RunningService, sample: dict[str, Any], solver: bool) -> None:
        answer = service.client.post("/optimizeOne", json=with_flags(sample, unlimited=True, milpSolver=solver))
        assert total(answer) == pytest.approx(18205)

    @pytest.mark.parametrize("policy", ["PriorityExhaustive", "PriorityRoundRobin", "RoundRobin"])
    def test_saturation_policies(self, service: RunningService, sample: dict[str, Any], policy: str) -> None:
        answer = service.client.post("/optimizeOne", json=with_flags(sample, saturationPolicy=policy))
        assert total(answer) == pytest.approx(19273)

    def test_the_shape_of_the_answer(self, service: RunningService, sample: dict[str, Any]) -> None:
        answer = service.client.post("/optimizeOne", json=with_flags(sample))
        for allocation in answer.json()["allocations"].values():
            assert list(allocation) == ALLOCATION
            assert list(allocation["load"]) == LOAD
        # A reader in Go takes 2.0 for no whole number.
        assert not re.search(r'"(numReplicas|maxBatch|avgInTokens|avgOutTokens)": \d+\.', answer.text)

    def test_keys_in_any_letter_case(self, service: RunningService, sample: dict[str, Any]) -> None:
        def shouted(value: Any) -> Any:
            if isinstance(value, dict):
                return {key.upper(): shouted(item) for key, item in value.items()}
            return [shouted(item) for item in value] if isinstance(value, list) else value

        answer = service.client.post("/optimizeOne", json=shouted(with_flags(sample, milpSolver=True)))
        assert total(answer) == pytest.approx(26300.5)

    def test_a_mix_that_the_answer_cannot_say(self, service: RunningService, sample: dict[str, Any]) -> None:
        """A plan that can be applied as it is, and a word about it."""
        flags = {"milpSolver": True, "heterogeneous": True}
        answer = service.client.post("/optimizeOne", json=with_flags(sample, **flags))
        assert total(answer) == pytest.approx(26300.5)
        assert "several accelerators" in answer.headers["x-inferno-note"]

    def test_without_the_content_type_of_json(self, service: RunningService, sample: dict[str, Any]) -> None:
        """As `curl -d` sends it, which the seed takes."""
        headers = {"content-type": "application/x-www-form-urlencoded"}
        body = json.dumps(with_flags(sample))
        assert total(service.client.post("/optimizeOne", content=body, headers=headers)) == pytest.approx(19208)

    def test_the_newer_form_of_speeds(self, service: RunningService, sample: dict[str, Any]) -> None:
        models = []
        for model in sample["modelData"]["models"]:
            others = {key: value for key, value in model.items() if not key.endswith("Parms")}
            models.append({**others, "perfParms": {**model["decodeParms"], "gamma": 0.001}})
        system = {**sample, "modelData": {"models": models}}
        answer = service.client.post("/optimizeOne", json=with_flags(system, milpSolver=True, unlimited=True))
        assert len(answer.json()["allocations"]) > 20
        model = service.client.get("/getModelAcceleratorPerf/llama_7b/G2").json()
        assert model["perfParms"]["gamma"] == 0.001

    def test_what_does_not_fit_together_gets_no_allocation(
        self, service: RunningService, sample: dict[str, Any]
    ) -> None:
        """As in the seed: servers of unknown classes and models are left out, and devices of unknown types too."""
        servers = sample["serverData"]["servers"]
        strange = [{**servers[0], "name": "x", "model": "unknown"}, {**servers[0], "name": "y", "class": "unknown"}]
        kept = {**servers[0], "name": "z", "keepAccelerator": True, "currentAlloc": {"accelerator": "gone"}}
        counts = [*sample["capacityData"]["count"], {"type": "TPU", "count": 7}]
        system = {
            **sample,
            "serverData": {"servers": [*servers, *strange, kept]},
            "capacityData": {"count": counts},
        }
        answer = service.client.post("/optimizeOne", json=with_flags(system, milpSolver=True))
        assert total(answer) == pytest.approx(26300.5)
        assert service.client.get("/getCapacity/TPU").json() == {"type": "TPU", "count": 7}

    def test_speeds_that_are_not_known_yet(self, service: RunningService, sample: dict[str, Any]) -> None:
        """The seed's clients write zeros for them; an engine that takes no time would serve everybody."""
        none = {"decodeParms": {"alpha": 0, "beta": 0}, "prefillParms": {"gamma": 0, "delta": 0}}
        models = [{**model, **none} for model in sample["modelData"]["models"]]
        answer = service.client.post("/optimizeOne", json=with_flags({**sample, "modelData": {"models": models}}))
        assert answer.json() == {"allocations": {}}

    def test_no_load_and_nothing_at_all(self, service: RunningService, sample: dict[str, Any]) -> None:
        first = sample["serverData"]["servers"][0]
        idle = {**first, "currentAlloc": {"load": {"arrivalRate": 0}}}
        system = {**sample, "serverData": {"servers": [idle]}}
        answer = service.client.post("/optimizeOne", json=with_flags(system))
        allocation = answer.json()["allocations"][first["name"]]
        assert (allocation["accelerator"], allocation["numReplicas"]) == ("", 0)
        assert service.client.post("/optimizeOne", json={"system": {}}).json() == {"allocations": {}}

    @pytest.mark.parametrize(
        "body",
        [
            "{", "[]", "3", '{"sys": {}}', '{"system": 3}', '{"system": {"serverData": []}}',
            '{"system": {"serverData": {"servers": [{"name": 3}]}}}',
            '{"system": {"capacityData": {"count": [{"type": "A", "count": 1.5}]}}}',
            '{"system": {"capacityData": {"count": [{"type": "A", "count": -1}]}}}',
            '{"system": {"acceleratorData": {"accelerators": [{"name": "A", "type": "A", "cost": "3"}]}}}',
            '{"system": {}, "SYSTEM": {}}',
        ],
    )  # fmt: skip
    def test_a_body_that_is_not_what_is_wanted(self, service: RunningService, body: str) -> None:
        answer = service.client.post("/optimizeOne", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["message"]


def test_a_session_over_every_path(service: RunningService, sample: dict[str, Any]) -> None:
    """Set up the sample piece by piece, plan, apply, take pieces away; every path is asked."""
    asked: set[str] = set()

    def get(path: str, **names: Any) -> Any:
        asked.add(path)
        answer = service.client.get(path.format(**names))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(path: str, body: Any, status: int = 200) -> Any:
        asked.add(path)
        answer = service.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    post("/optimizeOne", {"system": {}})  # which clears what was there
    accelerators = sample["acceleratorData"]["accelerators"]
    echo = post("/setAccelerators", {"accelerators": accelerators[:-1]})
    assert [a["name"] for a in echo["accelerators"]] == [a["name"] for a in accelerators[:-1]]
    assert post("/addAccelerator", accelerators[-1])["cost"] == accelerators[-1]["cost"]
    assert {a["name"] for a in get("/getAccelerators")} == {a["name"] for a in accelerators}
    assert get("/getAccelerator/{name}", name="2xMI300X")["multiplicity"] == 2

    counts = sample["capacityData"]["count"]
    post("/setCapacities", {"count": counts})
    assert post("/setCapacity", {"type": "MI300X", "count": 1}) == {"type": "MI300X", "count": 1}
    assert get("/getCapacity/{type}", type="MI300X")["count"] == 1
    post("/setCapacity", {"type": "MI300X", "count": 144})
    assert get("/getCapacities") == {"count": counts}

    models = sample["modelData"]["models"]
    post("/setModels", {"models": models})
    assert set(get("/getModels")) == {model["name"] for model in models}
    assert len(get("/getModel/{name}", name="llama_7b")["models"]) == sum(m["name"] == "llama_7b" for m in models)
    assert get("/addModel/{name}", name="new") == "new"
    assert get("/getModel/{name}", name="new") == {"models": []}
    profile = {**models[0], "name": "new"}
    assert post("/addModelAcceleratorPerf", profile)["name"] == "new"
    assert get("/getModelAcceleratorPerf/{name}/{acc}", name="new", acc=profile["acc"])["accCount"] == 1
    assert get("/removeModelAcceleratorPerf/{name}/{acc}", name="new", acc=profile["acc"])["acc"] == profile["acc"]
    assert get("/removeModel/{name}", name="new") == "new"

    classes = sample["serviceClassData"]["serviceClasses"]
    post("/setServiceClasses", {"serviceClasses": classes})
    assert get("/addServiceClass/{name}/{priority}", name="Gold", priority=7)["priority"] == 7
    assert get("/addServiceClass/{name}/{priority}", name="Lead", priority=700)["priority"] == 100
    target = {"model": "llama_7b", "slo-itl": 40, "slo-ttft": 900}
    grown = post("/addServiceClassModelTargets", {"name": "Gold", "priority": 7, "modelTargets": [target]})
    assert grown["modelTargets"] == [{**target, "slo-tps": 0}]
    post("/addServiceClassModelTargets", {"name": "Gold", "priority": 8, "modelTargets": [target]}, 400)
    names = {"name": "Gold", "model": "llama_7b"}
    assert get("/getServiceClassModelTarget/{name}/{model}", **names)["slo-ttft"] == 900
    assert get("/removeServiceClassModelTarget/{name}/{model}", **names)["slo-itl"] == 40
    assert get("/getServiceClass/{name}", name="Gold")["modelTargets"] == []
    assert get("/removeServiceClass/{name}", name="Gold")["name"] == "Gold"
    known = {c["name"] for c in classes}
    assert {c["name"] for c in get("/getServiceClasses")["serviceClasses"]} == {*known, "Lead"}

    servers = sample["serverData"]["servers"]
    post("/setServers", {"servers": servers[:-1]})
    assert post("/addServer", servers[-1])["class"] == "Free"
    assert len(get("/getServers")["servers"]) == 27
    extra = {**servers[0], "name": "extra"}
    post("/addServer", extra)
    assert get("/removeServer/{name}", name="extra")["name"] == "extra"

    plan = post("/optimize", {"unlimited": False, "milpSolver": True})["allocations"]
    assert sum(allocation["cost"] for allocation in plan.values()) == pytest.approx(26300.5)
    server = get("/getServer/{name}", name="Free-llama_70b")
    assert server["desiredAlloc"]["accelerator"] == plan["Free-llama_70b"]["accelerator"]
    assert server["currentAlloc"]["accelerator"] == ""
    assert get("/applyAllocation") == "Done"
    now = get("/getServer/{name}", name="Free-llama_70b")["currentAlloc"]
    assert (now["accelerator"], now["load"]) == (plan["Free-llama_70b"]["accelerator"], server["currentAlloc"]["load"])
    assert get("/removeCapacity/{type}", type="AIU2") == {"type": "AIU2", "count": 512}
    assert get("/removeAccelerator/{name}", name="AIU2")["type"] == "AIU2"
    again = post("/optimize", {"unlimited": False, "milpSolver": True})["allocations"]
    assert all(allocation["accelerator"] != "AIU2" for allocation in again.values())
    assert asked == STATEFUL


def test_a_class_that_is_given_again_replaces_what_was_there(service: RunningService) -> None:
    def given(priority: int, *models: str) -> dict[str, Any]:
        targets = [{"model": model, "slo-itl": 40, "slo-ttft": 900, "slo-tps": 0} for model in models]
        return {"name": "Twice", "priority": priority, "modelTargets": targets}

    for class_ in (given(3, "a", "b"), given(5, "c")):
        assert service.client.post("/setServiceClasses", json={"serviceClasses": [class_]}).status_code == 200
        assert service.client.get("/getServiceClass/Twice").json() == class_
    both = {"serviceClasses": [given(3, "a"), given(7, "b")]}
    service.client.post("/setServiceClasses", json=both)
    assert service.client.get("/getServiceClass/Twice").json() == given(7, "b")
    service.client.get("/removeServiceClass/Twice")


@pytest.mark.parametrize("path", sorted(STATEFUL))
def test_a_slash_at_the_end(service: RunningService, path: str) -> None:
    """The seed's router, gin, sends such clients to the path without it."""
    filled = re.sub(r"{\w+}", "a%20b", path)
    answer = service.client.get(f"{filled}/?x=1")
    is_get = answer.status_code != 405
    if not is_get:
        answer = service.client.post(f"{filled}/?x=1", json={})
    assert answer.status_code == (301 if is_get else 307)
    assert answer.headers["location"] == f"{filled}?x=1"


def test_a_slash_leads_to_no_other_host(service: RunningService) -> None:
    place = service.client.get("//evil.example/getServers/").headers.get("location", "/")
    assert not place.startswith("//")


def test_servers_with_a_slash(service: RunningService) -> None:
    answer = service.client.get("/getServers/", follow_redirects=True)
    assert answer.json() == service.client.get("/getServers").json()


GRANITE = {
    "acceleratorData": {"accelerators": [{"name": "G2", "type": "G2", "multiplicity": 1, "cost": 23.0}]},
    "modelData": {"models": [{"name": "granite_13b", "acc": "G2", "accCount": 1, "maxBatchSize": 76, "atTokens": 512,
                              "perfParms": {"alpha": 17.15, "beta": 0.034, "gamma": 0.0010625}}]},
    "serviceClassData": {"serviceClasses": [{"name": "Bronze", "priority": 2, "modelTargets": [
        {"model": "granite_13b", "slo-itl": 80, "slo-ttft": 2000}]}]},
    "serverData": {"servers": [{"name": "Bronze-granite_13b", "class": "Bronze", "model": "granite_13b",
                                "currentAlloc": {"load": {"arrivalRate": 240, "AvgInTokens": 128,
                                                          "AvgOutTokens": 1024}}}]},
    "optimizerData": {"optimizer": {}},
    "capacityData": {"count": [{"type": "G2", "count": 256}]},
}  # fmt: skip
"""One engine of llm-inferno's newest sample (sample-data, large, in the form with `perfParms`)."""


def test_the_newer_form_as_the_newest_seed_reads_it(service: RunningService) -> None:
    """Its highest rate is 0.734/s there; taken for geometric lengths, 0.4997."""
    found = service.client.post("/optimizeOne", json={"system": GRANITE}).json()["allocations"]["Bronze-granite_13b"]
    assert found["numReplicas"] == 6  # 240 per minute, 4/s
    problem = read_problem_data({"system": GRANITE})
    assert problem.servers[0].load is not None
    assert problem.servers[0].load.cv2_output == 0
    (server,) = im.optimize(problem).servers
    assert server.allocations[0].max_rate_per_s == pytest.approx(0.734177, rel=1e-5)


def test_changed_while_it_is_planned_for(service: RunningService, sample: dict[str, Any]) -> None:
    for path, part in (("setAccelerators", "acceleratorData"), ("setModels", "modelData"), ("setServers", "serverData"),
                       ("setServiceClasses", "serviceClassData"), ("setCapacities", "capacityData")):  # fmt: skip
        service.client.post(f"/{path}", json=sample[part])
    first = sample["serverData"]["servers"][0]
    many = [{**first, "name": f"x{i}", "model": "none"} for i in range(3000)]
    service.client.post("/setServers", json={"servers": many})

    def change(i: int) -> int:
        service.client.post("/addServer", json={**first, "name": f"y{i}"})
        service.client.get(f"/addModel/z{i}")
        return service.client.get(f"/removeServer/y{i}").status_code

    with ThreadPoolExecutor(4) as pool:
        changes = [pool.submit(change, i) for i in range(150)]
        plans = [service.client.post("/optimize", json={"unlimited": True}).status_code for _ in range(8)]
    assert {found.result() for found in changes} == {200}
    assert set(plans) == {200}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/getAccelerator/x", "accelerator x not found"),
        ("/removeAccelerator/x", "accelerator x not found"),
        ("/getCapacity/x", "capacity for x not found"),
        ("/removeCapacity/x", "accelerator type x not found"),
        ("/getModel/x", "model x not found"),
        ("/removeModel/x", "model x not found"),
        ("/getServiceClass/x", "service class x not found"),
        ("/removeServiceClass/x", "service class x not found"),
        ("/getServiceClassModelTarget/x/y", "service class x not found"),
        ("/removeServiceClassModelTarget/x/y", "service class x not found"),
        ("/getServer/x", "server x not found"),
        ("/removeServer/x", "server x not found"),
        ("/getModelAcceleratorPerf/x/y", "model x not found"),
        ("/removeModelAcceleratorPerf/x/y", "model x not found"),
    ],
)
def test_unknown_names(service: RunningService, path: str, message: str) -> None:
    answer = service.client.get(path)
    assert (answer.status_code, answer.json()["message"]) == (404, message)


def test_a_priority_that_is_none(service: RunningService) -> None:
    answer = service.client.get("/addServiceClass/x/first")
    assert (answer.status_code, answer.json()["message"]) == (400, "service class priority first invalid")


def test_the_stateless_mode_and_the_environment(tmp_path: Path) -> None:
    """Without --stateful, only what the seed's stateless server has; host and port from the seed's variables."""
    environment = {"INFERNO_HOST": "127.0.0.1", "INFERNO_PORT": "0"}
    with RunningService(tmp_path, environment=environment) as running:
        own = {path for path in running.client.get("/openapi.json").json()["paths"] if not path.startswith("/v1")}
        assert own - {"/healthz", "/readyz", "/metrics"} == STATELESS
        assert running.client.post("/optimize", json={}).status_code == 404
        assert running.client.get("/getServers").json() == {"servers": []}
