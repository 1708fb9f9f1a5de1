"""CustomResourceDefinitions: the schemas of a problem's sections in the words of Kubernetes' structural schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from inferno_milp.control.resources.kinds import GROUP, KINDS, VERSION, Kind

KEPT = ("type", "description", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minProperties")
ANYTHING = {"x-kubernetes-preserve-unknown-fields": True}
CONDITION = {
    "type": "object",
    "required": ["type", "status"],
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": {"type": "string"},
        "message": {"type": "string"},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "observedGeneration": {"type": "integer", "format": "int64"},
    },
}


def definitions_text() -> str:
    """Return the definitions as YAML documents, as `manifests/crds.yaml` has them."""
    return yaml.safe_dump_all(map(definition, KINDS), sort_keys=False, allow_unicode=True, width=120)


def definition(kind: Kind) -> dict[str, Any]:
    """Return the definition of a kind."""
    whole = kind.spec.model_json_schema()
    spec = structural(whole, whole.get("$defs", {}))
    for name in kind.loose:
        spec["properties"][name] = {"description": spec["properties"][name]["description"], **ANYTHING}
    for path, names in kind.given.items():
        part = spec
        for key in path:
            part = part["properties"][key]
            part = part.get("items", part)
        part["required"] = [name for name in part.get("required", ()) if name not in names]
        if not part["required"]:
            del part["required"]
        if path:
            for name in names:
                if name in ("model", "name"):
                    del part["properties"][name]
    condition_list = {"type": "array", "items": CONDITION, "x-kubernetes-list-type": "map"}
    conditions = {**condition_list, "x-kubernetes-list-map-keys": ["type"]}
    status = {"type": "object", "properties": {"conditions": conditions}, **ANYTHING}
    schema = {
        "type": "object",
        "description": _first_line(kind.spec.__doc__),
        "required": ["spec"],
        "properties": {"spec": spec, "status": status},
    }
    singular = kind.name.lower()
    columns = [{"name": title, "type": type_, "jsonPath": path} for title, type_, path in kind.columns]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "categories": ["inferno"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }


def structural(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema as a structural one: nothing referred to, no null, no choice between types.

    What has a choice between types may be anything there; the reader of problems says what is wrong with it.
    """
    if "$ref" in schema:
        named = shared[schema["$ref"].rsplit("/", 1)[1]]
        return structural({**named, **{key: value for key, value in schema.items() if key != "$ref"}}, shared)
    choices = [choice for choice in schema.get("anyOf", schema.get("oneOf", ())) if choice.get("type") != "null"]
    said = {"description": schema["description"]} if "description" in schema else {}
    if len(choices) == 1:
        return structural({**choices[0], **said}, shared)
    if choices:
        return {**said, **ANYTHING}
    found = _scalar(schema)
    if "properties" in schema:
        found["properties"] = {name: structural(part, shared) for name, part in schema["properties"].items()}
        if schema.get("required"):
            found["required"] = list(schema["required"])
    elif schema.get("type") == "object":
        values = [*schema.get("patternProperties", {}).values()] or [schema.get("additionalProperties") or {}]
        found["additionalProperties"] = structural(values[0], shared) or ANYTHING
    if "items" in schema:
        found["items"] = structural(schema["items"], shared)
    return found


def _scalar(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a schema says of the value itself, not of its parts."""
    found = {key: schema[key] for key in KEPT if key in schema}
    if "description" in found:
        found["description"] = " ".join(str(found["description"]).split())
    if "const" in schema:
        found["enum"] = [schema["const"]]
    for key, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in schema:
            found |= {key: schema[exclusive], exclusive: True}
    return found


def _first_line(words: str | None) -> str:
    return (words or "").strip().splitlines()[0]
