"""Reasons in words with numbers: why an accelerator is no candidate, why a server is not served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from inferno_milp.columns.candidates import MOST_DEVICES, Candidates
from inferno_milp.columns.limits import BUDGET, CHANGES, POWER
from inferno_milp.columns.options import Program
from inferno_milp.columns.rows import Rows, rows_of
from inferno_milp.columns.shortfall import latency_name, least_latencies, over_targets
from inferno_milp.plan import Allocation
from inferno_milp.planning.slack import Lack, Room


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why no plan of least cost runs a server on an accelerator."""

    server: str
    accelerator: str
    reason: str


def find_rejections(
    candidates: Candidates, program: Program, servers: Sequence[int] | None = None
) -> Iterator[Rejection]:
    """Yield why not, for every (server, accelerator) that no plan of least cost can use.

    Parameters
    ----------
    candidates : the whole table, nothing dropped.
    program : made of it.
    servers : positions of servers; None for all.
    """
    problem = candidates.problem
    position = {a.name: i for i, a in enumerate(problem.accelerators)}
    profiled = {(p.model, position[p.accelerator]): p for p in problem.profiles}
    best, kept = program.table.rows, program.table.rows.take(program.useful_rows())
    row_of = {pair: i for i, pair in enumerate(zip(best.server.tolist(), best.accelerator.tolist(), strict=True))}
    useful = set(zip(kept.server.tolist(), kept.accelerator.tolist(), strict=True))
    failed, room = _failed_rows(candidates), Room(program.table, program.limits)
    for s in range(len(problem.servers)) if servers is None else servers:
        server = problem.servers[s]
        for a, accelerator in enumerate(problem.accelerators):
            if (s, a) in useful or not candidates.needs[s]:
                continue
            if (server.model, a) not in profiled:
                reason = f"no profile of {server.model} on {accelerator.name}"
            elif (s, a) in row_of:
                reason = _why_dropped(program, row_of[s, a], kept, room)
            elif (s, a) in failed:
                reason = _misses(candidates, failed[s, a])
            elif not profiled[server.model, a].holds(server.adapters):
                held = profiled[server.model, a].max_adapters
                reason = f"an engine there holds {held} of the server's {len(set(server.adapters))} adapters"
            elif server.pools is not None and accelerator.pool not in server.pools:
                reason = (
                    f"the server may use pools {', '.join(server.pools)} alone"
                    if server.pools
                    else "it may use no pool"
                )
            else:
                reason = f"the server keeps {' and '.join(now.accelerator for now in server.current)}"
            yield Rejection(server.name, accelerator.name, reason)


def _why_dropped(program: Program, position: int, kept: Rows, room: Room) -> str:
    """Return why a candidate is not kept: it takes more than there is, or another of those kept is never worse."""
    table, problem = program.table, program.table.problem
    row = table.rows.take(np.array([position]))
    server, kind, cost, devices = int(row.server[0]), int(row.type[0]), float(row.cost_per_hour[0]), int(row.devices[0])
    mixed, most = problem.options.assignment == "mixed", problem.servers[server].max_replicas
    if most is not None and row.replicas[0] > most and not mixed:
        return f"it needs {row.replicas[0]} replicas, and the server may have {most}"
    lacks = _lacks(program, position, room, 1 if mixed else int(row.replicas[0]))
    if lacks:
        return f"it needs {_lack_words(lacks[0], 'available')}"
    name = table.types[kind]
    rivals = kept.take(rows_of(kept.server, server))
    if mixed:
        rivals = rivals.take((rivals.type == kind) | (table.available is None))
        if not len(rivals):
            return "other accelerators carry the same for no more"
        other = problem.accelerators[rivals.accelerator[0]].name
        return f"{other} carries as much for no more"
    good = rivals.cost_per_hour <= cost
    if table.available is not None:
        good &= (rivals.type == kind) & (rivals.devices <= devices)
    rival = rivals.take(np.flatnonzero(good)[:1])
    if not len(rival):
        return "another one is never worse, changes of accelerator and power counted"
    other = problem.accelerators[rival.accelerator[0]].name
    less = f"{other} costs {_plain(rival.cost_per_hour[0], 6)}, not {_plain(cost, 6)}"
    return less if table.available is None else f"{less}, and takes no more {name}"


def _failed_rows(candidates: Candidates) -> dict[tuple[int, int], int]:
    """For each (server, accelerator), the rejected row that comes nearest to the targets."""
    rejected = candidates.rejected
    over = over_targets(candidates, np.arange(len(rejected.server)))
    result: dict[tuple[int, int], int] = {}
    for i in np.argsort(over, kind="stable").tolist():
        result.setdefault((int(rejected.server[i]), int(rejected.accelerator[i])), i)
    return result


def _misses(candidates: Candidates, i: int) -> str:
    """Return which targets a rejected row misses, and by what."""
    rejected, problem = candidates.rejected, candidates.problem
    targets = problem.targets_of(problem.servers[rejected.server[i]])
    if rejected.timeless[i]:
        return "by its profile such requests take no time at all, and no rate follows from that"
    if not rejected.fits[i]:
        kv_tokens = problem.profiles[rejected.profile[i]].kv_tokens
        return f"its requests (or more of them than may be turned away) do not fit into {kv_tokens} tokens of KV cache"
    least_ms = least_latencies(candidates, np.array([i]))
    misses = [
        f"{latency_name(latency, statistic)} at least {_above(least, limit)} ms at batch {rejected.batch_size[i]}, "
        f"target {_plain(limit)} ms"
        for latency, statistic, limit in sorted(targets.limits_ms())
        if (least := float(least_ms[latency, statistic][0])) > limit
    ]
    most = problem.options.max_blocking
    if not misses and problem.options.law != "inferno" and rejected.blocking[i] > most:
        return f"its queue is so short that at any rate more than {most:.3g} of the requests are turned away"
    return "; ".join(misses) or f"would take more than {MOST_DEVICES:,} devices"


