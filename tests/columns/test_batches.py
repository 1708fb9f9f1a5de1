"""Batch sizes that serve with the same replicas: the quickest costs the same, keeps everything, and is quicker."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_problems import with_server
from systems import systems

import inferno_milp as im
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.plan import Plan, ServerPlan
from inferno_milp.problem import Problem
from inferno_milp.queueing import analyze


def end_to_end_ms(problem: Problem, server: ServerPlan) -> float:
    """Mean time of a request of a server's first allocation."""
    (a, *_), load = server.allocations, next(s.load for s in problem.servers if s.name == server.name)
    assert load is not None
    assert a.ttft_ms is not None
    return a.ttft_ms + (load.output_tokens - 1) * (a.itl_ms or 0.0)


def both(problem: Problem, **options: str) -> tuple[Plan, Plan]:
    chosen = [problem.with_options(batch_choice=choice, **options) for choice in ("smallest", "quickest")]
    return im.optimize(chosen[0], gap=0.0), im.optimize(chosen[1], gap=0.0)


@settings(max_examples=60)
@given(systems(servers=3), st.sampled_from(["inferno", "continuous-batching"]))
def test_it_costs_the_same(problem: Problem, law: str) -> None:
    """Whatever is asked for (reserves, lost replicas, mixes): the plan passes its check, and only batches differ."""
    assume(law != "inferno" or not problem.latencies_ms)  # which that law does not know
    smallest, quickest = both(problem, law=law, batch_sizes="every")
    assert (smallest.status, smallest.unserved) == (quickest.status, quickest.unserved)
    assert smallest.objective == pytest.approx(quickest.objective)
    for small, quick in zip(smallest.servers, quickest.servers, strict=True):
        if problem.options.assignment == "single":
            assert [(a.accelerator, a.replicas) for a in small.allocations] == [
                (a.accelerator, a.replicas) for a in quick.allocations
            ]
            assert all(a.batch_size <= b.batch_size for a, b in zip(small.allocations, quick.allocations, strict=True))


def test_it_is_the_quickest(instances: Path) -> None:
    """Against every batch size of the accelerator that carries as much."""
    problem = im.read_problem(instances / "small.yaml")
    smallest, quickest = both(problem)
    table = find_candidates(problem)
    for s, (small, quick) in enumerate(zip(smallest.servers, quickest.servers, strict=True)):
        if problem.servers[s].load is None:
            assert small.allocations == quick.allocations
            continue
        (a,) = small.allocations
        name = [accelerator.name for accelerator in problem.accelerators].index(a.accelerator)
        rows = table.rows.take((table.rows.server == s) & (table.rows.accelerator == name))
        rows = rows.take(np.flatnonzero(rows.max_rate_per_s >= (a.max_rate_per_s or 0.0)))
        engines = table.engines.of(rows.server, rows.profile, rows.batch_size)
        found = analyze(problem.options.law, **engines, rate_per_s=np.full(len(rows), a.rate_per_s))
        times = found.ttft_ms + (np.asarray(engines["output_tokens"]) - 1) * found.itl_ms
        assert end_to_end_ms(problem, quick) <= 1.01 * times.min() * (1 + 1e-9)
        assert end_to_end_ms(problem, quick) <= end_to_end_ms(problem, small) * (1 + 1e-9)


def test_a_word_where_it_matters(instances: Path) -> None:
    problem = im.read_problem(instances / "small.yaml")
    smallest, quickest = both(problem)
    (note,) = smallest.messages
    assert note.startswith("larger batches would serve much sooner at the same cost (--batch-choice quickest): ")
    assert "relaxed-chat-70b 8 → " in note
    assert not quickest.messages


@pytest.mark.parametrize("server", [{"max_batch_size": 16}, {"load": None, "min_replicas": 2}])
def test_nothing_to_choose(server: dict[str, object]) -> None:
    smallest, quickest = both(with_server(**server), law="continuous-batching")
    assert smallest.servers == quickest.servers
    assert smallest.messages == quickest.messages == ()


def test_where_power_counts(instances: Path) -> None:
    """There it stays the smallest: the power that was counted is that of this batch size."""
    problem = im.read_problem(instances / "limited.yaml").with_options(
        law="continuous-batching", energy_price_per_kwh=10.0
    )
    smallest, quickest = both(problem)
    assert smallest.servers == quickest.servers
    assert math.isclose(smallest.objective or 0.0, quickest.objective or 1.0)
