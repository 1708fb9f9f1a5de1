"""Estimates with confidence intervals from independent runs of simulated requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from inferno_milp.simulation.engine import FloatArray

CONFIDENCE = 0.95
PRECISION = 0.15
"""Half-width, relative to the value, that a simulation aims at."""
WIDEST = 0.25
"""Half-width, relative to the value, beyond which an estimate is not converged."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate and its 95 % confidence interval, value ± half_width; NaN where there is nothing to estimate from."""

    value: float
    half_width: float

    @property
    def margin(self) -> float:
        """Half the width; 0 where it is not known."""
        return 0.0 if math.isnan(self.half_width) else self.half_width

    @property
    def relative_width(self) -> float:
        """Half the width as a share of the value; infinite where it is not known."""
        if math.isnan(self.half_width):
            return math.inf
        return self.half_width / abs(self.value) if self.half_width else 0.0

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.margin

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.margin


NOTHING = Estimate(math.nan, math.nan)


def estimate_mean(runs: Sequence[FloatArray], weights: Sequence[FloatArray] | None = None) -> Estimate:
    """Estimate a mean; NaN values are left out.

    Parameters
    ----------
    runs : values of each run.
    weights : of the same shapes; by default all 1.
    """
    weights = [np.ones_like(run) for run in runs] if weights is None else weights
    good = [~np.isnan(run) for run in runs]
    totals = [float(w[g].sum()) for w, g in zip(weights, good, strict=True)]
    sums = [float((run[g] * w[g]).sum()) for run, w, g in zip(runs, weights, good, strict=True)]
    if sum(totals) == 0:
        return NOTHING
    of_runs = [value / total for value, total in zip(sums, totals, strict=True) if total > 0]
    return estimate_of_runs(of_runs, sum(sums) / sum(totals))


def estimate_percentile(runs: Sequence[FloatArray], percent: float) -> Estimate:
    """Estimate a percentile from the values of each run; NaN values are left out."""
    served = [run[~np.isnan(run)] for run in runs]
    served = [run for run in served if run.size]
    if not served:
        return NOTHING
    of_runs = [float(np.percentile(run, percent)) for run in served]
    return estimate_of_runs(of_runs, float(np.percentile(np.concatenate(served), percent)))


def estimate_of_runs(of_runs: Sequence[float], value: float) -> Estimate:
    """Give a value of all runs the confidence interval of what they found, each for itself (sectioning).

    Notes
    -----
    Deviations are from the value itself, not from the mean of the runs: of percentiles the two differ where runs are
    short (M. K. Nakayama, "Confidence intervals for quantiles using sectioning", ACM TOMACS 24, 2014).
    """
    found = np.array([v for v in of_runs if not math.isnan(v)])
    if len(found) < 2:
        return Estimate(value, math.nan)
    quantile = float(stdtrit(len(found) - 1, (1 + CONFIDENCE) / 2))
    deviation = math.sqrt(float(((found - value) ** 2).sum()) / (len(found) - 1))
    return Estimate(value, quantile * deviation / math.sqrt(len(found)))
