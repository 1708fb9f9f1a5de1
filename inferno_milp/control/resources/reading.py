"""Objects → `Problem`, every fault placed in its object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inferno_milp.control.resources.kinds import BY_NAME, Kind
from inferno_milp.errors import Fault, InputError
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.document import read_document
from inferno_milp.problem.reading.source import Source

Object = Mapping[str, Any]


def key_of(item: Object) -> str:
    """Return kind, namespace and name, as faults name an object."""
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def name_of(item: Object) -> str:
    """Return what an object is called in a problem."""
    spec = item.get("spec")
    name = spec.get("name") if isinstance(spec, dict) else None
    return str(name or item["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Reading:
    """What objects come to.

    Attributes
    ----------
    problem : of all objects; if only servers are wrong, of the others; None if it cannot be said.
    faults : by object; under the empty key those of the whole.
    """

    problem: Problem | None
    faults: Mapping[str, tuple[Fault, ...]]


def read_objects(objects: Iterable[Object], *, counts_nodes: bool = False) -> Reading:
    """Read a problem from its objects.

    Parameters
    ----------
    objects : of the kinds of `kinds.KINDS`, as the API server gives them.
    counts_nodes : whether the devices are counted in the cluster, so that no Capacity is needed.
    """
    listed = list(objects)
    faults: dict[str, tuple[Fault, ...]] = {}
    while True:
        rest = [item for item in listed if key_of(item) not in faults]
        try:
            return Reading(_read(rest, counts_nodes=counts_nodes), faults)
        except InputError as error:
            found = _by_object(rest, error.faults)
        faults |= found
        # Not all faults need be told at once: others may come to light. Without any server there is no problem.
        if not all(key.startswith("Server ") for key in found) or not any(i["kind"] == "Server" for i in rest):
            return Reading(None, faults)


def _read(objects: list[Object], *, counts_nodes: bool) -> Problem:
    sources = {str(i): _source(item) for i, item in enumerate(objects)}
    data: dict[str, Any] = {"include": list(sources)}
    if counts_nodes and not any(item["kind"] == "Capacity" for item in objects):
        data["capacity"] = "unlimited"
    return read_document(Source("", Path(), data, ""), lambda path, label, name: sources[name])


def _source(item: Object) -> Source:
    kind, key = BY_NAME[item["kind"]], key_of(item)
    spec = item.get("spec")
    if isinstance(spec, dict):
        faults = [replace(fault, file=key, path=("spec", *fault.path)) for fault in kind.faults(spec)]
        known = {name: value for name, value in spec.items() if name in kind.spec.model_fields or not kind.own}
        return Source(key, Path(key), kind.document(known, item["metadata"]["name"]), "", faults)
    return Source(key, Path(key), {}, "", [Fault("must be a mapping", "", ("spec",), key)])


def _by_object(objects: Iterable[Object], faults: Iterable[Fault]) -> dict[str, tuple[Fault, ...]]:
    kinds: dict[str, Kind] = {key_of(item): BY_NAME[item["kind"]] for item in objects}
    found: dict[str, tuple[Fault, ...]] = {}
    for fault in faults:
        if fault.file in kinds and fault.path[:1] != ("spec",):
            fault = replace(fault, path=kinds[fault.file].place(fault.path))
        key = fault.file if fault.file in kinds else ""
        if fault not in found.get(key, ()):
            found[key] = (*found.get(key, ()), fault)
    return found
