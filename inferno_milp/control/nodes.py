"""Devices in a cluster's nodes: whole ones that the fleet's pods may have; other nodes are named with their reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from inferno_milp.control.config import CapacitySettings

MIG, SHARES = "nvidia.com/mig-", "nvidia.com/gpu.replicas"
"""Resources that are slices of devices; and the label of a node whose devices are shared, with pods per device."""
KEEPS_AWAY = ("NoSchedule", "NoExecute")


@dataclass(slots=True)
class Nodes:
    """Nodes with devices of known types.

    Attributes
    ----------
    devices : by type, in the nodes that take the fleet's pods.
    open_, closed : type by node: of those that take them, and of those that do not.
    problems : why nodes are not counted.
    """

    devices: dict[str, int] = field(default_factory=dict)
    open_: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_nodes(
    nodes: Iterable[Any], settings: CapacitySettings, tolerations: Mapping[str, Iterable[Iterable[Any]]]
) -> Nodes:
    """Count the whole devices in nodes that take the fleet's pods.

    Parameters
    ----------
    nodes : as the official client has them.
    tolerations : by accelerator type, those of every deployment that runs on it; a node counts if all tolerate it.
    """
    found, unknown = Nodes(), set()
    for node in nodes:
        labels = node.metadata.labels or {}
        product = next((labels[name] for name in settings.product_labels if name in labels), None)
        if product is None:
            continue
        type_name = settings.types.get(product)
        if type_name is None:
            unknown.add(product)
            continue
        name, allocatable = node.metadata.name, node.status.allocatable or {}
        reason = _reserved(node, tolerations.get(type_name) or ((),)) or _shared(labels)
        if reason:
            found.problems.append(f"node {name} is not counted: {reason}")
        ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ())
        if reason or not ready or node.spec.unschedulable:
            found.closed[name] = type_name
            continue
        slices = sum(_count(amount) for resource, amount in allocatable.items() if resource.startswith(MIG))
        if slices:
            found.problems.append(f"node {name}: its {slices} MIG slices are not counted, only whole devices are")
        found.open_[name] = type_name
        found.devices[type_name] = found.devices.get(type_name, 0) + devices_of(allocatable, settings)
    found.problems += [f"capacity.types does not say which type {product!r} is" for product in sorted(unknown)]
    return found


def devices_of(amounts: Mapping[str, Any], settings: CapacitySettings) -> int:
    """Count the devices in amounts of resources."""
    return sum(_count(amounts[name]) for name in settings.resources if name in amounts)


def _count(amount: Any) -> int:
    return int(parse_quantity(amount))  # type: ignore[no-untyped-call]


def _reserved(node: Any, tolerations: Iterable[Iterable[Any]]) -> str:
    """Return the taint that keeps some of the fleet's pods away."""
    listed = [list(own) for own in tolerations]
    for taint in node.spec.taints or ():
        if taint.effect in KEEPS_AWAY and not all(any(_tolerates(t, taint) for t in own) for own in listed):
            value = f"={taint.value}" if taint.value else ""
            return f"not all pods for it tolerate its taint {taint.key}{value}:{taint.effect}"
    return ""


def _tolerates(toleration: Any, taint: Any) -> bool:
    """Whether a pod may stay on a node for good, by Kubernetes' rules of taints and tolerations."""
    if toleration.toleration_seconds is not None or toleration.effect not in (None, "", taint.effect):
        return False
    if toleration.operator == "Exists":
        return toleration.key in (None, "", taint.key)
    return toleration.key == taint.key and (toleration.value or "") == (taint.value or "")


def _shared(labels: Mapping[str, str]) -> str:
    shares = labels.get(SHARES, "1")
    return f"its devices are shared by {shares} pods each" if shares not in ("0", "1") else ""
