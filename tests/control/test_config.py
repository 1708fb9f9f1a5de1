"""The set-up of a loop, its command line, its own service, and forecasts."""

import copy
import json
import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
import yaml
from api_double import ADMIN, TOKEN, deployment, pod, put_deployments, running_double
from control_parts import REPLICAS, FakeClock, FakeCluster, FakeSource, config, make, problem
from running_service import PATIENCE_S

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.control.config import read_control_config
from inferno_milp.control.controller import Controller
from inferno_milp.control.fleet import ClusterError
from inferno_milp.control.forecast import forecast_rate
from inferno_milp.control.learning import Learning
from inferno_milp.control.problems import FixedProblem
from inferno_milp.control.runner import Runner, make_app

FAULTY = """
problem: {problem}
interval_s: -1
prometheus: {{url: nowhere, engine: vlm, arrivals: {{golf: up}}}}
kubernetes: {{deployments: {{llm/a: {{server: gold, accelerator: A10}}}}}}
actuation: {{mode: scle, move: true}}
capacity: {{source: nodes}}
colour: blue
"""


@pytest.fixture
def problem_path(tmp_path):
    path = tmp_path / "problem.yaml"
    path.write_text(im.problem_text(problem()))
    return path


def test_all_faults_at_once(tmp_path, problem_path):
    path = tmp_path / "control.yaml"
    path.write_text(FAULTY.format(problem=problem_path.name))
    with pytest.raises(im.InputError) as caught:
        read_control_config(path)
    text = str(caught.value)
    for part in ("interval_s", "prometheus.url", "prometheus.engine", "actuation.mode", "colour", "types are given"):
        assert part in text, part
    assert f"{path}:3: interval_s" in text


def test_names_that_nothing_has(tmp_path, problem_path):
    path = tmp_path / "control.yaml"
    path.write_text(
        "problem: problem.yaml\n"
        "prometheus: {arrivals: {golf: up}, queries: {runing: up}}\n"
        "kubernetes: {deployments: {llm/a: {server: gold, accelerator: A10}}}\n"
        "actuation: {move: true}\n"
    )
    with pytest.raises(im.InputError) as caught:
        read_control_config(path)
    text = str(caught.value)
    for part in (
        "unknown server 'golf'; did you mean 'gold'?",
        "unknown query 'runing'; did you mean 'running'?",
        "unknown accelerator 'A10'; did you mean 'A100'?",
        "no node selectors are given for A100, H100",
    ):
        assert part in text, part


def test_a_problem_that_is_not_there(tmp_path):
    path = tmp_path / "control.yaml"
    path.write_text("problem: none.yaml\nprometheus: {window_s: 0}\n")
    with pytest.raises(im.InputError) as caught:
        read_control_config(path)
    assert len(caught.value.faults) == 2


@pytest.fixture
def cluster_files(tmp_path, problem_path, monkeypatch):
    """A cluster behind a kubeconfig, and a set-up for it; its Prometheus is not there."""
    with running_double() as double:
        for name, server in (("gold-a100", "gold"), ("tin-a100", "tin")):
            double.put("deployments", deployment(name, server, "A100", 1))
            double.put("pods", pod(f"{name}-0", name))
        kubeconfig = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": double.url}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
        }  # fmt: skip
        path = tmp_path / "kubeconfig.json"
        path.write_text(json.dumps(kubeconfig))
        monkeypatch.setenv("KUBECONFIG", str(path))
        setup = tmp_path / "control.yaml"
        setup.write_text(
            "problem: problem.yaml\n"
            "prometheus: {url: 'http://127.0.0.1:9', retries: 0}\n"
            "kubernetes: {context: here, retries: 0}\n"
        )
        yield double, setup


