"""Claims of a solver against what the greedy heuristic finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_problems import make_problem, problem_data

import inferno_milp as im
from inferno_milp.columns.candidates import find_candidates
from inferno_milp.columns.choice import Choice
from inferno_milp.columns.options import make_program
from inferno_milp.plan import PriorityUse
from inferno_milp.planning import optimize as planner
from inferno_milp.planning.milp import solve_milp
from inferno_milp.planning.second_opinion import better_of, disputes, find_second_opinion
from inferno_milp.program import highs_engine
from inferno_milp.program.highs_engine import Program, relax, run


def solved(problem: im.Problem) -> tuple[Any, Choice, Any]:
    table = find_candidates(problem)
    second = find_second_opinion(table)
    assert second is not None
    return table, solve_milp(make_program(table), gap=0.0), second


@pytest.mark.parametrize("assignment", ["single", "mixed"])
def test_true_claims_stand(instances: Path, assignment: str) -> None:
    problem = im.read_problem(instances / "limited.yaml").with_options(assignment=assignment)
    table, choice, second = solved(problem)
    assert not list(disputes(table, choice, second))
    assert better_of(choice, second) is choice


def test_false_claims_are_refuted() -> None:
    table, choice, second = solved(make_problem())
    nobody = replace(choice, served=np.zeros(1, dtype=bool))
    assert choice.objective is not None
    false = [
        replace(nobody, outcome="infeasible", bound=None),
        replace(choice, bound=2 * choice.objective),
        replace(nobody, priorities=(PriorityUse(1, 1.0, 0.0, 0.0),)),
    ]
    for claim in false:
        assert len(list(disputes(table, claim, second))) == 1
    assert not list(disputes(table, replace(nobody, priorities=(PriorityUse(1, 1.0, 0.0, 1.0),)), second))


def test_a_false_proof_is_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lets a false proof in, `optimize` refuses it."""
    right = planner.solve_milp

    def wrong(*args: Any, **options: Any) -> Choice:
        choice = right(*args, **options)
        empty = np.empty(0, dtype=np.int64)
        return replace(choice, outcome="infeasible", served=~choice.served, server=empty, row=empty, replicas=empty)

    monkeypatch.setattr(planner, "solve_milp", wrong)
    with pytest.raises(im.PlanCheckError, match="called infeasible, but the greedy heuristic serves"):
        im.optimize(make_problem())


def test_a_plan_found_in_time_is_no_dearer_than_the_heuristic() -> None:
    _, choice, second = solved(make_problem())
    assert second.objective is not None
    late = replace(choice, outcome="feasible", objective=2 * second.objective, bound=0.5 * second.objective)
    better = better_of(late, second)
    assert (better.outcome, better.objective, better.bound) == ("feasible", second.objective, late.bound)
    none = replace(late, outcome="no_solution", objective=None, served=~late.served)
    assert better_of(none, second).objective == second.objective


def test_nodes_whose_sizes_do_not_divide_one_another() -> None:
    """Replicas of 2 and 3 devices in nodes of 4: every option was dropped, and the rest called proven."""
    data = problem_data()
    data["accelerators"] = [
        {"name": name, "type": "B", "devices": size, "cost_per_hour": cost}
        for name, size, cost in (("2xB", 2, 5.0), ("3xB", 3, 6.0))
    ]
    data["profiles"] = [{**data["profiles"][2], "accelerator": name} for name in ("2xB", "3xB")]
    data["capacity"], data["nodes"] = {}, [{"type": "B", "devices": 4, "count": 2}]
    data["servers"].append({**data["servers"][0], "name": "second"})
    problem = im.Problem.model_validate(data)
    plan = im.optimize(problem, gap=0.0)
    assert (plan.status, plan.total_cost_per_hour) == ("optimal", 10.0)
    assert plan.total_cost_per_hour == im.optimize(problem, solver="greedy").total_cost_per_hour
    too_many = problem.model_copy(update={"servers": tuple(
        problem.servers[0].model_copy(update={"name": f"s{i}"}) for i in range(5))})  # fmt: skip
    short = im.optimize(too_many)
    assert [(use.served, use.could) for use in short.priorities] == [(4.0, 4.0)]
    assert len(short.unserved) == 1


def test_another_way_where_highs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two ways fail: the third has the answer; where all fail there is an error that says so."""
    program = Program(
        costs=np.array([1.0, 5e7]), offset=0.0, lower=np.zeros(2), upper=np.ones(2), whole=np.ones(2, dtype=bool),
        starts=np.array([0, 2], dtype=np.int32), columns=np.array([0, 1], dtype=np.int32), values=np.ones(2),
        row_lower=np.ones(1), row_upper=np.array([np.inf]),
    )  # fmt: skip
    load, failing = highs_engine._loaded, [2]

    class Failing:
        def __init__(self, solver: Any):
            self.solver = solver

        def run(self) -> Any:
            return highs_engine.highspy.HighsStatus.kError

        def __getattr__(self, name: str) -> Any:
            return getattr(self.solver, name)

    def loaded(*args: Any, **options: Any) -> Any:
        failing[0] -= 1
        solver = load(*args, **options)
        return Failing(solver) if failing[0] >= 0 else solver

    monkeypatch.setattr(highs_engine, "_loaded", loaded)
    assert run(program, gap=0.0).objective == 1.0
    failing[0] = 2
    relaxed = relax(program)
    assert relaxed is not None
    assert relaxed.objective == pytest.approx(1.0)
    failing[0] = 100
    with pytest.raises(highs_engine.SolverError, match="in 5 ways"):
        run(program, gap=0.0)
