"""Parts of a control loop for tests: a problem, a cluster in memory, observations at will, a clock at will."""

from __future__ import annotations

import math
from dataclasses import replace

import inferno_milp as im
from inferno_milp.control.collector import Observation, Observed
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.controller import Controller
from inferno_milp.control.fleet import ClusterError, Deployment, Fleet, Pod, devices_held
from inferno_milp.control.problems import FixedProblem

PROBLEM = {
    "name": "two",
    "currency": "usd",
    "accelerators": [
        {"name": "A100", "cost_per_hour": 2.0},
        {"name": "H100", "cost_per_hour": 4.5},
        {"name": "2xH100", "type": "H100", "devices": 2, "cost_per_hour": 9.0},
    ],
    "profiles": [
        {"model": "m", "accelerator": "A100", "alpha_ms": 10, "beta_ms": 0.3, "gamma_ms": 12, "delta_ms": 0.08,
         "max_batch_size": 32},
        {"model": "m", "accelerator": "H100", "alpha_ms": 6, "beta_ms": 0.1, "gamma_ms": 8, "delta_ms": 0.03,
         "max_batch_size": 64},
    ],
    "capacity": {"A100": 8, "H100": 4},
    "service_classes": [
        {"name": "gold", "priority": 1, "targets": {"m": {"ttft_ms": 500, "itl_ms": 25}}},
        {"name": "tin", "priority": 9, "targets": {"m": {"ttft_ms": 2000, "itl_ms": 60}}},
    ],
    "servers": [
        {"name": "gold", "service_class": "gold", "model": "m", "min_replicas": 1},
        {"name": "tin", "service_class": "tin", "model": "m", "min_replicas": 1},
    ],
}  # fmt: skip
START_S = 1_790_000_000.0


def problem(**changes):
    return im.read_problem_data({**PROBLEM, **changes})


def config(**changes):
    return ControlConfig.model_validate({"problem": "x.yaml", **changes})


class FakeClock:
    def __init__(self):
        self.wall, self.steady = START_S, 0.0

    def now_s(self):
        return self.wall

    def elapsed_s(self):
        return self.steady

    def wait(self, seconds):
        self.wall += seconds
        self.steady += seconds


class FakeCluster:
    """Deployments in memory; pods come and go at once, unless `slow` says that those that leave take a round."""

    def __init__(self, found, replicas, clock, *, slow=False):
        self.problem, self.clock, self.slow = found, clock, slow
        self.deployments = {
            f"{server}-{accelerator.lower()}": Deployment(
                "llm", f"{server}-{accelerator.lower()}", server, accelerator, count, batch_size=batch
            )
            for (server, accelerator), (count, batch) in replicas.items()
        }
        self.leaving = {}
        self.most = {}
        self.failures = []
        self.status, self.calls, self.devices, self.foreign = {}, [], None, {}
        self._note()

    def read(self, found):
        self._maybe_fail("read")
        fleet = self._fleet()
        self.leaving = {}
        return fleet

    def _fleet(self):
        found = []
        for d in self.deployments.values():
            pods = [Pod(f"{d.name}-{i}", START_S - 10_000) for i in range(d.replicas)]
            pods += [Pod(f"{d.name}-x{i}", None, is_leaving=True) for i in range(self.leaving.get(d.name, 0))]
            found.append(replace(d, pods=tuple(pods)))
        return Fleet(tuple(found), self.devices, self.foreign)

    def _maybe_fail(self, what):
        if self.failures and self.failures[0][0] in (what, "any"):
            error = self.failures.pop(0)[1]
            if error is not None:
                raise error

    def scale(self, deployment, replicas):
        self.calls.append((deployment.name, replicas))
        self._maybe_fail("scale")
        d = self.deployments.get(deployment.name)
        if d is None:
            raise ClusterError("gone", deployment.key)
        if d.replicas != deployment.replicas:
            raise ClusterError("conflict", deployment.key)
        if self.slow and replicas < d.replicas:
            self.leaving[d.name] = self.leaving.get(d.name, 0) + d.replicas - replicas
        self.deployments[d.name] = replace(d, replicas=replicas)
        self._note()

    def move(self, deployment, accelerator, replicas, batch_size):
        self.calls.append((deployment.name, accelerator, replicas, batch_size))
        self._maybe_fail("scale")
        d = self.deployments[deployment.name]
        self.deployments[d.name] = replace(
            d, accelerator=accelerator, replicas=replicas, batch_size=batch_size, moved_at_s=self.clock.now_s()
        )
        self._note()

    def write_status(self, documents):
        self._maybe_fail("status")
        self.status = dict(documents)

    def read_status(self):
        self._maybe_fail("read_status")
        return dict(self.status)

    def tell(self, deployment, reason, words, *, is_warning=False):
        self._maybe_fail("tell")

    def _note(self):
        for name, count in devices_held(self.problem, self._fleet().deployments).items():
            self.most[name] = max(self.most.get(name, 0), count)

    def replicas(self):
        return {d.name: d.replicas for d in self.deployments.values()}


class FakeSource:
    """Says what it is told to."""

    def __init__(self, rates):
        self.rates, self.states, self.errors, self.past = dict(rates), {}, (), {}

    def observe(self, found, fleet, now_s):
        servers = {}
        for name, rate in self.rates.items():
            if fleet.of(name):
                state = self.states.get(name, "fresh")
                tokens = {"input_tokens": 300.0, "output_tokens": 100.0}
                servers[name] = Observation(
                    state,
                    "" if state == "fresh" else "told so",
                    now_s,
                    math.nan if state == "frozen" else rate,
                    **tokens,
                )
        return Observed(servers, {}, self.errors)

    def history(self, fleet, server, now_s, length_s, step_s):
        return self.past.get(server, [])


REPLICAS = {("gold", "A100"): (1, 32), ("gold", "H100"): (0, 64), ("tin", "A100"): (1, 32), ("tin", "H100"): (0, 64)}


def make(rates, *, replicas=REPLICAS, slow=False, found=None, lease=None, **changes):
    found = found or problem()
    clock = FakeClock()
    cluster = FakeCluster(found, replicas, clock, slow=slow)
    controller = Controller(config(**changes), FixedProblem(found), cluster, FakeSource(rates), clock, lease)
    return controller, cluster, clock
