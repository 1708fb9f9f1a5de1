"""Kubernetes through the official client, against a double that keeps objects, versions and conflicts."""

import json
from dataclasses import replace

import pytest
from api_double import deployment, node, pod, put_deployments, rule_for_moves, running_double
from control_parts import PROBLEM, FakeClock, FakeSource, config, problem

from inferno_milp.control.api_server import ApiServer
from inferno_milp.control.controller import Controller
from inferno_milp.control.fleet import ClusterError
from inferno_milp.control.kubernetes_cluster import KubernetesCluster
from inferno_milp.control.lease import Lease
from inferno_milp.control.problems import FixedProblem


@pytest.fixture
def double():
    with running_double() as found:
        put_deployments(found)
        yield found


def make(double, **changes):
    waits = []
    settings = config(**{"kubernetes": {"timeout_s": 1.0}, **changes})
    cluster = KubernetesCluster(settings, ApiServer(settings.kubernetes, double.client(), waits.append))
    return cluster, waits


def of(cluster, name):
    return next(d for d in cluster.read(problem()).deployments if d.name == name)


def test_reads_deployments_and_their_pods(double):
    double.put("pods", pod("gold-a100-old", "gold-a100", is_leaving=True))
    double.put("pods", pod("gold-a100-new", "gold-a100", is_ready=False))
    double.put("deployments", deployment("other", "gold", "A100", 1, **{"inferno.server.managed": "false"}))
    cluster, _ = make(double)
    gold = of(cluster, "gold-a100")
    assert (gold.server, gold.accelerator, gold.replicas, gold.batch_size) == ("gold", "A100", 2, 64)
    assert (gold.ready, len(gold.pods), gold.holding) == (2, 4, 4)
    assert {d.name for d in cluster.read(problem()).deployments} == {"gold-a100", "gold-h100", "tin-a100"}
    assert not cluster.read(problem()).problems


def test_labels_that_name_nothing_are_told_and_left_alone(double):
    double.put("deployments", deployment("a", "golf", "A100", 1))
    double.put("deployments", deployment("b", "gold", "A10", 1))
    double.put("deployments", deployment("c", "gold", "A100", 1, **{"inferno.server.class": "tin"}))
    cluster, _ = make(double)
    told = "\n".join(cluster.read(problem()).problems)
    assert "llm/a: label inferno.server.name: unknown server 'golf'; did you mean 'gold'?" in told
    assert "unknown accelerator 'A10'; did you mean 'A100'?" in told
    assert "inferno.server.class is 'tin', and server 'gold' has 'gold'" in told
    assert {d.name for d in cluster.read(problem()).deployments} == {"gold-a100", "gold-h100", "tin-a100"}


def test_deployments_may_be_listed_instead(double):
    item = deployment("plain", "gold", "A100", 3)
    item["metadata"]["labels"] = {}
    double.put("deployments", item)
    listed = {"llm/plain": {"server": "tin", "accelerator": "H100", "batch_size": 8}, "llm/none": {
        "server": "tin", "accelerator": "A100"}}  # fmt: skip
    cluster, _ = make(double, kubernetes={"deployments": listed})
    found = of(cluster, "plain")
    assert (found.server, found.accelerator, found.batch_size) == ("tin", "H100", 8)
    assert cluster.read(problem()).problems == ("llm/none: there is no such deployment",)


def test_scales_by_the_scale_subresource(double):
    cluster, _ = make(double)
    cluster.scale(of(cluster, "gold-a100"), 5)
    assert of(cluster, "gold-a100").replicas == 5
    assert ("PUT", "/apis/apps/v1/namespaces/llm/deployments/gold-a100/scale") in double.requests
    assert not any(method == "PATCH" for method, _ in double.requests)


