"""What comes with the program: its files by their names, its catalogue in a problem, the names of its models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_problems import ROOT, problem_data

import inferno_milp as im
from inferno_milp.problem.reading import read_problem_data, read_problem_text, read_sections
from inferno_milp.problem.reading.settings import with_settings
from inferno_milp.problem.shipped import INSTANCES, MODELS, shipped, shipped_file
from inferno_milp.profiles.catalogue import shipped_catalogue

FILES = [file for folder in (INSTANCES, MODELS) for file in shipped(folder)]
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LOAD = {"rate_per_s": 2, "input_tokens": 500, "output_tokens": 200}


def fleet(**changes: Any) -> dict[str, Any]:
    return {
        "include": ["catalogue"],
        "capacity": {"H100": 8, "L4": 8},
        "service_classes": [{"name": "gold", "targets": {LLAMA: {"ttft_ms": 1000, "itl_ms": 60}}}],
        "servers": [{"service_class": "gold", "model": LLAMA, "load": LOAD}],
        **changes,
    }


def read_both(tmp_path: Path, data: dict[str, Any]) -> tuple[im.Problem, im.Problem]:
    """Read a document as a file, and as a text."""
    text = yaml.safe_dump(data, sort_keys=False)
    (tmp_path / "p.yaml").write_text(text)
    return im.read_problem(tmp_path / "p.yaml"), read_problem_text(text)


class TestNames:
    def test_no_two_files_have_the_same(self) -> None:
        assert len({file.name for file in FILES}) == len(FILES)

    @pytest.mark.parametrize("name", ["small.yaml", "instances/small.yaml", "../instances/small.yaml"])
    def test_a_problem_from_anywhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        assert im.read_problem(name).name == "small"
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(problem_data()))
        if name == "small.yaml":
            assert im.read_problem(name).name == "tiny"  # a file of one's own goes first

    @pytest.mark.parametrize("name", ["nothing.yaml", "models/small.yaml", "elsewhere/small.yaml", "/small.yaml"])
    def test_no_other_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        assert shipped_file(name) is None
        with pytest.raises(im.InputError, match="no such file"):
            im.read_problem(name)

    def test_a_catalogue_from_anywhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert read_sections("models/cloud.yaml").accelerators == read_sections("cloud.yaml").accelerators

    @pytest.mark.parametrize("folder", ["models", ".."])
    def test_an_include_of_a_file_and_of_a_text(self, tmp_path: Path, folder: str) -> None:
        names = [f"{folder}/{name}.yaml" for name in ("cloud", "measured", "estimated")]
        for names_ in (names, [name.rpartition("/")[2] for name in names]):
            from_file, from_text = read_both(tmp_path, fleet(include=names_))
            assert from_file == from_text
            assert len(from_file.accelerators) == 61

    def test_a_file_that_is_included_under_two_names(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "mine.yaml").write_text("include: [cloud.yaml]")
        data = fleet(include=["cloud.yaml", "in/mine.yaml", "models/measured.yaml", "estimated.yaml"])
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
        assert len(im.read_problem(tmp_path / "p.yaml").accelerators) == 61


class TestAnInstallation:
    def test_a_wheel_outside_the_clone(self, tmp_path: Path) -> None:
        """Built as it is published, unpacked, and used from a folder that has none of its files."""
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
        subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
        (wheel,) = tmp_path.glob("*.whl")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "fleet.yaml").write_text(yaml.safe_dump(fleet()))
        environment = {**os.environ, "PYTHONPATH": str(wheel)}
        subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "site"], check=True)
        environment["PYTHONPATH"] = str(tmp_path / "site")
        for arguments in (["instances/small.yaml"], ["small.yaml"], ["validate", "real-cloud.yaml", "fleet.yaml"]):
            done = subprocess.run(
                [sys.executable, "-m", "inferno_milp", *arguments],
                cwd=elsewhere, env=environment, capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr


class TestTheCatalogue:
    def test_it_is_all_that_a_fleet_needs(self, tmp_path: Path) -> None:
        whole = shipped_catalogue()
        for problem in read_both(tmp_path, fleet()):
            assert {a.name for a in problem.accelerators} == {*whole.accelerators}
            assert {m.name for m in problem.language_models} == {*whole.language_models}
            assert len(problem.profiles) == len(whole.profiles)
            assert problem.currency == "usd"
        assert im.optimize(problem).serves_all

    def test_what_a_document_says_itself_goes_first(self, tmp_path: Path) -> None:
        profile = {"model": LLAMA, "accelerator": "L4", "alpha_ms": 1, "beta_ms": 1, "max_batch_size": 7}
        own = {"accelerators": [{"name": "H100", "cost_per_hour": 1.5}], "profiles": [profile], "currency": "eur"}
        for problem in read_both(tmp_path, fleet(**own)):
            (h100,) = [a for a in problem.accelerators if a.name == "H100"]
            (on_l4,) = [p for p in problem.profiles if (p.model, p.accelerator) == (LLAMA, "L4")]
            assert (h100.cost_per_hour, on_l4.max_batch_size, problem.currency) == (1.5, 7, "eur")

    def test_two_of_ones_own_are_still_a_fault(self) -> None:
        own = [{"name": "H100", "cost_per_hour": 1}, {"name": "H100", "cost_per_hour": 2}]
        with pytest.raises(im.InputError, match="'H100' is given 2 times"):
            read_problem_data(fleet(accelerators=own))

    @pytest.mark.parametrize("path", [f"profiles.{names}.alpha_ms" for names in ("*.*", "*.H100", f"{LLAMA}.*")])
    def test_settings_of_its_profiles(self, path: str) -> None:
        """Names of models have dots, which patterns of paths must not stumble over."""
        before = read_problem_data(fleet())
        after = with_settings(before, [f"{path}*=0.9"])
        _, model, accelerator, _ = ("", *(LLAMA if LLAMA in path else "*",), *path.rsplit(".", 2)[1:])
        for old, new in zip(before.profiles, after.profiles, strict=True):
            meant = model in ("*", old.model) and accelerator in ("*", old.accelerator)
            assert new.alpha_ms == pytest.approx(old.alpha_ms * (0.9 if meant else 1))

    def test_a_pattern_within_a_name_with_dots(self) -> None:
        problem = read_problem_data(fleet())
        after = with_settings(problem, ["profiles.meta-llama/Llama-3.*.H100.alpha_ms=1"])
        changed = {p.model for p in after.profiles if p.alpha_ms == 1}
        assert changed == {p.model for p in problem.profiles if "/Llama-3." in p.model and p.accelerator == "H100"}


class TestNamesOfModels:
    @pytest.mark.parametrize("word", [LLAMA, "meta-llama/Llama-3.1-8B", "llama-3.1-8b", "LLAMA-3.1-8B-INSTRUCT"])
    def test_a_model_by_any_of_them(self, word: str) -> None:
        for other in (word, LLAMA):
            classes = [{"name": "gold", "targets": {other: {"itl_ms": 60}}}]
            servers = [{"service_class": "gold", "model": word, "load": LOAD}]
            problem = read_problem_data(fleet(service_classes=classes, servers=servers))
            assert problem.servers[0].model == LLAMA
            assert problem.servers[0].name == f"gold-{word}"  # as the document calls it
            assert problem.targets_of(problem.servers[0]).itl_ms == 60

    def test_one_with_a_profile_of_its_own_stays(self) -> None:
        alias = "meta-llama/Llama-3.1-8B"
        profile = {"model": alias, "accelerator": "L4", "alpha_ms": 1, "beta_ms": 1, "max_batch_size": 7}
        classes = [{"name": "gold", "targets": {alias: {}, LLAMA: {}}}]
        servers = [{"service_class": "gold", "model": alias, "load": LOAD}]
        problem = read_problem_data(fleet(profiles=[profile], service_classes=classes, servers=servers))
        assert problem.servers[0].model == alias

    def test_targets_under_two_names(self) -> None:
        classes = [{"name": "gold", "targets": {"llama-3.1-8b": {}, LLAMA: {}}}]
        with pytest.raises(im.InputError, match=r"service_classes\[0\].*are one model; keep one of the two"):
            read_problem_data(fleet(service_classes=classes))
