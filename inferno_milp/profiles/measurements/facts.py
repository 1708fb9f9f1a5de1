"""Figures taken out of a document, with a fault for each that is missing or is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inferno_milp.errors import Fault, PathPart, path_text

UNITS_MS = {
    "ms": 1.0, "millisecond": 1.0, "milliseconds": 1.0, "s": 1e3, "sec": 1e3, "second": 1e3, "seconds": 1e3, "us": 1e-3,
    "microseconds": 1e-3, "ns": 1e-6, "nanoseconds": 1e-6,
}  # fmt: skip
"""How many milliseconds a unit of time is."""
LARGEST = 1e15
"""No figure of a benchmark is larger."""


@dataclass(slots=True)
class Facts:
    """A part of a document, with where it is; faults are gathered for the whole document.

    Attributes
    ----------
    data : the part.
    file : file as the user named it.
    path : place in it.
    faults : of the document.
    notes : what a reader should know about this part.
    left_out : runs of the document that are in order and of no use, with the reason.
    """

    data: Any
    file: str
    path: tuple[PathPart, ...] = ()
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[Fault] = field(default_factory=list)

    @property
    def place(self) -> str:
        """File, and place in it."""
        return f"{self.file}: {path_text(self.path)}" if self.path else self.file

    def at(self, *path: PathPart) -> Facts:
        """Return a part of this part; what is not there is empty."""
        data: Any = self.data
        for part in path:
            if isinstance(data, Mapping):
                data = data.get(part)
            elif isinstance(data, Sequence) and isinstance(part, int) and -len(data) <= part < len(data):
                data = data[part]
            else:
                data = None
        return Facts(data, self.file, (*self.path, *path), self.faults, self.notes, self.left_out)

    def part(self, data: Any, *path: PathPart) -> Facts:
        """Return a part made of this part's data, with notes of its own."""
        return Facts(data, self.file, (*self.path, *path), self.faults, left_out=self.left_out)

    def fault(self, problem: str, remedy: str = "", *path: PathPart) -> None:
        """Note that something is wrong with the part."""
        self.faults.append(Fault(problem, remedy, (*self.path, *path), self.file))

    def leave_out(self, problem: str, remedy: str = "") -> None:
        """Note that the part is in order, and why it is not used."""
        self.left_out.append(Fault(problem, remedy, self.path, self.file))

    def text(self, *path: PathPart) -> str | None:
        """Return a word, or None."""
        value = self.at(*path).data
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)[:20]
        return value if isinstance(value, str) and value.strip() else None

    def number(self, *path: PathPart, needed: bool = True, least: float = 0.0) -> float | None:
        """Return a finite number, at least `least`; None, and a fault, if it is none (or needed and missing)."""
        value = self.at(*path).data
        if value is None or value == "":
            if needed:
                self.fault("is missing", "", *path)
            return None
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self.fault(f"{value[:40]!r} is no number", "", *path)
                return None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
            value = math.inf
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fault(f"a {type(value).__name__} is no number", "", *path)
            return None
        if not math.isfinite(value) or value < least or value > LARGEST:
            self.fault(f"{value} cannot be", f"a finite number, at least {least:g}", *path)
            return None
        return float(value)

    def count(self, *path: PathPart, needed: bool = True) -> int | None:
        """Return a whole number, as `number` does."""
        value = self.number(*path, needed=needed)
        if value is not None and value != int(value):
            self.fault(f"{value:g} is no whole number", "", *path)
            return None
        return None if value is None else int(value)


def cv2_of(mean: float | None, deviation: float | None) -> float | None:
    """Return the squared coefficient of variation; None where the two do not tell it."""
    return (deviation / mean) ** 2 if mean and deviation is not None else None
