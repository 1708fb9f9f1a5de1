"""A double of the Kubernetes API server: it keeps objects, versions and conflicts, and fails when it is told to."""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?"
    r"(?:/(?P<part>scale|status))?$"
)


class ApiDouble:
    """Objects by kind, namespace and name.

    Attributes
    ----------
    faults : consulted with method and path before every request: a status to answer with, seconds to wait, or None.
    requests : method and path of all requests.
    """

    def __init__(self):
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.faults: Callable[[str, str], int | float | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.on_change: Callable[[tuple[str, str, str], dict[str, Any]], None] = lambda key, item: None
        self._version = 0
        self._lock = threading.RLock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def _answer(self):
                url = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, answer = double.handle(self.command, url.path, parse_qs(url.query), body)
                text = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                except ConnectionError:
                    pass

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def client(self):
        configuration = client.Configuration()
        configuration.host, configuration.retries = self.url, False
        return client.ApiClient(configuration)

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def put(self, kind, item):
        """Keep an object, as its new version."""
        with self._lock:
            self._version += 1
            metadata = item["metadata"]
            metadata["resourceVersion"] = str(self._version)
            key = (kind, metadata.get("namespace", ""), metadata["name"])
            self.objects[key] = item
            self.on_change(key, item)
            return item

    def handle(self, method, path, query, body):
        self.requests.append((method, path))
        fault = self.faults(method, path)
        if isinstance(fault, int):
            return fault, {"kind": "Status", "status": "Failure", "code": fault, "reason": "injected"}
        if fault:
            time.sleep(fault)
        match = PATH.fullmatch(path)
        if match is None:
            return 404, {"message": f"no such path {path}"}
        kind, namespace, name, part = (match[name] for name in ("kind", "namespace", "name", "part"))
        with self._lock:
            if name is None and method == "GET":
                items = [
                    copy.deepcopy(item)
                    for (k, ns, _), item in self.objects.items()
                    if k == kind and namespace in (None, ns)
                ]
                return 200, {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items}
            if method == "POST":
                item = copy.deepcopy(body)
                item["metadata"].setdefault("namespace", namespace or "")
                if "name" not in item["metadata"]:
                    item["metadata"]["name"] = f"{item['metadata']['generateName']}{self._version}"
                if (kind, namespace or "", item["metadata"]["name"]) in self.objects:
                    return 409, {"reason": "AlreadyExists"}
                return 201, copy.deepcopy(self.put(kind, item))
            item = self.objects.get((kind, namespace or "", name))
            if item is None:
                return 404, {"reason": "NotFound"}
            return self._one(method, kind, item, part, body)

    def _one(self, method, kind, item, part, body):
        if method == "GET":
            return 200, self._scale(item) if part == "scale" else copy.deepcopy(item)
        asked = (body.get("metadata") or {}).get("resourceVersion")
        if method == "PUT" and asked and asked != item["metadata"]["resourceVersion"]:
            return 409, {"reason": "Conflict"}
        if part == "scale":
            item["spec"]["replicas"] = body["spec"].get("replicas") or 0
            self.put(kind, item)
            return 200, self._scale(item)
        new = copy.deepcopy(body) if method == "PUT" else _merged(item, body)
        new["metadata"] = {**new["metadata"], "namespace": item["metadata"].get("namespace", "")}
        return 200, copy.deepcopy(self.put(kind, new))

    def _scale(self, item):
        metadata = {name: item["metadata"].get(name) for name in ("name", "namespace", "resourceVersion")}
        return {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": metadata,
            "spec": {"replicas": item["spec"]["replicas"]},
            "status": {"replicas": item["spec"]["replicas"]},
        }


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


def node(name, product, devices, *, is_ready=True, is_cordoned=False):
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "spec": {"unschedulable": is_cordoned},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(devices), "cpu": "64"},
            "conditions": [{"type": "Ready", "status": str(is_ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }


@contextmanager
def running_double():
    double = ApiDouble()
    try:
        yield double
    finally:
        double.close()
