"""Requests to a Kubernetes API server, through the official client: set up, made again where that may help, paged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from kubernetes import client as kubernetes
from kubernetes import config as kubernetes_config
from kubernetes.client.exceptions import ApiException

from inferno_milp.control.config import KubernetesSettings
from inferno_milp.control.fleet import ClusterError, Trouble
from inferno_milp.control.retries import retrying
from inferno_milp.errors import OptionError

FIELD_MANAGER = "inferno-milp"
TROUBLES: dict[int, Trouble] = {
    401: "forbidden", 403: "forbidden", 404: "gone", 409: "conflict", 410: "unavailable", 429: "throttled",
}  # fmt: skip
RETRIED = ("throttled", "unavailable")
LONGEST_WAIT_S = 5.0
PAGE = 500


class ApiServer:
    """An API server.

    Parameters
    ----------
    settings : how long to wait, and how often to try again.
    api : a client that is set up already; None makes one.
    pause : waits so many seconds between tries.

    Raises
    ------
    OptionError
        If there is no way to a cluster.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        api: kubernetes.ApiClient | None = None,
        pause: Callable[[float], None] = time.sleep,
    ):
        self._settings = settings
        self._pause = pause
        self.api = api or _connect(settings.context)

    def ask(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Make a request, again and later where that may help; ClusterError if it comes to nothing."""

        def may_succeed(error: BaseException) -> bool:
            return isinstance(error, ClusterError) and error.trouble in RETRIED

        tries = retrying(self._settings.retries, LONGEST_WAIT_S, may_succeed, self._pause)
        return tries(self._ask_once, request, *arguments, **options)

    def pages(self, request: Callable[..., Any], *where: Any) -> Iterator[Any]:
        """Yield the items of a list, page by page."""
        following = None
        while True:
            page = self.ask(request, *where, limit=PAGE, **({"_continue": following} if following else {}))
            is_plain = isinstance(page, dict)  # as custom resources are
            yield from page["items"] if is_plain else page.items
            metadata = page.get("metadata") if is_plain else page.metadata
            following = metadata and (metadata.get("continue") if is_plain else metadata._continue)
            if not following:
                return

    def _ask_once(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return request(*arguments, **options, _request_timeout=self._settings.timeout_s)
        except ApiException as error:
            trouble = TROUBLES.get(error.status or 0, "unavailable" if (error.status or 500) >= 500 else "refused")
            raise ClusterError(trouble, f"HTTP {error.status} {error.reason or ''}".strip()) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError) as error:
            raise ClusterError("unavailable", str(error) or repr(error)) from None


def _connect(context: str | None) -> kubernetes.ApiClient:
    try:
        if context is None:
            try:
                kubernetes_config.load_incluster_config()  # type: ignore[no-untyped-call]
                return kubernetes.ApiClient()
            except kubernetes_config.ConfigException:
                pass
        files = os.environ.get("KUBECONFIG") or None  # the client looks at it only as it is imported
        make: Any = kubernetes_config.new_client_from_config
        api: kubernetes.ApiClient = make(config_file=files, context=context)
        return api
    except (kubernetes_config.ConfigException, OSError) as error:
        raise OptionError(f"no way to a cluster: {error}") from None
