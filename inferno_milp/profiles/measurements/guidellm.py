"""guidellm: reports as JSON (0.2 to 0.8), flat rows, CSV with three header rows, and the HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inferno_milp.profiles.measurements.facts import Facts, cv2_of
from inferno_milp.profiles.measurements.records import Measurement
from inferno_milp.profiles.measurements.sending import sent_at

PERCENTILES = ("p50", "p90", "p95", "p99")
LISTED = {"p90": 7, "p95": 8, "p99": 9}
"""Places in the lists of percentiles in flat rows and in the CSV: least, 0.1, 1, 5, 10, 25, 75, 90, 95, 99, most."""
LIST_LENGTH = 11
LATENCIES = (
    ("ttft_ms", "time_to_first_token_ms", 1.0),
    ("itl_ms", "inter_token_latency_ms", 1.0),
    ("end_to_end_ms", "request_latency", 1e3),
)
FLAT = {
    "ttft_ms": "Time to first token ms", "itl_ms": "Inter token latency ms", "end_to_end_ms": "Request latency",
    "input_tokens": "Prompt token count", "output_tokens": "Output token count",
    "running": "Request concurrency",
}  # fmt: skip
CSV = {
    "ttft_ms": ("Time to First Token", "Successful ms"),
    "itl_ms": ("Inter Token Latency", "Successful ms"),
    "end_to_end_ms": ("Request Latency", "Successful Sec"),
    "input_tokens": ("Token Metrics", "Successful Input Tokens"),
    "output_tokens": ("Token Metrics", "Successful Output Tokens"),
    "running": ("Server Throughput", "Successful Concurrency"),
}
SECONDS = ("end_to_end_ms",)


def is_report(document: Any) -> bool:
    """Whether a JSON document is a report of guidellm."""
    benchmarks = document.get("benchmarks") if isinstance(document, dict) else None
    return isinstance(benchmarks, list) and all(isinstance(b, dict) and "metrics" in b for b in benchmarks)


def read_report(facts: Facts) -> Iterator[Measurement]:
    """Read a report: one measurement for each of its benchmarks."""
    for i, _ in enumerate(facts.data["benchmarks"]):
        part = facts.at("benchmarks", i)
        part.notes = []
        strategy = part.at("config", "strategy") if part.at("config", "strategy").data else part.at("args", "strategy")
        model = part.text("config", "backend", "model") or part.text("worker", "backend_model")
        model = model or facts.text("config", "spec", "backend", "model")
        found: dict[str, Any] = {}
        for name, metric, scale in LATENCIES:
            statistics = part.at("metrics", metric, "successful")
            found[name] = _statistics(statistics, scale, {k: ("percentiles", k) for k in PERCENTILES})
        for name, metric in (("input", "prompt_token_count"), ("output", "output_token_count")):
            tokens = part.at("metrics", metric, "successful")
            found[f"{name}_tokens"] = tokens.number("mean")
            found[f"cv2_{name}"] = cv2_of(found[f"{name}_tokens"], tokens.number("std_dev"))
        found["running"] = part.number("metrics", "request_concurrency", "successful", "mean")
        totals = part.at("metrics", "request_totals") if part.at("metrics", "request_totals").data else None
        totals = totals or part.at("request_totals")
        found["requests"], found["errors"] = totals.count("successful"), totals.count("errored")
        found["duration_s"] = part.number("duration")
        sent = _sent(strategy.text("type_"), strategy.number("rate", needed=False), _clients(strategy), part, found)
        yield from _measurement(part, "guidellm", {"model": model}, sent, found)


def is_flat(document: Any) -> bool:
    """Whether a JSON document is a list of flat rows, one of each benchmark."""
    key = "Successful Time to first token ms mean"
    rows = document if isinstance(document, list) else []
    return bool(rows) and all(isinstance(row, dict) and key in row for row in rows)


def read_flat(facts: Facts) -> Iterator[Measurement]:
    """Read flat rows, as llm-inferno's model-trainer keeps guidellm's benchmarks."""
    for i, _ in enumerate(facts.data):
        part = facts.at(i)
        part.notes = []
        found: dict[str, Any] = {}
        for name, words in FLAT.items():
            key = f"Successful {words}"
            if name.endswith("_ms"):
                scale = 1e3 if name in SECONDS else 1.0
                found[name] = _statistics(part, scale, {"p50": (f"{key} median",)}, f"{key} mean")
                order = f"{key} [min, 0.1, 1, 5, 10, 25, 75, 90, 95, 99, max]"
                found[name] |= _listed(part.at(order).data, scale)
            else:
                found[name] = part.number(f"{key} mean")
        for name in ("input", "output"):
            deviation = part.number(f"Successful {FLAT[f'{name}_tokens']} std dev")
            found[f"cv2_{name}"] = cv2_of(found[f"{name}_tokens"], deviation)
        found["requests"] = part.count("Successful Requests")
        found["errors"] = part.count("Errored Requests", needed=False)
        found["duration_s"] = part.number("Duration")
        strategy = _embedded(part, "Args", "strategy")
        model = _embedded(part, "Worker").get("backend_model")
        kind, rate = _named_strategy(part.text("Name") or "")
        exact = strategy.get("rate")
        rate = float(exact) if isinstance(exact, (int, float)) else rate
        yield from _measurement(part, "guidellm", {"model": model}, _sent(kind, rate, None, part, found), found)


def is_csv(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table is guidellm's, with its three header rows."""
    return len(rows) > 3 and rows[0][0] == "Run Info" and "Time to First Token" in rows[0]


