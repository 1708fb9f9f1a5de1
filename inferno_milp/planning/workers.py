"""Independent pieces of work: one after the other, over the cores of a machine (joblib), or over a Dask cluster.

Results come back in the order of the pieces, whoever did them. A worker that dies loses nothing: its pieces are done
again. Pieces on which workers keep dying are handed back as `Lost`. A scheduler that goes away is survived as well:
what it has not handed back is done here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from inferno_milp.errors import OptionError

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
"""Seconds that a scheduler has to answer."""
MOST_DEATHS = 3
"""Workers that may die over a piece of work before it is given up."""
AHEAD = 4
"""Batches of work for each worker: more balance better, fewer travel better."""
MOST_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Lost:
    """A piece of work that could not be done: workers died over it."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Batch(Generic[T]):
    """Some of the pieces, by their numbers."""

    numbers: tuple[int, ...]
    items: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class _Work(Generic[T, R]):
    """Does a batch; a class of its own, so that it can be sent to another process."""

    function: Callable[[T], R]

    def __call__(self, batch: _Batch[T]) -> list[tuple[int, R]]:
        return [(number, self.function(item)) for number, item in zip(batch.numbers, batch.items, strict=True)]


def spread(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    on_done: Callable[[int, int], None] | None = None,
    on_result: Callable[[int, R | Lost], None] | None = None,
) -> list[R | Lost]:
    """Do every piece of work.

    Parameters
    ----------
    function : what is done with each item; it and the items must be picklable, unless it is done here.
    jobs : processes on this machine; 1 is this one, -1 as many as there are cores. Needs joblib beyond 1.
    scheduler : address of a Dask scheduler, `tcp://host:8786`; the work goes there. Its workers need this package.
    on_done : called with the number of pieces done, and of all.
    on_result : called with the number of a piece, from 0, and its result, as soon as it is there.

    Returns
    -------
    list
        One result for each item, in their order; `Lost` for an item that kills its workers.

    Raises
    ------
    OptionError
        If `jobs` cannot be, no scheduler answers, its workers do not have this package, or a package is not installed.
    """
    if jobs == 0 or jobs < -1:
        raise OptionError(f"jobs must be at least 1, or -1 for all cores, not {jobs}")
    if scheduler is not None:
        client = _connect(scheduler)
        try:
            return _gathered(_on_dask(client, function, items), items, function, on_done, on_result)
        finally:
            client.close(timeout=2)
    results = _here(function, items) if jobs == 1 else _on_cores(function, items, jobs)
    return _gathered(results, items, function, on_done, on_result)


def _gathered(
    results: Iterator[tuple[int, R | Lost]],
    items: Sequence[T],
    function: Callable[[T], R],
    on_done: Callable[[int, int], None] | None,
    on_result: Callable[[int, R | Lost], None] | None,
) -> list[R | Lost]:
    found: dict[int, R | Lost] = {}

    def take(number: int, result: R | Lost) -> None:
        found[number] = result
        if on_result is not None:
            on_result(number, result)
        if on_done is not None:
            on_done(len(found), len(items))

    for number, result in results:
        take(number, result)
    missing = [i for i in range(len(items)) if i not in found]
    if missing:
        logger.warning("%d of %d pieces of work did not come back: they are done here", len(missing), len(items))
    for i in missing:
        take(i, function(items[i]))
    return [found[i] for i in range(len(items))]


