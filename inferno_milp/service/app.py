"""The service put together, and run."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from inferno_milp._version import __version__
from inferno_milp.errors import OptionError
from inferno_milp.service import page, v1
from inferno_milp.service.analyst import Analyst
from inferno_milp.service.config import ServiceConfig
from inferno_milp.service.connections import limited_protocol
from inferno_milp.service.failures import FAILURES
from inferno_milp.service.guard import Bounded, Guarded, Headed, Told
from inferno_milp.service.jobs import Jobs
from inferno_milp.service.metrics import Metrics
from inferno_milp.service.pool import WorkerPool
from inferno_milp.service.progress import ProgressReceiver
from inferno_milp.service.rooms import Rooms
from inferno_milp.service.seed import Seed
from inferno_milp.service.store import Store

DESCRIPTION = """
Which GPU type, how many replicas and what batch size for every language model, at the least cost, proven.

`/v1/…` is the API of inferno_milp; what may take long is asked for as a job. The other paths are llm-inferno's own.
"""

MOST_CONNECTIONS = 10_000
"""Connections at once; more are answered 503."""

log = structlog.get_logger("inferno_milp.service")


def make_app(config: ServiceConfig | None = None) -> FastAPI:
    """Make the application; it opens its store at once, and starts its workers with the first work.

    Raises
    ------
    OptionError
        If the database cannot be used.
    """
    config = config or ServiceConfig()
    store = Store(config.database, uuid4().hex)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        progress = ProgressReceiver()
        await progress.open()
        memory_gb = config.worker_memory_gb
        quick = WorkerPool("quick", config.workers, config.most_waiting_quick, memory_gb, None)
        solve = WorkerPool("solve", config.workers, config.most_waiting, memory_gb, None)
        job_pool = WorkerPool("jobs", config.workers, config.workers, memory_gb, progress.address)
        jobs = Jobs(config, store, job_pool, progress, metrics)
        for pool in (quick, solve):
            metrics.watch(pool.name, "running", lambda pool=pool: pool.running)  # type: ignore[misc]
            metrics.watch(pool.name, "waiting", lambda pool=pool: pool.waiting)  # type: ignore[misc]
        metrics.watch("jobs", "running", lambda: job_pool.running)
        metrics.watch("jobs", "waiting", lambda: jobs.waiting)
        app.state.rooms = Rooms(config, store, metrics, jobs, quick, solve, Analyst(quick))
        await jobs.open()
        try:
            yield
        finally:
            await jobs.close()
            for pool in (quick, solve, job_pool):
                await asyncio.to_thread(pool.close)
            progress.close()
            store.close()

    app = FastAPI(
        title="inferno_milp",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: f"{(route.tags or ['page'])[0]}-{route.name}",
    )
    app.include_router(v1.router)
    app.include_router(v1.health)
    app.include_router(Seed(stateful=config.stateful).router)
    page.add_page(app)
    for kind, failed in FAILURES.items():
        app.add_exception_handler(kind, failed)
    # The last one added is the first that a request passes.
    app.add_middleware(Bounded, config=config)
    app.add_middleware(Headed)
    app.add_middleware(Guarded, config=config)
    if config.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["location", "retry-after", "x-request-id"],
        )
    app.add_middleware(Told, metrics=metrics)
    return app


def run_service(config: ServiceConfig, *, on_ready: Callable[[list[str]], None] | None = None) -> None:
    """Run the service until it is told to stop (SIGTERM, SIGINT); then what runs may end, within its grace.

    Parameters
    ----------
    on_ready : called with its addresses, as URLs, once it answers.

    Raises
    ------
    OptionError
        If the address or the database cannot be used.
    """
    _allow_many_connections()
    _log_as_json()
    app = make_app(config)
    server = _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=4096,
            timeout_graceful_shutdown=max(int(config.grace_s), 1),
            h11_max_incomplete_event_size=65536,
            limit_concurrency=MOST_CONNECTIONS,
            http=limited_protocol(config.connections_per_address),
        ),
        app,
        on_ready,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # to which uvicorn goes back when it has ended: to stop is no failure
    try:
        server.run()
    except SystemExit:
        raise OptionError(f"cannot listen on {config.host}:{config.port}: is another service there?") from None
    if not server.started:
        raise OptionError("the service could not start: its log says why")


class _Server(uvicorn.Server):
    """Says where it listens, and lets jobs know first when it is told to stop: who follows one would hold it up."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_ready: Callable[[list[str]], None] | None):
        super().__init__(config)
        self._app, self._on_ready = app, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say where."""
        await super().startup(sockets)
        places = [place.getsockname()[:2] for server in getattr(self, "servers", []) for place in server.sockets]
        log.info("listening", addresses=[f"{host}:{port}" for host, port in places], version=__version__)
        if places and self._on_ready is not None:
            self._on_ready(
                [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in places]
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._app.state.rooms.jobs.stop()
        await super().shutdown(sockets)


def _allow_many_connections() -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _log_as_json() -> None:
    """Write a line of JSON to stderr for each thing that is logged, by whatever library."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("inferno_milp").handlers = []
    logging.getLogger("inferno_milp").setLevel(logging.INFO)
