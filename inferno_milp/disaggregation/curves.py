"""Latencies of a phase by the number of its replicas and their batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inferno_milp.candidates import BoolArray, Candidates, FloatArray, IntArray
from inferno_milp.queueing import analyze

CLOSELY, STEP = 16, 1.05
"""Numbers of replicas that are looked at: so many one by one, then further and further apart …"""
MOST_TIMES = 2
"""… up to so many times the fewest, beyond which latencies hardly fall."""
BATCHES_CLOSELY, BATCH_STEP = 8, 1.2
"""The same of batch sizes."""
AT_ONCE = 100_000
"""Engines analysed at once."""
KEPT = 1e-9
"""Relative slack of promises and rates that are kept."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A phase of a server on one accelerator.

    Attributes
    ----------
    row : position of one of its candidates.
    replicas, rate_per_s : numbers of replicas, rising, and the rate at each of those that are there; shape (n,).
    ttft_ms : by statistic, replicas × batch sizes; infinite where promises besides are not kept.
    """

    row: int
    replicas: IntArray
    rate_per_s: FloatArray
    ttft_ms: Mapping[str, FloatArray]


def spaced(least: int, most: int, closely: int, step: float) -> IntArray:
    """Return whole numbers from the least to the most: `closely` one by one, then further and further apart."""
    found = [least]
    while found[-1] < most:
        further = found[-1] + 1 if len(found) < closely else max(int(found[-1] * step), found[-1] + 1)
        found.append(min(further, most))
    return np.array(found, dtype=np.int64)


def find_curves(
    table: Candidates,
    rate_per_s: FloatArray,
    at_least: Sequence[int],
    most: IntArray | None,
    statistics: Mapping[int, Sequence[str]],
) -> dict[int, list[Curve]]:
    """Find the curves of servers of phases.

    Parameters
    ----------
    table : their candidates, all batch sizes.
    rate_per_s : rate that the replicas of each server carry, reserves included, when those whose loss they survive are
        lost.
    at_least : numbers of replicas that are looked at for each server, if there are so many.
    most : devices of each type; None without limits.
    statistics : of the time to first token, by server.

    Returns
    -------
    dict
        By server, a curve for each accelerator on which it has candidates.
    """
    rows, survive = table.rows, [server.survive for server in table.problem.servers]
    best = rows.best_batches(by_rate=False)
    grids = []
    for row in best.tolist():
        least, server = int(rows.replicas[row]), int(rows.server[row])
        there_are = max(MOST_TIMES * least + CLOSELY, at_least[server])
        if most is not None:
            there_are = min(there_are, int(most[rows.type[row]] // rows.devices_per_replica[row]))
        batches = rows.batch_size[rows.batches_of(server, int(rows.profile[row]))]
        largest, smallest = int(batches[-1]), int(batches[0])
        sizes = np.union1d(spaced(smallest, largest, BATCHES_CLOSELY, BATCH_STEP), rows.batch_size[row])
        counts = spaced(least, there_are, CLOSELY, STEP) if there_are >= least else np.empty(0, dtype=np.int64)
        there = table.problem.accelerators[rows.accelerator[row]].availability
        grids.append((row, counts, rate_per_s[server] / ((counts - survive[server]) * there), sizes))
    found = _analyse(table, grids, statistics)
    result: dict[int, list[Curve]] = {}
    for (row, counts, rates, _), latencies in zip(grids, found, strict=True):
        if len(counts):
            result.setdefault(int(rows.server[row]), []).append(Curve(row, counts, rates, latencies))
    return result


def _analyse(
    table: Candidates,
    grids: Sequence[tuple[int, IntArray, FloatArray, IntArray]],
    statistics: Mapping[int, Sequence[str]],
) -> list[dict[str, FloatArray]]:
    """Analyse all grids together, in blocks; return the latencies of each, replicas × batch sizes."""
    rows = table.rows
    shapes = [(len(counts), len(sizes)) for _, counts, _, sizes in grids]
    row = np.concatenate([np.full(n * b, g[0]) for g, (n, b) in zip(grids, shapes, strict=True)] or [np.empty(0, int)])
    rate = np.concatenate([np.repeat(g[2], b) for g, (_, b) in zip(grids, shapes, strict=True)] or [np.empty(0)])
    batch = np.concatenate([np.tile(g[3], n) for g, (n, _) in zip(grids, shapes, strict=True)] or [np.empty(0, int)])
    server = rows.server[row]
    asked = {name: [s for s, names in statistics.items() if name in names] for name in _all(statistics)}
    latencies = {name: np.full(len(row), np.inf) for name in asked}
    for start in range(0, len(row), AT_ONCE):
        block = np.arange(start, min(start + AT_ONCE, len(row)))
        of_block = _block(table, rows.profile[row[block]], server[block], rate[block], batch[block], asked)
        for name, values in of_block.items():
            latencies[name][block] = values
    ends = np.cumsum([n * b for n, b in shapes]).tolist()
    return [
        {
            name: latencies[name][end - n * b : end].reshape(n, b)
            for name in statistics[int(rows.server[grid[0]])]
        }
        for grid, (n, b), end in zip(grids, shapes, ends, strict=True)
    ]  # fmt: skip


def _all(statistics: Mapping[int, Sequence[str]]) -> list[str]:
    return sorted({name for names in statistics.values() for name in names})


def _block(
    table: Candidates,
    profile: IntArray,
    server: IntArray,
    rate_per_s: FloatArray,
    batch: IntArray,
    asked: Mapping[str, Sequence[int]],
) -> dict[str, FloatArray]:
    """Analyse engines that let through a rate; latencies are infinite where they do not, or turn too many away."""
    options = table.problem.options
    engines = table.engines.of(server, profile, batch)
    arriving = rate_per_s
    for _ in range(3):  # what is turned away is little, so that this comes close at once
        analysis = analyze(options.law, **engines, rate_per_s=arriving)
        kept: BoolArray = analysis.blocking <= options.max_blocking
        arriving = np.where(kept, rate_per_s / np.maximum(1 - analysis.blocking, 0.5), rate_per_s)
    kept &= analysis.throughput_per_s >= rate_per_s * (1 - 1e-7)
    for statistic, limits in table.latency_targets["itl_ms"].items():
        limit = limits[server]
        some = ~np.isnan(limit)
        if some.any():
            kept &= ~some | (analysis.statistic("itl_ms", statistic) <= np.where(some, limit, np.inf) * (1 - KEPT))
    result = {}
    for name, servers in asked.items():
        values = np.full(len(server), np.inf)
        mine = np.flatnonzero(kept & np.isin(server, servers))
        if len(mine):
            of_mine = table.engines.of(server[mine], profile[mine], batch[mine])
            again = analyze(options.law, **of_mine, rate_per_s=arriving[mine])
            values[mine] = again.statistic("ttft_ms", name)
        result[name] = values
    return result
