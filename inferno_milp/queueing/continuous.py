"""Law `continuous-batching`: prompts share iterations with decoding sequences, and stall them.

The chain counts requests (`continuous_parameters`); what surrounds it follows the iterations of an engine with chunked
prefill (`continuous_means`): an arrival waits for the iteration under way, its prompt runs in the next ones together
with the prompts that came meanwhile, and every decoding sequence is held up by all of them.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from inferno_milp.queueing.arrays import TINY, BoolArray, FloatArray
from inferno_milp.queueing.continuous_means import (
    find_iteration,
    find_wait,
    first_token_ms,
    itl_beside,
    itl_excess_ms,
)
from inferno_milp.queueing.continuous_parameters import ContinuousParameters
from inferno_milp.queueing.continuous_solution import ContinuousSolution
from inferno_milp.queueing.prompts_only import PromptsOnly, solve_prompts


class ContinuousEngines(ContinuousParameters):
    """Engines of the law, one-dimensional, sorted by falling max batch size."""

    __slots__ = ()

    @property
    def lowest_rate(self) -> FloatArray:
        """A millionth of μ(1), as good as no load."""
        with np.errstate(divide="ignore"):
            return np.asarray(1e-6 / (self.base_ms + self.slope_ms))

    def highest_rate(self, *, promises_tps: BoolArray) -> FloatArray:
        """Rate at which more than `max_blocking` must be turned away; tokens per second ask for nothing here."""
        with np.errstate(divide="ignore"):
            fastest = self.max_batch / (self.base_ms + self.slope_ms * self.max_batch)
        return np.asarray(fastest * (1 + 1e-9) / (1 - self.max_blocking))

    def companions(self, others: FloatArray) -> FloatArray:
        """Return the mean number of others beside a request during its stay, from the number that it finds.

        Poisson arrivals find what there is on average; regular ones come when there are fewest, and are
        themselves one of those that there are on average: half of 1 − peakedness each.
        """
        fewer = np.maximum(1 - self.peakedness, 0.0) / 2
        return others * others / np.maximum(others + fewer, TINY)

    def solve(self, rate: FloatArray, *, with_empty: bool = True) -> ContinuousSolution:
        """Solve at the given arrival rates (requests/ms)."""
        chain = self.chain(rate)
        # Arrivals see the chain's law; what flows through is that of the chain, its power undone.
        power = self.power
        blocking, throughput = chain.blocking, chain.throughput_per_ms
        if power is not None:
            with np.errstate(divide="ignore"):
                blocking = -np.expm1(np.log1p(-np.minimum(blocking, 1.0)) / power)
            throughput = rate * (throughput / np.maximum(rate, TINY)) ** (1 / power)
        p_empty, others = chain.p_empty, chain.batch - 1
        iteration = find_iteration(self, throughput, others)
        mean_itl_ms = itl_beside(self, self.companions(others))
        excess_ms, spread_ms = itl_excess_ms(self, mean_itl_ms, p_empty, iteration)
        alone_ms, found_busy_ms, more_ms = first_token_ms(self, throughput, others, p_empty, iteration)
        wait = find_wait(self, chain)
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
            itl_ms=mean_itl_ms + excess_ms,
            itl_spread_ms=spread_ms,
            prompts=self._prompts(throughput),
        )

    def _prompts(self, throughput: FloatArray) -> PromptsOnly | None:
        """Solve engines that only compute prompts; None if there are none, zeros for the others."""
        only = np.flatnonzero(self.only_prompts)
        if not only.size:
            return None
        solved = solve_prompts(self.take(only), throughput[only])
        figures = {field.name: np.zeros_like(throughput) for field in fields(PromptsOnly)}
        for name, values in figures.items():
            values[only] = getattr(solved, name)
        return PromptsOnly(**figures)
