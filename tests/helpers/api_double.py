"""A double of the Kubernetes API server: objects, versions, conflicts, permissions, owners of fields, and faults.

Who has no token is `system:anonymous`, and may do nothing. TOKEN is that of the account of `manifests/control.yaml`,
which may do what its roles permit; ADMIN may do everything. Server-side apply is refused where it changes a field that
another manager owns.
"""

from __future__ import annotations

import copy
import json
import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kubernetes import client

TOKEN, ADMIN = "the-token-of-the-account", "the-token-of-an-administrator"
MANIFEST = Path(__file__).parent.parent.parent / "manifests" / "control.yaml"
VERBS = {"PUT": "update", "POST": "create", "PATCH": "patch", "DELETE": "delete", "WATCH": "watch"}
APPLY = "application/apply-patch+yaml"
ATOMIC = ("nodeSelector", "args", "command")
"""Parts that are owned and replaced as a whole."""
CREATOR = "kubectl-client-side-apply"
"""Manager of what a test puts."""


CRDS, OURS = "customresourcedefinitions", "/apis/inferno-milp.dev/"
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v[0-9a-z]+(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?"
    r"(?:/(?P<part>scale|status))?$"
)


class ApiDouble:
    """Objects by kind, namespace and name.

    Attributes
    ----------
    faults : consulted with method and path before every request: a status to answer with, seconds to wait, or None.
    requests : method and path of all requests.
    rules : what the account may do: by namespace ("" everywhere), the rules of its roles.
    refused : requests that were refused for want of a permission.
    """

    def __init__(self):
        self.rules = shipped_rules()
        self.refused: list[tuple[str, str, str]] = []
        self.owners: dict[tuple[str, str, str], dict[tuple[str, ...], set[str]]] = {}
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.faults: Callable[[str, str], int | float | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.on_change: Callable[[tuple[str, str, str], dict[str, Any]], None] = lambda key, item: None
        self.kinds: dict[str, str] = {}
        self._version = 0
        self._watchers: list[tuple[str, queue.Queue]] = []
        self._lock, self._closed = threading.RLock(), threading.Event()
        double = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def _answer(self):
                url = urlsplit(self.path)
                method = "WATCH" if parse_qs(url.query).get("watch") == ["true"] else self.command
                if not double.permits(method, url.path, self.headers.get("Authorization", "")):
                    double.requests.append((method, url.path))
                    text = json.dumps({"kind": "Status", "reason": "Forbidden", "code": 403}).encode()
                    self.send_response(403)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                    return None
                if parse_qs(url.query).get("watch") == ["true"]:
                    return double.stream(self, url.path, parse_qs(url.query))
                length = int(self.headers.get("Content-Length") or 0)
                body = yaml.safe_load(self.rfile.read(length)) if length else None
                query = parse_qs(url.query)
                if self.headers.get("Content-Type") == APPLY:
                    query["apply"] = ["true"]
                status, answer = double.handle(self.command, url.path, query, body)
                text = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                except ConnectionError:
                    pass
                return None

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def client(self, key="BearerToken"):
        """A client of the account; `key` is where its version keeps the token."""
        configuration = client.Configuration()
        configuration.host, configuration.retries = self.url, False
        configuration.api_key[key] = f"Bearer {TOKEN}"
        return client.ApiClient(configuration)

    def permits(self, method, path, authorization):
        """Whether who asks may do so; what there is may be asked by every account."""
        match = PATH.fullmatch(path)
        scheme, _, token = authorization.partition(" ")
        if (scheme, token) == ("Bearer", ADMIN):
            return True
        is_account = scheme.lower() == "bearer" and token == TOKEN
        if is_account and (match is None or (method == "GET" and self._discovery(path) is not None)):
            return True
        if match is not None and is_account:
            resource = match["kind"] + (f"/{match['part']}" if match["part"] else "")
            verb = VERBS.get(method, "get" if match["name"] else "list")
            wanted = (match["group"] or "", resource, verb, match["name"])
            places = {"", match["namespace"] or ""}
            if any(_is_permitted(rule, *wanted) for place in places for rule in self.rules.get(place, ())):
                return True
        self.refused.append((method, path, "the account" if is_account else "system:anonymous"))
        return False

    def close(self):
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, kind, item):
        """Keep an object, as its new version."""
        with self._lock:
            self._version += 1
            metadata = item["metadata"]
            metadata["resourceVersion"] = str(self._version)
            key = (kind, metadata.get("namespace", ""), metadata["name"])
            before = self.objects.get(key)
            metadata["uid"] = before["metadata"]["uid"] if before else str(self._version)
            generation = before["metadata"]["generation"] if before else 0
            is_same = before is not None and before.get("spec") == item.get("spec")
            metadata["generation"] = generation if is_same else generation + 1
            owned = self.owners.setdefault(key, {})
            for leaf in _leaves(item):
                owned.setdefault(leaf, {CREATOR})
            # A test may change the object that it put: what is kept is compared with what it was.
            self.objects[key] = item
            self._tell(kind, "MODIFIED" if before else "ADDED", item)
            self.on_change(key, item)
            return item

    def remove(self, kind, namespace, name):
        with self._lock:
            self._tell(kind, "DELETED", self.objects.pop((kind, namespace, name)))

    def _tell(self, kind, type_, item):
        for watched, events in self._watchers:
            if watched == kind:
                events.put({"type": type_, "object": copy.deepcopy(item)})

    def stream(self, handler, path, query):
        """Answer a watch: what changes from now on, line by line, until the reader goes or the double is closed."""
        match = PATH.fullmatch(path)
        self.requests.append(("WATCH", path))
        fault = self.faults("WATCH", path)
        if isinstance(fault, int) or match is None:
            handler.send_response(fault or 404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        events: queue.Queue = queue.Queue()
        since = int(query.get("resourceVersion", ["0"])[0])
        with self._lock:
            for (kind, _, _), item in self.objects.items():
                if kind == match["kind"] and int(item["metadata"]["resourceVersion"]) > since:
                    events.put({"type": "ADDED", "object": copy.deepcopy(item)})
            self._watchers.append((match["kind"], events))
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        try:
            while not self._closed.is_set():
                try:
                    event = events.get(timeout=0.1)
                except queue.Empty:
                    continue
                handler.wfile.write(json.dumps(event).encode() + b"\n")
                handler.wfile.flush()
        except OSError:
            pass
        handler.close_connection = True

    def _discovery(self, path):
        """Say which groups and kinds there are: those of `kinds`, plural by `group/version/Kind`."""
        by_place: dict[str, list[dict[str, Any]]] = {}
        always = {"v1/Namespace": "namespaces", "apiextensions.k8s.io/v1/CustomResourceDefinition": CRDS}
        for name, plural in (always | self.kinds).items():
            place, kind = name.rsplit("/", 1)
            verbs = ["get", "list", "watch", "patch", "create", "delete"]
            one = {
                "name": plural,
                "singularName": kind.lower(),
                "kind": kind,
                "namespaced": plural not in always.values(),
                "verbs": verbs,
            }
            by_place.setdefault(place, []).append(one)
        if path == "/api":
            return {"versions": ["v1"]}
        if path == "/api/v1":
            return {"groupVersion": "v1", "resources": by_place["v1"]}
        if path == "/apis":
            groups = {place.split("/")[0]: place for place in by_place if place != "v1"}
            return {
                "groups": [
                    {
                        "name": group,
                        "versions": [{"groupVersion": place, "version": place.split("/")[1]}],
                        "preferredVersion": {"groupVersion": place, "version": place.split("/")[1]},
                    }
                    for group, place in groups.items()
                ]
            }
        place = path.removeprefix("/apis/")
        return {"groupVersion": place, "resources": by_place[place]} if place in by_place else None

    def handle(self, method, path, query, body):
        self.requests.append((method, path))
        fault = self.faults(method, path)
        if isinstance(fault, int):
            return fault, {"kind": "Status", "status": "Failure", "code": fault, "reason": "injected"}
        if fault:
            time.sleep(fault)
        discovered = self._discovery(path) if method == "GET" else None
        if discovered is not None:
            return 200, discovered
        match = PATH.fullmatch(path)
        if match is None:
            return 404, {"message": f"no such path {path}"}
        if path.startswith(OURS) and match["kind"] not in self.kinds.values():
            return 404, {"message": "the server could not find the requested resource"}
        kind, namespace, name, part = (match[name] for name in ("kind", "namespace", "name", "part"))
        with self._lock:
            if name is None:
                return self._all(method, kind, namespace, body)
            item = self.objects.get((kind, namespace or "", name))
            if item is None:
                return 404, {"reason": "NotFound"}
            return self._one(method, kind, item, part, body, query)

    def _all(self, method, kind, namespace, body):
        if method == "GET":
            items = [
                copy.deepcopy(item)
                for (k, ns, _), item in self.objects.items()
                if k == kind and namespace in (None, ns)
            ]
            return 200, {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items}
        item = copy.deepcopy(body)
        item["metadata"].setdefault("namespace", namespace or "")
        if "name" not in item["metadata"]:
            item["metadata"]["name"] = f"{item['metadata']['generateName']}{self._version}"
        if (kind, namespace or "", item["metadata"]["name"]) in self.objects:
            return 409, {"reason": "AlreadyExists"}
        return 201, copy.deepcopy(self.put(kind, item))

    def _one(self, method, kind, item, part, body, query):
        if method == "GET":
            return 200, self._scale(item) if part == "scale" else copy.deepcopy(item)
        asked = (body.get("metadata") or {}).get("resourceVersion")
        if method == "PUT" and asked and asked != item["metadata"]["resourceVersion"]:
            return 409, {"reason": "Conflict"}
        key = (kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])
        manager = query.get("fieldManager", ["unknown"])[0]
        if part == "scale":
            item["spec"]["replicas"] = body["spec"].get("replicas") or 0
            self.owners[key]["spec", "replicas"] = {manager}
            self.put(kind, item)
            return 200, self._scale(item)
        if part == "status":
            new = {**item, "metadata": dict(item["metadata"])}
            new["status"] = _merge_patched(item.get("status", {}), body["status"])
            return 200, copy.deepcopy(self.put(kind, new))
        if "apply" in query:
            conflicts = self._applied(key, item, body, manager, is_forced=query.get("force") == ["true"])
            if conflicts:
                return 409, {"reason": "Conflict", "message": f"conflicts with {conflicts}"}
        new = copy.deepcopy(body) if method == "PUT" else _merged(item, body)
        new["metadata"] = {**new["metadata"], "namespace": item["metadata"].get("namespace", "")}
        return 200, copy.deepcopy(self.put(kind, new))

    def _applied(self, key, item, body, manager, *, is_forced):
        """Note who owns what is applied; return who else owns what would change, and is not overridden."""
        owned, now = self.owners[key], _leaves(item)
        wanted = {leaf: value for leaf, value in _leaves(body).items() if leaf[0] not in ("apiVersion", "kind")}
        for name in ("name", "namespace"):
            wanted.pop(("metadata", name), None)
        changed = {leaf for leaf, value in wanted.items() if leaf in now and now[leaf] != value}
        conflicts = {f"{other}: {'.'.join(leaf)}" for leaf in changed for other in owned.get(leaf, set()) - {manager}}
        if conflicts and not is_forced:
            return sorted(conflicts)
        for leaf in wanted:
            owned[leaf] = {manager} if leaf in changed else owned.get(leaf, set()) | {manager}
        return []

    def _scale(self, item):
        metadata = {name: item["metadata"].get(name) for name in ("name", "namespace", "resourceVersion")}
        return {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": metadata,
            "spec": {"replicas": item["spec"]["replicas"]},
            "status": {"replicas": item["spec"]["replicas"]},
        }


