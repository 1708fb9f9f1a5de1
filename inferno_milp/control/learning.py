"""Profiles that follow what is observed: the stream of `fit --update`, one tracker for each model and accelerator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from inferno_milp.control.collector import Observed
from inferno_milp.control.config import TrackingSettings
from inferno_milp.control.fleet import Fleet
from inferno_milp.errors import OptionError
from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Load
from inferno_milp.profiles.fitting.tracking import Tracker
from inferno_milp.profiles.measurements.records import Measurement

STEADY = 0.25
"""A queue longer than this share of the running requests is no steady state: such observations teach nothing."""


@dataclass(slots=True)
class Learning:
    """Trackers of profiles, within their bounds."""

    settings: TrackingSettings
    trackers: dict[tuple[str, str], Tracker] = field(default_factory=dict)

    def observe(self, problem: Problem, fleet: Fleet, observed: Observed) -> None:
        """Take in what the deployments do."""
        if not self.settings.enabled:
            return
        servers = {s.name: s for s in problem.servers}
        profiles = {(p.model, p.accelerator): p for p in problem.profiles}
        for d in fleet.deployments:
            seen = observed.deployments.get(d.key)
            pair = (servers[d.server].model, d.accelerator)
            if seen is None or pair not in profiles or not d.ready:
                continue
            figures = (seen.ttft_ms, seen.itl_ms, seen.input_tokens, seen.output_tokens)
            places = (d.batch_size or profiles[pair].max_batch_size) * d.ready
            is_steady = seen.waiting <= STEADY * seen.running and seen.running >= self.settings.min_utilization * places
            if not is_steady or not all(math.isfinite(f) and f > 0 for f in figures) or seen.rate_per_s <= 0:
                continue
            load = servers[d.server].load or Load(rate_per_s=0.0, input_tokens=1.0, output_tokens=1.0)
            if pair not in self.trackers:
                try:
                    self.trackers[pair] = Tracker(profiles[pair], self.settings.forgetting)
                except OptionError:
                    continue
            self.trackers[pair].observe(
                Measurement(
                    place=f"{d.key} at {seen.at_s:.0f}",
                    tool="prometheus",
                    sent="rate",
                    rate_per_s=seen.rate_per_s / d.ready,
                    input_tokens=seen.input_tokens,
                    output_tokens=max(seen.output_tokens, 1.0),
                    cv2_input=load.cv2_input,
                    cv2_output=load.cv2_output,
                    ttft_ms={"mean": seen.ttft_ms},
                    itl_ms={"mean": seen.itl_ms},
                )
            )

    def keep(self, problem: Problem, before: Problem) -> None:
        """Forget what was learnt of profiles that are no longer as they were."""
        now = {(p.model, p.accelerator): p for p in problem.profiles}
        then = {(p.model, p.accelerator): p for p in before.profiles}
        self.trackers = {pair: found for pair, found in self.trackers.items() if now.get(pair) == then.get(pair)}

    def applied(self, problem: Problem) -> Problem:
        """Return the problem with profiles as they are now."""
        if not self.trackers:
            return problem
        profiles = tuple(
            self.trackers[pair].updated if (pair := (p.model, p.accelerator)) in self.trackers else p
            for p in problem.profiles
        )
        return problem.model_copy(update={"profiles": profiles})
