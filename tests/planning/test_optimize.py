"""The front door: options, statuses, figures of a plan, and how it is written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import make_problem, problem_data, with_server

import inferno_milp as im
from inferno_milp.planning.milp import solve_milp
from inferno_milp.planning.priorities import solve_by_priority
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import SaturationPolicy
from inferno_milp.studies.generate import generate_problem


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"solver": "cplex"}, "unknown solver 'cplex'; known: milp, greedy"),
            ({"time_limit_s": 0}, "time_limit_s"),
            ({"time_limit_s": math.nan}, "time_limit_s"),
            ({"time_limit_s": math.inf}, "time_limit_s"),
            ({"gap": -0.1}, "gap"),
            ({"gap": 1.0}, "gap"),
            ({"gap": math.nan}, "gap"),
        ],
    )
    def test_bad_ones_are_refused(self, options: dict[str, Any], word: str) -> None:
        with pytest.raises(im.OptionError, match=word):
            im.optimize(make_problem(), **options)

    def test_all_together(self) -> None:
        with pytest.raises(im.OptionError, match=r"solver.*time_limit_s.*gap"):
            im.optimize(make_problem(), solver="x", time_limit_s=-1, gap=2)  # type: ignore[arg-type]

    def test_unknown_keywords_are_an_error(self) -> None:
        with pytest.raises(TypeError):
            im.optimize(make_problem(), mip_gap=0.1)  # type: ignore[call-arg]

    def test_stages_are_told(self) -> None:
        stages: list[str] = []
        plan = im.optimize(make_problem(), on_stage=stages.append)
        assert stages == ["candidates", "build", "solve", "check"]
        assert list(plan.stages_s) == stages[:3]


class TestStatus:
    def test_time_ran_out_before_the_solver_could_start(self, instances: Path) -> None:
        plan = im.optimize(im.read_problem(instances / "limited.yaml"), time_limit_s=1e-9)
        assert plan.status == "no_solution"
        assert plan.total_cost_per_hour is plan.objective is plan.gap is None
        assert not plan.serves_all
        assert plan.servers[0].reason == "the time ran out before a plan was found"
        assert list(plan.stages_s) == ["candidates", "build", "solve"]

    @pytest.mark.parametrize("policy", get_args(SaturationPolicy))
    @pytest.mark.parametrize("assignment", ["single", "mixed"])
    def test_nothing_is_shared_of_a_plan_that_is_not_there(
        self, monkeypatch: pytest.MonkeyPatch, assignment: str, policy: str
    ) -> None:
        """The time runs out after the analysis, and there are devices that a saturation policy could give."""
        servers = [{**problem_data()["servers"][0], "name": n} for n in ("s", "t")]
        for server in servers:
            server["load"] = {**server["load"], "rate_per_s": 60.0}
        options = {"law": "inferno", "assignment": assignment, "saturation_policy": policy}
        problem = make_problem(servers=servers, capacity={"A": 3, "B": 1}, options=options)
        monkeypatch.setattr(
            "inferno_milp.planning.optimize.solve_milp",
            lambda program, gap, left_s: solve_milp(program, gap=gap, left_s=lambda: 0.0),
        )
        plan = im.optimize(problem)
        assert plan.status == "no_solution"
        assert not any(server.allocations for server in plan.servers)

    def test_infeasible_is_proven(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not all can be served, and the time runs out before it is known how many can be."""
        servers = [{**problem_data()["servers"][0], "name": n} for n in ("s", "t")]
        problem = make_problem(servers=servers, capacity={"A": 1, "B": 0})
        assert im.optimize(problem).status == "partial"
        monkeypatch.setattr(
            "inferno_milp.planning.milp.solve_by_priority",
            lambda program, left_s, **more: solve_by_priority(program, left_s=lambda: 0.0, **more),
        )
        plan = im.optimize(problem)
        assert (plan.status, plan.bound, plan.priorities) == ("no_solution", None, ())
        monkeypatch.undo()
        assert im.optimize(problem.model_copy(update={"capacity": {}})).status == "infeasible"

    def test_nothing_is_needed_whatever_the_time(self) -> None:
        """Servers without load: nobody is to be served, and everybody is."""
        problem = with_server(load=None)
        for limit in (1e-9, None):
            plan = im.optimize(problem, time_limit_s=limit)
            assert (plan.status, plan.total_cost_per_hour) == ("optimal", 0.0)

    def test_partial_for_lack_of_devices(self) -> None:
        servers = [{**problem_data()["servers"][0], "name": n} for n in ("s", "t")]
        for server in servers:
            server["load"] = {**server["load"], "rate_per_s": 60.0}
        plan = im.optimize(make_problem(servers=servers, capacity={"A": 0, "B": 3}))
        assert plan.status == "partial"
        (unserved,) = plan.unserved
        reason = next(server.reason for server in plan.servers if server.name == unserved)
        assert reason == "what is left is too little: it needs 2 B (1 left), or 13 A (0 left)"
        (use,) = plan.priorities
        assert (use.weight, use.served, use.could) == (2, 1, 1)
        assert plan.gap == pytest.approx(0, abs=1e-8)
        assert plan.messages[0] == "all servers would fit with 1 B more (25 cents/h), the cheapest devices to add"

    def test_infeasible_names_who_cannot_be_served(self, instances: Path) -> None:
        plan = im.optimize(im.read_problem(instances / "infeasible.yaml"))
        assert plan.status == "partial"
        reasons = {server.name: server.reason or "" for server in plan.servers}
        assert "11.12 ms is the least that any accelerator attains" in reasons["impatient-chat-8b"]
        assert reasons["busy-chat-8b"] == "it does not fit even alone: it needs 4 A100 (2 available)"

    def test_nothing_to_do(self) -> None:
        plan = im.optimize(with_server(load=None))
        assert (plan.status, plan.total_cost_per_hour, plan.gap) == ("optimal", 0.0, 0.0)
        assert plan.serves_all
        assert plan.servers[0].allocations == ()

    def test_no_load_but_a_minimum(self) -> None:
        plan = im.optimize(with_server(load=None, min_replicas=3))
        (allocation,) = plan.servers[0].allocations
        assert (allocation.accelerator, allocation.replicas, plan.total_cost_per_hour) == ("A", 3, 30.0)
        assert allocation.ttft_ms is allocation.max_rate_per_s is allocation.utilization is None


