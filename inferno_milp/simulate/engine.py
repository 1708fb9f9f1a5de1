"""One replica, iteration by iteration: the discrete-event simulation itself.

Iterations that hold no prompt work and in which nobody comes or goes are alike, so they are taken in one leap, whose
length and duration are exact. The same function runs compiled where numba is installed and as plain Python where it
is not; it keeps to what both know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

QUEUE_PER_BATCH = 10
"""Queue limit by default, as a multiple of the max batch size."""
TOKEN_BUDGET = 8192
"""Tokens of an iteration, by default."""
LEAST_GAP_MS, GAP_STEP, GAP_BINS = 1e-3, 0.01, 2400
"""Times between tokens are counted in bins that are 1 % wide, from a microsecond to seven hours."""
UNLIMITED = 2**62
"""More KV-cache tokens than there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One inference engine with continuous batching, chunked prefill and a KV cache.

    An iteration with B decoding sequences, prompt chunks of P tokens in all and C tokens of context takes
    (α, or max(α, γ) if P > 0) + β·B + δ·P + κ·C ms; a prompt of I tokens takes q·I² more, spread over its chunks.

    Attributes
    ----------
    alpha_ms, beta_ms, gamma_ms, delta_ms, kappa_ms : α, β, γ, δ, κ, ms.
    prefill_quadratic_ms : q, ms per squared prompt token.
    overhead_ms : time outside the engine, added to the time to first token, ms.
    lag_iterations : decode iterations by which tokens come out late, for a request that finds the engine at work.
    max_batch : N, sequences that run at once.
    max_queue : Q, further requests in the system before arrivals are turned away; None is 10·N.
    token_budget : M, tokens in an iteration: one for each decoding sequence, the rest for prompts, at least one.
    kv_tokens : tokens that the KV cache holds; None is no limit.
    """

    alpha_ms: float
    beta_ms: float
    gamma_ms: float
    delta_ms: float
    kappa_ms: float = 0.0
    prefill_quadratic_ms: float = 0.0
    overhead_ms: float = 0.0
    lag_iterations: float = 0.0
    max_batch: int
    max_queue: int | None = None
    token_budget: int = TOKEN_BUDGET
    kv_tokens: int | None = None

    @property
    def places(self) -> int:
        """Requests that the engine and its queue hold, N + Q."""
        queue = QUEUE_PER_BATCH * self.max_batch if self.max_queue is None else self.max_queue
        return int(self.max_batch + queue)

    def __post_init__(self) -> None:
        times = ("alpha_ms", "beta_ms", "gamma_ms", "delta_ms", "kappa_ms", "prefill_quadratic_ms", "overhead_ms")
        faults = [
            f"{name} must be finite and at least 0"
            for name in (*times, "lag_iterations")
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0)
        ]
        least = {"max_batch": 1, "max_queue": 0, "token_budget": 1, "kv_tokens": 1}
        for name, value in ((name, getattr(self, name)) for name in least):
            if value is not None and (value != int(value) or value < least[name]):
                faults.append(f"{name} must be whole and at least {least[name]}")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened to every request, one element each, in the order of arrival.

    Attributes
    ----------
    arrival_ms : when it came.
    ttft_ms : time from arrival to first token; NaN where turned away.
    end_to_end_ms : time from arrival to last token; NaN where turned away.
    output_tokens : tokens asked for.
    preemptions : how often it lost its place and its KV cache.
    gaps : times between tokens, counted from `measured_from_ms` on, in bins (see `gap_percentile`); those of whole
        leaps are counted as their mean, and preempted sequences' as if they had gone on.
    running : mean sequences in the batch, from `measured_from_ms` to the last arrival (one figure).
    """

    arrival_ms: FloatArray
    ttft_ms: FloatArray
    end_to_end_ms: FloatArray
    output_tokens: IntArray
    preemptions: IntArray
    gaps: FloatArray
    running: float

    @property
    def served(self) -> npt.NDArray[np.bool_]:
        """Which requests were served."""
        return ~np.isnan(self.ttft_ms)

    @property
    def itl_ms(self) -> FloatArray:
        """Mean inter-token latency of each request, ms; NaN where turned away or with a single token."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return np.asarray((self.end_to_end_ms - self.ttft_ms) / gaps)


def run(
    engine: Engine,
    arrival_ms: npt.ArrayLike,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    *,
    measured_from_ms: float = 0.0,
    compiled: bool | None = None,
) -> Trace:
    """Run an engine over given requests, until the last one has its last token.

    Parameters
    ----------
    arrival_ms : times of arrival in rising order, ms; shape (requests,).
    input_tokens, output_tokens : tokens of each request; whole, inputs ≥ 0, outputs ≥ 1; shape (requests,).
    measured_from_ms : when counting times between tokens, and running sequences, begins.
    compiled : whether to run compiled by numba; None is if numba is installed.

    Raises
    ------
    ValueError
        If the arrays do not fit together, arrivals fall, or tokens are out of range.

    Notes
    -----
    First come, first served. In every iteration each decoding sequence makes one token; what the token budget leaves
    goes to the prompt begun and then to waiting requests, cut into chunks. Where the KV cache is full, the sequence
    admitted last gives up its place and goes to the front of the queue; all it had computed is computed again.
    Requests too long for the whole cache are turned away, as are those that find N + Q others in the system.
    """
    arrivals = np.asarray(arrival_ms, dtype=float)
    inputs, outputs = (np.asarray(tokens).astype(np.int64) for tokens in (input_tokens, output_tokens))
    if not arrivals.ndim == 1 or not arrivals.shape == inputs.shape == outputs.shape:
        raise ValueError("arrival_ms, input_tokens and output_tokens must be one-dimensional and of one length")
    if arrivals.size and not (np.isfinite(arrivals).all() and (np.diff(arrivals) >= 0).all()):
        raise ValueError("arrival_ms must be finite and must not fall")
    if (inputs < 0).any() or (outputs < 1).any():
        raise ValueError("input_tokens must be at least 0, output_tokens at least 1")
    return _run_kernel(engine, arrivals, inputs, outputs, measured_from_ms, compiled, 0, np.zeros(1))


def run_clients(
    engine: Engine,
    clients: int,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    think_ms: npt.ArrayLike,
    *,
    measured_from_ms: float = 0.0,
    compiled: bool | None = None,
) -> Trace:
    """Run an engine for a number of clients, each of whom sends the next request some time after the last token.

    Parameters
    ----------
    clients : how many; they come one after the other, `think_ms` apart.
    input_tokens, output_tokens, think_ms : of each request, in the order in which they are sent; shape (requests,).
    measured_from_ms, compiled : as for `run`.

    Raises
    ------
    ValueError
        If the arrays do not fit together or are out of range, or there are more clients than requests, or than
        places in the engine and its queue.
    """
    inputs, outputs = (np.asarray(tokens).astype(np.int64) for tokens in (input_tokens, output_tokens))
    think = np.asarray(think_ms, dtype=float)
    if not inputs.ndim == 1 or not inputs.shape == outputs.shape == think.shape:
        raise ValueError("input_tokens, output_tokens and think_ms must be one-dimensional and of one length")
    if (inputs < 1).any() or (outputs < 1).any() or not (np.isfinite(think) & (think >= 0)).all():
        raise ValueError("input_tokens and output_tokens must be at least 1, think_ms finite and at least 0")
    if not 1 <= clients <= min(engine.places, inputs.size):
        raise ValueError(f"clients must be from 1 to {min(engine.places, inputs.size)}")
    arrivals = np.full(inputs.size, np.inf)
    arrivals[:clients] = np.cumsum(think[:clients])
    return _run_kernel(engine, arrivals, inputs, outputs, measured_from_ms, compiled, clients, think)


def _run_kernel(
    engine: Engine,
    arrivals: FloatArray,
    inputs: IntArray,
    outputs: IntArray,
    measured_from_ms: float,
    compiled: bool | None,
    clients: int,
    think: FloatArray,
) -> Trace:
    kernel = _compiled() if compiled is not False else None
    if compiled and kernel is None:
        raise ValueError("numba is not installed: pip install 'inferno-milp[fast]'")
    arrivals = arrivals.copy()
    first, last = np.full(arrivals.size, np.nan), np.full(arrivals.size, np.nan)
    preemptions = np.zeros(arrivals.size, dtype=np.int64)
    parameters = (
        float(engine.alpha_ms),
        float(engine.beta_ms),
        float(max(engine.alpha_ms, engine.gamma_ms)),
        float(engine.delta_ms),
        float(engine.kappa_ms),
        float(engine.prefill_quadratic_ms),
        float(engine.overhead_ms),
        float(engine.lag_iterations),
        int(engine.max_batch),
        engine.places,
        int(engine.token_budget),
        int(UNLIMITED if engine.kv_tokens is None else engine.kv_tokens),
        float(measured_from_ms),
    )
    gaps = np.zeros(GAP_BINS)
    if kernel is not None:
        queue = np.zeros_like(outputs)
        running = kernel(*parameters, arrivals, inputs, outputs, first, last, preemptions, gaps, queue, clients, think)
    else:
        lists = first.tolist(), last.tolist(), preemptions.tolist(), gaps.tolist(), [0] * arrivals.size
        times = arrivals.tolist()
        running = _run(*parameters, times, inputs.tolist(), outputs.tolist(), *lists, clients, think.tolist())
        arrivals = np.array(times)
        first, last, gaps = np.array(lists[0]), np.array(lists[1]), np.array(lists[3])
        preemptions = np.array(lists[2], dtype=np.int64)
    return Trace(arrivals, first - arrivals, last - arrivals, outputs, preemptions, gaps, running)


def gap_percentile(gaps: FloatArray, percent: float) -> float:
    """Percentile of the times between tokens that were counted, ms, to 1 %; NaN if there are none."""
    total = np.cumsum(gaps)
    if total[-1] == 0:
        return math.nan
    position = int(np.searchsorted(total, percent / 100 * total[-1]))
    return LEAST_GAP_MS * math.exp((position + 0.5) * GAP_STEP)


@cache
def _compiled() -> Callable[..., float] | None:
    try:
        from numba import njit
    except ImportError:
        return None
    compiled: Callable[..., float]
    try:
        compiled = njit(cache=True)(_run)
    except RuntimeError:  # no folder to keep the compiled code in
        compiled = njit(_run)
    return compiled


def _run(  # noqa: C901 - one loop over one state: numba compiles it whole, and calls cost plain Python much
    alpha: float,
    beta: float,
    prompt_base: float,
    delta: float,
    kappa: float,
    quadratic: float,
    overhead: float,
    lag: float,
    max_batch: int,
    max_system: int,
    budget: int,
    kv_tokens: int,
    measured_from: float,
    arrivals: Any,
    inputs: Any,
    outputs: Any,
    first: Any,
    last: Any,
    preemptions: Any,
    gaps: Any,
    queue: Any,
    clients: int,
    think: Any,
) -> float:
    """Write the times of first and last tokens (NaN: turned away) and the preemptions; return the mean running.

    All decoding sequences make a token in every iteration, so a sequence's end is known as the number of an iteration
    when it begins to decode. Those numbers lie in a heap, as `end · requests + request`. With a number of clients
    (0: none) a request that is done brings the next one, `think` later; until then its arrival is infinite.
    """
    requests = len(arrivals)
    limited = kv_tokens < UNLIMITED
    lags = [0.0] * requests if lag > 0 else [0.0]
    heap = [0] * 0
    head, tail = 0, 0  # of the queue, in the order of arrival
    returned = [0] * 0  # preempted, the front of the queue last
    admitted = [0] * 0  # in the order of admission, kept where the KV cache is limited; may hold some that left
    ends = [-1] * requests if limited else [-1]  # iteration of the last token of decoding requests
    begins = [0] * requests if limited else [0]  # iteration after which it began to decode
    made = [0] * requests if limited else [0]  # tokens made before that
    now, iteration, running_ms, measured_ms = 0.0, 0, 0.0, 0.0
    measured_until = arrivals[requests - 1] if requests > 0 else 0.0
    sent = clients if clients > 0 else requests  # requests whose arrival is known
    last_gap, place = -1.0, 0
    coming, in_system, decoding = 0, 0, 0
    context = 0  # tokens in the KV cache of the decoding sequences
    partial, partial_left, partial_done = -1, 0, 0  # the request whose prompt is cut, tokens left and done
    through, through_tokens, count = [0] * max_batch, [0] * max_batch, 0  # prompts that end in this iteration
    while True:
        # Who came meanwhile waits, or is turned away.
        while coming < requests and arrivals[coming] <= now:
            too_long = limited and inputs[coming] + outputs[coming] - 1 > kv_tokens
            if in_system < max_system and not too_long:
                if lag > 0 and in_system > 0:
                    lags[coming] = lag
                in_system += 1
                queue[tail] = coming
                tail += 1
            coming += 1
        if in_system == 0:
            if coming == requests:
                return running_ms / measured_ms if measured_ms > 0 else 0.0
            if now >= measured_from:
                measured_ms += max(arrivals[coming] - now, 0.0)
            now = max(now, arrivals[coming])
            continue
        # Decoding sequences first; where the cache cannot take a token of each, the last admitted leaves.
        preempted = False
        free = kv_tokens - context - partial_done
        while limited and free < decoding:
            preempted = True
            if partial >= 0:
                victim = admitted.pop()
                partial, partial_left, partial_done = -1, 0, 0
            else:
                victim = admitted.pop()
                while ends[victim] < 0:
                    victim = admitted.pop()
                made[victim] += iteration - begins[victim]
                context -= inputs[victim] + made[victim] - 1
                ends[victim] = -1
                decoding -= 1
            preemptions[victim] += 1
            returned.append(victim)
            free = kv_tokens - context - partial_done
        free -= decoding
        left = max(budget - decoding, 1)
        prompt, prompt_context, square = 0, 0, 0.0
        # Then the prompt that was cut …
        if partial >= 0:
            chunk = min(partial_left, left)
            if limited and free < chunk:
                preempted = True
                preemptions[partial] += 1
                returned.append(admitted.pop())
                partial, partial_left, partial_done = -1, 0, 0
            else:
                prompt, left, free = chunk, left - chunk, free - chunk
                square += (2.0 * partial_done + chunk) * chunk
                partial_done += chunk
                partial_left -= chunk
                prompt_context += partial_done
                if partial_left == 0:
                    through[0], through_tokens[0], count = partial, partial_done, 1
                    partial, partial_done = -1, 0
        # … and then those that wait.
        joined = decoding + count + (1 if partial >= 0 else 0)
        while not preempted and left > 0 and joined < max_batch:
            if returned:
                request = returned[-1]
                tokens = inputs[request] + made[request]
            elif head < tail:
                request = queue[head]
                tokens = inputs[request]
            else:
                break
            if tokens == 0:
                if limited and free < 1:
                    break
                head += 1
                late = overhead
                if lag > 0:
                    late += lags[request] * (alpha + beta * decoding + kappa * (context + decoding))
                    lags[request] = late - overhead
                first[request] = now + late
                if outputs[request] == 1:
                    last[request] = now + late
                    in_system -= 1
                    continue
                if limited:
                    free -= 1
                    begins[request], made[request] = iteration, 1
                    ends[request] = iteration + outputs[request] - 1
                    admitted.append(request)
                heappush(heap, (iteration + outputs[request] - 1) * requests + request)
                decoding += 1
                joined += 1
                continue
            chunk = min(tokens, left)
            if limited and free < chunk:
                break
            if returned:
                returned.pop()
            else:
                head += 1
            joined += 1
            if limited:
                admitted.append(request)
            prompt, left, free = prompt + chunk, left - chunk, free - chunk
            square += float(chunk) * chunk
            prompt_context += chunk
            if chunk < tokens:
                partial, partial_left, partial_done = request, tokens - chunk, chunk
            else:
                through[count], through_tokens[count] = request, tokens
                count += 1
        if joined == 0:
            continue  # all were preempted, or gone at once
        # The iteration, or all iterations up to the next that differs.
        steps = 1
        duration = alpha + beta * decoding + kappa * (context + decoding)
        if prompt > 0:
            duration += prompt_base - alpha + delta * prompt + quadratic * square + kappa * prompt_context
        elif not preempted:
            steps = heap[0] // requests - iteration
            if limited:
                while ends[heap[0] % requests] != heap[0] // requests:
                    heappop(heap)
                steps = min(heap[0] // requests - iteration, (kv_tokens - context) // decoding)
            growth = kappa * decoding
            if coming < requests and joined < max_batch and head == tail and not returned:
                # Who comes next may join: the first iteration boundary that is not before the arrival.
                wait = arrivals[coming] - now
                if steps * (duration + growth * (steps - 1) / 2) >= wait:
                    if growth > 0:
                        half = duration - growth / 2
                        reach = (math.sqrt(half * half + 2 * growth * wait) - half) / growth
                    else:
                        reach = wait / duration if duration > 0 else 1.0
                    steps = min(steps, max(math.ceil(reach), 1))
                    while steps > 1 and (steps - 1) * (duration + growth * (steps - 2) / 2) >= wait:
                        steps -= 1
                    while steps * (duration + growth * (steps - 1) / 2) < wait:
                        steps += 1
            duration = steps * (duration + growth * (steps - 1) / 2)
        if decoding > 0 and now >= measured_from:
            gap = duration / steps
            if gap != last_gap:
                place = int(math.log(max(gap, LEAST_GAP_MS) / LEAST_GAP_MS) / GAP_STEP)
                last_gap, place = gap, min(place, GAP_BINS - 1)
            gaps[place] += steps * decoding
        if measured_from <= now < measured_until:
            running_ms += joined * duration
            measured_ms += duration
        now += duration
        iteration += steps
        context += decoding * steps
        while coming < requests and arrivals[coming] < now:
            too_long = limited and inputs[coming] + outputs[coming] - 1 > kv_tokens
            if in_system < max_system and not too_long:
                if lag > 0:
                    lags[coming] = lag
                in_system += 1
                queue[tail] = coming
                tail += 1
            coming += 1
        # Prompts that are through have made a token.
        decoding_now, context_now = decoding, context
        for k in range(count):
            request, tokens = through[k], through_tokens[k]
            done = (made[request] if limited else 0) + 1
            if done == 1:
                late = overhead
                if lag > 0:
                    late += lags[request] * (alpha + beta * decoding_now + kappa * context_now)
                    lags[request] = late - overhead
                first[request] = now + late
            if limited:
                made[request] = done
            if done == outputs[request]:
                last[request] = now + overhead + (lags[request] if lag > 0 else 0.0)
                in_system -= 1
                if sent < requests:
                    following = last[request] + think[sent]
                    place_of = sent
                    while place_of > coming and arrivals[place_of - 1] > following:
                        arrivals[place_of] = arrivals[place_of - 1]
                        place_of -= 1
                    arrivals[place_of] = following
                    sent += 1
                continue
            end = iteration + outputs[request] - done
            if limited:
                begins[request], ends[request] = iteration, end
            heappush(heap, end * requests + request)
            decoding += 1
            context += tokens
        count = 0
        # Who has made the last token leaves.
        limit = (iteration + 1) * requests
        while len(heap) > 0 and heap[0] < limit:
            request = heappop(heap) % requests
            if limited:
                if ends[request] != iteration:
                    continue
                ends[request] = -1
            last[request] = now + overhead + (lags[request] if lag > 0 else 0.0)
            context -= inputs[request] + outputs[request] - 1
            decoding -= 1
            in_system -= 1
            if sent < requests:
                following = last[request] + think[sent]
                place_of = sent
                while place_of > coming and arrivals[place_of - 1] > following:
                    arrivals[place_of] = arrivals[place_of - 1]
                    place_of -= 1
                arrivals[place_of] = following
                sent += 1
