"""A day in the emulated cluster, under the loop or under another policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from inferno_milp.control.collector import Collector
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.controller import Controller
from inferno_milp.control.emulation.cluster import EmulatedCluster, Served
from inferno_milp.control.emulation.exporter import CLOCK, Exporter
from inferno_milp.control.emulation.load import Day, draw_requests
from inferno_milp.control.emulation.prometheus_process import PrometheusProcess
from inferno_milp.control.emulation.timeline import Row, Timeline, judge
from inferno_milp.control.fleet import Cluster
from inferno_milp.control.problems import FixedProblem
from inferno_milp.control.prometheus import PrometheusClient
from inferno_milp.control.report import Report
from inferno_milp.plan import Plan
from inferno_milp.planning.optimize import optimize
from inferno_milp.problem import Problem

SCRAPE_S = 30.0
"""Time between scrapes, of the emulation's clock."""
REVERSAL_S = 1800.0

Policy = Callable[[EmulatedCluster], Report | None]
"""What is done at the end of every interval."""


@dataclass(slots=True)
class Emulation:
    """A cluster, the load that comes to it, and what came of it.

    Attributes
    ----------
    problem : whose loads are those at the day's peak, bursts apart.
    interval_s : between rounds.
    on_round : called after each round, with the timeline and the round's report.
    """

    problem: Problem
    day: Day
    interval_s: float = 60.0
    startup_s: float = 120.0
    seed: int = 0
    on_round: Callable[[Timeline, Report | None], None] | None = None
    cluster: EmulatedCluster = field(init=False)
    timeline: Timeline = field(init=False)
    _seen: int = 0

    def __post_init__(self) -> None:
        self.problem = self.problem.model_copy(update={"nodes": (), "capacity": self.problem.devices_available})
        # Midnight, so that the same seed gives the same day whenever it is run.
        started = (time.time() - self.day.length_s - 3600) // 86400 * 86400
        self.cluster = EmulatedCluster(self.problem, started, self.startup_s, self.seed)
        self.timeline = Timeline(self.problem.name, self.problem.currency, available=self.problem.devices_available)

    def begin(self, factor: float) -> Plan:
        """Deploy each server wherever its model can run, with the replicas of the plan for a multiple of the loads."""
        plan = optimize(scaled(self.problem, factor), time_limit_s=60, advised=False)
        profiles = {(p.model, p.accelerator): p for p in self.problem.profiles}
        replicas: dict[str, dict[str, int]] = {}
        batches: dict[tuple[str, str], int] = {}
        for server, planned in zip(self.problem.servers, plan.servers, strict=True):
            homes = [p.accelerator for p in self.problem.profiles if p.model == server.model]
            chosen = {a.accelerator: a.replicas for a in planned.allocations}
            replicas[server.name] = {name: chosen.get(name, 0) for name in homes}
            tokens = server.load.output_tokens if server.load is not None else 1.0
            for name in homes:
                largest = profiles[server.model, name].largest_batch(tokens)
                batches[server.name, name] = server.max_batch_size or largest
        self.cluster.deploy(replicas, batches)
        return plan

    def run(self, policy: Policy | None = None, on_step: Callable[[], object] | None = None) -> Timeline:
        """Let the day pass.

        Parameters
        ----------
        policy : what is done at the end of every interval; None: nothing.
        on_step : called after every step of `SCRAPE_S`.
        """
        rngs = np.random.default_rng(self.seed).spawn(len(self.problem.servers))
        step = min(SCRAPE_S, self.interval_s)
        cost, rounds = 0.0, round(self.day.length_s / self.interval_s)
        for i in range(rounds):
            start = i * self.interval_s
            offered: dict[str, int] = {}
            for j in range(max(round(self.interval_s / step), 1)):
                low, high = start + j * step, min(start + (j + 1) * step, start + self.interval_s)
                requests = {
                    s.name: list(draw_requests(rng, s.load, self.day, low, high))
                    for s, rng in zip(self.problem.servers, rngs, strict=True)
                    if s.load is not None
                }
                for name, some in requests.items():
                    offered[name] = offered.get(name, 0) + len(some)
                self.cluster.advance(high, requests)
                if on_step is not None:
                    on_step()
            cost += sum(self.cluster.costs().values()) * self.interval_s
            report = self._round(policy)
            self._note(offered, report)
            if self.on_round is not None:
                self.on_round(self.timeline, report)
        self.timeline.hours = self.day.length_s / 3600
        self.timeline.mean_cost_per_hour = cost / (rounds * self.interval_s)
        self.timeline.requests, self.timeline.kept = judge(self.problem, [*self.cluster.served, *self._overdue()])
        self.timeline.most_held = dict(self.cluster.most_held)
        return self.timeline

    def _overdue(self) -> Iterator[Served]:
        """Yield the requests that wait longer at the end than their server's target, with what they waited so far."""
        for server in self.problem.servers:
            limits = self.problem.targets_of(server).limits_ms()
            limit = min((limit for latency, _, limit in limits if latency == "ttft_ms"), default=math.inf)
            for request in self.cluster.without_first_token(server.name):
                waited_ms = self.cluster.time_s * 1000 - request.arrival_ms
                if waited_ms > limit:
                    yield Served(server.name, request.arrival_ms / 1000, waited_ms, math.nan)

    def _round(self, policy: Policy | None) -> Report | None:
        before = {d.name: d.replicas for d in self.cluster.read().deployments}
        report = policy(self.cluster) if policy is not None else None
        for d in self.cluster.read().deployments:
            change = d.replicas - before[d.name]
            if not change:
                continue
            self.timeline.changes += 1
            sign, at = self._last.get(d.name, (0, -math.inf))
            direction = 1 if change > 0 else -1
            if sign == -direction and self.cluster.time_s - at < REVERSAL_S:
                self.timeline.reversals += 1
            self._last[d.name] = (direction, self.cluster.time_s)
        if report is not None:
            self.timeline.errors += [e for e in report.errors if e not in self.timeline.errors]
        return report

    _last: dict[str, tuple[int, float]] = field(default_factory=dict)

    def _note(self, offered: Mapping[str, int], report: Report | None) -> None:
        recent, self._seen = self.cluster.served[self._seen :], len(self.cluster.served)
        fleet, costs = self.cluster.read(), self.cluster.costs()
        for server in self.problem.servers:
            own = [one for one in recent if one.server == server.name]
            deployments = fleet.of(server.name)
            pods = self.cluster.pods_of(server.name)
            queued = sum(len(pod.engine.waiting) for pod in pods if pod.engine is not None)
            self.timeline.rows.append(
                Row(
                    time_s=self.cluster.time_s,
                    server=server.name,
                    rate_per_s=offered.get(server.name, 0) / self.interval_s,
                    running={d.accelerator: d.replicas for d in deployments if d.replicas},
                    ready=sum(d.ready for d in deployments),
                    ttft_ms=_mean([one.ttft_ms for one in own]),
                    itl_ms=_mean([one.itl_ms for one in own]),
                    waiting=queued + self.cluster.waiting_at_gateway(server.name),
                    cost_per_hour=costs.get(server.name, 0.0),
                    reason="" if report is None else report.servers[server.name].reason,
                )
            )


