"""Generated systems: the same for the same seed, feasible, and with types that compete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inferno_milp as im
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.problem.fields import Targets
from inferno_milp.studies.generate import generate_problem


@pytest.fixture(scope="module")
def base(instances: Path) -> im.Problem:
    return im.read_problem(instances / "limited.yaml")


def test_the_seed_decides(base: im.Problem) -> None:
    one, again, other = (generate_problem(base, servers=20, tightness=0.6, seed=seed) for seed in (5, 5, 6))
    assert one == again
    assert one != other


@pytest.mark.parametrize("tightness", [1.2, 0.9, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_feasible_and_tight(base: im.Problem, tightness: float, seed: int) -> None:
    problem = generate_problem(base, servers=150, tightness=tightness, seed=seed)
    limited = im.optimize(problem, gap=1e-3)
    free = im.optimize(problem.with_unlimited_capacity(), solver="greedy")
    assert limited.serves_all
    assert limited.total_cost_per_hour is not None
    assert free.total_cost_per_hour is not None
    if tightness < 1:
        assert limited.total_cost_per_hour > free.total_cost_per_hour
        full = [use for use in limited.capacity if use.available and use.used > 0.9 * use.available]
        assert len(full) >= 2


def test_distributions(base: im.Problem) -> None:
    """Rates and speeds vary as lognormal variables of the σ that are promised."""
    count = 2000
    problem = generate_problem(base, servers=count, tightness=None, seed=1)
    assert problem.capacity is None
    loads = [server.load for server in problem.servers]
    assert all(load is not None for load in loads)
    ratios = [
        load.arrival_rate_per_s / base.servers[i % 27].load.arrival_rate_per_s  # type: ignore[union-attr]
        for i, load in enumerate(loads)
    ]
    assert np.std(np.log(ratios)) == pytest.approx(0.8, rel=0.06)
    assert {load.output_tokens for load in loads if load} <= set(range(128, 1025))
    assert {load.input_tokens for load in loads if load} <= set(range(64, 513))
    of_base = {(p.model, p.accelerator): p.alpha_ms for p in base.profiles}
    speeds = np.array(
        [np.log(p.alpha_ms / of_base[p.model.rsplit("-", 1)[0], p.accelerator]) for p in problem.profiles]
    )
    by_server = speeds.reshape(count, -1)
    assert np.std(by_server.mean(axis=1)) == pytest.approx(0.35, rel=0.1)
    assert by_server.std(axis=1).mean() == pytest.approx(0.15, rel=0.1)


def test_everybody_can_be_served_alone(base: im.Problem) -> None:
    assert not find_candidates(generate_problem(base, servers=200, tightness=None, seed=9)).unservable.size


def test_a_server_that_nothing_can_serve(base: im.Problem) -> None:
    classes = tuple(
        c.model_copy(update={"targets": {m: t.model_copy(update={"ttft_ms": 1e-12}) for m, t in c.targets.items()}})
        for c in base.service_classes
    )
    with pytest.raises(ValueError, match="no accelerator can serve"):
        generate_problem(base.model_copy(update={"service_classes": classes}), servers=3)


@pytest.mark.parametrize(("options", "word"), [({"servers": 0}, "servers"), ({"servers": 3, "tightness": 0}, "tight")])
def test_bad_arguments(base: im.Problem, options: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        generate_problem(base, **options)  # type: ignore[arg-type]


def test_no_more_devices_than_a_problem_may_have(base: im.Problem) -> None:
    """What is generated can be written, and read again."""
    wide = generate_problem(base, servers=3, tightness=1e6)
    assert im.read_problem_text(im.problem_text(wide)) == wide
    with pytest.raises(ValueError, match=r"devices of one type: a problem has 1e\+09 at most"):
        generate_problem(base, servers=3, tightness=1e9)


def test_no_longer_times_than_a_profile_may_have(base: im.Problem) -> None:
    slow = base.model_copy(update={"profiles": tuple(p.model_copy(update={"alpha_ms": 1e12}) for p in base.profiles)})
    classes = tuple(c.model_copy(update={"targets": dict.fromkeys(c.targets, Targets())}) for c in base.service_classes)
    problem = generate_problem(slow.model_copy(update={"service_classes": classes}), servers=5, tightness=None)
    assert im.read_problem_text(im.problem_text(problem)) == problem
