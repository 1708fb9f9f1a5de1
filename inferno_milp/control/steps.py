"""From what runs to what is to run, a step at a time: never below a minimum, never above capacity, not even half-way.

Ups are granted from devices that are free now: those that pods hold which are still going away are not. So an up waits
for the downs that make its room. A server that moves keeps what it has until what it moves to is ready, unless there is
no room for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from inferno_milp.control.fleet import Deployment, Fleet, devices_held, devices_per_replica
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a deployment.

    Attributes
    ----------
    replicas : it is to have.
    accelerator : it is to run on; None: as it does.
    batch_size : it is to run with, where it moves.
    """

    deployment: Deployment
    replicas: int
    accelerator: str | None = None
    batch_size: int | None = None

    @property
    def text(self) -> str:
        """The step in words."""
        change = f"{self.deployment.key}: {self.deployment.replicas} → {self.replicas}"
        return change if self.accelerator is None else f"{change} on {self.accelerator}"


@dataclass(frozen=True, slots=True)
class Steps:
    """What can be done now, downs first, and what waits.

    Attributes
    ----------
    waiting : why a server does not have what it is to have yet.
    missing : what a server has no deployment for.
    """

    now: tuple[Step, ...]
    waiting: Mapping[str, str]
    missing: Mapping[str, str] = field(default_factory=dict)


def free_devices(problem: Problem, fleet: Fleet, available: Mapping[str, int] | None) -> dict[str, int] | None:
    """Count the devices of each type that nobody holds; below 0 where capacity shrank under use; None: no limit."""
    if available is None:
        return None
    held = devices_held(problem, fleet.holders)
    return {name: available.get(name, 0) - held.get(name, 0) for name in {*available, *held}}


def begins_move(fleet: Fleet, step: Step) -> bool:
    """Whether a step puts a server on an accelerator on which it has nothing, while it has replicas on others."""
    if step.accelerator is not None:
        return True
    running = {d.accelerator for d in fleet.of(step.deployment.server) if d.replicas}
    return step.replicas > 0 and bool(running) and step.deployment.accelerator not in running


def next_steps(
    problem: Problem,
    fleet: Fleet,
    available: Mapping[str, int] | None,
    targets: Mapping[str, Mapping[str, int]],
    *,
    max_step: int,
    batch_sizes: Mapping[str, int] | None = None,
    may_move: bool = False,
) -> Steps:
    """Find the changes that can be made now.

    Parameters
    ----------
    available : devices of each type that the fleet may hold; None: no limit.
    targets : replicas by server and accelerator; servers not named are left alone.
    max_step : most replicas by which a deployment changes.
    batch_sizes : by server, of what it is to move to.
    may_move : whether a server's only deployment may change its accelerator.
    """
    room = _Room(problem, free_devices(problem, fleet, available))
    priority = {c.name: c.priority for c in problem.service_classes}
    servers = sorted(
        (s for s in problem.servers if s.name in targets), key=lambda server: priority[server.service_class]
    )
    ups, downs, moves = [], [], []
    waiting: dict[str, str] = {}
    missing: dict[str, str] = {}
    for server in servers:
        own, wanted = fleet.of(server.name), targets[server.name]
        homes = {d.accelerator for d in own}
        elsewhere = [name for name in wanted if name not in homes]
        if elsewhere and may_move and len(own) == 1 and len(wanted) == 1:
            moves.append((own[0], elsewhere[0], wanted[elsewhere[0]]))
            continue
        if elsewhere:
            missing[server.name] = f"there is no deployment of it on {', '.join(elsewhere)}"
            continue
        aims = _aims(own, wanted, max_step)
        exchanged = _exchanged(server, own, aims)
        aims = _within_most(server, aims, exchanged, waiting)
        ups += [(d, aim) for d, aim in aims if aim > d.replicas]
        is_ready = all(d.ready >= wanted.get(d.accelerator, 0) for d in own)
        going = [
            (d, d.replicas - 1, True)
            if d is exchanged and not is_ready
            else (d, aim, is_ready or bool(wanted.get(d.accelerator)))
            for d, aim in aims
            if aim < d.replicas
        ]
        downs += [(server, *down) for down in going]
    steps = [Step(d, aim) for _, d, aim, is_free in downs if is_free]
    steps += _moves(moves, room, waiting, batch_sizes or {})
    short: list[tuple[Server, str, int]] = []
    granted = []
    for d, aim in ups:
        count = room.grant(d, d.accelerator, aim - d.replicas)
        if count:
            granted.append(Step(d, d.replicas + count))
        if count < aim - d.replicas:
            lacking = aim - d.replicas - count
            waiting[d.server] = f"{lacking} × {d.accelerator} wait for free {room.type_of(d.accelerator)}"
            server = next(s for s in servers if s.name == d.server)
            short.append((server, room.type_of(d.accelerator), lacking * room.pieces(d, d.accelerator)))
    serving = {s.name: sum(min(d.ready, d.replicas) for d in fleet.of(s.name)) for s in servers}
    steps += _broken_first(reversed(downs), room, short, serving, priority)
    return Steps((*steps, *granted), waiting, missing)


