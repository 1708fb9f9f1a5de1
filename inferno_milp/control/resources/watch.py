"""Watching objects, by kopf: a change is acted on at once, not at the next interval."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import kopf
from kubernetes import client as kubernetes

from inferno_milp.control.resources.kinds import GROUP, KINDS, VERSION

logger = logging.getLogger(__name__)

LONGEST_STOP_S = 10.0
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it warns that signals are not its own


class Watch:
    """Watches all kinds, in a thread of its own.

    Parameters
    ----------
    configuration : of the official client: where the API server is, and how one is known to it.
    namespaces : that are watched; empty: all.
    on_change : called when an object comes, goes, or is given another spec.
    """

    def __init__(
        self, configuration: kubernetes.Configuration, namespaces: tuple[str, ...], on_change: Callable[[], None]
    ):
        self._configuration = configuration
        self._namespaces = namespaces
        self._on_change = on_change
        self._generations: dict[str, int | None] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.is_ready = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        self._thread.join(LONGEST_STOP_S)

    def _run(self) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in KINDS:
            kopf.on.event(GROUP, VERSION, kind.plural, registry=registry)(self._see)
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True  # kinds that are defined later are read all the same
        scope: dict[str, Any] = {"namespaces": self._namespaces} if self._namespaces else {"clusterwide": True}
        operator = kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            stop_flag=self._stopped,
            ready_flag=self.is_ready,
            **scope,
        )
        try:
            asyncio.run(operator)
        except Exception:
            logger.exception("objects are no longer watched; they are still read at every round")

    async def _see(self, event: Any, **_: Any) -> None:
        metadata = event["object"].get("metadata") or {}
        uid, generation = metadata.get("uid", ""), metadata.get("generation")
        if event["type"] == "DELETED":
            self._generations.pop(uid, None)
        elif self._generations.get(uid, -1) == generation:
            return  # only its status changed
        else:
            self._generations[uid] = generation
        self._on_change()

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        found: Any = self._configuration
        # Clients keep the token under different names, by their version; all of them make the same header of it.
        header = found.auth_settings().get("BearerToken", {}).get("value")
        scheme, token = _parted(header or "")
        return kopf.ConnectionInfo(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            insecure=not found.verify_ssl,
            username=found.username or None,
            password=found.password or None,
            scheme=scheme or None,
            token=token or None,
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
        )


def _parted(authorization: str) -> tuple[str, str]:
    """Part `Bearer abc` into its scheme and its token."""
    scheme, _, token = authorization.rpartition(" ")
    return scheme, token
