"""Who acts, of several copies of the loop: the holder of a Lease, as long as it renews it.

As Kubernetes' own election: another copy's lease has run out when it has not changed for its duration by *this*
machine's steady clock, so that clocks that differ do no harm.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from inferno_milp.control.clock import Clock
from inferno_milp.control.fleet import ClusterError

RENEWED_WITHIN = 2 / 3
"""The holder acts for this share of the duration after its last renewal: it stops before another one begins."""


class LeaseStore(Protocol):
    """Where the lease is kept. Requests may raise ClusterError; one on an outdated version is a `conflict`."""

    def read_lease(self) -> Mapping[str, Any] | None:
        """Return the lease: holder, duration_s, renewed_at_s, transitions, version; None if there is none."""

    def write_lease(self, holder: str, duration_s: float, now_s: float, before: Mapping[str, Any] | None) -> None:
        """Write the lease in the place of what was read."""


@dataclass(slots=True)
class Lease:
    """One copy's side of the election; it may be used from several threads.

    Attributes
    ----------
    holder : the copy's own name.
    seen : holder that was last read.
    """

    store: LeaseStore
    clock: Clock
    holder: str
    duration_s: float
    seen: str = ""
    _version: str = field(default="", init=False)
    _changed_at_s: float = field(default=0.0, init=False)
    _renewed_at_s: float | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def is_held(self) -> bool:
        """Whether this copy may act now."""
        renewed_at_s = self._renewed_at_s
        return renewed_at_s is not None and self.clock.elapsed_s() - renewed_at_s < RENEWED_WITHIN * self.duration_s

    def renew(self) -> bool:
        """Take the lease, or keep it, if that is possible; return whether this copy may act.

        Raises
        ------
        ClusterError
            If the cluster does not answer; who holds the lease may act on until it runs out.
        """
        with self._lock:
            return self._renew()

    def _renew(self) -> bool:
        elapsed = self.clock.elapsed_s()
        found = self.store.read_lease()
        if found is not None:
            self.seen = str(found["holder"])
            if found["version"] != self._version:
                # It may have been written at any time until now.
                self._version, self._changed_at_s = str(found["version"]), self.clock.elapsed_s()
            is_over = elapsed - self._changed_at_s >= float(found["duration_s"] or self.duration_s)
            if self.seen and self.seen != self.holder and not is_over:
                self._renewed_at_s = None
                return False
        try:
            self.store.write_lease(self.holder, self.duration_s, self.clock.now_s(), found)
        except ClusterError as error:
            if error.trouble != "conflict":
                raise
            self._renewed_at_s = None  # another copy was quicker
            return False
        self.seen, self._renewed_at_s = self.holder, elapsed
        return True

    def give_up(self) -> None:
        """Let another copy take over at once, whether or not the lease ran out meanwhile."""
        with self._lock:
            self._renewed_at_s = None
            found = self.store.read_lease()
            if found is not None and found["holder"] == self.holder:
                self.store.write_lease("", self.duration_s, self.clock.now_s(), found)
