"""What objects are told after a round: whether they are valid, and what became of a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from inferno_milp.control.report import Report, ServerReport
from inferno_milp.control.resources.reading import Object, key_of, name_of
from inferno_milp.errors import Fault
from inferno_milp.plan import ServerPlan

LONGEST = 2000
"""Characters of a message."""


def statuses(
    objects: Iterable[Object], faults: Mapping[str, tuple[Fault, ...]], report: Report, *, acts: bool
) -> Iterator[tuple[Object, dict[str, Any]]]:
    """Yield objects, each with what its status is to be.

    Parameters
    ----------
    faults : by object.
    acts : whether changes are made.
    """
    for item in objects:
        wrong = faults.get(key_of(item), ())
        said = _Conditions(item, report.at_s)
        said.add("Valid", not wrong, "Faulty" if wrong else "Read", "; ".join(map(_words, wrong)))
        status: dict[str, Any] = {}
        if item["kind"] == "Server" and not wrong:
            status = _server(item, report, said)
        if item["kind"] == "Optimizer":
            status = _optimizer(report, acts=acts)
        yield item, {"conditions": said.found, **status}


def _words(fault: Fault) -> str:
    return str(fault).removeprefix(f"{fault.file}: ")


def _server(item: Object, report: Report, said: _Conditions) -> dict[str, Any]:
    name = name_of(item)
    seen = report.servers.get(name)
    if seen is None:
        said.add("Served", None, "NoRound", "; ".join(report.errors))
        return {}
    plans = [plan.servers for plan in (report.plan, report.advice) if plan is not None]
    planned = next((server for servers in plans for server in servers if server.name == name), None)
    if planned is None:
        said.add("Served", None, "LeftAlone", seen.reason)
    else:
        why = "Planned" if planned.meets_targets else "TargetsMissed" if planned.is_carried else "Short"
        said.add("Served", planned.meets_targets, why, planned.reason or "")
    status: dict[str, Any] = {
        "current": [{"accelerator": a, "replicas": n, "ready": seen.ready.get(a, 0)} for a, n in seen.running.items()],
        "desired": list(_desired(seen, planned)),
        "summary": " + ".join(f"{n} × {a}" for a, n in (seen.target or {}).items()),
        "reason": seen.reason[:LONGEST],
    }
    if seen.waiting:
        status["waiting"] = seen.waiting
    if seen.planned_rate_per_s is not None:
        status["planned_rate_per_s"] = float(f"{seen.planned_rate_per_s:.3g}")
    if planned is not None:
        status["cost_per_hour"] = round(planned.cost_per_hour, 6)
    return status


def _desired(seen: ServerReport, planned: ServerPlan | None) -> Iterator[dict[str, Any]]:
    batches = {} if planned is None else {a.accelerator: a.batch_size for a in planned.allocations}
    for accelerator, replicas in (seen.target or {}).items():
        batch = {"batch_size": batches[accelerator]} if accelerator in batches else {}
        yield {"accelerator": accelerator, "replicas": replicas, **batch}


def _optimizer(report: Report, *, acts: bool) -> dict[str, Any]:
    document = report.to_dict()
    return {
        "state": "active" if acts else "paused",
        "round": report.round,
        "at": datetime.fromtimestamp(report.at_s, UTC).isoformat(timespec="seconds"),
        "plan": document["plan"],
        "running_cost_per_hour": report.running_cost_per_hour,
        "errors": [error[:LONGEST] for error in report.errors],
    }


class _Conditions:
    """Conditions of an object, which keep the time since when they are so."""

    def __init__(self, item: Object, at_s: float):
        before = (item.get("status") or {}).get("conditions") or []
        self._before = {condition.get("type"): condition for condition in before}
        self._now = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")
        self._generation = item["metadata"].get("generation", 0)
        self.found: list[dict[str, Any]] = []

    def add(self, type_: str, is_so: bool | None, reason: str, message: str) -> None:
        """Add one; None: not known."""
        status = "Unknown" if is_so is None else str(is_so)
        before = self._before.get(type_, {})
        since = before.get("lastTransitionTime") if before.get("status") == status else None
        self.found.append(
            {
                "type": type_,
                "status": status,
                "reason": reason,
                "message": message[:LONGEST],
                "lastTransitionTime": since or self._now,
                "observedGeneration": self._generation,
            }
        )
