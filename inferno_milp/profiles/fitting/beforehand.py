"""What is known of the terms of a model on an accelerator before anything is measured: the roofline's estimate."""

from __future__ import annotations

from inferno_milp.errors import OptionError
from inferno_milp.problem.architecture import LanguageModel
from inferno_milp.problem.supply import Accelerator
from inferno_milp.profiles.fitting.terms import Prior
from inferno_milp.profiles.roofline import DEFAULT_EFFICIENCY, Efficiency, estimate_terms

SPREAD = {"alpha_ms": 0.15, "beta_ms": 0.3, "delta_ms": 0.15, "kappa_ms": 0.3}
"""Standard deviations of the logarithms of terms about their estimates. They count for little once a term is measured:
a few runs that tell it within 3 % outweigh them."""


def roofline_priors(
    model: LanguageModel, accelerator: Accelerator, precision: str, efficiency: Efficiency = DEFAULT_EFFICIENCY
) -> dict[str, Prior]:
    """Return what the roofline says of the terms; nothing where a figure of the accelerator is missing."""
    try:
        terms = estimate_terms(model, accelerator, precision, efficiency=efficiency)
    except OptionError:
        return {}
    return {name: Prior(terms[name], spread) for name, spread in SPREAD.items()}