def read_csv(facts: Facts) -> Iterator[Measurement]:
    """Read the CSV; a table whose rows do not fit its headers is refused whole."""
    headers, rows = [" | ".join(levels) for levels in zip(*facts.data[:3], strict=False)], facts.data[3:]
    widths = {len(row) for row in facts.data}
    if len(widths) > 1:
        wide = f"{min(widths)} to {max(widths)} fields under {len(facts.data[0])} headers"
        facts.fault(f"misaligned: {wide}, so that no value can be told from another", "give guidellm's JSON instead")
        return
    for i, row in enumerate(rows, start=4):
        cells = facts.part(dict(zip(headers, row, strict=True)), f"row {i}")
        found: dict[str, Any] = {}
        for name, (group, unit) in CSV.items():
            scale = 1e3 if name in SECONDS else 1.0
            key = f"{group} | {unit}"
            if name.endswith("_ms"):
                found[name] = _statistics(cells, scale, {"p50": (f"{key} | Median",)}, f"{key} | Mean")
                found[name] |= _listed(cells.at(f"{key} | Percentiles").data, scale)
            else:
                found[name] = cells.number(f"{key} | Mean")
            if name.endswith("_tokens"):
                found[f"cv2_{name[:-7]}"] = cv2_of(found[name], cells.number(f"{key} | Std Dev"))
        found["requests"] = cells.count("Request Counts | Successful | ")
        found["errors"] = cells.count("Request Counts | Errored | ")
        found["duration_s"] = cells.number("Timings | Duration | Sec")
        kind, rate = _named_strategy(cells.text("Benchmark | Strategy | ") or "")
        model = _embedded(cells, "Run Info | Backend | ").get("model")
        clients = _embedded(cells, "Run Info | Profile | ").get("max_concurrency")
        clients = float(clients) if isinstance(clients, (int, float)) else None
        yield from _measurement(cells, "guidellm", {"model": model}, _sent(kind, rate, clients, cells, found), found)


def read_page(facts: Facts) -> Iterator[Measurement]:
    """Read the HTML report, which tells what was served, and not how requests were sent.

    It shows a sweep: one request after the other, all at once, and constant rates in between.
    """
    details = facts.at("workloadDetails")
    tokens = {}
    for name, words in (("input", "prompts"), ("output", "generations")):
        statistics = details.at(words, "tokenDistributions", "statistics")
        tokens[f"{name}_tokens"] = statistics.number("mean")
        tokens[f"cv2_{name}"] = cv2_of(tokens[f"{name}_tokens"], statistics.number("stdDev"))
    model = facts.text("runInfo", "model", "name")
    for i, _ in enumerate(facts.data["benchmarks"]):
        part = facts.at("benchmarks", i)
        part.notes = ["tokens are the report's means over all its benchmarks"]
        found: dict[str, Any] = dict(tokens)
        for name, metric, scale in (
            ("ttft_ms", "ttft", 1),
            ("itl_ms", "itl", 1),
            ("end_to_end_ms", "timePerRequest", 1e3),
        ):
            found[name] = _statistics(part.at(metric), scale, {k: ("percentiles", k) for k in PERCENTILES})
        served = part.number("requestsPerSecond")
        found["throughput_per_s"], found["requests"] = served, part.count("ttft", "count")
        found["running"] = None if served is None else served * found["end_to_end_ms"].get("mean", 0.0) / 1e3
        kind = {0: "synchronous", 1: "throughput"}.get(i, "constant") if _is_sweep(facts) else "constant"
        if kind == "constant":
            part.notes.append(
                "the report does not say how requests were sent: taken as a constant rate, the one served"
            )
        rate = served if kind == "constant" else None
        labels = {"model": None if model == "N/A" else model}
        yield from _measurement(part, "guidellm", labels, _sent(kind, rate, None, part, found), found)


