"""From a plan to what Kubernetes runs: deployments with the loop's labels, and HPA or KEDA objects that scale them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, Literal, get_args

import yaml

from inferno_milp.errors import OptionError
from inferno_milp.plan import Allocation, Plan, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Profile

Kind = Literal["deployments", "hpa", "keda"]
KINDS: tuple[str, ...] = get_args(Kind)
MANAGED, NAME, MODEL, CLASS, ACCELERATOR, BATCH = (
    f"inferno.server.{part}"
    for part in ("managed", "name", "model", "class", "allocation.accelerator", "allocation.maxbatchsize")
)
"""Labels of deployments that the control loop looks for; llm-inferno's."""
LABEL_VALUE = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LONGEST_NAME = 63
ENGINE = "vllm"
"""Engine whose arguments are written."""
ARGUMENTS_OF = {
    "bf16": ("--dtype", "bfloat16"),
    "fp16": ("--dtype", "float16"),
    "fp8": ("--quantization", "fp8"),
}
"""What makes vLLM load weights in a precision that is not the published one (docs.vllm.ai, engine arguments)."""
METRIC = "inferno_desired_replicas"
"""What the control loop publishes, in its mode `publish`."""
UNROUTED_S, LAST_S, LEAST_DRAIN_S = 15, 15, 30
"""Time until requests go elsewhere; after the last request, until the engine has ended; and the least to drain."""
DRAIN = f"""
import sys, time, urllib.request
port, longest = sys.argv[1], float(sys.argv[2])
time.sleep({UNROUTED_S} if len(sys.argv) < 4 else float(sys.argv[3]))
end = time.monotonic() + longest
while time.monotonic() < end:
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{{port}}/metrics", timeout=5).read().decode()
    except OSError:
        break
    counts = [line.rpartition("}}")[2].split()[0] for line in page.splitlines()
              if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting"))]
    if counts and not sum(map(float, counts)):
        break
    time.sleep(1)
"""
"""What a pod does before it ends: it waits until its engine has no more requests. Arguments: port, longest wait (s)."""
LEADER = "inferno_leader"
"""1 for the copy of the loop that leads."""
LEAST_REPLICAS, MOST_REPLICAS = 1, 1000
"""Of a server that the problem gives no limits."""


def export_manifests(
    problem: Problem,
    plan: Plan,
    *,
    kind: Kind = "deployments",
    namespace: str = "default",
    image: str = "vllm/vllm-openai:latest",
    resource: str = "nvidia.com/gpu",
    prometheus_url: str = "http://prometheus.monitoring:9090",
    force: bool = False,
) -> str:
    """Write a plan as Kubernetes manifests.

    Parameters
    ----------
    kind : `deployments`: one for each allocation, with the labels that `control` looks for; `hpa`, `keda`: for each,
        what scales it by the replicas that the loop publishes.
    namespace : of all of them.
    image : of the engines, vLLM's.
    resource : that counts devices.
    prometheus_url : that KEDA asks.
    force : whether deployments are written though profiles are of another engine, or of weights that vLLM does not make
        of a model as published.

    Returns
    -------
    YAML documents.

    Raises
    ------
    OptionError
        If the plan runs nothing, is of another problem, or two of its allocations come to the same name.
    """
    if kind not in KINDS:
        raise OptionError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    other = list(_other_engines(problem, plan)) if kind == "deployments" and not force else []
    if other:
        raise OptionError(f"{'; '.join(other)}: deployments would not be what was planned; `--force` writes them")
    found: dict[str, dict[str, Any]] = {}
    for server, allocation in _allocations(problem, plan):
        name = deployment_name(f"{server.name}-{allocation.accelerator}")
        if name in found:
            raise OptionError(f"two allocations come to the name {name!r}: rename a server")
        if kind == "deployments":
            found[name] = _deployment(problem, server, allocation, name, namespace, image, resource)
        elif kind == "hpa":
            found[name] = _hpa(problem, server, name, namespace)
        else:
            found[name] = _keda(problem, server, allocation, name, namespace, prometheus_url)
    if not found:
        raise OptionError("the plan runs nothing")
    return yaml.safe_dump_all(found.values(), sort_keys=False, allow_unicode=True)


