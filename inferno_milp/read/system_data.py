"""llm-inferno's own system data, read as it is: `{"system": …}` in one file, or a folder of its six files.

Keys are taken in any letter case, as its Go reader does. Rates are per minute, costs in cents per hour, times in ms.
Source of the layout: llm-inferno/optimizer v0.6.0 and the newer form with `perfParms`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inferno_milp.errors import Fault, InputError, PathPart, nearest, path_text
from inferno_milp.problem import (
    LARGEST_BATCH,
    Accelerator,
    BatchSize,
    Count,
    CurrentAllocation,
    Flag,
    Load,
    Name,
    NonNegative,
    Options,
    PositiveCount,
    Power,
    Problem,
    Profile,
    Sections,
    Server,
    ServiceClass,
    Targets,
    reference_faults,
)
from inferno_milp.read.source import Source, load_source
from inferno_milp.read.validate import MOST_FAULTS, Validated, validate

logger = logging.getLogger(__name__)

Whole = Annotated[int, Field(strict=True, ge=-(10**9), le=10**9)]
Text = Annotated[str, Field(max_length=200)]
Tokens = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]


_KEYS = """
system acceleratorData modelData serviceClassData serverData optimizerData capacityData
accelerators name type multiplicity memSize memBW power idle full midPower midUtil cost
models acc accCount maxBatchSize atTokens decodeParms prefillParms perfParms alpha beta gamma delta
serviceClasses priority modelTargets model slo-itl slo-ttft slo-tps
servers class keepAccelerator minNumReplicas maxQueueSize currentAlloc desiredAlloc
accelerator numReplicas maxBatch itlAverage ttftAverage load arrivalRate throughput avgInTokens avgOutTokens
optimizer unlimited heterogeneous milpSolver useCplex delayedBestEffort saturationPolicy count
"""
SPELLING = {name.casefold(): name for name in _KEYS.split()}
"""How each key is spelled in llm-inferno, by its folded form."""


class _Folded(BaseModel):
    """Fields are named as keys folded to lower case; their aliases are the keys as they are spelled."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=lambda name: SPELLING[name.replace("_", "-")]
    )


class _Power(_Folded):
    idle: NonNegative = 0.0
    full: NonNegative = 0.0
    midpower: NonNegative = 0.0
    midutil: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = 0.0


class _Accelerator(_Folded):
    name: Name
    type: Name
    multiplicity: PositiveCount = 1
    memsize: NonNegative = 0.0
    membw: NonNegative = 0.0
    power: _Power | None = None
    cost: NonNegative


class _Decode(_Folded):
    alpha: NonNegative
    beta: NonNegative


class _Prefill(_Folded):
    gamma: NonNegative
    delta: NonNegative


class _Perf(_Folded):
    alpha: NonNegative
    beta: NonNegative
    gamma: NonNegative = 0.0


class _ModelPerf(_Folded):
    name: Name
    acc: Name
    acccount: Whole = 1
    maxbatchsize: BatchSize
    attokens: Tokens = 0.0
    decodeparms: _Decode | None = None
    prefillparms: _Prefill | None = None
    perfparms: _Perf | None = None

    @model_validator(mode="after")
    def _one_form(self) -> _ModelPerf:
        older = (self.decodeparms, self.prefillparms)
        if (self.perfparms and any(older)) or any(older) != all(older):
            raise ValueError("give either perfParms, or both decodeParms and prefillParms")
        return self

    @property
    def is_measured(self) -> bool:
        """Whether there are speeds at all: llm-inferno's control loop may still have to find them."""
        return bool(self.perfparms or self.decodeparms)


class _ModelTarget(_Folded):
    model: Name
    slo_itl: NonNegative = 0.0
    slo_ttft: NonNegative = 0.0
    slo_tps: NonNegative = 0.0


class _ServiceClass(_Folded):
    name: Name
    priority: Whole = 100
    modeltargets: tuple[_ModelTarget, ...] = ()

    @model_validator(mode="after")
    def _one_target_per_model(self) -> _ServiceClass:
        twice = [name for name, count in Counter(t.model for t in self.modeltargets).items() if count > 1]
        if twice:
            raise ValueError(f"models with two targets: {', '.join(twice)}")
        return self


class _Load(_Folded):
    arrivalrate: NonNegative = 0.0
    throughput: float = 0.0
    avgintokens: Tokens = 0.0
    avgouttokens: Tokens = 0.0