def test_a_gap_asked_for_is_kept(instances: Path) -> None:
    base = im.read_problem(instances / "limited.yaml")
    problem = generate_problem(base, servers=100, tightness=0.6, seed=3)
    exact, loose = im.optimize(problem, gap=0.0), im.optimize(problem, gap=0.05)
    assert exact.gap == pytest.approx(0.0, abs=1e-9)
    assert loose.gap is not None
    assert loose.gap <= 0.05
    assert exact.total_cost_per_hour is not None
    assert loose.bound is not None
    assert loose.bound <= exact.total_cost_per_hour * (1 + 1e-9)


@settings(max_examples=80)
@given(data=st.data())
def test_no_plan_breaks_a_promise(data: st.DataObject) -> None:
    """Random systems of every kind, both solvers; `optimize` itself checks every plan, and raises if it fails."""
    count = data.draw(st.integers(1, 6))
    servers = []
    for i in range(count):
        server: dict[str, Any] = {"name": f"s{i}", "service_class": data.draw(st.sampled_from(["gold", "tin"]))}
        server["model"] = "m"
        if data.draw(st.integers(0, 5)):
            server["load"] = {
                "rate_per_s": data.draw(st.one_of(st.just(0.0), st.floats(1e-3, 200))),
                "input_tokens": data.draw(st.sampled_from([0.0, 10.0, 900.0])),
                "output_tokens": data.draw(st.sampled_from([1.0, 30.0, 400.0])),
            }
        server["min_replicas"] = data.draw(st.integers(0, 2))
        server["max_batch_size"] = data.draw(st.sampled_from([None, 1, 9]))
        server["max_queue_size"] = data.draw(st.sampled_from([None, 0, 5]))
        if data.draw(st.booleans()):
            server |= {"current": {"accelerator": "B", "replicas": 1}, "keep_accelerator": data.draw(st.booleans())}
        servers.append(server)
    classes = [
        {"name": "gold", "priority": 1, "targets": {"m": {"ttft_ms": 400.0, "itl_ms": 12.0}}},
        {"name": "tin", "targets": {"m": data.draw(st.sampled_from([{}, {"tps": 5000.0}, {"ttft_ms": 60.0}]))}},
    ]
    capacity = data.draw(st.one_of(st.just("unlimited"), st.fixed_dictionaries({"A": st.integers(0, 40)})))
    problem = make_problem(servers=servers, service_classes=classes, capacity=capacity)
    problem = problem.with_options(batch_sizes=data.draw(st.sampled_from(["largest", "every"])))
    milp, greedy = im.optimize(problem, gap=0.0), im.optimize(problem, solver="greedy")
    if greedy.serves_all:
        assert milp.status == "optimal"
        assert milp.total_cost_per_hour <= greedy.total_cost_per_hour * (1 + 1e-9)  # type: ignore[operator]
    json.dumps([milp.to_dict(), greedy.to_dict()], allow_nan=False)
    assert len(milp.to_frame()) == count


class TestWriting:
    @pytest.fixture
    def plan(self, instances: Path) -> im.Plan:
        return im.optimize(im.read_problem(instances / "small.yaml"))

    def test_dict(self, plan: im.Plan) -> None:
        document = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
        assert document["status"] == "optimal"
        assert document["total_cost_per_hour"] == pytest.approx(38.3)
        assert set(document["solver"]) == {"name", "version", "wall_s"}
        server = document["servers"]["interactive-chat-8b"]
        assert server["offered_rate_per_s"] == server["served_rate_per_s"] == 12
        (allocation,) = server["allocations"]
        wanted = {"accelerator", "batch_size", "replicas", "share", "max_rate_per_s", "cost_per_hour", "ttft_ms",
                  "ttft_p95_ms", "itl_ms", "utilization"}  # fmt: skip
        assert wanted <= set(allocation)
        assert document["capacity"]["H100"] == {"available": 6, "used": 5}

    def test_frame(self, plan: im.Plan) -> None:
        frame = plan.to_frame().set_index("server")
        assert frame["cost_per_hour"].sum() == pytest.approx(38.3)
        assert frame.loc["interactive-chat-70b", "replicas"] == 2
        assert frame["replicas"].dtype == "Int64"

    def test_frame_of_unserved(self, instances: Path) -> None:
        problem = im.read_problem(instances / "infeasible.yaml").model_copy(update={"capacity": {}})
        frame = im.optimize(problem).to_frame()
        assert frame["replicas"].isna().all()
        assert frame["reason"].str.len().gt(10).all()

    def test_capacity_frame(self, plan: im.Plan) -> None:
        frame = plan.capacity_frame()
        assert frame.loc["A100"].tolist() == [12, 8]
        unlimited = im.optimize(make_problem(capacity="unlimited")).capacity_frame()
        assert unlimited["available"].isna().all()
        assert isinstance(unlimited, pd.DataFrame)


def test_the_problem_is_left_alone() -> None:
    problem = make_problem()
    before = problem.model_dump()
    im.optimize(problem)
    assert problem.model_dump() == before
    assert problem.with_unlimited_capacity().capacity is None
    assert problem.capacity is not None
    assert isinstance(problem, Problem)
