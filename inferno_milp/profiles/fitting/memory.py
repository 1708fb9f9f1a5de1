"""What the memory holds: from runs in which clients waited for a place in the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inferno_milp.profiles.fitting.runs import Runs, in_batch, waiting
from inferno_milp.profiles.fitting.terms import FloatArray

MANY_SHAPES = 1.3
"""Contexts that differ by more than this factor tell a limit of tokens from one of sequences."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the runs say of the memory.

    Attributes
    ----------
    kv_tokens : tokens that the KV cache holds; None where the runs do not say.
    max_batch : sequences that run at once; None where no run reached a limit.
    most_seen : most sequences that were seen to decode at once: the batch may be as large at least.
    runs : from how many runs.
    """

    kv_tokens: int | None
    max_batch: int | None
    most_seen: int
    runs: int


def find_memory(runs: Runs) -> Memory:
    """Find whether tokens or sequences are limited: whichever varies less over the runs in which clients waited."""
    decoding = in_batch(runs)
    full = waiting(runs)
    most_seen = int(np.nanmax(np.where(runs.batch, runs.clients, decoding), initial=1.0))
    if not full.any():
        return Memory(None, None, max(most_seen, 1), 0)
    context = runs.input_tokens + runs.output_tokens * (1 + runs.cv2_output) / 2
    held = (decoding * context)[full]
    by_tokens, by_sequences = _spread(held), _spread(decoding[full])
    differ = context[full].max() > MANY_SHAPES * context[full].min()
    if differ and by_sequences < by_tokens:
        return Memory(None, int(np.median(decoding[full])), most_seen, int(full.sum()))
    return Memory(int(np.median(held)), None, most_seen, int(full.sum()))


def _spread(values: FloatArray) -> float:
    return float(np.std(np.log(values))) if values.size > 1 else 0.0
