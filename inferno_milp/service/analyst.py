"""Analyses that wait are done together: many engines take a worker hardly longer than one."""

from __future__ import annotations

import asyncio

from inferno_milp.service.answers import Answer, Task
from inferno_milp.service.bodies import AnalyzeBody
from inferno_milp.service.pool import FullError, WorkerPool

MOST_AT_ONCE = 128
MOST_RATES = 20
"""Rates of an analysis that is done with others."""


def is_light(body: AnalyzeBody) -> bool:
    """Whether an analysis may be done with others: it has no problem to read, and asks for little."""
    return body.problem is None and not body.batch_sizes and len(body.rates_per_s or ()) <= MOST_RATES


class Analyst:
    """Gathers light analyses for a pool of workers, never more pieces of work at a time than it has workers."""

    def __init__(self, pool: WorkerPool):
        self._pool = pool
        self._waiting: list[tuple[AnalyzeBody, asyncio.Future[Answer]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def do(self, body: AnalyzeBody, *, time_limit_s: float) -> Answer:
        """Analyse; errors as of `WorkerPool.do`."""
        if len(self._waiting) >= self._pool.most_waiting:
            raise FullError(self._pool.retry_after_s)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, answer))
        self._begin(time_limit_s)
        return await answer

    def _begin(self, time_limit_s: float) -> None:
        while self._waiting and len(self._running) < self._pool.workers:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            work = asyncio.create_task(self._do(batch, time_limit_s))
            self._running.add(work)
            work.add_done_callback(self._running.discard)
            work.add_done_callback(lambda _: self._begin(time_limit_s))

    async def _do(self, batch: list[tuple[AnalyzeBody, asyncio.Future[Answer]]], time_limit_s: float) -> None:
        batch = [(body, answer) for body, answer in batch if not answer.done()]  # the others' clients have gone away
        if not batch:
            return
        try:
            task = Task("analyze_many", [body for body, _ in batch], time_limit_s)
            answers = (await self._pool.do(task, time_limit_s=time_limit_s)).summary["answers"]
        except Exception as error:
            if len(batch) > 1:  # one of them may have taken the others with it
                await asyncio.gather(*(self._do([one], time_limit_s) for one in batch))
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
        else:
            for (_, waiting), found in zip(batch, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(found)
