"""What `serve` takes, and what it does."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from inferno_milp.cli.output import missing_extra, tell
from inferno_milp.cli.shared_arguments import Subparsers
from inferno_milp.cli.values import positive, whole
from inferno_milp.errors import InputError, OptionError
from inferno_milp.problem.reading.source import read_text

SUBCOMMANDS = ("serve",)
NEEDED = (
    "fastapi", "fastapi_swagger", "jinja2", "matplotlib", "pebble", "prometheus_client", "sqlalchemy", "structlog",
    "uvicorn",
)  # fmt: skip


def add_service(subparsers: Subparsers) -> None:
    """Add the subcommand `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="REST service, with a page to plan on",
        description="Serve the REST API of inferno_milp (/v1), llm-inferno's own API, and a page to plan on (/). "
        "A bearer token, if requests are to carry one, comes from INFERNO_TOKEN or --token-file.",
    )
    environment = os.environ
    parser.add_argument(
        "--host", default=environment.get("INFERNO_HOST") or None, help="default: INFERNO_HOST, or localhost"
    )
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        default=environment.get("INFERNO_PORT") or None,
        help="default: INFERNO_PORT, or 8080; 0 takes any that is free",
    )
    parser.add_argument("--stateful", action="store_true", help="llm-inferno's stateful paths as well")
    parser.add_argument(
        "--database",
        metavar="URL",
        default=environment.get("INFERNO_DATABASE") or None,
        help="where jobs and plans are kept: sqlite:///FILE, postgresql+psycopg://… (default: INFERNO_DATABASE, or a "
        "file inferno-milp.sqlite3 here)",
    )
    parser.add_argument(
        "--workers",
        type=whole(1, 1024),
        metavar="N",
        help="processes that solve, as many for jobs, and for quick work (default: the cores, at most 4)",
    )
    parser.add_argument(
        "--time-limit", type=positive, metavar="S", help="longest time limit of a request (default: 60)"
    )
    parser.add_argument("--job-time-limit", type=positive, metavar="S", help="the same of a job (default: 3600)")
    parser.add_argument("--most-jobs", type=whole(1, 10**6), metavar="N", help="jobs that may wait (default: 1000)")
    parser.add_argument(
        "--most-waiting",
        type=whole(0, 10**6),
        metavar="N",
        help="requests to solve that may wait for a worker; more are answered 429 (default: 200)",
    )
    parser.add_argument("--body-limit", type=positive, metavar="MB", help="largest body (default: 8)")
    parser.add_argument("--worker-memory", type=positive, metavar="GB", help="address space of a worker (default: 4)")
    parser.add_argument(
        "--keep-days",
        type=whole(0, 100_000),
        metavar="D",
        help="of finished jobs; 0: all (default: 90)",
    )
    parser.add_argument(
        "--connections-per-address",
        type=whole(1, 10**6),
        metavar="N",
        help="connections that one address may have, of 10000 altogether; behind a proxy all are its own "
        "(default: 2500)",
    )
    parser.add_argument("--grace", type=positive, metavar="S", help="for what runs when told to stop (default: 20)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file that holds the bearer token")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="https://host whose pages may call the service (may be repeated)",
    )
    parser.set_defaults(run=run_serve, quiet=False, verbose=False)


def run_serve(arguments: Namespace) -> int:
    """Serve until told to stop."""
    missing = list(missing_extra("service", *NEEDED))
    if missing:
        raise OptionError("; ".join(missing))
    from inferno_milp.service import ServiceConfig, run_service

    given = {
        "host": arguments.host,
        "port": arguments.port,
        "database": arguments.database,
        "workers": arguments.workers,
        "most_waiting": arguments.most_waiting,
        "most_jobs": arguments.most_jobs,
        "time_limit_s": arguments.time_limit,
        "job_time_limit_s": arguments.job_time_limit,
        "keep_days": arguments.keep_days,
        "body_mb": arguments.body_limit,
        "worker_memory_gb": arguments.worker_memory,
        "connections_per_address": arguments.connections_per_address,
        "grace_s": arguments.grace,
    }
    config = ServiceConfig(
        stateful=arguments.stateful,
        token=_token(arguments.token_file),
        origins=tuple(arguments.allow_origin),
        **{name: value for name, value in given.items() if value is not None},
    )
    run_service(config, on_ready=lambda urls: tell(f"serving a page and an API on {', '.join(urls)} (Ctrl-C ends it)"))
    return 0


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get("INFERNO_TOKEN") or None
    try:
        token = read_text(path, str(path)).strip()
    except InputError as error:
        raise OptionError(f"--token-file: {error}") from None
    if not token:
        raise OptionError(f"--token-file: {path}: it is empty")
    return token
