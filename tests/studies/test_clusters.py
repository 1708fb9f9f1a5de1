"""Many clusters: the same plans as one by one, kept as they come, and one that goes wrong holds up no other."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_problems import problem_data

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.studies.clusters import plan_clusters


def clusters(count=4):
    """Tiny problems with loads of their own."""
    server = problem_data()["servers"][0]
    return {
        f"c{i}": im.read_problem_data(
            problem_data(name=f"c{i}", servers=[{**server, "load": {**server["load"], "rate_per_s": 1.0 + 3 * i}}])
        )
        for i in range(count)
    }


def test_every_plan_is_that_of_its_cluster_alone(tmp_path: Path) -> None:
    problems, seen = clusters(), []
    found = plan_clusters(problems, into=tmp_path / "kept", on_done=lambda done, of: seen.append((done, of)))
    for name, problem in problems.items():
        plan = im.optimize(problem)
        assert found[name].total_cost_per_hour == pytest.approx(plan.total_cost_per_hour)
        assert found[name].plan.servers == plan.servers
    assert seen[-1] == (4, 4)
    rows = pd.read_parquet(tmp_path / "kept")
    assert rows.sort_values("case").cluster.tolist() == [*problems]
    assert [json.loads(text)["problem"] for text in rows.sort_values("case").plan] == [*problems]


def test_what_is_kept_is_not_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = clusters()
    first = plan_clusters(problems, into=tmp_path)
    monkeypatch.setattr("inferno_milp.studies.clusters.plan_candidates", lambda *_, **__: pytest.fail("planned again"))
    assert plan_clusters(problems, into=tmp_path) == first
    assert len(plan_clusters(clusters(3), into=tmp_path)) == 3  # some left out, in another order
    monkeypatch.undo()
    more = plan_clusters({**clusters(5), "c0": clusters()["c1"]}, into=tmp_path)  # one added, one changed
    assert more["c4"].serves_all
    assert more["c0"].plan.problem_name == "c1"
    with pytest.raises(im.OptionError, match="other cases"):
        plan_clusters(problems, into=tmp_path, gap=0.1)
    with pytest.raises(im.OptionError, match=r"gap must be within.*"):
        plan_clusters(problems, gap=-1.0)


def test_what_ran_out_of_time_is_planned_again(tmp_path: Path) -> None:
    path = Path(__file__).parent.parent.parent / "instances" / "small.yaml"
    problem = {"c": im.read_problem(path).with_options(assignment="mixed")}
    late = plan_clusters(problem, into=tmp_path, time_limit_s=1e-5)
    assert late["c"].status == "no_solution"
    assert not list(tmp_path.glob("*.parquet"))


def test_one_that_goes_wrong_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inferno_milp.studies import clusters as module

    problems, plan = clusters(), module.plan_candidates

    def fails(table, **options):
        if table.problem.name == "c1":
            raise RuntimeError("no luck")
        return plan(table, **options)

    monkeypatch.setattr(module, "plan_candidates", fails)
    found = plan_clusters(problems, into=tmp_path)
    assert found["c1"].error == "RuntimeError: no luck"
    assert [outcome.serves_all for outcome in found.values()] == [True, False, True, True]
    monkeypatch.undo()
    assert plan_clusters(problems, into=tmp_path)["c1"].serves_all


def test_two_processes(tmp_path: Path) -> None:
    problems = clusters()
    here, there = plan_clusters(problems), plan_clusters(problems, jobs=2, into=tmp_path)
    for name, outcome in here.items():
        assert outcome.plan.servers == there[name].plan.servers


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name in ("c0", "c1"):
        paths.append(str(tmp_path / f"{name}.yaml"))
        Path(paths[-1]).write_text(yaml.safe_dump(problem_data(name=name)))
    out = tmp_path / "out.json"
    assert main(["clusters", *paths, "--json", str(out), "--into", str(tmp_path / "kept")]) == 0
    document = json.loads(out.read_text())
    assert [document[path]["plan"]["problem"] for path in paths] == ["c0", "c1"]
    assert "2 of 2 clusters serve everybody" in capsys.readouterr().out
    assert main(["clusters", paths[0], paths[0]]) == 2
    assert "given twice" in capsys.readouterr().err
    # Faults of all files are told at once.
    for path in paths:
        Path(path).write_text(yaml.safe_dump(problem_data(capacity={"Z": 1})))
    assert main(["clusters", *paths]) == 2
    told = capsys.readouterr().err
    assert all(path in told for path in paths)