def _is_sweep(facts: Facts) -> bool:
    served = [facts.at("benchmarks", i).data.get("requestsPerSecond") for i in range(len(facts.data["benchmarks"]))]
    numbers = [rate for rate in served if isinstance(rate, (int, float))]
    whole = len(numbers) == len(served) > 2
    return whole and numbers[0] == min(numbers) and numbers[1] == max(numbers) and numbers[2:] == sorted(numbers[2:])


def _statistics(
    part: Facts, scale: float, others: Mapping[str, tuple[str, ...]], mean: str = "mean"
) -> dict[str, float]:
    found = {"mean": part.number(mean, least=-float("inf"))}
    found |= {name: part.number(*path, needed=False, least=-float("inf")) for name, path in others.items()}
    return {name: value * scale for name, value in found.items() if value is not None}


def _clients(strategy: Facts) -> float | None:
    for name in ("streams", "max_concurrency"):
        if isinstance(strategy.at(name).data, (int, float)):
            return strategy.number(name)
    return None


def _named_strategy(name: str) -> tuple[str, float | None]:
    """Take `constant@27.13` apart."""
    kind, _, rate = name.partition("@")
    return kind, float(rate) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", rate) else None


def _sent(
    kind: str | None, rate: float | None, clients: float | None, part: Facts, found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how requests were sent, from guidellm's words for it."""
    if kind == "synchronous":
        return {"sent": "concurrency", "concurrency": 1.0}
    if kind in ("constant", "poisson", "async"):
        if not rate:
            part.fault(f"strategy {kind!r} without its rate")
        irregular = 1.0 if kind == "poisson" else 0.0
        return sent_at(part, rate, clients, running=found["running"], cv2_arrival=irregular)
    if kind == "concurrent":
        if not clients:
            part.fault("strategy 'concurrent' without its number of clients")
        return {"sent": "concurrency", "concurrency": clients}
    if kind == "throughput":
        return {"sent": "concurrency", "concurrency": None, "crowd": True}  # as many as were in the system
    part.fault(f"strategy {kind!r} is not known", "synchronous, concurrent, throughput, constant or poisson")
    return {}


def _measurement(
    part: Facts, tool: str, labels: Mapping[str, Any], sent: Mapping[str, Any], found: dict[str, Any]
) -> Iterator[Measurement]:
    if not sent or None in (found["input_tokens"], found["output_tokens"]):
        return
    found = {**found, **sent}
    if found["sent"] == "concurrency" and found["concurrency"] is None:
        found["concurrency"] = found["running"]
    if found.get("throughput_per_s") is None and found.get("requests") and found.get("duration_s"):
        found["throughput_per_s"] = found["requests"] / found["duration_s"]
    words = {name: value for name, value in labels.items() if isinstance(value, str) and value}
    yield Measurement(place=part.place, tool=tool, labels=words, notes=tuple(part.notes), **found)


def _embedded(part: Facts, name: str, *path: str) -> dict[str, Any]:
    """Return a document that is written into a cell; empty if it is none."""
    try:
        value = json.loads(part.text(name) or "{}")
    except json.JSONDecodeError:
        return {}
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _listed(text: Any, scale: float) -> dict[str, float]:
    """Return the percentiles of a list that stands in a cell; none where it is no such list."""
    try:
        values = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError:
        return {}
    whole = isinstance(values, list) and len(values) == LIST_LENGTH
    if not whole or not all(isinstance(v, (int, float)) for v in values):
        return {}
    return {name: values[place] * scale for name, place in LISTED.items()}
