"""Plans as Kubernetes manifests: valid by Kubernetes' own schemas, and what the control loop finds again."""

import shutil
import subprocess
import sys
import time
from contextlib import closing

import kubernetes_validate
import numpy as np
import pytest
import yaml
from api_double import running_double
from autoscalers import hpa_replicas, keda_replicas
from control_parts import config, problem
from exposed_engines import Page

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.control.api_server import ApiServer
from inferno_milp.control.config import PrometheusSettings
from inferno_milp.control.emulation.exporter import CLOCK
from inferno_milp.control.emulation.prometheus_process import PrometheusProcess
from inferno_milp.control.kubernetes_cluster import KubernetesCluster
from inferno_milp.control.prometheus import PrometheusClient
from inferno_milp.control.published import PREFIXES
from inferno_milp.report.manifests import DRAIN, LEADER, METRIC, desired_query


@pytest.fixture(scope="module")
def fleet():
    return im.read_problem("instances/fleet.yaml")


@pytest.fixture(scope="module")
def plan(fleet):
    return im.optimize(fleet)


def test_deployments_are_found_again_by_the_loop(fleet, plan):
    documents = list(yaml.safe_load_all(im.export_manifests(fleet, plan, namespace="llm")))
    for document in documents:
        kubernetes_validate.validate(document, "1.30", strict=True)
    with running_double() as double:
        for document in documents:
            double.put("deployments", document)
        found = KubernetesCluster(config(), ApiServer(config().kubernetes, double.client())).read(fleet)
    assert not found.problems
    planned = {(s.name, a.accelerator): (a.replicas, a.batch_size) for s in plan.servers for a in s.allocations}
    assert {(d.server, d.accelerator): (d.replicas, d.batch_size) for d in found.deployments} == planned


def test_devices_of_a_replica_are_asked_for_and_names_may_have_slashes():
    cloud = im.read_problem("instances/real-cloud.yaml")
    made = im.optimize(cloud, advised=False)
    documents = list(yaml.safe_load_all(im.export_manifests(cloud, made, resource="amd.com/gpu", force=True)))
    allocations = [a for s in made.servers for a in s.allocations]
    for document, allocation in zip(documents, allocations, strict=True):
        kubernetes_validate.validate(document, "1.30", strict=True)
        container = document["spec"]["template"]["spec"]["containers"][0]
        each = allocation.devices // allocation.replicas
        assert container["resources"]["limits"] == {"amd.com/gpu": str(each)}
        assert ("--tensor-parallel-size" in container["args"]) == (each > 1)
        assert container["args"][container["args"].index("--max-num-seqs") + 1] == str(allocation.batch_size)
    with running_double() as double:
        for document in documents:
            double.put("deployments", document)
        found = KubernetesCluster(config(), ApiServer(config().kubernetes, double.client())).read(cloud)
    assert not found.problems
    assert len(found.deployments) == len(allocations)


SCALERS = {"hpa": hpa_replicas, "keda": keda_replicas}


def scalers(fleet, plan, kind):
    return list(yaml.safe_load_all(im.export_manifests(fleet, plan, kind=kind, namespace="llm")))


def test_hpas_are_kubernetes_own_and_select_what_the_loop_publishes(fleet, plan):
    for document in scalers(fleet, plan, "hpa"):
        kubernetes_validate.validate(document, "1.35", strict=True)
        metric = document["spec"]["metrics"][0]["external"]["metric"]
        assert metric["name"] == f"{PREFIXES[0]}_desired_replicas"
        assert metric["selector"]["matchLabels"] == {"variant_name": document["metadata"]["name"], "namespace": "llm"}


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("current", [1, 2, 7, 10, 40, 100])
def test_every_change_is_followed_and_no_answer_changes_nothing(fleet, plan, kind, current):
    """Not only large ones: an HPA of its own tolerance ignores 11 of 10."""
    for document in scalers(fleet, plan, kind):
        spec, replicas = document["spec"], SCALERS[kind]
        most = spec["maxReplicas" if kind == "hpa" else "maxReplicaCount"]
        least = spec["minReplicas" if kind == "hpa" else "minReplicaCount"]
        for desired in {current - 1, current, current + 1, 2 * current, 1}:
            assert replicas(spec, float(desired), min(current, most)) == min(max(desired, least), most)
        assert replicas(spec, None, min(current, most)) == min(max(current, least), most)


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize(("given", "least"), [({}, 1), ({"min_replicas": 3}, 3), ({"min_replicas": 0}, 0)])
def test_the_minimum_is_that_of_the_server(kind, given, least):
    """One that the problem does not give is 1, as in the loop; HPA cannot ask for fewer."""
    load = {"rate_per_s": 5.0, "input_tokens": 300, "output_tokens": 100}
    found = problem(servers=[{"name": "gold", "service_class": "gold", "model": "m", "load": load, **given}])
    (document,) = scalers(found, im.optimize(found), kind)
    key = "minReplicas" if kind == "hpa" else "minReplicaCount"
    assert document["spec"][key] == (max(least, 1) if kind == "hpa" else least)


