"""The loop: observe, plan, act; every round by itself, whatever became of the one before.

What a round needs is in the cluster and in Prometheus. What the loop remembers besides (what was right lately, the last
good values) makes it quicker, never bolder: without it nothing is taken from a server.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from inferno_milp.control.clock import Clock
from inferno_milp.control.collector import MetricSource, Observed
from inferno_milp.control.config import ControlConfig
from inferno_milp.control.decide import Decider, Decision, advise
from inferno_milp.control.decisions import Decisions
from inferno_milp.control.demand import Demand
from inferno_milp.control.fleet import (
    Cluster,
    ClusterError,
    Deployment,
    Fleet,
    devices_held,
    devices_wanted,
)
from inferno_milp.control.gate import Gate, Pace
from inferno_milp.control.learning import Learning
from inferno_milp.control.lease import Lease
from inferno_milp.control.problems import Problems, Setting
from inferno_milp.control.report import Applied, DeploymentReport, Report, Role
from inferno_milp.control.steps import Step, Steps, next_steps
from inferno_milp.control.view import (
    View,
    capacity,
    devices_available,
    running_cost,
    server_reports,
    undeployed_servers,
)
from inferno_milp.errors import InfernoError
from inferno_milp.plan import Plan
from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Server

logger = logging.getLogger(__name__)

JUMP_S = 5.0
"""Clocks that differ by more than this from one round to the next: one was set."""
SATURATION = "priority_exhaustive"
"""Who gets what is left when not all can be served, unless the problem says: no server is put out for want of all."""


@dataclass(slots=True)
class Controller:
    """One copy of the loop.

    Attributes
    ----------
    problems : where the problem is from; loads are observed.
    lease : who may act; None where there is one copy.
    """

    config: ControlConfig
    problems: Problems
    cluster: Cluster
    source: MetricSource
    clock: Clock
    lease: Lease | None = None
    learning: Learning = field(init=False)
    _demand: Demand = field(init=False)
    _decider: Decider = field(init=False)
    _pace: Pace = field(init=False)
    decisions: Decisions = field(init=False)
    _given: Problem | None = field(default=None, init=False)
    _round: int = field(default=0, init=False)
    _clocks: tuple[float, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.learning = Learning(self.config.tracking)
        self._demand = Demand(self.config)
        self._decider = Decider(self.config)
        self._pace = Pace(self.config.stability)
        self.decisions = Decisions(self.cluster)

    def run_round(self) -> Report:
        """Do one round; whatever fails is told in its report."""
        self._round += 1
        now, start = self.clock.now_s(), self.clock.elapsed_s()
        errors = list(self._jump(now, start))
        role = self._role(errors)
        setting, view = self._look(now, errors)
        if view is None:
            last = self.decisions.last(leads=role == "leader")
            return self._kept(
                Report(now, self._round, role, None, {}, errors=tuple(dict.fromkeys(errors)), deployments=last)
            )
        decision, steps = self._decide(view, now, errors)
        advice = self._advise(view, decision, errors)
        acts = setting.acts and self.config.actuation.mode == "scale"
        if steps.now and self.lease is not None and acts:
            role = self._role(errors)  # planning may have taken longer than the lease lasts
        applied = tuple(self._apply(steps, decision, acts=acts and role == "leader"))
        errors += [f"{one.deployment}: {one.reason}" for one in applied if one.outcome == "failed"]
        report = Report(
            at_s=now,
            round=self._round,
            role=role,
            plan=None if decision is None else decision.plan,
            servers=dict(server_reports(view, decision, steps, advice)),
            steps=applied,
            errors=tuple(dict.fromkeys(errors)),
            capacity=capacity(view),
            running_cost_per_hour=running_cost(view.problem, view.fleet),
            deployments=self._desired(view.fleet, decision, steps, leads=role == "leader", acts=setting.acts),
            seconds=self.clock.elapsed_s() - start,
            advice=advice,
        )
        return self._kept(report)

    def _look(self, now_s: float, errors: list[str]) -> tuple[Setting, View | None]:
        """Find what is to be done, what runs, and what it does; None if one of the first two cannot be had."""
        setting = Setting(None)
        try:
            setting = self.problems.latest()
            errors += setting.errors
            if setting.problem is None:
                return setting, None
            problem = self._settled(setting.problem)
            fleet = self.cluster.read(problem)
        except ClusterError as error:
            errors.append(f"cluster: {error}")
            return setting, None
        errors += fleet.problems
        observed = self.source.observe(problem, fleet, now_s)
        errors += observed.errors
        self.learning.observe(problem, fleet, observed)
        available = devices_available(problem, fleet)
        planned = self._to_plan(problem, fleet, observed, now_s, available)
        undeployed = tuple(undeployed_servers(problem, fleet, observed)) if setting.plans_undeployed else ()
        return setting, View(problem, fleet, observed, available, planned, undeployed)

    def _settled(self, problem: Problem) -> Problem:
        """Return the problem with what the loop takes for granted; what was known of another one is forgotten."""
        if problem != self._given:
            if self._given is not None:
                self._decider.forget(_changed(problem, self._given))
                self.learning.keep(problem, self._given)
            self._given = problem
        servers = tuple(
            s if "min_replicas" in s.model_fields_set else s.model_copy(update={"min_replicas": self._least(s)})
            for s in problem.servers
        )
        problem = problem.model_copy(update={"servers": servers})
        if "saturation_policy" in problem.options.model_fields_set:
            return problem
        return problem.with_options(saturation_policy=SATURATION)

    def _least(self, server: Server) -> int:
        most = server.max_replicas
        return self.config.min_replicas if most is None else min(self.config.min_replicas, most)

    def _decide(self, view: View, now_s: float, errors: list[str]) -> tuple[Decision | None, Steps]:
        """Plan, and find what of it can be done now."""
        decision = None
        if view.planned is not None:
            try:
                decision = self._decider.decide(view.planned, view.fleet, now_s)
                if decision is None:
                    errors.append(f"no plan within {self.config.time_limit_s:g} s: all stays as it is")
            except (InfernoError, ValueError, ArithmeticError) as error:
                errors.append(f"no plan: {error}")
        if decision is None:
            return None, Steps((), {})
        steps = next_steps(
            view.problem,
            view.fleet,
            view.available,
            decision.targets,
            max_step=self.config.stability.max_step,
            batch_sizes={s.name: max((a.batch_size for a in s.allocations), default=1) for s in decision.plan.servers},
            may_move=self.config.actuation.move,
        )
        return decision, Gate(view.problem, view.fleet, view.available, self._pace, self.clock.elapsed_s()).admit(steps)

    def _jump(self, now_s: float, elapsed_s: float) -> Iterator[str]:
        """Notice a clock that was set, and forget what it stamped later than now."""
        if self._clocks is not None:
            jump = (now_s - self._clocks[0]) - (elapsed_s - self._clocks[1])
            if abs(jump) > JUMP_S:
                yield f"the clock jumped by {jump:+.0f} s"
                self._demand.forget_after(now_s)
                self._decider.forget()
        self._clocks = (now_s, elapsed_s)

    def _role(self, errors: list[str]) -> Role:
        if self.lease is None:
            return "leader"
        try:
            return "leader" if self.lease.renew() else "follower"
        except ClusterError as error:
            errors.append(f"lease: {error}")
            return "leader" if self.lease.is_held else "unknown"

    def _advise(self, view: View, decision: Decision | None, errors: list[str]) -> Plan | None:
        """Plan for servers that are deployed nowhere yet, on what the others hold or are to hold leaves."""
        if not view.undeployed:
            return None
        left = None
        if view.available is not None:
            targets = {} if decision is None else decision.targets
            kept = devices_held(view.problem, view.fleet.holders)
            wanted = devices_wanted(view.problem, targets)
            left = {
                name: max(count - max(kept.get(name, 0), wanted.get(name, 0)), 0)
                for name, count in view.available.items()
            }
        try:
            return advise(view.problem, view.undeployed, left, self.config.time_limit_s)
        except (InfernoError, ValueError, ArithmeticError) as error:
            errors.append(f"no plan for servers without a deployment: {error}")
            return None

    def _to_plan(
        self,
        problem: Problem,
        fleet: Fleet,
        observed: Observed,
        now_s: float,
        available: Mapping[str, int] | None,
    ) -> Problem | None:
        """Return the problem of the servers whose load is known; None if there are none.

        What servers hold that are left alone is not there for the others.
        """
        problem = self.learning.applied(problem)
        servers: list[Server] = []
        left_alone: list[Deployment] = []
        for server in problem.servers:
            seen = observed.servers.get(server.name)
            if seen is None:
                continue
            if seen.state == "frozen" or any(d.server == server.name for d in fleet.set_aside):
                left_alone += fleet.of(server.name)
                continue
            settings = self.config.forecast
            if settings.method != "last" and not self._demand.knows(server.name):
                past = self.source.history(fleet, server.name, now_s, settings.history_s, self._demand.bin_s)
                self._demand.recall(server.name, past, now_s)
            load: Load | None = self._demand.load(server, seen, now_s)
            servers.append(server.model_copy(update={"load": load}))
        if not servers:
            return None
        rest = available
        if available is not None:
            held = devices_held(problem, [*left_alone, *fleet.set_aside])
            rest = {name: max(count - held.get(name, 0), 0) for name, count in available.items()}
        # A server on several accelerators is on its way already, and needs no other move to go on.
        moving = sum(len({d.accelerator for d in fleet.of(s.name) if d.replicas}) > 1 for s in servers)
        problem = problem.with_options(max_changes=self._pace.moves_left(self.clock.elapsed_s()) + moving)
        # Types that come in nodes are counted as devices: where a pod sits is the scheduler's to say.
        return problem.model_copy(update={"servers": tuple(servers), "capacity": rest, "nodes": ()})

    def _apply(self, steps: Steps, decision: Decision | None, *, acts: bool) -> Iterator[Applied]:
        """Make the changes, one after the other; one that fails stops only what is its own."""
        for step in steps.now:
            key = step.deployment.key
            if not acts:
                yield Applied(key, step.text, "told")
                continue
            if self.lease is not None and not self.lease.is_held:
                yield Applied(key, step.text, "failed", "the lease ran out meanwhile")
                continue
            try:
                self._make(step)
            except ClusterError as error:
                yield Applied(key, step.text, "failed", str(error))
                if step.replicas < step.deployment.replicas:
                    break  # the ups that follow counted on this down, or may have
                continue
            yield Applied(key, step.text, "done")
            reason = "" if decision is None else decision.reasons.get(step.deployment.server, "")
            self._tell(step, reason)

    def _make(self, step: Step) -> None:
        if step.accelerator is None:
            self.cluster.scale(step.deployment, step.replicas)
        else:
            self.cluster.move(step.deployment, step.accelerator, step.replicas, step.batch_size or 1)

    def _tell(self, step: Step, reason: str) -> None:
        what = "Moved" if step.accelerator else "ScaledUp" if step.replicas > step.deployment.replicas else "ScaledDown"
        try:
            self.cluster.tell(step.deployment, what, f"{step.text}. {reason}".strip())
        except ClusterError as error:
            logger.warning("no event: %s", error)

    def _desired(
        self, fleet: Fleet, decision: Decision | None, steps: Steps, *, leads: bool, acts: bool
    ) -> tuple[DeploymentReport, ...]:
        """Return what deployments are to have: by this round where this copy leads, else by the leader's last one.

        Where others scale by what is published, the last decision stands for a deployment of which nothing new is
        known: what it happens to have is no decision.
        """
        last = self.decisions.last(leads=leads)
        if not leads:
            return last
        mode = self.config.actuation.mode
        before = {(d.namespace, d.name): d.desired for d in last} if mode in ("publish", "manifests") and acts else {}
        known = set() if decision is None else set(decision.targets)
        # Replicas on another accelerator are none of this deployment.
        changed = {step.deployment.key: step.replicas for step in steps.now if step.accelerator is None} if acts else {}
        found = []
        for d in fleet.holders if mode == "publish" else fleet.deployments:
            stays = d.replicas if d.server in known else before.get((d.namespace, d.name), d.replicas)
            desired = changed.get(d.key, stays)
            found.append(DeploymentReport(d.namespace, d.name, d.accelerator, d.replicas, desired))
        self.decisions.keep(found)
        return tuple(found)

    def _kept(self, report: Report) -> Report:
        """Log the round, and keep it in the cluster."""
        for error in report.errors:
            logger.warning("%s", error)
        for step in report.steps:
            logger.info("%s: %s %s", step.outcome, step.step, step.reason)
        if report.role == "leader" and self.config.actuation.mode != "dry-run":
            try:
                text = json.dumps(report.to_dict(), allow_nan=False)
                self.cluster.write_status({"status.json": text, **self.decisions.documents()})
            except ClusterError as error:
                logger.warning("status: %s", error)
            for words in self.problems.tell(report):
                logger.warning("status: %s", words)
        return report


def _changed(problem: Problem, before: Problem) -> list[str]:
    """Return the servers of which another answer may be right now, whatever their load: they, or what they run on."""
    parts = ("accelerators", "options", "latencies_ms")
    if any(getattr(problem, part) != getattr(before, part) for part in parts):
        return [server.name for server in problem.servers]
    then = {server.name: _basis(before, server) for server in before.servers}
    return [server.name for server in problem.servers if then.get(server.name) != _basis(problem, server)]


def _basis(problem: Problem, server: Server) -> object:
    profiles = [profile for profile in problem.profiles if profile.model == server.model]
    return server.model_copy(update={"load": None, "current": ()}), problem.targets_of(server), profiles