def test_a_status_that_changes_meanwhile_is_no_conflict(double):
    cluster, _ = make(double)
    gold = of(cluster, "gold-a100")
    touched = []

    def touch(method, path):
        if method == "PUT" and path.endswith("/scale") and len(touched) < 2:
            touched.append(path)
            double.put("deployments", double.objects["deployments", "llm", "gold-a100"])

    double.faults = touch
    cluster.scale(gold, 4)
    assert len(touched) == 2
    assert of(cluster, "gold-a100").replicas == 4


def test_scaled_by_another_is_a_conflict(double):
    cluster, _ = make(double)
    gold = of(cluster, "gold-a100")
    double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] = 7
    with pytest.raises(ClusterError, match="scaled by another, to 7") as caught:
        cluster.scale(gold, 4)
    assert caught.value.trouble == "conflict"
    assert of(cluster, "gold-a100").replicas == 7


def test_what_an_hpa_scales_is_left_to_it(double):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gold-a100"}
    spec = {"maxReplicas": 9, "scaleTargetRef": target}
    hpa = {"metadata": {"name": "keda-hpa-gold", "namespace": "llm"}, "spec": spec}
    double.put("horizontalpodautoscalers", hpa)
    cluster, _ = make(double)
    fleet = cluster.read(problem())
    assert fleet.problems == ("llm/gold-a100: the HPA keda-hpa-gold scales it too: `mode: publish`, or take that away",)
    assert [d.name for d in fleet.set_aside] == ["gold-a100"]
    controller = Controller(
        cluster._config, FixedProblem(problem()), cluster, FakeSource({"gold": 60.0, "tin": 2.0}), FakeClock()
    )
    assert not controller.run_round().steps
    published, _ = make(double, actuation={"mode": "publish"})
    assert not published.read(problem()).problems
    double.faults = lambda method, path: 403 if "autoscaling" in path else None
    fleet = cluster.read(problem())
    assert "whether HPAs scale deployments too is not known: forbidden" in fleet.problems[0]
    assert len(fleet.deployments) == 3


@pytest.mark.parametrize(
    ("status", "trouble", "tries"),
    [(403, "forbidden", 1), (401, "forbidden", 1), (404, "gone", 1), (422, "refused", 1), (429, "throttled", 4),
     (500, "unavailable", 4), (503, "unavailable", 4)],
)  # fmt: skip
def test_what_may_succeed_later_is_tried_again(double, status, trouble, tries):
    cluster, waits = make(double)
    gold = of(cluster, "gold-a100")
    before = len(double.requests)
    double.faults = lambda method, path: status
    with pytest.raises(ClusterError) as caught:
        cluster.scale(gold, 4)
    assert caught.value.trouble == trouble
    assert len(double.requests) - before == tries
    assert len(waits) == tries - 1


def test_trouble_that_passes_is_not_seen(double):
    cluster, _ = make(double)
    gold = of(cluster, "gold-a100")
    answers = iter([429, 500, None])
    double.faults = lambda method, path: next(answers, None)
    cluster.scale(gold, 3)
    assert of(cluster, "gold-a100").replicas == 3


def test_no_answer_in_time(double):
    cluster, _ = make(double, kubernetes={"timeout_s": 0.2, "retries": 1})
    double.faults = lambda method, path: 1.0
    with pytest.raises(ClusterError) as caught:
        cluster.read(problem())
    assert caught.value.trouble == "unavailable"


def test_an_update_that_came_through_though_its_answer_did_not(double):
    cluster, _ = make(double, kubernetes={"timeout_s": 0.3})
    gold = of(cluster, "gold-a100")
    slow = iter([1.0])
    double.faults = lambda method, path: next(slow, None) if method == "PUT" else None
    cluster.scale(gold, 6)
    assert of(cluster, "gold-a100").replicas == 6


