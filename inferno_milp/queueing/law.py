"""What a law is: how engines of that law are solved at a rate, and what can be asked of the solution."""

from __future__ import annotations

from typing import Protocol, Self

from inferno_milp.queueing.arrays import BoolArray, FloatArray, IntArray, Which


class Solution(Protocol):
    """Engines solved at their rates; every array has one element per engine, times are in ms."""

    @property
    def throughput_per_ms(self) -> FloatArray:
        """Rate of accepted arrivals."""

    @property
    def running(self) -> FloatArray:
        """Mean number of requests in the batch."""

    @property
    def blocking(self) -> FloatArray:
        """Probability that an arrival is turned away."""

    @property
    def p_wait(self) -> FloatArray:
        """Probability that an accepted arrival has to wait."""

    @property
    def p_empty(self) -> FloatArray:
        """Probability that an accepted arrival finds the engine empty."""

    @property
    def ttft_ms(self) -> FloatArray:
        """Mean time to first token."""

    @property
    def itl_ms(self) -> FloatArray:
        """Mean inter-token latency."""

    @property
    def wait_ms(self) -> FloatArray:
        """Mean wait in the queue of an accepted arrival."""

    def take(self, which: Which) -> Self:
        """Return the chosen engines."""

    def wait_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(wait > t) of an accepted arrival; t ≥ 0."""

    def ttft_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(time to first token > t) of an accepted arrival; t ≥ 0."""

    def itl_exceeds(self, time_ms: FloatArray) -> FloatArray:
        """P(time between two tokens > t); t ≥ 0."""


class Engines(Protocol):
    """Engines of one law, sorted by falling max batch size."""

    @property
    def max_batch(self) -> IntArray:
        """Sequences that run at once, at most."""

    @property
    def lowest_rate(self) -> FloatArray:
        """Lowest admissible rate, requests/ms; infinite where requests take no time."""

    @property
    def max_blocking(self) -> FloatArray:
        """Probability of being turned away that no admissible rate exceeds; 1 is no limit."""

    @property
    def fits(self) -> BoolArray:
        """Whether a request fits into the memory at all."""

    def take(self, which: Which) -> Self:
        """Return the chosen engines, in the order chosen."""

    def highest_rate(self, *, promises_tps: BoolArray) -> FloatArray:
        """Rate that no admissible one exceeds, requests/ms, given who promises tokens per second."""

    def solve(self, rate: FloatArray, *, with_empty: bool = True) -> Solution:
        """Solve at the given arrival rates (requests/ms); without `with_empty` some laws leave `p_empty` out."""
