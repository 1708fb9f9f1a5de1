"""A gated queue: who comes during an iteration is served in the next one, with all who came during the same."""

from __future__ import annotations

import numpy as np

from inferno_milp.queueing.arrays import TINY, FloatArray

USUAL_LOAD = 0.5
"""Load at which the tail is fitted to the variance; above, all that comes on top is exponential."""
ROUNDS = 20
"""Rounds of the fixed point for the iterations in which nobody comes; it contracts quickly."""


def gated_iterations(
    base_ms: FloatArray, prompt_ms: FloatArray, square: FloatArray, rate: FloatArray, load: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the probability that nobody comes during an iteration, its mean length, and of those found E[T], E[T²].

    An iteration takes its base and the prompts of all who came during the one before, or, where nobody did, of the one
    who comes next. The length beyond the base is taken as gamma distributed.
    """
    nobody = np.exp(-rate * (base_ms + prompt_ms))
    for _ in range(ROUNDS):
        mean_ms = np.maximum((base_ms + nobody * prompt_ms) / (1 - load), base_ms + prompt_ms)
        came_ms = load * mean_ms + nobody * prompt_ms
        square_ms = base_ms**2 + 2 * base_ms * came_ms + (rate * mean_ms + nobody) * square
        square_ms = np.maximum(square_ms / (1 - load**2), mean_ms**2)
        beyond_ms = np.maximum(mean_ms - base_ms, TINY)
        scale_ms = np.maximum(square_ms - mean_ms**2, TINY) / beyond_ms
        shape = beyond_ms / scale_ms
        again = np.exp(-rate * base_ms - shape * np.log1p(rate * scale_ms))
        nobody = np.sqrt(nobody * again)  # halfway, so that it does not swing
    second = shape * (shape + 1) * scale_ms**2
    cube_ms = base_ms**3 + 3 * base_ms**2 * beyond_ms + 3 * base_ms * second + second * (shape + 2) * scale_ms
    return nobody, mean_ms, square_ms / mean_ms, cube_ms / mean_ms


def uniform_part_ms(base_ms: FloatArray, prompt_ms: FloatArray, square: FloatArray) -> FloatArray:
    """Width of the uniform part of what comes after the iteration found, the rest exponential, at half of the load.

    There the two come to the mean and the variance of batches that are not full: what is left of the iteration found,
    uniform within it, and those who come in it; long ones have more of both.
    """
    load = np.full_like(prompt_ms, USUAL_LOAD)
    rate = load / prompt_ms
    *_, found_ms, found_square = gated_iterations(base_ms, prompt_ms, square, rate, load)
    mean_ms = (0.5 + load) * found_ms
    variance = (0.5 + load) ** 2 * np.maximum(found_square - found_ms**2, 0.0)
    variance += found_square / 12 + rate * square * found_ms
    root = np.sqrt(np.maximum(4 * variance - mean_ms**2, 0.0) / 3)
    return np.asarray(np.clip(1.5 * (mean_ms - root), 0.0, found_ms))
