"""How requests were sent, where a tool limits both the rate and the number of requests at once."""

from __future__ import annotations

from typing import Any

from inferno_milp.profiles.measurements.facts import Facts

BINDS = 0.85
"""A limit on requests at once set the load where their mean number is above this share of it …"""
HELD_BACK = 0.5
"""… and held some of them back above this one."""


def sent_at(
    facts: Facts, rate_per_s: float | None, most: float | None, *, running: float | None, cv2_arrival: float
) -> dict[str, Any]:
    """Return how requests were sent at a rate, of which at most a number are let in at once.

    A limit that binds makes a closed run: each request that ends lets the next one in, whatever the rate is.

    Parameters
    ----------
    facts : the run; a note says what was decided.
    most : requests at once; None: no limit.
    running : their mean number, by which it is known whether the limit binds.
    """
    if most and running is not None:
        words = f"at most {most:g} requests at once, {running:.3g} in the mean"
        if running > BINDS * most:
            facts.notes.append(f"{words}: that limit set the load, not the rate")
            return {"sent": "concurrency", "concurrency": most}
        if running > HELD_BACK * most:
            facts.notes.append(f"{words}: some were held back, which no latency shows; read as sent at the rate")
    return {"sent": "rate", "rate_per_s": rate_per_s, "cv2_arrival": cv2_arrival}
