"""A Kubernetes cluster, through the official client: what runs, and the few things that the loop asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kubernetes import client as kubernetes

from inferno_milp.control.api_server import FIELD_MANAGER, ApiServer
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.containers import moved_container
from inferno_milp.control.fleet import ClusterError, Deployment, Fleet, Pod, devices_per_replica
from inferno_milp.control.nodes import devices_of, read_nodes
from inferno_milp.problem import Problem
from inferno_milp.problem.spelling import nearest
from inferno_milp.report.manifests import ACCELERATOR, BATCH, CLASS, MANAGED, MODEL, NAME

MOVED_AT, MOVED_FROM = "inferno.server.moved-at", "inferno.server.moved-from"


class KubernetesCluster:
    """Deployments of a cluster.

    Parameters
    ----------
    config : which ones.
    server : that is asked.
    """

    def __init__(self, config: ControlConfig, server: ApiServer):
        self._config = config
        self._server = server
        self.may_change: Callable[[], bool] = lambda: True
        self._devices: dict[tuple[str, str], int] = {}
        api = server.api
        self._apps, self._core = kubernetes.AppsV1Api(api), kubernetes.CoreV1Api(api)
        self._leases, self._scaling = kubernetes.CoordinationV1Api(api), kubernetes.AutoscalingV2Api(api)

    def read(self, problem: Problem) -> Fleet:
        """Return what runs of a problem's servers."""
        pieces = devices_per_replica(problem)
        self._devices = {
            (server.name, accelerator): count
            for server in problem.servers
            for (model, accelerator), count in pieces.items()
            if model == server.model
        }
        problems: list[str] = []
        found = []
        listed = self._config.kubernetes.deployments
        rivals = self._autoscalers(problems)
        for item in self._list(self._apps.list_deployment_for_all_namespaces, self._apps.list_namespaced_deployment):
            key = f"{item.metadata.namespace}/{item.metadata.name}"
            # What cannot be the value of a label, as a name with a slash, may be an annotation.
            labels = {**(item.metadata.annotations or {}), **(item.metadata.labels or {})}
            if key in listed:
                managed = listed[key]
                labels = {NAME: managed.server, ACCELERATOR: managed.accelerator, BATCH: managed.batch_size, **labels}
            elif str(labels.get(MANAGED, "")).lower() != "true":
                continue
            wrong = _wrong(problem, labels)
            wrong = wrong or _owner(item)
            if key in rivals:
                wrong = f"{rivals[key]} scales it too: `mode: publish`, or take that away"
            if wrong:
                problems.append(f"{key}: {wrong}")
            found.append((item, labels, bool(wrong)))
        pods = list(self._list(self._core.list_pod_for_all_namespaces, self._core.list_namespaced_pod)) if found else []
        deployments, aside = (
            tuple(self._deployment(item, labels, pods) for item, labels, is_wrong in found if is_wrong is which)
            for which in (False, True)
        )
        there = {d.key for d in (*deployments, *aside)}
        problems += [f"{key}: there is no such deployment" for key in listed if key not in there]
        if self._config.capacity.source == "problem":
            return Fleet(deployments, None, {}, tuple(problems), aside)
        own = {(d.namespace, pod.name) for d in (*deployments, *aside) for pod in d.pods}
        templates = [
            (str(labels.get(ACCELERATOR)), item.spec.template.spec.tolerations or []) for item, labels, _ in found
        ]
        devices, foreign = self._nodes(problem, templates, own, problems)
        return Fleet(deployments, devices, foreign, tuple(problems), aside)

    def scale(self, deployment: Deployment, replicas: int) -> None:
        """Set the scale subresource, if the deployment still asks for what it did when it was read.

        Its status changes all the time, and its version with it; what counts is whether somebody else scaled it.
        """
        where = (deployment.name, deployment.namespace)
        for _ in range(self._config.kubernetes.retries + 1):
            scale: Any = self._server.ask(self._apps.read_namespaced_deployment_scale, *where)
            if (scale.spec.replicas or 0) == replicas:
                return
            if (scale.spec.replicas or 0) != deployment.replicas:
                words = f"{deployment.key} was scaled by another, to {scale.spec.replicas or 0}"
                raise ClusterError("conflict", words)
            scale.spec.replicas = replicas
            try:
                self._change(self._apps.replace_namespaced_deployment_scale, *where, scale, field_manager=FIELD_MANAGER)
                return
            except ClusterError as error:
                if error.trouble != "conflict":
                    raise
        raise ClusterError("conflict", f"{deployment.key} changes all the time")

    def move(self, deployment: Deployment, accelerator: str, replicas: int, batch_size: int) -> None:
        """Apply other pods, server-side: node selector, batch size, devices, replicas, and the label that says so."""
        where = (deployment.name, deployment.namespace)
        item: Any = self._server.ask(self._apps.read_namespaced_deployment, *where)
        if item.metadata.resource_version != deployment.version and (item.spec.replicas or 0) != deployment.replicas:
            raise ClusterError("conflict", f"{deployment.key} was changed by another")
        settings = self._config.actuation
        devices = self._devices.get((deployment.server, accelerator), 1)
        container = moved_container(
            item.spec.template.spec.containers[0], settings, self._config.capacity.resources, batch_size, devices
        )
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": deployment.name,
                "namespace": deployment.namespace,
                "labels": {ACCELERATOR: accelerator, BATCH: str(batch_size)},
                "annotations": {MOVED_AT: datetime.now(UTC).isoformat(), MOVED_FROM: deployment.accelerator},
            },
            "spec": {
                "replicas": replicas,
                "template": {
                    "metadata": {"labels": {ACCELERATOR: accelerator}},
                    "spec": {
                        "nodeSelector": settings.node_selector.get(accelerator, {}),
                        "containers": [container],
                    },
                },
            },
        }
        self._change(
            self._apps.patch_namespaced_deployment,
            *where,
            body,
            field_manager=FIELD_MANAGER,
            force=True,
            _content_type="application/apply-patch+yaml",
        )

    def write_status(self, documents: Mapping[str, str]) -> None:
        """Keep the last round in a ConfigMap."""
        lease = self._config.lease
        body = kubernetes.V1ConfigMap(
            api_version="v1",
            kind="ConfigMap",
            metadata=kubernetes.V1ObjectMeta(name=lease.status, namespace=lease.namespace),
            data=dict(documents),
        )
        try:
            self._server.ask(self._core.replace_namespaced_config_map, lease.status, lease.namespace, body)
        except ClusterError as error:
            if error.trouble != "gone":
                raise
            self._server.ask(self._core.create_namespaced_config_map, lease.namespace, body)

    def read_status(self) -> Mapping[str, str]:
        """Return what the ConfigMap holds; empty if there is none."""
        lease = self._config.lease
        try:
            found: Any = self._server.ask(self._core.read_namespaced_config_map, lease.status, lease.namespace)
        except ClusterError as error:
            if error.trouble != "gone":
                raise
            return {}
        return found.data or {}

    def tell(self, deployment: Deployment, reason: str, words: str, *, is_warning: bool = False) -> None:
        """Post an event on a deployment."""
        now = datetime.now(UTC)
        event = kubernetes.CoreV1Event(
            metadata=kubernetes.V1ObjectMeta(generate_name=f"{deployment.name}.", namespace=deployment.namespace),
            involved_object=kubernetes.V1ObjectReference(
                api_version="apps/v1", kind="Deployment", name=deployment.name, namespace=deployment.namespace
            ),
            reason=reason,
            message=words[:1000],
            type="Warning" if is_warning else "Normal",
            first_timestamp=now,
            last_timestamp=now,
            count=1,
            source=kubernetes.V1EventSource(component=FIELD_MANAGER),
        )
        self._server.ask(self._core.create_namespaced_event, deployment.namespace, event)

    def read_lease(self) -> Mapping[str, Any] | None:
        """Return the lease, or None."""
        try:
            lease = self._config.lease
            found: Any = self._server.ask(self._leases.read_namespaced_lease, lease.name, lease.namespace)
        except ClusterError as error:
            if error.trouble == "gone":
                return None
            raise
        return {
            "holder": found.spec.holder_identity or "",
            "duration_s": found.spec.lease_duration_seconds,
            "transitions": found.spec.lease_transitions or 0,
            "version": found.metadata.resource_version,
        }

    def write_lease(self, holder: str, duration_s: float, now_s: float, before: Mapping[str, Any] | None) -> None:
        """Write the lease in the place of what was read; a `conflict` if it is no longer that."""
        settings, now = self._config.lease, datetime.fromtimestamp(now_s, UTC)
        changes = before is not None and before["holder"] != holder
        body = kubernetes.V1Lease(
            api_version="coordination.k8s.io/v1",
            kind="Lease",
            metadata=kubernetes.V1ObjectMeta(
                name=settings.name,
                namespace=settings.namespace,
                resource_version=None if before is None else before["version"],
            ),
            spec=kubernetes.V1LeaseSpec(
                holder_identity=holder,
                lease_duration_seconds=max(round(duration_s), 1),
                renew_time=now,
                lease_transitions=(0 if before is None else int(before["transitions"])) + changes,
            ),
        )
        if before is None:
            self._server.ask(self._leases.create_namespaced_lease, settings.namespace, body)
        else:
            self._server.ask(self._leases.replace_namespaced_lease, settings.name, settings.namespace, body)

    def _change(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Make a request that changes a deployment; no try of it comes when this copy may no longer act."""

        def guarded(*arguments: Any, **options: Any) -> Any:
            if not self.may_change():
                raise ClusterError("refused", "the lease ran out meanwhile")
            return request(*arguments, **options)

        return self._server.ask(guarded, *arguments, **options)

    def _list(self, everywhere: Callable[..., Any], in_one: Callable[..., Any]) -> Iterator[Any]:
        namespaces = self._config.kubernetes.namespaces
        for name in namespaces:
            yield from self._server.pages(in_one, name)
        if not namespaces:
            yield from self._server.pages(everywhere)

    def _autoscalers(self, problems: list[str]) -> dict[str, str]:
        """Find what else scales deployments, by their keys: HPAs, KEDA's among them."""
        if self._config.actuation.mode == "publish":
            return {}
        listing = self._scaling
        found = {}
        try:
            for item in self._list(
                listing.list_horizontal_pod_autoscaler_for_all_namespaces,
                listing.list_namespaced_horizontal_pod_autoscaler,
            ):
                target = item.spec.scale_target_ref
                if target.kind == "Deployment":
                    found[f"{item.metadata.namespace}/{target.name}"] = f"the HPA {item.metadata.name}"
        except ClusterError as error:
            if error.trouble not in ("forbidden", "gone"):
                raise
            problems.append(f"whether HPAs scale deployments too is not known: {error}")
        return found

    def _deployment(self, item: Any, labels: Mapping[str, Any], pods: Iterable[Any]) -> Deployment:
        wanted = item.spec.selector.match_labels or {}
        annotations = item.metadata.annotations or {}
        template = (item.spec.template.metadata and item.spec.template.metadata.labels) or {}
        before = annotations.get(MOVED_FROM) if ACCELERATOR in template else None
        own = [
            _pod(pod, str(labels.get(ACCELERATOR)), before)
            for pod in pods
            if pod.metadata.namespace == item.metadata.namespace
            and wanted.items() <= (pod.metadata.labels or {}).items()
            and pod.status.phase not in ("Succeeded", "Failed")
        ]
        batch = labels.get(BATCH)
        moved = annotations.get(MOVED_AT)
        return Deployment(
            namespace=item.metadata.namespace,
            name=item.metadata.name,
            server=str(labels.get(NAME)),
            accelerator=str(labels.get(ACCELERATOR)),
            replicas=item.spec.replicas or 0,
            pods=tuple(own),
            batch_size=int(batch) if batch and str(batch).isdecimal() else None,
            version=item.metadata.resource_version or "",
            moved_at_s=_seconds(moved),
        )

    def _nodes(
        self,
        problem: Problem,
        templates: Iterable[tuple[str, list[Any]]],
        own: set[tuple[str, str]],
        problems: list[str],
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Count the devices of each type in nodes that take pods, and those of them that others use.

        Parameters
        ----------
        templates : of each deployment: its accelerator, and the tolerations of its template.
        own : namespaces and names of the fleet's pods.
        """
        settings = self._config.capacity
        pods = list(self._server.pages(self._core.list_pod_for_all_namespaces))
        # Some clusters let pods tolerate the taint of a resource that they ask for; their templates do not have it.
        added = [
            toleration
            for pod in pods
            if (pod.metadata.namespace, pod.metadata.name) in own
            for toleration in pod.spec.tolerations or ()
            if toleration.key in settings.resources
        ]
        types = {a.name: a.type for a in problem.accelerators}
        tolerations: dict[str, list[list[Any]]] = {}
        for accelerator, given in templates:
            if accelerator in types:
                tolerations.setdefault(types[accelerator], []).append([*given, *added])
        found = read_nodes(self._server.pages(self._core.list_node), settings, tolerations)
        problems += found.problems
        foreign: dict[str, int] = {}
        for pod in pods:
            is_own = (pod.metadata.namespace, pod.metadata.name) in own
            home = (found.closed if is_own else found.open_).get(pod.spec.node_name or "")
            if home is None or pod.status.phase in ("Succeeded", "Failed"):
                continue
            limits = [(c.resources and c.resources.limits) or {} for c in pod.spec.containers]
            # What our own hold on a closed node is held and there; nobody else can have it.
            counted = found.devices if is_own else foreign
            counted[home] = counted.get(home, 0) + sum(devices_of(limit, settings) for limit in limits)
        return found.devices, {name: count for name, count in foreign.items() if count}


def _wrong(problem: Problem, labels: Mapping[str, Any]) -> str:
    servers = {s.name for s in problem.servers}
    accelerators = {a.name for a in problem.accelerators}
    name, accelerator = labels.get(NAME), labels.get(ACCELERATOR)
    if name not in servers:
        return f"label {NAME}: unknown server {name!r}; {nearest(str(name), servers)}"
    if accelerator not in accelerators:
        return f"label {ACCELERATOR}: unknown accelerator {accelerator!r}; {nearest(str(accelerator), accelerators)}"
    server = next(s for s in problem.servers if s.name == name)
    if (server.model, accelerator) not in {(p.model, p.accelerator) for p in problem.profiles}:
        return f"{server.model!r} has no profile on {accelerator!r}"
    for label, should in ((MODEL, server.model), (CLASS, server.service_class)):
        if labels.get(label, should) != should:
            return f"label {label} is {labels[label]!r}, and server {name!r} has {should!r}"
    batch = labels.get(BATCH)
    return f"label {BATCH}: {batch!r} is no batch size" if batch and not str(batch).isdecimal() else ""


def _pod(pod: Any, accelerator: str, before: str | None) -> Pod:
    """Read a pod; one that has no label, where its deployment's template has, is from before the first move."""
    runs_on = (pod.metadata.labels or {}).get(ACCELERATOR, before)
    other = runs_on if runs_on not in (None, accelerator) else None
    is_leaving = pod.metadata.deletion_timestamp is not None
    ready = [c for c in pod.status.conditions or () if c.type == "Ready" and c.status == "True"]
    since = _seconds(ready[0].last_transition_time) if ready and not is_leaving else None
    since = 0.0 if since is None and ready and not is_leaving else since
    return Pod(pod.metadata.name, since, is_leaving, other)


def _seconds(moment: Any) -> float | None:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    return moment.timestamp() if isinstance(moment, datetime) else None


def _owner(item: Any) -> str:
    """Return the controller that owns a deployment, and sets its replicas; nothing if none does."""
    owner = next((o for o in item.metadata.owner_references or () if o.controller), None)
    return "" if owner is None else f"the {owner.kind} {owner.name} owns it and sets its replicas"
