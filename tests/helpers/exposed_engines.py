"""What inference engines expose to Prometheus, by the names of their versions."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inferno_milp.control.emulation.exporter import CLOCK

EACH_S = 30
"""Time between two pages."""
FINISHED_PER_S, OUTPUT, INPUT = 2.0, 100, 300


@dataclass(frozen=True)
class Exposed:
    """The metrics of an engine.

    Attributes
    ----------
    name : the collector's.
    gauges : value by metric; all pods have them.
    counters : growth per second by metric; a pod has them from its first request on, where `is_lazy`.
    """

    name: str
    gauges: dict[str, float]
    counters: dict[str, float]
    is_lazy: bool = False


def _histogram(name, total, count=FINISHED_PER_S):
    return {f"{name}_sum": total, f"{name}_count": count}


def _vllm(kv, itl):
    return Exposed(
        "vllm",
        {"vllm:num_requests_running": 5.0, "vllm:num_requests_waiting": 1.0, kv: 0.4},
        {
            "vllm:request_success_total": FINISHED_PER_S,
            **_histogram("vllm:request_prompt_tokens", FINISHED_PER_S * INPUT),
            **_histogram("vllm:request_generation_tokens", FINISHED_PER_S * OUTPUT),
            **_histogram("vllm:time_to_first_token_seconds", 0.4),
            **_histogram(itl, 4.0, 200.0),
        },
    )


def _sglang(histograms):
    return Exposed(
        "sglang",
        {"sglang:num_running_reqs": 5.0, "sglang:num_queue_reqs": 1.0, "sglang:token_usage": 0.4},
        {
            "sglang:num_requests_total": FINISHED_PER_S,
            "sglang:prompt_tokens_total": FINISHED_PER_S * INPUT,
            "sglang:generation_tokens_total": FINISHED_PER_S * OUTPUT,
            **_histogram("sglang:time_to_first_token_seconds", 0.4),
            **_histogram("sglang:inter_token_latency_seconds", 4.0, 200.0),
            **histograms,
        },
        is_lazy=True,
    )


ENGINES = {
    "vllm": _vllm("vllm:kv_cache_usage_perc", "vllm:inter_token_latency_seconds"),
    "vllm 0.9": _vllm("vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"),
    "sglang": _sglang({}),
    "sglang --collect-tokens-histogram": _sglang(
        _histogram("sglang:prompt_tokens_histogram", FINISHED_PER_S * INPUT)
        | _histogram("sglang:generation_tokens_histogram", FINISHED_PER_S * OUTPUT)
    ),
    "tgi": Exposed(
        "tgi",
        {"tgi_batch_current_size": 5.0, "tgi_queue_size": 1.0},
        {
            "tgi_request_count": FINISHED_PER_S,
            **_histogram("tgi_request_input_length", FINISHED_PER_S * INPUT),
            **_histogram("tgi_request_generated_tokens", FINISHED_PER_S * OUTPUT),
            **_histogram("tgi_request_queue_duration", 0.3),
            **_histogram("tgi_request_mean_time_per_token_duration", 0.04),
            'tgi_batch_inference_duration_sum{method="prefill"}': 0.05,
            'tgi_batch_inference_duration_count{method="prefill"}': 1.0,
        },
        is_lazy=True,
    ),
}


class Page:
    """A page of metrics, stamped with a time of its own."""

    def __init__(self):
        self._text = b""
        page = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(page._text)))
                self.end_headers()
                self.wfile.write(page._text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}"

    def show_lines(self, lines, now_s):
        """Show metrics, each a line without a time."""
        stamp = round(now_s * 1000)
        self._text = "".join(f"{line} {stamp}\n" for line in (*lines, f"{CLOCK} {now_s}")).encode()

    def show(self, engine, now_s, step, without=""):
        """Show what an engine has at a time, the `step`-th page of all."""
        lines = []
        for pod, is_busy in (("g-0", True), ("g-1", False)):
            lines += [_line(name, pod, value if is_busy else 0.0) for name, value in engine.gauges.items()]
            if is_busy or not engine.is_lazy:
                totals = {name: per_s * EACH_S * step * is_busy for name, per_s in engine.counters.items()}
                lines += [_line(name, pod, total) for name, total in totals.items() if name != without]
        self.show_lines(lines, now_s)

    def __enter__(self):
        return self

    def __exit__(self, *arguments):
        self.server.shutdown()
        self.server.server_close()


def _line(name, pod, value):
    metric, _, labels = name.rstrip("}").partition("{")
    parts = [f'namespace="llm",pod="{pod}"', *([labels] if labels else [])]
    return f"{metric}{{{','.join(parts)}}} {value}"
