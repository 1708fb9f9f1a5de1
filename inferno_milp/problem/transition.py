"""From what servers run today to what they are to run: what a change of accelerator is charged, and what has changed.

Source of the charge: the transition penalty of llm-inferno/optimizer v0.6.0, a fraction of both prices where the
accelerator changes. Here it is stated for any mix: of the price of replicas on accelerators that are new to the server,
and of the price today of those on accelerators that it leaves. Replicas more or fewer are charged nothing but their
price. The rest of the seed's value, price tomorrow less price today, has the same least as the price tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inferno_milp.problem import Problem
from inferno_milp.problem.sections import CurrentAllocation, Server


@dataclass(frozen=True, slots=True)
class Today:
    """What a server runs today.

    Attributes
    ----------
    price_per_hour : of all replicas, by accelerator; empty for a server that runs nothing.
    """

    price_per_hour: dict[str, float]

    def left(self, accelerators: Iterable[str]) -> float:
        """Return the price today of what runs on none of these accelerators."""
        kept = set(accelerators)
        return sum(price for name, price in self.price_per_hour.items() if name not in kept)

    def is_changed(self, accelerators: Iterable[str]) -> bool:
        """Whether these accelerators are others than today's; to run none, or to begin, is no change."""
        kept = set(accelerators)
        return bool(kept) and bool(self.price_per_hour) and kept != self.price_per_hour.keys()


def price_today(problem: Problem) -> list[Today]:
    """Price what each server runs today, in the order of the servers."""
    prices = {a.name: a.cost_per_hour for a in problem.accelerators}
    if any(server.current for server in problem.servers):
        pieces = problem.accelerators_per_replica
    return [
        Today(
            {
                now.accelerator: now.replicas * pieces.get((server.model, now.accelerator), 1) * prices[now.accelerator]
                for now in server.current
            }
        )
        for server in problem.servers
    ]


def _nothing(server: Server) -> tuple[CurrentAllocation, ...]:
    """Return the state of a server that runs nothing; one that must keep its accelerators still knows which."""
    if not server.keep_accelerator:
        return ()
    return tuple(now.model_copy(update={"replicas": 0}) for now in server.current)


def with_current(problem: Problem, running: dict[str, tuple[CurrentAllocation, ...]]) -> Problem:
    """Return the same problem with what its servers run today.

    Parameters
    ----------
    running : by the servers' names; servers that are not named run nothing.
    """
    servers = tuple(
        server.model_copy(update={"current": running.get(server.name, ()) or _nothing(server)})
        for server in problem.servers
    )
    return problem.model_copy(update={"servers": servers})
