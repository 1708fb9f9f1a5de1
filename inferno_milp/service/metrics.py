"""What Prometheus may know of a service."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from inferno_milp._version import __version__

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters, and gauges that look when they are asked; each service has its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "inferno_http_requests", "Requests answered", ("method", "path", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "inferno_http_request_seconds", "Time to answer, s", ("method", "path"), buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.jobs = Counter("inferno_jobs", "Jobs ended", ("kind", "status"), registry=self._registry)
        Gauge("inferno_info", "Version", ("version",), registry=self._registry).labels(__version__).set(1)
        self._work = {
            state: Gauge(f"inferno_work_{state}", words, ("pool",), registry=self._registry)
            for state, words in (("running", "Pieces of work being done"), ("waiting", "Pieces of work that wait"))
        }

    def watch(self, pool: str, state: str, count: Callable[[], float]) -> None:
        """Let a gauge, `running` or `waiting`, look at a pool."""
        self._work[state].labels(pool).set_function(count)

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self._registry)
