"""What is kept: jobs with what they were asked and what came of them, in SQLite or any database of SQLAlchemy's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sql
from sqlalchemy.pool import StaticPool

from inferno_milp.errors import OptionError

T = TypeVar("T")
JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
UNFINISHED = ("queued", "running")
BUSY_S = 5.0
"""How long a locked SQLite file is waited for."""
THREADS = 8
ALIVE_S = 30.0
"""A service that has not been heard of for so long is taken for dead."""
FORGOTTEN_S = 86_400.0
"""After so long its entry among the services is deleted."""
PRIVATE = 0o600
"""Mode of an SQLite file: what is asked, and its answer, is for nobody else on the machine."""

_METADATA = sql.MetaData()
_JOBS = sql.Table(
    "jobs",
    _METADATA,
    sql.Column("id", sql.String(40), primary_key=True),
    sql.Column("kind", sql.String(20), nullable=False),
    sql.Column("status", sql.String(20), nullable=False, index=True),
    sql.Column("created_at", sql.Double, nullable=False, index=True),
    sql.Column("started_at", sql.Double),
    sql.Column("ended_at", sql.Double),
    sql.Column("owner", sql.String(40), nullable=False),
    sql.Column("seen_at", sql.Double, nullable=False),
    sql.Column("request", sql.Text, nullable=False),
    sql.Column("summary", sql.JSON, nullable=False),
    sql.Column("result_status", sql.Integer),
    sql.Column("result", sql.Text),
)
_SERVICES = sql.Table(
    "services",
    _METADATA,
    sql.Column("owner", sql.String(40), primary_key=True),
    sql.Column("seen_at", sql.Double, nullable=False),
)
"""Services that use the database, each with when it last wrote to it."""
_HEAD = [_JOBS.c[name] for name in ("id", "kind", "status", "created_at", "started_at", "ended_at", "owner", "summary")]


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job without what it was asked and what came of it; times are seconds since 1970."""

    id: str
    kind: str
    status: JobStatus
    created_at: float
    started_at: float | None
    ended_at: float | None
    owner: str
    summary: dict[str, Any]