def test_once_with_prometheus_down(cluster_files, capsys):
    double, setup = cluster_files
    assert main(["control", "--config", str(setup), "--once", "--json", "-"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["role"] == "leader"
    assert report["plan"] is None
    assert report["servers"]["gold"]["observation"]["state"] == "frozen"
    assert "warning: arrivals_per_s" in err
    assert double.objects["leases", "inferno-milp", "inferno-milp-control"]["spec"]["holderIdentity"] == ""
    assert double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] == 1


def test_a_loop_that_follows_custom_resources(cluster_files, tmp_path):
    """As a process: it scales nothing on ignorance, tells the objects, acts on a change at once, and ends in order."""
    pytest.importorskip("kopf")
    from inferno_milp.control.resources.kinds import GROUP, KINDS, VERSION
    from inferno_milp.control.resources.writing import objects_text

    double, setup = cluster_files
    plurals = {kind.name: kind.plural for kind in KINDS}
    double.kinds = {f"{GROUP}/{VERSION}/{name}": plural for name, plural in plurals.items()}
    for item in yaml.safe_load_all(objects_text(problem(), "llm")):
        double.put(plurals[item["kind"]], item)
    text = setup.read_text().replace("problem: problem.yaml", "resources: {enabled: true}\ninterval_s: 3600")
    setup.write_text(f"{text}listen: {{host: 127.0.0.1, port: 0}}\n")
    command = [sys.executable, "-m", "inferno_milp", "control", "--config", str(setup)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:

        def told(name, since=""):
            item = double.objects["servers", "llm", name]
            found = {c["type"]: c for c in item.get("status", {}).get("conditions", ())}
            return "Valid" in found and found["Valid"]["observedGeneration"] == item["metadata"]["generation"]

        for name, change in (("gold", {}), ("tin", {"weight": 2.0})):
            item = copy.deepcopy(double.objects["servers", "llm", name])
            item["spec"] |= change
            if change:
                double.put("servers", item)
            deadline = time.monotonic() + PATIENCE_S
            while not told(name):
                assert time.monotonic() < deadline, "no object has a status"
                assert process.poll() is None
                time.sleep(0.05)
        status = double.objects["servers", "llm", "gold"]["status"]
        assert "left alone" in status["reason"]
        assert double.objects["optimizers", "llm", "optimizer"]["status"]["state"] == "active"
        assert double.objects["deployments", "llm", "gold-a100"]["spec"]["replicas"] == 1
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in output, output
    assert double.objects["leases", "inferno-milp", "inferno-milp-control"]["spec"]["holderIdentity"] == ""
    assert sum(method == "WATCH" for method, _ in double.requests) >= len(KINDS), "it is known to the server"
    assert not double.refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("problem: p.yaml\nresources: {enabled: true}\n", "the problem is in custom resources"),
        ("problem: problem.yaml\nactuation: {mode: manifests}\n", "mode and manifests do not go together"),
        ("problem: problem.yaml\nactuation: {manifests: x.yaml}\n", "mode and manifests do not go together"),
        ("problem: problem.yaml\nactuation: {mode: publish, move: true}\n", "mode publish cannot move a deployment"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, problem_path, text, words):
    path = tmp_path / "control.yaml"
    path.write_text(text)
    with pytest.raises(im.InputError, match=words):
        read_control_config(path)


def test_once_dry_writes_nothing(cluster_files, capsys):
    double, setup = cluster_files
    assert main(["control", "--config", str(setup), "--once", "--dry-run"]) == 1
    assert "left alone" in capsys.readouterr().out
    assert all(method == "GET" for method, _ in double.requests)


def test_no_way_to_a_cluster(tmp_path, problem_path, monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    setup = tmp_path / "control.yaml"
    setup.write_text("problem: problem.yaml\nkubernetes: {context: nowhere}\n")
    assert main(["control", "--config", str(setup), "--once"]) == 2
    assert "no way to a cluster" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")
def test_emulate(tmp_path, capsys):
    arguments = ["control", "--emulate", "instances/fleet.yaml", "--hours", "0.2"]
    outputs = [
        "--json",
        str(tmp_path / "day.json"),
        "--csv",
        str(tmp_path / "day.csv"),
        "--plot",
        str(tmp_path / "d.svg"),
    ]
    assert main(arguments + outputs) == 0
    assert "promises kept" in capsys.readouterr().out
    document = json.loads((tmp_path / "day.json").read_text())
    assert len(document["rows"]) == 12 * 4
    assert (tmp_path / "d.svg").stat().st_size > 5000
    assert (tmp_path / "day.csv").read_text().startswith("time_s,server,rate_per_s")


class Served:
    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}")

    def close(self):
        self.client.close()
        self.server.should_exit = True
        self.thread.join(5)


def test_its_own_service(tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    settings = {"actuation": {"mode": "publish"}, "listen": {"token_file": str(token)}}
    controller, cluster, clock = make({"gold": 25.0, "tin": 2.0}, **settings)
    runner = Runner(controller, controller.config)
    served = Served(make_app(runner))
    try:
        ask = served.client
        assert ask.get("/readyz").status_code == 503
        assert ask.get("/status").status_code == 503
        report = ask.post("/invoke", headers={"Authorization": "Bearer secret"}).json()
        assert report["servers"]["gold"]["target"]
        assert ask.get("/readyz").status_code == 200
        assert ask.get("/healthz").status_code == 200
        assert ask.get("/status").json() == report
        text = ask.get("/metrics").text
        desired = {d["name"]: d["desired"] for d in report["deployments"]}
        for prefix in ("inferno", "wva"):
            for name, count in desired.items():
                accelerator = "H100" if name.endswith("h100") else "A100"
                labels = f'accelerator_type="{accelerator}",namespace="llm",variant_name="{name}"'
                assert f"{prefix}_desired_replicas{{{labels}}} {count:.1f}" in text
        assert not cluster.calls, "others scale by what is published"
        clock.wait(10_000)
        assert ask.get("/healthz").status_code == 503
    finally:
        served.close()


@pytest.mark.parametrize(
    ("content", "header", "status"),
    [
        (None, "Bearer secret", 403), ("secret", "", 401), ("secret", "Bearer other", 401),
        ("secret", "Basic secret", 401), ("", "Bearer x", 401), ("", "", 401),
        ("secret", "Bearer secret", 200), ("secret", "bearer secret", 200),
    ],
)  # fmt: skip
def test_only_the_holder_of_the_token_invokes_rounds(tmp_path, content, header, status):
    token = tmp_path / "token"
    token.write_text(content or "")
    listen = {} if content is None else {"token_file": str(token)}
    controller, cluster, _ = make({"gold": 25.0, "tin": 2.0}, listen=listen)
    served = Served(make_app(Runner(controller, controller.config)))
    try:
        headers = {"Authorization": header}
        assert served.client.get("/invoke", headers=headers).status_code == 405
        assert not cluster.calls
        assert served.client.post("/invoke", headers=headers).status_code == status
        assert bool(cluster.calls) == (status == 200)
        token.unlink()
        assert served.client.post("/invoke", headers=headers).status_code == (403 if content is None else 503)
    finally:
        served.close()


def test_rounds_go_on_after_one_that_failed():
    controller, cluster, _ = make({"gold": 2.0, "tin": 2.0}, interval_s=0.05)
    reports = []
    runner = Runner(controller, controller.config, reports.append)
    cluster.failures = [("read", RuntimeError("a defect"))]
    thread = threading.Thread(target=runner.run)
    thread.start()
    end = time.monotonic() + PATIENCE_S
    while len(reports) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    runner.stop()
    thread.join(10)
    assert len(reports) >= 2
    assert not thread.is_alive()


def test_a_move_of_an_only_deployment():
    found, clock = problem(), FakeClock()
    cluster = FakeCluster(found, {("gold", "A100"): (1, 32)}, clock)
    move = {"actuation": {"move": True, "node_selector": {"H100": {"a": "b"}, "A100": {"a": "c"}}}}
    controller = Controller(config(**move), FixedProblem(found), cluster, FakeSource({"gold": 30.0}), clock)
    for _ in range(25):
        controller.run_round()
        clock.wait(60)
    moves = [call for call in cluster.calls if len(call) == 4]
    assert len(moves) <= 1
    assert sum(cluster.replicas().values()) >= 1


def test_forecasts():
    rng = np.random.default_rng(0)
    steps = np.arange(96 * 6)
    day = 5 + 3 * np.sin(2 * np.pi * steps / 96) + rng.normal(0, 0.1, steps.size)
    kinds = {
        method: forecast_rate(day[:-24], steps=24, bin_s=900, method=method, season_bins=96)
        for method in ("last", "trend", "seasonal")
    }
    errors = {method: abs(found.mean_per_s - day[-1]) for method, found in kinds.items()}
    assert errors["seasonal"] < 0.5 < errors["last"]
    assert all(found.quantile_per_s > found.mean_per_s for found in kinds.values())
    growing = forecast_rate(np.arange(60.0), steps=3, bin_s=60, method="trend")
    assert growing.mean_per_s > 59.5
    assert forecast_rate([3.0], steps=3, bin_s=60, method="seasonal", season_bins=96).method == "last"
    assert forecast_rate([math.nan, 2.0, math.nan], steps=1, bin_s=60).mean_per_s == 2.0
    assert forecast_rate([0.0] * 50, steps=1, bin_s=60, method="trend").quantile_per_s >= 0
    with pytest.raises(ValueError, match="no rate"):
        forecast_rate([math.nan], steps=1, bin_s=60)


def test_profiles_follow_what_is_observed():
    from inferno_milp.control.collector import Observation, Observed

    found, clock = problem(), FakeClock()
    fleet = FakeCluster(found, REPLICAS, clock).read(found)
    learning = Learning(config(tracking={"enabled": True}).tracking)
    profile = found.profiles[0]
    for _ in range(60):
        seen = Observation("fresh", "", 0.0, 4.0, 300.0, 100.0, ttft_ms=80.0, itl_ms=22.0, running=9.0)
        learning.observe(found, fleet, Observed({}, {"llm/gold-a100": seen}))
    learnt = learning.applied(found).profiles[0]
    assert 1.3 < learnt.alpha_ms / profile.alpha_ms <= 3.0
    queueing = Observation("fresh", "", 0.0, 4.0, 300.0, 100.0, ttft_ms=80.0, itl_ms=22.0, running=9.0, waiting=500.0)
    steps = len(learning.trackers["m", "A100"].steps)
    learning.observe(found, fleet, Observed({}, {"llm/gold-a100": queueing}))
    assert len(learning.trackers["m", "A100"].steps) == steps, "an overloaded engine teaches nothing"


def test_a_status_that_cannot_be_written_is_no_failure():
    controller, cluster, _ = make({"gold": 2.0, "tin": 2.0})
    cluster.failures = [("read", None), ("status", ClusterError("forbidden", "no"))]
    assert controller.run_round().plan is not None


def documents(name):
    return list(yaml.safe_load_all((Path("manifests") / name).read_text(encoding="utf-8")))


def test_the_manifests_hold_a_set_up_that_can_be_read(tmp_path):
    data = next(d["data"] for d in documents("control.yaml") if d["kind"] == "ConfigMap")
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    found, cluster, _ = read_control_config(tmp_path / "control.yaml")
    assert found.actuation.mode == "dry-run", "nobody is scaled before he has looked"
    assert [s.name for s in cluster.servers] == ["chat"]


def test_the_manifests_are_kubernetes_own():
    import kubernetes_validate

    for document in documents("control.yaml"):
        kubernetes_validate.validate(document, "1.30", strict=True)


def test_all_of_the_manifests_can_be_applied():
    """`kubectl apply -f manifests/`: each document is an object of a kind that Kubernetes has."""
    import kubernetes_validate

    for path in Path("manifests").glob("*.yaml"):
        for document in documents(path.name):
            assert {"apiVersion", "kind", "metadata"} <= document.keys(), path
            kubernetes_validate.validate(document, "1.30", strict=True)


def test_the_operator_has_the_same_rules():
    monitor, rule = documents("prometheus/operator.yaml")
    assert rule["spec"] == documents("prometheus/rules.yaml")[0]
    pods = next(d for d in documents("control.yaml") if d["kind"] == "Deployment")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"] == pods["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in pods["spec"]["containers"][0]["ports"]}
    assert endpoint["honorLabels"] is True
    assert monitor["metadata"]["namespace"] == rule["metadata"]["namespace"] == "inferno-milp"


def test_the_permissions_are_those_that_are_used():
    rules = {}
    for document in documents("control.yaml"):
        for rule in document.get("rules", []):
            for resource in rule["resources"]:
                rules.setdefault(resource, set()).update(rule["verbs"])
    assert rules["deployments"] == {"get", "list"}
    assert rules["deployments/scale"] == {"get", "update"}
    assert rules["events"] == {"create"}
    assert rules["leases"] == rules["configmaps"] == {"create", "get", "update"}
    assert not any({"delete", "deletecollection", "*"} & verbs for verbs in rules.values())


def test_a_round_may_be_written_as_manifests(tmp_path):

    path = tmp_path / "replicas.yaml"
    controller, cluster, _ = make({"gold": 60.0, "tin": 2.0}, actuation={"mode": "manifests", "manifests": str(path)})
    runner = Runner(controller, controller.config)
    runner.run_once()
    found = list(yaml.safe_load_all(path.read_text()))
    wanted = controller.run_round().servers["gold"].target["A100"]
    assert {"gold-a100": wanted, "gold-h100": 0, "tin-a100": 1}.items() <= {
        d["metadata"]["name"]: d["spec"]["replicas"] for d in found
    }.items()
    assert cluster.replicas()["gold-a100"] != wanted, "whoever applies the file scales"
    before = path.stat().st_mtime_ns
    runner.run_once()
    assert path.stat().st_mtime_ns == before, "it is written only when something changes"
    path.unlink()
    path.mkdir()
    assert runner.run_once().plan is not None, "a file that cannot be written stops nothing"


@pytest.mark.parametrize("documented", [True, False])
def test_written_manifests_are_applied_as_their_head_says(tmp_path, documented):
    """The replicas belong to whoever made the deployment: without the documented flags they stay as they are."""
    path = tmp_path / "replicas.yaml"
    controller, _, _ = make({"gold": 60.0, "tin": 2.0}, actuation={"mode": "manifests", "manifests": str(path)})
    desired = {d.name: d.desired for d in Runner(controller, controller.config).run_once().deployments}
    command = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    assert command[:3] == ["kubectl", "apply", "--server-side"]
    assert " ".join(command[:-1]) in " ".join(Path("docs/control.md").read_text(encoding="utf-8").split())
    flags = command if documented else command[:3]
    manager = flags[flags.index("--field-manager") + 1] if "--field-manager" in flags else "kubectl"
    refused = []
    with running_double() as double:
        put_deployments(double)
        double.put("deployments", deployment("tin-h100", "tin", "H100", 0))
        before = {key[2]: copy.deepcopy(item) for key, item in double.objects.items() if key[0] == "deployments"}
        for document in yaml.safe_load_all(path.read_text()):
            name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
            url = f"{double.url}/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
            query = {"fieldManager": manager, "force": str("--force-conflicts" in flags).lower()}
            headers = {"Content-Type": "application/apply-patch+yaml", "Authorization": f"Bearer {ADMIN}"}
            answer = httpx.patch(url, params=query, headers=headers, content=yaml.safe_dump(document))
            assert answer.status_code == 200 or "kubectl-client-side-apply: spec.replicas" in answer.json()["message"]
            refused += [name] if answer.status_code == 409 else []
        after = {key[2]: item for key, item in double.objects.items() if key[0] == "deployments"}
    changed = [name for name, count in desired.items() if count != before[name]["spec"]["replicas"]]
    assert changed
    assert refused == ([] if documented else changed)
    for name, item in after.items():
        was = before[name]["spec"]
        assert item["spec"] == was | {"replicas": desired[name] if documented else was["replicas"]}


def test_a_loop_that_is_woken_does_not_wait(monkeypatch):
    controller, _, _ = make({"gold": 2.0, "tin": 2.0}, interval_s=1000.0)
    reports = []
    runner = Runner(controller, controller.config, reports.append)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    try:
        for count in (1, 2, 3):
            deadline = time.monotonic() + PATIENCE_S
            while len(reports) < count:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            runner.wake()
    finally:
        runner.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
def test_prometheus_takes_the_rules():
    command = ["promtool", "check", "rules", "manifests/prometheus/rules.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    published = Runner(*((made := make({"gold": 1.0, "tin": 1.0})[0]), made.config))
    published.run_once()
    text = published.published.text().decode()
    for rule in documents("prometheus/rules.yaml")[0]["groups"][0]["rules"]:
        for name in re.findall(r"inferno_\w+", rule["expr"]):
            assert f"\n{name}" in text, name


def test_a_forecast_begins_with_what_prometheus_remembers():
    forecast = {"method": "seasonal", "bin_s": 3600.0, "quantile": 0.5, "startup_s": 3540.0}
    controller, _, _ = make({"gold": 2.0, "tin": 2.0}, forecast=forecast)
    hours = np.arange(24 * 7 + 8)  # ends at an hour when the load rises fast
    controller.source.past = {"gold": (10 - 8 * np.cos(2 * np.pi * hours / 24)).tolist()}
    controller.source.rates["gold"] = controller.source.past["gold"][-1]
    report = controller.run_round()
    following = 10 - 8 * math.cos(2 * math.pi * (hours[-1] + 1) / 24)
    assert report.servers["gold"].planned_rate_per_s == pytest.approx(following, rel=0.1)
    assert report.servers["tin"].planned_rate_per_s == pytest.approx(2.0, rel=0.1)
