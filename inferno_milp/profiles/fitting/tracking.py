"""A profile refined by a stream of observations, with forgetting: an extended Kalman filter on the law itself.

The state is the logarithms of the profile's terms; an observation is the mean latencies at a rate, or with a number of
clients. What was learnt fades by a factor per observation, so that terms may drift; terms never leave a corridor about
those that the stream began with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inferno_milp.errors import OptionError
from inferno_milp.problem.sections import Origin, Profile
from inferno_milp.profiles.fitting.prediction import predict
from inferno_milp.profiles.fitting.runs import check_alike, make_runs
from inferno_milp.profiles.fitting.terms import TERMS, FloatArray, as_array, profile_terms
from inferno_milp.profiles.measurements import Measurement

FORGETTING = 0.98
"""What is left of what was learnt after one more observation, by default."""
CORRIDOR = 3.0
"""Terms stay within this factor of the profile's."""
UNSURE, MOST_UNSURE = 0.1, 0.5
"""Standard deviation of the logarithm of a term at first, and at most: what is not observed is not forgotten for
ever."""
TTFT_NOISE, ITL_NOISE = 0.10, 0.04
"""Relative deviations of observed means from the law."""
OUTLIER = 4.0
"""An observation further off than so many standard deviations moves the terms no more than one as far off as this."""
LATEST = 20
"""Observations whose errors tell how good the profile is now."""
STEP = 1e-4


@dataclass(frozen=True, slots=True)
class Step:
    """What one observation did.

    Attributes
    ----------
    place : of the observation.
    used : whether it moved the terms.
    reason : why it did not, or not wholly.
    ttft_error, itl_error : relative errors of what the profile predicted before it; NaN where not observed.
    """

    place: str
    used: bool
    reason: str
    ttft_error: float
    itl_error: float


