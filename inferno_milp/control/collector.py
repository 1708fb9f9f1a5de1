"""From Prometheus to what each server does now; what is missing, stale or absurd is named, and never acted on."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from inferno_milp.control.config import PrometheusSettings
from inferno_milp.control.fleet import Deployment, Fleet
from inferno_milp.control.prometheus import PrometheusClient, PrometheusError, Series
from inferno_milp.control.queries import QUERIES, fill_in
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server

logger = logging.getLogger(__name__)

State = Literal["fresh", "held", "idle", "frozen"]
"""`held`: the last good value stands in; `idle`: no replicas, and nobody counts the arrivals; `frozen`: not known, and
for too long."""
TOKENS = ("input_tokens", "output_tokens")
PARTS = ("sum", "count")
NEEDED = (
    "arrivals_per_s", "running", "waiting", "sampled_at_s", *(f"{name}_{part}" for name in TOKENS for part in PARTS),
)  # fmt: skip
"""Nothing can be planned without these. Without the others, the KV cache and the latencies, it can."""
MOST = {"arrivals_per_s": 1e6, "running": 1e7, "waiting": 1e9, "kv_use": 1e3}
"""Figures of one pod beyond these are absurd."""
MOST_TOKENS = 1e8
FROM_THE_FUTURE_S = 30.0
"""A sample may be ahead of this machine's clock by so much."""

Values = Mapping[str, Mapping[tuple[str, str], float]]
"""By question, by namespace and pod."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a server, or one of its deployments, does.

    Attributes
    ----------
    state, reason : whether it can be relied on, and why not.
    at_s : when it was.
    rate_per_s : arrivals.
    input_tokens, output_tokens : mean tokens per request; NaN where nobody was served.
    ttft_ms, itl_ms : mean latencies; NaN where not known.
    running, waiting : requests.
    kv_use : share of the KV cache in use, of the fullest pod; NaN where not known.
    """

    state: State
    reason: str
    at_s: float
    rate_per_s: float
    input_tokens: float = math.nan
    output_tokens: float = math.nan
    ttft_ms: float = math.nan
    itl_ms: float = math.nan
    running: float = 0.0
    waiting: float = 0.0
    kv_use: float = math.nan


class MetricSource(Protocol):
    """Where observations are from."""

    def observe(self, problem: Problem, fleet: Fleet, now_s: float) -> Observed:
        """Return what every server with a deployment does."""

    def history(self, fleet: Fleet, server: str, now_s: float, length_s: float, step_s: float) -> list[float]:
        """Return a server's arrival rates in bins up to now, the last one last; empty where they are not known."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What was observed in a round.

    Attributes
    ----------
    servers : by name.
    deployments : by their keys, those of which everything is known.
    errors : what went wrong.
    """

    servers: Mapping[str, Observation]
    deployments: Mapping[str, Observation]
    errors: tuple[str, ...] = ()