class _Allocation(_Folded):
    accelerator: Text = ""
    numreplicas: Count = 0
    maxbatch: Annotated[int, Field(strict=True, ge=0)] = 0
    cost: float = 0.0
    itlaverage: float = 0.0
    ttftaverage: float = 0.0
    load: _Load = _Load()


class _Server(_Folded):
    name: Name
    service_class: Text = Field("", alias="class")
    model: Name
    keepaccelerator: Flag = False
    minnumreplicas: Count = 0
    maxbatchsize: Annotated[int, Field(strict=True, ge=0, le=LARGEST_BATCH)] = 0
    maxqueuesize: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 0
    currentalloc: _Allocation = _Allocation()
    desiredalloc: _Allocation | None = None


class _Optimizer(_Folded):
    unlimited: Flag = False
    heterogeneous: Flag = False
    milpsolver: Flag = False
    usecplex: Flag = False
    delayedbesteffort: Flag = False
    saturationpolicy: Text = ""


class _TypeCount(_Folded):
    type: Name
    count: Count


class _AcceleratorData(_Folded):
    accelerators: tuple[_Accelerator, ...] = ()


class _ModelData(_Folded):
    models: tuple[_ModelPerf, ...] = ()


class _ServiceClassData(_Folded):
    serviceclasses: tuple[_ServiceClass, ...] = ()


class _ServerData(_Folded):
    servers: tuple[_Server, ...] = ()


class _OptimizerData(_Folded):
    optimizer: _Optimizer = _Optimizer()


class _CapacityData(_Folded):
    count: tuple[_TypeCount, ...] = ()


PARTS: dict[str, tuple[type[_Folded], str, str, bool]] = {
    "acceleratorData": (_AcceleratorData, "accelerators", "accelerator-data.json", True),
    "modelData": (_ModelData, "models", "model-data.json", True),
    "serviceClassData": (_ServiceClassData, "serviceClasses", "serviceclass-data.json", True),
    "serverData": (_ServerData, "servers", "server-data.json", True),
    "optimizerData": (_OptimizerData, "optimizer", "optimizer-data.json", False),
    "capacityData": (_CapacityData, "count", "capacity-data.json", False),
}
"""For each part of the system data: its model, its one key, its file in a folder, and whether it must be there."""


class _Part:
    """One part of the system data: where it stands, and what of it is valid."""

    def __init__(self, source: Source, prefix: tuple[PathPart, ...], data: Any, name: str):
        model, key, _, _ = PARTS[name]
        self.source, self.prefix, self.original = source, prefix, data
        spelled, self.faults = _spelled(data)
        self.validated: Validated[Any] = validate(model, spelled if isinstance(spelled, dict) else {})
        if not isinstance(spelled, dict):
            self.faults.append(Fault("must be a mapping"))
        else:
            self.faults += [*self.validated.faults, *_misspelt(spelled, model, source.label)]
            if key not in spelled:
                self.faults.append(Fault(f"{key} is missing", "", (key,)))

    def placed(self, fault: Fault) -> Fault:
        """Say a fault of the respelled data in the words, place and line of the file."""
        path: list[PathPart] = []
        here = self.original
        for part in fault.path:
            key: PathPart = part
            if isinstance(here, dict):
                key = next((k for k in here if str(k).casefold() == str(part).casefold()), part)
                here = here.get(key)
            elif isinstance(here, list) and isinstance(part, int) and part < len(here):
                here = here[part]
            path.append(key)
        return self.source.placed(replace(fault, path=self.prefix + tuple(path)))


def is_system_data(data: Any) -> bool:
    """Tell whether a document is llm-inferno's `{"system": …}`."""
    return isinstance(data, dict) and any(str(key).casefold() == "system" for key in data)


def read_system_file(source: Source) -> Problem:
    """Read `{"system": {acceleratorData: …, …}}`."""
    key = next(key for key in source.data if str(key).casefold() == "system")
    system = source.data[key]
    if not isinstance(system, dict):
        raise InputError([source.fault("must be a mapping", "", (key,))])
    by_part: dict[str, list[str]] = {}
    for name in system:
        by_part.setdefault(str(name).casefold(), []).append(name)
    known = {part.casefold(): part for part in PARTS}
    faults = [
        source.fault("unknown key", nearest(names[0], PARTS), (key, names[0]))
        for part, names in by_part.items()
        if part not in known
    ]
    faults += [
        source.fault("is not read beside `system`", "take it out", (other,)) for other in source.data if other != key
    ]
    parts: dict[str, _Part] = {}
    for folded, part in known.items():
        names = by_part.get(folded, [])
        if len(names) > 1:
            faults.append(source.fault("is given twice", "keep one", (key, names[1])))
        if names:
            parts[part] = _Part(source, (key, names[0]), system[names[0]], part)
        elif PARTS[part][3]:
            faults.append(source.fault(f"{part} is missing", "", (key,)))
    return _assemble(parts, source.faults + faults, source.label)


