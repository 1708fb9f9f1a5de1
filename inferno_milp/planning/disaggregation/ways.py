"""Ways to run the phases of servers apart: accelerators of both, with numbers of replicas that keep the promises."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.columns.limits import Limits, find_limits
from inferno_milp.columns.rows import FloatArray
from inferno_milp.planning.disaggregation.curves import find_curves
from inferno_milp.planning.disaggregation.pairs import Pair, find_pairs
from inferno_milp.planning.disaggregation.phases import DECODE, PREFILL, Part, Phase, Promise, make_part
from inferno_milp.planning.disaggregation.transfer import Link, find_link
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Profile, Server

PHASES: tuple[Phase, Phase] = (PREFILL, DECODE)


@dataclass(frozen=True, slots=True)
class Way:
    """A pair of numbers of replicas with what it is a pair of.

    Attributes
    ----------
    server : position of it.
    profiles : of its model on the accelerators of prefill and decode.
    usage : what all replicas use of each limit.
    """

    server: int
    pair: Pair
    link: Link
    profiles: tuple[Profile, Profile]
    cost_per_hour: float
    usage: FloatArray


def usable_profiles(table: Candidates, server: int) -> list[Profile]:
    """Return the profiles of a server, by its position, whose engines hold its requests and its adapters."""
    problem, rejected = table.problem, table.rejected
    mine = rejected.server == server
    too_small = set(rejected.profile[mine & ~rejected.fits].tolist())
    one = problem.servers[server]
    of_model = [(i, p) for i, p in enumerate(problem.profiles) if p.model == one.model]
    return [p for i, p in of_model if i not in too_small and p.holds(one.adapters)]


def find_ways(
    table: Candidates, profiles: Mapping[int, Sequence[Profile]], end: float | None
) -> tuple[list[Way], Limits] | None:
    """Find ways of servers, but those that others of the same server are better than.

    Parameters
    ----------
    table : candidates of the problem as it is.
    profiles : by the positions of the servers, where they may run.
    end : when the time is up, by `time.perf_counter`; None: never.

    Returns
    -------
    list, Limits
        The limits are those of candidates and ways together. None where the time ran out.
    """
    problem, servers = table.problem, [*profiles]
    phases = _Phases(problem, profiles)
    of_phases = find_candidates(phases.problem)
    rows = of_phases.rows
    limits = find_limits(replace(table, rows=table.rows.and_also(rows)))
    usage = limits.of_replicas(rows)
    promises = {s: _promise(problem, problem.servers[s]) for s in servers}
    full = [problem.required_rate_per_s(problem.servers[s]) * (1 + problem.servers[s].reserve) for s in servers]
    statistics = {2 * i + k: list(promises[s]) for i, s in enumerate(servers) for k in range(2)}
    overhead_ms = problem.options.kv_transfer_overhead_ms
    fewest = [problem.servers[s].min_replicas for s in servers for _ in PHASES]
    curves = find_curves(of_phases, np.repeat(full, 2), fewest, table.available, statistics)
    found = []
    for i, s in enumerate(servers):
        if end is not None and time.perf_counter() >= end:
            return None
        server, ways = problem.servers[s], []
        between = server.min_replicas, server.max_replicas
        assert server.load is not None
        for first in curves.get(2 * i, ()):
            for second in curves.get(2 * i + 1, ()):
                ends = phases.origin(int(rows.profile[first.row])), phases.origin(int(rows.profile[second.row]))
                homes = (problem.accelerators[rows.accelerator[row]] for row in (first.row, second.row))
                link = find_link(server.load, overhead_ms, *zip(ends, homes, strict=True))
                if link is None:
                    continue
                for pair in find_pairs(first, second, link, promises[s], *between):
                    replicas = np.array([pair.prefill_replicas, pair.decode_replicas])
                    both = [first.row, second.row]
                    cost = float(rows.price_per_replica[both] @ replicas)
                    ways.append(Way(s, pair, link, ends, cost, replicas @ usage[both]))
        found += _undominated(ways)
    return found, limits


class _Phases:
    """All phases of the servers, each a server that may run wherever its model can: prefill and decode in turn."""

    def __init__(self, problem: Problem, profiles: Mapping[int, Sequence[Profile]]) -> None:
        parts: list[Part] = []
        self._origins: list[Profile] = []
        for s, usable in profiles.items():
            server = problem.servers[s]
            for phase in PHASES:
                parts.append(make_part(problem, server, phase, usable, _promise(problem, server), ()))
                self._origins += usable
        update = {
            "servers": tuple(part.server for part in parts),
            "service_classes": tuple(part.service_class for part in parts),
            "profiles": tuple(profile for part in parts for profile in part.profiles),
        }
        self.problem = problem.model_copy(update=update)

    def origin(self, profile: int) -> Profile:
        """Return the profile that one of a phase was made of."""
        return self._origins[profile]


def _promise(problem: Problem, server: Server) -> Promise:
    """Return what is promised of the time to first token; where nothing is, a mean that is not limited."""
    return problem.targets_of(server).limits_of("ttft_ms") or {"mean": math.inf}


def _undominated(ways: Sequence[Way]) -> list[Way]:
    """Leave out ways that cost no less than another and use no less of any limit."""
    kept: list[Way] = []
    for way in sorted(ways, key=lambda w: (w.cost_per_hour, float(w.usage.sum()))):
        if not any((other.usage <= way.usage).all() for other in kept):
            kept.append(way)
    return kept
