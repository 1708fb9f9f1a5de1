"""Our own document: sections in one file or in several that include one another → one `Problem`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from inferno_milp.errors import Fault, InputError, PathPart
from inferno_milp.problem import Problem, reference_faults
from inferno_milp.problem.fields import Name
from inferno_milp.problem.pools import with_pools
from inferno_milp.problem.reading.model_names import resolve_models
from inferno_milp.problem.reading.regular import UnreadableError
from inferno_milp.problem.reading.source import Source, load_source
from inferno_milp.problem.reading.validate import MOST_FAULTS, Validated, validate
from inferno_milp.problem.sections import Profile, Sections, Server
from inferno_milp.problem.shipped import CATALOGUE, catalogue_files, shipped_file
from inferno_milp.problem.supply import Capacity

LISTS = (
    "accelerators",
    "profiles",
    "language_models",
    "service_classes",
    "servers",
    "nodes",
    "pools",
    "periods",
    "scenarios",
)
SINGLES = ("name", "currency", "capacity", "buyable", "latencies_ms", "planning", "options")

Origins = dict[tuple[PathPart, ...], tuple[Source, tuple[PathPart, ...]]]
"""For a path in the joined sections, the file it comes from and its path there."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Loader = Callable[[Path, str, str], Source]
"""Finds an included file, by its path, its label for the user, and its name in the document; raises InputError."""
Includes = Annotated[tuple[Name, ...], BeforeValidator(_as_list)]


class Document(Sections):
    """What one file may hold: the sections of a problem, what it includes, and words for the reader."""

    include: Includes = ()
    """Files whose sections are added to this one's; relative to this file, or of those that come with the program.
    `catalogue` is all of its accelerators, language models and profiles."""
    description: str = ""
    """What this file is, for the reader."""
    source: str = ""
    """Where its figures come from, for the reader."""
    capacity: Capacity = None
    """Devices of each accelerator type; in one of the files."""


