"""Sweeps and frontiers: every row is a plan of its own, and the frontier is efficient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_problems import make_problem, problem_data
from systems import POWER

import inferno_milp as im
from inferno_milp.columns.candidates import Candidates
from inferno_milp.planning import optimize as planner
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import with_settings
from inferno_milp.studies.sweeps import find_frontier, sweep


def powered(**changes: object) -> Problem:
    """Three servers on accelerators that have a power."""
    data = problem_data()
    accelerators = [{**a, "power": POWER} for a in data["accelerators"]]
    accelerators[2]["power"] = {**POWER, "idle_w": 80.0, "mid_w": 200.0, "full_w": 260.0}
    servers = [{**data["servers"][0], "name": f"s{i}"} for i in range(3)]
    return make_problem(accelerators=accelerators, servers=servers, capacity="unlimited", **changes)


class TestSweep:
    def test_every_row_is_a_plan(self, instances: Path) -> None:
        problem = im.read_problem(instances / "small.yaml")
        axes = {
            "servers.*.load.rate_per_s *=": [0.5, 2.0],
            "capacity.H100": [2, 6, 12],
            "options.assignment": ["mixed"],
        }
        frame = sweep(problem, axes)
        assert len(frame) == 6
        assert list(frame.columns[:4]) == [*axes, "status"]
        for row in frame.to_dict("records"):
            plan = im.optimize(with_settings(problem, {name: row[name] for name in axes}))
            assert (row["status"], row["total_cost_per_hour"]) == (plan.status, pytest.approx(plan.total_cost_per_hour))
            assert row["unserved"] == ", ".join(plan.unserved)
            used = {use.type: use.used for use in plan.capacity}
            assert {name: row[f"devices_{name}"] for name in used} == used

    def test_all_faults_before_any_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planner, "find_candidates", lambda problem: pytest.fail("planned"))
        with pytest.raises(im.InputError) as caught:
            sweep(make_problem(), {"capacity.C": [1, 2], "capacity.A": [-1, 3]})
        told = str(caught.value)
        assert "unknown accelerator type 'C'" in told

    def test_nothing_to_vary(self) -> None:
        for axes in ({}, {"capacity.A": []}):
            with pytest.raises(im.OptionError, match="needs something to vary"):
                sweep(make_problem(), axes)
        with pytest.raises(im.OptionError, match="more than 100,000"):
            sweep(make_problem(), {"capacity.A": range(1000), "capacity.B": range(1000)})

    def test_a_case_that_fails_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A defect in one case costs that case alone."""
        from inferno_milp.studies import whatif as cases

        def plan_candidates(table: Candidates, **options: Any) -> im.Plan:
            if table.problem.capacity == {"A": 13, "B": 6}:
                raise RuntimeError("broken")
            return planner.plan_candidates(table, **options)

        monkeypatch.setattr(cases, "plan_candidates", plan_candidates)
        frame = sweep(make_problem(), {"capacity.A": [12, 13, 14]})
        assert frame.status.fillna("").tolist() == ["optimal", "", "optimal"]
        assert frame.error.fillna("").tolist() == ["", "RuntimeError: broken", ""]


class TestFrontier:
    def test_power(self) -> None:
        problem = powered()
        frame = find_frontier(problem, "power", points=6, gap=0.0)
        assert frame.is_efficient.iloc[0], "the plan of least cost"
        good = frame[frame.is_efficient].sort_values("power_w")
        assert len(good) > 1
        assert good.total_cost_per_hour.is_monotonic_decreasing
        for row in good[good.limit.notna()].to_dict("records"):
            plan = im.optimize(problem.with_options(max_power_w=row["limit"]), gap=0.0)
            assert row["total_cost_per_hour"] == pytest.approx(plan.total_cost_per_hour)
        strictest = im.optimize(problem.with_options(max_power_w=frame.power_w.min() * 0.99))
        assert not strictest.serves_all, "the last point is the least power"

    def test_time_to_first_token(self, instances: Path) -> None:
        problem = im.read_problem(instances / "limited.yaml")
        frame = find_frontier(problem, "ttft-p95", points=4)
        assert frame.is_efficient.all()
        assert (frame.ttft_p95_ms[1:] <= frame.limit[1:] * (1 + 1e-9)).all()
        assert frame.total_cost_per_hour.is_monotonic_increasing
        assert frame.unserved.eq("").all()

    def test_promises_are_not_loosened(self) -> None:
        data = problem_data()
        classes = [{**data["service_classes"][0], "targets": {"m": {"ttft_ms": {"p95": 200.0, "p99": 900.0}}}}]
        frame = find_frontier(make_problem(service_classes=classes), "ttft-p95", values=[10_000.0, 150.0])
        assert (frame.ttft_p95_ms <= 200.0).all()
        assert frame.ttft_p95_ms.iloc[2] <= 150.0

    def test_load(self, instances: Path) -> None:
        frame = find_frontier(im.read_problem(instances / "limited.yaml"), "load", values=[0.5, 1.0, 4.0])
        assert frame.load_factor.tolist() == [0.5, 1.0, 4.0]
        assert frame.is_efficient.tolist() == [True, True, False]
        assert frame.total_cost_per_hour.iloc[1] == pytest.approx(26300.5)

    def test_points_that_are_beaten(self) -> None:
        frame = find_frontier(powered(), "power", values=[1e6, 1e6])
        assert frame.is_efficient.tolist() == [True, False, False], "one of points that are the same"

    def test_the_time_limit_holds_for_all_plans(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from inferno_milp.studies import sweeps

        limits: list[float | None] = []
        plan_cases = sweeps.plan_cases

        def spy(problem: Problem, cases: Any, **running: Any) -> Any:
            limits.append(running.get("time_limit_s"))
            return plan_cases(problem, cases, **running)

        monkeypatch.setattr(sweeps, "plan_cases", spy)
        for against in ("ttft-p95", "power"):
            find_frontier(powered(), against, points=3, time_limit_s=30.0)  # type: ignore[arg-type]
        assert set(limits) == {30.0}

    def test_no_beginning(self, instances: Path) -> None:
        problem = im.read_problem(instances / "infeasible.yaml")
        with pytest.raises(im.OptionError, match="no frontier begins there"):
            find_frontier(problem, "power")
        with pytest.raises(im.OptionError, match="power of A is not known"):
            find_frontier(make_problem(), "power")
        with pytest.raises(im.OptionError, match="points must be"):
            find_frontier(make_problem(), "power", points=1)
        with pytest.raises(im.OptionError, match="cost can be set against"):
            find_frontier(make_problem(), "speed")  # type: ignore[arg-type]


def test_the_same_in_two_processes(instances: Path) -> None:
    problem = im.read_problem(instances / "small.yaml")
    axes = {"capacity.H100": [0, 4, 6, 8]}
    pd.testing.assert_frame_equal(sweep(problem, axes, jobs=2), sweep(problem, axes))
