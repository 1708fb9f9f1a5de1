"""The last check before a write: no step leaves the limits of capacity, of servers, and of pace."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from inferno_milp.control.config import StabilitySettings
from inferno_milp.control.fleet import Deployment, Fleet, devices_per_replica
from inferno_milp.control.steps import Step, Steps, begins_move, free_devices
from inferno_milp.problem import Problem


@dataclass(slots=True)
class Pace:
    """What deployments were asked to have lately; a limit holds per period, however many rounds there are in it.

    As an HPA's policies: a deployment may grow to what it had at its least within the period, and `max_step` more, and
    shrink to what it had at its most, and `max_step` fewer.
    """

    settings: StabilitySettings
    _asked: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    _moves: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, key: str, replicas: int, elapsed_s: float) -> None:
        """Note what a deployment is asked to have; times are of a clock that never jumps."""
        asked = self._asked.setdefault(key, deque())
        asked.append((elapsed_s, replicas))
        while asked and elapsed_s - asked[0][0] >= self.settings.period_s:
            asked.popleft()

    def limits(self, key: str, replicas: int, elapsed_s: float) -> tuple[int, int]:
        """Return the fewest and the most replicas that a deployment may be asked to have now."""
        recent = [count for at, count in self._asked.get(key, ()) if elapsed_s - at < self.settings.period_s]
        known = [*recent, replicas]
        return max(max(known) - self.settings.max_step, 0), min(known) + self.settings.max_step

    def moves_left(self, elapsed_s: float) -> int:
        """Return how many servers may begin to change their accelerator now."""
        period_s = self.settings.period_s
        self._moves = {move: at for move, at in self._moves.items() if elapsed_s - at < period_s}
        return max(self.settings.max_moves - len(self._moves), 0)

    def note_move(self, server: str, accelerator: str, elapsed_s: float) -> None:
        """Note that a server begins to move; one that is noted already is noted once."""
        self._moves.setdefault((server, accelerator), elapsed_s)

    def is_noted(self, server: str, accelerator: str) -> bool:
        """Whether a move is among those of the period."""
        return (server, accelerator) in self._moves


class Gate:
    """Lets steps through as far as they keep to the limits, in their order.

    Parameters
    ----------
    available : devices of each type that the fleet may hold; None: no limit.
    elapsed_s : now, of a clock that never jumps.
    """

    def __init__(
        self, problem: Problem, fleet: Fleet, available: Mapping[str, int] | None, pace: Pace, elapsed_s: float
    ):
        self._servers = {s.name: s for s in problem.servers}
        self._types = {a.name: a.type for a in problem.accelerators}
        self._pieces = devices_per_replica(problem)
        self._free = free_devices(problem, fleet, available)
        self._asked = {d.key: d.replicas for d in fleet.deployments}
        self._fleet, self._pace, self._elapsed_s = fleet, pace, elapsed_s
        self._moves_left = pace.moves_left(elapsed_s)
        for d in fleet.deployments:
            pace.note(d.key, d.replicas, elapsed_s)

    def admit(self, steps: Steps) -> Steps:
        """Return the steps that may be made, cut to the limits, with what waits for what."""
        admitted, waiting = [], dict(steps.waiting)
        for step in steps.now:
            count, limit = self._admitted(step)
            if count != step.replicas:
                waiting.setdefault(step.deployment.server, f"{step.text} waits: {limit}")
            if count is not None:
                admitted.append(replace(step, replicas=count))
                self._pass(admitted[-1])
        return replace(steps, now=tuple(admitted), waiting=waiting)

    def _admitted(self, step: Step) -> tuple[int | None, str]:
        """Return how many replicas a step may ask for, None for no step, and the limit that it comes up against."""
        count, now, words = step.replicas, step.deployment.replicas, ""
        is_move = step.accelerator is not None
        for lowest, highest, limit in self._limits(step):
            cut = min(count, highest) if is_move or count > now else max(count, min(now, lowest))
            if cut != count:
                count, words = int(cut), limit
        if is_move:
            return (count if count == step.replicas else None), words  # pods of half a move would be on both
        is_none = count <= now if step.replicas > now else count >= now
        return (None if is_none else count), words

    def _limits(self, step: Step) -> Iterator[tuple[float, float, str]]:
        """Yield the fewest and the most replicas that each limit lets a step ask for, and the limit in words."""
        d, settings = step.deployment, self._pace.settings
        least, most = self._pace.limits(d.key, d.replicas, self._elapsed_s)
        yield least, most, f"max_step is {settings.max_step} in {settings.period_s:g} s"
        server = self._servers[d.server]
        others = sum(self._asked[other.key] for other in self._fleet.of(d.server)) - self._asked[d.key]
        highest = math.inf if server.max_replicas is None else server.max_replicas - others
        yield server.min_replicas - others, highest, f"{server.min_replicas} to {server.max_replicas} replicas may be"
        if begins_move(self._fleet, step) and not (self._moves_left or self._pace.is_noted(d.server, _home(step))):
            yield (
                0,
                (d.replicas if step.accelerator is None else -1),
                f"max_moves is {settings.max_moves} in {settings.period_s:g} s",
            )
        yield 0, self._fitting(step), f"{self._types[_home(step)]} is in use"

    def _fitting(self, step: Step) -> float:
        """Return the most replicas for which there are devices; a step down takes none."""
        if self._free is None:
            return math.inf
        free = max(self._free.get(self._types[_home(step)], 0), 0) // self._each(step.deployment, _home(step))
        return free if step.accelerator is not None else step.deployment.replicas + free

    def _pass(self, step: Step) -> None:
        d, home = step.deployment, _home(step)
        if begins_move(self._fleet, step) and not self._pace.is_noted(d.server, home):
            self._pace.note_move(d.server, home, self._elapsed_s)
            self._moves_left -= 1
        taken = step.replicas if step.accelerator is not None else max(step.replicas - d.replicas, 0)
        if self._free is not None:
            type_name = self._types[home]
            self._free[type_name] = self._free.get(type_name, 0) - taken * self._each(d, home)
        self._asked[d.key] = step.replicas
        self._pace.note(d.key, step.replicas, self._elapsed_s)

    def _each(self, d: Deployment, accelerator: str) -> int:
        return self._pieces.get((self._servers[d.server].model, accelerator), 1)


def _home(step: Step) -> str:
    return step.accelerator or step.deployment.accelerator
