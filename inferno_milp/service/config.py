"""How a service is set up."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """Set-up of a service.

    Attributes
    ----------
    host, port : address to listen on.
    stateful : whether llm-inferno's stateful paths are there as well.
    database : of jobs and their results, as SQLAlchemy writes it: `sqlite:///FILE`, `postgresql+psycopg://…`;
        `sqlite://` is kept in memory, and lost with the service.
    workers : processes that solve requests which wait for their answer, as many again for jobs, and for quick work
        (checking, analysing, drawing); by default as many as there are cores, at most 4.
    most_waiting, most_waiting_quick : requests to solve, and quick ones, that may wait for a worker; more are turned
        away (429).
    most_jobs : jobs that may wait.
    time_limit_s, job_time_limit_s : longest time limit of a request, and of a job.
    keep_days : after how long a finished job is deleted; 0 is never.
    body_mb, body_time_s : largest body, MB, and how long it may take to come.
    bodies_mb : of all bodies that are being read or worked on, MB; at least those of two.
    worker_memory_gb : address space of a worker process, GB.
    connections_per_address : connections that one address may have; behind a proxy all come from its address.
    grace_s : how long running work may take when the service is told to stop.
    token : bearer token that requests must carry; None asks for none.
    origins : other origins (`https://host`) whose pages may call the service; none by default.
    """

    host: str = "localhost"
    port: int = 8080
    stateful: bool = False
    database: str = "sqlite:///inferno-milp.sqlite3"
    workers: int = min(os.cpu_count() or 1, 4)
    most_waiting: int = 200
    most_waiting_quick: int = 5000
    most_jobs: int = 1000
    time_limit_s: float = 60.0
    job_time_limit_s: float = 3600.0
    keep_days: float = 90.0
    body_mb: float = 8.0
    bodies_mb: float = 64.0
    body_time_s: float = 30.0
    worker_memory_gb: float = 4.0
    connections_per_address: int = 2500
    grace_s: float = 20.0
    token: str | None = None
    origins: tuple[str, ...] = ()
