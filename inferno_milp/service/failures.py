"""What each exception is to a client: a status, a message, and nothing of what is behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from inferno_milp.errors import path_text
from inferno_milp.service.answers import BrokenError
from inferno_milp.service.guard import failure
from inferno_milp.service.pool import CrashError, FullError, TimeUpError
from inferno_milp.service.store import reason_of

MOST_ERRORS = 200
SEEDS = "llm-inferno"
"""Tag of the seed's paths, where a body that is not as it should be is a 400."""

log = structlog.get_logger("inferno_milp.service")


async def not_as_wanted(request: Request, error: Exception) -> Response:
    """Return everything that is wrong with what was asked."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(fault["type"] == "json_invalid" for fault in found):
        return failure(400, f"not JSON: {found[0]['ctx']['error']}", errors=[])
    status = 400 if SEEDS in getattr(request.scope.get("route"), "tags", ()) else 422
    faults = [_fault(fault) for fault in found[:MOST_ERRORS]]
    return failure(status, f"{len(found)} error{'s' * (len(found) != 1)} in what was asked", errors=faults)


def _fault(found: dict[str, Any]) -> dict[str, Any]:
    place = found["loc"][1:] if found["loc"][:1] in (("body",), ("query",), ("path",)) else found["loc"]
    path, message = path_text(place), str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        message = "unknown key"
    elif found["type"] == "missing":
        message = "is missing"
    text = f"{path}: {message}" if path else message
    return {"problem": message, "remedy": "", "path": path, "file": "", "line": None, "text": text}


async def refused(request: Request, error: Exception) -> Response:
    """Return what a path says."""
    assert isinstance(error, HTTPException)
    return failure(error.status_code, str(error.detail), dict(error.headers or {}), errors=[])


async def full(request: Request, error: Exception) -> Response:
    """Return when to try again."""
    assert isinstance(error, FullError)
    return failure(429, "the service is full", {"retry-after": str(error.retry_after_s)}, errors=[])


async def too_long(request: Request, error: Exception) -> Response:
    """Return the answer that the time was up."""
    return failure(504, "not done in time: ask as a job (/v1/jobs), or with less to do", errors=[])


async def crashed(request: Request, error: Exception) -> Response:
    """Return the answer that a worker died."""
    return failure(500, "the worker died over this: it may need more memory than there is", errors=[])


async def broken(request: Request, error: Exception) -> Response:
    """Return the answer that it is our fault; the log says why."""
    log.error("internal error in a worker", traceback=str(error))
    return failure(500, "internal error: the log has the details, by the request id", errors=[])


async def no_store(request: Request, error: Exception) -> Response:
    """Return the answer that the database is away."""
    assert isinstance(error, SQLAlchemyError)
    log.error("the store does not answer", error=reason_of(error))
    return failure(503, "the store of jobs does not answer", {"retry-after": "5"}, errors=[])


FAILURES: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    RequestValidationError: not_as_wanted,
    HTTPException: refused,
    FullError: full,
    TimeUpError: too_long,
    CrashError: crashed,
    BrokenError: broken,
    SQLAlchemyError: no_store,
}