def _here(function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
    for i, item in enumerate(items):
        yield i, function(item)


def _batches(items: Sequence[T], numbers: Sequence[int], workers: int) -> list[_Batch[T]]:
    size = min(max(len(numbers) // (AHEAD * max(workers, 1)), 1), MOST_AT_ONCE)
    starts = range(0, len(numbers), size)
    return [_Batch(tuple(numbers[i : i + size]), tuple(items[n] for n in numbers[i : i + size])) for i in starts]


def _on_cores(function: Callable[[T], R], items: Sequence[T], jobs: int) -> Iterator[tuple[int, R | Lost]]:
    try:
        from joblib import Parallel, cpu_count, delayed
        from joblib.externals.loky.process_executor import TerminatedWorkerError
    except ImportError:
        raise OptionError("--jobs needs joblib: pip install 'inferno-milp[parallel]'") from None
    workers = cpu_count() if jobs == -1 else jobs
    work, left = _Work(function), dict.fromkeys(range(len(items)))

    def run(batches: list[_Batch[T]]) -> Iterator[tuple[int, R | Lost]]:
        for results in Parallel(n_jobs=workers, return_as="generator_unordered")(delayed(work)(b) for b in batches):
            for number, result in results:
                left.pop(number, None)
                yield number, result

    try:
        yield from run(_batches(items, [*left], workers))
        return
    except TerminatedWorkerError:
        logger.warning("a worker process died; %d pieces of work are done again, few at a time", len(left))
    while left:
        # Few at a time, so that a piece that kills its worker is found; each of those few that are lost is tried alone.
        few = [_Batch((number,), (items[number],)) for number in [*left][:workers]]
        try:
            yield from run(few)
        except TerminatedWorkerError:
            for batch in few:
                if batch.numbers[0] in left:
                    yield from _alone(run, batch, TerminatedWorkerError)
                    left.pop(batch.numbers[0], None)


def _alone(
    run: Callable[[list[_Batch[T]]], Iterator[tuple[int, R | Lost]]], batch: _Batch[T], died: type[Exception]
) -> Iterator[tuple[int, R | Lost]]:
    """Try a piece that may kill its worker, with no other beside it."""
    for _ in range(MOST_DEATHS):
        try:
            yield from run([batch])
            return
        except died:
            continue
    yield batch.numbers[0], Lost(f"{MOST_DEATHS} worker processes died over it")


def _connect(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise OptionError("--scheduler needs Dask: pip install 'inferno-milp[dask]'") from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # what matters of a lost connection is said here
    try:
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise OptionError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    faults = _worker_faults(client)
    if faults:
        client.close(timeout=2)
        raise OptionError(f"the Dask cluster at {scheduler} cannot do the work: {faults}")
    return client


def _worker_faults(client: Client) -> str:
    """Return why the workers could not do the work; empty if they can."""
    from inferno_milp._version import __version__

    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        return "it has no workers"
    found: dict[str, Any] = client.run(_version_there, on_error="return")
    wrong = {str(version) for version in found.values() if version != __version__}
    if not wrong:
        return ""
    return f"its workers need inferno-milp {__version__}, and have {', '.join(sorted(wrong))}"


def _version_there() -> str:
    try:
        from inferno_milp._version import __version__
    except ImportError:
        return "none"
    return __version__


def _on_dask(client: Client, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R | Lost]]:
    """Send batches to the cluster; Dask itself does again what dead workers had."""
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    workers = sum(client.nthreads().values())
    numbers = list(range(len(items)))
    work = _Work(function)
    waiting = {client.submit(work, batch, pure=False): batch for batch in _batches(items, numbers, workers)}
    completed = as_completed(list(waiting), loop=client.loop)
    try:
        for future in completed:
            batch = waiting.pop(future)
            try:
                yield from future.result()
            except KilledWorker as error:
                if len(batch.items) == 1:
                    yield batch.numbers[0], Lost(f"workers died over it: {error}")
                    continue
                logger.warning("workers died over %d pieces of work: each is tried alone", len(batch.items))
                for number, item in zip(batch.numbers, batch.items, strict=True):
                    alone = _Batch((number,), (item,))
                    again = client.submit(work, alone, pure=False)
                    waiting[again] = alone
                    completed.add(again)
    except (CommClosedError, FutureCancelledError, OSError, TimeoutError) as error:
        logger.warning("the Dask scheduler went away: %s", error)
