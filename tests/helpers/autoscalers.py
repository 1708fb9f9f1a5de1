"""What HPA and KEDA make of an object and a metric, by their documentation."""

from __future__ import annotations

import math

TOLERANCE = 0.1
"""Of a cluster's HPAs, unless they have their own."""


def hpa_replicas(spec, value, current):
    """Return the replicas that an HPA asks for, by an external metric of the type AverageValue; no value: as it is."""
    external = spec["metrics"][0]["external"]
    assert external["target"]["type"] == "AverageValue"
    wanted = current
    if value is not None and current:
        target = float(external["target"]["averageValue"])
        ratio = value / (target * current)
        rules = spec["behavior"]["scaleUp" if ratio > 1 else "scaleDown"]
        if abs(ratio - 1) > float(rules.get("tolerance", TOLERANCE)):
            wanted = math.ceil(value / target)
    return min(max(wanted, spec["minReplicas"]), spec["maxReplicas"])


def keda_replicas(spec, value, current):
    """Return the replicas that KEDA and its HPA come to, once they settle; no value: the query's answer is empty."""
    trigger = spec["triggers"][0]["metadata"]
    if value is None and trigger.get("ignoreNullValues", "true") == "true":
        value = 0.0
    if value is None:
        behavior = spec.get("fallback", {}).get("behavior", "static")
        value = current if behavior == "currentReplicas" else spec["fallback"]["replicas"]
    least = spec["minReplicaCount"]
    if value <= 0 and least == 0:
        return 0
    hpa = {
        "metrics": [{"external": {"target": {"type": "AverageValue", "averageValue": trigger["threshold"]}}}],
        "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        "minReplicas": max(least, 1),
        "maxReplicas": spec["maxReplicaCount"],
    }
    return hpa_replicas(hpa, value, max(current, 1))