def _leaves(item, path=()):
    """Values by their paths; named parts of a list by their names."""
    if isinstance(item, dict) and not (path and path[-1] in ATOMIC):
        found = {}
        for key, value in item.items():
            found |= _leaves(value, (*path, key))
        return found
    if isinstance(item, list) and item and all(isinstance(part, dict) and "name" in part for part in item):
        found = {}
        for part in item:
            found |= _leaves({k: v for k, v in part.items() if k != "name"}, (*path, part["name"]))
        return found
    return {path: copy.deepcopy(item)}


def rule_for_moves():
    """The rule of `manifests/control.yaml` that is a comment until deployments may be moved."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if "Only for `actuation: {move: true}`" in line)
    (rule,) = yaml.safe_load(lines[at + 1].strip().removeprefix("#"))
    return rule


def shipped_rules():
    """The rules that `manifests/control.yaml` binds to the loop's account, by namespace."""
    items = list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    roles = {(item["kind"], item["metadata"]["name"]): item for item in items if item["kind"].endswith("Role")}
    found: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        if item["kind"].endswith("RoleBinding"):
            assert [subject["name"] for subject in item["subjects"]] == ["inferno-milp-control"]
            role = roles[item["roleRef"]["kind"], item["roleRef"]["name"]]
            found.setdefault(item["metadata"].get("namespace", ""), []).extend(role["rules"])
    return found


