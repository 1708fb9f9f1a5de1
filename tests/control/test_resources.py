"""Custom resources: their definitions, reading and writing them, what they are told, and a loop that follows them."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

import inferno_milp as im

pytest.importorskip("kopf")
pytest.importorskip("kubernetes")

import jsonschema
from api_double import put_deployments, running_double
from control_parts import FakeClock, FakeSource, config, problem
from running_service import PATIENCE_S

from inferno_milp.cli import main
from inferno_milp.control.api_server import ApiServer
from inferno_milp.control.controller import Controller
from inferno_milp.control.kubernetes_cluster import KubernetesCluster
from inferno_milp.control.resources.definitions import definition, definitions_text
from inferno_milp.control.resources.kinds import GROUP, KINDS, VERSION
from inferno_milp.control.resources.problems import ResourceProblems
from inferno_milp.control.resources.reading import read_objects
from inferno_milp.control.resources.watch import Watch
from inferno_milp.control.resources.writing import objects_text
from inferno_milp.errors import Fault

PLURALS = {kind.name: kind.plural for kind in KINDS}
INSTANCES = sorted(Path("instances").glob("*.yaml"))


def objects(found, namespace="llm"):
    return list(yaml.safe_load_all(objects_text(found, namespace)))


def test_the_manifest_has_the_definitions():
    text = Path("manifests/crds.yaml").read_text(encoding="utf-8")
    head, rest = text.split("\n", 1)
    assert head.startswith("#")
    assert rest == definitions_text(), "write definitions_text() to manifests/crds.yaml"


def test_the_definitions_are_kubernetes_own():
    import kubernetes_validate

    for document in yaml.safe_load_all(definitions_text()):
        kubernetes_validate.validate(document, "1.30", strict=True)


def walk(schema):
    yield schema
    for part in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            yield from walk(part)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_schemas_are_structural(kind):
    """Every part has a type or may be anything, and none has both properties and additionalProperties."""
    schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    known = {"type", "description", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "format"}
    known |= {"exclusiveMinimum", "exclusiveMaximum", "minProperties", "properties", "required", "items"}
    known |= {"additionalProperties"}
    for part in walk(schema):
        assert "type" in part or part.get("x-kubernetes-preserve-unknown-fields") is True
        assert not {"properties", "additionalProperties"} <= part.keys()
        assert all(key in known or key.startswith("x-kubernetes-") for key in part), part.keys()
        assert set(part.get("required", ())) <= set(part.get("properties", ()))


@pytest.mark.parametrize("path", INSTANCES, ids=lambda path: path.stem)
def test_a_problem_comes_back_from_its_objects(path):
    """Objects pass their schemas, and are the same problem."""
    found = im.read_problem(path)
    written = objects(found)
    for item in written:
        kind = next(kind for kind in KINDS if kind.name == item["kind"])
        schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        jsonschema.Draft4Validator(schema).validate(item)
    reading = read_objects(written)
    assert not reading.faults
    one, two = found.model_dump(), reading.problem.model_dump()
    for data in (one, two):
        for key in ("periods", "scenarios", "planning"):
            del data[key]  # the loop has no use for them
        for key in ("accelerators", "language_models", "servers"):
            data[key] = sorted(data[key], key=lambda item: item["name"])
        data["profiles"] = sorted(data["profiles"], key=lambda item: (item["model"], item["accelerator"]))
        data["service_classes"] = sorted(data["service_classes"], key=lambda item: item["name"])
    assert one == two


def test_names_that_are_no_names_of_objects():
    found = problem(accelerators=[{"name": "Big One/80GB", "cost_per_hour": 1}], capacity={"Big One/80GB": 3},
                    profiles=[{"model": "m", "accelerator": "Big One/80GB", "alpha_ms": 9, "beta_ms": 0.1,
                               "max_batch_size": 8}])  # fmt: skip
    item = objects(found)[0]
    assert item["metadata"]["name"] == "big-one-80gb"
    assert item["spec"]["name"] == "Big One/80GB"
    twice = problem(servers=[{"name": name, "service_class": "gold", "model": "m"} for name in ("a b", "a-b")])
    with pytest.raises(im.OptionError, match="two of Server come to the name 'a-b'"):
        objects_text(twice, "llm")


def changed(items, kind, **spec):
    items = deepcopy(items)
    item = next(item for item in items if item["kind"] == kind)
    item["spec"].update(spec)
    return items


def test_faults_are_said_of_their_objects():
    items = objects(problem())
    items = changed(items, "Accelerator", cost_per_hour=-1)
    items = changed(items, "ServiceClass", priority=0, colour="red")
    items = changed(items, "Capacity", devices={"A100": 1.5})
    model = next(item for item in items if item["kind"] == "Model")
    model["spec"]["profiles"][1]["alpha_ms"] = "fast"
    items.append({**items[0], "spec": None, "metadata": {"name": "none", "namespace": "llm"}})
    reading = read_objects(items)
    assert reading.problem is None
    told = {key: " | ".join(map(str, faults)) for key, faults in reading.faults.items()}
    assert "spec.cost_per_hour" in told["Accelerator llm/a100"]
    assert "spec.priority" in told["ServiceClass llm/gold"]
    assert "spec.colour" in told["ServiceClass llm/gold"]
    assert "spec.devices.A100" in told["Capacity llm/capacity"]
    assert "spec.profiles[1].alpha_ms" in told["Model llm/m"]
    assert "spec: must be a mapping" in told["Accelerator llm/none"]


def test_a_faulty_server_does_not_stop_the_others():
    items = changed(objects(problem()), "Server", model="n")
    reading = read_objects(items)
    assert [s.name for s in reading.problem.servers] == ["tin"]
    assert "model 'n' has no profile" in str(reading.faults["Server llm/gold"])


def test_capacity_may_be_counted_in_the_cluster():
    items = [item for item in objects(problem()) if item["kind"] != "Capacity"]
    assert "capacity is missing" in str(read_objects(items).faults)
    assert read_objects(items, counts_nodes=True).problem.capacity is None


@pytest.fixture
def double():
    with running_double() as found:
        found.kinds = {f"{GROUP}/{VERSION}/{name}": plural for name, plural in PLURALS.items()}
        for item in objects(problem()):
            found.put(PLURALS[item["kind"]], item)
        put_deployments(found)
        yield found


def make(double, rates, **changes):
    settings = config(lease={"enabled": False}, **changes)
    server, clock = ApiServer(settings.kubernetes, double.client(), lambda _: None), FakeClock()
    cluster = KubernetesCluster(settings, server)
    return Controller(settings, ResourceProblems(server), cluster, FakeSource(rates), clock), clock


def status(double, kind, name):
    return double.objects[PLURALS[kind], "llm", name].get("status", {})


def condition(double, kind, name, type_="Valid"):
    return next(c for c in status(double, kind, name)["conditions"] if c["type"] == type_)


def test_a_round_scales_and_tells_the_objects(double):
    controller, clock = make(double, {"gold": 60.0, "tin": 2.0})
    report = controller.run_round()
    assert not report.errors
    told = status(double, "Server", "gold")
    desired = {one["accelerator"]: one["replicas"] for one in told["desired"]}
    assert desired == dict(report.servers["gold"].target)
    assert double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] == desired["A100"] > 2
    assert told["current"] == [{"accelerator": "A100", "replicas": 2, "ready": 2}, {"accelerator": "H100",
                               "replicas": 0, "ready": 0}]  # fmt: skip
    assert told["cost_per_hour"] > 0
    assert condition(double, "Server", "gold", "Served")["status"] == "True"
    assert all(condition(double, kind, name)["status"] == "True" for kind, name in (
        ("Accelerator", "a100"), ("Model", "m"), ("ServiceClass", "gold"), ("Capacity", "capacity")))  # fmt: skip
    optimizer = status(double, "Optimizer", "optimizer")
    assert optimizer["state"] == "active"
    assert optimizer["plan"]["status"] == "optimal"
    since = condition(double, "Server", "gold", "Served")["lastTransitionTime"]
    before = double.objects["accelerators", "llm", "a100"]["metadata"]["resourceVersion"]
    clock.wait(60)
    controller.run_round()
    assert condition(double, "Server", "gold", "Served")["lastTransitionTime"] == since
    version = double.objects["accelerators", "llm", "a100"]["metadata"]["resourceVersion"]
    assert version == before, "what is as it was is not written again"


def test_a_change_of_an_object_is_followed_and_a_faulty_one_is_not(double):
    controller, clock = make(double, {"gold": 60.0, "tin": 2.0})
    assert controller.run_round().servers["gold"].target.get("A100")
    model = deepcopy(double.objects["models", "llm", "m"])
    faulty = deepcopy(model)
    faulty["spec"]["profiles"][0]["alpha_ms"] = -1.0
    double.put("models", faulty)
    clock.wait(60)
    report = controller.run_round()
    assert any("Model llm/m: spec.profiles[0].alpha_ms" in error for error in report.errors)
    assert "the last problem without faults stays" in report.errors
    assert report.plan is not None
    assert condition(double, "Model", "m")["status"] == "False"
    assert "spec.profiles[0].alpha_ms" in condition(double, "Model", "m")["message"]
    server = deepcopy(double.objects["servers", "llm", "gold"])
    server["spec"]["max_replicas"] = 2
    double.put("models", model)
    double.put("servers", server)
    clock.wait(60)
    report = controller.run_round()
    assert not report.errors
    assert condition(double, "Model", "m")["status"] == "True"
    assert sum(report.servers["gold"].target.values()) <= 2


def test_a_faulty_server_is_left_alone_with_what_it_holds(double):
    controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
    server = deepcopy(double.objects["servers", "llm", "gold"])
    server["spec"]["service_class"] = "golden"
    double.put("servers", server)
    report = controller.run_round()
    assert set(report.servers) == {"tin"}
    assert report.capacity["A100"] == (8, 3)
    assert double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] == 2
    assert condition(double, "Server", "gold")["status"] == "False"


def test_the_optimizer_pauses_the_loop(double):
    item = deepcopy(double.objects["optimizers", "llm", "optimizer"])
    item["spec"]["optimize"] = False
    double.put("optimizers", item)
    controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
    report = controller.run_round()
    assert [step.outcome for step in report.steps] == ["told"]
    assert double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] == 2
    assert status(double, "Optimizer", "optimizer")["state"] == "paused"


def test_a_server_without_a_deployment_is_told_what_it_needs(double):
    load = {"rate_per_s": 5.0, "input_tokens": 300, "output_tokens": 100}
    item = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Server", "metadata": {"name": "new", "namespace": "llm"},
            "spec": {"service_class": "tin", "model": "m", "load": load}}  # fmt: skip
    double.put("servers", item)
    controller, _ = make(double, {"gold": 20.0, "tin": 2.0})
    report = controller.run_round()
    told = status(double, "Server", "new")
    assert told["desired"][0]["replicas"] >= 1
    assert told["desired"][0]["batch_size"] >= 1
    assert "it has no deployment" in told["reason"]
    assert told["cost_per_hour"] > 0
    assert not report.is_waiting, "no room is waited for"


def test_a_server_without_a_deployment_takes_nothing_from_the_others(double):
    """Even one of a higher priority, whose load would take all that there is."""
    controller, clock = make(double, {"gold": 20.0, "tin": 60.0})
    for _ in range(3):
        before = controller.run_round()
        clock.wait(60)
    load = {"rate_per_s": 60.0, "input_tokens": 300, "output_tokens": 100}
    double.put("servers", {"kind": "Server", "metadata": {"name": "new", "namespace": "llm"},
                           "spec": {"service_class": "gold", "model": "m", "load": load}})  # fmt: skip
    report = controller.run_round()
    assert report.servers["tin"].target == before.servers["tin"].target
    assert not report.steps
    told = status(double, "Server", "new")
    available, held = report.capacity["A100"]
    assert sum(one["replicas"] for one in told["desired"] if one["accelerator"] == "A100") + held <= available


def test_what_is_deleted_or_faulty_is_scaled_no_more(double):
    controller, clock = make(double, {"gold": 60.0, "tin": 2.0})
    gold = deepcopy(double.objects["servers", "llm", "gold"])
    double.remove("servers", "llm", "tin")
    controller.run_round()
    replicas = double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"]
    controller.source.rates["gold"] = 100.0
    faulty = deepcopy(gold)
    faulty["spec"]["model"] = "nope"
    double.put("servers", faulty)
    clock.wait(60)
    report = controller.run_round()
    assert report.plan is None
    assert not report.steps
    double.remove("servers", "llm", "gold")
    clock.wait(60)
    assert not controller.run_round().steps
    assert double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] == replicas


def test_what_a_faulty_server_holds_is_counted_in_full(double):
    """A replica of several accelerators too, though nobody knows its model any more."""
    model = deepcopy(double.objects["models", "llm", "m"])
    model["spec"]["profiles"][0]["accelerators_per_replica"] = 2
    double.put("models", model)
    server = deepcopy(double.objects["servers", "llm", "gold"])
    server["spec"]["service_class"] = "golden"
    double.put("servers", server)
    controller, _ = make(double, {"gold": 5.0, "tin": 200.0})
    report = controller.run_round()
    assert report.capacity["A100"] == (8, 6)
    replicas = {key[2]: item["spec"]["replicas"] for key, item in double.objects.items() if key[0] == "deployments"}
    assert 2 * (replicas["gold-a100"] + replicas["tin-a100"]) <= 8


def test_a_set_up_that_does_not_fit_changes_nothing(double):
    controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
    controller.problems.check = lambda problem: [Fault("no node selectors are given")]
    report = controller.run_round()
    assert [step.outcome for step in report.steps] == ["told"]
    assert any("no node selectors" in error for error in report.errors)
    assert all(d.desired == d.current for d in report.deployments), "nor do others, by what is published"


def test_odd_objects_are_faulty_and_stop_nothing(double):
    controller, clock = make(double, {"gold": 60.0, "tin": 2.0})
    assert not controller.run_round().errors
    optimizer = double.objects["optimizers", "llm", "optimizer"]
    model = deepcopy(double.objects["models", "llm", "m"]["spec"]["profiles"])
    for kind, item, words in (
        ("Optimizer", {k: v for k, v in optimizer.items() if k not in ("spec", "status")}, "spec: must be a mapping"),
        ("Optimizer", {**optimizer, "spec": {"include": ["x.yaml"]}}, "spec.include: unknown key"),
        ("Optimizer", {**optimizer, "spec": {"optimize": "no"}}, "spec.optimize: must be true or false"),
        ("Capacity", {"metadata": {"name": "capacity", "namespace": "llm"}, "spec": {}}, "must have `devices`"),
        ("Model", {"metadata": {"name": "m", "namespace": "llm"}, "spec": {"name": 5, "profiles": model}}, "spec.name"),
    ):
        before = deepcopy(double.objects[PLURALS[kind], "llm", item["metadata"]["name"]])
        double.put(PLURALS[kind], deepcopy(item))
        clock.wait(60)
        report = controller.run_round()
        assert any(words in error for error in report.errors), (words, report.errors)
        assert report.plan is not None, "the last problem stays"
        assert condition(double, kind, item["metadata"]["name"])["status"] == "False"
        double.put(PLURALS[kind], before)


def test_many_faulty_servers_do_not_stop_the_others(double):
    for i in range(260):
        double.put("servers", {"kind": "Server", "metadata": {"name": f"s{i}", "namespace": "llm"},
                               "spec": {"service_class": "gold", "model": "nope"}})  # fmt: skip
    controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
    report = controller.run_round()
    assert set(report.servers) == {"gold", "tin"}
    assert report.plan is not None
    assert {condition(double, "Server", f"s{i}")["status"] for i in range(260)} == {"False"}


def test_statuses_say_no_more_what_is_no_longer_so(double):
    controller, clock = make(double, {"gold": 600.0, "tin": 2.0})
    controller.run_round()
    assert "gold" in status(double, "Optimizer", "optimizer")["plan"]["unserved"]
    controller.source.rates["gold"] = 20.0
    clock.wait(60)
    controller.run_round()
    assert status(double, "Optimizer", "optimizer")["plan"]["unserved"] == {}


def test_a_status_that_is_refused_keeps_no_other_from_being_written(double):
    double.faults = lambda method, path: 422 if path.endswith("accelerators/a100/status") else None
    controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
    controller.run_round()
    assert condition(double, "Server", "gold")["status"] == "True"
    requests = len(double.requests)
    double.faults = lambda method, path: 403 if path.endswith("/models") else None
    assert "forbidden" in controller.run_round().errors[0]
    assert not any(method == "PATCH" for method, _ in double.requests[requests:])


def test_an_edit_does_not_keep_others_from_scaling_down(double):
    controller, clock = make(double, {"gold": 100.0, "tin": 2.0})
    controller.run_round()
    controller.source.rates["gold"] = 5.0
    for i in range(20):
        clock.wait(60)
        item = deepcopy(double.objects["servers", "llm", "tin"])
        item["spec"]["weight"] = 1.0 + i
        double.put("servers", item)
        report = controller.run_round()
    assert sum(report.servers["gold"].target.values()) == 1


def test_no_objects_and_no_definitions(double):
    for kind, namespace, name in list(double.objects):
        if kind in PLURALS.values():
            double.remove(kind, namespace, name)
    controller, _ = make(double, {"gold": 20.0})
    assert "there are no objects of inferno-milp.dev" in controller.run_round().errors[0]
    double.kinds = {}
    assert "kubectl apply -f manifests/crds.yaml" in controller.run_round().errors[0]
    double.faults = lambda method, path: 403
    assert "forbidden" in controller.run_round().errors[0]


def test_a_status_that_cannot_be_written_stops_nothing(double):
    double.faults = lambda method, path: 500 if path.endswith("/status") else None
    controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
    report = controller.run_round()
    assert [step.outcome for step in report.steps] == ["done"]


def wait_for(what, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("namespaces", [(), ("llm",)])
def test_a_change_wakes_and_a_status_does_not(double, namespaces):
    woken = []
    watch = Watch(double.client().configuration, namespaces, lambda: woken.append(1))
    watch.start()
    try:
        wait_for(lambda: len(woken) >= len([k for k in double.objects if k[0] in PLURALS.values()]))
        seen = len(woken)
        controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
        controller.run_round()
        item = deepcopy(double.objects["servers", "llm", "tin"])
        item["spec"]["weight"] = 2.0
        double.put("servers", item)
        wait_for(lambda: len(woken) > seen)
        time.sleep(0.3)
        assert len(woken) == seen + 1, "statuses were written before it, and woke nobody"
        double.remove("servers", "llm", "tin")
        wait_for(lambda: len(woken) == seen + 2)
    finally:
        watch.stop()


def test_the_watch_outlives_a_server_that_fails(double):
    double.faults = lambda method, path: 500 if method == "WATCH" else None
    woken = []
    watch = Watch(double.client().configuration, (), lambda: woken.append(1))
    watch.start()
    try:
        wait_for(lambda: woken)
        double.faults = lambda method, path: None
        seen = len(woken)
        item = deepcopy(double.objects["servers", "llm", "tin"])
        item["spec"]["weight"] = 3.0
        double.put("servers", item)
        wait_for(lambda: len(woken) > seen, 40)
    finally:
        watch.stop()


@pytest.mark.parametrize("key", ["BearerToken", "authorization"])
@pytest.mark.parametrize("namespaces", [(), ("llm",)])
def test_the_permissions_are_enough(double, key, namespaces):
    """What a loop with custom resources asks for is what manifests/control.yaml permits to its account.

    Wherever the client's version keeps the account's token: `authorization`, and since 36 `BearerToken`.
    """
    woken = []
    watch = Watch(double.client(key).configuration, namespaces, lambda: woken.append(1))
    watch.start()
    try:
        controller, _ = make(double, {"gold": 60.0, "tin": 2.0})
        controller.run_round()
        wait_for(lambda: sum(method == "WATCH" for method, _ in double.requests) == len(KINDS))
        wait_for(lambda: woken)
    finally:
        watch.stop()
    assert ("PUT", "/apis/apps/v1/namespaces/llm/deployments/gold-a100/scale") in double.requests
    assert any(method == "PATCH" and path.endswith("/servers/gold/status") for method, path in double.requests)
    assert not double.refused


def test_export_writes_them(capsys, tmp_path):
    assert main(["export", "instances/fleet.yaml", "--kind", "resources", "--namespace", "llm"]) == 0
    items = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {item["kind"] for item in items} == set(PLURALS)
    assert main(["export", "instances/fleet.yaml", "--kind", "resources", "--plan", "x.json"]) == 2
    assert "--plan does not go" in capsys.readouterr().err
