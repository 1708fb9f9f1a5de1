"""Latencies of a phase by the number of its replicas and their batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.rows import BoolArray, FloatArray, IntArray
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
    rows, problem = table.rows, table.problem
    grids = []
    for row in rows.best_batches(by_rate=False).tolist():
        least, server = int(rows.replicas[row]), int(rows.server[row])
        there_are = max(MOST_TIMES * least + CLOSELY, at_least[server])
        if most is not None:
            there_are = min(there_are, int(most[rows.type[row]] // rows.devices_per_replica[row]))
        if there_are < least:
            continue
        counts = spaced(least, there_are, CLOSELY, STEP)
        batches = rows.batch_size[rows.batches_of(server, int(rows.profile[row]))]
        sizes = spaced(int(batches[0]), int(batches[-1]), BATCHES_CLOSELY, BATCH_STEP)
        able = (counts - problem.servers[server].survive) * problem.accelerators[rows.accelerator[row]].availability
        sizes = np.union1d(sizes, rows.batch_size[row])
        grids.append(_Grid(row, server, counts, rate_per_s[server] / able, sizes))
    result: dict[int, list[Curve]] = {}
    for grid, latencies in zip(grids, _analyse(table, grids, statistics), strict=True):
        curve = Curve(grid.row, grid.replicas, grid.rate_per_s, latencies)
        result.setdefault(grid.server, []).append(curve)
    return result


@dataclass(frozen=True, slots=True)
class _Grid:
    """Numbers of replicas, with the rate at each, and batch sizes, of one candidate of a server."""

    row: int
    server: int
    replicas: IntArray
    rate_per_s: FloatArray
    batch_sizes: IntArray

    @property
    def shape(self) -> tuple[int, int]:
        """Replicas × batch sizes."""
        return len(self.replicas), len(self.batch_sizes)

    def flat(self) -> tuple[IntArray, FloatArray, IntArray]:
        """Return row, rate and batch size of every point, batch sizes fastest."""
        replicas, sizes = self.shape
        row = np.full(replicas * sizes, self.row)
        return row, np.repeat(self.rate_per_s, sizes), np.tile(self.batch_sizes, replicas)


def _analyse(
    table: Candidates, grids: Sequence[_Grid], statistics: Mapping[int, Sequence[str]]
) -> list[dict[str, FloatArray]]:
    """Analyse all grids together, in blocks; return the latencies of each, replicas × batch sizes."""
    if not grids:
        return []
    row, rate, batch = (np.concatenate(parts) for parts in zip(*(grid.flat() for grid in grids), strict=True))
    server, profile = table.rows.server[row], table.rows.profile[row]
    asked = {name: [s for s, names in statistics.items() if name in names] for name in _all(statistics)}
    latencies = {name: np.full(len(row), np.inf) for name in asked}
    for start in range(0, len(row), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        for name, values in _block(table, profile[part], server[part], rate[part], batch[part], asked).items():
            latencies[name][part] = values
    ends = np.cumsum([grid.shape[0] * grid.shape[1] for grid in grids]).tolist()
    found = []
    for grid, start, end in zip(grids, [0, *ends], ends, strict=False):
        found.append({name: latencies[name][start:end].reshape(grid.shape) for name in statistics[grid.server]})
    return found


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
