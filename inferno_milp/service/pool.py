"""Processes that work: bounded in number, memory and time, with a bounded queue before them."""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import os
import signal
from concurrent.futures import TimeoutError as PoolTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from pebble import CONSTS, ProcessExpired, ProcessPool

from inferno_milp.program.lifeline import end_with_parent
from inferno_milp.service.answers import Answer, Task
from inferno_milp.service.work import perform

logger = logging.getLogger(__name__)

CONSTS.term_timeout = 0.1  # pebble kills a worker that does not heed SIGTERM within that; none of ours does
LONGEST_RETRY_S = 60
WEIGHT = 0.2
"""Of the last piece of work in the mean time of a piece."""


class FullError(Exception):
    """No more work can wait; `retry_after_s` says when there may be room again."""

    def __init__(self, retry_after_s: int):
        self.retry_after_s = retry_after_s
        super().__init__("the service is full")


class TimeUpError(Exception):
    """The work did not end in time, and was ended."""


class CrashError(Exception):
    """A worker died over the work."""


class WorkerPool:
    """Worker processes, started with the first piece of work.

    Parameters
    ----------
    name : of the pool, for metrics and logs.
    most_waiting : pieces that may wait for a worker.
    memory_gb : address space of a worker, GB.
    address : where workers tell how far they are.
    """

    def __init__(self, name: str, workers: int, most_waiting: int, memory_gb: float, address: str | None):
        self.name, self.workers, self.most_waiting = name, workers, most_waiting
        self.inside = 0
        self._mean_s = 0.1
        self._closed = False
        self._address, self._memory_gb = address, memory_gb
        self._pool = self._make()

    def _make(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self.workers,
            context=multiprocessing.get_context("spawn"),
            initializer=prepare_worker,
            initargs=[os.getpid(), self._memory_gb],
        )

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for a worker."""
        return max(self.inside - self.workers, 0)

    @property
    def running(self) -> int:
        """Pieces of work that are being done."""
        return min(self.inside, self.workers)

    async def do(self, task: Task, *, time_limit_s: float) -> Answer:
        """Do a piece of work; ends it if the caller is cancelled.

        Parameters
        ----------
        time_limit_s : seconds from when a worker takes it; then the worker is killed.

        Raises
        ------
        FullError, TimeUpError, CrashError
        """
        if self.inside >= self.workers + self.most_waiting:
            raise FullError(self.retry_after_s)
        self.inside += 1
        try:
            answer = await self._done(task, time_limit_s)
        except PoolTimeoutError:
            raise TimeUpError from None
        except (ProcessExpired, BrokenProcessPool) as error:
            logger.error("a worker died over %s: %s", task.kind, getattr(error, "exitcode", error))
            raise CrashError from None
        finally:
            self.inside -= 1
        self._mean_s += WEIGHT * (answer.took_s - self._mean_s)
        return answer

    async def _done(self, task: Task, time_limit_s: float) -> Answer:
        """Let a worker do it; where workers died while they had nothing to do, which ends a pool, make a new one."""
        for is_last in (False, True):
            pool = self._pool
            try:
                future = pool.schedule(perform, args=[task, self._address], timeout=time_limit_s)
                answer: Answer = await asyncio.wrap_future(future)
            except (BrokenProcessPool, RuntimeError) as error:
                if is_last or self._closed:
                    raise BrokenProcessPool(str(error)) from None
                if pool is self._pool:
                    logger.error("the workers of pool %s are gone (%s): there are new ones", self.name, error)
                    self._pool = self._make()
                    pool.stop()  # type: ignore[no-untyped-call]
            else:
                return answer
        raise AssertionError("unreachable")

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which there may be room."""
        return min(max(math.ceil(self.waiting * self._mean_s / self.workers / 2), 1), LONGEST_RETRY_S)

    def close(self) -> None:
        """End all workers at once."""
        self._closed = True
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join(timeout=5)


def prepare_worker(parent: int, memory_gb: float) -> None:
    """Make a process a worker: its memory bounded, its end tied to its parent's.

    It ignores what tells the service to stop, which terminals and supervisors send to all of its processes: the service
    ends its workers when their time comes.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent)
    with suppress(ImportError, ValueError, OSError):
        import resource

        most = int(memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
