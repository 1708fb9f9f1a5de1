"""Estimates with confidence intervals from simulated requests: batch means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from inferno_milp.simulate.engine import FloatArray

BATCHES = 20
"""Batches that a run is cut into: long enough to be nearly independent, enough of them for a variance."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate and its 95 % confidence interval, value ± half_width; NaN where there is nothing to estimate from."""

    value: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.half_width


NOTHING = Estimate(math.nan, math.nan)


def estimate_mean(runs: Sequence[FloatArray], weights: Sequence[FloatArray] | None = None) -> Estimate:
    """Estimate a mean from runs of values in the order of arrival; NaN values are left out.

    Parameters
    ----------
    weights : of the same shapes; by default all 1.
    """
    pieces = [_cut(values, len(runs)) for values in runs]
    scales = (
        [_cut(w, len(runs)) for w in weights] if weights is not None else [[np.ones_like(p) for p in r] for r in pieces]
    )
    sums, totals = [], []
    for run, scale in zip(pieces, scales, strict=True):
        for values, factors in zip(run, scale, strict=True):
            good = ~np.isnan(values)
            if factors[good].sum() > 0:
                sums.append(float((values[good] * factors[good]).sum()))
                totals.append(float(factors[good].sum()))
    if not totals:
        return NOTHING
    value = sum(sums) / sum(totals)
    return Estimate(value, _half_width([s / t for s, t in zip(sums, totals, strict=True)]))


def estimate_percentile(runs: Sequence[FloatArray], percent: float) -> Estimate:
    """Estimate a percentile from runs of values in the order of arrival; NaN values are left out."""
    values = np.concatenate([run[~np.isnan(run)] for run in runs]) if runs else np.empty(0)
    if not values.size:
        return NOTHING
    batches = [piece[~np.isnan(piece)] for run in runs for piece in _cut(run, len(runs))]
    return Estimate(
        float(np.percentile(values, percent)),
        _half_width([float(np.percentile(batch, percent)) for batch in batches if batch.size]),
    )


def estimate_of_runs(values: Sequence[float], value: float) -> Estimate:
    """Give a value the confidence interval of what the runs found, each for itself."""
    return Estimate(value, _half_width([v for v in values if not math.isnan(v)]))


def _cut(values: FloatArray, runs: int) -> list[FloatArray]:
    return np.array_split(values, max(math.ceil(BATCHES / runs), 1))


def _half_width(batches: Sequence[float]) -> float:
    count = len(batches)
    if count < 2:
        return math.nan
    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * np.std(batches, ddof=1) / math.sqrt(count))
