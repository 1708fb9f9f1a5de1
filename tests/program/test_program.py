"""The program: its text, its optimum by brute force, and every way that solving it can end."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import DATA, make_problem, problem_data

import inferno_milp as im
from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.columns.options import make_program
from inferno_milp.errors import OptionError
from inferno_milp.planning.purchase import device_prices, find_purchase
from inferno_milp.problem import Problem
from inferno_milp.program import highs_child
from inferno_milp.program._pyomo import pyo
from inferno_milp.program.highs import solve_with_highs
from inferno_milp.program.highs_engine import Found, Program, SolverError, version
from inferno_milp.program.statement import build_model
from inferno_milp.studies.generate import generate_problem


def two_servers() -> Problem:
    servers = [
        {"name": "s", "service_class": "gold", "model": "m",
         "load": {"rate_per_s": rate, "input_tokens": 200.0, "output_tokens": 100.0}}
        for rate in (60.0, 90.0)
    ]  # fmt: skip
    servers[1]["name"] = "t"
    return make_problem(servers=servers, capacity={"A": 20, "B": 3})


def test_golden_lp(tmp_path: Path) -> None:
    """The program as text. To renew it, look at the difference and copy the file that the assertion names."""
    written = tmp_path / "two_servers.lp"
    im.build_model(two_servers()).write(str(written), io_options={"symbolic_solver_labels": True})
    assert written.read_text() == (DATA / "two_servers.lp").read_text(), written


def test_names_are_those_of_the_docs() -> None:
    model = im.build_model(two_servers())
    page = (Path(__file__).parent.parent.parent / "docs" / "optimization.md").read_text()
    mixed = im.build_model(two_servers().with_options(assignment="mixed"))
    for component in itertools.chain(
        *(m.component_objects((pyo.Set, pyo.Var, pyo.Constraint, pyo.Objective)) for m in (model, mixed))
    ):
        if not component.name.endswith(("_index", "_domain")):
            assert f"`{component.name}`" in page, component.name
            assert component.doc


def test_types_that_cannot_run_short_have_no_row() -> None:
    assert len(im.build_model(make_problem(capacity={"A": 10_000, "B": 10_000})).LIMITS) == 0
    assert len(im.build_model(make_problem(capacity="unlimited")).LIMITS) == 0


def test_no_program_without_candidates() -> None:
    classes = [{"name": "gold", "targets": {"m": {"itl_ms": 2.0}}}]
    with pytest.raises(OptionError, match="gold-m: no accelerator can serve it; nearest is 2xB"):
        im.build_model(make_problem(service_classes=classes))


def brute_force(candidates: Candidates) -> float | None:
    rows, available = candidates.rows, candidates.available
    best = None
    of_server = [np.flatnonzero(rows.server == s) for s in np.flatnonzero(candidates.needs)]
    for chosen in itertools.product(*of_server):
        picks = list(chosen)
        used = np.bincount(rows.type[picks], weights=rows.devices[picks], minlength=len(candidates.types))
        if available is None or (used <= available).all():
            cost = float(rows.cost_per_hour[picks].sum())
            best = cost if best is None else min(best, cost)
    return best


@settings(max_examples=60)
@given(
    rates=st.lists(st.floats(0.5, 30), min_size=1, max_size=5),
    capacity=st.fixed_dictionaries({"A": st.integers(0, 30), "B": st.integers(0, 12)}),
    batch_sizes=st.sampled_from(["largest", "every"]),
)
def test_equals_brute_force(rates: list[float], capacity: dict[str, int], batch_sizes: str) -> None:
    servers = [
        {"name": f"s{i}", "service_class": "gold", "model": "m", "min_replicas": i % 2,
         "load": {"rate_per_s": rate, "input_tokens": 200.0, "output_tokens": 100.0}}
        for i, rate in enumerate(rates)
    ]  # fmt: skip
    problem = make_problem(servers=servers, capacity=capacity).with_options(batch_sizes=batch_sizes)
    truth = brute_force(find_candidates(problem).one_per_accelerator())
    plan = im.optimize(problem, gap=0)
    if truth is None:
        assert plan.status in ("partial", "infeasible")
        assert plan.unserved
    else:
        assert plan.status == "optimal"
        assert plan.total_cost_per_hour == pytest.approx(truth)


@settings(max_examples=40)
@given(
    rates=st.lists(st.floats(0.5, 30), min_size=1, max_size=3),
    capacity=st.fixed_dictionaries({"A": st.integers(0, 3), "B": st.integers(0, 2)}),
)
def test_shortfall_is_the_cheapest_that_would_do(rates: list[float], capacity: dict[str, int]) -> None:
    servers = [
        {"name": f"s{i}", "service_class": "gold", "model": "m",
         "load": {"rate_per_s": rate, "input_tokens": 200.0, "output_tokens": 100.0}}
        for i, rate in enumerate(rates)
    ]  # fmt: skip
    table = find_candidates(make_problem(servers=servers, capacity=capacity))
    purchase = find_purchase(table, time_limit_s=1e6)
    assert purchase is not None
    assert all(item.devices == 1 for item in purchase)
    prices = dict(zip(table.types, device_prices(table), strict=True))
    assert prices == {"A": 10.0, "B": 25.0}
    rows, best = table.rows, np.inf
    for chosen in itertools.product(*(np.flatnonzero(rows.server == s) for s in range(len(rates)))):
        picks = list(chosen)
        used = np.bincount(rows.type[picks], weights=rows.devices[picks], minlength=2)
        more = np.maximum(used - np.array([capacity["A"], capacity["B"]]), 0)
        best = min(best, float(more @ np.array([10.0, 25.0])))
    assert sum(item.count * prices[item.type] for item in purchase) == pytest.approx(best)


class TestOutcomes:
    """What HiGHS can end with, each told for what it is."""

    def test_time_limit_without_an_incumbent(self, instances: Path) -> None:
        base = im.read_problem(instances / "limited.yaml")
        problem = generate_problem(base, servers=300, tightness=0.6, seed=4)
        hard = build_model(make_program(find_candidates(problem)).master)
        solution = solve_with_highs(hard, time_limit_s=1e-9, gap=0.0)
        assert solution.outcome == "no_solution"
        assert solution.objective is None

    def test_time_limit_with_an_incumbent(self) -> None:
        """A program that cannot be proven in its time: a market split, hard for any solver, with slacks to start from.

        Which incumbent is found depends on the machine; that it is called feasible, with a bound below it, does not.
        """
        rng = np.random.default_rng(3)
        model = pyo.ConcreteModel()
        model.I, model.J = pyo.RangeSet(0, 5), pyo.RangeSet(0, 49)
        model.x = pyo.Var(model.J, domain=pyo.Binary)
        model.over, model.under = (pyo.Var(model.I, domain=pyo.NonNegativeReals) for _ in range(2))
        a = rng.integers(0, 100, (6, 50))
        model.split = pyo.Constraint(
            model.I,
            rule=lambda m, i: sum(int(a[i, j]) * m.x[j] for j in m.J) + m.under[i] - m.over[i] == int(a[i].sum()) // 2,
        )
        model.miss = pyo.Objective(expr=sum(model.over[i] + model.under[i] for i in model.I))
        solution = solve_with_highs(model, time_limit_s=1.0, gap=0.0)
        assert solution.outcome == "feasible"
        assert solution.objective is not None
        assert solution.bound is not None
        assert solution.bound < solution.objective
        assert pyo.value(model.miss) == pytest.approx(solution.objective, abs=1e-4)

    def test_infeasible(self) -> None:
        model = pyo.ConcreteModel()
        model.x = pyo.Var(domain=pyo.Binary)
        model.c = pyo.Constraint(expr=2 * model.x == 1)
        model.o = pyo.Objective(expr=model.x)
        solution = solve_with_highs(model, gap=0.0)
        assert (solution.outcome, solution.objective, solution.bound) == ("infeasible", None, None)

    def test_constants_and_bounds_are_kept(self) -> None:
        model = pyo.ConcreteModel()
        model.x = pyo.Var(domain=pyo.Integers, bounds=(-3, 9))
        model.y = pyo.Var(domain=pyo.Reals, bounds=(0, None))
        model.c = pyo.Constraint(expr=pyo.inequality(1, 2 * model.x + model.y + 4, 11))
        model.o = pyo.Objective(expr=5 + 3 * model.x + 2 * model.y)
        solution = solve_with_highs(model, gap=0.0)
        assert solution.objective == pytest.approx(1)
        assert solution.bound == pytest.approx(1)
        assert (pyo.value(model.x), pyo.value(model.y)) == (-2, pytest.approx(1))

    def test_continuous(self) -> None:
        model = pyo.ConcreteModel()
        model.y = pyo.Var(bounds=(1.5, None))
        model.o = pyo.Objective(expr=2 * model.y)
        solution = solve_with_highs(model, gap=0.0)
        assert (solution.outcome, solution.objective, solution.bound) == ("optimal", 3.0, 3.0)

    def test_not_linear(self) -> None:
        model = pyo.ConcreteModel()
        model.y = pyo.Var(bounds=(0, 1))
        model.o = pyo.Objective(expr=model.y**2)
        with pytest.raises(SolverError, match="not linear"):
            solve_with_highs(model, gap=0.0)

    def test_silent(self, capfd: pytest.CaptureFixture[str]) -> None:
        """stdout holds results alone, from the very first use of HiGHS on."""
        im.optimize(make_problem())
        assert version()
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-3, 1e6])
def test_the_unit_of_prices_does_not_matter(instances: Path, scale: float) -> None:
    """HiGHS compares objectives with absolute tolerances: in small units it would call dear plans optimal."""
    base = im.read_problem(instances / "limited.yaml")
    problem = generate_problem(base, servers=40, tightness=0.6, seed=11)
    accelerators = [a.model_copy(update={"cost_per_hour": a.cost_per_hour * scale}) for a in problem.accelerators]
    scaled = im.optimize(problem.model_copy(update={"accelerators": tuple(accelerators)}), gap=0.0)
    plain = im.optimize(problem, gap=0.0)
    assert scaled.status == plain.status == "optimal"
    assert scaled.total_cost_per_hour == pytest.approx(plain.total_cost_per_hour * scale)  # type: ignore[operator]


class TestHardStop:
    """With a time limit HiGHS runs in a process of its own."""

    def solve(self) -> Found:
        lots = np.ones(3)
        program = Program(
            costs=np.array([1.0, 2.0, 3.0]), offset=0.0, lower=np.zeros(3), upper=lots, whole=lots.astype(bool),
            starts=np.array([0, 3], dtype=np.int32), columns=np.arange(3, dtype=np.int32), values=lots,
            row_lower=np.array([2.0]), row_upper=np.array([np.inf]),
        )  # fmt: skip
        with highs_child.HighsProcess() as process:
            return process.run(program, gap=0.0, time_limit_s=60.0)

    def fake(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        monkeypatch.setattr(highs_child, "COMMAND", (sys.executable, "-c", code))

    def test_an_answer_in_time(self) -> None:
        found = self.solve()
        assert (found.result, found.objective, found.bound) == ("optimal", 3.0, 3.0)
        assert found.values is not None
        assert found.values.tolist() == [1, 1, 0]

    def test_stuck_with_a_solution(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last solution sent is kept, and the child, which would sleep on, is ended."""
        self.fake(monkeypatch, """
import pickle, sys, time
from inferno_milp.program.highs_engine import Found
for objective in (9.0, 7.0):
    pickle.dump(Found("feasible", objective, 1.0, None), sys.stdout.buffer)
sys.stdout.flush()
time.sleep(600)
""")  # fmt: skip
        monkeypatch.setattr(highs_child, "GRACE_S", -55.0)
        found = self.solve()
        assert (found.result, found.objective, found.bound) == ("feasible", 7.0, 1.0)

    def test_stuck_without_a_solution(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake(monkeypatch, "import time; time.sleep(600)")
        monkeypatch.setattr(highs_child, "GRACE_S", -59.5)
        assert self.solve().result == "no_solution"

    @pytest.mark.parametrize("code", ["", "import os; os.abort()", "print('no pickle')"])
    def test_a_child_that_dies(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        self.fake(monkeypatch, code)
        with pytest.raises(SolverError, match="ended without an answer"):
            self.solve()

    def test_a_child_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake(monkeypatch, """
import pickle, sys
from inferno_milp.program.highs_engine import SolverError
pickle.dump(SolverError("HiGHS refused the model"), sys.stdout.buffer)
""")  # fmt: skip
        with pytest.raises(SolverError, match="refused the model"):
            self.solve()

    def test_no_time_at_all(self) -> None:
        program = None
        with highs_child.HighsProcess() as process:
            found = process.run(program, gap=0.0, time_limit_s=0.0)  # type: ignore[arg-type]
        assert found.result == "no_solution"


def test_zero_prices_are_no_trouble() -> None:
    accelerators = [{**a, "cost_per_hour": 0.0} for a in problem_data()["accelerators"]]
    plan = im.optimize(make_problem(accelerators=accelerators))
    assert (plan.status, plan.total_cost_per_hour, plan.gap) == ("optimal", 0.0, 0.0)
