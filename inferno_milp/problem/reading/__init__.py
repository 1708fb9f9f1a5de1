"""Files → `Problem`: our YAML or JSON document, or llm-inferno's system data, with all faults told at once."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path, PurePosixPath
from typing import Any

from inferno_milp.errors import Fault, InputError
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.document import Loader, load_included, read_document, read_parts
from inferno_milp.problem.reading.regular import UnreadableError
from inferno_milp.problem.reading.source import (
    Source,
    load_source,
    not_unicode,
    opened_files,
    parse_source,
)
from inferno_milp.problem.reading.system_data import is_system_data, read_system_file, read_system_folder
from inferno_milp.problem.sections import Sections
from inferno_milp.problem.shipped import shipped_file

__all__ = ["opened_files", "read_problem", "read_problem_data", "read_problem_text", "read_sections"]


def read_problem(path: str | PathLike[str]) -> Problem:
    """Read a problem.

    Parameters
    ----------
    path : a YAML or JSON file in the layout of docs/problem.md, a file with llm-inferno's `{"system": …}`, or a folder
        of llm-inferno's six files. Where there is none, the file of that name that comes with the program:
        `instances/small.yaml`, `small.yaml`.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        With every fault of every file: file, line, path in the document, what is wrong, what would be right.

    Examples
    --------
    >>> import inferno_milp as im
    >>> im.read_problem("instances/limited.yaml")
    <Problem limited: 27 servers, 9 language models, 21 accelerators>
    """
    label, path = fspath(path), Path(path)
    try:
        if path.is_dir():
            return read_system_folder(path, label)
        return _read(load_included(path, label, label), load_included)
    except InputError as error:
        raise InputError(_in_order(error.faults)) from None
    except (OSError, ValueError) as error:
        raise InputError([Fault(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=label)]) from None


def read_problem_text(text: str, *, name: str = "problem.yaml", files: Mapping[str, str] | None = None) -> Problem:
    """Read a problem from a text, and nothing from the disk but what comes with this program.

    Parameters
    ----------
    text : YAML, or JSON where `name` ends with `.json`, as `read_problem` takes it from a file.
    name : of the text, for its faults.
    files : texts that it may include, by name. A name that is none of these may be one of the files that come with this
        program, its catalogue and its examples: `models/sample.yaml`, `sample.yaml`.

    Raises
    ------
    InputError
        With every fault of every text.
    """
    try:
        return _read(parse_source(text, Path(name), name), _from_texts(files or {}))
    except InputError as error:
        raise InputError(_in_order(error.faults)) from None


def read_problem_data(data: dict[str, Any], *, files: Mapping[str, str] | None = None) -> Problem:
    """Read a problem that is a document already: mappings, lists, texts and numbers; else as `read_problem_text`."""
    try:
        if wrong := not_unicode(data):
            raise InputError([wrong])
        return _read(Source("", Path(), data, ""), _from_texts(files or {}))
    except InputError as error:
        raise InputError(_in_order(error.faults)) from None


def read_sections(path: str | PathLike[str]) -> Sections:
    """Read accelerators, profiles and other sections that need not make a whole problem, as a catalogue's files are.

    Raises
    ------
    InputError
        With every fault of the file, and of those that it includes.
    """
    try:
        return read_parts(load_included(Path(path), fspath(path), fspath(path)))
    except InputError as error:
        raise InputError(_in_order(error.faults)) from None


def _read(source: Source, load: Loader) -> Problem:
    return read_system_file(source) if is_system_data(source.data) else read_document(source, load)


def _from_texts(files: Mapping[str, str]) -> Loader:
    by_last_part = {PurePosixPath(name).name: text for name, text in files.items()}

    def load(path: Path, label: str, name: str) -> Source:
        text = files.get(label, by_last_part.get(path.name))
        if text is not None:
            return parse_source(text, path, label)
        shipped = shipped_file(name)
        if shipped is not None:
            return load_source(shipped, label)
        raise UnreadableError([Fault("no such file was given, and none is in the catalogue", file=label)])

    return load


def _in_order(faults: tuple[Fault, ...]) -> list[Fault]:
    """Faults file by file, each file's by line."""
    files = list(dict.fromkeys(fault.file for fault in faults))
    return sorted(dict.fromkeys(faults), key=lambda fault: (files.index(fault.file), fault.line or 0))
