"""A deliberately simple, iteration-by-iteration simulator of one LLM inference engine.

Continuous batching with chunked prefill, a bounded system size and (optionally) a bounded KV cache with
preemption by recomputation. Every iteration is one pass of one loop; nothing is leapt over or cached.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NaiveEngine:
    """Parameters of the engine; times are in milliseconds."""

    alpha_ms: float
    beta_ms: float
    gamma_ms: float
    delta_ms: float
    kappa_ms: float = 0.0
    prefill_quadratic_ms: float = 0.0
    overhead_ms: float = 0.0
    lag_iterations: float = 0.0
    max_batch: int
    max_queue: int
    token_budget: int = 8192
    kv_tokens: int | None = None


@dataclass
class NaiveResult:
    """One element per request, in order of arrival; times are measured from the request's arrival."""

    first_token_ms: list[float]
    last_token_ms: list[float]
    turned_away: list[bool]
    preemptions: list[int]


@dataclass(eq=False)  # compared by identity
class _Request:
    """A request's state; the last two fields are what the present iteration has scheduled for it."""

    index: int
    arrival_ms: float
    input_tokens: int
    output_tokens: int
    found_busy: bool
    prompt: int  # prompt tokens to process since the last (re)admission
    done: int = 0  # those of them processed
    generated: int = 0
    decoding: bool = False  # the prompt phase is over
    decoded: int = 0  # decode iterations since the end of the prompt phase
    extra_ms: float = 0.0  # overhead and lag, fixed at the first token
    chunk: int = 0
    decode_now: bool = False
    cached: int = 0  # tokens of the prompt that came computed, and are not lost

    def held(self) -> int:
        """KV tokens held, without what the present iteration will write."""
        return self.prompt + self.decoded if self.decoding else self.done

    def reserved(self) -> int:
        """KV tokens that the present iteration will write."""
        return self.chunk + (1 if self.decode_now else 0)


class _Simulation:
    """The state of one run."""

    def __init__(self, engine: NaiveEngine, requests: int) -> None:
        self.engine = engine
        self.now = 0.0
        self.waiting: list[_Request] = []
        self.running: list[_Request] = []
        self.result = NaiveResult([math.nan] * requests, [math.nan] * requests, [False] * requests, [0] * requests)

    def arrive(self, index: int, arrival_ms: float, input_tokens: int, output_tokens: int, cached: int) -> None:
        """Rule 1: turn the arrival away, or put it at the end of the waiting queue."""
        engine = self.engine
        in_system = len(self.waiting) + len(self.running)
        never_fits = engine.kv_tokens is not None and input_tokens + output_tokens - 1 > engine.kv_tokens
        if in_system >= engine.max_batch + engine.max_queue or never_fits:
            self.result.turned_away[index] = True
            return
        request = _Request(index, arrival_ms, input_tokens, output_tokens, in_system > 0, prompt=input_tokens)
        request.done = request.cached = cached
        self.waiting.append(request)

    def fits(self, tokens: int) -> bool:
        """Whether this many more KV tokens are free."""
        if self.engine.kv_tokens is None:
            return True
        used = sum(request.held() + request.reserved() for request in self.running)
        return self.engine.kv_tokens - used >= tokens

    def preempt_last(self) -> _Request:
        """Move the last running request to the front of the waiting queue; it loses its KV and its schedule."""
        victim = self.running.pop()
        victim.prompt = victim.input_tokens + victim.generated
        victim.done = victim.cached = 0
        victim.decoding = False
        victim.decoded = 0
        victim.chunk = 0
        victim.decode_now = False
        self.waiting.insert(0, victim)
        self.result.preemptions[victim.index] += 1
        return victim

    def make_room(self, request: _Request, tokens: int) -> tuple[bool, bool]:
        """Preempt until the tokens fit or the request itself is gone: (it is still running, any preempted)."""
        preempted = False
        while not self.fits(tokens):
            preempted = True
            if self.preempt_last() is request:
                return False, True
        return True, preempted

    def first_token(self, request: _Request, decodes: int, decode_context: int) -> None:
        """Record the first token at the present time; decodes and their context set the lag (rule 7)."""
        engine = self.engine
        request.extra_ms = engine.overhead_ms
        if request.found_busy:
            step = engine.alpha_ms + engine.beta_ms * decodes + engine.kappa_ms * decode_context
            request.extra_ms += engine.lag_iterations * step
        self.result.first_token_ms[request.index] = self.now - request.arrival_ms + request.extra_ms

    def last_token(self, request: _Request) -> None:
        """Record the last token at the present time."""
        self.result.last_token_ms[request.index] = self.now - request.arrival_ms + request.extra_ms

    def schedule(self) -> None:  # noqa: C901 - the rules, one by one
        """Rule 4: decide what the iteration starting now does, in the requests' chunk and decode_now."""
        engine = self.engine
        preempted_now = False
        for request in self.running:
            request.chunk = 0
            request.decode_now = False

        # a. Decoding requests.
        for request in list(self.running):
            if request in self.running and request.decoding:
                request.decode_now, preempted = self.make_room(request, 1)
                preempted_now = preempted_now or preempted

        # b. What is left for prompts.
        budget = max(engine.token_budget - sum(request.decode_now for request in self.running), 1)

        # c. Running requests in the prompt phase.
        for request in list(self.running):
            if request in self.running and not request.decoding:
                chunk = min(request.prompt - request.done, budget)
                if chunk == 0:
                    continue
                still_running, preempted = self.make_room(request, chunk)
                preempted_now = preempted_now or preempted
                if still_running:
                    request.chunk = chunk
                    budget -= chunk

        # d. Admissions, first come, first served.
        if preempted_now:
            return
        while self.waiting and budget > 0 and len(self.running) < engine.max_batch:
            request = self.waiting[0]
            if request.prompt == 0:
                if request.output_tokens > 1 and not self.fits(1):
                    break
                self.waiting.pop(0)
                self.admit_empty_prompt(request)
            else:
                chunk = min(request.prompt - request.done, budget)
                if not self.fits(request.done + chunk):
                    break
                self.waiting.pop(0)
                self.running.append(request)
                request.chunk = chunk
                budget -= chunk

    def admit_empty_prompt(self, request: _Request) -> None:
        """Give a request without a prompt its first token now; it then leaves, or decodes in this iteration."""
        others = [other for other in self.running if other.decoding]
        request.generated = 1
        self.first_token(request, len(others), sum(other.held() + 1 for other in others))
        if request.output_tokens == 1:
            self.last_token(request)
            return
        request.decoding = True
        request.decode_now = True
        self.running.append(request)

    def iteration_ms(self) -> float:
        """Rule 5: how long the scheduled iteration takes."""
        engine = self.engine
        decodes = [request for request in self.running if request.decode_now]
        chunks = [request for request in self.running if request.chunk > 0]
        handed = [r for r in chunks if 0 < r.cached == r.done == r.prompt - 1]
        computed = [request for request in chunks if request not in handed]
        prompt_tokens = sum(request.chunk for request in computed)
        squares = sum((request.done + request.chunk) ** 2 - request.done**2 for request in computed)
        context = sum(request.held() + 1 for request in decodes)
        context += sum(request.done + request.chunk for request in chunks)
        base = engine.alpha_ms if prompt_tokens == 0 else max(engine.alpha_ms, engine.gamma_ms)
        return (
            base
            + engine.beta_ms * (len(decodes) + len(handed))
            + engine.delta_ms * prompt_tokens
            + engine.prefill_quadratic_ms * squares
            + engine.kappa_ms * context
        )

    def finish_iteration(self) -> None:
        """Rule 6: the effects of the scheduled iteration, which ends now."""
        decodes = [request for request in self.running if request.decode_now]
        decode_context = sum(request.held() + 1 for request in decodes)
        for request in self.running:
            if request.decode_now:
                request.generated += 1
                request.decoded += 1
            elif request.chunk > 0:
                request.done += request.chunk
                if request.done == request.prompt:
                    request.decoding = True
                    request.generated += 1
                    if request.generated == 1:
                        self.first_token(request, len(decodes), decode_context)
        for request in self.running:
            if request.generated == request.output_tokens:
                self.last_token(request)
        self.running = [request for request in self.running if request.generated < request.output_tokens]


