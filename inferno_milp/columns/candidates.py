"""The table of candidates: every (server, accelerator, batch size) with the rate, replicas, cost and devices it takes.

All pairs are analysed in one call of the queueing analysis; `reasons` says in words what was left out and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.columns.rows import BoolArray, FloatArray, IntArray, Rejected, Rows, beside, joined
from inferno_milp.problem import Problem
from inferno_milp.problem.engines import EngineTable, engine_table, latency_targets, optional
from inferno_milp.problem.fields import LARGEST_BATCH
from inferno_milp.program.deadline import stop_if_late
from inferno_milp.queueing import size

AT_ONCE = 20_000
"""Rows analysed at once: what is computed of them on the way takes a kilobyte each, and the time is looked at in
between. Last digits depend on it, so that it is the same with and without a time limit."""
MOST_DEVICES = 10**12
"""A candidate that takes more devices than this is none."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The table of candidates of a problem.

    Attributes
    ----------
    problem : the problem.
    types : accelerator types by name.
    available : devices of each type; None without limits.
    required_rate_per_s : rate that each server's replicas must carry together, requests/s:
        max(offered, TPS target / output tokens).
    needs : whether each server needs an allocation at all (it has a rate to carry, or a minimum of replicas).
    engines : parameters of the queueing analysis.
    latency_targets : promises by latency and statistic, one element per server, ms; NaN is none.
    rows : the candidates.
    rejected : analysed rows that are none.
    """

    problem: Problem
    types: tuple[str, ...]
    available: IntArray | None
    required_rate_per_s: FloatArray
    needs: BoolArray
    engines: EngineTable
    latency_targets: dict[str, dict[str, FloatArray]]
    rows: Rows
    rejected: Rejected

    def one_per_accelerator(self) -> Candidates:
        """Of each (server, accelerator), keep the batch size with the fewest replicas; among equals the smallest.

        With mixed assignment it is the one with the highest rate, for the number of replicas is still open.
        """
        by_rate = self.problem.options.assignment == "mixed"
        return replace(self, rows=self.rows.take(self.rows.best_batches(by_rate=by_rate)))

    def of_servers(self, servers: Sequence[int]) -> Candidates:
        """Keep the candidates of the servers at these positions."""
        return replace(self, rows=self.rows.take(np.isin(self.rows.server, np.asarray(servers))))

    def only(self, server: int, accelerators: Collection[int]) -> Candidates:
        """Keep, of one server's candidates, those on the accelerators at these positions."""
        rows = self.rows
        return replace(
            self, rows=rows.take((rows.server != server) | np.isin(rows.accelerator, np.asarray([*accelerators])))
        )

    def to_records(self) -> list[dict[str, str | int | float | None]]:
        """Return one record per candidate, names for positions; `max_rate_per_s` is None for a server without load."""
        problem, rows = self.problem, self.rows
        return [
            {
                "server": problem.servers[rows.server[i]].name,
                "accelerator": problem.accelerators[rows.accelerator[i]].name,
                "type": self.types[rows.type[i]],
                "batch_size": int(rows.batch_size[i]),
                "max_rate_per_s": None if np.isnan(rows.max_rate_per_s[i]) else float(rows.max_rate_per_s[i]),
                "replicas": int(rows.replicas[i]),
                "devices": int(rows.devices[i]),
                "cost_per_hour": float(rows.cost_per_hour[i]),
            }
            for i in range(len(rows))
        ]

    def while_there_per_s(self, rows: Rows, rate_per_s: FloatArray) -> FloatArray:
        """Return the rate of a replica of each row while it is there, given that on average."""
        there = np.array([a.availability for a in self.problem.accelerators], dtype=float)
        return np.asarray(rate_per_s / there[rows.accelerator])

    @property
    def unservable(self) -> IntArray:
        """Positions of the servers that need an allocation and have no candidate."""
        has = np.zeros(len(self.needs), dtype=bool)
        has[self.rows.server] = True
        return np.flatnonzero(self.needs & ~has)


