"""What emulated pods tell Prometheus: vLLM's metrics, stamped with the emulation's own time, at one address."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from inferno_milp.control.emulation.cluster import EmulatedCluster

CLOCK = "emulation_clock_seconds"
"""The gauge by which to tell that Prometheus has what was published last."""
LABELS = ("namespace", "pod", "model_name")
SUMS = {
    "vllm:request_prompt_tokens": ("input_tokens", "finished"),
    "vllm:request_generation_tokens": ("output_tokens", "finished"),
    "vllm:time_to_first_token_seconds": ("ttft_s", "first_tokens"),
    "vllm:inter_token_latency_seconds": ("itl_s", "gaps"),
}


class _Metrics(Collector):
    def __init__(self, cluster: EmulatedCluster):
        self._cluster = cluster

    def collect(self) -> Iterator[Metric]:
        models = {s.name: s.model for s in self._cluster.problem.servers}
        finished = CounterMetricFamily("vllm:request_success", "Requests that finished", labels=LABELS)
        gauges = {
            name: GaugeMetricFamily(f"vllm:{name}", words, labels=LABELS)
            for name, words in (
                ("num_requests_running", "Requests in the batch"),
                ("num_requests_waiting", "Requests that wait"),
                ("kv_cache_usage_perc", "Share of the KV cache in use"),
            )
        }
        # Sums and counts of histograms; their buckets are not asked for.
        sums = {
            f"{name}_{part}": GaugeMetricFamily(f"{name}_{part}", f"{name}: {part}", labels=LABELS)
            for name in SUMS
            for part in ("sum", "count")
        }
        now = self._cluster.now_s()
        clock = GaugeMetricFamily(CLOCK, "The emulation's clock")
        clock.add_metric((), now, timestamp=now)
        for pod, deployment, engine in self._cluster.gauges():
            labels = (deployment.namespace, pod.name, models[deployment.server])
            finished.add_metric(labels, pod.tally.finished, timestamp=now)
            waiting = len(engine.waiting)
            for name, value in zip(gauges, (engine.running, waiting, engine.kv_use), strict=True):
                gauges[name].add_metric(labels, value, timestamp=now)
            for name, parts in SUMS.items():
                for part, field in zip(("sum", "count"), parts, strict=True):
                    sums[f"{name}_{part}"].add_metric(labels, getattr(pod.tally, field), timestamp=now)
        yield from (clock, finished, *gauges.values(), *sums.values())


class Exporter:
    """An HTTP server that shows what was last published."""

    def __init__(self, cluster: EmulatedCluster):
        self._registry = CollectorRegistry()
        self._registry.register(_Metrics(cluster))
        self._text = b""
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = exporter._text
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE_LATEST)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # it gave up waiting, and will ask again
                    self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in its base
                """Log nothing: Prometheus asks all the time."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def publish(self) -> None:
        """Show what is so now."""
        self._text = generate_latest(self._registry)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
