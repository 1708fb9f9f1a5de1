"""A plan back from the file that `--json` wrote."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path

from inferno_milp.errors import Fault, InputError
from inferno_milp.plan import Plan
from inferno_milp.problem.reading.source import load_source


def read_plan(path: str | PathLike[str]) -> Plan:
    """Read a plan.

    Parameters
    ----------
    path : a JSON file in the layout of docs/plan.md.

    Raises
    ------
    InputError
        With every fault of the file.
    """
    label = fspath(path)
    try:
        return Plan.from_dict(load_source(Path(path), label).data)
    except InputError as error:
        raise InputError([replace(fault, file=fault.file or label) for fault in error.faults]) from None
    except (OSError, ValueError) as error:
        raise InputError([Fault(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=label)]) from None
