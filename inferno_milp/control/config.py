"""How a control loop is set up: one YAML file, every fault of it told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from inferno_milp.control.queries import QUERIES
from inferno_milp.errors import Fault, InputError
from inferno_milp.problem import Problem
from inferno_milp.problem.fields import Count, Flag, Model, Name, NonNegative, Positive, PositiveCount
from inferno_milp.problem.reading import read_problem
from inferno_milp.problem.reading.source import Source, load_source
from inferno_milp.problem.reading.validate import validate
from inferno_milp.problem.spelling import nearest

Fraction = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2000)]
Port = Annotated[int, Field(strict=True, ge=0, le=65535)]
EngineName = Literal["vllm", "sglang", "tgi"]
Mode = Literal["scale", "publish", "manifests", "dry-run"]


class PrometheusSettings(Model):
    """Where measurements are from, and how long one may be relied on."""

    url: Url = "http://localhost:9090"
    """Of the Prometheus server."""
    engine: EngineName = "vllm"
    """Whose names of metrics are asked for."""
    queries: dict[Name, Annotated[str, Field(min_length=1, max_length=10_000)]] = Field(default_factory=dict)
    """PromQL in place of the engine's own, by the names of docs/control.md; `$selector` and `$window` are filled in."""
    selector: Annotated[str, Field(max_length=2000)] = ""
    """Labels that all series must have, as PromQL writes them: `job="vllm"`."""
    namespace_label: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "namespace"
    """Label that names the pod's namespace."""
    pod_label: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "pod"
    """Label that names the pod."""
    arrivals: dict[Name, Annotated[str, Field(min_length=1, max_length=10_000)]] = Field(default_factory=dict)
    """By server, PromQL for its arrival rate, requests/s, from a gateway: it is known where no replica runs."""
    window_s: Positive = 120.0
    """Window of the rates."""
    timeout_s: Positive = 5.0
    """Longest wait for one answer."""
    deadline_s: Positive = 20.0
    """Longest wait for all answers of a round, retries included."""
    retries: Count = 2
    """Further tries of a query."""
    max_age_s: Positive = 90.0
    """A sample older than this is stale."""
    hold_s: Positive = 600.0
    """How long the last good value stands in for a missing one; after that the server is frozen."""
    token_file: str | None = None
    """File that holds a bearer token; read anew for every round, since such tokens are renewed."""
    ca_file: str | None = None
    """Certificates of the authority that signed the server's."""
    verify: Flag = True
    """Whether the server's certificate is checked."""


class ForecastSettings(Model):
    """What load is planned for."""

    method: Literal["last", "trend", "seasonal"] = "last"
    """`last` value; damped `trend` of exponential smoothing; `seasonal`: that of the day, by STL."""
    quantile: Fraction = 0.9
    """Quantile of the load to come that is planned for."""
    startup_s: NonNegative = 120.0
    """Time from a decision to a replica that serves: how far ahead is looked, beyond the interval."""
    bin_s: Positive = 300.0
    """Bins of the history of `trend` and `seasonal`."""
    season_s: Positive = 86_400.0
    """Length of the season."""
    history_s: Positive = 1_209_600.0
    """How much history is asked for and kept."""


class StabilitySettings(Model):
    """What keeps answers from flapping. Scaling up is never delayed."""

    scale_down_after_s: NonNegative = 600.0
    """Fewer replicas, or another accelerator, only after that has been right for so long."""
    move_cooldown_s: NonNegative = 1800.0
    """A server that changed its accelerator keeps it for so long."""
    period_s: Positive = 60.0
    """Time within which `max_step` and `max_moves` hold, however many rounds there are in it."""
    max_step: PositiveCount = 100
    """Most replicas by which a deployment grows or shrinks in a period."""
    max_moves: Count = 2
    """Servers that may begin to change their accelerator in a period."""


class TrackingSettings(Model):
    """Profiles that follow what is observed (`fit --update`)."""

    enabled: Flag = False
    """Whether profiles follow the latencies observed."""
    forgetting: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.98
    """What is left of what was learnt after one more observation."""
    min_utilization: NonNegative = 0.02
    """Replicas less busy than this, as running requests per batch place, teach nothing."""