class Store:
    """Jobs in a database; every method may be called from any thread, and raises SQLAlchemy's errors.

    Parameters
    ----------
    url : as `ServiceConfig.database`.
    owner : of the jobs that this service takes on.

    Raises
    ------
    OptionError
        If there is no such kind of database, or another service holds the SQLite file.
    """

    def __init__(self, url: str, owner: str):
        self.owner = owner
        self._lock: IO[str] | None = None
        self._limiter: anyio.CapacityLimiter | None = None
        options: dict[str, Any] = {"pool_pre_ping": True}
        try:
            parsed = sql.make_url(url)
            if parsed.get_backend_name() == "sqlite":
                options = {"connect_args": {"timeout": BUSY_S, "check_same_thread": False}}
                if parsed.database in (None, "", ":memory:"):
                    options["poolclass"] = StaticPool
                else:
                    self._lock = _lock(str(parsed.database))
            self._engine = sql.create_engine(parsed, **options)
        except (sql.exc.ArgumentError, ImportError) as error:
            raise OptionError(f"--database: {error}") from None
        if parsed.get_backend_name() == "sqlite":
            sql.event.listen(self._engine, "connect", _prepare_sqlite)
        try:
            _METADATA.create_all(self._engine)
        except sql.exc.SQLAlchemyError as error:
            raise OptionError(f"--database cannot be used: {getattr(error, 'orig', None) or error}") from None

    async def do(self, method: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a method in a thread; in few of them, so that a database that hangs holds up nothing else."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(partial(method, *arguments, **named), limiter=self._limiter)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()
        if self._lock is not None:
            self._lock.close()

    def ping(self) -> None:
        """Make sure that the database can be written to: a full disk still answers what is read."""
        mine, now = _SERVICES.c.owner == self.owner, time.time()
        with self._engine.begin() as connection:
            if not connection.execute(_SERVICES.update().where(mine).values(seen_at=now)).rowcount:
                connection.execute(_SERVICES.delete().where(_SERVICES.c.seen_at < now - FORGOTTEN_S))
                connection.execute(_SERVICES.insert().values(owner=self.owner, seen_at=now))

    def add(self, job: str, kind: str, request: str) -> None:
        """Take a job on."""
        now = time.time()
        values = {"id": job, "kind": kind, "status": "queued", "created_at": now, "seen_at": now, "owner": self.owner}
        with self._engine.begin() as connection:
            connection.execute(_JOBS.insert().values(**values, request=request, summary={}))

    def get(self, job: str) -> JobRecord | None:
        """Return a job by its id."""
        with self._engine.connect() as connection:
            row = connection.execute(sql.select(*_HEAD).where(_JOBS.c.id == job)).one_or_none()
        return None if row is None else JobRecord(**row._mapping)

    def request_of(self, job: str) -> str | None:
        """Return what a job was asked, as JSON."""
        with self._engine.connect() as connection:
            return connection.execute(sql.select(_JOBS.c.request).where(_JOBS.c.id == job)).scalar_one_or_none()

    def result_of(self, job: str) -> tuple[int, str] | None:
        """Return what came of a job: HTTP status and JSON; None where nothing did yet."""
        with self._engine.connect() as connection:
            query = sql.select(_JOBS.c.result_status, _JOBS.c.result).where(_JOBS.c.id == job)
            row = connection.execute(query).one_or_none()
        return None if row is None or row.result is None else (row.result_status, row.result)

    def jobs(self, *, limit: int = 50, status: str | None = None, before: float | None = None) -> list[JobRecord]:
        """Return jobs, the latest first."""
        query = sql.select(*_HEAD).order_by(_JOBS.c.created_at.desc(), _JOBS.c.id).limit(limit)
        if status is not None:
            query = query.where(_JOBS.c.status == status)
        if before is not None:
            query = query.where(_JOBS.c.created_at < before)
        with self._engine.connect() as connection:
            return [JobRecord(**row._mapping) for row in connection.execute(query)]

    def start(self, job: str) -> bool:
        """Record that a job is being done; return False if it is not waiting any more."""
        return self._set(job, ("queued",), status="running", started_at=time.time(), seen_at=time.time())

    def finish(self, job: str, status: JobStatus, result: tuple[int, str] | None, summary: dict[str, Any]) -> bool:
        """Record what came of a job; return False if it had ended before.

        A result is taken also for one that another service took for interrupted, which could not reach the store.
        """
        values: dict[str, Any] = {"status": status, "ended_at": time.time(), "summary": summary}
        if result is None:
            return self._set(job, UNFINISHED, **values)
        values |= {"result_status": result[0], "result": result[1]}
        return self._set(job, (*UNFINISHED, "interrupted"), **values)

    def requeue(self, job: str) -> bool:
        """Let a job wait again: it could not be finished, and will be done from the start."""
        return self._set(job, ("running",), status="queued", started_at=None)

    def delete(self, job: str) -> bool:
        """Forget a finished job."""
        gone = _JOBS.delete().where(_JOBS.c.id == job, _JOBS.c.status.not_in(UNFINISHED))
        with self._engine.begin() as connection:
            return connection.execute(gone).rowcount > 0

    def delete_older(self, days: float) -> int:
        """Forget what was finished more than so many days ago; return how many jobs that were."""
        gone = _JOBS.delete().where(_JOBS.c.ended_at < time.time() - days * 86400)
        with self._engine.begin() as connection:
            return connection.execute(gone).rowcount

    def beat(self) -> None:
        """Report that this service is alive."""
        mine = _JOBS.c.owner == self.owner
        with self._engine.begin() as connection:
            connection.execute(_JOBS.update().where(mine, _JOBS.c.status.in_(UNFINISHED)).values(seen_at=time.time()))

    def adopt(self) -> tuple[list[str], list[str]]:
        """Take over from services that are gone: their waiting jobs become ours, their running ones are interrupted.

        Returns
        -------
        tuple of list
            Ids of jobs that now wait here, and of those that were interrupted.
        """
        # An SQLite file has one service at a time (see `_lock`), so that all others are gone.
        dead = sql.true() if self._lock is not None else _JOBS.c.seen_at < time.time() - ALIVE_S
        theirs = sql.and_(_JOBS.c.owner != self.owner, dead)
        now = time.time()
        with self._engine.begin() as connection:
            interrupted = self._taken_over(connection, theirs, "running", status="interrupted", ended_at=now)
            adopted = self._taken_over(connection, theirs, "queued", owner=self.owner, seen_at=now)
        return adopted, interrupted

    def ended(self, jobs: Sequence[str]) -> list[str]:
        """Return those of some jobs that have ended or are gone, by whoever's hand."""
        query = sql.select(_JOBS.c.id).where(_JOBS.c.id.in_(jobs), _JOBS.c.status.in_(UNFINISHED))
        with self._engine.connect() as connection:
            left = set(connection.execute(query).scalars())
        return [job for job in jobs if job not in left]

    @staticmethod
    def _taken_over(
        connection: sql.Connection, which: sql.ColumnElement[bool], before: JobStatus, **values: Any
    ) -> list[str]:
        which = sql.and_(which, _JOBS.c.status == before)
        jobs = connection.execute(sql.select(_JOBS.c.id).where(which)).scalars().all()
        changes = ((job, _JOBS.update().where(_JOBS.c.id == job, which).values(**values)) for job in jobs)
        return [job for job, change in changes if connection.execute(change).rowcount > 0]

    def _set(self, job: str, allowed: Sequence[str], **values: Any) -> bool:
        changed = _JOBS.update().where(_JOBS.c.id == job, _JOBS.c.status.in_(allowed)).values(**values)
        with self._engine.begin() as connection:
            return connection.execute(changed).rowcount > 0


def reason_of(error: sql.exc.SQLAlchemyError) -> str:
    """Return why the database failed, in its own words: for the log, not for clients."""
    return str(getattr(error, "orig", None) or type(error).__name__)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _lock(database: str) -> IO[str]:
    """Hold an SQLite file for this service alone; the lock goes with the process, however that ends."""
    import fcntl

    try:
        for name in (f"{database}.lock", database):  # SQLite gives its other files the mode of the database
            os.close(os.open(name, os.O_RDWR | os.O_CREAT, PRIVATE))
            with suppress(PermissionError):  # another's file, which its owner lets us use
                Path(name).chmod(PRIVATE)
        file = Path(f"{database}.lock").open("w")  # noqa: SIM115 - held as long as the store
    except OSError as error:
        raise OptionError(f"--database: {error.strerror}: {database}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise OptionError(f"--database: another service uses {database}") from None
    return file