def _above(least: float, target: float) -> str:
    """Write a latency with as many digits as it takes to be told from the target that it misses."""
    return next((text for digits in (3, 4, 6, 9, 12) if float(text := _plain(least, digits)) > target), repr(least))


def _plain(value: float, digits: int = 12) -> str:
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-")


def why_left_out(candidates: Candidates, program: Program, server: int) -> str:
    """Return why nothing can serve a server, whatever the others do: the nearest miss, or what there is too little of.

    Parameters
    ----------
    candidates : the whole table, nothing dropped.
    program : made of it.
    """
    nearest = _nearest_miss(candidates, server)
    if nearest is not None:
        return _nearest_words(candidates, nearest)
    too_large = _needs(program, server, Room(program.table, program.limits), "available")
    if too_large:
        return f"it does not fit even alone: {too_large}"
    reasons = [f"{r.accelerator}: {r.reason}" for r in find_rejections(candidates, program, [server])]
    return f"no accelerator can serve it; {'; '.join(reasons)}"


def why_no_candidate(candidates: Candidates, server: int) -> str | None:
    """Return why a server has no candidate at all: the nearest miss; None if it has one."""
    if rows_of(candidates.rows.server, server).size:
        return None
    nearest = _nearest_miss(candidates, server)
    if nearest is None:
        return "no accelerator that it may use has a profile of its model"
    return _nearest_words(candidates, nearest)


def _nearest_words(candidates: Candidates, nearest: int) -> str:
    accelerator = candidates.problem.accelerators[candidates.rejected.accelerator[nearest]].name
    return f"no accelerator can serve it; nearest is {accelerator}: {_misses(candidates, nearest)}"


def _nearest_miss(candidates: Candidates, server: int) -> int | None:
    """Position of the rejected row that misses the server's targets by the least factor; None if a row is good."""
    if rows_of(candidates.rows.server, server).size:
        return None
    rows = rows_of(candidates.rejected.server, server)
    return int(rows[np.argmin(over_targets(candidates, rows))]) if rows.size else None


def why_not_placed(program: Program, server: int, room: Room) -> str:
    """Return why a server is not served though it could be: what its candidates need more of than is left.

    Parameters
    ----------
    room : what is left.
    """
    needs = _needs(program, server, room, "left")
    return f"what is left is too little: {needs}" if needs else "not found to fit beside the others in the time given"


def why_not_in_full(candidates: Candidates, server: int, allocations: Sequence[Allocation]) -> str:
    """Return what a server that is not served in full carries all the same."""
    required = float(candidates.required_rate_per_s[server])
    carried = sum(a.replicas * a.rate_per_s for a in allocations)
    if not required:
        wanted = candidates.problem.servers[server].min_replicas
        return f"best effort: {sum(a.replicas for a in allocations)} of {wanted} replicas"
    return f"best effort: {carried / required:.0%} of its rate"


def _lacks(program: Program, position: int, room: Room, replicas: int) -> list[Lack]:
    row = program.table.rows.take(np.array([position]))
    required = program.table.required_rate_per_s[row.server]
    rate = np.where(np.isnan(row.max_rate_per_s), np.nan, np.minimum(required / replicas, row.max_rate_per_s))
    usage = room.usage(row, np.array([replicas]), rate)[0]
    return room.lacks(usage, 0, row, replicas)


def _needs(program: Program, server: int, room: Room, word: str) -> str:
    """Return what a server's candidates lack, the least of each limit: `it needs 12 H100 (8 left)`."""
    rows, most = program.table.rows, program.table.problem.servers[server].max_replicas
    least: dict[str, Lack] = {}
    for position in rows_of(rows.server, server).tolist():
        replicas = int(rows.replicas[position])
        if most is not None and replicas > most:
            continue
        lacks = _lacks(program, position, room, replicas)
        if not lacks:
            return ""
        known = least.get(lacks[0].limit)
        if known is None or lacks[0].needs < known.needs:
            least[lacks[0].limit] = lacks[0]
    texts = [_lack_words(lack, word) for lack in sorted(least.values(), key=lambda lack: lack.needs - lack.left)]
    return f"it needs {', or '.join(texts[:4])}{', …' if len(texts) > 4 else ''}" if texts else ""


def _lack_words(lack: Lack, word: str) -> str:
    left = f"({_plain(lack.left, 6)} {word})"
    if lack.limit == BUDGET:
        return f"{_plain(lack.needs, 6)} per hour of the budget {left}"
    if lack.limit == POWER:
        return f"{_plain(lack.needs, 6)} W {left}"
    if lack.limit == CHANGES:
        return f"a change of accelerator {left}"
    if lack.limit.startswith("capacity["):
        return f"{_plain(lack.needs, 12)} {lack.type} {left}"
    if ">" in lack.limit:
        held = lack.limit.rpartition(">")[2].rstrip("]")
        return f"{lack.size} {lack.type} in one node (nodes hold {held})"
    return f"room for {_plain(lack.needs, 12)} × {lack.size} {lack.type} in nodes {left}"