def read_system_folder(folder: Path, label: str) -> Problem:
    """Read a folder of llm-inferno's six files; other files in it are left alone."""
    present = {entry.name.casefold(): entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    faults: list[Fault] = []
    parts: dict[str, _Part] = {}
    for part, (_, _, filename, needed) in PARTS.items():
        if filename not in present:
            if needed:
                remedy = "a folder is read as llm-inferno's six files"
                faults.append(Fault(f"{filename} is missing", remedy, file=label))
            continue
        entry = present[filename]
        try:
            source = load_source(entry, str(Path(label) / entry.name))
        except InputError as error:
            faults += error.faults
            continue
        faults += source.faults
        parts[part] = _Part(source, (), source.data, part)
    return _assemble(parts, faults, label)


def _spelled(data: Any, path: tuple[PathPart, ...] = ()) -> tuple[Any, list[Fault]]:
    """Spell all keys as llm-inferno does, whatever their letter case; a key that then stands twice is a fault.

    One that begins with _ is a comment, and null is as good as nothing, as for the seed's own reader.
    """
    faults: list[Fault] = []
    if isinstance(data, dict):
        result: dict[str, Any] = {}
        for key, value in data.items():
            name = SPELLING.get(str(key).casefold(), str(key))
            if name.startswith("_") or value is None:
                continue
            if name in result:
                faults.append(Fault(f"key {key!r} is given twice, in different letter case", "keep one", (*path, key)))
            result[name], found = _spelled(value, (*path, name))
            faults += found
        return result, faults
    if isinstance(data, list):
        items = [_spelled(value, (*path, i)) for i, value in enumerate(data)]
        return [item for item, _ in items], [fault for _, found in items for fault in found]
    return data, faults


def _misspelt(data: dict[str, Any], model: type[BaseModel], label: str, path: tuple[PathPart, ...] = ()) -> list[Fault]:
    """Unknown keys that look like a known one are faults; the others are ignored, as the seed does, but said."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    faults: list[Fault] = []
    for key, value in data.items():
        if key not in fields:
            remedy = nearest(key, fields)
            if remedy.startswith("did you mean"):
                faults.append(Fault("unknown key", remedy, (*path, key)))
            else:
                logger.warning("%s: ignored: unknown key %s", label, path_text((*path, key)))
            continue
        inner = _inner_model(fields[key].annotation)
        if inner is None:
            continue
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for i, child in children:
            if isinstance(child, dict):
                faults += _misspelt(child, inner, label, (*path, key) if i is None else (*path, key, i))
    return faults


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _assemble(parts: dict[str, _Part], faults: list[Fault], label: str) -> Problem:
    """Turn the parts into a problem, and every fault of them into one error."""
    # What is missing may have defined anything, so then nothing is called unknown.
    complete = all(name in parts for name, (_, _, _, needed) in PARTS.items() if needed)
    for part in parts.values():
        faults += [part.placed(fault) for fault in part.faults]
    valid = {name: part.validated.model for name, part in parts.items()}
    optimizer = valid["optimizerData"].optimizer if "optimizerData" in parts else _Optimizer()
    if optimizer.heterogeneous:
        fault = Fault("mixed assignment is not available", "set it to false", ("optimizer", "heterogeneous"))
        faults.append(parts["optimizerData"].placed(fault))
    _warn(optimizer, label)
    known = "optimizerData" not in parts or not parts["optimizerData"].faults
    if known and not optimizer.unlimited and complete and "capacityData" not in parts:
        faults.append(Fault("capacityData is missing", "or set unlimited: true in optimizerData", file=label))
    capacity = None if optimizer.unlimited else _capacity(parts, faults)
    sections, measured = _sections(valid, Path(label).stem or "system", label)
    if complete:
        excused = frozenset(name for part in parts.values() for name in part.validated.defined)
        places = _Places(parts, measured)
        has_servers = "serverData" in parts and bool(parts["serverData"].original)
        found = reference_faults(sections, capacity, excused, has_servers=has_servers)
        faults += [places.placed(fault) for fault in islice(found, MOST_FAULTS)]
    if faults:
        raise InputError(faults)
    return Problem(**dict(sections), capacity="unlimited" if capacity is None else capacity)


def _capacity(parts: dict[str, _Part], faults: list[Fault]) -> dict[str, int]:
    if "capacityData" not in parts:
        return {}
    part = parts["capacityData"]
    counts = part.validated.model.count
    seen: dict[str, int] = {}
    for position, entry in zip(part.validated.kept.get("count", ()), counts, strict=True):
        if entry.type in seen:
            faults.append(part.placed(Fault(f"{entry.type!r} is given twice", "keep one", ("count", position, "type"))))
        seen[entry.type] = entry.count
    return seen


def _warn(optimizer: _Optimizer, label: str) -> None:
    if optimizer.saturationpolicy.casefold() not in ("", "none"):
        policy = optimizer.saturationpolicy
        logger.warning("%s: saturationPolicy %s is not applied: what does not fit is left unserved", label, policy)
    if optimizer.delayedbesteffort:
        logger.warning("%s: delayedBestEffort is not applied", label)


def _sections(valid: dict[str, Any], name: str, label: str) -> tuple[Sections, list[int]]:
    """Convert the valid parts; also say which entry each profile comes from, since some may be left out."""

    def items(part: str, field: str) -> tuple[Any, ...]:
        return getattr(valid[part], field) if part in valid else ()

    models = items("modelData", "models")
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
        servers=tuple(_server(s) for s in items("serverData", "servers")),
        options=Options(law="inferno", assignment="single", batch_sizes="largest"),
    )
    return sections, measured


def _accelerator(data: _Accelerator) -> Accelerator:
    power = None
    if data.power and 0 < data.power.midutil < 1:
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


def _profile(data: _ModelPerf) -> Profile:
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


def _service_class(data: _ServiceClass) -> ServiceClass:
    targets = {
        t.model: Targets(ttft_ms=t.slo_ttft or None, itl_ms=t.slo_itl or None, tps=t.slo_tps or None)
        for t in data.modeltargets
    }
    priority = data.priority if 1 <= data.priority <= 100 else 100
    return ServiceClass(name=data.name, priority=priority, targets=targets)


def _server(data: _Server) -> Server:
    now = data.currentalloc
    load = None
    if now.load.arrivalrate > 0 or now.load.avgouttokens >= 1:
        load = Load(
            rate_per_min=now.load.arrivalrate,
            input_tokens=now.load.avgintokens,
            output_tokens=max(now.load.avgouttokens, 1.0),
        )
    current = None
    if now.accelerator:
        current = CurrentAllocation(
            accelerator=now.accelerator, replicas=now.numreplicas, batch_size=min(now.maxbatch, LARGEST_BATCH) or None
        )
    return Server(
        name=data.name,
        service_class=data.service_class or "Free",
        model=data.model,
        load=load,
        min_replicas=data.minnumreplicas,
        max_batch_size=data.maxbatchsize or None,
        max_queue_size=data.maxqueuesize or None,
        keep_accelerator=data.keepaccelerator and current is not None,
        current=current,
    )


class _Places:
    """Where the items of the problem stand in the system data."""

    PART: ClassVar = {
        "accelerators": ("acceleratorData", "accelerators"),
        "profiles": ("modelData", "models"),
        "service_classes": ("serviceClassData", "serviceClasses"),
        "servers": ("serverData", "servers"),
        "capacity": ("capacityData", "count"),
    }
    KEY: ClassVar = {"accelerator": "acc", "service_class": "class", "keep_accelerator": "keepAccelerator"}

    def __init__(self, parts: dict[str, _Part], measured: list[int]):
        self.parts, self.measured = parts, measured

    def placed(self, fault: Fault) -> Fault:
        """Say a fault of the problem in the place of the system data."""
        section, *rest = fault.path
        part_name, key = self.PART[str(section)]
        part = self.parts.get(part_name)
        if part is None:
            return fault
        return part.placed(replace(fault, path=(key, *self._inner(part, str(section), key, rest))))

    def _inner(self, part: _Part, section: str, key: str, rest: list[PathPart]) -> Iterator[PathPart]:
        if not rest:
            return
        first, *more = rest
        if section == "capacity":
            first = next(i for i, entry in enumerate(part.validated.model.count) if entry.type == first)
            more = ["type"]
        assert isinstance(first, int)
        position = self.measured[first] if section == "profiles" else first
        yield part.validated.kept[key][position]
        if more[:1] == ["current"]:
            yield from ("currentAlloc", "accelerator")
        elif more:
            yield self.KEY.get(str(more[0]), more[0])