@dataclass(frozen=True, slots=True)
class _ServerTable:
    """What the analysis needs of each server, as arrays; NaN is not given."""

    required_per_s: FloatArray
    output_tokens: FloatArray
    latency_targets: dict[str, dict[str, FloatArray]]
    tps: FloatArray
    min_replicas: IntArray
    reserve: FloatArray
    survive: IntArray
    max_batch_size: FloatArray
    engines: EngineTable

    @property
    def needs(self) -> BoolArray:
        """Whether each server needs an allocation at all."""
        return np.asarray((self.required_per_s > 0) | (self.min_replicas > 0))


@dataclass(frozen=True, slots=True)
class _ProfileTable:
    """What the analysis needs of each profile, as arrays."""

    accelerator: IntArray
    type: IntArray
    max_batch_size: FloatArray
    at_output_tokens: FloatArray
    cost_per_replica: FloatArray
    devices_per_replica: FloatArray
    availability: FloatArray


def find_candidates(
    problem: Problem, *, known: Candidates | None = None, left_s: Callable[[], float] = lambda: math.inf
) -> Candidates:
    """Analyse every (server, accelerator, batch size) of a problem.

    Parameters
    ----------
    known : candidates of a problem like this one: what it says of servers that are the same is not analysed again.
    left_s : seconds left.

    Returns
    -------
    Candidates
        Before any is dropped as dominated.

    Raises
    ------
    OutOfTimeError
        When no seconds are left.
    """
    servers, profiles = _server_table(problem), _profile_table(problem, _types(problem))
    same = _same_servers(problem, known)
    server, profile = _pairs(problem, servers.needs & ~same)
    server, profile, batch_size = _with_batch_sizes(problem, servers, profiles, server, profile)
    parts = []
    for start in range(0, max(len(server), 1), AT_ONCE):
        stop_if_late(left_s)
        part = (values[start : start + AT_ONCE] for values in (server, profile, batch_size))
        parts.append(_analyse(problem, servers, profiles, *part))
    rows, rejected = (joined([part[i] for part in parts]) for i in range(2))
    if known is not None and same.any():
        rows, rejected = beside(rows, known.rows, same), beside(rejected, known.rejected, same)
    return _table(problem, servers, rows, rejected)


def without_candidates(problem: Problem) -> Candidates:
    """Return the table of a problem of which nothing was analysed."""
    types = _types(problem)
    servers, nothing = _server_table(problem), np.empty(0, dtype=np.int64)
    rows, rejected = _analyse(problem, servers, _profile_table(problem, types), nothing, nothing, nothing)
    return _table(problem, servers, rows, rejected)


def _types(problem: Problem) -> tuple[str, ...]:
    return tuple(dict.fromkeys(a.type for a in problem.accelerators))


def _table(problem: Problem, servers: _ServerTable, rows: Rows, rejected: Rejected) -> Candidates:
    types = _types(problem)
    return Candidates(
        problem=problem,
        types=types,
        available=_available(problem, types),
        required_rate_per_s=servers.required_per_s,
        needs=servers.needs,
        engines=servers.engines,
        latency_targets=servers.latency_targets,
        rows=rows,
        rejected=rejected,
    )


def _same_servers(problem: Problem, known: Candidates | None) -> BoolArray:
    """Of each server, whether all is known that the analysis depends on."""
    same = np.zeros(len(problem.servers), dtype=bool)
    if known is None or len(known.problem.servers) != len(same):
        return same
    options, before = problem.options, known.problem
    if (
        any(getattr(options, name) != getattr(before.options, name) for name in ("law", "batch_sizes", "max_blocking"))
        or problem.accelerators != before.accelerators
        or problem.latencies_ms != before.latencies_ms
        or problem.profiles != before.profiles
    ):
        return same
    targets, old = ({c.name: c.targets for c in p.service_classes} for p in (problem, before))
    for i, (now, then) in enumerate(zip(problem.servers, before.servers, strict=True)):
        same[i] = (
            now == then
            and targets[now.service_class][now.model] == old[then.service_class][then.model]
            and problem.relaxed_targets.get(now.name) == before.relaxed_targets.get(now.name)
        )
    return same


