"""The emulated cluster: deployments, pods that take a while to start and to go, and requests that find a pod.

Pods hold devices from when they are placed until they are gone; a pod for which there is no device waits, as in a real
cluster. Requests go to any ready pod of their server, at random, as a Kubernetes service sends them; where none is
ready they wait for one.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from inferno_milp.control.emulation.engine import Replica, Request
from inferno_milp.control.fleet import Deployment, Fleet, Pod, devices_per_replica
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server
from inferno_milp.report.manifests import deployment_name

STEP_S = 1.0
"""Pods start and go, and requests find them, on this grid."""
GRACE_S = 300.0
"""A pod that goes away may finish its requests for so long."""


@dataclass(slots=True)
class Tally:
    """What a pod counts, as an inference server's metrics do."""

    finished: int = 0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    first_tokens: int = 0
    ttft_s: float = 0.0
    gaps: int = 0
    itl_s: float = 0.0


@dataclass(slots=True)
class EmulatedPod:
    """A pod of a deployment; times in s from the day's start, infinite until they are known."""

    name: str
    deployment: str
    ready_at_s: float = math.inf
    gone_by_s: float = math.inf
    is_leaving: bool = False
    engine: Replica | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def is_placed(self) -> bool:
        """Whether it holds devices."""
        return self.engine is not None


@dataclass(frozen=True, slots=True)
class Served:
    """A request that had its first token: its server, when it came and went (s), and how long it took (ms)."""

    server: str
    arrival_s: float
    ttft_ms: float
    itl_ms: float


