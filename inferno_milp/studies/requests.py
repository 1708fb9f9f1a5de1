"""Requests of a load, or of a mix, to be simulated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inferno_milp.problem.loads import Bucket, Load
from inferno_milp.simulation import draw_lengths

IntArray = npt.NDArray[np.int64]


def draw_mix(rng: np.random.Generator, mix: Sequence[Bucket], count: int) -> tuple[IntArray, IntArray]:
    """Draw prompt and output lengths of a mix: a bucket for each request, then lengths of that bucket.

    Returns
    -------
    Prompt and output tokens; shape (count,) each.
    """
    shares = np.array([bucket.share for bucket in mix])
    of = rng.choice(len(mix), count, p=shares / shares.sum())
    inputs, outputs = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    for b, bucket in enumerate(mix):
        mine = np.flatnonzero(of == b)
        least = int(bucket.input_tokens >= 1)
        inputs[mine] = draw_lengths(rng, bucket.input_tokens, len(mine), cv2=bucket.cv2_input, least=least)
        outputs[mine] = draw_lengths(rng, bucket.output_tokens, len(mine), cv2=bucket.cv2_output, least=1)
    return inputs, outputs


def draw_requests(rng: np.random.Generator, load: Load, count: int) -> tuple[IntArray, IntArray]:
    """Draw prompt and output lengths of a load, of its mix where it has one; shape (count,) each."""
    if load.mix:
        return draw_mix(rng, load.mix, count)
    least = int(load.input_tokens >= 1)
    inputs = draw_lengths(rng, load.input_tokens, count, cv2=load.cv2_input, least=least)
    return inputs, draw_lengths(rng, load.output_tokens, count, cv2=load.cv2_output, least=1)
