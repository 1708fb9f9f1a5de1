"""The discrete-event simulation of one replica itself, iteration by iteration.

Iterations that hold no prompt work and in which nobody comes or goes are alike, so they are taken in one leap, whose
length and duration are exact. The same function runs compiled where numba is installed and as plain Python where it
is not; it keeps to what both know.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Any

LEAST_GAP_MS, GAP_STEP, GAP_BINS = 1e-3, 0.01, 2400
"""Times between tokens are counted in bins that are 1 % wide, from a microsecond to seven hours."""
UNLIMITED = 2**62
"""More KV-cache tokens than there are."""


def play(  # noqa: C901 - one loop over one state: numba compiles it whole, and calls cost plain Python much
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
    measured_until: float,
    arrivals: Any,
    inputs: Any,
    outputs: Any,
    cached: Any,
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
    Of the prompt of a request `cached` tokens come with it, computed elsewhere; once lost they are computed here. Where
    a single one is left to compute, that is a decode step like any other.
    """
    requests = len(arrivals)
    limited = kv_tokens < UNLIMITED
    lags = [0.0] * requests if lag > 0 else [0.0]
    heap = [0] * 0
    head, tail = 0, 0  # of the queue, in the order of arrival
    returned = [0] * 0  # preempted, the front of the queue last
    gone = [0] * 0  # done in this iteration, where a client has more to send
    admitted = [0] * 0  # in the order of admission, kept where the KV cache is limited; may hold some that left
    ends = [-1] * requests if limited else [-1]  # iteration of the last token of decoding requests
    begins = [0] * requests if limited else [0]  # iteration after which it began to decode
    made = [0] * requests if limited else [0]  # tokens made before that
    now, iteration, running_ms, measured_ms = 0.0, 0, 0.0, 0.0
    last_arrival = arrivals[requests - 1] if requests > 0 else 0.0
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
        prompt, prompt_context, square, handed = 0, 0, 0.0, 0
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
            brought = 0
            if returned:
                request = returned[-1]
                tokens = inputs[request] + made[request]
            elif head < tail:
                request = queue[head]
                tokens = inputs[request]
                brought = cached[request]
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
            chunk = min(tokens - brought, left)
            if limited and free < chunk + brought:
                break
            if returned:
                returned.pop()
            else:
                head += 1
            joined += 1
            if limited:
                admitted.append(request)
            left, free = left - chunk, free - chunk - brought
            prompt_context += brought + chunk
            if brought > 0 and brought + 1 == tokens:
                handed += 1
            else:
                prompt += chunk
                square += (2.0 * brought + chunk) * chunk
            if brought + chunk < tokens:
                partial, partial_left, partial_done = request, tokens - brought - chunk, brought + chunk
            else:
                through[count], through_tokens[count] = request, tokens
                count += 1
        if joined == 0:
            continue  # all were preempted, or gone at once
        # The iteration, or all iterations up to the next that differs.
        steps = 1
        duration = alpha + beta * (decoding + handed) + kappa * (context + decoding + prompt_context)
        if prompt > 0:
            duration += prompt_base - alpha + delta * prompt + quadratic * square
        elif handed > 0:
            steps = 1
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
        if decoding > 0 and measured_from <= now < measured_until:
            gap = duration / steps
            if gap != last_gap:
                place = int(math.log(max(gap, LEAST_GAP_MS) / LEAST_GAP_MS) / GAP_STEP)
                last_gap, place = gap, min(place, GAP_BINS - 1)
            gaps[place] += steps * decoding
        if measured_from <= now < min(measured_until, last_arrival):
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
                    gone.append(request)
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
                gone.append(request)
        # Their clients send the next ones, which are kept in the order in which they come.
        while gone:
            request = gone.pop()
            if sent < requests:
                following, position = last[request] + think[sent], sent
                while position > coming and arrivals[position - 1] > following:
                    arrivals[position] = arrivals[position - 1]
                    position -= 1
                arrivals[position] = following
                sent += 1