def test_the_minimum_of_a_server_is_not_that_of_each_of_its_deployments():
    found = problem(options={"assignment": "mixed"}, capacity={"A100": 5, "H100": 4}, servers=[{
        "name": "gold", "service_class": "gold", "model": "m", "min_replicas": 3,
        "load": {"rate_per_s": 80.0, "input_tokens": 300, "output_tokens": 100}}])  # fmt: skip
    made = im.optimize(found)
    assert len(made.servers[0].allocations) == 2, "the test needs a server on two accelerators"
    assert {d["spec"]["minReplicaCount"] for d in scalers(found, made, "keda")} == {0}
    assert {d["spec"]["minReplicas"] for d in scalers(found, made, "hpa")} == {1}


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")
def test_keda_asks_for_what_the_leader_published():
    """Of two copies; where none leads, for the most that one of them publishes; and for nothing of other namespaces."""
    labels = 'accelerator_type="H100",variant_name="chat"'
    lines = [
        f'{METRIC}{{instance="a",namespace="llm",{labels}}} 3',
        f'{METRIC}{{instance="b",exported_namespace="llm",namespace="inferno-milp",{labels}}} 5',
        f'{METRIC}{{instance="a",namespace="other",{labels}}} 9',
    ]
    query, now = desired_query("chat", "llm"), time.time() - 60
    for leading, expected in (("a", [3.0]), ("b", [5.0]), ("", [5.0]), (None, [])):
        shown = lines if leading is not None else []
        leads = [f'{LEADER}{{instance="{name}"}} {int(name == leading)}' for name in "ab"]
        with Page() as page, PrometheusProcess(page.address) as prometheus:
            page.show_lines([*shown, *leads], now)
            prometheus.wait_for(CLOCK, now)
            with closing(PrometheusClient(PrometheusSettings(url=prometheus.url))) as client:
                assert [series.value for series in client.query(query, now)] == expected


def test_what_cannot_be_is_said(fleet, plan):
    with pytest.raises(im.OptionError, match="unknown kind 'helm'"):
        im.export_manifests(fleet, plan, kind="helm")
    other = im.read_problem("instances/small.yaml")
    with pytest.raises(im.OptionError, match="does not know"):
        im.export_manifests(other, plan)


def test_from_the_command_line(tmp_path, capsys):
    plan, target = tmp_path / "plan.json", tmp_path / "out.yaml"
    assert main(["optimize", "instances/fleet.yaml", "--quiet", "--json", str(plan)]) == 0
    assert main(["export", "instances/fleet.yaml", "--plan", str(plan), "-o", str(target), "--kind", "hpa"]) == 0
    assert target.read_text().count("kind: HorizontalPodAutoscaler") == 4
    capsys.readouterr()
    assert main(["export", "instances/fleet.yaml"]) == 0
    assert capsys.readouterr().out.count("kind: Deployment") == 4


def test_a_pod_has_the_time_that_its_requests_take():
    """Requests of 3000 tokens at some 30 ms each take 89 s on average, and many take longer."""
    profile = {"model": "m", "accelerator": "H100", "alpha_ms": 20, "beta_ms": 0.2, "gamma_ms": 22, "delta_ms": 0.06,
               "kv_tokens": 300_000}  # fmt: skip
    for tokens in (3000, 100):
        load = {"rate_per_s": 1.0, "input_tokens": 600, "output_tokens": tokens, "cv2_output": 1}
        found = problem(profiles=[profile], servers=[
            {"name": "tin", "service_class": "tin", "model": "m", "load": load}], capacity={"H100": 8})  # fmt: skip
        made = im.optimize(found)
        (document,) = yaml.safe_load_all(im.export_manifests(found, made))
        spec = document["spec"]["template"]["spec"]
        command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        drain_s = int(command[-1])
        (allocation,) = made.servers[0].allocations
        rng = np.random.default_rng(0)
        outputs = np.quantile(rng.geometric(1 / tokens, 100_000), 0.99)
        assert drain_s >= max((allocation.ttft_p95_ms + outputs * allocation.itl_ms) / 1000, 30)
        assert drain_s <= max(1.2 * (allocation.ttft_p95_ms + outputs * allocation.itl_ms) / 1000, 30)
        assert spec["terminationGracePeriodSeconds"] >= 15 + drain_s, "the drain is part of it"
        kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize(("running", "ends"), [(0, True), (2, False), (None, True)])
def test_a_pod_drains_until_its_engine_is_idle(running, ends):
    """It waits for requests that run, and not for an engine that is gone."""
    with Page() as page:
        labels = '{model_name="m"}'
        gauges = [f"vllm:num_requests_running{labels} {running}", f"vllm:num_requests_waiting{labels} 0"]
        page.show_lines(gauges if running is not None else [], 0.0)
        port = page.address.rpartition(":")[2] if running is not None else "9"
        command = [sys.executable, "-c", DRAIN, port, "3600", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                process.wait(60 if ends else 3)
            except subprocess.TimeoutExpired:
                assert not ends
                page.show_lines([gauges[0].replace(" 2", " 0"), gauges[1]], 0.0)
                process.wait(60)
            else:
                assert ends
            assert process.returncode == 0, process.stderr.read()


def test_engines_load_the_model_that_was_asked_for(instances):
    """A model called by an alias is planned with the profile of another name, and deployed by its own."""
    problem = im.read_problem(instances / "three-models.yaml")
    assert next(s.model for s in problem.servers if s.name == "chat-70b") == "meta-llama/Llama-3.1-70B-Instruct"
    written = im.read_problem_text(im.problem_text(problem))
    for one in (problem, im.with_settings(problem, {"capacity.H100": 12}), written):
        text = im.export_manifests(one, im.optimize(one), force=True)
        models = [
            arguments[arguments.index("--model") + 1]
            for document in yaml.safe_load_all(text)
            for arguments in [document["spec"]["template"]["spec"]["containers"][0]["args"]]
        ]
        assert "meta-llama/Llama-3.3-70B-Instruct" in models
        assert "meta-llama/Llama-3.1-70B-Instruct" not in models
