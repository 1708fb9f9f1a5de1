"""`Problem` → objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from inferno_milp.control.resources.kinds import GROUP, VERSION
from inferno_milp.errors import OptionError
from inferno_milp.problem import Problem
from inferno_milp.report.manifests import deployment_name


def objects_text(problem: Problem, namespace: str) -> str:
    """Return a problem as custom resources, YAML documents.

    Raises
    ------
    OptionError
        If two of its names come to the same name of an object.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, title, spec in _specs(problem):
        name = deployment_name(title)
        if (kind, name) in found:
            raise OptionError(f"two of {kind} come to the name {name!r}: rename one")
        if name != title and kind not in ("Capacity", "Optimizer"):
            spec = {"name": title, **spec}
        metadata = {"name": name, "namespace": namespace}
        found[kind, name] = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}
    return yaml.safe_dump_all(found.values(), sort_keys=False, allow_unicode=True, width=120)


def _specs(problem: Problem) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield kind, name and spec; names within a spec are left out where they are the object's."""
    data = problem.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    for item in data.get("accelerators", ()):
        yield "Accelerator", *_without(item, "name")
    capacity: dict[str, Any] = {"unlimited": True} if problem.capacity is None else {"devices": problem.capacity}
    yield "Capacity", "capacity", {**capacity, **({"nodes": data["nodes"]} if problem.nodes else {})}
    models: dict[str, dict[str, Any]] = {}
    for item in data.get("profiles", ()):
        title, profile = _without(item, "model")
        models.setdefault(title, {}).setdefault("profiles", []).append(profile)
    for item in data.get("language_models", ()):
        title, architecture = _without(item, "name")
        models.setdefault(title, {})["architecture"] = architecture
    for title, spec in models.items():
        yield "Model", title, spec
    for item in data.get("service_classes", ()):
        yield "ServiceClass", *_without(item, "name")
    for item, server in zip(data.get("servers", ()), problem.servers, strict=True):
        yield "Server", *_without({**item, "name": server.name}, "name")
    options = data.get("options", {})
    head: dict[str, Any] = {"optimize": True, "name": problem.name, "currency": problem.currency}
    if problem.latencies_ms:
        head["latencies_ms"] = problem.latencies_ms
    yield "Optimizer", "optimizer", {**head, **({"options": options} if options else {})}


def _without(item: dict[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    return item[key], {name: value for name, value in item.items() if name != key}