def _available(problem: Problem, types: Sequence[str]) -> IntArray | None:
    devices = problem.devices_available
    return None if devices is None else np.array([devices.get(name, 0) for name in types], dtype=np.int64)


def _server_table(problem: Problem) -> _ServerTable:
    by_class = {c.name: c.targets for c in problem.service_classes}
    relaxed = problem.relaxed_targets
    targets = [relaxed.get(s.name) or by_class[s.service_class][s.model] for s in problem.servers]
    loads = [s.load for s in problem.servers]
    offered = np.array([load.arrival_rate_per_s if load else 0.0 for load in loads])
    outputs = optional([load.output_tokens if load else None for load in loads])
    tps = optional([t.tps for t in targets])
    promised = np.nan_to_num(tps / outputs, nan=0.0)
    return _ServerTable(
        required_per_s=np.maximum(offered, promised),
        output_tokens=outputs,
        latency_targets=latency_targets(targets),
        tps=tps,
        min_replicas=np.array([s.min_replicas for s in problem.servers], dtype=np.int64),
        reserve=np.array([s.reserve for s in problem.servers]),
        survive=np.array([s.survive for s in problem.servers], dtype=np.int64),
        max_batch_size=optional([s.max_batch_size for s in problem.servers]),
        engines=engine_table(problem),
    )


def _profile_table(problem: Problem, types: tuple[str, ...]) -> _ProfileTable:
    position = {a.name: i for i, a in enumerate(problem.accelerators)}
    type_position = {name: i for i, name in enumerate(types)}
    profiles = problem.profiles
    accelerators = [problem.accelerators[position[p.accelerator]] for p in profiles]
    per_replica = np.array([p.accelerators_per_replica for p in profiles], dtype=np.int64)
    return _ProfileTable(
        accelerator=np.array([position[p.accelerator] for p in profiles], dtype=np.int64),
        type=np.array([type_position[a.type] for a in accelerators], dtype=np.int64),
        max_batch_size=np.array([p.max_batch_size for p in profiles], dtype=float),
        at_output_tokens=optional([p.at_output_tokens for p in profiles]),
        cost_per_replica=per_replica * np.array([a.cost_per_hour for a in accelerators], dtype=float),
        devices_per_replica=per_replica * np.array([a.devices for a in accelerators], dtype=float),
        availability=np.array([a.availability for a in accelerators], dtype=float),
    )


def _pairs(problem: Problem, needs: BoolArray) -> tuple[IntArray, IntArray]:
    """All (server, profile) that may be used, by server and then accelerator."""
    position = {a.name: i for i, a in enumerate(problem.accelerators)}
    of_model: dict[str, list[int]] = {}
    for i, profile in enumerate(problem.profiles):
        of_model.setdefault(profile.model, []).append(i)
    ordered = {
        model: np.array(sorted(found, key=lambda i: position[problem.profiles[i].accelerator]), dtype=np.int64)
        for model, found in of_model.items()
    }
    pools = {a.name: a.pool for a in problem.accelerators}
    chosen = []
    for s, server in enumerate(problem.servers):
        usable = ordered[server.model] if needs[s] else ordered[server.model][:0]
        if server.pools is not None:
            at = [i for i in usable if pools[problem.profiles[i].accelerator] in server.pools]
            usable = np.array(at, dtype=np.int64)
        if server.adapters:
            usable = np.array([i for i in usable if problem.profiles[i].holds(server.adapters)], dtype=np.int64)
        if server.keep_accelerator:
            kept = {now.accelerator for now in server.current}
            usable = np.array([i for i in usable if problem.profiles[i].accelerator in kept], dtype=np.int64)
        chosen.append(usable)
    counts = np.array([len(usable) for usable in chosen], dtype=np.int64)
    return np.repeat(np.arange(len(chosen)), counts), np.concatenate([*chosen, np.empty(0, dtype=np.int64)])


