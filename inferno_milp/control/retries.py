"""Tries of a request that may succeed later, further and further apart."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential


def retrying(
    retries: int, longest_wait_s: float, may_succeed: Callable[[BaseException], bool], pause: Callable[[float], None]
) -> Retrying:
    """Return what calls a function again.

    Parameters
    ----------
    retries : further tries; the last one's error is raised.
    may_succeed : whether another try may, after this error.
    pause : waits so many seconds.
    """
    return Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_random_exponential(multiplier=0.4, max=longest_wait_s),
        retry=retry_if_exception(may_succeed),
        sleep=pause,
        reraise=True,
    )
