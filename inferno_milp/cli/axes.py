"""What `sweep` varies: `PATH=0.5,1,2` or `PATH=FIRST:LAST:COUNT`, read into values by path."""

from __future__ import annotations

import re
from typing import Any

from inferno_milp.errors import Fault, InputError

MOST_VALUES = 100_000


def read_axes(texts: list[str]) -> dict[str, list[Any]]:
    """Read `PATH=0.5,1,2` or `PATH=FIRST:LAST:COUNT`.

    Raises
    ------
    InputError
        With every one that cannot be read.
    """
    from inferno_milp.problem.reading.settings import read_setting

    faults: list[Fault] = []
    axes: dict[str, list[Any]] = {}
    for text in texts:
        head, equals, listed = text.partition("=")
        values: list[Any] = []
        target = ""
        for part in filter(str.strip, _parts(listed) if equals else []):
            try:
                setting = read_setting(f"{head}={part}")
                values += _steps(part) or [setting.value]
            except InputError as error:
                faults += error.faults
            else:
                target = setting.target
        if not values and not any(map(str.strip, listed.split(","))):
            faults.append(Fault(f"{text!r} varies nothing", "write PATH=0.5,1,2 or PATH=FIRST:LAST:COUNT"))
        elif target in axes:
            faults.append(Fault(f"{target!r} is varied twice", "give all its values at once"))
        elif values:
            axes[target] = values
    if faults:
        raise InputError(faults)
    return axes


def _parts(listed: str) -> list[str]:
    """Part values at commas that are not within brackets."""
    parts, depth = [""], 0
    for c in listed:
        depth += (c in "[{") - (c in "]}")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def _steps(part: str) -> list[float]:
    """Values of FIRST:LAST:COUNT; empty if it is something else."""
    if re.fullmatch(r"[-+\d.eE]+:[-+\d.eE]+", part.strip()):
        raise InputError([Fault(f"{part!r} is no range", "write FIRST:LAST:COUNT")])
    pieces = part.split(":")
    if len(pieces) != 3:
        return []
    try:
        first, last, count = float(pieces[0]), float(pieces[1]), int(pieces[2])
    except ValueError:
        return []
    if not 2 <= count <= MOST_VALUES:
        raise InputError([Fault(f"{part!r}: the count must be from 2 to {MOST_VALUES:,}")])
    steps = (first + (last - first) * i / (count - 1) for i in range(count))
    return [int(step) if step.is_integer() else float(f"{step:.12g}") for step in steps]