def _with_batch_sizes(
    problem: Problem, servers: _ServerTable, profiles: _ProfileTable, server: IntArray, profile: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Give each pair its batch size: the server's own, else what the memory holds at its output length (or 1 … that).

    Source of max(maxBatchSize · atTokens // K, 1): llm-inferno/optimizer v0.6.0.
    """
    held = profiles.max_batch_size[profile]
    # Floor division, as in `Profile.largest_batch`: the floor of a quotient may round to the next whole number.
    scaled = held * profiles.at_output_tokens[profile] // servers.output_tokens[server]
    largest = np.clip(np.where(np.isnan(scaled), held, scaled), 1, LARGEST_BATCH)
    if problem.options.law != "inferno":
        largest = np.minimum(largest, servers.engines.kv_batch(server, profile))
    fixed = ~np.isnan(servers.max_batch_size[server])
    largest = np.where(fixed, servers.max_batch_size[server], largest).astype(np.int64)
    if not problem.options.every_batch_size:
        return server, profile, largest
    # All from 1 on; the largest alone where it is fixed, or where there is no load, and nothing to choose by.
    counts = np.where(fixed | np.isnan(servers.output_tokens[server]), 1, largest)
    rank = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = np.repeat(largest - counts, counts) + rank + 1
    return np.repeat(server, counts), np.repeat(profile, counts), sizes


def _analyse(
    problem: Problem,
    servers: _ServerTable,
    profiles: _ProfileTable,
    server: IntArray,
    profile: IntArray,
    batch_size: IntArray,
) -> tuple[Rows, Rejected]:
    """Size every row, and part those that can serve from those that cannot."""
    loaded = ~np.isnan(servers.output_tokens[server])
    parameters = servers.engines.of(server, profile, batch_size)
    targets = {
        latency: {statistic: values[server] for statistic, values in by_statistic.items()}
        for latency, by_statistic in servers.latency_targets.items()
    }
    targets["itl_ms"] = {name: np.where(loaded, values, np.nan) for name, values in targets["itl_ms"].items()}
    sizing = size(problem.options.law, **parameters, **targets, tps=servers.tps[server])
    required = servers.required_per_s[server]
    timeless = (required > 0) & np.isinf(sizing.max_rate_per_s)
    rate = np.where(loaded, sizing.analysis.throughput_per_s * profiles.availability[profile], np.nan)
    carried = required * (1 + servers.reserve[server])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = np.where(required > 0, np.maximum(np.ceil(carried / rate), 1.0) + servers.survive[server], 0.0)
    replicas = np.maximum(needed, servers.min_replicas[server])
    devices = replicas * profiles.devices_per_replica[profile]
    accepted = ~loaded | ((sizing.verdict != "infeasible") & ~timeless)
    accepted &= devices <= MOST_DEVICES  # in floating point: whole numbers would overflow first
    replicas = np.where(accepted, replicas, 0).astype(np.int64)
    rows = Rows(
        server=server,
        profile=profile,
        accelerator=profiles.accelerator[profile],
        type=profiles.type[profile],
        batch_size=batch_size,
        max_rate_per_s=rate,
        replicas=replicas,
        cost_per_hour=replicas * profiles.cost_per_replica[profile],
        devices=np.where(accepted, devices, 0).astype(np.int64),
        price_per_replica=profiles.cost_per_replica[profile],
        devices_per_replica=np.minimum(profiles.devices_per_replica[profile], MOST_DEVICES).astype(np.int64),
    )
    out = ~accepted
    rejected = Rejected(
        server=server[out],
        profile=profile[out],
        accelerator=profiles.accelerator[profile[out]],
        batch_size=batch_size[out],
        rate_per_s=sizing.analysis.rate_per_s[out],
        ttft_ms=sizing.analysis.ttft_ms[out],
        itl_ms=sizing.analysis.itl_ms[out],
        timeless=timeless[out],
        fits=sizing.fits[out],
        blocking=sizing.analysis.blocking[out],
    )
    return rows.take(accepted), rejected
