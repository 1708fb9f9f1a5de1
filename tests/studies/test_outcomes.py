"""Outcomes in a folder of Parquet files: nothing that was planned is planned again, and nothing is mixed up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import inferno_milp as im
from inferno_milp.cli import main
from inferno_milp.studies import outcomes as parts
from inferno_milp.studies import whatif as cases

pytest.importorskip("pyarrow")


@pytest.fixture
def problem(instances):
    return im.read_problem(instances / "small.yaml")


@pytest.fixture
def axes(problem):
    (name,) = [next(iter(problem.capacity))]
    unit = "rate_per_s" if problem.servers[0].load.rate_per_s is not None else "rate_per_min"
    return {f"servers.*.load.{unit} *=": [0.5, 0.75, 1.0, 1.25, 1.5], f"capacity.{name}": [1, 40]}


def test_the_frame_is_the_same_and_is_there(problem, axes, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "EVERY", 4)
    plain = im.sweep(problem, axes)
    streamed = im.sweep(problem, axes, into=tmp_path / "swept")
    pd.testing.assert_frame_equal(plain, streamed)
    files = sorted((tmp_path / "swept").iterdir())
    assert len(files) == 3
    table = pd.read_parquet(tmp_path / "swept")
    assert sorted(table["case"]) == list(range(10))
    by_case = table.sort_values("case")["total_cost_per_hour"].to_numpy()
    assert by_case == pytest.approx(plain["total_cost_per_hour"].to_numpy(dtype=float), nan_ok=True)


def test_what_is_there_is_not_planned_again(problem, axes, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "EVERY", 3)
    count, planned = 0, cases.plan_candidates

    def few(table, **options):
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return planned(table, **options)

    monkeypatch.setattr(cases, "plan_candidates", few)
    with pytest.raises(KeyboardInterrupt):
        im.sweep(problem, axes, into=tmp_path)
    assert len(pd.read_parquet(tmp_path)) == 7, "what was planned is there, the last file not full"
    seen = []
    frame = im.sweep(problem, axes, into=tmp_path, on_done=lambda done, of: seen.append((done, of)))
    assert count == 8 + 3
    assert seen == [(8, 10), (9, 10), (10, 10)]
    monkeypatch.setattr(cases, "plan_candidates", planned)
    pd.testing.assert_frame_equal(frame, im.sweep(problem, axes))


def test_what_went_wrong_is_tried_again(problem, axes, tmp_path, monkeypatch):
    planned = cases.plan_candidates

    def fails(table, **options):
        raise im.OptionError("no")

    monkeypatch.setattr(cases, "plan_candidates", fails)
    assert im.sweep(problem, axes, into=tmp_path).error.notna().all()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(cases, "plan_candidates", planned)
    assert im.sweep(problem, axes, into=tmp_path).error.isna().all()


def test_a_folder_is_of_one_sweep(problem, axes, tmp_path):
    im.sweep(problem, axes, into=tmp_path)
    first = next(iter(axes))
    with pytest.raises(im.OptionError, match="holds outcomes of other cases"):
        im.sweep(problem, {**axes, first: [0.5, 0.6]}, into=tmp_path)
    (part,) = tmp_path.iterdir()
    part.write_bytes(b"no parquet")
    with pytest.raises(im.OptionError, match="cannot be read"):
        im.sweep(problem, axes, into=tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(im.OptionError, match="cannot write into"):
        im.sweep(problem, axes, into=file)


def test_two_processes_and_the_command_line(problem, axes, tmp_path, instances, capsys):
    pytest.importorskip("joblib")
    pd.testing.assert_frame_equal(im.sweep(problem, axes), im.sweep(problem, axes, jobs=2, into=tmp_path / "two"))
    first = next(iter(axes)).replace(" ", "")
    arguments = ["sweep", str(instances / "small.yaml"), "--vary", f"{first}0.5,1", "--into", str(tmp_path / "cli")]
    for _ in range(2):
        assert main([*arguments, "--quiet"]) == 0
    assert len(list((tmp_path / "cli").iterdir())) == 1


def test_cases_of_other_figures_have_other_fingerprints(problem):
    one = parts.fingerprint(problem, [], 1e-4, None)
    assert one == parts.fingerprint(problem.model_copy(), [], 1e-4, None)
    assert one != parts.fingerprint(problem, [], 1e-3, None)
    assert one != parts.fingerprint(problem.with_options(change_penalty=0.5), [], 1e-4, None)


def test_two_at_once_and_what_a_kill_leaves(problem, axes, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "EVERY", 2)
    key = parts.fingerprint(problem)
    one, two = parts.Parts(tmp_path, key), parts.Parts(tmp_path, key)
    for number in range(4):
        for writer in (one, two):
            writer.add({"case": number, "status": "optimal", "unserved": [], "device_types": [], "device_counts": []})
    assert sorted(pd.read_parquet(tmp_path)["case"]) == sorted(2 * list(range(4)))
    (tmp_path / ".part-0-x.new").write_bytes(b"half")
    assert len(pd.read_parquet(tmp_path)) == 8
    monkeypatch.setattr(parts, "STALE_S", -1.0)
    assert {row["case"] for row in parts.Parts(tmp_path, key).read()} == set(range(4))
    assert not list(tmp_path.glob(".part*"))


def test_a_figure_is_the_same_in_other_words(problem, axes, tmp_path):
    first, second = axes
    im.sweep(problem, {first: [0.5, 1], second: [40]}, into=tmp_path)
    im.sweep(problem, {first: np.array([0.5, 1.0]).tolist(), second: [40]}, into=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
