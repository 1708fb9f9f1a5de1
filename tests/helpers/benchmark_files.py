"""What benchmark tools write, made from given figures: each tool's form, with what our readers and checks look at."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """A run that agrees with itself: 300 requests at 5/s, 60 s, each 0.09 + 99 · 0.01 s long."""

    rate_per_s: float = 5.0
    requests: int = 300
    input_tokens: float = 400.0
    output_tokens: float = 100.0
    ttft_ms: float = 90.0
    itl_ms: float = 10.0
    model: str = "vendor/model-8b"
    strategy: str = "constant"
    clients: int | None = None

    @property
    def end_to_end_ms(self) -> float:
        return self.ttft_ms + (self.output_tokens - 1) * self.itl_ms

    @property
    def duration_s(self) -> float:
        return self.requests / self.rate_per_s

    @property
    def running(self) -> float:
        return self.rate_per_s * self.end_to_end_ms / 1e3


def _spread(mean: float) -> dict[str, float]:
    return {"p50": mean * 0.98, "p90": mean * 1.2, "p95": mean * 1.3, "p99": mean * 1.5}


def _guidellm_statistics(mean: float, deviation: float | None = None) -> dict[str, Any]:
    deviation = 0.2 * mean if deviation is None else deviation
    spread = _spread(mean)
    some = {"mean": mean, "median": spread["p50"], "std_dev": deviation, "min": 0.7 * mean, "max": 1.6 * mean}
    return {"successful": {**some, "percentiles": {"p01": 0.7 * mean, **spread, "p999": 1.6 * mean}}}


def _guidellm_metrics(run: Run) -> dict[str, Any]:
    return {
        "requests_per_second": _guidellm_statistics(run.rate_per_s),
        "request_concurrency": _guidellm_statistics(run.running),
        "request_latency": _guidellm_statistics(run.end_to_end_ms / 1e3),
        "prompt_token_count": _guidellm_statistics(run.input_tokens),
        "output_token_count": _guidellm_statistics(run.output_tokens),
        "time_to_first_token_ms": _guidellm_statistics(run.ttft_ms),
        "inter_token_latency_ms": _guidellm_statistics(run.itl_ms),
    }


def _guidellm_strategy(run: Run) -> dict[str, Any]:
    strategy: dict[str, Any] = {"type_": run.strategy}
    if run.strategy in ("constant", "poisson"):
        strategy["rate"] = run.rate_per_s
    if run.clients is not None:
        strategy["streams"] = run.clients
    return strategy


def guidellm_v1(*runs: Run) -> str:
    benchmarks = [
        {
            "type_": "generative_benchmark",
            "args": {"strategy": _guidellm_strategy(run)},
            "worker": {"backend_model": run.model},
            "metrics": _guidellm_metrics(run),
            "request_totals": {"successful": run.requests, "errored": 0, "incomplete": 0, "total": run.requests},
            "duration": run.duration_s,
        }
        for run in runs
    ]
    return json.dumps({"benchmarks": benchmarks}, indent=1)


def guidellm_v2(*runs: Run) -> str:
    benchmarks = [
        {
            "type_": "generative_benchmark",
            "config": {"strategy": _guidellm_strategy(run), "backend": {"model": run.model}},
            "metrics": {
                **_guidellm_metrics(run),
                "request_totals": {"successful": run.requests, "errored": 0, "incomplete": 0, "total": run.requests},
            },
            "duration": run.duration_s,
        }
        for run in runs
    ]
    head = {"metadata": {"version": 2, "guidellm_version": "0.8.1"}, "config": {}}
    return json.dumps({**head, "benchmarks": benchmarks}, indent=1)


def guidellm_flat(*runs: Run) -> str:
    rows = []
    for run in runs:
        row: dict[str, Any] = {"Type": "generative_benchmark", "Name": f"{run.strategy}@{run.rate_per_s:.2f}"}
        figures = {
            "Request latency": run.end_to_end_ms / 1e3,
            "Request concurrency": run.running,
            "Prompt token count": run.input_tokens,
            "Output token count": run.output_tokens,
            "Time to first token ms": run.ttft_ms,
            "Inter token latency ms": run.itl_ms,
        }
        for words, mean in figures.items():
            spread = _spread(mean)
            row |= {f"Successful {words} mean": mean, f"Successful {words} median": spread["p50"]}
            row[f"Successful {words} std dev"] = 0.2 * mean
            values = [0.7, 0.7, 0.7, 0.75, 0.8, 0.9, 1.1, 1.2, 1.3, 1.5, 1.6]
            row[f"Successful {words} [min, 0.1, 1, 5, 10, 25, 75, 90, 95, 99, max]"] = str([v * mean for v in values])
        row |= {"Duration": run.duration_s, "Successful Requests": run.requests, "Errored Requests": 0}
        row["Args"] = json.dumps({"strategy": _guidellm_strategy(run)})
        row["Worker"] = json.dumps({"backend_model": run.model})
        rows.append(row)
    return json.dumps(rows, indent=1)


def guidellm_csv(*runs: Run) -> str:
    columns: list[tuple[str, str, str]] = []
    lines = []
    for run in runs:
        cells: dict[tuple[str, str, str], Any] = {
            ("Run Info", "Run ID", ""): "1",
            ("Run Info", "Profile", ""): json.dumps({"kind": "sweep", "max_concurrency": None}),
            ("Run Info", "Backend", ""): json.dumps({"model": run.model}),
            ("Benchmark", "Strategy", ""): f"{run.strategy}@{run.rate_per_s}",
            ("Timings", "Duration", "Sec"): run.duration_s,
            ("Request Counts", "Successful", ""): run.requests,
            ("Request Counts", "Errored", ""): 0,
        }
        for group, unit, mean in (
            ("Request Latency", "Successful Sec", run.end_to_end_ms / 1e3),
            ("Time to First Token", "Successful ms", run.ttft_ms),
            ("Inter Token Latency", "Successful ms", run.itl_ms),
            ("Server Throughput", "Successful Concurrency", run.running),
            ("Token Metrics", "Successful Input Tokens", run.input_tokens),
            ("Token Metrics", "Successful Output Tokens", run.output_tokens),
        ):
            values = [0.7, 0.7, 0.7, 0.75, 0.8, 0.9, 1.1, 1.2, 1.3, 1.5, 1.6]
            cells |= {
                (group, unit, "Mean"): mean,
                (group, unit, "Median"): 0.98 * mean,
                (group, unit, "Std Dev"): 0.2 * mean,
                (group, unit, "Percentiles"): json.dumps([v * mean for v in values]),
            }
        columns = list(cells)
        lines.append(list(cells.values()))
    return _csv([*(list(level) for level in zip(*columns, strict=True)), *lines])


def guidellm_page(*runs: Run) -> str:
    def statistics(mean: float, count: int) -> dict[str, Any]:
        return {"mean": mean, "median": 0.98 * mean, "stdDev": 0.2 * mean, "count": count, "percentiles": _spread(mean)}

    first = runs[0]
    details = {
        "prompts": {"tokenDistributions": {"statistics": statistics(first.input_tokens, 9)}},
        "generations": {"tokenDistributions": {"statistics": statistics(first.output_tokens, 9)}},
        "rateType": "synchronous",
    }
    benchmarks = [
        {
            "ttft": statistics(run.ttft_ms, run.requests),
            "itl": statistics(run.itl_ms, run.requests * 99),
            "timePerRequest": statistics(run.end_to_end_ms / 1e3, run.requests),
            "requestsPerSecond": run.rate_per_s,
        }
        for run in runs
    ]
    values = {"runInfo": {"model": {"name": first.model}}, "workloadDetails": details, "benchmarks": benchmarks}
    script = "".join(f"window.{name} = {json.dumps(value)};\n" for name, value in values.items())
    return f"<!DOCTYPE html><html><head><script>{script}</script></head><body></body></html>\n"


def vllm_bench(*runs: Run, between: str = "\n") -> str:
    documents = []
    for run in runs:
        figures: dict[str, Any] = {
            "backend": "vllm",
            "model_id": run.model,
            "num_prompts": run.requests,
            "request_rate": run.rate_per_s,
            "burstiness": 1.0,
            "max_concurrency": run.clients,
            "duration": run.duration_s,
            "completed": run.requests,
            "total_input_tokens": int(run.requests * run.input_tokens),
            "total_output_tokens": int(run.requests * run.output_tokens),
            "request_throughput": run.rate_per_s,
            "request_goodput:": None,
            "gpu_name": "NVIDIA-H100-PCIe",
            "gpu_count": "1",
        }
        for name, mean in (("ttft", run.ttft_ms), ("tpot", run.itl_ms), ("itl", run.itl_ms)):
            spread = _spread(mean)
            figures |= {f"mean_{name}_ms": mean, f"median_{name}_ms": spread["p50"], f"std_{name}_ms": 0.2 * mean}
            figures |= {f"{percentile}_{name}_ms": value for percentile, value in spread.items()}
        documents.append(json.dumps(figures))
    return between.join(documents)


def aiperf_json(run: Run) -> str:
    def metric(mean: float, unit: str) -> dict[str, Any]:
        return {"unit": unit, "avg": mean, **_spread(mean), "std": 0.2 * mean, "count": run.requests}

    phase: dict[str, Any] = {"name": "profiling", "kind": "profiling"}
    phase |= {"type": "concurrency", "concurrency": run.clients} if run.clients else {"request_rate": run.rate_per_s}
    document = {
        "schema_version": "1.4",
        "request_throughput": {"unit": "requests/sec", "avg": run.rate_per_s},
        "request_latency": metric(run.end_to_end_ms, "ms"),
        "time_to_first_token": metric(run.ttft_ms, "ms"),
        "inter_token_latency": metric(run.itl_ms, "ms"),
        "input_sequence_length": metric(run.input_tokens, "tokens"),
        "output_sequence_length": metric(run.output_tokens, "tokens"),
        "request_count": {"unit": "requests", "avg": float(run.requests)},
        "benchmark_duration": {"unit": "sec", "avg": run.duration_s},
        "effective_concurrency": {"unit": "requests", "avg": run.running},
        "input_config": {"models": {"items": [{"name": run.model}]}, "phases": [phase]},
        "was_cancelled": False,
        "is_complete": True,
    }
    return json.dumps(document, indent=1)


def genai_perf(run: Run, *, older: bool = False) -> str:
    """genai-perf's summary: no duration, and the load where its configuration has it."""
    document = json.loads(aiperf_json(run))
    for name in ("schema_version", "benchmark_duration", "effective_concurrency", "was_cancelled", "is_complete"):
        del document[name]
    load = {"concurrency": run.clients} if run.clients else {"request_rate": run.rate_per_s}
    config: dict[str, Any] = {"model_names": [run.model], "perf_analyzer": {"stimulus": load, "verbose": False}}
    if older:
        config = {"model": [run.model], "concurrency": None, "request_rate": None, "streaming": True, **load}
    return json.dumps({**document, "input_config": config}, indent=1)


