"""How long there is yet."""

from __future__ import annotations

import time
from collections.abc import Callable


class OutOfTimeError(Exception):
    """The time for a step is up; whoever set the time catches it."""


def until(end: float) -> Callable[[], float]:
    """Return what tells the seconds that are left until a time of `time.perf_counter`; 0 after it."""
    return lambda: max(end - time.perf_counter(), 0.0)


def stop_if_late(left_s: Callable[[], float]) -> None:
    """Raise an error when no seconds are left.

    Raises
    ------
    OutOfTimeError
        When there are none.
    """
    if left_s() <= 0:
        raise OutOfTimeError
