"""Files → `Problem`: our YAML or JSON document, or llm-inferno's system data, with all faults told at once."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from inferno_milp.errors import Fault, InputError
from inferno_milp.problem import Problem
from inferno_milp.read.document import read_document
from inferno_milp.read.source import load_source, opened_files
from inferno_milp.read.system_data import is_system_data, read_system_file, read_system_folder

__all__ = ["opened_files", "read_problem"]


def read_problem(path: str | PathLike[str]) -> Problem:
    """Read a problem.

    Parameters
    ----------
    path : a YAML or JSON file in the layout of docs/problem.md, a file with llm-inferno's `{"system": …}`, or a folder
        of llm-inferno's six files.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        With every fault of every file: file, line, path in the document, what is wrong, what would be right.
    """
    label, path = fspath(path), Path(path)
    try:
        if path.is_dir():
            return read_system_folder(path, label)
        source = load_source(path, label)
        return read_system_file(source) if is_system_data(source.data) else read_document(source)
    except InputError as error:
        raise InputError(_in_order(error.faults)) from None
    except (OSError, ValueError) as error:
        raise InputError([Fault(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=label)]) from None


def _in_order(faults: tuple[Fault, ...]) -> list[Fault]:
    """Faults file by file, each file's by line."""
    files = list(dict.fromkeys(fault.file for fault in faults))
    return sorted(dict.fromkeys(faults), key=lambda fault: (files.index(fault.file), fault.line or 0))
