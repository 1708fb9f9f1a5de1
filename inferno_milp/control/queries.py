"""What is asked of Prometheus, in the names of each inference engine; one sum per pod and question.

Counts and sums are asked for apart, so that they can be added up over pods before anything is divided. Several engines
show a series only after its first sample. A pod without one that ran nothing over the whole window counts as 0; any
other pod without one has no value, and the collector names it.

Sources of the names: vLLM (vllm/v1/metrics/loggers.py; before 0.11 `gpu_cache_usage_perc` and
`time_per_output_token_seconds`), SGLang (srt/observability/metrics_collector.py; its token histograms need
`--collect-tokens-histogram`, its counters do not), text-generation-inference (docs/source/reference/metrics.md).
"""

from __future__ import annotations

from typing import Final


def _rate(*names: str, labels: str = "") -> str:
    """Return the rate of the first of several counters that a pod has."""
    return " or ".join(f"sum by ($by) (rate({name}{{{labels}$selector}}[$window]))" for name in names)


def _idle(running: str) -> str:
    """Return 0 for pods that ran nothing over the window."""
    return f"(max by ($by) (max_over_time({running}{{$selector}}[$window])) == 0)"


def _arrivals(finished: str, running: str, waiting: str, *, most: str) -> str:
    """Return the rate of requests that came: those that finished, and those by which the system filled up meanwhile."""
    of_pod = "sum" if most == "sum" else "avg"  # ranks that all report the same are not added up
    filling = " + ".join(f"{of_pod} by ($by) (deriv({name}{{$selector}}[$window]))" for name in (running, waiting))
    return f"clamp_min(({_rate(finished)} or {_idle(running)}) + {filling}, 0)"


def _engine(
    *,
    finished: str,
    running: str,
    waiting: str,
    kv: tuple[str, ...],
    figures: dict[str, tuple[tuple[str, ...], tuple[str, ...]]],
    most: str = "sum",
) -> dict[str, str]:
    """Return the queries of an engine.

    Parameters
    ----------
    kv : names of the gauge of the KV cache, the newest first.
    figures : by figure, the names of the counters of its sum and of its count, the newest first.
    most : how the gauges of a pod's ranks are put together.
    """
    idle = _idle(running)
    return {
        "arrivals_per_s": _arrivals(finished, running, waiting, most=most),
        "running": f"{most} by ($by) ({running}{{$selector}})",
        "waiting": f"{most} by ($by) ({waiting}{{$selector}})",
        "kv_use": " or ".join(f"max by ($by) ({name}{{$selector}})" for name in kv),
        "sampled_at_s": f"max by ($by) (timestamp({running}{{$selector}}))",
        **{
            f"{figure}_{part}": f"{_rate(*names)} or {idle}"
            for figure, parts in figures.items()
            for part, names in zip(("sum", "count"), parts, strict=True)
        },
    }


def _histogram(*names: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(f"{name}_sum" for name in names), tuple(f"{name}_count" for name in names)


_TGI_PREFILL: Final = {
    part: _rate(f"tgi_batch_inference_duration_{part}", labels='method="prefill",') for part in ("sum", "count")
}

QUERIES: Final[dict[str, dict[str, str]]] = {
    "vllm": _engine(
        finished="vllm:request_success_total",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        kv=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        figures={
            "input_tokens": _histogram("vllm:request_prompt_tokens"),
            "output_tokens": _histogram("vllm:request_generation_tokens"),
            "ttft_s": _histogram("vllm:time_to_first_token_seconds"),
            "itl_s": _histogram("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        },
    ),
    # Its gauges come from every rank, and report the same.
    "sglang": _engine(
        finished="sglang:num_requests_total",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv=("sglang:token_usage",),
        figures={
            "input_tokens": (("sglang:prompt_tokens_total",), ("sglang:num_requests_total",)),
            "output_tokens": (("sglang:generation_tokens_total",), ("sglang:num_requests_total",)),
            "ttft_s": _histogram("sglang:time_to_first_token_seconds"),
            "itl_s": _histogram("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
        },
        most="max",
    ),
    # Counts requests as they come. It has no time to first token: that of the queue and of the prefill stand for it.
    "tgi": {
        **_engine(
            finished="tgi_request_count",
            running="tgi_batch_current_size",
            waiting="tgi_queue_size",
            kv=("tgi_batch_current_size",),
            figures={
                "input_tokens": _histogram("tgi_request_input_length"),
                "output_tokens": _histogram("tgi_request_generated_tokens"),
                "ttft_s": _histogram("tgi_request_queue_duration"),
                "itl_s": _histogram("tgi_request_mean_time_per_token_duration"),
            },
        ),
        "arrivals_per_s": f"{_rate('tgi_request_count')} or {_idle('tgi_batch_current_size')}",
        "kv_use": "0 * max by ($by) (tgi_batch_current_size{$selector})",
        "ttft_s_sum": f"{_rate('tgi_request_queue_duration_sum')} + {_rate('tgi_request_queue_duration_count')}"
        f" * {_TGI_PREFILL['sum']} / clamp_min({_TGI_PREFILL['count']}, 1e-9)"
        f" or {_idle('tgi_batch_current_size')}",
    },
}


def fill_in(query: str, *, by: str, selector: str, window_s: float) -> str:
    """Return PromQL with its labels and its window filled in."""
    text = query.replace("$by", by).replace("$window", f"{max(round(window_s), 1)}s")
    if not selector:
        return text.replace("{$selector}", "").replace(",$selector}", "}")
    return text.replace("$selector", selector)
