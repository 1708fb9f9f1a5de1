"""Figures set by their path: what is meant, and everything that is wrong at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_problems import make_problem, problem_data, with_server

import inferno_milp as im
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.settings import Setting, read_setting, read_target, with_settings


def faults(problem: Problem, *settings: str) -> str:
    with pytest.raises(im.InputError) as caught:
        with_settings(problem, list(settings))
    return str(caught.value)


class TestReading:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("capacity.H100=96", Setting("capacity.H100", "=", 96)),
            ("capacity.* *= 2", Setting("capacity.*", "*=", 2)),
            ("capacity.**=2", Setting("capacity.*", "*=", 2)),
            ("capacity.*=2", Setting("capacity.*", "=", 2)),
            ("capacity.A+=-1", Setting("capacity.A", "+=", -1)),
            ("options.law=inferno", Setting("options.law", "=", "inferno")),
            ("capacity={A: 1}", Setting("capacity", "=", {"A": 1})),
            ("a=b=c", Setting("a", "=", "b=c")),
            ("capacity.A-=3", Setting("capacity.A", "+=", -3)),
            ("capacity.A=1:30", Setting("capacity.A", "=", "1:30")),
            ("capacity.A=0012", Setting("capacity.A", "=", 12)),
            ("a.b*=1e-1", Setting("a.b", "*=", 0.1)),
            ("name=no", Setting("name", "=", "no")),
        ],
    )
    def test_texts(self, text: str, expected: Setting) -> None:
        assert read_setting(text) == expected
        assert read_setting(str(expected)) == expected

    @pytest.mark.parametrize("text", ["", "capacity.H100", "=3", "capacity.H100=", "a=[1", "a-=x", "a={b: 1, b: 2}"])
    def test_texts_that_set_nothing(self, text: str) -> None:
        with pytest.raises(im.InputError):
            read_setting(text)

    def test_targets(self) -> None:
        assert read_target("capacity.A") == read_target("capacity.A =") == ("capacity.A", "=")
        assert read_target("servers.*.load.rate_per_s *=") == ("servers.*.load.rate_per_s", "*=")
        assert Setting("capacity.A", "*=", 2).target == "capacity.A *="
        with pytest.raises(im.InputError, match="has a value"):
            read_target("capacity.A=3")


class TestWhatIsSet:
    def test_nothing(self, instances: Path) -> None:
        for path in sorted(instances.glob("*.yaml")):
            problem = im.read_problem(path)
            assert with_settings(problem, []) == problem

    def test_a_rate_in_the_other_unit(self) -> None:
        load = with_settings(make_problem(), {"servers.gold-m.load.rate_per_min": 600}).servers[0].load
        assert load is not None
        assert (load.rate_per_min, load.rate_per_s) == (600.0, None)
        load = with_settings(make_problem(), {"servers.gold-m.load.rate_per_min *=": 2}).servers[0].load
        assert load is not None
        assert load.arrival_rate_per_s == pytest.approx(8.0)

    def test_promises(self) -> None:
        def targets(*settings: str) -> Any:
            return with_settings(make_problem(), settings).service_classes[0].targets["m"]

        path = "service_classes.gold.targets.m"
        assert targets(f"{path}.ttft_ms*=1.1").ttft_ms == pytest.approx(1100.0)
        assert targets(f"{path}.ttft_ms.p95=900").ttft_ms == {"mean": 1000.0, "p95": 900.0}
        assert targets(f"{path}.ttft_ms={{p99: 2000}}").ttft_ms == {"p99": 2000.0}
        both = targets(f"{path}.ttft_ms.p95=900", f"{path}.ttft_ms*=2")
        assert both.ttft_ms == {"mean": 2000.0, "p95": 1800.0}
        assert targets(f"{path}={{}}").ttft_ms is None
        assert targets("service_classes.*.targets.*.itl_ms+=5").itl_ms == pytest.approx(35.0)

    def test_devices(self) -> None:
        problem = make_problem(nodes=[{"type": "B", "devices": 2, "count": 3}], capacity={"A": 5})
        changed = with_settings(problem, ["capacity.A*=0.5", "nodes.B.2.count+=4"])
        assert (changed.capacity, changed.nodes[0].count) == ({"A": 2}, 7)
        assert with_settings(make_problem(capacity={"A": 5}), ["capacity.B=3"]).capacity == {"A": 5, "B": 3}
        assert with_settings(make_problem(capacity={"A": 5}), ["capacity.**=3"]).capacity == {"A": 15}
        assert with_settings(make_problem(), ["capacity=unlimited"]).capacity is None

    def test_names_with_dots(self) -> None:
        """Of several readings the one with the longest names holds."""
        data = problem_data()
        data["accelerators"] += [{"name": "H1", "cost_per_hour": 1.0}, {"name": "H1.80", "cost_per_hour": 2.0}]
        data["servers"] = [{**data["servers"][0], "name": name} for name in ("s", "s.load")]
        problem = Problem.model_validate(data)
        assert with_settings(problem, ["accelerators.H1.80.cost_per_hour=7"]).accelerators[-1].cost_per_hour == 7.0
        assert with_settings(problem, ["capacity.H1.80=4"]).capacity == {"A": 20, "B": 6, "H1.80": 4}
        changed = with_settings(problem, ["servers.s.load.load.rate_per_s=9"])
        assert [s.load.arrival_rate_per_s for s in changed.servers if s.load] == [4.0, 9.0]

    def test_profiles_and_options(self) -> None:
        changed = with_settings(make_problem(), ["profiles.m.2xB.alpha_ms=1", "options.max_changes=2", "name=other"])
        assert changed.profiles[2].alpha_ms == 1.0
        assert (changed.options.max_changes, changed.name) == (2, "other")

    def test_one_builds_on_another(self) -> None:
        assert with_settings(make_problem(), ["capacity.A=4", "capacity.A*=3", "capacity.A+=1"]).capacity == {
            "A": 13,
            "B": 6,
        }


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ("capacit.A=1", "capacit.A: unknown section 'capacit'; did you mean 'capacity'?"),
            ("capacity.C=1", "capacity.C: unknown accelerator type 'C'; known: A, B"),
            ("capacity.A.x=1", "have no parts; set capacity.A"),
            ("capacity.A=-1", "capacity.A: must be at least 0, is -1"),
            ("capacity.A=many", "capacity.A: must be a whole number, is 'many'"),
            ("servers.gold-n.load.rate_per_s=1", "unknown name 'gold-n'; did you mean 'gold-m'?"),
            ("servers.gold-m.load.rate=1", "servers.gold-m.load.rate: unknown key"),
            ("servers.gold-m=1", "names a whole item"),
            ("servers.gold-m.max_replicas*=2", "is given for none of them"),
            ("servers.gold-m.targets.ttft_ms=1", "service_classes.gold.targets.m"),
            ("servers.gold-m.name.x=1", "name has no parts that have names"),
            ("servers.gold-m.service_class=tin", "unknown service class 'tin'"),
            ("service_classes.gold.targets.n.ttft_ms=1", "unknown model 'n'; known: m"),
            ("servers.gold-m.load*=x", "'x' is not a number"),
            ("accelerators.A.name*=2", "is 'A', not a number"),
            ("name.x=1", "name has no parts"),
            ("options.law=magic", "options.law: must be"),
        ],
    )
    def test_one_thing(self, setting: str, words: str) -> None:
        assert words in faults(make_problem(), setting)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            (["servers=[5]"], "servers[0]: must be a mapping"),
            (["nodes=[5]", "nodes.B.2.count=3"], "unknown type of node 'B'"),
            (["servers=5", "servers.gold-m.min_replicas=2"], "servers: must be a list"),
            (["capacity=5", "capacity.A=3"], "give a count for each accelerator type"),
            (["options=5", "options.law=inferno"], "options: must be a mapping"),
            (["servers.gold-m.load.rate_per_min=abc", "servers.gold-m.load.rate_per_s*=2"], "given for none of them"),
            (
                ["service_classes.gold.targets.m=null", "service_classes.gold.targets.m.ttft_ms.p95=3"],
                "must be a mapping",
            ),
            (["accelerators=[{name: X, cost_per_hour: 1}]", "capacity.X=3"], "unknown accelerator type 'X'"),
            (["servers=[{service_class: gold, model: m}]", "servers.gold-m.load.rate_per_s*=3"], "given for none"),
            (["servers.gold-m.load.rate_per_s*=" + "9" * 400], "is too large a number"),
            (["capacity.A=" + "9" * 5000], "must be"),
            (["profiles.m.A.alpha_ms=x", "profiles.m.C.alpha_ms=1"], "no profile of m on 'C'; known: 2xB, A, B"),
        ],
    )
    def test_wrong_parts_and_what_goes_into_them(self, settings: list[str], words: str) -> None:
        assert words in faults(make_problem(), *settings)

    def test_paths_and_values_are_told_together(self) -> None:
        told = faults(make_problem(), "capacity.AA=3", "servers.gold-m.min_replicas=-1")
        assert "unknown accelerator type 'AA'" in told
        assert "servers.gold-m.min_replicas: must be at least 0, is -1" in told

    def test_everything_at_once(self) -> None:
        told = faults(make_problem(), "capacit.A=1", "servers.x.load.rate_per_s=1", "capacity.C=1")
        assert len(told.splitlines()) == 3

    def test_unlimited(self) -> None:
        assert "capacity is unlimited" in faults(make_problem(capacity="unlimited"), "capacity.A=1")

    def test_a_server_without_a_load(self) -> None:
        problem = with_server(load=None, min_replicas=1)
        assert "given for none" in faults(problem, "servers.*.load.rate_per_s*=2")
        load = with_settings(problem, ["servers.gold-m.load={rate_per_s: 1, input_tokens: 10, output_tokens: 10}"])
        assert load.servers[0].load is not None
