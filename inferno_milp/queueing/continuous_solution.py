"""Law `continuous-batching`: engines solved at their rates, with the tails of their latencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from inferno_milp.queueing.arrays import TINY, FloatArray, Takes
from inferno_milp.queueing.chain import Chain
from inferno_milp.queueing.continuous_means import Iteration, Wait
from inferno_milp.queueing.continuous_parameters import ContinuousParameters
from inferno_milp.queueing.prompts_only import PromptsOnly
from inferno_milp.queueing.tails import uniform_exponentials_exceed


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
    prompts : of engines that only compute prompts, whose times to the first token are found so; None without any.
    """

    engines: ContinuousParameters
    chain: Chain
    iteration: Iteration
    wait: Wait
    blocking: FloatArray
    throughput_per_ms: FloatArray
    wait_ms: FloatArray
    alone_ms: FloatArray
    found_busy_ms: FloatArray
    more_ms: FloatArray
    itl_ms: FloatArray
    itl_spread_ms: FloatArray
    prompts: PromptsOnly | None = None

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
        busy, whole_ms = 1 - self.p_empty, self._in_batch_ms + self.wait_ms
        if self.prompts is not None:
            only = self.engines.only_prompts
            busy = np.where(only, self.prompts.busy, busy)
            whole_ms = np.where(only, self.prompts.mean_ms, whole_ms)
        return np.asarray(whole_ms + self.engines.overhead_ms + busy * self._lag_ms)

    @property
    def running(self) -> FloatArray:
        """Mean requests in the batch, by Little's law."""
        stay_ms = self._in_batch_ms + self.engines.decodes * self.itl_ms
        if self.prompts is not None:
            stay_ms = np.where(self.engines.only_prompts, self.prompts.batch_ms, stay_ms)
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
        exceeds = self._first_exceeds(time_ms - self.engines.overhead_ms)
        if self.prompts is None:
            return exceeds
        only = self.prompts.exceeds(time_ms - self.engines.overhead_ms, self._lag_ms)
        return np.asarray(np.where(self.engines.only_prompts, only, exceeds))

    def _first_exceeds(self, time_ms: FloatArray) -> FloatArray:
        engines, iteration = self.engines, self.iteration
        spread_ms = engines.prompt_ms * np.sqrt(np.minimum(engines.cv2_input, 1.0))
        least_ms, zero = engines.prompt_ms - spread_ms, np.zeros_like(time_ms)
        alone_ms = time_ms - engines.chunks * engines.prompt_base_ms - least_ms
        alone = uniform_exponentials_exceed(alone_ms, zero, zero, spread_ms)
        base_ms = engines.chunks * (engines.prompt_base_ms + engines.beta_ms * iteration.decoding)
        late_ms = time_ms - base_ms - least_ms - self._lag_ms
        width_ms = iteration.decode_ms + engines.stall_ms + engines.prompt_ms
        without = uniform_exponentials_exceed(late_ms, iteration.decode_ms, zero, spread_ms)
        within = uniform_exponentials_exceed(late_ms, width_ms, self.more_ms, spread_ms)
        finds = iteration.meets * (1 - (1 - iteration.load) * (1 - iteration.found))
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
        holds = np.maximum(iteration.stalled, TINY)
        most = np.maximum(engines.prompt_work((engines.max_batch - 1) / engines.stay), holds)
        chunk_ms = engines.prompt_ms / chunks
        varied_ms = chunk_ms * np.sqrt(np.minimum(engines.cv2_input, 1.0))
        prompts_ms = iteration.prompts * engines.prompt_ms
        more_ms = np.maximum(prompts_ms / holds - chunk_ms, 0.0) + self.itl_spread_ms / most
        late_ms = time_ms - decode_ms - engines.stall_ms - chunk_ms + varied_ms
        within = uniform_exponentials_exceed(late_ms, np.zeros_like(late_ms), more_ms, varied_ms)
        return np.asarray((1 - holds) * without + holds * np.maximum(without, within))
