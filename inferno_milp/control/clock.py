"""Time, as a plug point: that of the machine, or that of an emulated day."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the loop knows of time."""

    def now_s(self) -> float:
        """Seconds since 1970, as Prometheus and Kubernetes have them; it may be set, and jump."""

    def elapsed_s(self) -> float:
        """Seconds since some moment; they never jump."""


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def elapsed_s(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()
