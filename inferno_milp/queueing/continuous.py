"""Law `continuous-batching`: prompts share iterations with decoding sequences, and stall them.

The chain counts requests; what surrounds it follows the iterations of an engine with chunked prefill: an arrival waits
for the iteration under way, its prompt runs in the next ones together with the prompts that came meanwhile, and every
decoding sequence is held up by all of them. docs/queueing.md derives each formula.

Every term is nondecreasing in the rate: it is made of the chain's figures, which are ordered in it, by sums, products
and maxima of nondecreasing terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from inferno_milp.queueing.arrays import BoolArray, FloatArray, IntArray, Takes
from inferno_milp.queueing.chain import Chain, solve_chain
from inferno_milp.queueing.parameters import mean_context
from inferno_milp.queueing.steps import mean_steps, steps_exceed
from inferno_milp.queueing.tails import uniform_exponentials_exceed

KV_HEADROOM = 0.9
"""Share of the KV cache that mean requests may fill: beyond it sequences are preempted, and computed again."""
LEAST_SPREAD = 0.01
"""Variability below this counts as this: a queue of regular arrivals and equal requests is no queue at all."""
MANY_CHUNKS = 16
"""With more chunks on average, their last one is half full."""
TOLD_APART = 200
"""Chunks told apart where there are fewer."""
PACE_OF_FIRST = 0.22
"""By how much the wait of those who wait falls short of its heavy-traffic form, per unit of c²_a − 1 (fitted to
GI/M/1 with gamma arrivals)."""
FULLEST = 1 - 1e-6
"""Prompts that take a greater share of the time count as taking this much: beyond, latencies are out of all bounds."""
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class ContinuousEngines(Takes):
    """Parameters of engines, one-dimensional, κ and q folded in.

    Attributes
    ----------
    alpha_ms, beta_ms : α, and β + κ·(mean context).
    decode_base_ms : α, or 0 where nothing is decoded (K = 1).
    prompt_base_ms : base of an iteration with prompt work, max(α, γ); 0 where there are no prompts.
    stall_ms : how much longer prompt work makes an iteration, its tokens apart.
    prompt_ms : s, time of one whole prompt's tokens.
    decodes : K − 1, decode iterations of a request.
    chunks : c, mean number of iterations that a prompt is cut into.
    spill : how many more the first prompt ahead of it costs.
    input_tokens, token_budget : I and M.
    most_decoding, most_prompts : decoding sequences, and prompts per iteration, once the token budget is used up.
    budget_interval_ms : time between departures then; 0 where a full batch does not use it up.
    cv2_input, cv2_output, cv2_arrival : squared coefficients of variation.
    overhead_ms, lag_iterations : added to the time to first token.
    max_batch, max_queue : N, held down by the KV cache, and Q, with what that leaves waiting.
    max_blocking, fits : as in `Engines`.
    """

    alpha_ms: FloatArray
    beta_ms: FloatArray
    decode_base_ms: FloatArray
    prompt_base_ms: FloatArray
    stall_ms: FloatArray
    prompt_ms: FloatArray
    decodes: FloatArray
    chunks: FloatArray
    spill: FloatArray
    input_tokens: FloatArray
    token_budget: FloatArray
    most_decoding: FloatArray
    most_prompts: FloatArray
    budget_interval_ms: FloatArray
    cv2_input: FloatArray
    cv2_output: FloatArray
    cv2_arrival: FloatArray
    overhead_ms: FloatArray
    lag_iterations: FloatArray
    max_batch: IntArray
    max_queue: FloatArray
    max_blocking: FloatArray
    fits: BoolArray

    @property
    def stay(self) -> FloatArray:
        """Iterations that a request is in the batch for, K − 1 + c."""
        return np.maximum(self.decodes + self.chunks, TINY)

    @property
    def _base_ms(self) -> FloatArray:
        return self.decodes * self.decode_base_ms + self.chunks * self.prompt_base_ms

    @property
    def _slope_ms(self) -> FloatArray:
        return self.decodes * self.beta_ms + self.prompt_ms

    @property
    def _power(self) -> FloatArray | None:
        """Exponent of the chain's ratios for arrivals that are not Poisson."""
        return None if (self.cv2_arrival == 1).all() else np.asarray(2 / (1 + self.cv2_arrival))

    @property
    def full_service_ms(self) -> FloatArray:
        """S(N), mean time of a request in a full batch."""
        batch = self.max_batch
        stalls = self.stall_ms * self.decodes * -np.expm1(-(batch - 1) / self.stay)
        service = self._base_ms + self._slope_ms * batch + stalls
        return np.asarray(np.maximum(service, batch * self.budget_interval_ms))

    @property
    def _most_others(self) -> FloatArray:
        return np.asarray(self.max_batch - 1, dtype=float)

    @property
    def lowest_rate(self) -> FloatArray:
        """A millionth of μ(1), as good as no load."""
        with np.errstate(divide="ignore"):
            return np.asarray(1e-6 / (self._base_ms + self._slope_ms))

    def highest_rate(self, *, promises_tps: BoolArray) -> FloatArray:
        """Rate at which more than `max_blocking` must be turned away; tokens per second ask for nothing here."""
        with np.errstate(divide="ignore"):
            fastest = self.max_batch / (self._base_ms + self._slope_ms * self.max_batch)
        return np.asarray(fastest * (1 + 1e-9) / (1 - self.max_blocking))

    def _chain(self, rate: FloatArray) -> Chain:
        slope, budget = rate * self._slope_ms, rate * self.budget_interval_ms
        stalls = rate * self.stall_ms * self.decodes
        most = rate * self._base_ms + stalls
        # Times e^{−(n−1)/(K−1+c)}, the probability that an iteration holds no prompt of the other n − 1.
        spared, kept = stalls, np.exp(-1 / self.stay)
        has_stalls, has_budget = bool(stalls.any()), bool(budget.any())

        def fill_load(n: int, out: FloatArray) -> None:
            """Write ρ_n = λ·max(S(n)/n, time between departures when the token budget is used up)."""
            active = out.size
            if has_stalls:
                np.subtract(most[:active], spared[:active], out=out)
                out *= 1 / n
                spared[:active] *= kept[:active]
            else:
                np.multiply(most[:active], 1 / n, out=out)
            out += slope[:active]
            if has_budget:
                np.maximum(out, budget[:active], out=out)

        with np.errstate(divide="ignore"):
            full_rate = self.max_batch / self.full_service_ms
        return solve_chain(rate, full_rate, fill_load, self.max_batch, self.max_queue, power=self._power)

    def solve(self, rate: FloatArray, *, with_empty: bool = True) -> ContinuousSolution:
        """Solve at the given arrival rates (requests/ms)."""
        chain = self._chain(rate)
        # Arrivals see the chain's law; what flows through is that of the chain, its power undone.
        power = self._power
        blocking, throughput = chain.blocking, chain.throughput_per_ms
        if power is not None:
            with np.errstate(divide="ignore"):
                blocking = -np.expm1(np.log1p(-np.minimum(blocking, 1.0)) / power)
            throughput = rate * (throughput / np.maximum(rate, TINY)) ** (1 / power)
        p_empty, others = chain.p_empty, chain.batch - 1
        iteration = self._iteration(throughput, others)
        mean_itl_ms = self._itl_beside(others)
        itl_excess_ms, itl_spread_ms = self._itl_excess_ms(mean_itl_ms, p_empty, iteration)
        alone_ms, found_busy_ms, more_ms = self._first_token_ms(throughput, others, p_empty, iteration)
        wait = self._wait(chain)
        return ContinuousSolution(
            engines=self,
            chain=chain,
            blocking=blocking,
            throughput_per_ms=throughput,
            iteration=iteration,
            wait=wait,
            wait_ms=chain.p_wait * wait.if_any_ms,
            alone_ms=alone_ms,
            found_busy_ms=found_busy_ms,
            more_ms=more_ms,
            itl_ms=mean_itl_ms + itl_excess_ms,
            itl_spread_ms=itl_spread_ms,
        )

    def _iteration(self, throughput: FloatArray, others: FloatArray) -> _Iteration:
        """Lengths of iterations while `others` are in the batch beside an arrival."""
        decoding = np.minimum(others * self.decodes / self.stay, self.most_decoding)
        prompts = np.minimum(others / self.stay, self.most_prompts)
        stalled = -np.expm1(-prompts)
        load = np.minimum(throughput * self.prompt_ms, FULLEST)
        decode_ms = self.decode_base_ms + self.beta_ms * decoding
        mean_ms = (decode_ms + self.stall_ms * stalled) / (1 - load)
        # Share of iterations under way that hold prompts, as arrivals find them; and the compound prompts in them.
        found = stalled * (self.decode_base_ms + self.stall_ms)
        found /= np.maximum(self.decode_base_ms + self.stall_ms * stalled, TINY)
        window = throughput * mean_ms
        spread = 1 + self.cv2_input + np.maximum(self.cv2_arrival - 1, 0) * window / (1 + window)
        excess_ms = self.prompt_ms**2 * spread * throughput / (1 - load**2)
        residual_ms = ((decode_ms + found * self.stall_ms) / (1 - load) + excess_ms) / 2
        return _Iteration(
            decoding=decoding,
            prompts=prompts,
            stalled=stalled,
            found=found,
            spread=spread,
            load=load,
            decode_ms=decode_ms,
            mean_ms=mean_ms,
            excess_ms=excess_ms,
            residual_ms=residual_ms,
        )

    def _first_token_ms(
        self, throughput: FloatArray, others: FloatArray, p_empty: FloatArray, iteration: _Iteration
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean time from admission to first token: of a request alone, and of one that finds the engine at work.

        The third is the mean time that more prompts take, if the iteration found holds some.
        """
        busy = 1 - p_empty
        prompt_ms, decoding = self.prompt_ms, iteration.decoding
        base_ms = self.prompt_base_ms + self.beta_ms * decoding
        # Prompts that come within the residual iteration on either side of this one run in its iteration too, …
        mates = _arrivals_within(throughput * iteration.residual_ms, self.cv2_arrival)
        beside_ms = prompt_ms * np.minimum(2 * mates, others)
        # … and those ahead may use up the token budget first.
        next_ms = base_ms + np.minimum(throughput * prompt_ms * (base_ms + 1.5 * prompt_ms), others * prompt_ms)
        spilled_ms = self.spill * np.minimum(mates, others / 2) * next_ms
        alone_ms = self.chunks * self.prompt_base_ms + prompt_ms
        own_ms = self.chunks * base_ms + prompt_ms
        together_ms = iteration.residual_ms + own_ms + beside_ms + spilled_ms
        # The prompts as a queue of their own, where the token budget lets few of them into an iteration.
        budget = np.maximum(self.token_budget - decoding, 1)
        service_ms = prompt_ms + base_ms * self.input_tokens / budget
        spare = 1 - np.minimum(throughput * service_ms, FULLEST)
        queue_ms = throughput * service_ms**2 * (1 + self.cv2_input) / (2 * spare)
        working_ms = iteration.decode_ms + self.stall_ms * iteration.stalled
        # Of the arrivals that find the engine at work; regular ones rarely do at low rates, and then wait less too.
        of_busy = np.maximum(busy, TINY) ** np.minimum((1 + self.cv2_arrival) / 2, 1.0)
        ahead_ms = np.minimum(queue_ms / of_busy, self._most_others * service_ms)
        one_by_one_ms = ahead_ms + working_ms / 2 + own_ms
        found_busy_ms = np.maximum(np.maximum(together_ms, one_by_one_ms), alone_ms)
        # What the figures above come to for who finds prompts at work, in an iteration of `width` with one prompt.
        width_ms = self.stall_ms + prompt_ms + iteration.decode_ms
        least_ms = np.maximum(self.stall_ms + prompt_ms + self.decode_base_ms + self.beta_ms, TINY)
        spare_load = 1 - iteration.load
        joined_ms = prompt_ms * np.minimum(iteration.decode_ms / np.maximum(width_ms, TINY), self.max_batch - 1.0)
        more_ms = 1.5 * joined_ms / spare_load - prompt_ms / 2
        more_ms += prompt_ms**2 / least_ms * (0.5 + iteration.load) * iteration.spread / (1 - iteration.load**2)
        bursts = np.maximum(mates - throughput * iteration.residual_ms, 0.0)  # beyond Poisson arrivals
        more_ms += 2 * prompt_ms * np.minimum(bursts, self.max_batch - 1.0)
        behind_ms = np.minimum(service_ms * (1 + self.cv2_input) / (2 * spare), self._most_others * service_ms)
        behind_ms -= least_ms / 2
        return alone_ms, found_busy_ms, np.maximum(np.maximum(more_ms, behind_ms), 0.0)

    def _itl_excess_ms(
        self, mean_ms: FloatArray, p_empty: FloatArray, iteration: _Iteration
    ) -> tuple[FloatArray, FloatArray]:
        """By how much inter-token latency exceeds `mean_ms`, since long iterations bring the next long ones.

        The second does not shrink with the room that is left below a full batch: it spreads the times between tokens.
        """
        room_ms = np.maximum(self._itl_beside(self._most_others) - mean_ms, 0.0)
        load, goes_on = iteration.load, self.decodes / (self.decodes + 1)
        # Σ_j P(K − 1 ≥ j)·ρ^j for fixed and for geometric outputs: how long an excess of prompts is felt.
        fixed = load * -np.expm1(self.decodes * np.log(np.maximum(load, TINY))) / (1 - load)
        geometric = load * goes_on / (1 - load * goes_on)
        share = np.minimum(self.cv2_output, 1.0)
        felt = ((1 - share) * fixed + share * geometric) / np.maximum(self.decodes, TINY)
        budget_ms = self.prompt_ms * self.token_budget / np.maximum(self.input_tokens, TINY)
        excess_ms = (1 - p_empty) * load * np.minimum(iteration.excess_ms, 2 * budget_ms) * felt
        excess_ms = np.where(self.decodes > 0, excess_ms, 0.0)
        most_ms = self._itl_beside(self._most_others) - self._itl_beside(np.zeros_like(mean_ms))
        return _damped(excess_ms, room_ms), _damped(excess_ms, most_ms)

    def _itl_beside(self, others: FloatArray) -> FloatArray:
        """Time between tokens beside a number of other requests: decoding, their prompts, the stalls of these."""
        prompts = np.minimum(others / self.stay, self.most_prompts)
        decoding = np.minimum(others * self.decodes / self.stay, self.most_decoding)
        stalls_ms = self.stall_ms * -np.expm1(-prompts)
        return np.asarray(self.alpha_ms + self.beta_ms * (1 + decoding) + prompts * self.prompt_ms + stalls_ms)

    def _wait(self, chain: Chain) -> _Wait:
        """Find the wait of those who wait: a geometric number of steps, as long as the variability makes them.

        Exact for one request at a time with Poisson arrivals (Pollaczek–Khinchine). For more, the first step in light
        traffic is the least of N residual times, N/(N + 1) of the exponential one for fixed lengths, and the approach
        to heavy traffic is Cosmetatos's.
        """
        batch, service_ms = self.max_batch, np.maximum(self.full_service_ms, TINY)
        # Departures vary by the outputs' lengths, and by the prompts of all that are in the batch.
        decoding = self.decodes * (self.decode_base_ms + self.beta_ms * batch) / service_ms
        prompts = batch * self.prompt_ms / service_ms
        cv2 = self.cv2_output * decoding**2 + self.cv2_input * prompts**2
        heavy = np.maximum((self.cv2_arrival + cv2) / 2, LEAST_SPREAD)
        steps = np.maximum(self.max_queue / heavy, 1.0)
        alone = (batch - 1) / (batch + 1)
        less = np.maximum(1 - cv2, 0.0) / 2
        first = np.where(cv2 < 1, less * alone, (cv2 - 1) / 2 * (1 / batch - 1))
        cosmetatos = (batch - 1) * (np.sqrt(4 + 5 * batch) - 2) / (16 * batch)
        change = np.where(cv2 < 1, less * np.minimum(cosmetatos, alone) - first, 0.0)
        ratio = chain.rate / chain.full_rate
        offset = first + change * np.minimum(ratio, 1.0) * np.clip((steps - 1) / 2, 0.0, 1.0)
        offset -= PACE_OF_FIRST * (self.cv2_arrival - 1)
        mean = mean_steps(ratio, steps)
        least = 0.3 * (1 - less / (batch + 1) * 2)
        late = first + change - PACE_OF_FIRST * (self.cv2_arrival - 1)
        if_any = np.maximum(heavy * mean + offset, least)
        scale = 1 / chain.full_rate
        return _Wait(ratio, steps, heavy * scale, late * scale, if_any * scale)


@dataclass(frozen=True, slots=True)
class _Iteration(Takes):
    """Iterations as arrivals find them.

    Attributes
    ----------
    decoding : sequences that decode.
    prompts : prompts that begin in one.
    stalled : probability that one holds prompt work.
    found : the same of the one that an arrival finds, the prompts' tokens apart.
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
    spread: FloatArray
    load: FloatArray
    decode_ms: FloatArray
    mean_ms: FloatArray
    excess_ms: FloatArray
    residual_ms: FloatArray


@dataclass(frozen=True, slots=True)
class _Wait(Takes):
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


@dataclass(frozen=True, slots=True)
class ContinuousSolution(Takes):
    """Engines of the law at their rates.

    Attributes
    ----------
    blocking, throughput_per_ms : what is turned away, and what is not.
    wait_ms : mean wait in the queue of an accepted arrival.
    alone_ms, found_busy_ms : mean time from admission to first token of who finds the engine empty, or at work.
    more_ms : mean time that more prompts take, for who finds prompts at work.
    itl_ms : mean inter-token latency.
    itl_spread_ms : what long iterations that bring long ones add to the times between tokens.
    """

    engines: ContinuousEngines
    chain: Chain
    iteration: _Iteration
    wait: _Wait
    blocking: FloatArray
    throughput_per_ms: FloatArray
    wait_ms: FloatArray
    alone_ms: FloatArray
    found_busy_ms: FloatArray
    more_ms: FloatArray
    itl_ms: FloatArray
    itl_spread_ms: FloatArray

    @property
    def p_wait(self) -> FloatArray:
        """Probability that an accepted arrival has to wait."""
        return self.chain.p_wait

    @property
    def p_empty(self) -> FloatArray:
        """Probability that an accepted arrival finds the engine empty."""
        return self.chain.p_empty

    @property
    def _in_batch_ms(self) -> FloatArray:
        """Mean time from admission to first token."""
        p_empty = self.p_empty
        return p_empty * self.alone_ms + (1 - p_empty) * self.found_busy_ms

    @property
    def _lag_ms(self) -> FloatArray:
        engines = self.engines
        return engines.lag_iterations * (engines.alpha_ms + engines.beta_ms * self.iteration.decoding)

    @property
    def ttft_ms(self) -> FloatArray:
        """Mean time to first token."""
        late_ms = self.engines.overhead_ms + (1 - self.p_empty) * self._lag_ms
        return self._in_batch_ms + self.wait_ms + late_ms

    @property
    def running(self) -> FloatArray:
        """Mean requests in the batch, by Little's law."""
        stay_ms = self._in_batch_ms + self.engines.decodes * self.itl_ms
        return np.minimum(self.throughput_per_ms * stay_ms, self.engines.max_batch)

    def wait_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(wait > t) of an accepted arrival."""
        return self.p_wait * self.wait.exceeds(time_ms)

    def ttft_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(TTFT > t): of who is alone, who finds an iteration without prompts, or with some, and who waits.

        The own prompt is a fixed part and an exponential one (the whole for geometric lengths, none for fixed ones). An
        iteration without prompts is found at a uniform point; one with prompts too, and the prompts besides take an
        exponential time.
        """
        engines, iteration = self.engines, self.iteration
        time_ms = time_ms - engines.overhead_ms
        spread_ms = engines.prompt_ms * np.sqrt(np.minimum(engines.cv2_input, 1.0))
        least_ms, zero = engines.prompt_ms - spread_ms, np.zeros_like(time_ms)
        alone_ms = time_ms - engines.chunks * engines.prompt_base_ms - least_ms
        alone = uniform_exponentials_exceed(alone_ms, zero, zero, spread_ms)
        base_ms = engines.chunks * (engines.prompt_base_ms + engines.beta_ms * iteration.decoding)
        late_ms = time_ms - base_ms - least_ms - self._lag_ms
        width_ms = iteration.decode_ms + engines.stall_ms + engines.prompt_ms
        without = uniform_exponentials_exceed(late_ms, iteration.decode_ms, zero, spread_ms)
        within = uniform_exponentials_exceed(late_ms, width_ms, self.more_ms, spread_ms)
        finds = 1 - (1 - iteration.load) * (1 - iteration.found)
        at_once = np.maximum((1 - finds) * without + finds * np.maximum(without, within), alone)
        waiting = self.wait.exceeds(time_ms - self.found_busy_ms - self._lag_ms)
        waited = at_once + (1 - at_once) * waiting
        p_empty, p_wait = self.p_empty, self.p_wait
        return np.asarray(p_empty * alone + np.maximum(1 - p_empty - p_wait, 0.0) * at_once + p_wait * waited)

    def itl_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(time between two tokens > t): iterations without prompts, spread by the number decoding, and with some."""
        engines, iteration = self.engines, self.iteration
        decode_ms = engines.alpha_ms + engines.beta_ms * (1 + iteration.decoding)
        spread_ms = engines.beta_ms * np.sqrt(iteration.decoding)
        without = ndtr((decode_ms - time_ms) / np.maximum(spread_ms, TINY))
        chunks = np.maximum(engines.chunks, 1.0)
        holds = np.maximum(-np.expm1(-iteration.prompts * chunks), TINY)
        most = np.maximum(-np.expm1(-(engines.max_batch - 1) / engines.stay * chunks), holds)
        chunk_ms = engines.prompt_ms / chunks
        varied_ms = chunk_ms * np.sqrt(np.minimum(engines.cv2_input, 1.0))
        prompts_ms = iteration.prompts * engines.prompt_ms
        more_ms = np.maximum(prompts_ms / holds - chunk_ms, 0.0) + self.itl_spread_ms / most
        late_ms = time_ms - decode_ms - engines.stall_ms - chunk_ms + varied_ms
        within = uniform_exponentials_exceed(late_ms, np.zeros_like(late_ms), more_ms, varied_ms)
        return np.asarray((1 - holds) * without + holds * np.maximum(without, within))


def _damped(excess_ms: FloatArray, room_ms: FloatArray) -> FloatArray:
    """Excess that a full batch leaves no more than a quarter of the room for; nondecreasing in both."""
    return np.asarray(excess_ms * room_ms / np.maximum(4 * excess_ms + room_ms, TINY))


def _arrivals_within(mean: FloatArray, cv2_arrival: FloatArray) -> FloatArray:
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


def make_continuous_engines(parameters: dict[str, FloatArray]) -> ContinuousEngines:
    """Fold κ and q into the slopes, cut prompts into chunks, and hold the batch down to what the KV cache takes."""
    inputs, outputs, budget = parameters["input_tokens"], parameters["output_tokens"], parameters["token_budget"]
    decodes, cv2_input = outputs - 1, parameters["cv2_input"]
    kappa_ms, context = parameters["kappa_ms"], mean_context(parameters)
    kv_tokens = np.where(np.isnan(parameters["kv_tokens"]), np.inf, parameters["kv_tokens"])
    max_batch = np.minimum(parameters["max_batch"], _held(kv_tokens, context))
    max_queue = parameters["max_queue"] + parameters["max_batch"] - max_batch
    prompts = inputs > 0
    most_decoding = np.where(prompts, decodes * budget / np.maximum(inputs + decodes, TINY), np.inf)
    left = np.maximum(budget - np.minimum(max_batch, most_decoding), 1.0)
    chunks = np.where(prompts, _mean_chunks(inputs, cv2_input, left), 0.0)
    second = np.where(prompts, _mean_chunks(2 * inputs, cv2_input / 2, left), 0.0)
    alpha_ms = parameters["alpha_ms"]
    beta_ms = parameters["beta_ms"] + kappa_ms * context
    delta_ms = parameters["delta_ms"] + kappa_ms * (chunks + 1) / 2
    prompt_ms = delta_ms * inputs + parameters["prefill_quadratic_ms"] * inputs**2 * (1 + cv2_input)
    decode_base_ms = np.where(decodes > 0, alpha_ms, 0.0)
    prompt_base_ms = np.where(prompts, np.maximum(alpha_ms, parameters["gamma_ms"]), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        most_prompts = np.where(prompts, np.maximum(budget - most_decoding, TINY) / inputs, 0.0)
        full_ms = prompt_base_ms + beta_ms * most_decoding + most_prompts * prompt_ms
        interval_ms = np.where(prompts & (most_decoding < max_batch), full_ms / most_prompts, 0.0)
    return ContinuousEngines(
        alpha_ms=alpha_ms,
        beta_ms=beta_ms,
        decode_base_ms=decode_base_ms,
        prompt_base_ms=prompt_base_ms,
        stall_ms=np.where(prompts, prompt_base_ms - decode_base_ms, 0.0),
        prompt_ms=prompt_ms,
        decodes=decodes,
        chunks=chunks,
        spill=second - chunks,
        input_tokens=inputs,
        token_budget=budget,
        most_decoding=most_decoding,
        most_prompts=most_prompts,
        budget_interval_ms=interval_ms,
        cv2_input=cv2_input,
        cv2_output=parameters["cv2_output"],
        cv2_arrival=parameters["cv2_arrival"],
        overhead_ms=parameters["overhead_ms"],
        lag_iterations=parameters["lag_iterations"],
        max_batch=max_batch.astype(np.int64),
        max_queue=max_queue,
        max_blocking=parameters["max_blocking"],
        fits=inputs + decodes <= kv_tokens,
    )


def largest_kv_batch(
    kv_tokens: npt.ArrayLike, *, input_tokens: npt.ArrayLike, output_tokens: npt.ArrayLike, cv2_output: npt.ArrayLike
) -> FloatArray:
    """Return the largest batch of mean requests that a KV cache holds, at least 1; infinity where it is NaN."""
    given = np.asarray(kv_tokens, dtype=float)
    arrays = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cv2_output": cv2_output}
    context = mean_context({name: np.asarray(value, dtype=float) for name, value in arrays.items()})
    return _held(np.where(np.isnan(given), np.inf, given), context)


def _held(kv_tokens: FloatArray, context: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(np.floor(KV_HEADROOM * kv_tokens / context), 1.0))


def _mean_chunks(tokens: FloatArray, cv2: FloatArray, room: FloatArray) -> FloatArray:
    """E⌈X/room⌉ of a prompt of X tokens: lognormal with this mean and variability, or fixed."""
    fixed = np.maximum(np.ceil(tokens / room), 1.0)
    varied = np.flatnonzero((cv2 > 0) & (tokens > 0))
    if varied.size:
        scale = np.sqrt(np.log1p(cv2[varied]))
        location = np.log(tokens[varied]) - scale**2 / 2
        limits = np.log(room[varied])
        more = np.ones(varied.size)
        for count in range(1, TOLD_APART):
            beyond = ndtr((location - limits - np.log(count)) / scale)
            more += beyond
            if beyond.max() < 1e-9:
                break
        ratio = tokens[varied] / room[varied]
        fixed[varied] = np.where(ratio > MANY_CHUNKS, ratio + 0.5, np.maximum(more, 1.0))
    return fixed
