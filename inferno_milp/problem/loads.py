"""Loads of servers: a rate, and requests of one mean length or a mix of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from inferno_milp.problem.fields import Model, NonNegative, Positive, Variability

OutputTokens = Annotated[float, Field(strict=True, ge=1, le=1e9, allow_inf_nan=False)]


class Bucket(Model):
    """Requests of about one size, and what part of all requests they are."""

    input_tokens: NonNegative
    """Mean prompt tokens per request."""
    output_tokens: OutputTokens
    """Mean output tokens per request."""
    share: Positive
    """Part of the requests."""
    cv2_input: Variability = 0.0
    """Squared coefficient of variation of the prompt lengths within it."""
    cv2_output: Variability = 0.0
    """Squared coefficient of variation of the output lengths within it."""


MOST_VARIABLE = 1000.0
"""Beyond this no variability is of use to the law."""


def moments(mix: Iterable[Bucket]) -> dict[str, float]:
    """Return means, squared coefficients of variation and relative covariance of the lengths of a mix of requests."""
    buckets = list(mix)
    whole = math.fsum(bucket.share for bucket in buckets)
    found = {}
    for side in ("input", "output"):
        sizes = [(b.share / whole, getattr(b, f"{side}_tokens"), getattr(b, f"cv2_{side}")) for b in buckets]
        mean = math.fsum(share * size for share, size, _ in sizes)
        mean = min(max(mean, min(size for _, size, _ in sizes)), max(size for _, size, _ in sizes))  # but for rounding
        square = math.fsum(share * size**2 * (1 + cv2) for share, size, cv2 in sizes)
        found[f"{side}_tokens"] = mean
        found[f"cv2_{side}"] = min(max(square / mean**2 - 1, 0.0), MOST_VARIABLE) if mean else 0.0
    both = math.fsum(b.share / whole * b.input_tokens * b.output_tokens for b in buckets)
    product = found["input_tokens"] * found["output_tokens"]
    found["cov_lengths"] = min(max(both / product - 1, -1.0), MOST_VARIABLE) if product else 0.0
    return found


SHARES_OFF = 0.01
"""By so much the shares of a mix may miss 1; they are taken relative to their sum."""


class Load(Model):
    """Traffic of a server; exactly one of the two rates is given, and lengths of requests or a mix of them."""

    rate_per_min: NonNegative | None = None
    """Arrival rate, requests/min."""
    rate_per_s: NonNegative | None = None
    """Arrival rate, requests/s."""
    input_tokens: NonNegative
    """Mean prompt tokens per request."""
    output_tokens: OutputTokens
    """Mean output tokens per request."""
    cv2_input: Variability = 0.0
    """Squared coefficient of variation of the prompt lengths; 0: all alike."""
    cv2_output: Variability = 1.0
    """Squared coefficient of variation of the output lengths; 1: geometric."""
    cov_lengths: Annotated[float, Field(strict=True, ge=-1, le=1000, allow_inf_nan=False)] = 0.0
    """Relative covariance of prompt and output lengths, E[IK]/(E[I]·E[K]) − 1; 0: independent. What runs at a moment is
    more of those with long outputs: their prompts fill the cache."""
    cv2_arrival: Variability = 1.0
    """Squared coefficient of variation of the times between arrivals; 0: a constant pace, 1: Poisson, more: bursty."""
    mix: tuple[Bucket, ...] = ()
    """Requests by their sizes; lengths and their variation follow from it, and are not given beside it."""

    @model_validator(mode="before")
    @classmethod
    def _lengths_of_the_mix(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("mix"):
            return data
        try:
            mix = _MIX.validate_python(data["mix"])
        except ValidationError:
            # What is wrong with the mix is said of it; that the lengths are missing would only distract.
            return {**dict.fromkeys(("input_tokens", "output_tokens"), 1.0), **data}
        if abs(math.fsum(bucket.share for bucket in mix) - 1) > SHARES_OFF:
            raise ValueError(f"the shares of the mix sum to {math.fsum(b.share for b in mix):.4g}; they should to 1")
        found = moments(mix)
        wrong = [name for name, value in found.items() if not _is_about(data.get(name, value), value)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not what the mix comes to; leave out what follows from the mix")
        return {**found, **data}

    @model_validator(mode="after")
    def _one_rate(self) -> Load:
        if (self.rate_per_min is None) == (self.rate_per_s is None):
            raise ValueError("give one of rate_per_min and rate_per_s")
        return self

    @property
    def arrival_rate_per_s(self) -> float:
        """Arrival rate, requests/s."""
        if self.rate_per_s is not None:
            return self.rate_per_s
        assert self.rate_per_min is not None
        return self.rate_per_min / 60


_MIX: TypeAdapter[tuple[Bucket, ...]] = TypeAdapter(tuple[Bucket, ...])


def _is_about(given: Any, value: float) -> bool:
    return isinstance(given, int | float) and abs(given - value) <= 1e-6 * max(abs(value), 1.0)
