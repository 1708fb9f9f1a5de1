"""How long there is yet."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(end: float) -> Callable[[], float]:
    """Return what tells the seconds that are left until a time of `time.perf_counter`; 0 after it."""
    return lambda: max(end - time.perf_counter(), 0.0)
