"""llm-inferno's own system data, read as it is: `{"system": …}` in one file, or a folder of its six files.

Keys are taken in any letter case, as its Go reader does. Rates are per minute, costs in cents per hour, times in ms.
Source of the layout: llm-inferno/optimizer v0.6.0 and the newer form with `perfParms`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from inferno_milp.errors import Fault, InputError, PathPart, nearest
from inferno_milp.problem import (
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
from inferno_milp.read.validate import Validated, validate

logger = logging.getLogger(__name__)

Whole = Annotated[int, Field(strict=True, ge=-(10**9), le=10**9)]
Text = Annotated[str, Field(max_length=200)]
Tokens = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]


class _Folded(BaseModel):
    """Keys are lower case here; the reader folds the document's."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


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
    cost: NonNegative = 0.0


class _Decode(_Folded):
    alpha: NonNegative = 0.0
    beta: NonNegative = 0.0


class _Prefill(_Folded):
    gamma: NonNegative = 0.0
    delta: NonNegative = 0.0


class _Perf(_Folded):
    alpha: NonNegative = 0.0
    beta: NonNegative = 0.0
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


class _ModelTarget(_Folded):
    model: Name
    slo_itl: NonNegative = Field(0.0, alias="slo-itl")
    slo_ttft: NonNegative = Field(0.0, alias="slo-ttft")
    slo_tps: NonNegative = Field(0.0, alias="slo-tps")


class _ServiceClass(_Folded):
    name: Name
    priority: Whole = 100
    modeltargets: tuple[_ModelTarget, ...] = ()


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
    maxbatchsize: Annotated[int, Field(strict=True, ge=0, le=65_536)] = 0
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
    accelerators: tuple[_Accelerator, ...]


class _ModelData(_Folded):
    models: tuple[_ModelPerf, ...]


class _ServiceClassData(_Folded):
    serviceclasses: tuple[_ServiceClass, ...]


class _ServerData(_Folded):
    servers: tuple[_Server, ...]


class _OptimizerData(_Folded):
    optimizer: _Optimizer = _Optimizer()


class _CapacityData(_Folded):
    count: tuple[_TypeCount, ...] = ()


PARTS: dict[str, tuple[type[_Folded], str, bool]] = {
    "acceleratordata": (_AcceleratorData, "accelerator-data.json", True),
    "modeldata": (_ModelData, "model-data.json", True),
    "serviceclassdata": (_ServiceClassData, "serviceclass-data.json", True),
    "serverdata": (_ServerData, "server-data.json", True),
    "optimizerdata": (_OptimizerData, "optimizer-data.json", False),
    "capacitydata": (_CapacityData, "capacity-data.json", False),
}
"""For each part of the system data: its model, its file in a folder, and whether it must be there."""

SPELLING = ("acceleratorData", "modelData", "serviceClassData", "serverData", "optimizerData", "capacityData")


class _Part:
    """One part of the system data: where it stands, and what of it is valid."""

    def __init__(self, source: Source, prefix: tuple[PathPart, ...], data: Any, model: type[_Folded]):
        self.source, self.prefix, self.original = source, prefix, data
        folded, self.faults = _fold(data)
        if isinstance(folded, dict):
            self.validated: Validated[Any] | None = validate(model, folded)
            self.faults += list(self.validated.faults)
            self.faults += _misspelt(folded, model)
        else:
            self.validated = None
            self.faults.append(Fault("must be a mapping"))

    def placed(self, fault: Fault) -> Fault:
        """Say a fault of the folded data in the words, place and line of the file."""
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
    faults = [
        source.fault("unknown key", nearest(names[0], SPELLING), (key, names[0]))
        for part, names in by_part.items()
        if part not in PARTS
    ]
    parts: dict[str, _Part] = {}
    for part, (model, _, needed) in PARTS.items():
        names = by_part.get(part, [])
        if len(names) > 1:
            faults.append(source.fault("is given twice", "keep one", (key, names[1])))
        if names:
            parts[part] = _Part(source, (key, names[0]), system[names[0]], model)
        elif needed:
            faults.append(source.fault(f"{_spelling(part)} is missing", "", (key,)))
    return _assemble(parts, faults, source.label)