def test_moves_server_side(double):
    double.rules[""].append(rule_for_moves())
    changes = {"actuation": {"move": True, "node_selector": {"H100": {"gpu": "h100"}}}}
    cluster, _ = make(double, **changes)
    cluster.move(of(cluster, "tin-a100"), "H100", 2, 48)
    moved = of(cluster, "tin-a100")
    assert (moved.accelerator, moved.replicas, moved.batch_size) == ("H100", 2, 48)
    assert moved.moved_at_s is not None
    spec = double.objects["deployments", "llm", "tin-a100"]["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["containers"] == [{"name": "vllm", "image": "vllm", "args": ["--max-num-seqs", "48"]}]
    assert ("PATCH", "/apis/apps/v1/namespaces/llm/deployments/tin-a100") in double.requests


def test_counts_devices_of_nodes_less_what_others_use(double):
    double.put("nodes", node("n1", "NVIDIA-A100", 8))
    double.put("nodes", node("n2", "NVIDIA-A100", 8, is_ready=False))
    double.put("nodes", node("n3", "NVIDIA-H100", 4))
    double.put("nodes", node("n4", "NVIDIA-H100", 4, is_cordoned=True))
    double.put("nodes", node("n5", "NVIDIA-L4", 2))
    double.put("pods", pod("train-0", "train", namespace="research", node="n3", devices=3))
    types = {"NVIDIA-A100": "A100", "NVIDIA-H100": "H100"}
    cluster, _ = make(double, capacity={"source": "nodes", "types": types})
    fleet = cluster.read(problem())
    assert fleet.devices == {"A100": 8, "H100": 4}
    assert fleet.foreign == {"H100": 3}
    assert fleet.problems == ("capacity.types does not say which type 'NVIDIA-L4' is",)


def test_status_and_events(double):
    cluster, _ = make(double)
    for text in ("1", "2"):
        cluster.write_status({"status.json": text})
    found = double.objects["configmaps", "inferno-milp", "inferno-milp-status"]
    assert found["data"] == {"status.json": "2"}
    cluster.tell(of(cluster, "gold-a100"), "ScaledUp", "2 → 3")
    (event,) = [item for (kind, _, _), item in double.objects.items() if kind == "events"]
    assert (event["reason"], event["message"], event["involvedObject"]["name"]) == ("ScaledUp", "2 → 3", "gold-a100")


def test_two_copies_and_one_lease(double):
    clock = FakeClock()
    first, second = (Lease(make(double)[0], clock, name, 30) for name in "ab")
    assert first.renew()
    assert not second.renew()
    assert second.seen == "a"
    clock.wait(20)
    assert first.renew()
    clock.wait(20)
    assert not second.renew(), "it was renewed 20 s ago"
    clock.wait(31)
    assert second.renew()
    assert not first.is_held
    assert not first.renew()


def test_a_round_through_the_api(double):
    """With a down that does not come through, the ups that would use its devices are not made."""
    clock = FakeClock()
    cluster, _ = make(double)
    source = FakeSource({"gold": 25.0, "tin": 2.0})
    controller = Controller(cluster._config, FixedProblem(problem()), cluster, source, clock)
    report = controller.run_round()
    assert report.plan.serves_all
    assert {step.outcome for step in report.steps} == {"done"}
    asked = {
        name: item["spec"]["replicas"] for (kind, _, name), item in double.objects.items() if kind == "deployments"
    }
    assert sum(asked.values()) > 3
    status = json.loads(double.objects["configmaps", "inferno-milp", "inferno-milp-status"]["data"]["status.json"])
    assert status["round"] == 1
    double.faults = lambda method, path: 500 if method == "PUT" and path.endswith("scale") else None
    source.rates["gold"] = 60.0
    clock.wait(60)
    failed = controller.run_round()
    assert any(step.outcome == "failed" for step in failed.steps)
    double.faults = lambda method, path: None
    clock.wait(60)
    assert {step.outcome for step in controller.run_round().steps} <= {"done"}


def test_holding_counts_what_is_going_away():
    from inferno_milp.control.fleet import Deployment, Pod

    d = Deployment("n", "d", "gold", "A100", 2, pods=(Pod("a", 0.0), Pod("b", 0.0), Pod("c", None, is_leaving=True)))
    assert d.holding == 3
    assert replace(d, replicas=4).holding == 5
    assert replace(d, replicas=0).holding == 3


def test_a_wrong_label_frees_no_devices(double):
    double.put("deployments", deployment("tin-a100", "tin", "A100", 7, batch="thirty"))
    clock = FakeClock()
    cluster, _ = make(double)
    source = FakeSource({"gold": 90.0, "tin": 2.0})
    controller = Controller(cluster._config, FixedProblem(problem()), cluster, source, clock)
    report = controller.run_round()
    assert any("'thirty' is no batch size" in error for error in report.errors)
    assert report.servers["tin"].target is None
    assert report.capacity["A100"][1] >= 9
    assert double.objects["deployments", "llm", "tin-a100"]["spec"]["replicas"] == 7
    assert double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] <= 2