def _mean(values: list[float]) -> float | None:
    found = [value for value in values if math.isfinite(value)]
    return math.fsum(found) / len(found) if found else None


def scaled(problem: Problem, factor: float) -> Problem:
    """Return the problem with all arrival rates times a factor."""
    servers = []
    for server in problem.servers:
        if server.load is not None:
            rate = float(f"{server.load.arrival_rate_per_s * factor:.6g}")
            load = server.load.model_copy(update={"rate_per_s": rate, "rate_per_min": None})
            server = server.model_copy(update={"load": load})
        servers.append(server)
    return problem.model_copy(update={"servers": tuple(servers)})


def run_controlled(emulation: Emulation, config: ControlConfig, cluster: Cluster | None = None) -> Timeline:
    """Let the loop scale an emulated cluster over a day, by what a real Prometheus says of it.

    Parameters
    ----------
    cluster : another way to what is emulated, as through an API server; None is the straight one.

    Raises
    ------
    OptionError
        If there is no Prometheus on this machine, or it does not scrape the emulated engines.
    """
    exporter = Exporter(emulation.cluster)
    try:
        with PrometheusProcess(exporter.address) as prometheus:
            settings = config.prometheus.model_copy(update={"url": prometheus.url})
            client = PrometheusClient(settings)
            controller = Controller(
                config.model_copy(update={"prometheus": settings}),
                FixedProblem(emulation.problem),
                cluster or emulation.cluster,
                Collector(client, settings),
                emulation.cluster,
            )

            def publish() -> None:
                exporter.publish()
                prometheus.wait_for(CLOCK, emulation.cluster.now_s())

            try:
                return emulation.run(lambda _: controller.run_round(), publish)
            finally:
                client.close()
    finally:
        exporter.close()


def run_static(emulation: Emulation) -> Timeline:
    """Let the same load come to a plan for its peak that nobody changes.

    Parameters
    ----------
    emulation : of which another one is made: the problem, the day and the seed are the same.
    """
    static = Emulation(emulation.problem, emulation.day, emulation.interval_s, emulation.startup_s, emulation.seed)
    static.begin(emulation.day.peak)
    return static.run()


def run_threshold(
    emulation: Emulation, running_per_replica: Mapping[str, float], *, window_s: float = 300.0
) -> Timeline:
    """Let an autoscaler of thresholds scale the cluster: Kubernetes' HPA on requests per pod, on what runs at first.

    desired = ⌈pods × (requests per pod / threshold)⌉, nothing within a tolerance of 10 %, the most of the last
    `window_s` when going down; never more than the devices that are free. Source: Kubernetes' documentation of the HPA.
    """
    lately: dict[str, list[tuple[float, int]]] = {}

    def policy(cluster: EmulatedCluster) -> None:
        fleet = cluster.read()
        for d in fleet.deployments:
            pods = [pod for pod in cluster.pods_of(d.server) if pod.deployment == d.name]
            if not d.replicas or not pods:
                continue
            held = [pod.engine.running + len(pod.engine.waiting) for pod in pods if pod.engine is not None]
            ratio = sum(held) / len(pods) / running_per_replica[d.server]
            least = max(_server_least(emulation.problem, d.server), 1)
            wanted = d.replicas if abs(ratio - 1) <= 0.1 else max(math.ceil(len(pods) * ratio), least)
            recent = lately.setdefault(d.name, [])
            recent.append((cluster.time_s, wanted))
            wanted = max(n for at, n in recent if at > cluster.time_s - window_s)
            if wanted != d.replicas:
                cluster.scale(d, wanted)

    return emulation.run(policy)


def _server_least(problem: Problem, name: str) -> int:
    return next(s.min_replicas for s in problem.servers if s.name == name)
