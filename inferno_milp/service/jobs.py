"""Long work: taken on, done one after the other, told of as it goes, cancelled, and kept."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from inferno_milp.service.answers import Answer, BrokenError, Task, refusal
from inferno_milp.service.bodies import Job
from inferno_milp.service.config import ServiceConfig
from inferno_milp.service.metrics import Metrics
from inferno_milp.service.pool import CrashError, FullError, TimeUpError, WorkerPool
from inferno_milp.service.progress import Progress, ProgressReceiver
from inferno_milp.service.store import UNFINISHED, JobRecord, JobStatus, Store, reason_of

logger = logging.getLogger(__name__)

BEAT_S = 2.0
"""How often this service says that it is alive, and looks for jobs that others left or cancelled."""
CLEAN_S = 3600.0
KEEP_S = 5.0
"""How long a service that stops tries to keep what came of its last jobs."""
WATCH_S = 0.2
"""How often a watched job is looked at; one of another service, five times as seldom."""
OVERTIME_S = 30.0
"""What a job may take beyond its time limit, for reading, analysing and checking, before it is ended."""
_JOB: TypeAdapter[Any] = TypeAdapter(Job)


class Jobs:
    """The jobs of this service."""

    def __init__(
        self, config: ServiceConfig, store: Store, pool: WorkerPool, progress: ProgressReceiver, metrics: Metrics
    ):
        self._config, self._store, self._pool, self._progress, self._metrics = config, store, pool, progress, metrics
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._running: dict[str, asyncio.Task[Answer]] = {}
        self._waiting: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._beating: asyncio.Task[None] | None = None
        self.closing = False
        self._end_s = 0.0

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._waiting)

    async def open(self) -> None:
        """Take over what was left, and begin."""
        await self._adopt()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._pool.workers)]
        self._beating = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """Take on nothing more, and end what is told of jobs (who follows one will ask again); grace begins."""
        if not self.closing:
            self.closing = True
            self._end_s = time.monotonic() + self._config.grace_s
            for _ in self._tasks:
                self._queue.put_nowait("")  # wakes who waits for a job

    async def close(self) -> None:
        """Let what runs end within the grace, and the rest wait for the next service."""
        self.stop()
        await asyncio.wait(self._tasks, timeout=max(self._end_s - time.monotonic(), 0.0))
        for job, work in list(self._running.items()):
            if not work.done():
                with suppress(SQLAlchemyError):
                    await self._store.do(self._store.requeue, job)
                work.cancel()
        await asyncio.wait(self._tasks, timeout=KEEP_S)  # what came of the last jobs is still being kept
        for task in (*self._tasks, *filter(None, [self._beating])):
            task.cancel()

    async def add(self, body: Any) -> JobRecord:
        """Take a job on.

        Raises
        ------
        FullError
            If too many wait, or the service is about to stop.
        """
        if self.closing or self.waiting >= self._config.most_jobs:
            raise FullError(self._pool.retry_after_s)
        job = secrets.token_urlsafe(16)
        self._waiting.add(job)  # its place in the queue, which others may ask for meanwhile
        try:
            await self._store.do(self._store.add, job, body.kind, body.model_dump_json(exclude_unset=True))
        except BaseException:
            self._waiting.discard(job)
            raise
        self._line_up(job)
        record = await self._store.do(self._store.get, job)
        assert record is not None
        return record

    async def cancel(self, job: str) -> JobRecord | None:
        """Cancel a job, wherever it runs; one that has ended stays as it is."""
        is_ours = await self._store.do(self._store.finish, job, "cancelled", None, {})
        self._end(job)
        record = await self._store.do(self._store.get, job)
        if is_ours and record is not None:
            self._metrics.jobs.labels(record.kind, "cancelled").inc()
        return record

    def progress_of(self, job: str) -> Progress:
        """Return how far a job has come, as far as this service knows."""
        return self._progress.last.get(job, {})

    async def events(self, job: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield the events of a job until it has ended: `status`, `progress`, and `end` at last."""
        told_status, told_progress = "", Progress()
        while not self.closing:
            record = await self._store.do(self._store.get, job)
            if record is None:
                yield "end", {"id": job, "status": "deleted"}
                return
            if record.status != told_status and record.status in UNFINISHED:
                yield "status", {"status": record.status}
            told_status = record.status
            if record.status not in UNFINISHED:
                yield "end", asdict(record)
                return
            for _ in range(5):
                progress = self.progress_of(job)
                if progress and progress != told_progress:
                    told_progress = progress
                    yield "progress", progress
                await asyncio.sleep(WATCH_S)
                if told_status == "running" and record.owner == self._store.owner and job not in self._running:
                    break

    def _line_up(self, job: str) -> None:
        self._waiting.add(job)
        self._queue.put_nowait(job)

    def _end(self, job: str) -> None:
        self._waiting.discard(job)
        if job in self._running:
            self._running[job].cancel()

    async def _work(self) -> None:
        while not self.closing:
            job = await self._queue.get()
            if self.closing:
                return
            is_left = False
            try:
                await self._do(job)
            except SQLAlchemyError as error:
                logger.error("job %s: the store failed: %s", job, reason_of(error))
                is_left = True
            except Exception:
                logger.exception("job %s failed", job)
                await self._kept(job, "unknown", "failed", refusal("internal error", status=500))
            self._waiting.discard(job)
            if is_left:
                await self._stubbornly(self._store.requeue, job)
                self._line_up(job)

    async def _do(self, job: str) -> None:
        if not await self._store.do(self._store.start, job):
            return
        if self.closing:
            await self._store.do(self._store.requeue, job)
            return
        request = await self._store.do(self._store.request_of, job)
        if request is None:  # cancelled and deleted meanwhile
            return
        try:
            body = _JOB.validate_json(request)
        except ValidationError:  # asked of another version of this program
            await self._kept(job, "unknown", "failed", refusal("this version cannot do what was asked"))
            return
        self._progress.watch(job)
        task = Task(body.kind, body, self._config.job_time_limit_s, key=job)
        work = self._running[job] = asyncio.create_task(self._pool.do(task, time_limit_s=task.longest_s + OVERTIME_S))
        self._waiting.discard(job)
        try:
            answer = await self._answer(job, work)
        finally:
            self._running.pop(job, None)
            self._progress.forget(job)
        if answer is not None:
            await self._kept(job, body.kind, "done" if answer.status == 200 else "failed", answer)

    async def _answer(self, job: str, work: asyncio.Task[Answer]) -> Answer | None:
        """Wait for what comes of a job; None if it was cancelled, or is left for the next service: the store knows."""
        try:
            return await work
        except asyncio.CancelledError:
            if not work.cancelled():
                work.cancel()
                raise
            return None
        except TimeUpError:
            return refusal("the time limit was over before there was an answer", status=504)
        except CrashError:
            await asyncio.sleep(WATCH_S)  # what tells the service to stop may reach a worker that starts before it
            if self.closing:
                await self._stubbornly(self._store.requeue, job)
                return None
            return refusal("the worker died over it: it may need more memory than there is", status=500)
        except BrokenError as error:
            logger.error("job %s: %s", job, error)
            return refusal("internal error", status=500)

    async def _kept(self, job: str, kind: str, status: JobStatus, answer: Answer) -> None:
        """Keep what came of a job."""
        result = (answer.status, answer.body.decode())
        if await self._stubbornly(self._store.finish, job, status, result, answer.summary):
            self._metrics.jobs.labels(kind, status).inc()

    async def _stubbornly(self, method: Callable[..., bool], job: str, *arguments: Any) -> bool:
        """Call a method of the store for a job, again and again while the store fails: work would be lost."""
        while True:
            try:
                return await self._store.do(method, job, *arguments)
            except SQLAlchemyError as error:
                logger.error("job %s: the store does not take it yet: %s", job, reason_of(error))
                await asyncio.sleep(BEAT_S)

    async def _adopt(self) -> None:
        adopted, interrupted = await self._store.do(self._store.adopt)
        for job in adopted:
            self._line_up(job)
        if interrupted:
            self._metrics.jobs.labels("unknown", "interrupted").inc(len(interrupted))
        if adopted or interrupted:
            logger.warning("%d jobs were left waiting, %d were interrupted", len(adopted), len(interrupted))

    async def _beat(self) -> None:
        since_clean_s = CLEAN_S
        while True:
            try:
                await self._store.do(self._store.beat)
                await self._adopt()
                known = [*self._running, *self._waiting]
                for job in await self._store.do(self._store.ended, known):
                    self._end(job)
                if self._config.keep_days and since_clean_s >= CLEAN_S:
                    await self._store.do(self._store.delete_older, self._config.keep_days)
                    since_clean_s = 0.0
            except SQLAlchemyError as error:
                logger.error("the store does not answer: %s", reason_of(error))
            except Exception:
                logger.exception("looking after the jobs failed")
            await asyncio.sleep(BEAT_S)
            since_clean_s += BEAT_S
