"""llm-inferno's own system data, read as it is: `{"system": …}` in one file, or a folder of its six files.

Keys are taken in any letter case, as its Go reader does. Rates are per minute, costs in cents per hour, times in ms.
Source of the layout: llm-inferno/optimizer v0.6.0 and the newer form with `perfParms`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from inferno_milp.errors import Fault, InputError, PathPart, path_text
from inferno_milp.problem import Problem, reference_faults
from inferno_milp.problem.reading.source import Source, load_source
from inferno_milp.problem.reading.system_convert import POLICIES, to_sections, warn_of
from inferno_milp.problem.reading.system_models import (
    SPELLING,
    SystemAcceleratorData,
    SystemCapacityData,
    SystemModel,
    SystemModelData,
    SystemOptimizer,
    SystemOptimizerData,
    SystemServerData,
    SystemServiceClassData,
)
from inferno_milp.problem.reading.validate import MOST_FAULTS, Validated, validate
from inferno_milp.problem.spelling import nearest
from inferno_milp.problem.synonyms import nearest_key

logger = logging.getLogger(__name__)

PARTS: dict[str, tuple[type[SystemModel], str, str, bool]] = {
    "acceleratorData": (SystemAcceleratorData, "accelerators", "accelerator-data.json", True),
    "modelData": (SystemModelData, "models", "model-data.json", True),
    "serviceClassData": (SystemServiceClassData, "serviceClasses", "serviceclass-data.json", True),
    "serverData": (SystemServerData, "servers", "server-data.json", True),
    "optimizerData": (SystemOptimizerData, "optimizer", "optimizer-data.json", False),
    "capacityData": (SystemCapacityData, "count", "capacity-data.json", False),
}
"""For each part of the system data: its model, its one key, its file in a folder, and whether it must be there."""


class _Part:
    """One part of the system data: where it stands, and what of it is valid."""

    def __init__(self, source: Source, prefix: tuple[PathPart, ...], data: Any, name: str):
        model, key, _, _ = PARTS[name]
        self.source, self.prefix, self.original = source, prefix, data
        respelled, self.faults = spelled(data)
        self.validated: Validated[Any] = validate(model, respelled if isinstance(respelled, dict) else {})
        if not isinstance(respelled, dict):
            self.faults.append(Fault("must be a mapping"))
        else:
            self.faults += [*self.validated.faults, *_misspelt(respelled, model, source.label)]
            if key not in respelled:
                self.faults.append(Fault(f"{key} is missing", "", (key,)))

    def placed(self, fault: Fault) -> Fault:
        """Return a fault of the respelled data in the words, place and line of the file."""
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
    """Return whether a document is llm-inferno's `{"system": …}`."""
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


def spelled(data: Any, path: tuple[PathPart, ...] = ()) -> tuple[Any, list[Fault]]:
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
            result[name], found = spelled(value, (*path, name))
            faults += found
        return result, faults
    if isinstance(data, list):
        items = [spelled(value, (*path, i)) for i, value in enumerate(data)]
        return [item for item, _ in items], [fault for _, found in items for fault in found]
    return data, faults


def _misspelt(data: dict[str, Any], model: type[BaseModel], label: str, path: tuple[PathPart, ...] = ()) -> list[Fault]:
    """Unknown keys that look like a known one are faults; the others are ignored, as the seed does, but said."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    faults: list[Fault] = []
    for key, value in data.items():
        if key not in fields:
            remedy = nearest_key(key, fields, model.__name__)
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
    optimizer = valid["optimizerData"].optimizer if "optimizerData" in parts else SystemOptimizer()
    if optimizer.saturationpolicy.casefold() not in POLICIES:
        fault = Fault(
            f"unknown saturation policy {optimizer.saturationpolicy!r}",
            "None, PriorityExhaustive, PriorityRoundRobin or RoundRobin",
            ("optimizer", "saturationPolicy"),
        )
        faults.append(parts["optimizerData"].placed(fault))
    warn_of(optimizer, label)
    known = "optimizerData" not in parts or not parts["optimizerData"].faults
    if known and not optimizer.unlimited and complete and "capacityData" not in parts:
        faults.append(Fault("capacityData is missing", "or set unlimited: true in optimizerData", file=label))
    capacity = None if optimizer.unlimited else _capacity(parts, faults)
    sections, measured = to_sections(valid, Path(label).stem or "system", label)
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
        """Return a fault of the problem in the place of the system data."""
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
