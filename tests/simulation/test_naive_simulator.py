"""Hand-computed checks of the naive simulator."""

import math
import random
from typing import Any

import pytest
from naive_simulator import NaiveEngine, NaiveResult, run


def engine(**changes: Any) -> NaiveEngine:
    """An engine with round coefficients."""
    values: dict[str, Any] = {"alpha_ms": 10, "beta_ms": 1, "gamma_ms": 20, "delta_ms": 0.5, "max_batch": 4}
    return NaiveEngine(**{**values, "max_queue": 4, **changes})


def check(result: NaiveResult, first: list[float], last: list[float], preemptions: list[int] | None = None) -> None:
    """Compare a run with the expected times; nan stands for turned away."""
    assert result.first_token_ms == pytest.approx(first, nan_ok=True)
    assert result.last_token_ms == pytest.approx(last, nan_ok=True)
    assert result.turned_away == [math.isnan(value) for value in first]
    assert result.preemptions == (preemptions or [0] * len(first))


def test_alone() -> None:
    check(run(engine(), [5.0], [10], [3]), [25.0], [47.0])
    costly = engine(kappa_ms=0.1, prefill_quadratic_ms=0.01, overhead_ms=3, lag_iterations=2)
    # 20 + 5 + 1 + 1 = 27; 10 + 1 + 1.1; 10 + 1 + 1.2; no lag, as it found the system empty.
    check(run(costly, [5.0], [10], [3]), [30.0], [54.3])


def test_two_overlapping() -> None:
    # 0-25: prompt 0; 25-48: decode 0, prompt 1; 48-60: decode both. Lag of request 1: 2 * (10 + 1).
    check(run(engine(lag_iterations=2), [0.0, 3.0], [10, 4], [3, 2]), [25.0, 67.0], [60.0, 79.0])


def test_gap_and_no_gamma() -> None:
    # max(alpha, gamma); the clock jumps over the idle time.
    check(run(engine(gamma_ms=0), [0.0, 100.0], [10, 10], [1, 2]), [15.0, 15.0], [15.0, 26.0])


def test_chunked() -> None:
    # Chunks 8, 8, 4: 25.44 + 27.52 + 25.44; then a decode of 10 + 1 + 2.1.
    small = engine(token_budget=8, kappa_ms=0.1, prefill_quadratic_ms=0.01)
    check(run(small, [0.0], [20], [2]), [78.4], [91.5])


def test_chunked_beside_decode() -> None:
    # Request 1's chunks are 4 (beside prompt 0), 7 and 1 (beside decodes of 0): 24, 24.5, 21.5.
    check(run(engine(token_budget=8), [0.0, 0.0], [4, 12], [3, 1]), [24.0, 70.0], [70.0, 70.0])


def test_full_budget_of_decodes_still_leaves_one() -> None:
    # 0-21: prompts 0, 1; 21-43.5 and 43.5-66: both decode beside one prompt token of request 2.
    result = run(engine(token_budget=2), [0.0, 0.0, 0.0], [1, 1, 2], [3, 3, 1])
    check(result, [21.0, 21.0, 66.0], [66.0, 66.0, 66.0])


def test_kv_preemption() -> None:
    # 24: both prompts; 36: both decode, 10 held; 47, 58: request 0 alone; 81: request 1 redoes 4 + 2 tokens.
    result = run(engine(kv_tokens=10), [0.0, 0.0, 0.0], [4, 4, 9], [4, 3, 3])
    check(result, [24.0, 24.0, math.nan], [58.0, 81.0, math.nan], [0, 1, 0])


def test_nobody_joins_while_the_budget_is_used_up() -> None:
    # 0-24: 8 of prompt 0; 24-46: the other 4; request 1, though without a prompt, joins at 46 and decodes four times.
    result = run(engine(kv_tokens=12, token_budget=8), [0.0, 0.0], [12, 0], [1, 5])
    check(result, [46.0, 46.0], [46.0, 90.0], [0, 0])


def test_queue_limit() -> None:
    # The last arrives exactly as request 0 leaves.
    result = run(engine(max_batch=1, max_queue=1), [0.0, 1.0, 2.0, 25.0], [10] * 4, [1] * 4)
    check(result, [25.0, 49.0, math.nan, 50.0], [25.0, 49.0, math.nan, 50.0])


def test_empty_prompt() -> None:
    check(run(engine(overhead_ms=3), [7.0, 7.0], [0, 0], [1, 2]), [3.0, 3.0], [3.0, 14.0])
    # 0-26; at 26 request 1's first token, lag 10 + 1 + 1.1; 26-39.2: both decode; 39.2-51.4.
    lagging = engine(kappa_ms=0.1, lag_iterations=1)
    check(run(lagging, [0.0, 3.0], [10, 0], [3, 2]), [26.0, 35.1], [51.4, 48.3])


def test_everybody_leaves() -> None:
    generator = random.Random(1)
    preempted = 0
    for _ in range(300):
        count = 40
        arrivals = sorted(float(generator.randrange(600)) for _ in range(count))
        inputs = [generator.choice([0, 1, 3, 9, 20]) for _ in range(count)]
        outputs = [generator.choice([1, 2, 5, 12]) for _ in range(count)]
        chosen = engine(kv_tokens=generator.choice([None, 25, 31, 60]), token_budget=generator.choice([1, 4, 16]))
        result = run(chosen, arrivals, inputs, outputs)
        preempted += sum(result.preemptions)
        for first, last, away, tokens in zip(
            result.first_token_ms, result.last_token_ms, result.turned_away, outputs, strict=True
        ):
            assert math.isnan(first) == math.isnan(last) == away
            assert away or last - first >= 11 * (tokens - 1) - 1e-6
    assert preempted > 100
