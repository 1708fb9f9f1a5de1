"""llm-inferno's system data → the sections of a problem."""

from __future__ import annotations

import logging
from typing import Any

from inferno_milp.problem.fields import LARGEST_BATCH, Targets
from inferno_milp.problem.loads import Load
from inferno_milp.problem.reading.system_models import (
    SystemAccelerator,
    SystemOptimizer,
    SystemProfile,
    SystemServer,
    SystemServiceClass,
)
from inferno_milp.problem.sections import (
    CurrentAllocation,
    Options,
    Profile,
    SaturationPolicy,
    Sections,
    Server,
    ServiceClass,
)
from inferno_milp.problem.supply import Accelerator, Power

POLICIES: dict[str, SaturationPolicy] = {
    "": "none",
    "none": "none",
    "priorityexhaustive": "priority_exhaustive",
    "priorityroundrobin": "priority_round_robin",
    "roundrobin": "round_robin",
}
"""The seed's saturation policies, in lower case."""

DEFAULT_CLASS, LOWEST_PRIORITY = "Free", 100
"""What the seed takes a server to be of that names no class, and a priority that is none."""

logger = logging.getLogger(__name__)


def read_priority(number: int) -> int:
    """Return a priority as the seed takes it: what is not from 1 to 100 is the lowest."""
    return number if 1 <= number <= LOWEST_PRIORITY else LOWEST_PRIORITY


def warn_of(optimizer: SystemOptimizer, label: str) -> None:
    """Report which of the seed's flags are not applied here."""
    if optimizer.delayedbesteffort:
        logger.warning("%s: delayedBestEffort is not applied: best effort always comes last", label)


def to_sections(valid: dict[str, Any], name: str, label: str) -> tuple[Sections, list[int]]:
    """Convert the valid parts; also say which entry each profile comes from, since some may be left out."""

    def items(part: str, field: str) -> tuple[Any, ...]:
        return getattr(valid[part], field) if part in valid else ()

    models = items("modelData", "models")
    newer = {perf.name for perf in models if perf.perfparms}
    measured = [i for i, perf in enumerate(models) if perf.is_measured]
    for perf in models:
        if not perf.is_measured:
            logger.warning("%s: ignored: model %s on %s has no speed parameters", label, perf.name, perf.acc)
    for server in items("serverData", "servers"):
        if server.keepaccelerator and not server.currentalloc.accelerator:
            logger.warning("%s: keepAccelerator of %s is not applied: it has no accelerator", label, server.name)
    sections = Sections(
        name=name,
        currency="cents",
        accelerators=tuple(_accelerator(a) for a in items("acceleratorData", "accelerators")),
        profiles=tuple(_profile(models[i]) for i in measured),
        service_classes=tuple(_service_class(c) for c in items("serviceClassData", "serviceclasses")),
        servers=tuple(_server(s, fixed_outputs=s.model in newer) for s in items("serverData", "servers")),
        options=_options(valid["optimizerData"].optimizer if "optimizerData" in valid else SystemOptimizer()),
    )
    return sections, measured


def _options(data: SystemOptimizer) -> Options:
    return Options(
        law="inferno",
        assignment="mixed" if data.heterogeneous else "single",
        batch_sizes="largest",
        saturation_policy=POLICIES.get(data.saturationpolicy.casefold(), "none"),
    )


def _accelerator(data: SystemAccelerator) -> Accelerator:
    power = None
    # llm-inferno takes any figures; a curve that is none is as good as none.
    if data.power and 0 < data.power.midutil < 1 and data.power.idle <= data.power.midpower <= data.power.full:
        power = Power(
            idle_w=data.power.idle,
            full_w=data.power.full,
            mid_w=data.power.midpower,
            mid_utilization=data.power.midutil,
        )
    return Accelerator(
        name=data.name,
        type=data.type,
        devices=data.multiplicity,
        cost_per_hour=data.cost,
        memory_gb=data.memsize or None,
        memory_bandwidth_gb_per_s=data.membw or None,
        power=power,
    )


def _profile(data: SystemProfile) -> Profile:
    if data.perfparms:
        speeds = data.perfparms
        # Newer form: iteration = α + β·(tokens computed) + γ'·(tokens read), for decoding and prompts alike.
        times = {
            "alpha_ms": speeds.alpha,
            "beta_ms": speeds.beta,
            "gamma_ms": speeds.alpha,
            "delta_ms": speeds.beta,
            "kappa_ms": speeds.gamma,
        }
    else:
        decode, prefill = data.decodeparms, data.prefillparms
        assert decode is not None
        assert prefill is not None
        times = {
            "alpha_ms": decode.alpha,
            "beta_ms": decode.beta,
            "gamma_ms": prefill.gamma,
            "delta_ms": prefill.delta,
        }
    return Profile(
        model=data.name,
        accelerator=data.acc,
        accelerators_per_replica=max(data.acccount, 1),
        max_batch_size=data.maxbatchsize,
        at_output_tokens=data.attokens or None,
        **times,
    )


def _service_class(data: SystemServiceClass) -> ServiceClass:
    targets = {
        t.model: Targets(ttft_ms=t.slo_ttft or None, itl_ms=t.slo_itl or None, tps=t.slo_tps or None)
        for t in data.modeltargets
    }
    return ServiceClass(name=data.name, priority=read_priority(data.priority), targets=targets)


def _server(data: SystemServer, *, fixed_outputs: bool) -> Server:
    """Convert a server.

    Parameters
    ----------
    fixed_outputs : whether all outputs are of the mean length. `perfParms` are made for that: a sequence has half of
        its output in its context on average, and not all of it, as where lengths are geometric.
    """
    now = data.currentalloc
    load = None
    if now.load.arrivalrate > 0 or now.load.avgouttokens >= 1:
        load = Load(
            rate_per_min=now.load.arrivalrate,
            input_tokens=now.load.avgintokens,
            output_tokens=max(now.load.avgouttokens, 1.0),
            **({"cv2_output": 0.0} if fixed_outputs else {}),
        )
    current: tuple[CurrentAllocation, ...] = ()
    if now.accelerator:
        batch_size = min(now.maxbatch, LARGEST_BATCH) or None
        current = (CurrentAllocation(accelerator=now.accelerator, replicas=now.numreplicas, batch_size=batch_size),)
    return Server(
        name=data.name,
        service_class=data.service_class or DEFAULT_CLASS,
        model=data.model,
        load=load,
        min_replicas=data.minnumreplicas,
        max_batch_size=data.maxbatchsize or None,
        max_queue_size=data.maxqueuesize or None,
        keep_accelerator=data.keepaccelerator and bool(current),
        current=current,
    )