def test_others_on_a_closed_node_take_nothing_from_the_open_ones(double):
    double.put("nodes", node("n1", "NVIDIA-A100", 8))
    double.put("nodes", node("n2", "NVIDIA-A100", 8, is_cordoned=True))
    double.put("pods", pod("train-0", "train", namespace="research", node="n2", devices=8))
    double.put("pods", pod("gold-a100-9", "gold-a100", node="n2", devices=1))
    cluster, _ = make(double, capacity={"source": "nodes", "types": {"NVIDIA-A100": "A100"}})
    fleet = cluster.read(problem())
    assert (fleet.devices, fleet.foreign) == ({"A100": 9}, {})


def test_no_try_comes_when_the_lease_has_run_out(double):
    cluster, _ = make(double)
    gold = of(cluster, "gold-a100")
    tries = []

    def fault(method, path):
        if method == "PUT" and path.endswith("/scale"):
            tries.append(path)
            return 503
        return None

    double.faults = fault
    cluster.may_change = lambda: not tries
    with pytest.raises(ClusterError, match="the lease ran out"):
        cluster.scale(gold, 5)
    assert len(tries) == 1


def test_pods_from_before_a_move_hold_what_they_hold(double):
    from inferno_milp.control.fleet import devices_held

    double.rules[""].append(rule_for_moves())
    selectors = {"H100": {"gpu": "h100"}, "A100": {"gpu": "a100"}}
    cluster, _ = make(double, actuation={"move": True, "node_selector": selectors})
    cluster.move(of(cluster, "gold-a100"), "H100", 1, 64)
    moved = of(cluster, "gold-a100")
    assert moved.ready == 0
    assert devices_held(problem(), [moved]) == {"H100": 1, "A100": 2}
    new = pod("gold-a100-new", "gold-a100")
    new["metadata"]["labels"]["inferno.server.allocation.accelerator"] = "H100"
    double.put("pods", new)
    moved = of(cluster, "gold-a100")
    assert moved.ready == 1
    assert devices_held(problem(), [moved]) == {"H100": 1, "A100": 2}


def test_without_the_permission_to_move_nothing_is_moved(double):
    cluster, _ = make(double, actuation={"move": True, "node_selector": {"H100": {"gpu": "h100"}}})
    with pytest.raises(ClusterError) as caught:
        cluster.move(of(cluster, "tin-a100"), "H100", 2, 48)
    assert caught.value.trouble == "forbidden"


def test_all_that_a_round_asks_for_is_permitted(double):
    """By the shipped roles; every other test here is held to them as well."""
    cluster, _ = make(double, capacity={"source": "nodes", "types": {"NVIDIA-A100": "A100"}})
    controller = Controller(
        cluster._config, FixedProblem(problem()), cluster, FakeSource({"gold": 60.0}), FakeClock(),
        Lease(cluster, FakeClock(), "a", 30),
    )  # fmt: skip
    double.put("nodes", node("n1", "NVIDIA-A100", 8))
    for _ in range(2):
        assert controller.run_round().role == "leader"
    assert cluster.read_status()
    controller.lease.give_up()
    assert not double.refused
    double.rules = {}
    assert "forbidden" in " ".join(controller.run_round().errors)