def run(  # noqa: C901 - one loop
    engine: NaiveEngine,
    arrival_ms: Sequence[float],
    input_tokens: Sequence[int],
    output_tokens: Sequence[int],
    cached_tokens: Sequence[int] | None = None,
) -> NaiveResult:
    """Simulate the engine on the requests until all of them have left; of prompts, some may come computed."""
    count = len(arrival_ms)
    cached = [0] * count if cached_tokens is None else cached_tokens
    sent = list(zip(arrival_ms, input_tokens, output_tokens, cached, strict=False))
    if len(input_tokens) != count or len(output_tokens) != count:
        raise ValueError("the three sequences must be equally long")
    if any(later < earlier for earlier, later in itertools.pairwise(arrival_ms)):
        raise ValueError("arrival_ms must be sorted")
    if any(tokens < 0 for tokens in input_tokens) or any(tokens < 1 for tokens in output_tokens):
        raise ValueError("input_tokens must be >= 0 and output_tokens >= 1")
    if engine.max_batch < 1 or engine.max_queue < 0 or engine.token_budget < 1:
        raise ValueError("max_batch and token_budget must be >= 1 and max_queue >= 0")

    simulation = _Simulation(engine, count)
    upcoming = 0  # the next request to arrive
    while True:
        if not simulation.waiting and not simulation.running:
            if upcoming == count:
                return simulation.result
            if upcoming == 0 or arrival_ms[upcoming] > simulation.now:
                simulation.now = arrival_ms[upcoming]

        # Arrivals up to and including now, after the departures at now.
        while upcoming < count and arrival_ms[upcoming] <= simulation.now:
            simulation.arrive(upcoming, *sent[upcoming])
            upcoming += 1

        simulation.schedule()
        if not any(request.reserved() for request in simulation.running):
            continue  # nothing to do at this time: try again, without advancing the clock

        # Arrivals strictly within the iteration see the system before its departures.
        end = simulation.now + simulation.iteration_ms()
        while upcoming < count and arrival_ms[upcoming] < end:
            simulation.arrive(upcoming, *sent[upcoming])
            upcoming += 1
        simulation.now = end
        simulation.finish_iteration()
