"""Plans as Kubernetes manifests: valid by Kubernetes' own schemas, and what the control loop finds again."""

import kubernetes_validate
import pytest
import yaml
from api_double import running_double
from control_parts import config

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.control.api_server import ApiServer
from inferno_milp.control.kubernetes_cluster import KubernetesCluster
from inferno_milp.control.published import PREFIXES


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
    problem = im.read_problem("instances/real-cloud.yaml")
    made = im.optimize(problem, advised=False)
    documents = list(yaml.safe_load_all(im.export_manifests(problem, made, resource="amd.com/gpu")))
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
        found = KubernetesCluster(config(), ApiServer(config().kubernetes, double.client())).read(problem)
    assert not found.problems
    assert len(found.deployments) == len(allocations)


def test_hpa_and_keda_follow_what_the_loop_publishes(fleet, plan):
    for document in yaml.safe_load_all(im.export_manifests(fleet, plan, kind="hpa", namespace="llm")):
        kubernetes_validate.validate(document, "1.30", strict=True)
        external = document["spec"]["metrics"][0]["external"]
        assert external["metric"]["name"] == f"{PREFIXES[0]}_desired_replicas"
        assert external["metric"]["selector"]["matchLabels"] == {"variant_name": document["metadata"]["name"]}
        assert document["spec"]["minReplicas"] >= 1
    for document in yaml.safe_load_all(im.export_manifests(fleet, plan, kind="keda", namespace="llm")):
        trigger = document["spec"]["triggers"][0]
        assert f'variant_name="{document["metadata"]["name"]}"' in trigger["metadata"]["query"]
        assert trigger["metadata"]["threshold"] == "1"
        assert document["spec"]["scaleTargetRef"] == {"name": document["metadata"]["name"]}


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
