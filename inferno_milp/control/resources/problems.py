"""The problem as it stands in the cluster's custom resources: read anew for every round, and told what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client as kubernetes

from inferno_milp.control.api_server import FIELD_MANAGER, ApiServer
from inferno_milp.control.fleet import ClusterError
from inferno_milp.control.problems import Setting
from inferno_milp.control.report import Report
from inferno_milp.control.resources.kinds import BY_NAME, GROUP, KINDS, VERSION
from inferno_milp.control.resources.reading import Object, Reading, key_of, name_of, read_objects
from inferno_milp.control.resources.statuses import statuses
from inferno_milp.errors import Fault
from inferno_milp.problem import Problem

NONE = f"there are no objects of {GROUP}: kubectl apply -f your Accelerators, Models, ServiceClasses and Servers"
UNDEFINED = f"kinds of {GROUP} are not defined: kubectl apply -f manifests/crds.yaml"


@dataclass(slots=True)
class ResourceProblems:
    """Problems from objects.

    While objects are wrong that others build on, the last problem that was right stays.

    Attributes
    ----------
    server : that keeps them.
    namespaces : that they are in; empty: all.
    counts_nodes : whether devices are counted in the cluster's nodes.
    check : finds what in the loop's set-up does not fit to a problem.
    """

    server: ApiServer
    namespaces: tuple[str, ...] = ()
    counts_nodes: bool = False
    check: Callable[[Problem], Iterable[Fault]] = lambda problem: ()
    _objects: tuple[Object, ...] = field(default=(), init=False)
    _reading: Reading = field(default=Reading(None, {}), init=False)
    _last: Problem | None = field(default=None, init=False)
    _acts: bool = field(default=True, init=False)

    def latest(self) -> Setting:
        """Return the problem of the objects as they are now."""
        self._objects, self._reading = (), Reading(None, {})  # nobody is told anything of objects that cannot be read
        self._objects = tuple(self._list())
        if not self._objects:
            self._last = None
            return Setting(None, (NONE,), plans_undeployed=True)
        self._reading = read_objects(self._objects, counts_nodes=self.counts_nodes)
        errors = [str(fault) for faults in self._reading.faults.values() for fault in faults]
        if self._reading.problem is not None:
            self._last = self._reading.problem
        else:
            self._last = self._without_faulty(self._last)
            errors += ["the last problem without faults stays"] if self._last is not None else []
        misfits = [] if self._last is None else [str(fault) for fault in self.check(self._last)]
        errors += misfits
        optimizers = [item.get("spec") for item in self._objects if item["kind"] == "Optimizer"]
        wanted = all(isinstance(spec, dict) and spec.get("optimize", True) is True for spec in optimizers)
        self._acts = wanted and not misfits  # as at the start, a set-up that does not fit changes nothing
        return Setting(self._last, tuple(errors), self._acts, plans_undeployed=True)

    def _without_faulty(self, problem: Problem | None) -> Problem | None:
        """Return a problem with those of its servers alone that are there still, and are not faulty."""
        if problem is None:
            return None
        healthy = {
            name_of(item)
            for item in self._objects
            if item["kind"] == "Server" and key_of(item) not in self._reading.faults
        }
        servers = tuple(server for server in problem.servers if server.name in healthy)
        return problem.model_copy(update={"servers": servers}) if servers else None

    def tell(self, report: Report) -> Iterator[str]:
        """Write the statuses that are not as they should be; one that is refused keeps none of the others from it."""
        for item, status in statuses(self._objects, self._reading.faults, report, acts=self._acts):
            if item.get("status") == status:
                continue
            try:
                self._write(item, status)
            except ClusterError as error:
                yield f"{key_of(item)}: {error}"

    def _list(self) -> Iterator[Object]:
        api = kubernetes.CustomObjectsApi(self.server.api)
        for kind in KINDS:
            try:
                for place in self.namespaces or (None,):
                    if place is None:
                        found = self.server.pages(api.list_cluster_custom_object, GROUP, VERSION, kind.plural)
                    else:
                        where = (GROUP, VERSION, place, kind.plural)
                        found = self.server.pages(api.list_namespaced_custom_object, *where)
                    # The items of a list need not say what they are.
                    yield from ({**item, "kind": kind.name} for item in found)
            except ClusterError as error:
                if error.trouble != "gone":
                    raise
                raise ClusterError("gone", UNDEFINED) from None

    def _write(self, item: Object, status: dict[str, Any]) -> None:
        api = kubernetes.CustomObjectsApi(self.server.api)
        metadata = item["metadata"]
        where = (GROUP, VERSION, metadata["namespace"], BY_NAME[item["kind"]].plural, metadata["name"])
        body = {"status": merge_patch(item.get("status") or {}, status)}
        try:
            self.server.ask(
                api.patch_namespaced_custom_object_status,
                *where,
                body,
                field_manager=FIELD_MANAGER,
                _content_type="application/merge-patch+json",
            )
        except ClusterError as error:
            if error.trouble != "gone":  # it was deleted meanwhile
                raise


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7386) that makes one of the other: what is no longer there is named, as null."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        same = before.get(key)
        patch[key] = merge_patch(same, value) if isinstance(value, dict) and isinstance(same, dict) else value
    return patch