@dataclass(slots=True)
class Tracker:
    """A profile that follows observations.

    Attributes
    ----------
    profile : what it began with.
    forgetting : within (0, 1]; 1 forgets nothing.
    steps : what the observations did.
    """

    profile: Profile
    forgetting: float = FORGETTING
    cv2_input: float = 0.0
    cv2_output: float = 1.0
    steps: list[Step] = field(default_factory=list)
    _start: FloatArray = field(init=False, repr=False)
    _where: list[int] = field(init=False, repr=False)
    _state: FloatArray = field(init=False, repr=False)
    _covariance: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.forgetting <= 1:
            raise OptionError(f"forgetting must be within (0, 1], not {self.forgetting:g}")
        terms = {name: getattr(self.profile, name) for name in TERMS}
        self._start = as_array(terms)
        self._where = [i for i, value in enumerate(self._start) if value > 0]
        if not self._where:
            raise OptionError("a profile whose terms are all 0 cannot follow observations")
        self._state = np.log(self._start[self._where])
        self._covariance = np.eye(len(self._where)) * UNSURE**2

    @property
    def parameters(self) -> FloatArray:
        """Terms now; shape (terms,)."""
        values = self._start.copy()
        values[self._where] = np.exp(self._state)
        return values

    @property
    def spread(self) -> dict[str, float]:
        """Standard deviation of the logarithm of each term that is followed."""
        deviations = np.sqrt(np.diag(self._covariance))
        return {TERMS[i]: float(deviation) for i, deviation in zip(self._where, deviations, strict=True)}

    @property
    def updated(self) -> Profile:
        """The profile with the terms as they are now."""
        values = {name: float(f"{value:.5g}") for name, value in profile_terms(self.parameters).items()}
        followed = {TERMS[i] for i in self._where} | {"gamma_ms"}
        update: dict[str, Any] = {name: value for name, value in values.items() if name in followed}
        return self.profile.model_copy(update={**update, "origin": self._origin()})

    def _origin(self) -> Origin | None:
        """Return the origin of a refined profile, with its errors on the latest observations before they were used."""
        used = [step for step in self.steps if step.used]
        if not used:
            return self.profile.origin
        before = self.profile.origin.model_dump(exclude_none=True) if self.profile.origin is not None else {}
        source = f"{before.get('source', 'a profile')}; refined by {len(used)} observations"[:1000]
        latest = used[-LATEST:]
        errors = {
            "ttft_error": [abs(step.ttft_error) for step in latest if math.isfinite(step.ttft_error)],
            "itl_error": [abs(step.itl_error) for step in latest if math.isfinite(step.itl_error)],
        }
        means = {name: float(f"{sum(values) / len(values):.3g}") for name, values in errors.items() if values}
        kept = {
            name: value for name, value in before.items() if name not in ("ttft_error", "itl_error", "runs", "shapes")
        }
        return Origin(**{**kept, "kind": "measured", "source": source, "errors_on": "observations", **means})

    def observe(self, observation: Measurement) -> Step:
        """Take in one observation."""
        step = self._observe(observation)
        self.steps.append(step)
        return step

    def _observe(self, observation: Measurement) -> Step:
        runs = make_runs([observation], self.cv2_input, self.cv2_output)
        if runs.reasons[0]:
            return Step(observation.place, False, runs.reasons[0], math.nan, math.nan)
        observed = np.log([runs.ttft_ms[0], runs.itl_ms[0]])
        kept = np.array([bool(runs.counts_ttft[0]), bool(runs.counts_itl[0])]) & np.isfinite(observed)
        shifts = STEP * np.eye(len(self._where))
        values = np.repeat(self._start[None], len(self._where) + 1, axis=0)
        values[:, self._where] = np.exp(np.vstack([self._state, self._state + shifts]))
        limit = self.profile.max_batch_size
        found = np.log(np.column_stack([f[:, 0] for f in predict(values, runs, self.profile.token_budget, limit)]))
        slope = ((found[1:] - found[0]) / STEP).T[kept]
        off = (observed - found[0])[kept]
        errors = np.where(kept, np.expm1(found[0] - observed), np.nan)
        if not off.size or not np.isfinite(slope).all():
            return Step(observation.place, False, "nothing was observed", *errors)
        noise = np.diag(np.array([TTFT_NOISE, ITL_NOISE])[kept] ** 2)
        prior = _limited(self._covariance / self.forgetting)
        expected = slope @ prior @ slope.T + noise
        far = math.sqrt(float(off @ np.linalg.solve(expected, off)) / off.size)
        reason = ""
        if far > OUTLIER:
            off, reason = off * (OUTLIER / far), f"an outlier, {far:.0f} standard deviations off: taken as {OUTLIER:g}"
        gain = np.linalg.solve(expected, slope @ prior).T
        low, high = (np.log(self._start[self._where]) + sign * math.log(CORRIDOR) for sign in (-1, 1))
        self._state = np.clip(self._state + gain @ off, low, high)
        rest = np.eye(len(prior)) - gain @ slope
        self._covariance = rest @ prior @ rest.T + gain @ noise @ gain.T
        return Step(observation.place, True, reason, *errors)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `fit --update`."""
        return {
            "profile": self.updated.model_dump(mode="json", exclude_unset=True),
            "spread": self.spread,
            "steps": [
                {
                    "place": step.place,
                    "used": step.used,
                    "reason": step.reason,
                    "ttft_error": step.ttft_error if math.isfinite(step.ttft_error) else None,
                    "itl_error": step.itl_error if math.isfinite(step.itl_error) else None,
                }
                for step in self.steps
            ],
        }


def _limited(covariance: FloatArray) -> FloatArray:
    """Hold the variance in every direction down to the most there may be."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.minimum(values, MOST_UNSURE**2)) @ vectors.T)


def track_profile(
    profile: Profile,
    observations: Iterable[Measurement],
    forgetting: float = FORGETTING,
    *,
    cv2_input: float = 0.0,
    cv2_output: float = 1.0,
) -> Tracker:
    """Refine a profile by observations, in their order.

    Parameters
    ----------
    profile : to begin with.
    observations : mean latencies at rates or numbers of clients, as benchmarks or Prometheus tell them.
    forgetting : what is left of what was learnt after one more observation.
    cv2_input, cv2_output : variability of lengths where an observation does not say.

    Returns
    -------
    Tracker
        With the profile as it is then (`updated`), and what every observation did (`steps`).

    Raises
    ------
    OptionError
        If forgetting is out of range, the profile has no terms to follow, or the observations are of different engines.
    """
    observations = list(observations)
    check_alike(observations)
    tracker = Tracker(profile, forgetting, cv2_input, cv2_output)
    for observation in observations:
        tracker.observe(observation)
    return tracker
