"""What the parts of a problem are made of: types of fields, and promises of latency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from inferno_milp.queueing.percentiles import read_percent

LARGEST_BATCH = 16_384
"""No engine runs larger batches; the bound keeps a slip of the pen from costing hours."""

Name = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$")
]
LARGEST, LARGEST_COUNT = 1e12, 10**9
"""No figure, and no count, of a problem is larger."""
Positive = Annotated[float, Field(strict=True, gt=0, le=LARGEST, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST_COUNT)]
PositiveCount = Annotated[int, Field(strict=True, ge=1, le=LARGEST_COUNT)]
BatchSize = Annotated[int, Field(strict=True, ge=1, le=LARGEST_BATCH)]
Flag = Annotated[bool, Field(strict=True)]
Variability = Annotated[float, Field(strict=True, ge=0, le=1000, allow_inf_nan=False)]


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def is_name(value: Any) -> bool:
    """Whether a value may be a name."""
    try:
        _NAME.validate_python(value)
    except ValidationError:
        return False
    return True


class Model(BaseModel):
    """Base of all parts: frozen, with no field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


LATENCIES = ("ttft_ms", "itl_ms")
"""Latencies that may be promised."""


def _read_statistic(name: str) -> str:
    if name != "mean" and read_percent(name) is None:
        raise ValueError("mean, or a percentile from p50 to p99.9")
    return name


Statistic = Annotated[str, AfterValidator(_read_statistic)]
"""`mean`, or a percentile by its name, `p50` to `p99.9`."""


def _kind_of_target(value: Any) -> str:
    return "~statistics" if isinstance(value, dict) else "~mean"  # the tilde: no part of the document's path


LatencyTarget = Annotated[
    Annotated[Positive, Tag("~mean")] | Annotated[dict[Statistic, Positive], Field(min_length=1), Tag("~statistics")],
    Discriminator(_kind_of_target),
]
"""A number is the mean; `{p95: 1000}` or `{mean: 400, p99: 2000}` name what they limit."""


class Targets(Model):
    """Latency promises (SLOs) of a service class for a model; what is left out is not promised."""

    ttft_ms: LatencyTarget | None = None
    """Time to first token, wait in the queue included, ms: its mean, or `{p95: …}`."""
    itl_ms: LatencyTarget | None = None
    """Inter-token latency, ms: its mean, or `{p95: …}`, a percentile over all tokens."""
    tps: Positive | None = None
    """Output tokens per second that the server must be able to sustain, over all of its replicas."""

    def limits_ms(self) -> Iterator[tuple[str, str, float]]:
        """Yield the promises: latency (`ttft_ms`, `itl_ms`), statistic (`mean`, `p95` …), limit in ms."""
        for latency in LATENCIES:
            given = getattr(self, latency)
            if given is not None:
                by_statistic = given if isinstance(given, dict) else {"mean": given}
                yield from ((latency, statistic, limit) for statistic, limit in by_statistic.items())

    def with_limits_ms(self, limits_ms: dict[tuple[str, str], float]) -> Targets:
        """Return the same promises with other limits, by latency and statistic; those not given stay."""
        changed: dict[str, dict[str, float]] = {}
        for latency, statistic, limit in self.limits_ms():
            changed.setdefault(latency, {})[statistic] = limits_ms.get((latency, statistic), limit)
        return Targets.model_validate({**self.model_dump(), **changed})

    def limits_of(self, latency: str) -> dict[str, float]:
        """Return the promises of one latency: limits in ms by statistic."""
        return {statistic: limit for name, statistic, limit in self.limits_ms() if name == latency}