def aiperf_csv(run: Run) -> str:
    header = ["Metric", "avg", "min", "max", "sum", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "std"]

    def row(name: str, mean: float) -> list[Any]:
        at = dict(zip(header[1:], [mean, 0.7 * mean, 1.6 * mean, "", "", "", "", "", *[0.98 * mean, "", 1.2 * mean],
                                   1.3 * mean, 1.5 * mean, 0.2 * mean], strict=True))  # fmt: skip
        return [name, *at.values()]

    rows = [
        header,
        [
            "Effective Concurrency",
            run.running,
            0,
            run.clients or 9,
            "",
            "",
            "",
            "",
            "",
            run.clients or 5,
            "",
            "",
            "",
            "",
            "",
        ],
        row("Input Sequence Length (tokens)", run.input_tokens),
        row("Inter Token Latency (ms)", run.itl_ms),
        row("Output Sequence Length (tokens)", run.output_tokens),
        row("Request Latency (ms)", run.end_to_end_ms),
        row("Time to First Token (ms)", run.ttft_ms),
        [],
        ["Metric", "Value"],
        ["Benchmark Duration (sec)", run.duration_s],
        ["Request Count", run.requests],
        ["Request Throughput (requests/sec)", run.rate_per_s],
    ]
    return _csv(rows)