class Collector:
    """Observes through Prometheus, and remembers the last good values."""

    def __init__(self, client: PrometheusClient, settings: PrometheusSettings):
        self._client = client
        self._settings = settings
        self._good: dict[str, Observation] = {}

    def observe(self, problem: Problem, fleet: Fleet, now_s: float) -> Observed:
        """Ask Prometheus, and judge what it says."""
        values, errors = self._ask(now_s)
        arrivals = self._gateway(now_s, errors)
        servers, deployments = {}, {}
        for server in problem.servers:
            own = fleet.of(server.name)
            if not own:
                continue
            parts = {d.key: self._deployment(d, values, now_s, errors) for d in own if d.ready}
            deployments.update({key: part for key, part in parts.items() if part.state == "fresh"})
            now = _together(own, parts, now_s)
            if server.name in arrivals:
                now = _from_gateway(now, arrivals[server.name], now_s)
            servers[server.name] = self._settled(server, now, now_s)
        return Observed(servers, deployments, tuple(errors))

    def history(self, fleet: Fleet, server: str, now_s: float, length_s: float, step_s: float) -> list[float]:
        """Return a server's arrival rates in bins up to now, the last one last; empty where they are not known."""
        settings = self._settings
        if server in settings.arrivals:
            text = self._text(settings.arrivals[server], step_s)
        else:
            text = self._text(self._queries()["arrivals_per_s"], step_s)
        start = now_s - length_s
        counted: dict[int, float] = {}
        try:
            self._client.begin_round()
            answer = self._client.query_range(text, start + step_s, now_s, step_s)
        except PrometheusError as error:
            logger.warning("no history of %s: %s", server, error)
            return []
        for series in answer:
            namespace, pod = (series.labels.get(label, "") for label in self._labels())
            if server not in settings.arrivals and _owner(fleet, namespace, pod) != server:
                continue
            for at, value in series.points:
                if math.isfinite(value) and value >= 0:
                    position = round((at - start) / step_s)
                    counted[position] = counted.get(position, 0.0) + value
        if not counted:
            return []
        return [counted.get(i, math.nan) for i in range(min(counted), max(counted) + 1)]

    def _queries(self) -> dict[str, str]:
        return {**QUERIES[self._settings.engine], **self._settings.queries}

    def _labels(self) -> tuple[str, str]:
        return self._settings.namespace_label, self._settings.pod_label

    def _text(self, query: str, window_s: float) -> str:
        return fill_in(query, by=", ".join(self._labels()), selector=self._settings.selector, window_s=window_s)

    def _ask(self, now_s: float) -> tuple[Values, list[str]]:
        self._client.begin_round()
        values: dict[str, dict[tuple[str, str], float]] = {}
        errors: list[str] = []
        for name, query in self._queries().items():
            try:
                found = self._client.query(self._text(query, self._settings.window_s), now_s)
            except PrometheusError as error:
                errors.append(f"{name}: {error}")
                if name in NEEDED:
                    break  # nothing is known without it, and the next one would fail likewise
                continue
            values[name] = _by_pod(found, self._labels())
        return values, errors

    def _gateway(self, now_s: float, errors: list[str]) -> dict[str, float]:
        """Return arrival rates by server; NaN where one is not known."""
        found = {}
        for server, query in self._settings.arrivals.items():
            found[server] = math.nan
            try:
                answer = self._client.query(self._text(query, self._settings.window_s), now_s)
            except PrometheusError as error:
                errors.append(f"arrivals of {server}: {error}")
                continue
            absurd = [one.value for one in answer if not 0 <= one.value <= MOST["arrivals_per_s"]]
            if not answer or absurd:
                what = f"a series is {absurd[0]:g}" if absurd else "no series in Prometheus"
                errors.append(f"arrivals of {server}: {what}")
                continue
            found[server] = math.fsum(one.value for one in answer)
        return found

    def _deployment(self, deployment: Deployment, values: Values, now_s: float, errors: list[str]) -> Observation:
        """Add up a deployment's pods; those that have not served for a window yet may be missing.

        One rule holds for every figure: a pod without it, or with one that is absurd, is named, and the figure of the
        deployment is not known. A deployment without a needed figure is not known at all.
        """
        nothing = Observation("frozen", "", now_s, math.nan)
        unanswered = next((name for name in NEEDED if name not in values), None)
        if unanswered is not None:
            return replace(nothing, reason=f"no answer to {unanswered}")
        keys, wrong = self._measured(deployment, values, now_s)
        if wrong:
            return replace(nothing, reason=wrong)
        pods = _Pods(values, keys, errors)
        tokens = {name: pods.mean(name) for name in TOKENS}
        if any(value > MOST_TOKENS for value in tokens.values()) or tokens["output_tokens"] < 1:
            return replace(nothing, reason=f"absurd tokens per request: {tokens}")
        unmeasured = deployment.ready - len(keys)
        return Observation(
            state="fresh",
            reason=f"{unmeasured} of its pods are not measured yet" if unmeasured > 0 else "",
            at_s=min(pods.figures("sampled_at_s")),
            rate_per_s=math.fsum(pods.figures("arrivals_per_s")),
            **tokens,
            ttft_ms=1000 * pods.mean("ttft_s"),
            itl_ms=1000 * pods.mean("itl_s"),
            running=math.fsum(pods.figures("running")),
            waiting=math.fsum(pods.figures("waiting")),
            kv_use=max(pods.figures("kv_use"), default=math.nan),
        )

    def _measured(self, deployment: Deployment, values: Values, now_s: float) -> tuple[list[tuple[str, str]], str]:
        """Return the pods whose needed figures are known, and what is wrong with one that should be among them."""
        settings, found = self._settings, []
        since = now_s - settings.window_s - settings.max_age_s
        for pod in deployment.pods:
            if pod.ready_since_s is None:
                continue
            key = (deployment.namespace, pod.name)
            wrong = _wrong(values, NEEDED, key) or _untimely(values, key, now_s, settings.max_age_s)
            if not wrong:
                found.append(key)
            elif pod.ready_since_s < since or not wrong.startswith("no "):
                return [], f"{pod.name}: {wrong}"
        return found, "" if found else "no pod is measured yet"

    def _settled(self, server: Server, now: Observation, now_s: float) -> Observation:
        """Let the last good value stand in for what is not known, for a while."""
        good = self._good.get(server.name)
        is_recent = good is not None and good.state == "fresh" and 0 <= now_s - good.at_s <= self._settings.hold_s
        if now.state == "fresh" and now.reason and good is not None and is_recent:
            now = replace(now, rate_per_s=max(now.rate_per_s, good.rate_per_s))  # pods that are not measured serve too
        if now.state in ("fresh", "idle"):
            tokens = {name: _first(getattr(now, name), good, name, server) for name in TOKENS}
            now = replace(now, input_tokens=tokens["input_tokens"], output_tokens=tokens["output_tokens"])
            if now.rate_per_s > 0 and any(math.isnan(value) for value in tokens.values()):
                now = replace(now, state="frozen", reason="no request has finished yet: its tokens are not known")
            else:
                self._good[server.name] = now
                return now
        if good is not None and is_recent:
            return replace(good, state="held", reason=f"{now.reason}; as {now_s - good.at_s:.0f} s ago")
        return now


