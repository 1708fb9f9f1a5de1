"""Batch sizes that serve with the same replicas, and how soon requests are done with each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.rows import FloatArray, Rows
from inferno_milp.queueing import analyze

AS_SOON = 0.01
"""A batch size is as quick as the quickest if requests take no more than this part longer."""
MUCH_SOONER = 0.2
"""Part of the time by which requests must be done sooner for a larger batch to be worth a word."""
TRIED = 8
"""Batch sizes tried of each allocation for that word, evenly spaced on a logarithmic scale."""
MOST_NAMED = 3


def spaced(count: int, most: int) -> npt.NDArray[np.intp]:
    """Return positions among so many, the first and the last one too, evenly spaced on a logarithmic scale."""
    return np.unique(np.round(np.geomspace(1, count, most)).astype(np.intp) - 1)


@dataclass(frozen=True, slots=True)
class _Times:
    """Rows that could stand for each allocation, and how long requests take with them.

    Attributes
    ----------
    owner : position of the allocation.
    row : position in the table of candidates, by rising batch size within an allocation.
    end_to_end_ms, ttft_ms : means, at the rate that the allocation's replicas carry.
    """

    owner: npt.NDArray[np.intp]
    row: npt.NDArray[np.intp]
    end_to_end_ms: FloatArray
    ttft_ms: FloatArray


def quickest_batches(table: Candidates, rows: Rows, rate_per_s: FloatArray) -> npt.NDArray[np.intp]:
    """Return, for each allocation, the row of the smallest batch with which requests are done soonest, or as good as.

    Only batch sizes at least as large are looked at, and of those only such whose highest rate is no lower: they serve
    with the same replicas, whatever these hold in reserve.

    Parameters
    ----------
    table : all candidates.
    rows, rate_per_s : of the allocations, rows of the table and the rate that each of their replicas carries.

    Returns
    -------
    array of int
        Positions in the table.
    """
    times = _times(table, rows, rate_per_s, None)
    result = np.empty(len(rows), dtype=np.intp)
    for i in range(len(rows)):
        mine = np.flatnonzero(times.owner == i)
        soon = times.end_to_end_ms[mine] <= (1 + AS_SOON) * times.end_to_end_ms[mine].min()
        result[i] = times.row[mine[int(np.argmax(soon))]]
    return result


def slow_batches(table: Candidates, rows: Rows, rate_per_s: FloatArray) -> Iterator[str]:
    """Yield where a larger batch would serve much sooner at the same cost."""
    problem = table.problem
    loaded = np.flatnonzero(~np.isnan(rows.max_rate_per_s))
    rows, rate_per_s = rows.take(loaded), rate_per_s[loaded]
    times = _times(table, rows, rate_per_s, TRIED)
    found = []
    for i in range(len(rows)):
        mine = np.flatnonzero(times.owner == i)
        now, best = mine[0], mine[int(np.argmin(times.end_to_end_ms[mine]))]
        if times.end_to_end_ms[best] < (1 - MUCH_SOONER) * times.end_to_end_ms[now]:
            sizes = f"{rows.batch_size[i]} → {table.rows.batch_size[times.row[best]]}"
            name = problem.servers[rows.server[i]].name
            found.append(f"{name} {sizes} (mean TTFT {_ms(times.ttft_ms[now])} → {_ms(times.ttft_ms[best])} ms)")
    if found:
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        listed = ", ".join(found[:MOST_NAMED])
        yield f"larger batches would serve much sooner at the same cost (--batch-choice quickest): {listed}{more}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _times(table: Candidates, rows: Rows, rate_per_s: FloatArray, tried: int | None) -> _Times:
    every = table.rows
    owners, positions = [], []
    for i in range(len(rows)):
        same = every.batches_of(int(rows.server[i]), int(rows.profile[i]))
        same = same[every.batch_size[same] >= rows.batch_size[i]]
        # Without a load there is no rate, and nothing to choose by.
        enough = same[~(every.max_rate_per_s[same] < rows.max_rate_per_s[i])]
        if tried is not None and len(enough) > tried:
            enough = enough[spaced(len(enough), tried)]
        owners.append(np.full(len(enough), i))
        positions.append(enough)
    owner, row = (np.concatenate([*parts, np.empty(0, dtype=np.intp)]).astype(np.intp) for parts in (owners, positions))
    engines = table.engines.of(every.server[row], every.profile[row], every.batch_size[row])
    there = table.while_there_per_s(every.take(row), rate_per_s[owner])
    analysis = analyze(table.problem.options.law, **engines, rate_per_s=there)
    tokens = np.maximum(np.asarray(engines["output_tokens"], dtype=float), 1.0)
    end_to_end = analysis.ttft_ms + (tokens - 1) * np.nan_to_num(analysis.itl_ms)
    return _Times(owner, row, np.asarray(end_to_end), analysis.ttft_ms)