def inference_perf(run: Run) -> str:
    def seconds(mean_ms: float) -> dict[str, float]:
        spread = _spread(mean_ms)
        return {"mean": mean_ms / 1e3, "median": spread["p50"] / 1e3, "p90": spread["p90"] / 1e3,
                "p95": spread["p95"] / 1e3, "p99": spread["p99"] / 1e3}  # fmt: skip

    document = {
        "load_summary": {
            "count": run.requests,
            "send_duration": run.duration_s,
            "requested_rate": run.rate_per_s,
            "achieved_rate": run.rate_per_s,
        },
        "successes": {
            "count": run.requests,
            "latency": {
                "request_latency": seconds(run.end_to_end_ms),
                "time_per_output_token": seconds(run.itl_ms),
                "time_to_first_token": seconds(run.ttft_ms),
                "inter_token_latency": seconds(run.itl_ms),
            },
            "throughput": {"requests_per_sec": run.rate_per_s},
            "prompt_len": {"mean": run.input_tokens},
            "output_len": {"mean": run.output_tokens},
        },
        "failures": {"count": 0},
    }
    return json.dumps(document)


def table(*runs: Run) -> str:
    header = [
        "model", "gpu", "tp", "strategy", "duration_s", "n_ok", "rps", "concurrency", "in_tokens", "out_tokens",
        "ttft_mean_ms", "ttft_median_ms", "ttft_p95_ms", "itl_mean_ms", "itl_median_ms", "itl_p95_ms", "n_err",
    ]  # fmt: skip
    rows = [
        [
            run.model, "H100", 1, f"{run.strategy}@{run.rate_per_s}", run.duration_s, run.requests, run.rate_per_s,
            run.running, run.input_tokens, run.output_tokens, run.ttft_ms, 0.98 * run.ttft_ms, 1.3 * run.ttft_ms,
            run.itl_ms, 0.98 * run.itl_ms, 1.3 * run.itl_ms, 0,
        ]
        for run in runs
    ]  # fmt: skip
    return _csv([header, *rows])


def aiconfigurator(*runs: Run) -> str:
    header = ["model", "system", "backend", "precision", "isl", "osl", "tp_size", "attention_dp_size", "concurrency",
              "ttft_ms", "tpot_ms", "req_per_s_derived"]  # fmt: skip
    rows = []
    for run in runs:
        clients = run.clients or 8
        derived = clients / (run.ttft_ms + run.output_tokens * run.itl_ms) * 1e3
        rows.append([run.model, "h100_sxm", "vllm", "fp8", run.input_tokens, run.output_tokens, 1, 1, clients,
                     run.ttft_ms, run.itl_ms, f"{derived:.5f}"])  # fmt: skip
    return _csv([header, *rows])


def _csv(rows: list[list[Any]]) -> str:
    with io.StringIO() as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
        return file.getvalue()