class KubernetesSettings(Model):
    """Which deployments are controlled, and where."""

    context: str | None = None
    """Of the kubeconfig; without one, the pod's own account, or the kubeconfig's current context."""
    namespaces: tuple[Name, ...] = ()
    """Where deployments are looked for; empty: everywhere."""
    deployments: dict[Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")], Managed] = Field(default_factory=dict)
    """By `namespace/name`, deployments that carry no labels of their own."""
    timeout_s: Positive = 10.0
    """Longest wait for one answer of the API server."""
    retries: Count = 3
    """Further tries of a request that may succeed later."""


class Managed(Model):
    """What a deployment serves, and on what."""

    server: Name
    """Server of the problem."""
    accelerator: Name
    """Accelerator that its pods run on."""
    batch_size: PositiveCount | None = None
    """Max batch size that its engines run with."""


KubernetesSettings.model_rebuild()


class CapacitySettings(Model):
    """How many devices there are."""

    source: Literal["problem", "nodes"] = "problem"
    """`problem`: what the problem says; `nodes`: what the cluster's nodes have, less what others use."""
    product_labels: tuple[Name, ...] = ("nvidia.com/gpu.product", "amd.com/gpu.product-name")
    """Labels of nodes that name their devices."""
    resources: tuple[Name, ...] = ("nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi")
    """Resources that count devices."""
    types: dict[Name, Name] = Field(default_factory=dict)
    """Accelerator type by the value of the label: `NVIDIA-H100-80GB-HBM3: H100`."""


class ActuationSettings(Model):
    """What is done with a plan."""

    mode: Mode = "scale"
    """`scale` deployments; `publish` metrics for HPA or KEDA; write `manifests`; or tell alone (`dry-run`)."""
    manifests: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """File that the mode `manifests` writes: the replicas of every deployment, for whoever applies them."""
    move: Flag = False
    """Whether a server's only deployment may be moved to another accelerator: node selector, batch size, label."""
    node_selector: dict[Name, dict[Name, Name]] = Field(default_factory=dict)
    """By accelerator, the node selector of pods that run on it; needed to move."""
    batch_size_argument: str = "--max-num-seqs"
    """Argument of the engine that a move sets."""
    tensor_parallel_arguments: tuple[Name, ...] = Field(
        default=("--tensor-parallel-size", "-tp", "--tp-size", "--tp", "--num-shard"), min_length=1
    )
    """Names of the engine's argument for the devices of a replica: a move sets the one that is there, or the first."""


class LeaseSettings(Model):
    """Who of several copies acts."""

    enabled: Flag = True
    """Whether there is an election at all."""
    namespace: Name = "inferno-milp"
    """Of the lease, and of the status object."""
    name: Name = "inferno-milp-control"
    """Of the lease."""
    duration_s: Positive = 30.0
    """After how long without renewal another copy takes over."""
    status: Name = "inferno-milp-status"
    """Name of the ConfigMap that holds the last round."""


class ResourceSettings(Model):
    """Whether the problem is in custom resources, instead of a file."""

    enabled: Flag = False
    """Whether it is."""
    namespaces: tuple[Name, ...] = ()
    """Where they are looked for; empty: everywhere."""


class ListenSettings(Model):
    """Where `/invoke`, `/status` and `/metrics` are."""

    host: Name = "0.0.0.0"
    port: Port = 8081
    token_file: str | None = None
    """File that holds the bearer token of `/invoke`, read for every request; without one, nobody may invoke a round."""


class ControlConfig(Model):
    """A control loop."""

    problem: Name = "problem.yaml"
    """The problem: accelerators, profiles, service classes, servers and their limits. Loads in it stand in for none."""
    interval_s: Positive = 60.0
    """Time between rounds."""
    time_limit_s: Positive = 20.0
    """Of the solver."""
    min_replicas: Count = 1
    """Fewest replicas of servers that the problem gives no minimum of their own."""
    prometheus: PrometheusSettings = PrometheusSettings()
    forecast: ForecastSettings = ForecastSettings()
    stability: StabilitySettings = StabilitySettings()
    tracking: TrackingSettings = TrackingSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    capacity: CapacitySettings = CapacitySettings()
    actuation: ActuationSettings = ActuationSettings()
    lease: LeaseSettings = LeaseSettings()
    resources: ResourceSettings = ResourceSettings()
    listen: ListenSettings = ListenSettings()


Check = Callable[[Problem], list[Fault]]
"""Finds what in a set-up does not fit to a problem."""


def read_control_config(path: str | PathLike[str]) -> tuple[ControlConfig, Problem | None, Check]:
    """Read the set-up of a control loop, and the problem that it names, relative to it.

    Returns
    -------
    Set-up, problem (None where it is in custom resources), and what finds faults of the one with regard to another.

    Raises
    ------
    InputError
        With every fault of both.
    """
    label, path = fspath(path), Path(path)
    source = load_source(path, label)
    validated = validate(ControlConfig, source.data)
    config, faults = validated.model, [*source.faults, *map(source.placed, validated.faults)]

    def check(problem: Problem) -> list[Fault]:
        return list(_faults(source, config, problem))

    if config.resources.enabled:
        if "problem" in source.data:
            faults.append(source.fault("the problem is in custom resources", "take this line out", ("problem",)))
        faults += _missing(source, config)
        if faults:
            raise InputError(faults)
        return config, None, check
    if "problem" not in source.data:
        faults.append(source.fault("problem is missing", "name the file of the problem", ("problem",)))
        raise InputError(faults)
    problem = None
    try:
        problem = read_problem(path.parent / config.problem)
    except InputError as error:
        faults += error.faults
    if problem is not None:
        faults += check(problem)
    faults += _missing(source, config)
    if faults or problem is None:
        raise InputError(faults)
    return config, problem, check


def _faults(source: Source, config: ControlConfig, problem: Problem) -> Iterator[Fault]:
    """Find names that nothing has, and settings that need others."""
    servers = {server.name for server in problem.servers}
    accelerators = {accelerator.name for accelerator in problem.accelerators}
    types = {accelerator.type for accelerator in problem.accelerators}
    queries = set(QUERIES[config.prometheus.engine])
    named: list[tuple[str, str, set[str], tuple[str, ...]]]
    named = [("server", name, servers, ("prometheus", "arrivals", name)) for name in config.prometheus.arrivals]
    named += [("query", name, queries, ("prometheus", "queries", name)) for name in config.prometheus.queries]
    for key, managed in config.kubernetes.deployments.items():
        place = ("kubernetes", "deployments", key)
        named.append(("server", managed.server, servers, (*place, "server")))
        named.append(("accelerator", managed.accelerator, accelerators, (*place, "accelerator")))
    named += [
        ("accelerator type", name, types, ("capacity", "types", key)) for key, name in config.capacity.types.items()
    ]
    selectors = config.actuation.node_selector
    named += [("accelerator", name, accelerators, ("actuation", "node_selector", name)) for name in selectors]
    for kind, name, known, path in named:
        if name not in known:
            yield source.fault(f"unknown {kind} {name!r}", nearest(name, known), path)
    without = sorted({p.accelerator for p in problem.profiles} - set(config.actuation.node_selector))
    if config.actuation.move and without:
        fault = f"deployments may move, and no node selectors are given for {', '.join(without)}"
        yield source.fault(fault, "give that of each accelerator", ("actuation",))


def _missing(source: Source, config: ControlConfig) -> Iterator[Fault]:
    """Find what the set-up lacks, whatever the problem is."""
    if config.capacity.source == "nodes" and not config.capacity.types:
        remedy = "say which type each value of the product label is: `types: {NVIDIA-L4: L4}`"
        yield source.fault("capacity is from nodes, and no types are given", remedy, ("capacity",))
    if (config.actuation.mode == "manifests") != (config.actuation.manifests is not None):
        remedy = "`mode: manifests` needs the file, and nothing else has a use for it"
        yield source.fault("mode and manifests do not go together", remedy, ("actuation",))
    if config.actuation.move and config.actuation.mode in ("publish", "manifests"):
        fault = f"mode {config.actuation.mode} cannot move a deployment: it says replicas alone"
        yield source.fault(fault, "take `move` out", ("actuation", "move"))
    if config.forecast.season_s < 2 * config.forecast.bin_s:
        yield source.fault("a season must have two bins or more", "bin_s is too long for it", ("forecast", "season_s"))
    ca_file = config.prometheus.ca_file
    if ca_file is not None and not Path(ca_file).is_file():
        yield source.fault(f"no such file {ca_file!r}", "", ("prometheus", "ca_file"))