@dataclass(slots=True)
class _Parts:
    """The files of one problem, included ones first, and what is wrong with them."""

    files: list[tuple[Source, Validated[Document]]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    seen: dict[Path, bool] = field(default_factory=dict)  # True while the file's own includes are being read
    catalogue: list[Source] = field(default_factory=list)  # files whose items yield to those of the others
    unreadable: bool = False  # whether a file could not be read, which may have defined anything


def load_included(path: Path, label: str, name: str) -> Source:
    """Load a file, or where there is none the one of that name that comes with the program; raises InputError."""
    shipped = shipped_file(name)
    return load_source(path if shipped is None or path.exists() else shipped, label)


def read_document(source: Source, load: Loader = load_included) -> Problem:
    """Read a document and all it includes.

    Parameters
    ----------
    load : finds what it includes.

    Raises
    ------
    InputError
        With every fault of every file.
    """
    parts = _Parts()
    _collect(source, parts, load)
    merged, origins = _merge(parts)
    parts.faults += [_placed(fault, origins, source) for fault in resolve_models(merged)]
    if "capacity" not in merged:
        if not any("capacity" in source.data for source, _ in parts.files) and not parts.unreadable:
            remedy = "give `capacity:` with a count for each accelerator type, or `capacity: unlimited`"
            parts.faults.append(Fault("capacity is missing", remedy, file=source.label))
        merged["capacity"] = "unlimited"
    if not parts.unreadable:
        merged["servers"] += _faulty_servers(parts, origins, len(merged["servers"]))
        sections = Document.model_construct(**{**_defaults(), **merged})
        capacity = merged["capacity"] if isinstance(merged["capacity"], dict) else None
        excused = frozenset(name for _, validated in parts.files for name in validated.defined)
        has_servers = any(source.data.get("servers") for source, _ in parts.files)
        listed = [source.data.get("scenarios") for source, _ in parts.files]
        whole = sum(len(some) for some in listed if isinstance(some, list)) == len(sections.scenarios)
        found = reference_faults(sections, capacity, excused, has_servers=has_servers, has_all_scenarios=whole)
        parts.faults += [_placed(fault, origins, source) for fault in islice(found, MOST_FAULTS)]
    if parts.faults:
        raise InputError(parts.faults)
    return with_pools(Problem(**merged))


def read_parts(source: Source) -> Sections:
    """Read the sections of a file and all it includes, which need not make a whole problem; InputError as above."""
    parts = _Parts()
    _collect(source, parts, load_included)
    merged, _ = _merge(parts)
    if parts.faults:
        raise InputError(parts.faults)
    return Sections(**{key: tuple(merged[key]) for key in LISTS})


def _defaults() -> dict[str, Any]:
    return {name: info.get_default(call_default_factory=True) for name, info in Document.model_fields.items()}


def _collect(source: Source, parts: _Parts, load: Loader) -> None:
    """Validate a file after all that it includes; each file once, cycles refused."""
    resolved = _resolved(source.path)
    parts.seen[resolved] = True
    parts.faults += source.faults
    validated = validate(Document, source.data)
    for name, path, label, place in _included(source, validated):
        reading = parts.seen.get(_resolved(path))
        if reading:
            parts.faults.append(source.fault(f"{name!r} includes this file in turn", "break the circle", place))
        if reading is not None:
            continue
        try:
            included = load_source(path, label) if name == CATALOGUE else load(path, label, name)
        except InputError as error:
            parts.seen[_resolved(path)] = False
            parts.unreadable = True
            if isinstance(error, UnreadableError):
                # Not a fault of that file, but of the line that includes it.
                problem = f"includes {name!r}: {error.faults[0].problem}"
                remedy = "paths are relative to this file; `catalogue` is all that comes with the program"
                parts.faults.append(source.fault(problem, remedy, place))
            else:
                parts.faults += error.faults
            continue
        if name == CATALOGUE:
            parts.catalogue.append(included)
        if _resolved(included.path) not in parts.seen:  # what comes with the program has several names
            _collect(included, parts, load)
    parts.seen[resolved] = False
    parts.files.append((source, validated))
    parts.faults += [source.placed(fault) for fault in validated.faults]


def _included(source: Source, validated: Validated[Document]) -> Iterator[tuple[str, Path, str, tuple[PathPart, ...]]]:
    """Yield what a file includes: its name there, its path, its label, and the place that names it."""
    for i, name in enumerate(validated.model.include):
        place: tuple[PathPart, ...] = ("include", validated.kept["include"][i] if "include" in validated.kept else i)
        if name == CATALOGUE:
            yield from ((name, file, f"{CATALOGUE}/{file.name}", place) for file in catalogue_files())
        else:
            yield name, source.path.parent / name, str(Path(source.label).parent / name), place


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, or no path at all: opening it will tell
        return path


def _merge(parts: _Parts) -> tuple[dict[str, Any], Origins]:
    """Join the sections of all files; for each joined item, say where it stands.

    An item of the catalogue yields to one of the same name that a document has itself.
    """
    merged: dict[str, Any] = {key: [] for key in LISTS}
    origins: Origins = {}
    root = parts.files[-1][0]
    own = {
        (key, _identity(item))
        for source, validated in parts.files
        if not _is_in(source, parts.catalogue)
        for key in KEYS
        for item in getattr(validated.model, key)
    }
    given: dict[str, Source] = {}
    for source, validated in parts.files:
        document, yields = validated.model, _is_in(source, parts.catalogue)
        for key in LISTS:
            for item, position in zip(getattr(document, key), validated.kept.get(key, ()), strict=True):
                if yields and (key, _identity(item)) in own:
                    continue
                origins[key, len(merged[key])] = (source, (key, position))
                merged[key].append(item)
        for key in SINGLES:
            if key not in document.model_fields_set or (yields and key in given):
                continue
            if key in given and source is not root and not _is_in(given[key], parts.catalogue):
                text = f"{key} is also given in {given[key].label}"
                parts.faults.append(source.fault(text, "say it in one of them, or in the including file", (key,)))
            given[key] = source
            origins[(key,)] = (source, (key,))
            value = getattr(document, key)
            merged[key] = "unlimited" if key == "capacity" and value is None else value
    return merged, origins


KEYS = ("accelerators", "profiles", "language_models")
"""Sections of the catalogue."""


def _identity(item: Any) -> tuple[str, ...]:
    return (item.model, item.accelerator) if isinstance(item, Profile) else (getattr(item, "name", ""),)


def _is_in(source: Source, sources: list[Source]) -> bool:
    return any(source is other for other in sources)


def _faulty_servers(parts: _Parts, origins: Origins, count: int) -> list[Server]:
    """Servers with a fault, less all but their names, so that what they refer to is checked all the same."""
    found: list[Server] = []
    for source, validated in parts.files:
        for position in validated.faulty.get("servers", ()):
            item = source.data["servers"][position]
            names = {key: item.get(key) for key in ("name", "service_class", "model")} if isinstance(item, dict) else {}
            try:
                server = Server.model_validate({key: name for key, name in names.items() if name is not None})
            except ValidationError:
                continue
            origins["servers", count + len(found)] = (source, ("servers", position))
            found.append(server)
    return found


def _placed(fault: Fault, origins: Origins, root: Source) -> Fault:
    """Return a fault of the joined sections in the place where its item stands."""
    path = fault.path
    for length in (2, 1):
        if path[:length] in origins:
            source, prefix = origins[path[:length]]
            return source.placed(replace(fault, path=prefix + path[length:]))
    return root.placed(fault)
