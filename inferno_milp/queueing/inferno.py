"""Law `inferno`: the queue M/M(n)/1/N+Q of llm-inferno/optimizer v0.6.0, prompts charged to the time to first token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from inferno_milp.queueing.arrays import BoolArray, FloatArray, IntArray, Takes
from inferno_milp.queueing.chain import Chain, solve_chain
from inferno_milp.queueing.parameters import mean_context

LOWEST_RATE = 0.001
"""The lowest admissible rate, as a fraction of μ(1)."""
HIGHEST_RATE = 0.999
"""The highest admissible rate, as a fraction of μ(N)."""
TPS_RATE = 0.9
"""With a target in tokens per second, the highest rate as a fraction of the highest admissible one."""


@dataclass(frozen=True, slots=True)
class InfernoEngines(Takes):
    """Parameters of engines, one-dimensional.

    A batch of n serves a request in S(n) = (γ + δ·I·n)·[I > 0] + (K − 1)(α + β·n), so S is `base_ms + slope_ms · n`.
    """

    alpha_ms: FloatArray
    beta_ms: FloatArray
    gamma_ms: FloatArray
    prompt_ms: FloatArray  # δ·I, time of one whole prompt
    base_ms: FloatArray
    slope_ms: FloatArray
    max_batch: IntArray
    max_queue: FloatArray

    @classmethod
    def make(cls, parameters: dict[str, FloatArray]) -> Self:
        """Fold κ into the slopes (mean context of a decoding sequence) and lay out S(n)."""
        beta_ms = parameters["beta_ms"] + parameters["kappa_ms"] * mean_context(parameters)
        inputs, decodes = parameters["input_tokens"], parameters["output_tokens"] - 1
        gamma_ms = np.where(inputs > 0, parameters["gamma_ms"], 0.0)
        prompt_ms = (parameters["delta_ms"] + parameters["kappa_ms"]) * inputs
        return cls(
            alpha_ms=parameters["alpha_ms"],
            beta_ms=beta_ms,
            gamma_ms=gamma_ms,
            prompt_ms=prompt_ms,
            base_ms=gamma_ms + decodes * parameters["alpha_ms"],
            slope_ms=prompt_ms + decodes * beta_ms,
            max_batch=parameters["max_batch"].astype(np.int64),
            max_queue=parameters["max_queue"],
        )

    @property
    def lowest_rate(self) -> FloatArray:
        """0.001·μ(1)."""
        with np.errstate(divide="ignore"):
            return LOWEST_RATE / (self.base_ms + self.slope_ms)

    def highest_rate(self, *, promises_tps: BoolArray) -> FloatArray:
        """0.999·μ(N), and 0.9 of that with a promise of tokens per second."""
        return HIGHEST_RATE * self._full_rate * np.where(promises_tps, TPS_RATE, 1.0)

    @property
    def max_blocking(self) -> FloatArray:
        """No limit."""
        return np.ones(self.max_batch.size)

    @property
    def fits(self) -> BoolArray:
        """The law knows no memory."""
        return np.ones(self.max_batch.size, dtype=bool)

    @property
    def _full_rate(self) -> FloatArray:
        """μ(N) in requests/ms; infinite where a request takes no time."""
        with np.errstate(divide="ignore"):
            return self.max_batch / (self.base_ms + self.max_batch * self.slope_ms)

    def solve(self, rate: FloatArray, *, with_empty: bool = True) -> InfernoSolution:
        """Solve at the given arrival rates (requests/ms)."""
        base, slope = rate * self.base_ms, rate * self.slope_ms

        def fill_load(n: int, out: FloatArray) -> None:
            """Write ρ_n = λ·(base + slope·n)/n."""
            np.multiply(base[: out.size], 1 / n, out=out)
            out += slope[: out.size]

        chain = solve_chain(rate, self._full_rate, fill_load, self.max_batch, self.max_queue, with_empty=with_empty)
        batch = chain.batch
        prompt_ms, itl_ms = self.gamma_ms + self.prompt_ms * batch, self.alpha_ms + self.beta_ms * batch
        return InfernoSolution(chain, self.max_queue, prompt_ms, itl_ms)


@dataclass(frozen=True, slots=True)
class InfernoSolution(Takes):
    """The chain, and W + γ + δ·I·n (only the wait where there is no prompt) and α + β·n for the batch n joined."""

    chain: Chain
    max_queue: FloatArray
    prompt_ms: FloatArray
    itl_ms: FloatArray

    @property
    def wait_ms(self) -> FloatArray:
        """Mean wait of an accepted arrival."""
        return self.chain.wait_ms

    @property
    def ttft_ms(self) -> FloatArray:
        """Mean time to first token."""
        return self.wait_ms + self.prompt_ms

    @property
    def throughput_per_ms(self) -> FloatArray:
        """Rate of accepted arrivals."""
        return self.chain.throughput_per_ms

    @property
    def running(self) -> FloatArray:
        """Time average of the number of requests in the batch."""
        return self.chain.running

    @property
    def blocking(self) -> FloatArray:
        """Probability that an arrival is turned away."""
        return self.chain.blocking

    @property
    def p_wait(self) -> FloatArray:
        """Probability that an accepted arrival has to wait."""
        return self.chain.p_wait

    @property
    def p_empty(self) -> FloatArray:
        """Probability that an accepted arrival finds the engine empty."""
        return self.chain.p_empty

    def wait_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(W > t), exactly."""
        return self.chain.wait_exceeds(time_ms, self.max_queue)

    def ttft_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(TTFT > t): the law has no spread in the prompt's own time, so all spread is in the wait."""
        return np.where(time_ms >= self.prompt_ms, self.wait_exceeds(np.maximum(time_ms - self.prompt_ms, 0.0)), 1.0)

    def itl_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(ITL > t): the law knows one time between tokens."""
        return np.where(time_ms >= self.itl_ms, 0.0, 1.0)