@dataclass(slots=True)
class EmulatedCluster:
    """A cluster that emulates the servers of a problem.

    Attributes
    ----------
    started_s : what the clock of the emulation says at the day's start, s since 1970.
    startup_s : from when a pod is placed until it serves.
    most_held : most devices of each type that were ever held, or asked for, at once.
    """

    problem: Problem
    started_s: float
    startup_s: float = 120.0
    seed: int = 0
    namespace: str = "emulated"
    time_s: float = 0.0
    pods: list[EmulatedPod] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    most_held: dict[str, int] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    status: dict[str, str] = field(default_factory=dict)
    _deployments: dict[str, Deployment] = field(default_factory=dict)
    _gateway: dict[str, deque[Request]] = field(default_factory=dict)
    _count: int = 0
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, 1])

    def now_s(self) -> float:
        """Return what the clock says."""
        return self.started_s + self.time_s

    def elapsed_s(self) -> float:
        """Return seconds since the day's start."""
        return self.time_s

    def deploy(self, replicas: Mapping[str, Mapping[str, int]], batches: Mapping[tuple[str, str], int]) -> None:
        """Make the deployments: one for each server and accelerator that is named, its pods ready.

        Parameters
        ----------
        replicas : by server and accelerator.
        batches : max batch size by server and accelerator.
        """
        for server, counts in replicas.items():
            for accelerator, count in counts.items():
                name = deployment_name(f"{server}-{accelerator}")
                d = Deployment(
                    self.namespace, name, server, accelerator, count, batch_size=batches[server, accelerator]
                )
                self._deployments[name] = d
        self._reconcile()
        for pod in self.pods:
            pod.ready_at_s = 0.0

    def read(self, problem: Problem | None = None) -> Fleet:
        """Return what runs; all of it is of the problem that is emulated."""
        return Fleet(tuple(self._seen(d) for d in self._deployments.values()))

    def scale(self, deployment: Deployment, replicas: int) -> None:
        """Ask for so many replicas."""
        d = self._deployments[deployment.name]
        self._deployments[deployment.name] = replace(d, replicas=replicas)
        self._note_held()

    def move(self, deployment: Deployment, accelerator: str, replicas: int, batch_size: int) -> None:
        """Replace all pods by others; they come while the old ones go."""
        for pod in self._pods_of(deployment.name):
            self._dismiss(pod)
        d = self._deployments[deployment.name]
        self._deployments[deployment.name] = replace(
            d, accelerator=accelerator, replicas=replicas, batch_size=batch_size, moved_at_s=self.now_s()
        )
        self._note_held()

    def write_status(self, documents: Mapping[str, str]) -> None:
        """Keep the last round."""
        self.status = dict(documents)

    def read_status(self) -> Mapping[str, str]:
        """Return the last round."""
        return self.status

    def tell(self, deployment: Deployment, reason: str, words: str, *, is_warning: bool = False) -> None:
        """Keep an event."""
        self.events.append(f"{self.time_s:.0f} s {deployment.key} {reason}: {words}")

    def advance(self, until_s: float, requests: Mapping[str, Iterable[Request]]) -> None:
        """Serve up to a time.

        Parameters
        ----------
        requests : by server, those that come until then, in the order of arrival.
        """
        for server, coming in requests.items():
            self._gateway.setdefault(server, deque()).extend(coming)
        while self.time_s < until_s - 1e-9:
            self.time_s = min(self.time_s + STEP_S, until_s)
            self._reconcile()
            for server in self._gateway:
                self._route(server)
            for pod in self.pods:
                if pod.engine is not None and pod.ready_at_s <= self.time_s:
                    pod.engine.advance(self.time_s * 1000)
            self.pods = [pod for pod in self.pods if not self._is_gone(pod)]

    def waiting_at_gateway(self, server: str) -> int:
        """Return requests that came, and have found no pod yet."""
        return sum(request.arrival_ms <= self.time_s * 1000 for request in self._gateway.get(server, ()))

    def without_first_token(self, server: str) -> Iterator[Request]:
        """Yield the requests that came and wait: for a pod, or in one."""
        yield from (one for one in self._gateway.get(server, ()) if one.arrival_ms <= self.time_s * 1000)
        for pod in self.pods:
            if pod.engine is not None and self._deployments[pod.deployment].server == server:
                yield from pod.engine.waiting

    def pods_of(self, server: str) -> list[EmulatedPod]:
        """Return the pods of a server that serve."""
        homes = {d.name for d in self._deployments.values() if d.server == server}
        return [
            pod for pod in self.pods if pod.deployment in homes and not pod.is_leaving and pod.ready_at_s <= self.time_s
        ]

    def _seen(self, d: Deployment) -> Deployment:
        pods = tuple(
            Pod(
                pod.name,
                self.started_s + pod.ready_at_s if pod.ready_at_s <= self.time_s and not pod.is_leaving else None,
                pod.is_leaving,
            )
            for pod in self.pods
            if pod.deployment == d.name and pod.is_placed
        )
        return replace(d, pods=pods)

    def _pods_of(self, name: str) -> list[EmulatedPod]:
        return [pod for pod in self.pods if pod.deployment == name and not pod.is_leaving]

    def _dismiss(self, pod: EmulatedPod) -> None:
        if not pod.is_placed:
            self.pods.remove(pod)
            return
        pod.is_leaving, pod.gone_by_s = True, self.time_s + GRACE_S
        if pod.ready_at_s > self.time_s:
            pod.gone_by_s = self.time_s

    def _is_gone(self, pod: EmulatedPod) -> bool:
        return pod.is_leaving and (self.time_s >= pod.gone_by_s or pod.engine is None or pod.engine.is_idle)

    def _reconcile(self) -> None:
        """Make pods, send some away, and place those for which there are devices."""
        for d in self._deployments.values():
            own = self._pods_of(d.name)
            for pod in sorted(own, key=lambda pod: pod.ready_at_s, reverse=True)[: max(len(own) - d.replicas, 0)]:
                self._dismiss(pod)
            for _ in range(d.replicas - len(own)):
                self._count += 1
                self.pods.append(EmulatedPod(f"{d.name}-{self._count:05d}", d.name))
        free = self._free()
        for pod in self.pods:
            if pod.is_placed:
                continue
            d = self._deployments[pod.deployment]
            type_name, devices = self._takes(d)
            if free is not None and free.get(type_name, 0) < devices:
                continue
            if free is not None:
                free[type_name] -= devices
            pod.engine = self._engine(pod, d)
            pod.ready_at_s = self.time_s + self.startup_s
        self._note_held()

    def _free(self) -> dict[str, int] | None:
        available = self.problem.devices_available
        if available is None:
            return None
        free = dict(available)
        for pod in self.pods:
            if pod.is_placed:
                type_name, devices = self._takes(self._deployments[pod.deployment])
                free[type_name] = free.get(type_name, 0) - devices
        return free

    def _takes(self, d: Deployment) -> tuple[str, int]:
        accelerator = next(a for a in self.problem.accelerators if a.name == d.accelerator)
        model = self._server(d.server).model
        return accelerator.type, devices_per_replica(self.problem)[model, d.accelerator]

    def _note_held(self) -> None:
        """Note the most devices that deployments ever asked for and pods held."""
        held: Counter[str] = Counter()
        for d in self._deployments.values():
            type_name, devices = self._takes(d)
            held[type_name] += self._seen(d).holding * devices
        for type_name, count in held.items():
            self.most_held[type_name] = max(self.most_held.get(type_name, 0), count)

    def _server(self, name: str) -> Server:
        return next(s for s in self.problem.servers if s.name == name)

    def _engine(self, pod: EmulatedPod, d: Deployment) -> Replica:
        model = self._server(d.server).model
        profile = next(p for p in self.problem.profiles if (p.model, p.accelerator) == (model, d.accelerator))
        tally = pod.tally

        def on_first(request: Request) -> None:
            tally.first_tokens += 1
            tally.ttft_s += (request.first_ms - request.arrival_ms) / 1000

        def on_last(request: Request) -> None:
            tally.finished += 1
            tally.input_tokens += request.input_tokens
            tally.output_tokens += request.output_tokens
            gaps = request.output_tokens - 1
            tally.gaps += gaps
            tally.itl_s += (request.last_ms - request.first_ms) / 1000
            itl = (request.last_ms - request.first_ms) / gaps if gaps else math.nan
            ttft = request.first_ms - request.arrival_ms
            self.served.append(Served(d.server, request.arrival_ms / 1000, ttft, itl))

        return Replica(profile, d.batch_size or profile.max_batch_size, on_first, on_last, self.time_s * 1000)

    def _route(self, server: str) -> None:
        """Send requests that have come to pods that are ready."""
        queue = self._gateway[server]
        ready = self.pods_of(server)
        while ready and queue and queue[0].arrival_ms <= self.time_s * 1000:
            pod = ready[int(self._rng.integers(len(ready)))]
            assert pod.engine is not None
            pod.engine.waiting.append(queue.popleft())

    def costs(self) -> dict[str, float]:
        """Return what each server's pods cost per hour, those that wait for a device apart."""
        prices = {a.name: a.cost_per_hour / a.devices for a in self.problem.accelerators}
        found: dict[str, float] = {}
        for pod in self.pods:
            if pod.is_placed:
                d = self._deployments[pod.deployment]
                found[d.server] = found.get(d.server, 0.0) + self._takes(d)[1] * prices[d.accelerator]
        return found

    def gauges(self) -> Iterator[tuple[EmulatedPod, Deployment, Replica]]:
        """Yield the pods that serve, those that are going away included."""
        for pod in self.pods:
            if pod.engine is not None and pod.ready_at_s <= self.time_s:
                yield pod, self._deployments[pod.deployment], pod.engine
