"""What every request passes: an id, a log line, metrics, who may ask, how large a body may be."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferno_milp.service.answers import JSON, dumped
from inferno_milp.service.config import ServiceConfig
from inferno_milp.service.metrics import Metrics

OPEN = re.compile(r"/(|healthz|readyz|p/[\w-]+|docs|openapi\.json|static/.*|swagger/.*)")
"""Paths that ask for no token: they hold no data of anybody's."""
NOTHING_FROM_ELSEWHERE = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": NOTHING_FROM_ELSEWHERE,
}
DOCS_POLICY = NOTHING_FROM_ELSEWHERE.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'")
"""Of `/docs`, whose page has a script of its own in it."""
UNTOLD = ("/healthz", "/readyz", "/metrics")
"""Paths that are asked so often that their success is not worth a line."""
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
MOST_VALUES = 500_000
"""Values of a body, by its commas and brackets: reading more takes the whole service's time and memory."""
ID = re.compile(r"[\w.-]{1,64}")

log = structlog.get_logger("inferno_milp.service")


def failure(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """Return an error as JSON."""
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    content = dumped({"message": message, **more, "request_id": request_id})
    return Response(content, status, media_type=JSON, headers=headers)


class Told:
    """Gives each request an id, says in a line what came of it, counts it, and turns what is not caught into a 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else secrets.token_hex(8)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        start, status, begun = time.perf_counter(), 499, False

        async def tell(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if scope["path"] == "/docs":
                    headers["content-security-policy"] = DOCS_POLICY
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Exception:
            log.exception("internal error", method=scope["method"], path=scope["path"])
            if begun:
                raise
            await failure(500, "internal error: its log has the details, by the request id")(scope, receive, tell)
        finally:
            took_s = time.perf_counter() - start
            path = getattr(scope.get("route"), "path", "unknown")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.requests.labels(method, path, status).inc()
            self._metrics.seconds.labels(method, path).observe(took_s)
            if status >= 400 or scope["path"] not in UNTOLD:
                log.info("request", method=scope["method"], path=scope["path"], status=status, took_s=round(took_s, 4))


def _without_port(host: str) -> str:
    return host if host.endswith("]") or (host.count(":") > 1 and "]" not in host) else host.rpartition(":")[0] or host


class Headed:
    """Answers HEAD as GET, without the body: whoever checks on a service may ask so."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, without_body)


class Guarded:
    """Lets in who may ask: no page of another origin unless it is named, and only with the token if there is one."""

    def __init__(self, app: ASGIApp, config: ServiceConfig):
        self._app = app
        self._token = None if config.token is None else config.token.encode()
        self._origins = {origin.rstrip("/") for origin in config.origins}
        # A page may give its own name this machine's address. Where nothing but the address keeps others out, that must
        # not let it in: then the service answers to no name but this machine's and those of the origins let in.
        is_local = _without_port(config.host) in LOCAL and config.token is None
        named = {_without_port(origin.partition("://")[2]) for origin in self._origins}
        self._hosts = LOCAL | named if is_local else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        refused = self._refusal(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refusal(self, scope: MutableMapping[str, Any]) -> Response | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        host = headers.get("host", "")
        if origin is not None and origin not in self._origins and origin.partition("://")[2] != host:
            return failure(403, "pages of other origins may not call this service: see --allow-origin")
        if self._hosts is not None and _without_port(host) not in self._hosts:
            return failure(403, "this service has another name: see --allow-origin")
        if self._token is None or OPEN.fullmatch(scope["path"]):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.casefold() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            return None
        return failure(401, "a bearer token is needed", {"www-authenticate": "Bearer"})


class Bounded:
    """Reads the body before anything else does: not more than is allowed, not for longer, not too many at once."""

    def __init__(self, app: ASGIApp, config: ServiceConfig):
        self._app, self._time_s = app, config.body_time_s
        self._most = int(config.body_mb * 1e6)
        self._most_held = max(int(config.bodies_mb * 1e6), 2 * self._most)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._most:
            await self._too_large()(scope, receive, send)
            return
        held, chunks = 0, []
        try:
            end = time.monotonic() + self._time_s
            while True:
                try:
                    message = await asyncio.wait_for(receive(), end - time.monotonic())
                except TimeoutError:
                    await failure(408, "the body did not come in time")(scope, receive, send)
                    return
                if message["type"] == "http.disconnect":
                    return
                chunk = message.get("body", b"")
                held += len(chunk)
                self._held += len(chunk)
                if held > self._most:
                    await self._too_large()(scope, receive, send)
                    return
                if self._held > self._most_held:
                    await failure(429, "too much is being read at once", {"retry-after": "2"})(scope, receive, send)
                    return
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
            body = b"".join(chunks)
            if sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:
                await failure(413, f"the body holds more than {MOST_VALUES:,} values")(scope, receive, send)
                return
            await self._app(scope, _replayed(body, receive), send)
        finally:
            self._held -= held

    def _too_large(self) -> Response:
        return failure(413, f"the body is larger than {self._most / 1e6:g} MB", {"connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then what else comes: that the client is gone."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