def _is_permitted(rule, group, resource, verb, name):
    names = rule.get("resourceNames")
    return (
        group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
        and (not names or name in names)
    )  # fmt: skip


def _merge_patched(item, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merge_patched(found.get(key), value)
    return found


def _merged(item, patch):
    """What an applied patch makes of an object: lists of containers are merged by name."""
    if isinstance(item, dict) and isinstance(patch, dict):
        return {**item, **{key: _merged(item.get(key), value) for key, value in patch.items()}}
    named = isinstance(item, list) and item and all(isinstance(part, dict) and "name" in part for part in item)
    if named and isinstance(patch, list):
        by_name = {part["name"]: part for part in patch}
        return [_merged(part, by_name.get(part["name"], {})) for part in item]
    return copy.deepcopy(patch)


def deployment(name, server, accelerator, replicas, namespace="llm", batch=64, **labels):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                "inferno.server.managed": "true",
                "inferno.server.name": server,
                "inferno.server.allocation.accelerator": accelerator,
                "inferno.server.allocation.maxbatchsize": str(batch),
                **labels,
            },
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "vllm", "image": "vllm", "args": ["--max-num-seqs", str(batch)]}]},
            },
        },
    }


def pod(name, app, namespace="llm", node="", devices=1, *, is_ready=True, is_leaving=False):
    since = "2026-01-01T00:00:00Z"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": app},
            **({"deletionTimestamp": since} if is_leaving else {}),
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "vllm", "resources": {"limits": {"nvidia.com/gpu": str(devices)}}}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(is_ready), "lastTransitionTime": since}],
        },
    }


def node(name, product, devices, *, is_ready=True, is_cordoned=False, taints=(), labels=None, **allocatable):
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product, **(labels or {})}},
        "spec": {"unschedulable": is_cordoned, "taints": list(taints)},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(devices), "cpu": "64", **allocatable},
            "conditions": [{"type": "Ready", "status": str(is_ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }


def put_deployments(double):
    """Put the deployments of `control_parts.problem()`, with their pods on one node."""
    for name, server, accelerator, count in (
        ("gold-a100", "gold", "A100", 2), ("gold-h100", "gold", "H100", 0), ("tin-a100", "tin", "A100", 1),
    ):  # fmt: skip
        double.put("deployments", deployment(name, server, accelerator, count))
        for i in range(count):
            double.put("pods", pod(f"{name}-{i}", name, node="n1"))


@contextmanager
def running_double():
    double = ApiDouble()
    try:
        yield double
    finally:
        double.close()
