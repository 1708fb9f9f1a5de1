"""Connections: those that send nothing are closed after a while, and one address has not all of them.

uvicorn itself waits for ever, and takes on whatever comes.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

FIRST_REQUEST_S = 30.0
"""How long the head of the first request may take to come."""


REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: 5\r\n"
    b"connection: close\r\n\r\n%b"
)
TOO_MANY = b'{"message": "too many connections from this address", "errors": []}'


class TimedProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for the first request of a connection; later ones have uvicorn's own.

    Attributes
    ----------
    most_per_address : connections that one address may have.
    """

    most_per_address = sys.maxsize
    _open: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._waiting: Any = self.loop.call_later(FIRST_REQUEST_S, self._give_up)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._open[self._address] += 1
        if self._open[self._address] > self.most_per_address:
            transport.write(REFUSAL % (len(TOO_MANY), TOO_MANY))
            transport.close()

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._waiting.cancel()
        self._open[self._address] -= 1
        if not self._open[self._address]:
            del self._open[self._address]
        super().connection_lost(exc)


def limited_protocol(most: int) -> type[TimedProtocol]:
    """Return a protocol under which one address may have so many connections."""
    return type("LimitedProtocol", (TimedProtocol,), {"most_per_address": most, "_open": Counter()})
