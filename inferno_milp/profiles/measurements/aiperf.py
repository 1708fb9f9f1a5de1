"""aiperf: its summary as JSON, which says how requests were sent, and as CSV, which does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from inferno_milp.profiles.measurements.facts import UNITS_MS, Facts, cv2_of
from inferno_milp.profiles.measurements.records import Measurement
from inferno_milp.profiles.measurements.sending import sent_at

STATISTICS = ("avg", "p50", "p90", "p95", "p99")
PHASES = (("loadgen",), ("perf_analyzer", "stimulus"))
"""Where aiperf and genai-perf say how requests were sent; older versions of the latter say it in `input_config`."""
METRICS = {"ttft_ms": "time_to_first_token", "itl_ms": "inter_token_latency", "end_to_end_ms": "request_latency"}
CSV_METRICS = {
    "time_to_first_token": "Time to First Token", "inter_token_latency": "Inter Token Latency",
    "request_latency": "Request Latency", "input_sequence_length": "Input Sequence Length",
    "output_sequence_length": "Output Sequence Length", "effective_concurrency": "Effective Concurrency",
    "request_throughput": "Request Throughput", "request_count": "Request Count",
    "benchmark_duration": "Benchmark Duration", "error_request_count": "Error Request Count",
}  # fmt: skip


def is_summary(document: Any) -> bool:
    """Whether a JSON document is a summary of aiperf (or of genai-perf, whose form it keeps)."""
    return isinstance(document, dict) and {"request_latency", "request_throughput"} <= document.keys()


def is_record(document: Any) -> bool:
    """Whether a JSON document is the record of a single request."""
    metrics = document.get("metrics") if isinstance(document, dict) else None
    return isinstance(metrics, dict) and "time_to_first_token" in metrics and "metadata" in document


def read_summary(facts: Facts) -> Iterator[Measurement]:
    """Read a summary."""
    if facts.at("is_complete").data is False or facts.at("was_cancelled").data is True:
        facts.fault("the run was cancelled, or did not come to its end", "run it again")
    config = facts.at("input_config")
    places = ("models", "items", 0, "name"), ("endpoint", "model_names", 0), ("model_names", 0), ("model", 0)
    model = next((name for place in places if (name := config.text(*place))), None)
    yield from _measurement(facts, {"model": model} if model else {}, _sent(facts))


def is_csv(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table is the CSV of such a summary."""
    return rows[0][:2] == ["Metric", "avg"] and any(row and row[0].startswith("Time to First Token (") for row in rows)


def read_csv(facts: Facts) -> Iterator[Measurement]:
    """Read the CSV: a table of statistics, and one of single values below it."""
    header = facts.data[0]
    metrics: dict[str, Any] = {}
    for row in facts.data[1:]:
        if len(row) not in (len(header), 2) and row and not row[0].startswith("Endpoint"):
            facts.fault(f"{len(row)} fields under {len(header)} headers", "take the whole file", f"row of {row[0]!r}")
        words, _, unit = (row[0] if row else "").partition(" (")
        name = next((name for name, title in CSV_METRICS.items() if title == words), None)
        if name is not None:
            values = dict(zip(header[1:], row[1:], strict=False))
            metrics[name] = {"unit": unit.rstrip(")"), **{k: v for k, v in values.items() if v}}
    table = facts.part(metrics)
    running = table.at("effective_concurrency")
    most, typical = running.number("max", needed=False), running.number("p50", needed=False)
    if most is not None and most == typical:
        sent: dict[str, Any] = {"sent": "concurrency", "concurrency": most}
        table.notes.append(f"taken as sent by {most:g} clients: so many requests ran nearly always, and never more")
    else:
        sent = {"sent": "rate", "rate_per_s": table.number("request_throughput", "avg"), "cv2_arrival": 1.0}
        table.notes.append("the CSV does not say how requests were sent: taken as Poisson arrivals at the rate served")
    yield from _measurement(table, {}, sent)


