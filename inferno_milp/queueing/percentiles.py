"""Names of percentiles: `p50` to `p99.9`."""

from __future__ import annotations

import re

LEAST_PERCENT, GREATEST_PERCENT = 50.0, 99.9


def read_percent(name: str) -> float | None:
    """Return the percentage of a percentile's name, 95 for `p95`; None for what is none from p50 to p99.9."""
    match = re.fullmatch(r"p(\d\d(\.\d{1,3})?)", name)
    percent = float(match[1]) if match else 0.0
    return percent if LEAST_PERCENT <= percent <= GREATEST_PERCENT else None
