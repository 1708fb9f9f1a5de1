"""Law `continuous-batching`: mean times: the iterations an arrival finds, its first token, its wait.

Every term is nondecreasing in the rate: it is made of the chain's figures, which are ordered in it, by sums, products
and maxima of nondecreasing terms. docs/queueing.md derives each formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inferno_milp.queueing.arrays import TINY, FloatArray, Takes
from inferno_milp.queueing.chain import Chain
from inferno_milp.queueing.continuous_parameters import ContinuousParameters
from inferno_milp.queueing.steps import mean_steps, steps_exceed

LEAST_SPREAD = 0.01
"""Variability below this counts as this: a queue of regular arrivals and equal requests is no queue at all."""
PACE_OF_FIRST = 0.22
"""By how much the wait of those who wait falls short of its heavy-traffic form, per unit of c²_a − 1 (fitted to
GI/M/1 with gamma arrivals)."""
ALWAYS_MET = 4
"""Regular arrivals meet prompts in all iterations once these come as often as iterations do: the power of the
approach."""
FULLEST = 1 - 1e-6
"""Prompts that take a greater share of the time count as taking this much: beyond, latencies are out of all bounds."""


@dataclass(frozen=True, slots=True)
class Iteration(Takes):
    """Iterations as arrivals find them.

    Attributes
    ----------
    decoding : sequences that decode.
    prompts : prompts that begin in one.
    stalled : probability that one holds prompt work.
    found : the same of the one that an arrival finds, the prompts' tokens apart.
    meets : how often arrivals meet prompts of others, as a share of how often Poisson ones do.
    spread : variability of the prompts that come within one, 1 + c²_I and what bursts add.
    load : share of the time that goes into prompt tokens, ρ.
    decode_ms : length without prompts.
    mean_ms : mean length.
    excess_ms : by how much prompts make the one under way longer than the mean one.
    residual_ms : what is left, on average, of the one under way.
    """

    decoding: FloatArray
    prompts: FloatArray
    stalled: FloatArray
    found: FloatArray
    meets: FloatArray
    spread: FloatArray
    load: FloatArray
    decode_ms: FloatArray
    mean_ms: FloatArray
    excess_ms: FloatArray
    residual_ms: FloatArray


@dataclass(frozen=True, slots=True)
class Wait(Takes):
    """The wait of those who wait: steps with P(k+1) ∝ ratio^k for k < steps.

    Attributes
    ----------
    ratio, steps : r, and Q in steps.
    step_ms : mean length of a step.
    offset_ms : by how much the wait exceeds the steps, in heavy traffic.
    if_any_ms : mean wait.
    """

    ratio: FloatArray
    steps: FloatArray
    step_ms: FloatArray
    offset_ms: FloatArray
    if_any_ms: FloatArray

    def exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(wait > t) of those who wait."""
        result = np.ones(time_ms.size)
        late = np.flatnonzero((time_ms > np.maximum(self.offset_ms, 0.0)) & (self.ratio > 0))
        scaled = (time_ms[late] - self.offset_ms[late]) / self.step_ms[late]
        result[late] = np.clip(steps_exceed(scaled, self.ratio[late], self.steps[late]), 0.0, 1.0)
        return result


def find_iteration(engines: ContinuousParameters, throughput: FloatArray, others: FloatArray) -> Iteration:
    """Lengths of iterations while `others` are in the batch beside an arrival."""
    decoding, prompts, stalled = _beside(engines, others)
    load = np.minimum(throughput * engines.prompt_ms, FULLEST)
    decode_ms = engines.decode_base_ms + engines.beta_ms * decoding
    mean_ms = (decode_ms + engines.stall_ms * stalled) / (1 - load)
    # Share of iterations under way that hold prompts, as arrivals find them; and the compound prompts in them.
    found = stalled * (engines.decode_base_ms + engines.stall_ms)
    found /= np.maximum(engines.decode_base_ms + engines.stall_ms * stalled, TINY)
    window = throughput * mean_ms
    spread = 1 + engines.cv2_input + np.maximum(engines.cv2_arrival - 1, 0) * window / (1 + window)
    excess_ms = engines.prompt_ms**2 * spread * throughput / (1 - load**2) * prompts_met(engines, load)
    longer_ms = (decode_ms + found * engines.stall_ms) / (1 - load) - decode_ms
    taken = np.minimum(throughput * (decode_ms + engines.stall_ms + engines.prompt_ms), 1.0)
    meets = prompts_met(engines, taken)
    meets = meets + (1 - meets) * taken**ALWAYS_MET
    longer_ms = meets * longer_ms + excess_ms
    residual_ms = (decode_ms + longer_ms) / 2
    return Iteration(
        decoding=decoding,
        prompts=prompts,
        stalled=stalled,
        found=found,
        meets=meets,
        spread=spread,
        load=load,
        decode_ms=decode_ms,
        mean_ms=mean_ms,
        excess_ms=excess_ms,
        residual_ms=residual_ms,
    )


