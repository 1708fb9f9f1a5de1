"""What the loop publishes to Prometheus: for HPA and KEDA to scale by, and for people to watch.

The names of the replicas' metrics are those of llm-d's autoscaler, by both prefixes that it has had, so that what was
set up for it works here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from inferno_milp._version import __version__
from inferno_milp.control.report import DeploymentReport, Report

PREFIXES = ("inferno", "wva")
VARIANT = ("variant_name", "namespace", "accelerator_type")


class Published:
    """Metrics of one copy of the loop."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._replicas = {
            (prefix, name): Gauge(f"{prefix}_{name}", words, VARIANT, registry=registry)
            for prefix in PREFIXES
            for name, words in (
                ("desired_replicas", "Replicas that a deployment is to have"),
                ("current_replicas", "Replicas that a deployment asks for"),
                ("desired_ratio", "Desired replicas over current ones; desired where there are none"),
            )
        }
        self._scalings = {
            prefix: Counter(
                f"{prefix}_replica_scaling",
                "Changes of replicas",
                ("variant_name", "namespace", "direction", "reason"),
                registry=registry,
            )
            for prefix in PREFIXES
        }
        self._server = {
            name: Gauge(f"inferno_server_{name}", words, ("server",), registry=registry)
            for name, words in (
                ("arrival_rate_per_second", "Observed arrival rate"),
                ("planned_rate_per_second", "Rate that is planned for"),
                ("ttft_milliseconds", "Observed mean time to first token"),
                ("itl_milliseconds", "Observed mean inter-token latency"),
                ("waiting_requests", "Requests that wait"),
                ("frozen", "1 where a server is left alone, since its load is not known"),
                ("short", "1 where a server waits for devices"),
            )
        }
        self._devices = {
            name: Gauge(f"inferno_devices_{name}", words, ("type",), registry=registry)
            for name, words in (("available", "Devices there are for the fleet"), ("held", "Devices that it holds"))
        }
        self._cost = Gauge("inferno_running_cost_per_hour", "Price of the devices that are held", registry=registry)
        self._leads = Gauge("inferno_leader", "1 for the copy that acts", registry=registry)
        self._seconds = Gauge("inferno_round_seconds", "Time of the last round, s", registry=registry)
        self._at = Gauge("inferno_round_timestamp_seconds", "When the last round was", registry=registry)
        self._rounds = Counter("inferno_rounds", "Rounds", ("outcome",), registry=registry)
        Gauge("inferno_info", "Version", ("version",), registry=registry).labels(__version__).set(1)

    def show(self, report: Report) -> None:
        """Show a round.

        What is desired is the last decision of the copy that leads, of which every copy's report has it; a round in
        which there is none leaves it as it is. A metric that vanished would be no replicas to some autoscalers.
        """
        self._leads.set(report.role == "leader")
        self._seconds.set(report.seconds)
        self._at.set(report.at_s)
        self._cost.set(report.running_cost_per_hour)
        self._rounds.labels("errors" if report.errors else "fine").inc()
        for gauge in (*self._server.values(), *self._devices.values()):
            gauge.clear()
        for type_name, (available, held) in report.capacity.items():
            self._devices["available"].labels(type_name).set(available)
            self._devices["held"].labels(type_name).set(held)
        self._show_servers(report)
        self.show_deployments(report.deployments, counts=report.role == "leader")

    def _show_servers(self, report: Report) -> None:
        for name, server in report.servers.items():
            seen = server.observation
            figures = {
                "planned_rate_per_second": server.planned_rate_per_s,
                "frozen": float(seen is not None and seen.state == "frozen"),
                "short": float(bool(server.waiting)),
            }
            if seen is not None and seen.state != "frozen":
                figures |= {
                    "arrival_rate_per_second": seen.rate_per_s,
                    "ttft_milliseconds": seen.ttft_ms,
                    "itl_milliseconds": seen.itl_ms,
                    "waiting_requests": seen.waiting,
                }
            for figure, value in figures.items():
                if value is not None and math.isfinite(value):
                    self._server[figure].labels(name).set(value)

    def show_deployments(self, deployments: Iterable[DeploymentReport], *, counts: bool = False) -> None:
        """Show what is desired, if anything is.

        Parameters
        ----------
        counts : whether these are changes that were decided now.
        """
        listed = list(deployments)
        if listed:
            for gauge in self._replicas.values():
                gauge.clear()
        for d in listed:
            labels = (d.name, d.namespace, d.accelerator)
            ratio = d.desired / d.current if d.current else d.desired
            for prefix in PREFIXES:
                self._replicas[prefix, "desired_replicas"].labels(*labels).set(d.desired)
                self._replicas[prefix, "current_replicas"].labels(*labels).set(d.current)
                self._replicas[prefix, "desired_ratio"].labels(*labels).set(ratio)
                if counts and d.desired != d.current:
                    direction = "up" if d.desired > d.current else "down"
                    self._scalings[prefix].labels(d.name, d.namespace, direction, "plan").inc()

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self._registry)
