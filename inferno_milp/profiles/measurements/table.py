"""CSV with named columns: our own form, llm-inferno's, and aiconfigurator's measured points.

A column of times must carry its unit in its name. Columns that hold no figure known here are labels, by which rows may
be chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from inferno_milp.problem.spelling import nearest
from inferno_milp.profiles.measurements.facts import UNITS_MS, Facts
from inferno_milp.profiles.measurements.records import Measurement

NAMES = {
    "input_tokens": ("input_tokens", "in_tokens", "isl", "prompt_tokens", "input_len"),
    "output_tokens": ("output_tokens", "out_tokens", "osl", "generated_tokens", "output_len"),
    "nominal_input": ("nominal_in", "nominal_input"),
    "nominal_output": ("nominal_out", "nominal_output"),
    "cv2_input": ("cv2_input",),
    "cv2_output": ("cv2_output",),
    "cv2_arrival": ("cv2_arrival",),
    "rate_per_s": ("rate_per_s", "request_rate", "request_rate_per_s", "offered_rate_per_s", "qps"),
    "rate_per_min": ("rate_per_min",),
    "throughput_per_s": ("throughput_per_s", "rps", "requests_per_s", "request_throughput"),
    "concurrency": ("concurrency", "clients", "max_concurrency"),
    "batch_size": ("batch_size", "batch"),
    "running": ("running", "mean_concurrency"),
    "requests": ("requests", "n_ok", "completed", "successful"),
    "errors": ("errors", "n_err", "failed", "errored"),
    "duration_s": ("duration_s",),
    "output_tokens_per_s": ("out_tok_per_s", "output_tokens_per_s", "output_throughput"),
    "derived_per_s": ("req_per_s_derived",),
    "ranks": ("attention_dp_size",),
}  # fmt: skip
"""Columns by what they hold."""
LATENCIES = {
    "ttft_ms": ("ttft", "time_to_first_token"),
    "itl_ms": ("itl", "tpot", "inter_token_latency", "time_per_output_token"),
    "end_to_end_ms": ("e2e", "e2el", "end_to_end", "request_latency"),
}
LABELS = {
    "accelerator": ("accelerator", "gpu", "hardware", "system", "device"),
    "devices": ("devices", "tp", "tp_size"),
}
"""Labels that have a name of their own here."""
DERIVED_AGREES = 0.1
_TIMED = "|".join(name for names in LATENCIES.values() for name in names)
_COLUMN = re.compile(
    rf"(?:(?P<before>mean|median|avg|p[0-9]+)_)?(?P<latency>{_TIMED})(?:_(?P<after>mean|median|avg|p[0-9]+))?"
    rf"(?:_(?P<unit>[a-z]+))?"
)


class _Columns:
    """What the columns of a table hold."""

    def __init__(self, header: Sequence[str]):
        self.latencies: dict[str, tuple[str, str, float]] = {}
        self.figures: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.without_unit: list[str] = []
        self.twice: list[tuple[str, str]] = []
        for column in header:
            name = re.sub(r"[^a-z0-9]+", "_", column.strip().lower()).strip("_")
            if match := _COLUMN.fullmatch(name):
                self._add_latency(column, match)
            elif figure := next((figure for figure, names in NAMES.items() if name in names), None):
                self._once(self.figures, figure, column)
            else:
                label = next((label for label, names in LABELS.items() if name in names), name)
                self.labels.setdefault(label, column)

    def _add_latency(self, column: str, match: re.Match[str]) -> None:
        statistic = match["before"] or match["after"] or "mean"
        statistic = {"avg": "mean", "median": "p50"}.get(statistic, statistic)
        if match["unit"] not in UNITS_MS:
            self.without_unit.append(column)
            return
        latency = next(latency for latency, names in LATENCIES.items() if match["latency"] in names)
        same = [other for other, (of, which, _) in self.latencies.items() if (of, which) == (latency, statistic)]
        self.twice += [(other, column) for other in same]
        if column in self.latencies:
            self.twice.append((column, column))
        self.latencies[column] = (latency, statistic, UNITS_MS[match["unit"]])

    def _once(self, columns: dict[str, str], name: str, column: str) -> None:
        if name in columns:
            self.twice.append((columns[name], column))
        columns.setdefault(name, column)


def read_table(facts: Facts) -> Iterator[Measurement]:
    """Read the rows of a table; all its faults are gathered."""
    header, rows = facts.data[0], facts.data[1:]
    columns = _Columns(header)
    for column in columns.without_unit:
        facts.fault(f"column {column!r} has no unit in its name", f"{column}_ms, or {column}_s")
    for first, second in dict.fromkeys(columns.twice):
        facts.fault(f"columns {first!r} and {second!r} say the same", "leave one out")
    missing = [name for name in ("input_tokens", "output_tokens") if name not in columns.figures]
    missing += [name for name in ("ttft_ms", "itl_ms") if name not in {k for k, _, _ in columns.latencies.values()}]
    for name in () if columns.without_unit else missing:
        facts.fault(f"no column {name!r}", nearest(name, header))
    if (
        not {"rate_per_s", "rate_per_min", "concurrency", "batch_size"} & {*columns.figures}
        and "strategy" not in header
    ):
        facts.fault("no column says how requests were sent", "rate_per_s, concurrency, batch_size or strategy")
    if facts.faults:
        return
    for i, row in enumerate(rows, start=2):
        if not any(row):
            continue
        if len(row) != len(header):
            facts.fault(f"{len(row)} fields under {len(header)} headers", "was the file cut?", f"row {i}")
            continue
        part = facts.part(dict(zip(header, row, strict=True)), f"row {i}")
        yield from _read_row(part, columns)


def _read_row(part: Facts, columns: _Columns) -> Iterator[Measurement]:
    before = len(part.faults)
    figures = {name: part.number(column, needed=False) for name, column in columns.figures.items()}
    latencies: dict[str, Any] = {name: {} for name in LATENCIES}
    for column, (latency, statistic, scale) in columns.latencies.items():
        value = part.number(column, needed=statistic == "mean", least=-float("inf"))
        if value is not None:
            latencies[latency][statistic] = value * scale
    labels = {label: part.text(column) for label, column in columns.labels.items()}
    strategy = labels.pop("strategy", None)
    inputs, outputs = part.number(columns.figures["input_tokens"]), part.number(columns.figures["output_tokens"])
    if inputs is None or outputs is None or len(part.faults) > before:
        return
    sent = _sent(part, figures, strategy)
    if not sent:
        return
    _check_derived(part, figures, latencies, outputs)
    nominal = (figures.get("nominal_input"), figures.get("nominal_output"))
    yield Measurement(
        place=part.place,
        tool="aiconfigurator" if "derived_per_s" in figures else "table",
        labels={name: value for name, value in labels.items() if value},
        input_tokens=inputs,
        output_tokens=outputs,
        nominal=nominal if None not in nominal else None,  # type: ignore[arg-type]
        cv2_input=figures.get("cv2_input"),
        cv2_output=figures.get("cv2_output"),
        requests=None if figures.get("requests") is None else int(figures["requests"] or 0),
        errors=None if figures.get("errors") is None else int(figures["errors"] or 0),
        duration_s=figures.get("duration_s"),
        throughput_per_s=_throughput(part, figures, outputs),
        **latencies,
        **sent,
        notes=tuple(part.notes),
    )


def _check_derived(
    part: Facts, figures: dict[str, float | None], latencies: dict[str, dict[str, float]], outputs: float
) -> None:
    """Hold the rate that aiconfigurator derives against the latencies that it derives it from."""
    derived, clients = figures.get("derived_per_s"), figures.get("concurrency")
    whole_ms = latencies["ttft_ms"].get("mean", 0.0) + outputs * latencies["itl_ms"].get("mean", 0.0)
    if derived and clients and whole_ms > 0 and abs(clients / whole_ms * 1e3 / derived - 1) > DERIVED_AGREES:
        part.fault(f"{derived:.4g} requests/s do not follow from {clients:g} clients and the latencies: a wrong unit?")


def _throughput(part: Facts, figures: dict[str, float | None], outputs: float) -> float | None:
    """Return the rate that was served; told twice, the two must agree."""
    served, tokens = figures.get("throughput_per_s"), figures.get("output_tokens_per_s")
    if served is None or tokens is None or outputs <= 0:
        return served if served is not None else None if tokens is None else tokens / max(outputs, 1e-9)
    if abs(tokens / max(served * outputs, 1e-12) - 1) > 0.2 and tokens > 0.01:
        part.notes.append(f"{tokens:.4g} tokens/s and {served:.4g} requests/s of {outputs:.4g} tokens do not agree")
    return served


def _sent(part: Facts, figures: dict[str, float | None], strategy: str | None) -> dict[str, Any]:
    kind, _, at = (strategy or "").partition("@")
    clients = figures.get("concurrency")
    if kind == "synchronous":
        return {"sent": "concurrency", "concurrency": 1.0, "running": clients}
    if kind in ("constant", "poisson"):
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", at):
            part.fault(f"strategy {strategy!r} without its rate", f"{kind}@2.5")
            return {}
        pace = 1.0 if kind == "poisson" else 0.0
        return {"sent": "rate", "rate_per_s": float(at), "cv2_arrival": pace, "running": clients}
    if kind and kind not in ("throughput", "concurrent"):
        part.fault(f"strategy {strategy!r} is not known", "synchronous, throughput, concurrent, constant@R, poisson@R")
        return {}
    if figures.get("batch_size") is not None:
        return {"sent": "batch", "concurrency": figures["batch_size"]}
    per_s, per_min = figures.get("rate_per_s"), figures.get("rate_per_min")
    rate = per_min / 60 if per_s is None and per_min is not None else per_s
    if rate is not None:
        if clients is not None:
            part.notes.append("taken as sent at the rate; the concurrency is what was measured then")
        return {"sent": "rate", "rate_per_s": rate, "cv2_arrival": figures.get("cv2_arrival"), "running": clients}
    return _sent_by_clients(part, figures, clients, crowd=kind == "throughput")


def _sent_by_clients(
    part: Facts, figures: dict[str, float | None], clients: float | None, *, crowd: bool
) -> dict[str, Any]:
    if clients is None or clients < 1:
        part.fault("no rate, number of clients or batch size" if clients is None else f"{clients:g} clients")
        return {}
    if ranks := figures.get("ranks"):
        if ranks > 1:
            part.notes.append(f"{ranks:g} data-parallel ranks: clients are those of one")
        clients = max(clients / max(ranks, 1.0), 1.0)
    running = None if "derived_per_s" in figures else clients
    return {"sent": "concurrency", "concurrency": clients, "running": running, "crowd": crowd}