def prompts_met(engines: ContinuousParameters, load: FloatArray) -> FloatArray:
    """Wait for other prompts, as a multiple of that with Poisson arrivals; at most 1, nondecreasing in the load.

    Kraemer and Langenbach-Belz (1976) for a queue of regular arrivals; bursts are counted elsewhere.
    """
    arrival = np.minimum(engines.cv2_arrival, 1.0)
    both = np.maximum(arrival + engines.cv2_input, LEAST_SPREAD)
    with np.errstate(divide="ignore", under="ignore"):
        rarely = np.exp(-2 * (1 - load) * (1 - arrival) ** 2 / (3 * np.maximum(load, TINY) * both))
    return np.asarray(both / np.maximum(1 + engines.cv2_input, LEAST_SPREAD) * rarely)


def first_token_ms(
    engines: ContinuousParameters, throughput: FloatArray, others: FloatArray, p_empty: FloatArray, iteration: Iteration
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean time from admission to first token: of a request alone, and of one that finds the engine at work.

    The third is the mean time that more prompts take, if the iteration found holds some.
    """
    busy = 1 - p_empty
    prompt_ms, decoding = engines.prompt_ms, iteration.decoding
    base_ms = engines.prompt_base_ms + engines.beta_ms * decoding
    # Prompts that come within the residual iteration on either side of this one run in its iteration too, …
    mates = arrivals_within(throughput * iteration.residual_ms, engines.cv2_arrival)
    beside_ms = prompt_ms * np.minimum(2 * mates, others)
    # … and those ahead may use up the token budget first.
    next_ms = base_ms + np.minimum(throughput * prompt_ms * (base_ms + 1.5 * prompt_ms), others * prompt_ms)
    spilled_ms = engines.spill * np.minimum(mates, others / 2) * next_ms
    alone_ms = engines.chunks * engines.prompt_base_ms + prompt_ms
    own_ms = engines.chunks * base_ms + prompt_ms
    together_ms = iteration.residual_ms + own_ms + beside_ms + spilled_ms
    # The prompts as a queue of their own, where the token budget lets few of them into an iteration.
    budget = np.maximum(engines.token_budget - decoding, 1)
    service_ms = prompt_ms + base_ms * engines.input_tokens / budget
    spare = 1 - np.minimum(throughput * service_ms, FULLEST)
    queue_ms = throughput * service_ms**2 * (1 + engines.cv2_input) / (2 * spare) * prompts_met(engines, 1 - spare)
    working_ms = iteration.decode_ms + engines.stall_ms * iteration.stalled
    # Of the arrivals that find the engine at work; regular ones rarely do at low rates, and then wait less too.
    of_busy = np.maximum(busy, TINY) ** np.minimum((1 + engines.cv2_arrival) / 2, 1.0)
    ahead_ms = np.minimum(queue_ms / of_busy, engines.most_others * service_ms)
    one_by_one_ms = ahead_ms + working_ms / 2 + own_ms
    found_busy_ms = np.maximum(np.maximum(together_ms, one_by_one_ms), alone_ms)
    # What the figures above come to for who finds prompts at work, in an iteration of `width` with one prompt.
    width_ms = engines.stall_ms + prompt_ms + iteration.decode_ms
    least_ms = np.maximum(engines.stall_ms + prompt_ms + engines.decode_base_ms + engines.beta_ms, TINY)
    spare_load = 1 - iteration.load
    joined_ms = prompt_ms * np.minimum(iteration.decode_ms / np.maximum(width_ms, TINY), engines.max_batch - 1.0)
    more_ms = 1.5 * joined_ms / spare_load - prompt_ms / 2
    more_ms += prompt_ms**2 / least_ms * (0.5 + iteration.load) * iteration.spread / (1 - iteration.load**2)
    bursts = np.maximum(mates - throughput * iteration.residual_ms, 0.0)  # beyond Poisson arrivals
    more_ms += 2 * prompt_ms * np.minimum(bursts, engines.max_batch - 1.0)
    behind_ms = np.minimum(service_ms * (1 + engines.cv2_input) / (2 * spare), engines.most_others * service_ms)
    behind_ms -= least_ms / 2
    return alone_ms, found_busy_ms, np.maximum(np.maximum(more_ms, behind_ms), 0.0)


def itl_excess_ms(
    engines: ContinuousParameters, mean_ms: FloatArray, p_empty: FloatArray, iteration: Iteration
) -> tuple[FloatArray, FloatArray]:
    """By how much inter-token latency exceeds `mean_ms`, since long iterations bring the next long ones.

    The second does not shrink with the room that is left below a full batch: it spreads the times between tokens.
    """
    full_ms = itl_beside(engines, engines.most_others)
    room_ms = np.maximum(full_ms - mean_ms, 0.0)
    load, goes_on = iteration.load, engines.decodes / (engines.decodes + 1)
    # Σ_j P(K − 1 ≥ j)·ρ^j for fixed and for geometric outputs: how long an excess of prompts is felt.
    fixed = load * -np.expm1(engines.decodes * np.log(np.maximum(load, TINY))) / (1 - load)
    geometric = load * goes_on / (1 - load * goes_on)
    share = np.minimum(engines.cv2_output, 1.0)
    felt = ((1 - share) * fixed + share * geometric) / np.maximum(engines.decodes, TINY)
    budget_ms = engines.prompt_ms * engines.token_budget / np.maximum(engines.input_tokens, TINY)
    excess_ms = (1 - p_empty) * load * np.minimum(iteration.excess_ms, 2 * budget_ms) * felt
    excess_ms = np.where(engines.decodes > 0, excess_ms, 0.0)
    return _damped(excess_ms, room_ms), _damped(excess_ms, full_ms - (engines.alpha_ms + engines.beta_ms))


def itl_beside(engines: ContinuousParameters, others: FloatArray) -> FloatArray:
    """Time between tokens beside a number of other requests: decoding, their prompts, the stalls of these."""
    decoding, prompts, stalled = _beside(engines, others)
    decode_ms = engines.alpha_ms + engines.beta_ms * (1 + decoding)
    return np.asarray(decode_ms + prompts * engines.prompt_ms + engines.stall_ms * stalled)


def _beside(engines: ContinuousParameters, others: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of `others` in the batch: how many decode, prompts that begin per iteration, whether one holds prompt work."""
    turns = others / engines.stay
    prompts = np.minimum(turns, engines.most_prompts)
    return np.minimum(turns * engines.decodes, engines.most_decoding), prompts, engines.prompt_work(prompts)


def find_wait(engines: ContinuousParameters, chain: Chain) -> Wait:
    """Find the wait of those who wait: a geometric number of steps, as long as the variability makes them.

    Exact for one request at a time with Poisson arrivals (Pollaczek–Khinchine). For more, the first step in light
    traffic is the least of N residual times, N/(N + 1) of the exponential one for fixed lengths, and the approach
    to heavy traffic is Cosmetatos's.
    """
    batch = engines.max_batch
    service_ms = np.maximum(batch / chain.full_rate, TINY)  # S(N)
    # Departures vary by the outputs' lengths, and by the prompts of all that are in the batch.
    decoding = engines.decodes * (engines.decode_base_ms + engines.beta_ms * batch) / service_ms
    prompts = batch * engines.prompt_ms / service_ms
    cv2 = engines.cv2_output * decoding**2 + engines.cv2_input * prompts**2
    heavy = np.maximum((engines.cv2_arrival + cv2) / 2, LEAST_SPREAD)
    steps = np.maximum(engines.max_queue / heavy, 1.0)
    alone = (batch - 1) / (batch + 1)
    less = np.maximum(1 - cv2, 0.0) / 2
    first = np.where(cv2 < 1, less * alone, (cv2 - 1) / 2 * (1 / batch - 1))
    cosmetatos = (batch - 1) * (np.sqrt(4 + 5 * batch) - 2) / (16 * batch)
    change = np.where(cv2 < 1, less * np.minimum(cosmetatos, alone) - first, 0.0)
    ratio = chain.rate / chain.full_rate
    offset = first + change * np.minimum(ratio, 1.0) * np.clip((steps - 1) / 2, 0.0, 1.0)
    offset -= PACE_OF_FIRST * (engines.cv2_arrival - 1)
    mean = mean_steps(ratio, steps)
    least = 0.3 * (1 - less / (batch + 1) * 2)
    late = first + change - PACE_OF_FIRST * (engines.cv2_arrival - 1)
    if_any = np.maximum(heavy * mean + offset, least)
    scale = 1 / chain.full_rate
    return Wait(ratio, steps, heavy * scale, late * scale, if_any * scale)


def _damped(excess_ms: FloatArray, room_ms: FloatArray) -> FloatArray:
    """Excess that a full batch leaves no more than a quarter of the room for; nondecreasing in both."""
    return np.asarray(excess_ms * room_ms / np.maximum(4 * excess_ms + room_ms, TINY))


def arrivals_within(mean: FloatArray, cv2_arrival: FloatArray) -> FloatArray:
    """Arrivals expected after one, within an exponential time in which `mean` come on average.

    For renewal arrivals with gamma times between them it is φ/(1 − φ), φ = (1 + c²/mean)^(−1/c²); e^(−1/mean) at a
    constant pace; `mean` itself for Poisson arrivals.
    """
    poisson = cv2_arrival == 1
    if poisson.all():
        return mean
    safe, cv2 = np.maximum(mean, TINY), np.where(poisson, 2.0, cv2_arrival)
    with np.errstate(over="ignore", divide="ignore"):
        exponent = np.where(cv2 < 1e-6, 1 / safe, np.log1p(cv2 / safe) / np.maximum(cv2, 1e-6))
        expected = 1 / np.expm1(np.minimum(exponent, 700.0))
    return np.where(poisson, mean, expected)
