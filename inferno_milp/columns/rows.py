"""Rows of the table of candidates: those that can serve, and those that cannot, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def rows_of(servers: IntArray, server: int) -> npt.NDArray[np.intp]:
    """Return the positions of a server's rows; tables are in the order of the servers."""
    return np.arange(*np.searchsorted(servers, [server, server + 1]))


@dataclass(frozen=True, slots=True)
class Rows:
    """One element per (server, accelerator, batch size), by server, accelerator, batch size.

    Attributes
    ----------
    server, profile, accelerator, type : positions in the problem's servers, profiles and accelerators, and in
        `Candidates.types`.
    batch_size : max batch size N.
    max_rate_per_s : highest throughput of one replica under the targets, on average over the times that it is there and
        those that it is not, requests/s; NaN for a server without a load.
    replicas : replicas that carry the server's required rate with what it wants in reserve, or its `min_replicas`.
    cost_per_hour : price of all replicas.
    devices : devices of the type that all replicas take.
    price_per_replica, devices_per_replica : the same of one replica.
    """

    server: IntArray
    profile: IntArray
    accelerator: IntArray
    type: IntArray
    batch_size: IntArray
    max_rate_per_s: FloatArray
    replicas: IntArray
    cost_per_hour: FloatArray
    devices: IntArray
    price_per_replica: FloatArray
    devices_per_replica: IntArray

    def take(self, which: npt.NDArray[np.intp] | BoolArray) -> Rows:
        """Return the chosen rows."""
        return Rows(*(getattr(self, field.name)[which] for field in fields(self)))

    def batches_of(self, server: int, profile: int) -> npt.NDArray[np.intp]:
        """Return the positions of the batch sizes of a server with a profile, rising."""
        mine = rows_of(self.server, server)
        return np.asarray(mine[self.profile[mine] == profile])

    def best_batches(self, *, by_rate: bool) -> npt.NDArray[np.intp]:
        """Of each (server, accelerator), the position of the batch size with the fewest replicas, or highest rate.

        Among equals it is the smallest batch.
        """
        if not len(self):
            return np.empty(0, dtype=np.intp)
        begins = np.ones(len(self), dtype=bool)
        begins[1:] = (self.server[1:] != self.server[:-1]) | (self.accelerator[1:] != self.accelerator[:-1])
        first = np.flatnonzero(begins)
        value = np.where(np.isnan(self.max_rate_per_s), 0.0, -self.max_rate_per_s) if by_rate else self.replicas
        group = np.cumsum(begins) - 1
        best = np.flatnonzero(value == np.minimum.reduceat(value, first)[group])
        return best[np.searchsorted(group[best], np.arange(len(first)))]

    def and_also(self, others: Rows) -> Rows:
        """Return these and others, those after these."""
        rows: Rows = joined([self, others])
        return rows

    def __len__(self) -> int:
        return len(self.server)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rows that are no candidates, with what the reason needs.

    Attributes
    ----------
    server, profile, accelerator, batch_size : as in `Rows`.
    rate_per_s : the lowest admissible rate.
    ttft_ms, itl_ms : mean latencies there, the least there can be.
    timeless : whether requests would take no time, so that the rate would be unbounded.
    fits : whether the KV cache holds a request at all.
    blocking : share of requests turned away at that rate.
    """

    server: IntArray
    profile: IntArray
    accelerator: IntArray
    batch_size: IntArray
    rate_per_s: FloatArray
    ttft_ms: FloatArray
    itl_ms: FloatArray
    timeless: BoolArray
    fits: BoolArray
    blocking: FloatArray

    def take(self, which: npt.NDArray[np.intp] | BoolArray) -> Rejected:
        """Return the chosen rows."""
        return Rejected(*(getattr(self, field.name)[which] for field in fields(self)))


def joined(parts: Sequence[Any]) -> Any:
    """Put tables of one kind together."""
    kind = type(parts[0])
    return kind(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(kind)))


def beside(new: Any, known: Any, same: BoolArray) -> Any:
    """Put rows of servers that are the same beside those of the others, in the order of the servers."""
    which = np.flatnonzero(same[known.server])
    kept = type(known)(*(getattr(known, field.name)[which] for field in fields(known)))
    both = joined([kept, new])
    order = np.argsort(both.server, kind="stable")
    return type(both)(*(getattr(both, field.name)[order] for field in fields(both)))
