"""The exceptions of the package, and the `Fault` that bad input is made of.

::

    InfernoError
    ├── InputError        bad input: every fault of it, together
    ├── OptionError       an option of a call or of the command line that cannot be
    └── PlanCheckError    a plan that its own check refuses: a defect of this program, never of the input
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PathPart = str | int


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the input.

    Attributes
    ----------
    problem : what is wrong, in words.
    remedy : what would be right; empty where `problem` says it all.
    path : place in the document, as keys and positions.
    file : file as the user named it; empty where the input is no file.
    line : line in that file, from 1; None where not known.
    """

    problem: str
    remedy: str = ""
    path: tuple[PathPart, ...] = ()
    file: str = ""
    line: int | None = None

    @property
    def place(self) -> str:
        """File, line and path, as far as they are known, with colons between them."""
        where = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(part for part in (where, path_text(self.path)) if part)

    def __str__(self) -> str:
        text = f"{self.place}: {self.problem}" if self.place else self.problem
        return _printable(f"{text}; {self.remedy}" if self.remedy else text)


def _printable(text: str) -> str:
    """Write what could break a line or a terminal as an escape: names of a faulty document may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def path_text(path: Iterable[PathPart]) -> str:
    """Write a path as a reader of YAML would: `servers[3].load.rate_per_min`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


class InfernoError(Exception):
    """Base of all errors of this package."""


class InputError(InfernoError):
    """Bad input, with all of its faults.

    Attributes
    ----------
    faults : every fault found, in document order.
    """

    def __init__(self, faults: Iterable[Fault]):
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class OptionError(InfernoError, ValueError):
    """An option of a call that cannot be."""


class PlanCheckError(InfernoError):
    """A plan that does not hold when recomputed from the problem.

    Attributes
    ----------
    violations : what does not agree, in words.
    """

    def __init__(self, violations: Iterable[str]):
        self.violations = tuple(violations)
        super().__init__("the plan does not stand up to its check: " + "; ".join(self.violations))
