"""The terms of an iteration's time that are fitted, and what is known of them before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TERMS = (
    "alpha_ms", "beta_ms", "delta_ms", "kappa_ms", "gamma_ms", "overhead_ms", "prefill_quadratic_ms", "lag_iterations"
)  # fmt: skip
"""All terms, by their names in a profile, in the order of arrays of them; `gamma_ms` is fitted as γ − α."""
ALWAYS = TERMS[:4]
OPTIONAL = TERMS[4:]
"""Terms that are kept only where they predict shapes that they were not fitted to."""
SYMBOLS = dict(zip(TERMS, ("α", "β", "δ", "κ", "γ", "o", "q", "l"), strict=True))

RATIOS = {"beta_ms": 1 / 300, "delta_ms": 1 / 350, "kappa_ms": 6e-6}
"""What terms are as multiples of α, to within a factor of some: α is the weights' passage through the memory; a token's
arithmetic takes a few hundredths of a per cent … of it on accelerators of today, its context some millionths."""
RATIO_SPREAD = np.log(6.0)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a term: a lognormal law.

    Attributes
    ----------
    median : in the term's unit.
    spread : standard deviation of the logarithm.
    """

    median: float
    spread: float


def ratio_priors(alpha_ms: float) -> dict[str, Prior]:
    """Return what is known of the terms where α alone is known, roughly."""
    return {name: Prior(ratio * alpha_ms, float(RATIO_SPREAD)) for name, ratio in RATIOS.items()}


def typical(alpha_ms: float) -> FloatArray:
    """Return what terms typically come to, at which a fit begins, and by which it is scaled; shape (terms,)."""
    ratios = [1.0, RATIOS["beta_ms"], RATIOS["delta_ms"], RATIOS["kappa_ms"], 0.1, 0.5, 1e-8]
    return np.array([*(alpha_ms * ratio for ratio in ratios), 0.5])


def engine_terms(parameters: FloatArray) -> dict[str, FloatArray]:
    """Return terms as the queueing analysis takes them.

    Parameters
    ----------
    parameters : of one or several profiles; shape (profiles, terms).

    Returns
    -------
    dict
        Arrays of shape (profiles, 1), to be broadcast against runs.
    """
    found = {name: parameters[:, i : i + 1] for i, name in enumerate(TERMS)}
    return {**found, "gamma_ms": found["alpha_ms"] + found["gamma_ms"]}


def profile_terms(parameters: FloatArray) -> dict[str, float]:
    """Return the terms of one profile as a profile has them; shape (terms,)."""
    return {name: float(values[0, 0]) for name, values in engine_terms(parameters[None]).items()}


def as_array(terms: Mapping[str, float]) -> FloatArray:
    """Return the terms of a profile as an array; shape (terms,)."""
    values = np.array([terms.get(name, 0.0) for name in TERMS])
    values[TERMS.index("gamma_ms")] = max(terms.get("gamma_ms", 0.0) - terms["alpha_ms"], 0.0)
    return values


def positions(names: Sequence[str]) -> list[int]:
    """Return the positions of terms in the arrays."""
    return [TERMS.index(name) for name in names]
