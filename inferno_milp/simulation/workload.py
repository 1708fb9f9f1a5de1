"""Requests to simulate: when they come, and how long they are."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from inferno_milp.simulation.engine import FloatArray, IntArray

LengthLaw = Literal["fixed", "geometric", "lognormal"]


def draw_arrivals(rng: np.random.Generator, rate_per_s: float, count: int, *, cv2: float = 1.0) -> FloatArray:
    """Draw times of arrival: a renewal process with gamma times between arrivals.

    Parameters
    ----------
    rate_per_s : mean rate, requests/s, > 0.
    cv2 : squared coefficient of variation of the times between arrivals: 0 is a constant pace, 1 Poisson, more bursty.

    Returns
    -------
    Times in ms, rising; shape (count,).
    """
    mean_ms = 1000.0 / rate_per_s
    if cv2 == 0:
        return np.asarray(mean_ms * np.arange(1, count + 1), dtype=float)
    return np.cumsum(rng.gamma(1 / cv2, cv2 * mean_ms, count))


def draw_lengths(
    rng: np.random.Generator,
    mean: float,
    count: int,
    *,
    cv2: float,
    least: int,
    law: LengthLaw | None = None,
    sample: npt.ArrayLike | None = None,
) -> IntArray:
    """Draw lengths in tokens.

    Parameters
    ----------
    mean : mean tokens; at least `least`.
    cv2 : squared coefficient of variation; has no part in fixed and geometric lengths.
    least : no length is below it.
    law : `fixed` (a mean that is not whole is met by its two neighbours), `geometric` on 1, 2, …, or `lognormal` above
        the least, rounded at random. None is fixed for 0, geometric for outputs (`least` of 1) with 1, else lognormal.
    sample : measured lengths to draw from instead.

    Returns
    -------
    Whole numbers; shape (count,).
    """
    if sample is not None:
        return np.asarray(np.maximum(rng.choice(np.asarray(sample), count), least), dtype=np.int64)
    if law is None:
        law = "fixed" if cv2 == 0 or mean <= least else "geometric" if cv2 == 1 and least == 1 else "lognormal"
    if law == "geometric":
        return rng.geometric(1 / max(mean, 1.0), count).astype(np.int64)
    if law == "fixed":
        whole = np.floor(mean)
        return np.asarray(np.maximum(whole + (rng.random(count) < mean - whole), least), dtype=np.int64)
    # Above the least length lognormal, rounded at random, so that mean and variability are those asked for.
    above = mean - least
    variance = np.log1p(cv2 * (mean / above) ** 2)
    lengths = least + rng.lognormal(np.log(above) - variance / 2, np.sqrt(variance), count)
    return np.asarray(np.floor(lengths + rng.random(count)), dtype=np.int64)
