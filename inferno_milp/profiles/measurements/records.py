"""The normal form of measurements: one run of a benchmark, whichever tool made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Sent = Literal["rate", "concurrency", "batch"]
"""How requests were sent: at a rate, by a number of clients each of whom waits for the answer, or all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of a benchmark against one engine: a shape, a load, and what was measured under it.

    Attributes
    ----------
    place : where it stands: file, and the place in it.
    tool : what made it.
    labels : what it was measured on, as the file says it: `model`, `accelerator`, `devices`, `backend` …
    sent : how requests were sent.
    rate_per_s : offered rate at one engine, requests/s; None unless sent at a rate.
    concurrency : clients, or requests in the batch; None if sent at a rate.
    crowd : whether all requests were sent at once, as many as there are: the first tokens wait for the crowd.
    cv2_arrival : squared coefficient of variation of the times between arrivals; None where the file does not say.
    input_tokens, output_tokens : mean tokens per request.
    nominal : prompt and output tokens that were asked for; None where the file does not say.
    cv2_input, cv2_output : their squared coefficients of variation; None where the file does not say.
    requests, errors : completed, and failed; None where the file does not say.
    duration_s : length of the run; None where the file does not say.
    throughput_per_s : completed requests/s at one engine; None where it was not measured.
    running : mean number of requests in the system, as measured; None where it was not.
    ttft_ms, itl_ms, end_to_end_ms : latencies by statistic: `mean`, `p50`, `p95` …; empty where not measured, the first
        two both without streaming.
    notes : what a reader should know: what was derived, or assumed.
    """

    place: str
    tool: str
    labels: Mapping[str, str] = field(default_factory=dict)
    sent: Sent
    rate_per_s: float | None = None
    concurrency: float | None = None
    crowd: bool = False
    cv2_arrival: float | None = None
    input_tokens: float
    output_tokens: float
    nominal: tuple[float, float] | None = None
    cv2_input: float | None = None
    cv2_output: float | None = None
    requests: int | None = None
    errors: int | None = None
    duration_s: float | None = None
    throughput_per_s: float | None = None
    running: float | None = None
    ttft_ms: Mapping[str, float]
    itl_ms: Mapping[str, float]
    end_to_end_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_streamed(self) -> bool:
        """Whether times of tokens were measured at all."""
        return bool(self.ttft_ms or self.itl_ms)

    @property
    def load_text(self) -> str:
        """The load in words: `4.2/s`, `16 clients`, `batch of 8`."""
        if self.sent == "rate":
            return f"{self.rate_per_s:.4g}/s"
        if self.sent == "batch":
            return f"batch of {self.concurrency:.4g}"
        return "1 client" if self.concurrency == 1 else f"{self.concurrency:.4g} clients"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            name: dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
            for name, value in ((name, getattr(self, name)) for name in self.__slots__)
        }
