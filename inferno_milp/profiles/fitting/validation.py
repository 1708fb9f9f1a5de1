"""Which optional terms are kept, those that predict shapes left out; and how far off these predictions are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.profiles.fitting.estimate import Setting, estimate
from inferno_milp.profiles.fitting.runs import Runs
from inferno_milp.profiles.fitting.terms import ALWAYS, OPTIONAL

FOLDS = 5
"""Shapes are left out in so many groups, or one by one if there are fewer."""
ROUGHLY = 1e-4
"""Tolerance of the fits that only serve to choose terms."""
GAIN, LEAST_GAIN = 0.05, 0.02
"""A term must lower the score on what was left out by this share of it, and by this much: 0.16 % of TTFT, or 0.08 % of
ITL."""
UNTESTED = ("overhead_ms", "lag_iterations")
"""Optional terms that are kept where nothing can be left out: without them, what is outside the engine would be taken
for prompt work."""
WORST = 2.0
"""Relative errors beyond this count as this: one wild extrapolation shall not decide alone."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Mean relative errors on shapes that were left out of the fit.

    Attributes
    ----------
    ttft, itl : NaN where nothing was left out that counts.
    """

    ttft: float
    itl: float

    @property
    def score(self) -> float:
        """What the choice of terms makes small: the sum of the two, each as a share of what is usual of it."""
        return float(np.nansum([self.ttft / 0.08, self.itl / 0.04]))


def leave_shapes_out(runs: Runs, setting: Setting) -> HeldOut | None:
    """Fit without some shapes, judge on them, and so for all; None where fewer than two shapes count."""
    runs = runs.take(runs.counts)
    shapes = np.unique(runs.shapes)
    folds = min(FOLDS, len(shapes))
    if folds < 2:
        return None
    ttft, itl = [], []
    whole = estimate(runs, setting, tolerance=ROUGHLY)
    for fold in range(folds):
        left_out = np.isin(runs.shapes, shapes[fold::folds])
        found = estimate(runs.take(~left_out), setting, tolerance=ROUGHLY, like=whole)
        judged = runs.take(left_out)
        ttft_ms, itl_ms = found.predict(judged)
        ttft.append(np.abs(ttft_ms / judged.ttft_ms - 1)[judged.counts_ttft])
        itl.append(np.abs(itl_ms / judged.itl_ms - 1)[judged.counts_itl])
    return HeldOut(*(_mean(np.concatenate(errors)) for errors in (ttft, itl)))


def _mean(errors: np.ndarray) -> float:
    return float(np.mean(np.minimum(errors, WORST))) if errors.size else float("nan")


def choose_terms(runs: Runs, setting: Setting) -> tuple[tuple[str, ...], HeldOut | None]:
    """Add optional terms one after the other, the best first, as long as each lowers the error on shapes left out.

    Returns
    -------
    tuple
        The terms, in the order of `TERMS`.
    HeldOut or None
        Their errors; None where there are too few shapes to leave some out: then `UNTESTED` are kept.
    """
    kept: tuple[str, ...] = ()
    best = leave_shapes_out(runs, replace(setting, terms=ALWAYS))
    if best is None:
        return _ordered(UNTESTED), None
    while len(kept) < len(OPTIONAL):
        tried = {
            name: leave_shapes_out(runs, replace(setting, terms=_ordered((*kept, name))))
            for name in OPTIONAL
            if name not in kept
        }
        found = {name: held for name, held in tried.items() if held is not None}
        name = min(found, key=lambda n: found[n].score)
        if found[name].score > min(best.score * (1 - GAIN), best.score - LEAST_GAIN):
            break
        kept, best = (*kept, name), found[name]
    return _ordered(kept), best


def _ordered(kept: tuple[str, ...]) -> tuple[str, ...]:
    return (*ALWAYS, *(name for name in OPTIONAL if name in kept))