def deployment_name(text: str) -> str:
    """Return a name that Kubernetes takes."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return name[:LONGEST_NAME].strip("-") or "server"


def _allocations(problem: Problem, plan: Plan) -> Iterator[tuple[ServerPlan, Allocation]]:
    servers, known = {s.name for s in problem.servers}, {a.name for a in problem.accelerators}
    for server in plan.servers:
        for allocation in server.allocations:
            if server.name not in servers or allocation.accelerator not in known:
                raise OptionError(f"the problem does not know {server.name!r} on {allocation.accelerator!r}")
            yield server, allocation


def _metadata(name: str, namespace: str, **labels: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": name, **labels}}


def _deployment(
    problem: Problem, server: ServerPlan, allocation: Allocation, name: str, namespace: str, image: str, resource: str
) -> dict[str, Any]:
    devices = allocation.devices // allocation.replicas
    told = {
        MANAGED: "true",
        NAME: server.name,
        MODEL: server.model,
        CLASS: server.service_class,
        ACCELERATOR: allocation.accelerator,
        BATCH: str(allocation.batch_size),
    }
    # Not every name can be the value of a label; the loop looks at annotations too.
    labels = {label: value for label, value in told.items() if re.fullmatch(LABEL_VALUE, value)}
    annotations = {label: value for label, value in told.items() if label not in labels}
    of_problem = next(one for one in problem.servers if one.name == server.name)
    arguments = ["--model", of_problem.weights, "--max-num-seqs", str(allocation.batch_size)]
    arguments += _engine_arguments(problem, server, allocation)
    if adapters := set(of_problem.adapters):
        arguments += ["--enable-lora", "--max-loras", str(len(adapters))]
    if devices > 1:
        arguments += ["--tensor-parallel-size", str(devices)]
    drain_s = drain_seconds(problem, server, allocation)
    container = {
        "name": "engine",
        "image": image,
        "args": arguments,
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"limits": {resource: str(devices)}},
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5},
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", DRAIN, "8000", str(drain_s)]}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**_metadata(name, namespace, **labels), **({"annotations": annotations} if annotations else {})},
        "spec": {
            "replicas": allocation.replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": name}},
                "spec": {
                    "nodeSelector": {"accelerator": deployment_name(allocation.type)},
                    "terminationGracePeriodSeconds": UNROUTED_S + drain_s + LAST_S,
                    "containers": [container],
                },
            },
        },
    }


def _profile(problem: Problem, server: ServerPlan, allocation: Allocation) -> Profile:
    return next(p for p in problem.profiles if (p.model, p.accelerator) == (server.model, allocation.accelerator))


def _engine_arguments(problem: Problem, server: ServerPlan, allocation: Allocation) -> list[str]:
    """Return the arguments that make an engine the one whose profile was planned with."""
    profile = _profile(problem, server, allocation)
    arguments = ["--max-num-batched-tokens", str(profile.token_budget)] if profile.origin else []
    precision = None if profile.origin is None else profile.origin.precision
    if precision is None or precision == _published(problem, server.model):
        return arguments
    return [*arguments, *ARGUMENTS_OF[precision]] if precision in ARGUMENTS_OF else arguments


def _published(problem: Problem, model: str) -> str | None:
    """Return the precision of a model's weights as published, where the problem or the catalogue knows it."""
    from inferno_milp.profiles.catalogue import shipped_catalogue

    known = (*problem.language_models, *shipped_catalogue().language_models.values())
    return next((m.precision for m in known if model in (m.name, *m.aliases)), None)


def _other_engines(problem: Problem, plan: Plan) -> Iterator[str]:
    """Yield which allocations are planned with profiles of engines that vLLM's arguments do not make."""
    for server, allocation in _allocations(problem, plan):
        origin = _profile(problem, server, allocation).origin
        where = f"{server.name} on {allocation.accelerator} is planned with a profile of"
        if origin is None:
            continue
        if origin.engine not in (None, ENGINE):
            yield f"{where} {origin.engine}"
        made = {*ARGUMENTS_OF, _published(problem, server.model)}
        if origin.precision is not None and origin.precision not in made:
            yield f"{where} {origin.precision} weights, which need a checkpoint of their own"


