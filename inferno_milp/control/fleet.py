"""What runs in a cluster, as the loop sees it, and what it may ask of a cluster: a plug point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from inferno_milp.errors import InfernoError
from inferno_milp.problem import Problem

Trouble = Literal["conflict", "gone", "forbidden", "throttled", "unavailable", "refused"]
"""Somebody else changed it; it is no longer there; not permitted; too many requests; no answer; a request that cannot
be."""


class ClusterError(InfernoError):
    """A request to the cluster that came to nothing.

    Attributes
    ----------
    trouble : what kind it is.
    """

    def __init__(self, trouble: Trouble, words: str):
        self.trouble = trouble
        super().__init__(f"{trouble}: {words}")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that holds devices.

    Attributes
    ----------
    ready_since_s : since when it serves; None if it does not yet, or is going away.
    accelerator : that it runs on, where that is another than its deployment's: one from before a move.
    """

    name: str
    ready_since_s: float | None
    is_leaving: bool = False
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Replicas of a server on one accelerator.

    Attributes
    ----------
    replicas : that are asked for.
    pods : those that hold devices, those that are going away included.
    batch_size : max batch size that its engines run with; None where not known.
    version : of the object in the cluster.
    moved_at_s : when it changed its accelerator; None: never, as far as is known.
    """

    namespace: str
    name: str
    server: str
    accelerator: str
    replicas: int
    pods: tuple[Pod, ...] = ()
    batch_size: int | None = None
    version: str = ""
    moved_at_s: float | None = None

    @property
    def key(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}"

    @property
    def ready(self) -> int:
        """Pods that serve."""
        return sum(pod.ready_since_s is not None and pod.accelerator is None for pod in self.pods)

    @property
    def holding(self) -> int:
        """Replicas whose devices are not free: those that are asked for, or that are there still."""
        own = [pod for pod in self.pods if pod.accelerator is None]
        return max(self.replicas + sum(pod.is_leaving for pod in own), len(own))


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs.

    Attributes
    ----------
    deployments : those that are controlled.
    devices : of each type in the cluster's nodes; None where these were not asked.
    foreign : devices of each type that others use.
    problems : what is wrong with what was found: labels that name nothing, products of no known type.
    set_aside : deployments with a wrong label: they are left alone, and so is their server.
    """

    deployments: tuple[Deployment, ...]
    devices: Mapping[str, int] | None = None
    foreign: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    set_aside: tuple[Deployment, ...] = ()

    @property
    def holders(self) -> tuple[Deployment, ...]:
        """All deployments whose devices are not there for others."""
        return (*self.deployments, *self.set_aside)

    def of(self, server: str) -> tuple[Deployment, ...]:
        """Return the deployments of a server."""
        return tuple(d for d in self.deployments if d.server == server)


class Cluster(Protocol):
    """What the loop asks of a cluster. Every request may raise ClusterError."""

    def read(self, problem: Problem) -> Fleet:
        """Return what runs of a problem's servers."""

    def scale(self, deployment: Deployment, replicas: int) -> None:
        """Ask for so many replicas, if the deployment is as it was read."""

    def move(self, deployment: Deployment, accelerator: str, replicas: int, batch_size: int) -> None:
        """Ask for other pods: on another accelerator, with another batch size."""

    def write_status(self, documents: Mapping[str, str]) -> None:
        """Keep what the last round found and did."""

    def read_status(self) -> Mapping[str, str]:
        """Return what was kept last; empty if nothing was."""

    def tell(self, deployment: Deployment, reason: str, words: str, *, is_warning: bool = False) -> None:
        """Record on a deployment what was done, and why, for whoever looks at it."""


def devices_per_replica(problem: Problem) -> dict[tuple[str, str], int]:
    """Return the devices that a replica takes, by model and accelerator."""
    devices = {a.name: a.devices for a in problem.accelerators}
    return {pair: count * devices[pair[1]] for pair, count in problem.accelerators_per_replica.items()}


def devices_wanted(problem: Problem, targets: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Count the devices of each type that replicas take, by server and accelerator."""
    pieces, models = devices_per_replica(problem), {s.name: s.model for s in problem.servers}
    types = {a.name: a.type for a in problem.accelerators}
    found: dict[str, int] = {}
    for server, replicas in targets.items():
        for accelerator, count in replicas.items():
            type_name = types[accelerator]
            found[type_name] = found.get(type_name, 0) + count * pieces[models[server], accelerator]
    return found


def devices_held(problem: Problem, deployments: Iterable[Deployment]) -> dict[str, int]:
    """Count the devices of each type that deployments hold.

    A replica of a server that the problem does not know is taken for the largest that could be on its accelerator.
    """
    pieces, models = devices_per_replica(problem), {s.name: s.model for s in problem.servers}
    types = {a.name: a.type for a in problem.accelerators}
    devices = {a.name: a.devices for a in problem.accelerators}
    largest = dict(devices)
    for (_, accelerator), count in pieces.items():
        largest[accelerator] = max(largest.get(accelerator, 1), count)
    held: dict[str, int] = {}
    for d in deployments:
        before = [pod.accelerator for pod in d.pods if pod.accelerator is not None]
        for accelerator, count in ((d.accelerator, d.holding), *((name, 1) for name in before)):
            each = pieces.get((models.get(d.server, ""), accelerator), largest.get(accelerator, 1))
            type_name = types.get(accelerator, accelerator)
            held[type_name] = held.get(type_name, 0) + count * each
    return held
