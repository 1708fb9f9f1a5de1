"""Measurements → a profile: the queueing law itself fitted to what benchmarks measured, and how good that fit is."""

from inferno_milp.profiles.fitting.fit import Fit, fit_profile
from inferno_milp.profiles.fitting.terms import Prior

__all__ = ["Fit", "Prior", "fit_profile"]