@dataclass(frozen=True, slots=True)
class _Pods:
    """Figures of a deployment's pods.

    Attributes
    ----------
    keys : namespace and name of each pod.
    errors : where what is wrong with a figure is added.
    """

    values: Values
    keys: list[tuple[str, str]]
    errors: list[str]

    def figures(self, name: str) -> list[float]:
        """Return a figure of all pods; empty if that of one of them is not known."""
        if name not in self.values:
            return []  # an error has been reported for it
        for key in self.keys:
            if wrong := _wrong(self.values, (name,), key):
                self.errors.append(f"{'/'.join(key)}: {wrong}")
                return []
        return [self.values[name][key] for key in self.keys]

    def mean(self, name: str) -> float:
        """Return the mean of a figure that has a sum and a count; NaN where it is not known, or of nothing."""
        totals, counts = (self.figures(f"{name}_{part}") for part in PARTS)
        count = math.fsum(counts)
        return math.fsum(totals) / count if totals and count > 0 else math.nan


def _owner(fleet: Fleet, namespace: str, pod: str) -> str | None:
    """Return the server of a pod that may be gone, by its name: that of the deployment with the longest name."""
    homes = [d for d in fleet.deployments if d.namespace == namespace and pod.startswith(f"{d.name}-")]
    return max(homes, key=lambda d: len(d.name)).server if homes else None


def _by_pod(series: Iterable[Series], labels: tuple[str, str]) -> dict[tuple[str, str], float]:
    return {(one.labels.get(labels[0], ""), one.labels.get(labels[1], "")): one.value for one in series}


def _wrong(values: Values, names: Iterable[str], key: tuple[str, str]) -> str:
    """Return what is wrong with figures of a pod; nothing if they are fine."""
    for name in names:
        value = values[name].get(key)
        if value is None:
            return f"no {name} in Prometheus"
        if not math.isfinite(value):
            return f"{name} is {value}"
        if value < 0 or value > MOST.get(name, math.inf):
            return f"{name} is {value:g}, which is absurd"
    return ""


def _untimely(values: Values, key: tuple[str, str], now_s: float, max_age_s: float) -> str:
    """Return what is wrong with the time at which a pod was measured; nothing if it is fine."""
    age = now_s - values["sampled_at_s"][key]
    if age > max_age_s:
        return f"stale: {age:.0f} s old"
    if age < -FROM_THE_FUTURE_S:
        return f"measured {-age:.0f} s from now: a clock is wrong"
    return ""


def _together(own: Iterable[Deployment], parts: Mapping[str, Observation], now_s: float) -> Observation:
    """Add up the deployments of a server; one that cannot be relied on spoils the sum."""
    if not parts:
        if any(d.replicas or d.pods for d in own):
            return Observation("frozen", "no replica is ready", now_s, math.nan)
        return Observation("idle", "no replicas, and no query for its arrivals", now_s, 0.0)
    for part in parts.values():
        if part.state != "fresh":
            return part
    found = list(parts.values())

    def weighted(name: str, weights: list[float]) -> float:
        pairs = [(getattr(p, name), w) for p, w in zip(found, weights, strict=True) if math.isfinite(getattr(p, name))]
        total = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / total if total > 0 else math.nan

    rates = [max(part.rate_per_s, 1e-9) for part in found]
    return Observation(
        state="fresh",
        reason="; ".join(part.reason for part in found if part.reason),
        at_s=min(part.at_s for part in found),
        rate_per_s=math.fsum(part.rate_per_s for part in found),
        input_tokens=weighted("input_tokens", rates),
        output_tokens=weighted("output_tokens", rates),
        ttft_ms=weighted("ttft_ms", rates),
        itl_ms=weighted("itl_ms", rates),
        running=math.fsum(part.running for part in found),
        waiting=math.fsum(part.waiting for part in found),
        kv_use=max((part.kv_use for part in found if math.isfinite(part.kv_use)), default=math.nan),
    )


def _from_gateway(now: Observation, rate_per_s: float, now_s: float) -> Observation:
    """Take the arrival rate that a gateway counts; it is known without replicas too."""
    if math.isnan(rate_per_s):
        return replace(now, state="frozen", reason="the arrival rate at the gateway is not known")
    if now.state == "fresh":
        return replace(now, rate_per_s=rate_per_s)
    if now.state == "idle":
        return Observation("fresh", "", now_s, rate_per_s)
    return now


def _first(value: float, good: Observation | None, name: str, server: Server) -> float:
    """Return the first that is known: what is measured, what was, what the problem says."""
    candidates: Iterator[float] = iter((value, getattr(good, name, math.nan), getattr(server.load, name, math.nan)))
    return next((float(candidate) for candidate in candidates if math.isfinite(candidate)), math.nan)