def _aims(own: Iterable[Deployment], wanted: Mapping[str, int], max_step: int) -> list[tuple[Deployment, int]]:
    """Share what is wanted on an accelerator among the deployments there: what they have, then the first takes all."""
    aims, left = [], dict(wanted)
    listed = list(own)
    for i, d in enumerate(listed):
        rest = left.get(d.accelerator, 0)
        is_last = all(other.accelerator != d.accelerator for other in listed[i + 1 :])
        aim = rest if is_last else min(rest, d.replicas)
        left[d.accelerator] = rest - aim
        aims.append((d, min(max(aim, d.replicas - max_step), d.replicas + max_step)))
    return aims


def _exchanged(server: Server, own: Iterable[Deployment], aims: Iterable[tuple[Deployment, int]]) -> Deployment | None:
    """Return the deployment that gives a replica up for one elsewhere, where a server that moves has its most already.

    One at a time, when all others are ready, and none of the replicas that serve of the minimum.
    """
    listed = list(own)
    growing = any(aim > d.replicas for d, aim in aims)
    is_full = server.max_replicas is not None and sum(d.replicas for d in listed) >= server.max_replicas
    serving = sum(min(d.ready, d.replicas) for d in listed)
    if not (growing and is_full and all(d.ready >= d.replicas for d in listed) and serving > server.min_replicas):
        return None
    return next((d for d, aim in aims if aim < d.replicas), None)


def _within_most(
    server: Server, aims: list[tuple[Deployment, int]], exchanged: Deployment | None, waiting: dict[str, str]
) -> list[tuple[Deployment, int]]:
    """Cut what a server is to grow by to its most replicas; those that go away only later still count."""
    if server.max_replicas is None:
        return aims
    room = server.max_replicas - sum(d.replicas for d, _ in aims) + (exchanged is not None)
    cut = []
    for d, aim in aims:
        more = min(aim - d.replicas, max(room, 0)) if aim > d.replicas else 0
        if aim > d.replicas + more and aim > d.replicas:
            lacking = aim - d.replicas - more
            waiting[server.name] = f"{lacking} × {d.accelerator} wait: max_replicas is {server.max_replicas}"
            aim = d.replicas + more
        room -= more
        cut.append((d, aim))
    return cut


def _moves(
    moves: Iterable[tuple[Deployment, str, int]],
    room: _Room,
    waiting: dict[str, str],
    batch_sizes: Mapping[str, int],
) -> Iterator[Step]:
    """Move deployments, whose new pods come while the old ones go, where there is room for both at once."""
    for d, accelerator, replicas in moves:
        if room.grant(d, accelerator, replicas, whole=True):
            yield Step(d, replicas, accelerator, batch_sizes.get(d.server, d.batch_size or 1))
        else:
            waiting[d.server] = f"its move to {accelerator} waits for {replicas} × {accelerator}"


def _broken_first(
    downs: Iterable[tuple[Server, Deployment, int, bool]],
    room: _Room,
    short: list[tuple[Server, str, int]],
    serving: dict[str, int],
    priority: Mapping[str, int],
) -> Iterator[Step]:
    """Let servers that move give devices up before they have others: for themselves, or for a higher priority.

    As few as are waited for, and none of the replicas that serve of a minimum.
    """
    taken: dict[str, int] = {}
    for server, d, aim, is_free in downs:
        type_name, pieces = room.type_of(d.accelerator), room.pieces(d, d.accelerator)
        own = priority[server.service_class]
        wait = [n for s, t, n in short if t == type_name and (s is server or priority[s.service_class] < own)]
        missing = sum(wait) - taken.get(type_name, 0)
        if is_free or missing <= 0:
            continue
        count = min(d.replicas - aim, -(-missing // pieces), serving[server.name] - server.min_replicas)
        if count > 0:
            taken[type_name] = taken.get(type_name, 0) + count * pieces
            serving[server.name] -= count
            yield Step(d, d.replicas - count)


class _Room:
    """Devices that are free, as they are given away."""

    def __init__(self, problem: Problem, free: dict[str, int] | None):
        self._free = free
        self._types = {a.name: a.type for a in problem.accelerators}
        self._models = {s.name: s.model for s in problem.servers}
        self._pieces = devices_per_replica(problem)

    def type_of(self, accelerator: str) -> str:
        return self._types[accelerator]

    def pieces(self, deployment: Deployment, accelerator: str) -> int:
        return self._pieces.get((self._models[deployment.server], accelerator), 1)

    def grant(self, deployment: Deployment, accelerator: str, replicas: int, *, whole: bool = False) -> int:
        """Give devices for so many replicas, or for as many as there are devices for."""
        if self._free is None:
            return replicas
        pieces, type_name = self.pieces(deployment, accelerator), self._types[accelerator]
        fits = max(self._free.get(type_name, 0), 0) // pieces
        count = min(replicas, fits)
        if whole and count < replicas:
            return 0
        self._free[type_name] = self._free.get(type_name, 0) - count * pieces
        return count