def _measurement(facts: Facts, labels: dict[str, str], sent: dict[str, Any]) -> Iterator[Measurement]:
    inputs, outputs = (facts.at(f"{name}_sequence_length") for name in ("input", "output"))
    input_tokens, output_tokens = inputs.number("avg"), outputs.number("avg")
    latencies: dict[str, Any] = {name: _latency(facts.at(metric)) for name, metric in METRICS.items()}
    requests, served = facts.count("request_count", "avg", needed=False), facts.number("request_throughput", "avg")
    length = facts.at("benchmark_duration")
    duration_s = None if length.data is None else _scaled(length, "avg", 1e-3)
    if duration_s is None and requests and served:
        duration_s = requests / served  # genai-perf does not say it
    if not sent or input_tokens is None or output_tokens is None:
        return
    yield Measurement(
        place=facts.place,
        tool="aiperf",
        labels=labels,
        **sent,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cv2_input=cv2_of(input_tokens, inputs.number("std", needed=False)),
        cv2_output=cv2_of(output_tokens, outputs.number("std", needed=False)),
        requests=requests,
        errors=facts.count("error_request_count", "avg", needed=False),
        duration_s=duration_s,
        throughput_per_s=served,
        running=facts.number("effective_concurrency", "avg", needed=False),
        **latencies,
        notes=tuple(facts.notes),
    )


def _sent(facts: Facts) -> dict[str, Any]:
    config = facts.at("input_config")
    if not config.data:
        config.fault("is missing: the file does not say how requests were sent")
        return {}
    if any(config.at(*place, "fixed_schedule").data is True for place in ((), ("input",), ("loadgen",))):
        facts.leave_out("sent by the times of a trace, which is neither a rate nor a number of clients")
        return {}
    phases = config.at("phases").data
    phase = next((part for place in PHASES if (part := config.at(*place)).data), config)
    if isinstance(phases, list):
        kept = [i for i, p in enumerate(phases) if isinstance(p, dict) and p.get("kind", "profiling") == "profiling"]
        if len(kept) > 1:
            facts.fault(f"mixed: {len(kept)} phases in one summary", "one run per file", "input_config", "phases")
            return {}
        phase = config.at("phases", kept[0] if kept else 0)
    rate = phase.number("request_rate", needed=False) or phase.number("rate", needed=False)
    clients = phase.number("concurrency", needed=False)
    if rate:
        mode = phase.text("arrival_pattern") or phase.text("request_rate_mode") or phase.text("type") or "poisson"
        served, whole_s = facts.number("request_throughput", "avg"), _scaled(facts.at("request_latency"), "avg", 1e-3)
        running = None if served is None or whole_s is None else served * whole_s
        return sent_at(facts, rate, clients, running=running, cv2_arrival=0.0 if "constant" in mode else 1.0)
    if clients is None:
        facts.notes.append("taken as sent by one client, the tool's default: the file names neither rate nor clients")
    return {"sent": "concurrency", "concurrency": 1.0 if clients is None else clients}


def _latency(metric: Facts) -> dict[str, float]:
    if metric.data is None:  # as without streaming
        return {}
    found = {name: _scaled(metric, name, 1.0, needed=name == "avg") for name in STATISTICS}
    return {"mean" if name == "avg" else name: value for name, value in found.items() if value is not None}


def _scaled(metric: Facts, name: str, scale: float, *, needed: bool = True) -> float | None:
    """Return a time, in ms where the scale is 1; its unit must be told."""
    value = metric.number(name, needed=needed)
    unit = metric.at("unit").data
    if value is None:
        return None
    if not isinstance(unit, str) or unit not in UNITS_MS:
        metric.fault(f"unit {unit!r} is not known", f"one of {', '.join(UNITS_MS)}", "unit")
        return None
    return value * UNITS_MS[unit] * scale
