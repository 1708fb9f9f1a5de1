"""One replica that serves requests as time goes on: continuous batching, chunked prefill, and a KV cache.

`simulate` runs an engine over requests that are all known; here they come while replicas come and go. The rules are the
same, but for the KV cache: a request is admitted when the cache has room for all that it will hold, so that none is
preempted. Where the cache is no limit, times are equal to those of `simulate` (a test says so).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from inferno_milp.problem.sections import Profile

ENDLESS = 2**62


@dataclass(slots=True)
class Request:
    """A request; times in ms of the emulation, NaN until they are known."""

    arrival_ms: float
    input_tokens: int
    output_tokens: int
    first_ms: float = math.nan
    last_ms: float = math.nan

    @property
    def tokens(self) -> int:
        """Tokens that it holds in the cache at its end."""
        return self.input_tokens + self.output_tokens - 1


@dataclass(slots=True)
class Replica:
    """An engine at work.

    Attributes
    ----------
    profile : how fast it is.
    max_batch : sequences that run at once.
    on_first, on_last : called with a request when it has its first, and its last token.
    """

    profile: Profile
    max_batch: int
    on_first: Callable[[Request], None]
    on_last: Callable[[Request], None]
    now_ms: float = 0.0
    waiting: deque[Request] = field(default_factory=deque)
    _ends: list[tuple[int, int, Request]] = field(default_factory=list)
    _iteration: int = 0
    _context: int = 0
    _reserved: int = 0
    _partial: Request | None = None
    _done_tokens: int = 0
    _count: int = 0

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._ends) + (self._partial is not None)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    @property
    def kv_use(self) -> float:
        """Share of the KV cache in use; of the batch's places where the cache is no limit."""
        if self.profile.kv_tokens is None:
            return self.running / self.max_batch
        return min((self._context + self._done_tokens) / self.profile.kv_tokens, 1.0)

    def advance(self, until_ms: float) -> None:
        """Serve up to a time; an iteration that has begun by then is finished."""
        while self.now_ms < until_ms:
            if not self.running and (not self.waiting or self.waiting[0].arrival_ms > self.now_ms):
                coming = self.waiting[0].arrival_ms if self.waiting else math.inf
                self.now_ms = min(max(coming, self.now_ms), until_ms)
                if self.now_ms >= until_ms:
                    return
                continue
            self._iterate(until_ms)

    def _iterate(self, until_ms: float) -> None:
        """Do one iteration, or all those in one leap in which nobody comes or goes."""
        p, decoding = self.profile, len(self._ends)
        left, prompt, square, prompt_context = max(p.token_budget - decoding, 1), 0, 0.0, 0
        through: list[Request] = []
        while left > 0:
            if self._partial is None and not self._admit():
                break
            request = self._partial
            assert request is not None
            chunk = min(request.input_tokens - self._done_tokens, left)
            square += (2.0 * self._done_tokens + chunk) * chunk
            prompt, left = prompt + chunk, left - chunk
            self._done_tokens += chunk
            prompt_context += self._done_tokens
            if self._done_tokens < request.input_tokens:
                break
            through.append(request)
            self._partial, self._done_tokens = None, 0
            if decoding + len(through) >= self.max_batch:
                break
        steps, duration = 1, p.alpha_ms + p.beta_ms * decoding + p.kappa_ms * (self._context + decoding)
        if prompt or through:
            base = max(p.alpha_ms, p.gamma_ms) - p.alpha_ms if prompt else 0.0
            duration += base + p.delta_ms * prompt + p.prefill_quadratic_ms * square + p.kappa_ms * prompt_context
        elif decoding:
            steps = self._leap(duration, decoding, until_ms)
            duration = steps * (duration + p.kappa_ms * decoding * (steps - 1) / 2)
        self.now_ms += max(duration, 1e-6)
        self._iteration += steps
        self._context += decoding * steps
        for request in through:
            request.first_ms = self.now_ms + p.overhead_ms
            self.on_first(request)
            self._count += 1
            heappush(self._ends, (self._iteration + request.output_tokens - 1, self._count, request))
            self._context += request.input_tokens
        while self._ends and self._ends[0][0] <= self._iteration:
            request = heappop(self._ends)[2]
            request.last_ms = self.now_ms + p.overhead_ms
            self._context -= request.tokens
            self._reserved -= request.tokens
            self.on_last(request)

    def _admit(self) -> bool:
        """Take the next request that waits into the batch, if there is a place and room for it."""
        if not self.waiting or self.waiting[0].arrival_ms > self.now_ms or self.running >= self.max_batch:
            return False
        request = self.waiting[0]
        limit = ENDLESS if self.profile.kv_tokens is None else self.profile.kv_tokens
        if self._reserved + request.tokens > limit and self._reserved:
            return False
        self.waiting.popleft()
        self._reserved += request.tokens
        self._partial, self._done_tokens = request, 0
        return True

    def _leap(self, duration: float, decoding: int, until_ms: float) -> int:
        """Return how many iterations are alike: until a sequence ends, one that may join comes, or the time is up."""
        steps = self._ends[0][0] - self._iteration
        limit = until_ms
        if self.waiting and len(self._ends) < self.max_batch:
            limit = min(limit, self.waiting[0].arrival_ms)
        wait, growth = limit - self.now_ms, self.profile.kappa_ms * decoding
        if wait <= 0 or duration <= 0:
            return 1 if wait <= 0 else steps
        if growth > 0:
            half = duration - growth / 2
            reach = (math.sqrt(half * half + 2 * growth * wait) - half) / growth
        else:
            reach = wait / duration
        return max(min(steps, math.ceil(reach - 1e-12)), 1)
