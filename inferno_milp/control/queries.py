"""What is asked of Prometheus, in the names of each inference engine; one sum per pod and question.

Counts and sums are asked for apart, so that they can be added up over pods before anything is divided.

Sources of the names: vLLM (vllm/v1/metrics/loggers.py; the engine before v1: vllm/engine/metrics.py), SGLang
(srt/observability/metrics_collector.py), text-generation-inference (docs/source/reference/metrics.md).
"""

from __future__ import annotations

from typing import Final


def _rate(name: str, labels: str = "") -> str:
    return f"rate({name}{{{labels}$selector}}[$window])"


def _arrivals(finished: str, *in_system: str, most: str) -> str:
    """Ask for requests that came: those that finished, and those by which the system filled up meanwhile."""
    of_pod = "sum" if most == "sum" else "avg"  # ranks that all say the same are not added up
    filling = " + ".join(f"{of_pod} by ($by) (deriv({name}{{$selector}}[$window]))" for name in in_system)
    return f"clamp_min(sum by ($by) ({_rate(finished)}) + {filling}, 0)"


def _engine(
    *,
    finished: str,
    running: str,
    waiting: str,
    kv: str,
    prompt: str,
    generation: str,
    ttft: str,
    itl: str,
    most: str = "sum",
) -> dict[str, str]:
    """Make the queries of an engine; `prompt` … `itl` are histograms."""
    sums = {"input_tokens": prompt, "output_tokens": generation, "ttft_s": ttft, "itl_s": itl}
    return {
        "arrivals_per_s": _arrivals(finished, running, waiting, most=most),
        "running": f"{most} by ($by) ({running}{{$selector}})",
        "waiting": f"{most} by ($by) ({waiting}{{$selector}})",
        "kv_use": f"max by ($by) ({kv}{{$selector}})",
        "sampled_at_s": f"max by ($by) (timestamp({running}{{$selector}}))",
        **{f"{name}_sum": f"sum by ($by) ({_rate(f'{metric}_sum')})" for name, metric in sums.items()},
        **{f"{name}_count": f"sum by ($by) ({_rate(f'{metric}_count')})" for name, metric in sums.items()},
    }


_VLLM: Final = {
    "finished": "vllm:request_success_total",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "prompt": "vllm:request_prompt_tokens",
    "generation": "vllm:request_generation_tokens",
    "ttft": "vllm:time_to_first_token_seconds",
}
_TGI_PREFILL: Final = 'tgi_batch_inference_duration_{kind}{{method="prefill",$selector}}'

QUERIES: Final[dict[str, dict[str, str]]] = {
    "vllm": _engine(**_VLLM, kv="vllm:kv_cache_usage_perc", itl="vllm:inter_token_latency_seconds"),
    "vllm-v0": _engine(**_VLLM, kv="vllm:gpu_cache_usage_perc", itl="vllm:time_per_output_token_seconds"),
    # Its gauges come from every rank, and say the same.
    "sglang": _engine(
        finished="sglang:num_requests_total",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv="sglang:token_usage",
        prompt="sglang:prompt_tokens_histogram",
        generation="sglang:generation_tokens_histogram",
        ttft="sglang:time_to_first_token_seconds",
        itl="sglang:inter_token_latency_seconds",
        most="max",
    ),
    # Counts requests as they come. It has no time to first token: that of the queue and of the prefill stand for it.
    "tgi": {
        **_engine(
            finished="tgi_request_count",
            running="tgi_batch_current_size",
            waiting="tgi_queue_size",
            kv="tgi_batch_current_size",
            prompt="tgi_request_input_length",
            generation="tgi_request_generated_tokens",
            ttft="tgi_request_queue_duration",
            itl="tgi_request_mean_time_per_token_duration",
        ),
        "arrivals_per_s": f"sum by ($by) ({_rate('tgi_request_count')})",
        "kv_use": "0 * max by ($by) (tgi_batch_current_size{$selector})",
        "ttft_s_sum": f"sum by ($by) ({_rate('tgi_request_queue_duration_sum')})"
        " + sum by ($by) (rate(tgi_request_queue_duration_count{$selector}[$window]))"
        f" * sum by ($by) (rate({_TGI_PREFILL.format(kind='sum')}[$window]))"
        f" / sum by ($by) (rate({_TGI_PREFILL.format(kind='count')}[$window]))",
    },
}


def fill_in(query: str, *, by: str, selector: str, window_s: float) -> str:
    """Return PromQL with its labels and its window filled in."""
    text = query.replace("$by", by).replace("$window", f"{max(round(window_s), 1)}s")
    if not selector:
        return text.replace("{$selector}", "").replace(",$selector}", "}")
    return text.replace("$selector", selector)
