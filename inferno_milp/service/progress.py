"""How far work has come: workers tell, the service keeps the last word of each piece.

Messages are datagrams: a worker that is killed in the middle of one holds no lock and leaves no half of one behind.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Progress = dict[str, Any]
LONGEST_FOLDER = 70


class ProgressReceiver(asyncio.DatagramProtocol):
    """Listens at `address`; `last` holds the last message of each key that is watched."""

    def __init__(self) -> None:
        # The address of a socket may have no more than a hundred characters.
        short = tempfile.gettempdir() if len(tempfile.gettempdir()) < LONGEST_FOLDER else "/tmp"
        self._folder = tempfile.TemporaryDirectory(prefix="inferno-", dir=short)
        self.address = str(Path(self._folder.name) / "progress")
        self.last: dict[str, Progress] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        """Begin to listen."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(self.address)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=sock)

    def close(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.close()
        self._folder.cleanup()

    def watch(self, key: str) -> None:
        """Keep what is told of a piece of work, until `forget`."""
        self.last[key] = {}

    def forget(self, key: str) -> None:
        """Keep it no longer."""
        self.last.pop(key, None)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take a message."""
        message = json.loads(data)
        key = message.pop("key", "")
        if key in self.last:
            self.last[key] = {**self.last[key], **message}


class ProgressSender:
    """Tells how far a piece of work has come; what cannot be sent at once is not sent."""

    def __init__(self, address: str | None, key: str):
        self._address, self._key = address, key
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def stage(self, name: str) -> None:
        """Report what is being done; as `on_stage` of `optimize`."""
        self._send({"stage": name, "done": None, "of": None})

    def counted(self, name: str) -> Callable[[int, int], None]:
        """Return an `on_done`: how many of how many pieces are done."""
        return lambda done, of: self._send({"stage": name, "done": done, "of": of})

    def _send(self, message: Progress) -> None:
        if self._socket is not None and self._address is not None:
            with suppress(OSError):
                self._socket.sendto(json.dumps({"key": self._key, **message}).encode(), self._address)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
