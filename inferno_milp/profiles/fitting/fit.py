"""`fit_profile`: measurements of one model on one accelerator → a profile with its errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from inferno_milp.errors import OptionError
from inferno_milp.problem.architecture import Precision
from inferno_milp.problem.fields import LARGEST_BATCH
from inferno_milp.problem.sections import Origin, Profile
from inferno_milp.problem.spreadsheet import records
from inferno_milp.profiles.fitting.certainty import Certainty, advise, find_certainty
from inferno_milp.profiles.fitting.estimate import Estimate, Setting, estimate
from inferno_milp.profiles.fitting.memory import Memory, find_memory
from inferno_milp.profiles.fitting.runs import Runs, check_alike, make_runs
from inferno_milp.profiles.fitting.terms import ALWAYS, TERMS, FloatArray, Prior, profile_terms
from inferno_milp.profiles.fitting.validation import HeldOut, choose_terms
from inferno_milp.profiles.measurements import Measurement

MAX_BATCH = 256
"""Sequences that run at once, where neither the runs nor the caller say (vLLM's default on most devices)."""
UNLIMITED = 1024
"""And what runs are predicted with then: no run of those that count waited for a place."""
DIGITS = 5
FEWEST = 2
"""Figures that a fit takes at least: one run alone and one under load have four."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted profile, and what is known of how good it is.

    Attributes
    ----------
    profile : for a problem's `profiles`.
    runs : the runs, with which of them counted.
    estimate : terms and residuals.
    certainty : intervals, and what is not identified.
    memory : what the runs say of it.
    held_out : mean relative errors on shapes left out of the fit; None where there are too few shapes.
    advice : two runs that would identify what is not; empty where all is.
    ttft_ms, itl_ms : predicted, one for each run.
    """

    profile: Profile
    runs: Runs
    estimate: Estimate
    certainty: Certainty
    memory: Memory
    held_out: HeldOut | None
    advice: tuple[str, ...]
    ttft_ms: FloatArray
    itl_ms: FloatArray

    @property
    def errors(self) -> tuple[float, float]:
        """Mean relative errors of TTFT and ITL on the runs that it was fitted to; NaN where none counts."""
        return _mean_errors(self.runs, self.ttft_ms, self.itl_ms)

    def with_kv_tokens(self, kv_tokens: int) -> Fit:
        """Return the same fit with a KV cache of this size, where the runs did not tell it."""
        return replace(self, profile=self.profile.model_copy(update={"kv_tokens": kv_tokens}))

    def runs_frame(self) -> pd.DataFrame:
        """Return one row per run: what was set, measured and predicted, and why it does not count."""
        runs = self.runs
        return pd.DataFrame(
            {
                "place": [m.place for m in runs.measurements],
                "input_tokens": runs.input_tokens,
                "output_tokens": runs.output_tokens,
                "load": [m.load_text for m in runs.measurements],
                "ttft_ms": runs.ttft_ms,
                "ttft_predicted_ms": self.ttft_ms,
                "itl_ms": runs.itl_ms,
                "itl_predicted_ms": self.itl_ms,
                "counts": runs.counts,
                "reason": list(runs.reasons),
            }
        )

    def terms_frame(self) -> pd.DataFrame:
        """Return one row per term: its value, its 95 % interval, and what tells it.

        That is the `runs`, what was known `before`, or nothing (`not kept`).
        """
        values = profile_terms(self.estimate.parameters)
        low, high = self.certainty.low, self.certainty.high
        rows = []
        for name in TERMS:
            shift = values["alpha_ms"] if name == "gamma_ms" and name in low else 0.0
            fitted = name in low
            rows.append(
                {
                    "term": name,
                    "value": values[name],
                    "low": low[name] + shift if fitted else math.nan,
                    "high": high[name] + shift if fitted else math.nan,
                    "state": self._told_by(name, fitted=fitted),
                }
            )
        return pd.DataFrame(rows).set_index("term")

    def _told_by(self, name: str, *, fitted: bool) -> str:
        if not fitted:
            return "not kept"
        return "before" if name in self.certainty.not_identified else "runs"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `fit`."""
        held, (ttft, itl) = self.held_out, self.errors
        condition = self.certainty.condition
        runs = self.runs_frame()
        return {
            "profile": self.profile.model_dump(mode="json", exclude_unset=True),
            "terms": records(self.terms_frame().reset_index()),
            "condition_number": condition if math.isfinite(condition) else None,
            "not_identified": list(self.certainty.not_identified),
            "advice": list(self.advice),
            "errors": {"ttft": _number(ttft), "itl": _number(itl)},
            "held_out_shapes": None if held is None else {"ttft": _number(held.ttft), "itl": _number(held.itl)},
            "memory": {
                "kv_tokens": self.memory.kv_tokens,
                "max_batch": self.memory.max_batch,
                "most_seen": self.memory.most_seen,
                "runs": self.memory.runs,
            },
            "runs": records(runs),
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def fit_profile(
    measurements: Sequence[Measurement],
    *,
    model: str,
    accelerator: str,
    accelerators_per_replica: int = 1,
    source: str | None = None,
    precision: Precision | None = None,
    max_batch_size: int | None = None,
    kv_tokens: int | None = None,
    token_budget: int = 8192,
    priors: Mapping[str, Prior] | None = None,
    cv2_input: float = 0.0,
    cv2_output: float = 0.0,
) -> Fit:
    """Fit a profile to measurements of one model on one accelerator.

    Parameters
    ----------
    measurements : runs of one engine, sent at rates, by numbers of clients, or as batches, in any mix.
    model, accelerator, accelerators_per_replica, source, precision : for the profile.
    max_batch_size, kv_tokens : of the engine; None: what the runs say.
    token_budget : tokens of an iteration, of the engine.
    priors : what is known of terms beforehand, by their names in a profile; else the usual ratios to α, within a factor
        of some.
    cv2_input, cv2_output : variability of lengths where a file does not say.

    Returns
    -------
    Fit

    Raises
    ------
    OptionError
        If the runs are of different engines, or too few of them count.

    Notes
    -----
    Nonlinear least squares with soft-L1 loss on the logarithms of predicted over measured mean latencies, the
    predictions being the law's own; optional terms are kept where they lower the error on shapes left out.
    docs/profiles.md.
    """
    check_alike(measurements)
    runs = make_runs(measurements, cv2_input, cv2_output)
    figures = int(runs.counts_ttft.sum() + runs.counts_itl.sum())
    if figures < FEWEST:
        reasons = sorted({reason for reason in runs.reasons if reason})
        raise OptionError(f"{figures} of the figures measured count, too few to fit: {'; '.join(reasons) or 'no runs'}")
    memory = find_memory(runs)
    kv_tokens = kv_tokens if kv_tokens is not None else memory.kv_tokens
    size = max_batch_size or (None if memory.max_batch is None else max(min(memory.max_batch, LARGEST_BATCH), 1))
    setting = Setting(ALWAYS, dict(priors or {}), token_budget, size or UNLIMITED)
    terms, held_out = choose_terms(runs, setting)
    found = estimate(runs, replace(setting, terms=terms))
    certainty = find_certainty(found)
    ttft_ms, itl_ms = found.predict(runs)
    advice = advise(found, certainty.not_identified) if certainty.not_identified else ()
    counted = runs.take(runs.counts)
    fitted = _mean_errors(runs, ttft_ms, itl_ms)
    ttft_error, itl_error = fitted if held_out is None else (held_out.ttft, held_out.itl)
    origin = {
        "kind": "measured",
        "source": source,
        "precision": precision,
        "runs": int(runs.counts.sum()),
        "shapes": len(np.unique(counted.shapes)),
        "ttft_error": _rounded(ttft_error, 3),
        "itl_error": _rounded(itl_error, 3),
        "errors_on": "fitted runs" if held_out is None else "held-out shapes",
        "longest_input_tokens": _rounded(float(counted.input_tokens.max()), 4),
        "largest_batch": _largest_batch(counted),
        "not_identified": certainty.not_identified or None,
    }
    values = {name: _rounded(value, DIGITS) for name, value in profile_terms(found.parameters).items()}
    figures_of_profile: dict[str, Any] = {
        **{
            name: value
            for name, value in values.items()
            if value or name in ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms")
        },
        **({"kv_tokens": kv_tokens} if kv_tokens else {}),
        "max_batch_size": min(size or max(MAX_BATCH, memory.most_seen), LARGEST_BATCH),
        **({"token_budget": token_budget} if token_budget != 8192 else {}),
    }
    profile = Profile(
        model=model,
        accelerator=accelerator,
        **({"accelerators_per_replica": accelerators_per_replica} if accelerators_per_replica != 1 else {}),
        **figures_of_profile,
        origin=Origin(**{name: value for name, value in origin.items() if value is not None}),
    )
    return Fit(profile, runs, found, certainty, memory, held_out, advice, ttft_ms, itl_ms)


def _mean_errors(runs: Runs, ttft_ms: FloatArray, itl_ms: FloatArray) -> tuple[float, float]:
    off = (
        np.abs(ttft_ms / runs.ttft_ms - 1)[runs.counts_ttft],
        np.abs(itl_ms / runs.itl_ms - 1)[runs.counts_itl],
    )
    return float(off[0].mean()) if off[0].size else math.nan, float(off[1].mean()) if off[1].size else math.nan


def _largest_batch(runs: Runs) -> float | None:
    seen = np.where(runs.closed | runs.batch, runs.clients, runs.rate_per_s * (
        runs.ttft_ms + np.maximum(runs.output_tokens - 1, 0) * runs.itl_ms) / 1e3)  # fmt: skip
    return _rounded(float(np.max(seen)), 3) if seen.size else None


def _rounded(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
