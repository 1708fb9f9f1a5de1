"""Whether a measurement can be: what it says about itself must agree, and no engine is faster than one iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from inferno_milp.profiles.measurements.records import Measurement

ITL_MS, TTFT_MS = (0.1, 1e3), (0.5, 3.6e6)
"""What times between tokens, and to the first one, may be: anything else is another unit."""
LEAST_TTFT_TO_ITL = 0.4
"""The first token takes an iteration with a prompt, which is hardly shorter than those that bring the others."""
AGREE, LITTLE_AGREES = 0.35, 0.3
"""By how much the end-to-end time may differ from its parts, and the number in the system from Little's law."""
SHORT = 5
"""Runs with fewer requests per client than this mostly begin and end: Little's law says little of them."""
MOST_FAILED = 0.01


def judge(measurement: Measurement) -> tuple[Measurement, list[str]]:
    """Return what cannot be about a measurement; where only a mean cannot be, the median takes its place."""
    notes = list(measurement.notes)
    found: dict[str, Any] = {}
    for name in ("ttft_ms", "itl_ms", "end_to_end_ms"):
        latency = dict(getattr(measurement, name))
        reason = _impossible_mean(latency)
        if reason and latency.get("p50", 0.0) > 0:
            notes.append(f"{name[:-3].replace('_', ' ')}: {reason}; the median is taken for it")
            latency["mean"] = latency["p50"]
        found[name] = latency
    whole = found["end_to_end_ms"]
    if measurement.end_to_end_ms != whole and whole.get("mean") == whole.get("p50"):
        found["end_to_end_ms"] = {}
    measurement = replace(measurement, notes=tuple(notes), **found)
    return measurement, list(_contradictions(measurement))


def _impossible_mean(latency: Mapping[str, float]) -> str:
    mean, most = latency.get("mean"), latency.get("p99")
    if mean is None:
        return ""
    if mean <= 0:
        return f"a mean of {mean:.4g} ms cannot be"
    if most is not None and mean > 20 * most > 0:
        return f"a mean of {mean:.4g} ms with a 99th percentile of {most:.4g} ms is no mean of a latency"
    return ""


def _contradictions(m: Measurement) -> Iterator[str]:
    ttft, itl = m.ttft_ms.get("mean", 0.0), m.itl_ms.get("mean", 0.0)
    if m.output_tokens < 1 or m.input_tokens <= 0:
        yield f"{m.input_tokens:g} prompt and {m.output_tokens:g} output tokens"
        return
    whole_ms = m.end_to_end_ms.get("mean")
    streamed = m.is_streamed or whole_ms is None
    if streamed and (not m.ttft_ms.get("mean") or (m.output_tokens > 1 and not m.itl_ms.get("mean"))):
        yield "no mean of the time to first token, or between tokens"
        return
    if m.sent != "rate" and not (m.concurrency is not None and m.concurrency >= 1):
        yield "fewer than one client" if m.concurrency is not None else "the number of clients is not told"
        return
    if streamed:
        yield from _wrong_units(m, ttft, itl)
    for name in ("ttft_ms", "itl_ms", "end_to_end_ms"):
        latency = getattr(m, name)
        values = [latency[p] for p in ("p50", "p90", "p95", "p99") if p in latency]
        if any(b < a * (1 - 1e-6) for a, b in pairwise(values)):
            yield f"percentiles of {name} fall"
    parts_ms = ttft + max(m.output_tokens - 1, 0.0) * itl if streamed else whole_ms or 0.0
    if whole_ms is not None and not _alike(whole_ms, parts_ms, AGREE):
        yield f"end to end {whole_ms:.4g} ms, and {parts_ms:.4g} ms as the sum of its tokens: a wrong unit?"
    yield from _wrong_load(m, parts_ms)
    failed, done = m.errors or 0, m.requests
    if done is not None and failed > MOST_FAILED * (failed + done):
        yield f"{failed} of {failed + done} requests failed"


def _wrong_units(m: Measurement, ttft: float, itl: float) -> Iterator[str]:
    for name, value, (least, most) in (("to the first token", ttft, TTFT_MS), ("between tokens", itl, ITL_MS)):
        counts = m.output_tokens > 1 or name != "between tokens"
        if counts and not least <= value <= most:
            yield f"{value:.4g} ms {name} cannot be: a wrong unit?"
    if m.output_tokens > 1 and 0 < ttft < LEAST_TTFT_TO_ITL * itl:
        yield f"the first token after {ttft:.4g} ms, the others every {itl:.4g} ms: a wrong unit?"


def _wrong_load(m: Measurement, parts_ms: float) -> Iterator[str]:
    served, offered, length_s = m.throughput_per_s, m.rate_per_s, m.duration_s
    if m.sent == "rate" and (offered is None or offered <= 0):
        yield "a rate of 0"
        return
    if served is not None and offered is not None and served > 1.2 * offered:
        yield f"{served:.4g} requests/s were served, {offered:.4g}/s were sent"
    if length_s is not None and parts_ms > 1.05e3 * length_s:
        yield f"a request takes {parts_ms / 1e3:.4g} s, the run took {length_s:.4g} s: a wrong unit?"
    if None not in (served, length_s, m.requests) and "replicas" not in " ".join(m.notes):
        assert served is not None
        assert length_s is not None
        assert m.requests is not None
        if not _alike(served * length_s, float(m.requests), LITTLE_AGREES) and m.requests > SHORT:
            yield f"{m.requests} requests in {length_s:.4g} s are no {served:.4g}/s"
    if served is None:
        return
    running = served * parts_ms / 1e3
    if m.requests is not None and running > 1.1 * m.requests + 1:
        yield f"{running:.4g} requests would run at once, there were {m.requests}: a wrong unit?"
    told = m.running if m.running is not None else m.concurrency if m.sent == "concurrency" else None
    many = m.requests is None or told is None or m.requests >= SHORT * told
    if told is not None and told > 0 and many and not _alike(running, told, LITTLE_AGREES):
        yield f"{told:.4g} requests ran at once; by rate and latencies it would be {running:.4g}: a wrong unit?"


def _alike(a: float, b: float, most: float) -> bool:
    return abs(a - b) <= most * max(abs(a), abs(b))
