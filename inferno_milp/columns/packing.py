"""Nodes: which numbers of replicas of which sizes fit into them, and which replica sits where.

A replica of `size` devices must sit in one node. Where every size divides the next larger one, filling up by falling
size never fails when any filling succeeds: so many replicas of size d and larger fit as the nodes have room for, in
units of d (`slots`). Otherwise nodes are cut into sizes by `cuttings`, every way that leaves no room for one more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from inferno_milp.errors import OptionError
from inferno_milp.problem.supply import NodeGroup
from inferno_milp.program.highs_engine import Program, run

MOST_CUTTINGS = 20_000
"""Ways to cut one node; nodes and sizes that have more are refused."""


class TooManyCuttingsError(OptionError):
    """A node may be cut in more ways than can be listed."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """A way to cut a node of a group: how many replicas of each size it holds."""

    group: int
    counts: tuple[int, ...]


def is_chain(sizes: Sequence[int]) -> bool:
    """Whether each size divides the next larger one."""
    return all(larger % smaller == 0 for smaller, larger in pairwise(sorted(sizes)))


def slots(groups: Sequence[NodeGroup], size: int) -> int:
    """Replicas of one size that the nodes hold when they hold nothing else."""
    return sum(group.count * (group.devices // size) for group in groups)


def cuttings(groups: Sequence[NodeGroup], sizes: Sequence[int]) -> list[Cutting]:
    """Find every way to cut a node of each group into the sizes that leaves no room for one more.

    Raises
    ------
    TooManyCuttingsError
        If there are too many.
    """
    found: list[Cutting] = []
    for number, group in enumerate(groups):
        for counts in _ways(group.devices, sorted(sizes, reverse=True)):
            found.append(Cutting(number, tuple(reversed(counts))))
            if len(found) > MOST_CUTTINGS:
                words = f"a node of {group.devices} {group.type} can be cut up in more than {MOST_CUTTINGS} ways"
                raise TooManyCuttingsError(f"{words}: give smaller nodes, or fewer sizes of replicas")
    return found


def _ways(devices: int, falling: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield ways to cut devices into sizes, given from the largest on; what is left is less than the smallest."""
    size, *smaller = falling
    if not smaller:
        yield (devices // size,)
        return
    for count in range(devices // size + 1):
        yield from ((count, *rest) for rest in _ways(devices - count * size, smaller))


def pack(groups: Sequence[NodeGroup], sizes: Sequence[int], counts: Sequence[int]) -> list[Cutting] | None:
    """Fill nodes with replicas; return what each node in use holds, or None if they don't fit.

    Parameters
    ----------
    sizes, counts : devices of a replica, rising, and replicas of that size.
    """
    if not is_chain(sizes):
        return _pack_by_cutting(groups, sizes, counts)
    left = list(counts)
    # From the smallest nodes that hold a size, so that larger ones stay whole for larger replicas.
    order = sorted(range(len(groups)), key=lambda g: groups[g].devices)
    most = sum(left)  # nodes of a group that are of use: each one that is used holds a replica
    group_of = [g for g in order for _ in range(min(groups[g].count, most))]
    free = [groups[g].devices for g in group_of]
    held = [[0] * len(sizes) for _ in group_of]
    for i in reversed(range(len(sizes))):
        for node in range(len(group_of)):
            fits = min(left[i], free[node] // sizes[i])
            free[node] -= fits * sizes[i]
            held[node][i] = fits
            left[i] -= fits
            if not left[i]:
                break
    if any(left):
        return None
    filled = [Cutting(g, tuple(counts_)) for g, counts_ in zip(group_of, held, strict=True) if any(counts_)]
    return sorted(filled, key=lambda cutting: cutting.group)


def _pack_by_cutting(groups: Sequence[NodeGroup], sizes: Sequence[int], counts: Sequence[int]) -> list[Cutting] | None:
    ways = cuttings(groups, sizes)
    held = np.array([way.counts for way in ways], dtype=float)
    of_group = np.array([way.group for way in ways])
    matrix = np.concatenate((held.T, np.array([of_group == g for g in range(len(groups))], dtype=float)))
    rows, width = matrix.shape
    program = Program(
        costs=np.ones(width),
        offset=0.0,
        lower=np.zeros(width),
        upper=np.array([groups[g].count for g in of_group], dtype=float),
        whole=np.ones(width, dtype=bool),
        starts=(width * np.arange(rows + 1)).astype(np.int32),
        columns=np.tile(np.arange(width), rows).astype(np.int32),
        values=matrix.ravel(),
        row_lower=np.concatenate((np.asarray(counts, dtype=float), np.full(len(groups), -np.inf))),
        row_upper=np.concatenate((np.full(len(sizes), np.inf), [group.count for group in groups])),
    )
    found = run(program, gap=0.5)
    if found.values is None:
        return None
    used = np.round(found.values).astype(int)
    filled, left = [], np.array(counts)
    for way, times in zip(ways, used.tolist(), strict=True):
        for _ in range(times):
            take = np.minimum(left, way.counts)
            left = left - take
            if take.any():
                filled.append(Cutting(way.group, tuple(take.tolist())))
    return filled
