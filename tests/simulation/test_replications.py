"""Replications of a simulation: how long they are, and how often their confidence intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inferno_milp import simulation
from inferno_milp.simulation.replications import (
    RUNS,
    SHORT,
    Draw,
    Play,
    Replications,
    batch_correlation,
    find_warm_up,
    replicate,
)
from inferno_milp.simulation.statistics import Estimate, estimate_mean, estimate_of_runs, estimate_percentile
from inferno_milp.studies.agreement import Comparison
from inferno_milp.studies.simulate import MOST_IN_ALL, MOST_REQUESTS, most_requests


class TestStatistics:
    def test_intervals_hold_the_truth_as_often_as_they_say(self) -> None:
        rng = np.random.default_rng(3)
        hits = sum(
            (found := estimate_mean([rng.exponential(1, 500) for _ in range(4)])).low <= 1 <= found.high
            for _ in range(400)
        )
        assert 0.9 < hits / 400 < 0.99

    def test_an_estimate_has_two_ends(self) -> None:
        assert (Estimate(3.0, 1.0).low, Estimate(3.0, 1.0).high) == (2.0, 4.0)

    def test_weights_and_gaps(self) -> None:
        found = estimate_mean([np.array([1.0, math.nan, 3.0])], [np.array([1.0, 5.0, 3.0])])
        assert found.value == pytest.approx(2.5)

    def test_deviations_are_from_the_value_of_all(self) -> None:
        """Percentiles of short runs are off to one side; the interval holds that of all."""
        assert estimate_of_runs([1.0, 2.0, 3.0], 2.0).half_width == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
        assert estimate_of_runs([1.0, 2.0, 3.0], 9.0).low < 2

    def test_nothing(self) -> None:
        assert math.isnan(estimate_mean([np.array([math.nan])]).value)
        assert math.isnan(estimate_percentile([np.array([])], 95).value)


def one_at_a_time(utilization: float) -> tuple[Draw, float]:
    """M/G/1, and its mean TTFT by Pollaczek and Khinchine: prompts of 10 ms, then tokens of 8.03 ms, 20 on average."""
    engine = simulation.Engine(alpha_ms=8.0, beta_ms=0.03, gamma_ms=8.0, delta_ms=0.02, max_batch=1, max_queue=10**8)
    mean_ms, square_ms = 10 + 19 * 8.03, (10 + 19 * 8.03) ** 2 + 380 * 8.03**2
    rate_per_ms = utilization / mean_ms

    def draw(rng: np.random.Generator, count: int) -> Play:
        arrivals = simulation.draw_arrivals(rng, 1000 * rate_per_ms, count)
        outputs = simulation.draw_lengths(rng, 20, count, cv2=1, least=1)
        inputs = np.full(count, 100)
        return lambda start, end: simulation.run(
            engine, arrivals, inputs, outputs, measured_from_ms=start, measured_until_ms=end
        )

    return draw, 10 + rate_per_ms * square_ms / (2 * (1 - utilization))


def figures_of(found: Replications) -> list[Estimate]:
    ttft = [trace.ttft_ms[found.kept] for trace in found.traces]
    return [estimate_mean(ttft), estimate_percentile(ttft, 95)]


class TestReplications:
    def test_intervals_near_saturation_hold_the_truth(self) -> None:
        """Nominally 95 % do; at 85 % utilization, where runs that are too short show a third of the queue."""
        pytest.importorskip("numba", reason="some ten million requests")
        draw, mean_ms = one_at_a_time(0.85)
        reference = [draw(np.random.default_rng([9, i]), 300_000)(0.0, math.inf).ttft_ms[20_000:] for i in range(8)]
        truth = (mean_ms, float(np.percentile(np.concatenate(reference), 95)))
        hits, long = [], []
        for seed in range(60):
            found = replicate(draw, np.random.default_rng(seed), most=2_000_000, estimates=figures_of)
            hits.append([e.low <= true <= e.high for e, true in zip(figures_of(found), truth, strict=True)])
            long.append(found.are_long)
        assert np.mean(long) > 0.9
        assert np.mean(hits, axis=0).min() >= 0.88

    @pytest.mark.parametrize("most", [20_000, 100_000])
    def test_no_true_prediction_is_called_off(self, most: int) -> None:
        """At 98 % utilization too few requests show half of the queue: that is not enough to contradict the formula."""
        draw, mean_ms = one_at_a_time(0.98)
        for seed in range(40):
            found = replicate(draw, np.random.default_rng(seed), most=most, estimates=figures_of)
            compared = Comparison("ttft_ms", mean_ms, figures_of(found)[0], 0.9 * mean_ms, found.widening)
            assert not compared.is_off
            assert compared.verdict != "met"

    @pytest.mark.parametrize("most", [1000, 15_000, 60_000, 500_000])
    def test_never_more_requests_than_allowed(self, most: int) -> None:
        """Those of pilots, too."""
        drawn = []

        def draw(rng: np.random.Generator, count: int) -> Play:
            drawn.append(count)
            return one_at_a_time(0.98)[0](rng, count)

        found = replicate(draw, np.random.default_rng(1), most=most, estimates=figures_of)
        assert most / 4 < sum(drawn) <= most
        assert len(found.traces) == RUNS
        assert found.requests <= sum(drawn[-RUNS:])

    def test_a_queue_that_grows_is_never_settled(self) -> None:
        """More requests than are served, and an endless queue: no interval can be trusted, however narrow."""
        found = replicate(one_at_a_time(1.3)[0], np.random.default_rng(2), most=100_000, estimates=figures_of)
        assert found.widening == math.inf
        (mean, _) = figures_of(found)
        assert mean.relative_width < 0.2
        low, high = (Comparison("ttft_ms", 10.0, mean, limit, found.widening) for limit in (10.0, 1e9))
        assert (low.verdict, high.verdict) == ("missed", "near")
        assert (low.is_off, low.is_open) == (False, True)

    def test_short_replications_have_wider_intervals(self) -> None:
        """At 98 % utilization 3,000 requests each are hardly longer than one long queue."""
        found = replicate(one_at_a_time(0.98)[0], np.random.default_rng(3), most=19_000, estimates=figures_of)
        assert found.widening >= SHORT
        mean = Estimate(100.0, 4.0)
        trusted, short = (Comparison("ttft_ms", 130.0, mean, 110.0, widening) for widening in (1.0, SHORT))
        assert (trusted.verdict, trusted.is_off, trusted.has_converged) == ("met", True, True)
        assert (short.verdict, short.is_off, short.margin) == ("near", True, 12.0)
        assert not Comparison("ttft_ms", 126.0, mean, None, SHORT).is_off

    def test_the_initial_transient(self) -> None:
        rng = np.random.default_rng(4)
        settled = [10 + rng.normal(0, 1, 2000) for _ in range(8)]
        rising = [run - 9 * np.exp(-np.arange(2000) / 60) for run in settled]
        assert find_warm_up(settled) < 200
        assert 120 < find_warm_up(rising) < 500
        assert find_warm_up([np.linspace(0, 1, 2000)] * 8) > 1000
        assert find_warm_up([np.full(2000, 8.03)] * 8) == 0
        assert find_warm_up([np.full(2000, math.nan)] * 8) == 0
        holes = [np.where(rng.random(2000) < 0.5, math.nan, run) for run in rising]
        assert 120 < find_warm_up(holes) < 600

    def test_correlation_of_batches(self) -> None:
        rng = np.random.default_rng(5)
        free = rng.normal(0, 1, (16, 4000))
        slow = np.cumsum(free, axis=1)
        assert abs(batch_correlation(list(free))) < 0.2
        assert batch_correlation(list(slow)) > 0.5
        assert batch_correlation([np.full(400, 8.03)] * 16) == 0
        assert batch_correlation([np.full(400, math.nan)] * 16) == 0

    def test_a_budget_for_all(self) -> None:
        assert most_requests(None, 1) == MOST_REQUESTS
        assert most_requests(None, 27) * 27 <= MOST_IN_ALL
        assert most_requests(5000, 27) == 5000