def drain_seconds(problem: Problem, server: ServerPlan, allocation: Allocation) -> int:
    """Return how long the requests of a replica that goes away may take, s: TTFT's p95, and a long output's tokens.

    A long output is longer than 99 % of the server's, its lengths being lognormal about their mean.
    """
    load = next(s for s in problem.servers if s.name == server.name).load
    if load is None or allocation.itl_ms is None:
        return LEAST_DRAIN_S
    sizes = [(part.output_tokens, part.cv2_output) for part in load.mix] or [(load.output_tokens, load.cv2_output)]
    spreads = [(mean, math.log1p(cv2)) for mean, cv2 in sizes]
    tail = NormalDist().inv_cdf(0.99)
    longest = max(mean * math.exp(tail * math.sqrt(spread) - spread / 2) for mean, spread in spreads)
    ttft_ms = allocation.ttft_p95_ms or allocation.ttft_ms or 0.0
    return max(math.ceil((ttft_ms + longest * allocation.itl_ms) / 1000), LEAST_DRAIN_S)


def _bounds(problem: Problem, server: ServerPlan) -> tuple[int, int]:
    """Return the fewest and the most replicas of one of a server's deployments.

    A server's minimum is that of its only deployment. Of several, each may be empty: the loop keeps the minimum of all.
    """
    found = next(s for s in problem.servers if s.name == server.name)
    least = found.min_replicas if "min_replicas" in found.model_fields_set else LEAST_REPLICAS
    most = found.max_replicas or MOST_REPLICAS
    return min(least, most) if len(server.allocations) == 1 else 0, most


def _behavior(at_most: int) -> dict[str, Any]:
    """Return an HPA's behavior that follows what is published at once: that is stable already.

    Without `tolerance: 0` an HPA ignores changes of up to 10 %, as from 10 to 11 replicas.
    """
    at_once = {
        "stabilizationWindowSeconds": 0,
        "tolerance": "0",
        "policies": [{"type": "Pods", "value": at_most, "periodSeconds": 15}],
    }
    return {"scaleUp": at_once, "scaleDown": dict(at_once)}


def _hpa(problem: Problem, server: ServerPlan, name: str, namespace: str) -> dict[str, Any]:
    at_least, at_most = _bounds(problem, server)
    metric = {
        "type": "External",
        "external": {
            "metric": {
                "name": METRIC,
                "selector": {"matchLabels": {"variant_name": name, "namespace": namespace}},
            },
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(name, namespace),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            # Fewer than one are not HPA's to ask for, unless the cluster's feature HPAScaleToZero is on.
            "minReplicas": max(at_least, 1),
            "maxReplicas": at_most,
            "behavior": _behavior(at_most),
            "metrics": [metric],
        },
    }


def _keda(
    problem: Problem, server: ServerPlan, allocation: Allocation, name: str, namespace: str, prometheus_url: str
) -> dict[str, Any]:
    at_least, at_most = _bounds(problem, server)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(name, namespace),
        "spec": {
            "scaleTargetRef": {"name": name},
            "minReplicaCount": at_least,
            "maxReplicaCount": at_most,
            "pollingInterval": 15,
            "cooldownPeriod": 30,
            # Where Prometheus has no answer, what runs stays.
            "fallback": {"failureThreshold": 3, "replicas": allocation.replicas, "behavior": "currentReplicas"},
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(at_most)}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": prometheus_url,
                        "query": desired_query(name, namespace),
                        "threshold": "1",
                        "ignoreNullValues": "false",  # otherwise no answer is 0 replicas
                    },
                }
            ],
        },
    }


def desired_query(name: str, namespace: str) -> str:
    """Return PromQL for the replicas that a deployment is to have.

    All copies of the loop publish them; those of the copy that leads come first. A scrape that does not honor labels
    renames the metric's namespace.
    """
    found = " or ".join(
        f'{METRIC}{{variant_name="{name}",{label}="{namespace}"}}' for label in ("exported_namespace", "namespace")
    )
    return f"max(({found}) and on (instance) {LEADER} == 1) or max({found})"