def read_system_folder(folder: Path, label: str) -> Problem:
    """Read a folder of llm-inferno's six files; other files in it are left alone."""
    present = {entry.name.casefold(): entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    faults: list[Fault] = []
    parts: dict[str, _Part] = {}
    for part, (model, filename, needed) in PARTS.items():
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
        parts[part] = _Part(source, (), source.data, model)
    return _assemble(parts, faults, label)


def _spelling(part: str) -> str:
    return next(name for name in SPELLING if name.casefold() == part)


def _fold(data: Any, path: tuple[PathPart, ...] = ()) -> tuple[Any, list[Fault]]:
    """Lower the case of all keys; a key that then stands twice is a fault, one that begins with _ is a comment."""
    faults: list[Fault] = []
    if isinstance(data, dict):
        result: dict[str, Any] = {}
        for key, value in data.items():
            name = str(key).casefold()
            if name.startswith("_"):
                continue
            if name in result:
                faults.append(Fault(f"key {key!r} is given twice, in different letter case", "keep one", (*path, key)))
            result[name], found = _fold(value, (*path, name))
            faults += found
        return result, faults
    if isinstance(data, list):
        items = [_fold(value, (*path, i)) for i, value in enumerate(data)]
        return [item for item, _ in items], [fault for _, found in items for fault in found]
    return data, faults


def _misspelt(data: dict[str, Any], model: type[BaseModel], path: tuple[PathPart, ...] = ()) -> list[Fault]:
    """Unknown keys that look like a known one are faults; the others are ignored, as the seed does, but said."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    faults: list[Fault] = []
    for key, value in data.items():
        if key not in fields:
            remedy = nearest(key, fields)
            if remedy.startswith("did you mean"):
                faults.append(Fault("unknown key", remedy, (*path, key)))
            else:
                logger.warning("ignored: unknown key %s", ".".join(str(part) for part in (*path, key)))
            continue
        inner = _inner_model(fields[key].annotation)
        if inner is None:
            continue
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for i, child in children:
            if isinstance(child, dict):
                faults += _misspelt(child, inner, (*path, key) if i is None else (*path, key, i))
    return faults


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _assemble(parts: dict[str, _Part], faults: list[Fault], label: str) -> Problem:
    """Turn the parts into a problem, and every fault of them into one error."""
    for part in parts.values():
        faults += [part.placed(fault) for fault in part.faults]
    valid = {name: part.validated.model for name, part in parts.items() if part.validated}
    optimizer = valid["optimizerdata"].optimizer if "optimizerdata" in valid else _Optimizer()
    if optimizer.heterogeneous:
        fault = Fault("mixed assignment is not available", "set it to false", ("optimizer", "heterogeneous"))
        faults.append(parts["optimizerdata"].placed(fault))
    _warn(optimizer)
    capacity: dict[str, int] | None = None
    if not optimizer.unlimited:
        if "capacitydata" not in parts and not any(f.file.endswith("capacity-data.json") for f in faults):
            faults.append(Fault("capacityData is missing", "or set unlimited: true in optimizerData", file=label))
        counts = valid["capacitydata"].count if "capacitydata" in valid else ()
        names = [entry.type for entry in counts]
        faults += [
            parts["capacitydata"].placed(Fault(f"{name!r} is given twice", "keep one", ("count", i, "type")))
            for i, name in enumerate(names)
            if name in names[:i]
        ]
        capacity = {entry.type: entry.count for entry in counts}
    name = Path(label).stem or "system"
    sections, sources = _sections(valid, name)
    excused = frozenset(n for part in parts.values() if part.validated for n in part.validated.dropped_names)
    if not faults or excused:
        places = _Places(parts, sources)
        faults += [places.placed(fault) for fault in reference_faults(sections, capacity, excused)]
    if faults:
        raise InputError(faults)
    return Problem(**dict(sections), capacity="unlimited" if capacity is None else capacity)


def _warn(optimizer: _Optimizer) -> None:
    if optimizer.saturationpolicy.casefold() not in ("", "none"):
        logger.warning("saturationPolicy %s is not applied: what does not fit is left unserved and named",
                       optimizer.saturationpolicy)  # fmt: skip
    if optimizer.delayedbesteffort:
        logger.warning("delayedBestEffort is not applied")


def _sections(valid: dict[str, Any], name: str) -> tuple[Sections, dict[str, list[int]]]:
    """Convert the valid parts; for profiles also say which entry each comes from, since some may be left out."""
    models = valid["modeldata"].models if "modeldata" in valid else ()
    measured = [i for i, perf in enumerate(models) if perf.perfparms or perf.decodeparms or perf.prefillparms]
    for i in sorted(set(range(len(models))) - set(measured)):
        logger.warning("ignored: model %s on %s has no speed parameters", models[i].name, models[i].acc)
    sections = Sections(
        name=name,
        currency="cents",
        accelerators=tuple(_accelerator(a) for a in valid["acceleratordata"].accelerators)
        if "acceleratordata" in valid
        else (),
        profiles=tuple(_profile(models[i]) for i in measured),
        service_classes=tuple(_service_class(c) for c in valid["serviceclassdata"].serviceclasses)
        if "serviceclassdata" in valid
        else (),
        servers=tuple(_server(s) for s in valid["serverdata"].servers) if "serverdata" in valid else (),
        options=Options(law="inferno", assignment="single", batch_sizes="largest"),
    )
    return sections, {"profiles": measured}


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
        decode, prefill = data.decodeparms or _Decode(), data.prefillparms or _Prefill()
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
            accelerator=now.accelerator, replicas=now.numreplicas, batch_size=min(now.maxbatch, 65_536) or None
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
        "accelerators": ("acceleratordata", "accelerators"),
        "profiles": ("modeldata", "models"),
        "service_classes": ("serviceclassdata", "serviceclasses"),
        "servers": ("serverdata", "servers"),
        "capacity": ("capacitydata", "count"),
    }
    KEY: ClassVar = {"accelerator": "acc", "service_class": "class", "keep_accelerator": "keepaccelerator"}

    def __init__(self, parts: dict[str, _Part], sources: dict[str, list[int]]):
        self.parts, self.sources = parts, sources

    def placed(self, fault: Fault) -> Fault:
        """Say a fault of the problem in the place of the system data."""
        section, *rest = fault.path
        part_name, key = self.PART[str(section)]
        part = self.parts.get(part_name)
        if part is None:
            return fault
        return part.placed(replace(fault, path=(key, *self._inner(part, str(section), rest))))

    def _inner(self, part: _Part, section: str, rest: list[PathPart]) -> Iterator[PathPart]:
        if not rest:
            return
        first, *more = rest
        if section == "capacity":
            counts = part.validated.model.count if part.validated else ()
            yield next((i for i, entry in enumerate(counts) if entry.type == first), 0)
            yield "type"
            return
        position = first if isinstance(first, int) else 0
        if section in self.sources:
            position = self.sources[section][position]
        kept = part.validated.kept.get(self.PART[section][1], ()) if part.validated else ()
        yield kept[position] if position < len(kept) else position
        if more[:1] == ["current"]:
            yield "currentalloc"
            yield "accelerator"
        elif more:
            yield self.KEY.get(str(more[0]), more[0])
