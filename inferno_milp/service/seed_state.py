"""The system that llm-inferno's paths set up piece by piece, and its plan in their words.

As in the seed, what does not fit together is no error here: a server whose class, model or profile is missing gets no
allocation, and devices of a type that no accelerator has are not counted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, BeforeValidator

from inferno_milp.plan import Plan, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.source import Source
from inferno_milp.problem.reading.system_convert import DEFAULT_CLASS, read_priority
from inferno_milp.problem.reading.system_data import read_system_file
from inferno_milp.problem.reading.system_data import spelled as respelled
from inferno_milp.problem.reading.system_models import (
    SystemAccelerator,
    SystemAcceleratorData,
    SystemAllocation,
    SystemCapacityData,
    SystemModelData,
    SystemModelTarget,
    SystemOptimizer,
    SystemOptimizerData,
    SystemProfile,
    SystemServer,
    SystemServerData,
    SystemServiceClass,
    SystemServiceClassData,
    SystemTypeCount,
)
from inferno_milp.service.bodies import not_too_much

logger = logging.getLogger(__name__)

MOST_TOLD = 20
"""Faults told in one message."""


def _spelled(value: Any) -> Any:
    data, faults = respelled(not_too_much(value))
    if faults:
        more = f"; and {len(faults) - MOST_TOLD} more" if len(faults) > MOST_TOLD else ""
        raise ValueError("; ".join(str(fault) for fault in faults[:MOST_TOLD]) + more)
    return data


AnyCase = BeforeValidator(_spelled)
"""Keys in any letter case, as the seed's own reader takes them; what is null is left out."""


class SystemSpec(BaseModel):
    """All of a system."""

    acceleratorData: SystemAcceleratorData = SystemAcceleratorData()  # noqa: N815 - the seed's own spelling
    modelData: SystemModelData = SystemModelData()  # noqa: N815
    serviceClassData: SystemServiceClassData = SystemServiceClassData()  # noqa: N815
    serverData: SystemServerData = SystemServerData()  # noqa: N815
    optimizerData: SystemOptimizerData = SystemOptimizerData()  # noqa: N815
    capacityData: SystemCapacityData = SystemCapacityData()  # noqa: N815


class SystemData(BaseModel):
    """`{"system": …}`."""

    system: SystemSpec


class AllocationSolution(BaseModel):
    """`{"allocations": {server: …}}`."""

    allocations: dict[str, SystemAllocation]


