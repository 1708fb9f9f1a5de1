"""Robust nonlinear least squares on the law itself: the terms that best predict what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import least_squares

from inferno_milp.profiles.fitting.prediction import predict
from inferno_milp.profiles.fitting.runs import Runs
from inferno_milp.profiles.fitting.terms import TERMS, FloatArray, Prior, positions, ratio_priors, typical

STEP = 1e-5
"""Of the differences by which derivatives are taken, relative to the scale of a term."""
LEAST_NOISE, FIRST_NOISE = 0.01, {"ttft": 0.2, "itl": 0.03}
"""Relative deviations of what is measured from what is predicted: the least assumed, and those assumed at first."""
FEW = 30
"""Runs of so many requests have twice the variance of long ones."""
ROUNDS = 3
"""Fits, each with the deviations that the one before it found."""
FAR = 1.0
"""Residuals beyond this many standard deviations count by their size, not by its square (soft L1)."""
NORMAL = 1.4826
"""Standard deviation of a normal law, as a multiple of the median of its absolute deviations."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a fit takes as given.

    Attributes
    ----------
    terms : terms that are fitted; all others are 0 (γ = α).
    priors : what is known of terms beforehand; for others the ratios to α count.
    token_budget, max_batch : M and N of the engine.
    """

    terms: tuple[str, ...]
    priors: Mapping[str, Prior]
    token_budget: int
    max_batch: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fit.

    Attributes
    ----------
    setting : what was given.
    parameters : shape (all terms,).
    jacobian : of the residuals, in standard deviations, by the logarithm of each fitted term (the optional ones by the
        term over its scale); without the priors. Shape (residuals, fitted terms).
    prior_information : what the priors add to each fitted term: 1/spread².
    ttft_noise, itl_noise : relative deviation of measured from predicted.
    scale : of each fitted term: its value, or for an optional one its typical value.
    """

    setting: Setting
    parameters: FloatArray
    jacobian: FloatArray
    prior_information: FloatArray
    ttft_noise: float
    itl_noise: float
    scale: FloatArray

    def predict(self, runs: Runs) -> tuple[FloatArray, FloatArray]:
        """Predict mean TTFT and ITL, ms; shape (runs,)."""
        ttft_ms, itl_ms = predict(self.parameters[None], runs, self.setting.token_budget, self.setting.max_batch)
        return ttft_ms[0], itl_ms[0]


def estimate(runs: Runs, setting: Setting, *, tolerance: float = 1e-8, like: Estimate | None = None) -> Estimate:
    """Fit terms to the runs that count.

    Parameters
    ----------
    tolerance : relative, of the terms and of the sum of squares, at which the search ends.
    like : an estimate of much the same runs, where the search begins, with its deviations.

    Raises
    ------
    ValueError
        If no run counts.
    """
    runs = runs.take(runs.counts)
    if not len(runs.shapes):
        raise ValueError("no run counts")
    where = positions(setting.terms)
    least_itl = (
        float(np.min(runs.itl_ms[runs.counts_itl])) if runs.counts_itl.any() else float(np.min(runs.ttft_ms)) / 2
    )
    unit = typical(least_itl)[where]
    start = unit.copy()
    known = {**ratio_priors(least_itl), **setting.priors}
    named = [(i, known[name]) for i, name in enumerate(setting.terms) if name in known]
    for i, prior in named:
        start[i] = prior.median
    start[0] = 0.9 * least_itl
    for i, name in enumerate(setting.terms):
        if like is not None and (value := like.parameters[TERMS.index(name)]) > 0:
            start[i] = value
    noise = dict(FIRST_NOISE) if like is None else {"ttft": like.ttft_noise, "itl": like.itl_noise}
    at = start / unit
    for _ in range(ROUNDS if like is None else 1):
        residuals = _residuals(runs, setting, where, unit, noise, named)
        found = least_squares(
            partial(_one, residuals),
            at,
            jac=partial(_jacobian, residuals),
            loss="soft_l1",
            f_scale=FAR,
            bounds=(1e-9, np.inf),
            ftol=tolerance,
            xtol=tolerance,
            max_nfev=60,
        )
        at = found.x
        if like is None:
            noise = _noise(runs, setting, _whole(at[None] * unit, where), noise)
    residuals = _residuals(runs, setting, where, unit, noise, [])
    optional = np.array([name not in TERMS[:4] for name in setting.terms])
    scale = np.where(optional, unit, at * unit)
    jacobian = _jacobian(residuals, at) * (scale / unit)
    information = np.zeros(len(where))
    for i, prior in named:
        information[i] = 1 / prior.spread**2
    values = at * unit
    values[optional & (at < 1e-6)] = 0.0
    return Estimate(
        setting=setting,
        parameters=_whole(values[None], where)[0],
        jacobian=jacobian,
        prior_information=information,
        ttft_noise=noise["ttft"],
        itl_noise=noise["itl"],
        scale=scale,
    )


def _whole(fitted: FloatArray, where: Sequence[int]) -> FloatArray:
    """Put fitted terms among all terms; shape (profiles, all terms)."""
    parameters = np.zeros((len(fitted), len(TERMS)))
    parameters[:, where] = fitted
    return parameters


Residuals = Callable[[FloatArray], FloatArray]


def _residuals(
    runs: Runs,
    setting: Setting,
    where: Sequence[int],
    unit: FloatArray,
    noise: Mapping[str, float],
    priors: Sequence[tuple[int, Prior]],
) -> Residuals:
    """Return the function from fitted terms over their unit to residuals, in standard deviations."""
    done = np.array([np.inf if m.requests is None else max(m.requests, 1) for m in runs.measurements])
    weight = 1 / np.sqrt(1 + FEW / done)

    def residuals(at: FloatArray) -> FloatArray:
        ttft_ms, itl_ms = predict(_whole(at * unit, where), runs, setting.token_budget, setting.max_batch)
        with np.errstate(divide="ignore", invalid="ignore"):
            ttft = (weight * np.log(ttft_ms / runs.ttft_ms))[:, runs.counts_ttft] / noise["ttft"]
            itl = (weight * np.log(itl_ms / runs.itl_ms))[:, runs.counts_itl] / noise["itl"]
        of_priors = [np.log(at[:, i] * unit[i] / prior.median) / prior.spread for i, prior in priors]
        return np.column_stack([ttft, itl, *of_priors])

    return residuals


def _one(residuals: Residuals, at: FloatArray) -> FloatArray:
    return np.asarray(residuals(at[None])[0])


def _jacobian(residuals: Residuals, at: FloatArray) -> FloatArray:
    """Take derivatives by differences, all in one call of the law."""
    step = STEP * np.maximum(at, 1e-3)
    found = residuals(np.vstack([at, at + np.diag(step)]))
    return np.asarray(((found[1:] - found[0]) / step[:, None]).T)


def _noise(runs: Runs, setting: Setting, parameters: FloatArray, before: Mapping[str, float]) -> dict[str, float]:
    ttft_ms, itl_ms = predict(parameters, runs, setting.token_budget, setting.max_batch)
    off = {
        "ttft": np.abs(np.log(ttft_ms[0] / runs.ttft_ms))[runs.counts_ttft],
        "itl": np.abs(np.log(itl_ms[0] / runs.itl_ms))[runs.counts_itl],
    }
    few = 2 * len(setting.terms)
    return {
        name: max(float(NORMAL * np.median(values)), LEAST_NOISE) if values.size > few else before[name]
        for name, values in off.items()
    }
