"""A piece of work, and what came of it: what travels between the service and its workers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from inferno_milp.errors import Fault, path_text

JSON, SVG, CSV, YAML = "application/json", "image/svg+xml", "text/csv; charset=utf-8", "application/yaml"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work.

    Attributes
    ----------
    kind : one of `work.WORK`.
    body : what is asked.
    time_limit_s : of the solver, where `body` gives none.
    key : by which progress is told.
    extra : what the work needs besides.
    """

    kind: str
    body: Any
    time_limit_s: float
    key: str = ""
    extra: Any = None

    @property
    def longest_s(self) -> float:
        """How long all of it may take: of a single plan what is asked for, of what makes several plans all there is."""
        asked_s: float | None = getattr(self.body, "time_limit_s", None)
        return asked_s if asked_s is not None and self.kind == "optimize" else self.time_limit_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: as the HTTP response will have it, with a summary for lists of jobs."""

    status: int
    body: bytes
    media_type: str = JSON
    took_s: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)


class BrokenError(Exception):
    """Work that failed for a defect of this program; the text has the traceback."""


def refusal(message: str, errors: list[dict[str, Any]] | None = None, status: int = 422) -> Answer:
    """Return what is wrong with what was asked."""
    return Answer(status, dumped({"message": message, "errors": errors or []}), summary={"message": message})


def fault_dict(fault: Fault) -> dict[str, Any]:
    """Return a fault as JSON has it."""
    return {
        "problem": fault.problem,
        "remedy": fault.remedy,
        "path": path_text(fault.path),
        "file": fault.file,
        "line": fault.line,
        "text": str(fault),
    }


def dumped(document: Any) -> bytes:
    """Write JSON; what is no number is null."""
    return json.dumps(_finite(document), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