class SystemState:
    """A system in the making; names are unique, and what comes later replaces what was there."""

    def __init__(self) -> None:
        self.accelerators: dict[str, SystemAccelerator] = {}
        self.capacities: dict[str, int] = {}
        self.models: dict[str, dict[str, SystemProfile]] = {}
        self.classes: dict[str, SystemServiceClass] = {}
        self.servers: dict[str, SystemServer] = {}

    @classmethod
    def of(cls, spec: SystemSpec) -> SystemState:
        """Return the state that a whole system has."""
        state = cls()
        state.add_accelerators(spec.acceleratorData.accelerators)
        state.add_profiles(spec.modelData.models)
        state.add_classes(spec.serviceClassData.serviceclasses)
        state.add_servers(spec.serverData.servers)
        state.add_capacities(spec.capacityData.count)
        return state

    def copy(self) -> SystemState:
        """Return a state that does not change with this one."""
        copied = SystemState()
        copied.accelerators, copied.capacities = dict(self.accelerators), dict(self.capacities)
        copied.models = {name: dict(profiles) for name, profiles in self.models.items()}
        copied.classes, copied.servers = dict(self.classes), dict(self.servers)
        return copied

    def add_accelerators(self, accelerators: Iterable[SystemAccelerator]) -> None:
        """Add accelerators."""
        self.accelerators |= {accelerator.name: accelerator for accelerator in accelerators}

    def add_capacities(self, counts: Iterable[SystemTypeCount]) -> None:
        """Set how many devices there are of some types."""
        self.capacities |= {count.type: count.count for count in counts}

    def add_profiles(self, profiles: Iterable[SystemProfile]) -> None:
        """Add profiles, and the models that they are of."""
        for profile in profiles:
            self.models.setdefault(profile.name, {})[profile.acc] = profile

    def add_classes(self, classes: Iterable[SystemServiceClass]) -> None:
        """Add service classes; one that is there is replaced, its priority and all of its targets."""
        for service_class in classes:
            priority = read_priority(service_class.priority)
            self.classes[service_class.name] = service_class.model_copy(update={"priority": priority})

    def add_servers(self, servers: Iterable[SystemServer]) -> None:
        """Add servers."""
        self.servers |= {server.name: server for server in servers}

    def problem(self, optimizer: SystemOptimizer) -> Problem | None:
        """Return what is to be planned, less all that refers to what is not there; None if nothing is left.

        Raises
        ------
        InputError
            If what is left is no problem.
        """
        profiles = [
            profile
            for by_accelerator in self.models.values()
            for profile in by_accelerator.values()
            if profile.acc in self.accelerators and _has_speeds(profile)
        ]
        able = {profile.name for profile in profiles}
        servers = [self._server(server) for server in self.servers.values() if self._can_be_planned(server, able)]
        if not servers:
            return None
        types = {accelerator.type for accelerator in self.accelerators.values()}
        counts = [{"type": name, "count": count} for name, count in self.capacities.items() if name in types]
        if ignored := sorted(self.capacities.keys() - types):
            logger.info("no accelerator is of type %s: left out", ", ".join(ignored))
        system = {
            "acceleratorData": {"accelerators": _dumped(self.accelerators.values())},
            "modelData": {"models": _dumped(profiles)},
            "serviceClassData": {"serviceClasses": _dumped(self.classes.values())},
            "serverData": {"servers": _dumped(servers)},
            "optimizerData": {"optimizer": optimizer.model_dump(by_alias=True)},
            "capacityData": {"count": counts},
        }
        return read_system_file(Source("", Path("system.json"), {"system": system}, ""))

    def _can_be_planned(self, server: SystemServer, able: set[str]) -> bool:
        service_class = self.classes.get(server.service_class or DEFAULT_CLASS)
        targets = {target.model for target in service_class.modeltargets} if service_class else set()
        now = server.currentalloc.accelerator
        kept = not (server.keepaccelerator and now) or now in self.models.get(server.model, {})
        if server.model in able and server.model in targets and kept:
            return True
        logger.info("server %s gets no allocation: its class, model or profile is missing", server.name)
        return False

    def _server(self, server: SystemServer) -> SystemServer:
        """Return a server without a present accelerator that there is not."""
        if server.currentalloc.accelerator in ("", *self.accelerators):
            return server
        now = server.currentalloc.model_copy(update={"accelerator": "", "numreplicas": 0})
        return server.model_copy(update={"currentalloc": now})

    def solution(self, plan: Plan) -> AllocationSolution:
        """Return the plan's allocations by server; they become the desired ones. Servers without any are left out."""
        found: dict[str, SystemAllocation] = {}
        for planned in plan.servers:
            server = self.servers.get(planned.name)  # None: removed while it was planned for
            allocation = None if server is None else _allocation(planned, server)
            if allocation is not None:
                found[planned.name] = allocation
        return AllocationSolution(allocations=found)

    def desire(self, solution: AllocationSolution) -> None:
        """Note what each server is to run."""
        for name, server in self.servers.items():
            wanted = solution.allocations.get(name, SystemAllocation())
            self.servers[name] = server.model_copy(update={"desiredalloc": wanted})

    def apply(self) -> None:
        """Let what is desired be what runs; the load stays as it is."""
        for name, server in self.servers.items():
            wanted = server.desiredalloc or SystemAllocation()
            now = wanted.model_copy(update={"load": server.currentalloc.load})
            self.servers[name] = server.model_copy(update={"currentalloc": now})


def with_targets(service_class: SystemServiceClass, targets: Iterable[SystemModelTarget]) -> SystemServiceClass:
    """Return a class with more targets, which replace those of the same models."""
    by_model = {target.model: target for target in (*service_class.modeltargets, *targets)}
    return service_class.model_copy(update={"modeltargets": tuple(by_model.values())})


def _has_speeds(profile: SystemProfile) -> bool:
    """Whether a profile has speeds: the seed's own clients write 0 for those that are not known yet."""
    speeds = (profile.decodeparms, profile.prefillparms, profile.perfparms)
    return any(value > 0 for part in speeds if part is not None for value in dict(part).values())


def _dumped(models: Iterable[BaseModel]) -> list[dict[str, Any]]:
    return [model.model_dump(by_alias=True, exclude_none=True) for model in models]


def _allocation(planned: ServerPlan, server: SystemServer) -> SystemAllocation | None:
    load = server.currentalloc.load
    if not planned.allocations:
        return SystemAllocation(load=load) if planned.meets_targets else None
    (a,) = planned.allocations
    return SystemAllocation(
        accelerator=a.accelerator,
        numreplicas=a.replicas,
        maxbatch=a.batch_size,
        cost=a.cost_per_hour,
        itlaverage=a.itl_ms or 0.0,
        ttftaverage=a.ttft_ms or 0.0,
        load=load,
    )
