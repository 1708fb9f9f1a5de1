"""inference-perf: the lifecycle metrics of one stage; all its times are in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inferno_milp.profiles.measurements.facts import Facts
from inferno_milp.profiles.measurements.records import Measurement

ALIKE = 0.1
"""The time between tokens as reported is taken where what follows from the end-to-end time differs by less."""


def is_metrics(document: Any) -> bool:
    """Whether a JSON document holds lifecycle metrics."""
    return isinstance(document, dict) and {"load_summary", "successes"} <= document.keys()


def read_metrics(facts: Facts) -> Iterator[Measurement]:
    """Read the metrics of a stage; a summary over stages of different rates is refused."""
    load, served = facts.at("load_summary"), facts.at("successes")
    if load.at("requested_rate").data is None:
        facts.fault("a summary without a rate: it mixes the stages of a run", "give the files of its stages")
        return
    rate, duration_s = load.number("requested_rate"), load.number("send_duration", needed=False)
    latency = served.at("latency")
    ttft, itl, whole = (
        _latency(latency.at(name)) for name in ("time_to_first_token", "time_per_output_token", "request_latency")
    )
    inputs, outputs = served.number("prompt_len", "mean"), served.number("output_len", "mean", least=1.0)
    requests, errors = served.count("count"), facts.at("failures").count("count", needed=False)
    throughput = served.number("throughput", "requests_per_sec")
    if rate is None or inputs is None or outputs is None or "mean" not in whole:
        return
    notes = ["taken as Poisson arrivals: the file does not say how regular they were"]
    rest = (whole["mean"] - ttft.get("mean", whole["mean"])) / max(outputs - 1, 1e-9)
    if "mean" in itl and outputs > 1 and rest > 0 and abs(itl["mean"] / rest - 1) > ALIKE:
        told = f"{itl['mean']:.3g} ms per token are reported, {rest:.3g} ms follow from the end-to-end time"
        notes.append(f"{told}: the latter is taken")
        itl = {"mean": rest}
    yield Measurement(
        place=facts.place,
        tool="inference-perf",
        sent="rate",
        rate_per_s=rate,
        cv2_arrival=1.0,
        input_tokens=inputs,
        output_tokens=outputs,
        requests=requests,
        errors=errors,
        duration_s=duration_s,
        throughput_per_s=throughput,
        ttft_ms=ttft,
        itl_ms=itl,
        end_to_end_ms=whole,
        notes=tuple(notes),
    )


def _latency(part: Facts) -> dict[str, float]:
    if part.data is None:  # as without streaming
        return {}
    names = {"mean": "mean", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}
    found = {name: part.number(key, needed=name == "mean") for name, key in names.items()}
    return {name: value * 1e3 for name, value in found.items() if value is not None}
