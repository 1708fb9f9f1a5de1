"""Changes of load: the seed's demonstrations, and problems written to be read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from small_problems import make_problem, with_server
from systems import systems

import inferno_milp as im
from inferno_milp.problem import Problem
from inferno_milp.problem.writing import problem_text
from inferno_milp.studies.generate import generate_problem
from inferno_milp.studies.load_change import change_loads, find_transition, scale_server


class TestLoads:
    def test_factors(self, instances: Path) -> None:
        problem = im.read_problem(instances / "limited.yaml")
        changed = change_loads(problem, seed=3)
        rates, tokens = [], []
        for was, is_ in zip(problem.servers, changed.servers, strict=True):
            assert was.load is not None
            assert is_.load is not None
            rates.append(is_.load.arrival_rate_per_s / was.load.arrival_rate_per_s)
            tokens.append(is_.load.output_tokens / was.load.output_tokens)
            assert is_.load.input_tokens == pytest.approx(was.load.input_tokens * tokens[-1], abs=1.0)
        assert all(0.1 <= factor < 1.9 for factor in rates)
        assert max(rates) > 1.5
        assert min(rates) < 0.5
        assert change_loads(problem, seed=3) == changed
        assert change_loads(problem, seed=4) != changed

    def test_none(self) -> None:
        assert change_loads(with_server(load=None, min_replicas=1)).servers[0].load is None
        with pytest.raises(im.OptionError, match="least_factor"):
            change_loads(make_problem(), least_factor=0.0)


class TestTransition:
    def test_of_the_sample(self, instances: Path) -> None:
        problem = im.read_problem(instances / "limited.yaml")
        found = find_transition(problem, change_loads(problem), gap=0.0)
        assert found.before.total_cost_per_hour == pytest.approx(26300.5)
        assert {c.server for c in found.after.changes} == {c.server for c in found.changes}
        moved = [c for c in found.changes if c.moves]
        charge = found.after.objective_parts["changes"]
        assert moved
        assert charge > 0
        free = find_transition(problem, change_loads(problem).with_options(change_penalty=0.0), gap=0.0)
        assert free.after.total_cost_per_hour is not None
        assert found.after.total_cost_per_hour is not None
        assert free.after.total_cost_per_hour <= found.after.total_cost_per_hour + 1e-6
        json.dumps(found.to_dict(), allow_nan=False)
        frame = found.to_frame()
        assert frame.cost_after_per_hour.sum() == pytest.approx(found.after.total_cost_per_hour)

    def test_what_must_stay_can_come_back(self, instances: Path, tmp_path: Path) -> None:
        """A server that keeps its accelerator, and is not served before the change, still knows which."""
        problem = im.with_settings(im.read_problem(instances / "small.yaml"), {"capacity.A100": 2})
        found = find_transition(problem, im.with_settings(problem, {"capacity.A100": 12}))
        assert "relaxed-chat-70b" in found.before.unserved
        assert found.after.serves_all
        assert TestFiles().again(found.problem, tmp_path) == found.problem

    def test_other_servers(self, instances: Path) -> None:
        with pytest.raises(im.OptionError, match="not the same"):
            find_transition(make_problem(), im.read_problem(instances / "small.yaml"))


class TestScale:
    def test_of_the_sample(self, instances: Path) -> None:
        problem = im.read_problem(instances / "limited.yaml")
        found = scale_server(problem, "Premium-llama3_8b", rate_factor=2.5, tokens_factor=1.5, gap=0.0)
        frame = found.to_frame().set_index("plan")
        assert frame.loc["before", "accelerator"] == frame.loc["scaled", "accelerator"] == "MI250"
        assert frame.loc["moved", "moves"] == 1
        others = [
            [s.allocations for s in plan.servers if s.name != found.server] for plan in (found.before, found.moved)
        ]
        assert [[(a.accelerator, a.replicas) for a in s] for s in others[0]] == [
            [(a.accelerator, a.replicas) for a in s] for s in others[1]
        ]
        assert frame.loc["replanned", "total_cost_per_hour"] <= frame.loc["moved", "total_cost_per_hour"]
        json.dumps(found.to_dict(), allow_nan=False)

    def test_tokens(self) -> None:
        load = scale_server(make_problem(), "gold-m", tokens_factor=1.1).scaled.servers[0]
        problem = with_server(load={"rate_per_s": 4.0, "input_tokens": 220.0, "output_tokens": 110.0})
        assert load.allocations == im.optimize(problem).servers[0].allocations
        half = with_server(load={"rate_per_s": 4.0, "input_tokens": 200.5, "output_tokens": 100.5})
        assert scale_server(half, "gold-m", rate_factor=1.0).scaled.changes == ()

    def test_no_plan_after(self) -> None:
        found = scale_server(make_problem(), "gold-m", rate_factor=1000.0)
        assert found.replanned.status == "infeasible"
        assert found.to_frame().total_cost_per_hour.isna().tolist() == [False, True, True, True]

    def test_nothing_changes(self) -> None:
        frame = scale_server(make_problem(), "gold-m").to_frame()
        assert frame.cost_per_hour.nunique() == 1

    def test_what_cannot_be(self) -> None:
        with pytest.raises(im.OptionError, match="unknown server 'x'"):
            scale_server(make_problem(), "x")
        with pytest.raises(im.OptionError, match=r"gold-m: load\.rate_per_s 4e"):
            scale_server(make_problem(), "gold-m", rate_factor=1e13)
        with pytest.raises(im.OptionError, match="0 is no factor; gold-m has no load"):
            scale_server(with_server(load=None, min_replicas=1), "gold-m", rate_factor=0)
        with pytest.raises(im.OptionError, match="runs nothing before the change"):
            scale_server(make_problem(capacity={}), "gold-m")


class TestFiles:
    def again(self, problem: Problem, folder: Path) -> Problem:
        path = folder / "again.yaml"
        path.write_text(problem_text(problem, description="for a test: 'quoted'"), encoding="utf-8")
        return im.read_problem(path)

    def test_instances(self, instances: Path, tmp_path: Path) -> None:
        for path in sorted(instances.glob("*.yaml")):
            problem = im.read_problem(path)
            assert self.again(problem, tmp_path) == problem

    def test_generated(self, instances: Path, tmp_path: Path) -> None:
        problem = generate_problem(im.read_problem(instances / "limited.yaml"), servers=20, seed=1)
        again = self.again(problem, tmp_path)
        assert again == problem
        assert im.optimize(again).total_cost_per_hour == im.optimize(problem).total_cost_per_hour

    @pytest.mark.parametrize(
        "name", ["1e3", "08", "1.e3", "yes", "~x", "a: b", "# c", "é ü", "'q'", "0x1F", "1:30", "- d"]
    )
    def test_names_stay_texts(self, name: str, tmp_path: Path) -> None:
        problem = with_server(name=name).model_copy(update={"name": name, "currency": name})
        assert self.again(problem, tmp_path) == problem

    @settings(max_examples=40)
    @given(problem=systems())
    def test_anything(self, problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> None:
        assert self.again(problem, tmp_path_factory.mktemp("again")) == problem