DEDICATED = {"key": "dedicated", "value": "training", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
NODES = {
    "plain": ({}, 8, ""),
    "another team's": ({"taints": [DEDICATED]}, 0, "taint dedicated=training:NoSchedule"),
    "taken away": ({"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}, 0,
                   "taint node.kubernetes.io/out-of-service:NoExecute"),
    "rather not": ({"taints": [{"key": "old", "effect": "PreferNoSchedule"}]}, 8, ""),
    "cut": ({"devices": 0, "nvidia.com/mig-3g.40gb": "4"}, 0, "its 4 MIG slices are not counted"),
    "cut in part": ({"devices": 6, "nvidia.com/mig-1g.10gb": "14"}, 6, "its 14 MIG slices are not counted"),
    "shared": ({"labels": {"nvidia.com/gpu.replicas": "4"}}, 0, "its devices are shared by 4 pods each"),
    "not shared": ({"labels": {"nvidia.com/gpu.replicas": "1"}}, 8, ""),
}  # fmt: skip


def counted(double):
    cluster, _ = make(double, capacity={"source": "nodes", "types": {"NVIDIA-A100": "A100"}})
    fleet = cluster.read(problem())
    return fleet.devices.get("A100", 0), fleet.problems


@pytest.mark.parametrize("kind", NODES)
def test_only_whole_free_devices_are_counted(double, kind):
    changes, devices, words = NODES[kind]
    double.put("nodes", node("n9", "NVIDIA-A100", changes.get("devices", 8),
                             **{name: value for name, value in changes.items() if name != "devices"}))  # fmt: skip
    found, problems = counted(double)
    assert found == devices
    assert len(problems) == bool(words)
    assert not words or (problems[0].startswith("node n9") and words in problems[0])


TOLERATIONS = [
    ({"key": "dedicated", "operator": "Equal", "value": "training", "effect": "NoSchedule"}, True),
    ({"key": "dedicated", "value": "training"}, True),
    ({"key": "dedicated", "operator": "Exists"}, True),
    ({"operator": "Exists"}, True),
    ({"key": "dedicated", "value": "serving"}, False),
    ({"key": "other", "operator": "Exists"}, False),
    ({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}, False),
    ({"key": "dedicated", "operator": "Exists", "tolerationSeconds": 300}, False),
]


@pytest.mark.parametrize(("toleration", "expected"), TOLERATIONS)
@pytest.mark.parametrize("of_all", [True, False])
def test_a_tainted_node_counts_if_all_pods_for_it_tolerate_it(double, toleration, expected, of_all):
    for name in ("gold-a100", "tin-a100")[: 1 + of_all]:
        double.objects["deployments", "llm", name]["spec"]["template"]["spec"]["tolerations"] = [toleration]
    double.put("nodes", node("n9", "NVIDIA-A100", 8, taints=[DEDICATED]))
    assert counted(double)[0] == (8 if expected and of_all else 0)


def test_what_a_cluster_lets_pods_tolerate_is_seen_in_the_pods(double):
    """As the taint of the devices themselves, which admission adds to pods that ask for them."""
    double.put("nodes", node("n9", "NVIDIA-A100", 8, taints=[GPU]))
    assert counted(double)[0] == 0
    item = pod("tin-a100-0", "tin-a100")
    item["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    double.put("pods", item)
    assert counted(double)[0] == 8


def test_what_another_controller_owns_is_left_to_it(double):
    owner = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "chat", "uid": "1"}
    item = double.objects["deployments", "llm", "gold-a100"]
    for is_controller in (False, True):
        item["metadata"]["ownerReferences"] = [owner | {"controller": is_controller}]
        cluster, _ = make(double)
        fleet = cluster.read(problem())
        assert [d.name for d in fleet.set_aside] == ["gold-a100"][: int(is_controller)]
    assert fleet.problems == ("llm/gold-a100: the InferenceService chat owns it and sets its replicas",)
    source = FakeSource({"gold": 90.0, "tin": 2.0})
    report = Controller(cluster._config, FixedProblem(problem()), cluster, source, FakeClock()).run_round()
    assert item["spec"]["replicas"] == 2
    assert "the InferenceService chat owns it" in report.servers["gold"].reason


def test_why_a_server_is_left_alone_is_what_is_so(double):
    """Not that it has no deployment, where an HPA holds them; nor that so few devices exist, where others hold them."""
    for name in ("gold-a100", "gold-h100"):
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        hpa = {"metadata": {"name": f"hpa-{name}", "namespace": "llm"}, "spec": {"scaleTargetRef": target}}
        hpa["spec"]["maxReplicas"] = 9
        double.put("horizontalpodautoscalers", hpa)
    double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] = 6
    cluster, _ = make(double)
    source = FakeSource({"gold": 5.0, "tin": 300.0})
    report = Controller(cluster._config, FixedProblem(problem()), cluster, source, FakeClock()).run_round()
    assert "the HPA hpa-gold-a100 scales it too" in report.servers["gold"].reason
    assert "no deployment" not in report.servers["gold"].reason
    assert "servers that are left alone hold 6 of 8 A100" in report.servers["tin"].reason


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({"args": ["--max-num-seqs", "64"]}, {"args": ["--max-num-seqs", "48", "--tensor-parallel-size=2"]}),
        ({"args": ["--max-num-seqs=64", "--tensor-parallel-size=1"]},
         {"args": ["--max-num-seqs=48", "--tensor-parallel-size=2"]}),
        ({"args": ["-tp", "4"]}, {"args": ["-tp", "2", "--max-num-seqs=48"]}),
        ({"command": ["vllm", "serve", "--tp-size", "1"], "args": []},
         {"command": ["vllm", "serve", "--tp-size", "2"], "args": ["--max-num-seqs=48"]}),
        ({"resources": {"limits": {"nvidia.com/gpu": "1", "memory": "9Gi"}, "requests": {"nvidia.com/gpu": "1"}}},
         {"resources": {"limits": {"nvidia.com/gpu": "2", "memory": "9Gi"}, "requests": {"nvidia.com/gpu": "2"}}}),
        ({"resources": {"limits": {"nvidia.com/gpu": "1"}}}, {"resources": {"limits": {"nvidia.com/gpu": "2"}}}),
    ],
)  # fmt: skip
def test_a_move_to_more_devices_asks_for_them(double, container, expected):
    """The pods' devices and the engine's tensor parallelism are those of the accelerator that it moves to."""
    double.rules[""].append(rule_for_moves())
    pair = {"model": "m", "accelerator": "2xH100", "alpha_ms": 4, "beta_ms": 0.1, "max_batch_size": 64}
    found = problem(profiles=[*PROBLEM["profiles"], pair])
    item = double.objects["deployments", "llm", "tin-a100"]["spec"]["template"]["spec"]["containers"][0]
    item |= {"args": []} | container
    cluster, _ = make(double, actuation={"move": True, "node_selector": {"2xH100": {"gpu": "h100"}}})
    cluster.move(next(d for d in cluster.read(found).deployments if d.name == "tin-a100"), "2xH100", 1, 48)
    moved = double.objects["deployments", "llm", "tin-a100"]["spec"]["template"]["spec"]["containers"][0]
    assert {name: moved.get(name) for name in expected} == expected


def test_an_engine_in_a_script_is_not_moved(double):
    double.rules[""].append(rule_for_moves())
    item = double.objects["deployments", "llm", "tin-a100"]["spec"]["template"]["spec"]["containers"][0]
    item |= {"command": ["sh", "-c", "exec vllm serve m"]}
    cluster, _ = make(double, actuation={"move": True, "node_selector": {"H100": {"gpu": "h100"}}})
    with pytest.raises(ClusterError, match="in a script of a shell"):
        cluster.move(of(cluster, "tin-a100"), "H100", 1, 48)
