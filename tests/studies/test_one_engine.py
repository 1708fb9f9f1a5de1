"""One engine's questions: answered together as they are answered alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from small_problems import make_problem, with_server

import inferno_milp as im
from inferno_milp.problem.fields import Targets
from inferno_milp.studies.one_engine import (
    EngineAnalysis,
    EngineQuestion,
    analyze_many,
    analyze_one,
    engine_of,
    size_batches,
)

ENGINE = {"alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02, "input_tokens": 500.0,
          "output_tokens": 100.0, "max_batch": 32}  # fmt: skip
P95 = {"p95": 700.0}


def question(
    law: Any = "continuous-batching", rates: Any = None, targets: Any = None, **engine: float
) -> EngineQuestion:
    return EngineQuestion({**ENGINE, **engine}, Targets.model_validate(targets or {}), law, rates)


QUESTIONS = [
    question(targets={"ttft_ms": 500.0}),
    question(targets={"ttft_ms": 900.0}, input_tokens=50.0),
    question(targets={"ttft_ms": P95, "itl_ms": 15.0}),
    question(targets={"ttft_ms": P95, "itl_ms": 1.0}),
    question(targets={"ttft_ms": {"p95": 100.0}, "itl_ms": 30.0}, rates=[0.5, 3.0]),
    question(rates=[1.0, 2.0], max_batch=4),
    question("inferno", targets={"ttft_ms": 500.0, "itl_ms": 20.0}),
    question("inferno", targets={"tps": 300.0}),
    question("inferno", targets={"tps": 100.0}, output_tokens=10.0),
    question(kv_tokens=9000.0, cv2_input=2.0),
    question("inferno", alpha_ms=0.0, beta_ms=0.0, gamma_ms=0.0, delta_ms=0.0),
]


def close(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(close(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(close, left, right))
    if isinstance(left, float):
        return bool(
            left == right or math.isclose(left, right, rel_tol=1e-9) or (math.isnan(left) and math.isnan(right))
        )
    return bool(left == right)


def test_many_as_one_by_one() -> None:
    for asked, found in zip(QUESTIONS, analyze_many(QUESTIONS), strict=True):
        alone = analyze_one(asked)
        assert isinstance(found, EngineAnalysis)
        assert close(found.to_dict(), alone.to_dict())
        assert found.sentence == alone.sentence
        assert found.max_rate_per_s == pytest.approx(alone.max_rate_per_s)


def test_one_against_the_analysis_itself() -> None:
    found = analyze_one(question(targets={"ttft_ms": P95}, rates=[1.0, 3.0]))
    assert found.max_rate_per_s == pytest.approx(float(im.size(**ENGINE, ttft_ms=P95).max_rate_per_s))
    ours = im.analyze(**ENGINE, rate_per_s=[1.0, 3.0])
    assert [rate["ttft_ms"] for rate in found.rates] == pytest.approx(ours.ttft_ms.tolist())
    assert [rate["ttft_p99_ms"] for rate in found.rates] == pytest.approx(ours.ttft_percentile(99).tolist())
    assert [rate["itl_p95_ms"] for rate in found.rates] == pytest.approx(ours.itl_percentile(95).tolist())


def test_a_figure_out_of_range_spoils_no_other() -> None:
    first, wrong, last = analyze_many([QUESTIONS[0], question(targets={"ttft_ms": 500.0}, alpha_ms=-1.0), QUESTIONS[1]])
    assert isinstance(first, EngineAnalysis)
    assert isinstance(wrong, im.OptionError)
    assert "alpha_ms" in str(wrong)
    assert isinstance(last, EngineAnalysis)
    fits, too_large = analyze_many([question(kv_tokens=9000.0), question(kv_tokens=100.0)])
    assert isinstance(fits, EngineAnalysis)
    assert "kv_tokens cannot hold" in str(too_large)
    with pytest.raises(im.OptionError, match="alpha_ms"):
        analyze_one(question(alpha_ms=-1.0))


def test_batch_sizes() -> None:
    found = size_batches(QUESTIONS[0], [1, 8, 32])
    rates = [batch["max_rate_per_s"] for batch in found]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(analyze_one(QUESTIONS[0]).max_rate_per_s)


def test_the_engine_of_a_server() -> None:
    problem = make_problem()
    engine, targets = engine_of(problem, "gold-m", "B", {"max_batch": 5})
    assert (engine["alpha_ms"], engine["max_batch"], targets.ttft_ms) == (8.0, 5, 1000.0)
    for server, accelerator, word in (("gold-x", "B", "did you mean"), ("gold-m", "C", "unknown accelerator")):
        with pytest.raises(im.OptionError, match=word):
            engine_of(problem, server, accelerator)
    with pytest.raises(im.OptionError, match="has no load"):
        engine_of(with_server(load=None), "gold-m", "B")
    given = {"input_tokens": 10.0, "output_tokens": 10.0}
    assert engine_of(with_server(load=None), "gold-m", "B", given)[0]["input_tokens"] == 10
