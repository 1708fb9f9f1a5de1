"""Reading: what is right is read, and of what is wrong everything is told, with its place and what would be right."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_problems import as_system_data, problem_data, system

import inferno_milp as im
from inferno_milp.errors import Fault, InputError, path_text
from inferno_milp.problem import Problem
from inferno_milp.problem.reading.source import MAX_FILE_BYTES


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path) -> tuple[Fault, ...]:
    with pytest.raises(InputError) as caught:
        im.read_problem(path)
    assert caught.value.faults
    assert all(fault.file for fault in caught.value.faults)
    return caught.value.faults


def only_fault(path: Path) -> Fault:
    (fault,) = faults(path)
    return fault


class TestGood:
    def test_yaml_and_json_are_one(self, tmp_path: Path) -> None:
        data = problem_data()
        in_yaml = im.read_problem(write(tmp_path / "a.yaml", data))
        in_json = im.read_problem(write(tmp_path / "a.json", json.dumps(data)))
        assert in_yaml == in_json == Problem.model_validate(data)

    def test_path_may_be_text(self, tmp_path: Path) -> None:
        assert im.read_problem(str(write(tmp_path / "a.yaml", problem_data()))).name == "tiny"

    def test_defaults(self, tmp_path: Path) -> None:
        problem = im.read_problem(write(tmp_path / "a.yaml", problem_data()))
        assert problem.servers[0].name == "gold-m"
        assert problem.accelerators[0].type == "A"
        assert problem.currency == "cents"

    def test_rates_of_either_unit(self, tmp_path: Path) -> None:
        data = problem_data()
        data["servers"][0]["load"] = {"rate_per_min": 240, "input_tokens": 200, "output_tokens": 100}
        problem = im.read_problem(write(tmp_path / "a.yaml", data))
        assert problem.servers[0].load is not None
        assert problem.servers[0].load.arrival_rate_per_s == pytest.approx(4.0)

    def test_anchors_merges_and_exponents(self, tmp_path: Path) -> None:
        text = yaml.safe_dump({k: v for k, v in problem_data().items() if k != "servers"})
        text += """
servers:
  - &base {name: one, service_class: gold, model: m, load: {rate_per_s: 1e-2, input_tokens: 2e2, output_tokens: 64}}
  - {<<: *base, name: two, min_replicas: 3}
"""
        one, two = im.read_problem(write(tmp_path / "a.yaml", text)).servers
        assert one.load == two.load
        assert one.load is not None
        assert one.load.rate_per_s == 0.01
        assert (two.name, two.min_replicas) == ("two", 3)

    def test_words_mean_what_yaml_1_2_says(self, tmp_path: Path) -> None:
        """No octal, no base 60, no truth but true and false, no dates: what PyYAML reads as 80, 90 and False."""
        text = yaml.safe_dump(problem_data(), default_flow_style=True)
        text = text.replace("rate_per_s: 4.0", "rate_per_s: 0120").replace("name: tiny", "name: no")
        problem = im.read_problem(write(tmp_path / "a.yaml", text))
        assert problem.name == "no"
        assert problem.servers[0].load is not None
        assert problem.servers[0].load.rate_per_s == 120
        text = text.replace("rate_per_s: 0120", "rate_per_s: 1:30")
        assert "must be a number, is '1:30'" in only_fault(write(tmp_path / "b.yaml", text)).problem

    def test_names_that_look_like_other_things(self, tmp_path: Path) -> None:
        """Keys are names: `no` and `70` are not a truth and a number there."""
        text = yaml.safe_dump(problem_data(), default_flow_style=True).replace("model: m", "model: 'no'")
        text = re.sub(r"targets: \{\s*m:", "targets: {no:", text)
        problem = im.read_problem(write(tmp_path / "a.yaml", text))
        assert list(problem.service_classes[0].targets) == ["no"]

    def test_byte_order_mark_and_crlf(self, tmp_path: Path) -> None:
        text = yaml.safe_dump(problem_data()).replace("\n", "\r\n")
        path = tmp_path / "a.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert im.read_problem(path).name == "tiny"

    def test_capacity_unlimited(self, tmp_path: Path) -> None:
        problem = im.read_problem(write(tmp_path / "a.yaml", problem_data(capacity="unlimited")))
        assert problem.capacity is None
        assert problem.model_dump()["capacity"] == "unlimited"
        assert Problem.model_validate(problem.model_dump()) == problem


class TestIncludes:
    def split(self, folder: Path) -> Path:
        data = problem_data()
        parts = {key: data.pop(key) for key in ("accelerators", "profiles")}
        write(folder / "models" / "a.yaml", {"source": "made up", "accelerators": parts["accelerators"]})
        write(folder / "models" / "b.yaml", {"include": ["a.yaml"], "profiles": parts["profiles"]})
        return write(folder / "in" / "p.yaml", {"include": ["../models/b.yaml", "../models/a.yaml"], **data})

    def test_relative_to_the_file_and_each_once(self, tmp_path: Path) -> None:
        assert im.read_problem(self.split(tmp_path)) == Problem.model_validate(problem_data())

    def test_the_including_file_has_the_last_word(self, tmp_path: Path) -> None:
        self.split(tmp_path)
        override = {"include": ["in/p.yaml"], "name": "mine", "capacity": {"A": 1}}
        problem = im.read_problem(write(tmp_path / "mine.yaml", override))
        assert (problem.name, problem.capacity) == ("mine", {"A": 1})

    def test_two_included_files_may_not_differ(self, tmp_path: Path) -> None:
        write(tmp_path / "a.yaml", {"capacity": {"A": 1}})
        write(tmp_path / "b.yaml", {"capacity": {"A": 2}})
        data = problem_data()
        del data["capacity"]
        fault = only_fault(write(tmp_path / "p.yaml", {"include": ["a.yaml", "b.yaml"], **data}))
        assert fault.file.endswith("b.yaml")
        assert "also given in" in fault.problem

    def test_missing(self, tmp_path: Path) -> None:
        fault = only_fault(write(tmp_path / "p.yaml", {"include": ["none.yaml"], **problem_data()}))
        assert (fault.file, fault.line, fault.path) == (str(tmp_path / "p.yaml"), 2, ("include", 0))
        assert "'none.yaml': no such file" in fault.problem

    def test_circle(self, tmp_path: Path) -> None:
        write(tmp_path / "b.yaml", {"include": ["c.yaml"]})
        write(tmp_path / "c.yaml", {"include": ["a.yaml"]})
        fault = only_fault(write(tmp_path / "a.yaml", {"include": ["b.yaml"], **problem_data()}))
        assert fault.file == str(tmp_path / "c.yaml")
        assert "'a.yaml' includes this file in turn" in fault.problem

    def test_itself(self, tmp_path: Path) -> None:
        assert "in turn" in only_fault(write(tmp_path / "a.yaml", {"include": ["a.yaml"], **problem_data()})).problem

    def test_faults_are_told_in_the_file_they_are_in(self, tmp_path: Path) -> None:
        path = self.split(tmp_path)
        profiles = tmp_path / "models" / "b.yaml"
        text = (
            profiles.read_text()
            .replace("alpha_ms: 8.0", "alpha_ms: -8.0")
            .replace("accelerator: 2xB", "accelerator: 2xC")
        )
        write(profiles, text)
        found = faults(path)
        assert [fault.path for fault in found] == [("profiles", 1, "alpha_ms"), ("profiles", 2, "accelerator")]
        for fault in found:
            assert fault.file.endswith("b.yaml")
            assert fault.line is not None
            assert str(fault.path[-1]) in text.splitlines()[fault.line - 1]


def change(data: Any, path: str, value: Any) -> Any:
    """Set a value deep inside, at a path like `servers.0.load.rate_per_s`; `...` deletes it."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    here = data
    for part in parents:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return data


BAD_FIELDS: list[tuple[str, Any, str, str]] = [
    ("servers.0.lod", 1, "unknown key", "did you mean 'load'?"),
    ("capasity", {}, "unknown key", "did you mean 'capacity'?"),
    ("servers.0.load.rate_per_hour", 1, "unknown key", "did you mean 'rate_per_s' or 'rate_per_min'?"),
    ("profiles.0.alpha_ms", ..., "is missing", "iteration time of decoding"),
    ("servers.0.service_class", ..., "is missing", ""),
    ("accelerators.0.name", "", "must not be empty", ""),
    ("accelerators.0.name", " A", "must not begin or end with white space", ""),
    ("accelerators.0.name", 7, "must be text, is 7", "'7'"),
    ("accelerators.0.cost_per_hour", -1, "must be at least 0, is -1", ""),
    ("accelerators.0.cost_per_hour", float("nan"), "must be a finite number, is nan", ""),
    ("accelerators.0.cost_per_hour", float("inf"), "must be a finite number, is inf", ""),
    ("accelerators.0.cost_per_hour", "12", "must be a number, is '12'", "without quotes"),
    ("accelerators.0.cost_per_hour", True, "must be a number, is True", ""),
    ("accelerators.0.cost_per_hour", None, "must be a number, is nothing", ""),
    ("accelerators.0.cost_per_hour", [1], "must be a number, is a list", ""),
    ("accelerators.0.devices", 1.5, "must be a whole number, is 1.5", ""),
    ("accelerators.0.devices", 0, "must be at least 1, is 0", ""),
    ("profiles.0.max_batch_size", 0, "must be at least 1", ""),
    ("profiles.0.max_batch_size", 10**9, "must be at most 16384", ""),
    ("service_classes.0.priority", 101, "must be at most 100, is 101", ""),
    ("service_classes.0.targets.m.ttft_ms", 0, "must be greater than 0, is 0", ""),
    ("service_classes.0.targets.m.tfft_ms", 5, "unknown key", "did you mean 'ttft_ms'?"),
    ("servers.0.load.output_tokens", 0.5, "must be at least 1, is 0.5", ""),
    ("servers.0.load.rate_per_min", 7, "give one of rate_per_min and rate_per_s", ""),
    ("servers.0.load.rate_per_s", ..., "give one of rate_per_min and rate_per_s", ""),
    ("servers.0.load.rate_per_s", 1e300, "must be at most", ""),
    ("servers.0.keep_accelerator", "yes", "must be true or false, is 'yes'", ""),
    ("servers.0.keep_accelerator", True, "keep_accelerator without a current allocation", "`current`"),
    ("servers", {}, "must be a list, is a mapping", ""),
    ("servers", [], "no servers", "at least one"),
    ("servers.0", "gold-m", "must be a mapping, is 'gold-m'", ""),
    ("capacity", None, "give a count for each accelerator type, or the word unlimited", ""),
    ("capacity", "unlimted", "or the word unlimited", ""),
    ("capacity.A", -2, "must be at least 0, is -2", ""),
    ("capacity.A", 2.5, "must be a whole number, is 2.5", ""),
    ("options", {"law": "infernal"}, "must be 'continuous-batching' or 'inferno', is 'infernal'", ""),
    ("options", {"max_blocking": 1.0}, "must be less than 1", ""),
    ("service_classes.0.targets.m.ttft_ms", {"p95": 0.0}, "must be greater than 0", ""),
    ("service_classes.0.targets.m.ttft_ms", {"p20": 100.0}, "mean, or a percentile from p50 to p99.9", ""),
    ("service_classes.0.targets.m.ttft_ms", {}, "at least 1", ""),
    ("service_classes.0.targets.m.itl_ms", "fast", "must be a number, is 'fast'", ""),
    ("servers.0.load.cv2_input", -1.0, "must be at least 0", ""),
    ("profiles.0.kv_tokens", 0, "must be at least 1", ""),
    ("options", {"assignment": "double"}, "must be 'single' or 'mixed', is 'double'", ""),
    # Between the sections.
    ("servers.0.model", "n", "no targets for model 'n'", ""),
    ("servers.0.service_class", "golt", "unknown service class 'golt'", "did you mean 'gold'?"),
    ("profiles.0.accelerator", "AA", "unknown accelerator 'AA'", "did you mean 'A'?"),
    ("capacity.AA", 3, "unknown accelerator type 'AA'", "did you mean 'A'?"),
    ("servers.0.current", {"accelerator": "C", "replicas": 1}, "unknown accelerator 'C'", "known: 2xB, A, B"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "problem", "remedy"), BAD_FIELDS, ids=[f"{p}={v!r:.20}" for p, v, *_ in BAD_FIELDS]
)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_bad_field(tmp_path: Path, suffix: str, path: str, value: Any, problem: str, remedy: str) -> None:
    data = change(problem_data(), path, value)
    text = yaml.safe_dump(data, sort_keys=False) if suffix == "yaml" else json.dumps(data, indent=1)
    file = write(tmp_path / f"p.{suffix}", text)
    found = faults(file)
    fault = next(fault for fault in found if problem in fault.problem)
    assert remedy in fault.remedy
    assert fault.file == str(file)
    assert fault.line is not None
    assert str(fault.path[0]) == path.split(".")[0]
    key = str(fault.path[-1])
    if fault.problem != "is missing" and not key.isdigit():
        assert key in text.splitlines()[fault.line - 1]


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Faults of fields, of references and of names given twice, in one go, in the order of the lines."""
    data = problem_data()
    change(data, "accelerators.0.cost_per_hour", -1)
    change(data, "accelerators.1.cots", 1)
    change(data, "profiles.1.accelerator", "Bee")
    change(data, "service_classes.0.targets.m.itl_ms", float("nan"))
    data["servers"] += [dict(data["servers"][0]), {"service_class": "silver", "model": "m"}]
    found = faults(write(tmp_path / "p.yaml", data))
    assert [path_text(fault.path) for fault in found] == [
        "accelerators[0].cost_per_hour",
        "accelerators[1].cots",
        "profiles[1].accelerator",
        "service_classes[0].targets.m.itl_ms",
        "servers[0]",
        "servers[1]",
        "servers[2].service_class",
    ]
    assert [fault.line for fault in found] == sorted(fault.line for fault in found if fault.line)


def test_what_a_faulty_part_defines_is_not_called_unknown(tmp_path: Path) -> None:
    data = change(problem_data(), "accelerators.0.cost_per_hour", "ten")
    assert only_fault(write(tmp_path / "p.yaml", data)).path == ("accelerators", 0, "cost_per_hour")
    data = change(problem_data(), "service_classes.0.priority", 0)
    assert only_fault(write(tmp_path / "q.yaml", data)).path == ("service_classes", 0, "priority")


def test_faults_of_different_kinds_do_not_hide_one_another(tmp_path: Path) -> None:
    data = change(problem_data(), "currency", 5)
    change(data, "servers.0.service_class", "golt")
    change(data, "profiles.2.accelerator", "3xB")
    found = {path_text(fault.path) for fault in faults(write(tmp_path / "p.yaml", data))}
    assert found == {"currency", "servers[0].service_class", "profiles[2].accelerator"}
    text = yaml.safe_dump(change(problem_data(), "servers.0.model", "mm")) + "name: twice\n"
    found = {fault.problem.split(" for ")[0] for fault in faults(write(tmp_path / "q.yaml", text))}
    assert found == {"key 'name' is given twice", "service class 'gold' has no targets", "model 'mm' has no profile"}


def test_a_faulty_server_does_not_hide_what_it_refers_to(tmp_path: Path) -> None:
    data = change(problem_data(), "servers.0.load.output_tokens", 0)
    change(data, "servers.0.service_class", "golt")
    found = [path_text(fault.path) for fault in faults(write(tmp_path / "p.yaml", data))]
    assert sorted(found) == ["servers[0].load.output_tokens", "servers[0].service_class"]


def test_several_devices_need_a_type(tmp_path: Path) -> None:
    """`4xA` would be a type of its own, with no capacity, and nobody would know."""
    fault = only_fault(write(tmp_path / "p.yaml", change(problem_data(), "accelerators.2.type", ...)))
    assert (fault.path, fault.problem) == (("accelerators", 2, "type"), "is missing")
    assert "accelerator type of its devices" in fault.remedy


def test_references_of_a_faulty_part_define_nothing(tmp_path: Path) -> None:
    data = problem_data()
    wrong = {**data["servers"][0], "name": "a", "service_class": "gld", "min_replicas": -1}
    data["servers"] = [wrong, {**wrong, "name": "b", "min_replicas": 1}]
    found = faults(write(tmp_path / "p.yaml", data))
    places = [path_text(fault.path) for fault in found]
    assert sorted(places) == ["servers[0].min_replicas", "servers[0].service_class", "servers[1].service_class"]
    assert found[-1].remedy == "did you mean 'gold'?"


def test_nothing_is_called_unknown_where_a_file_is_missing(tmp_path: Path) -> None:
    data = change(problem_data(), "servers.0.service_class", "from-elsewhere")
    data["service_classes"][0]["priority"] = -1
    found = faults(write(tmp_path / "p.yaml", {"include": ["none.yaml"], **data}))
    assert [path_text(fault.path) for fault in found] == ["include[0]", "service_classes[0].priority"]


def test_an_empty_mapping(tmp_path: Path) -> None:
    found = {fault.problem for fault in faults(write(tmp_path / "p.yaml", "{}"))}
    assert found == {"capacity is missing", "no servers: there is nothing to plan for"}


def test_names_hold_no_control_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", json.dumps(change(problem_data(), "accelerators.0.name", "A\x1b[31m\nB")))
    text = str(faults(path)[0])
    assert "control characters" in text
    assert text.isprintable()


def test_one_include_needs_no_list(tmp_path: Path) -> None:
    data = problem_data()
    write(tmp_path / "a.yaml", {"accelerators": data.pop("accelerators")})
    assert im.read_problem(write(tmp_path / "p.yaml", {"include": "a.yaml", **data})).accelerators


def test_a_model_without_a_profile(tmp_path: Path) -> None:
    data = change(problem_data(), "service_classes.0.targets.llama", {})
    change(data, "servers.0.model", "llama")
    fault = only_fault(write(tmp_path / "p.yaml", data))
    assert (fault.problem, fault.remedy) == ("model 'llama' has no profile", "known: m")


@pytest.mark.parametrize("wrong", [{"idle_w": 300.0}, {"mid_w": 250.0}])
def test_power_rises(wrong: dict[str, float]) -> None:
    """What runs at less than its highest rate would draw more than was reckoned with."""
    power = {"idle_w": 50.0, "mid_w": 150.0, "mid_utilization": 0.4, "full_w": 200.0}
    data = problem_data()
    data["accelerators"][0]["power"] = power
    im.read_problem_data(data)
    data["accelerators"][0]["power"] = power | wrong
    with pytest.raises(im.InputError, match="idle_w ≤ mid_w ≤ full_w"):
        im.read_problem_data(data)


@pytest.mark.parametrize(("least", "is_wrong"), [(1e-6, False), (0.9e-6, True)])
def test_weights_too_far_apart(least: float, is_wrong: bool) -> None:
    servers = [{**problem_data()["servers"][0], "name": f"s{i}", "weight": w} for i, w in enumerate((1.0, least))]
    data = problem_data(servers=servers)
    if is_wrong:
        with pytest.raises(im.InputError, match="weights of priority 1 from 9e-07 to 1: the smallest do not count"):
            im.read_problem_data(data)
        data["service_classes"].append({**data["service_classes"][0], "name": "tin", "priority": 2})
        servers[1]["service_class"] = "tin"
    im.read_problem_data(data)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"law": "inferno"}, "law `inferno` knows no latencies between regions"),
        ({"max_power_w": 5.0}, "power is priced or limited, and 'A' has no power"),
    ],
)
def test_options_that_do_not_go_with_the_rest(changes: dict[str, Any], words: str) -> None:
    """What a document may not say, no option of a call may."""
    data = problem_data(latencies_ms={"here": {"there": 5.0}}, options={"law": "continuous-batching"})
    problem = im.read_problem_data(data)
    with pytest.raises(im.InputError, match=words):
        im.read_problem_data({**data, "options": {**data["options"], **changes}})
    with pytest.raises(im.OptionError, match=words):
        problem.with_options(**changes)


def test_a_kept_accelerator_without_a_profile(tmp_path: Path) -> None:
    data = problem_data()
    del data["profiles"][1]
    data["servers"][0] |= {"keep_accelerator": True, "current": {"accelerator": "B", "replicas": 1}}
    assert "no profile on 'B', which the server must keep" in only_fault(write(tmp_path / "p.yaml", data)).problem


@pytest.mark.parametrize("section", ["accelerators", "profiles", "service_classes", "servers"])
def test_duplicates(tmp_path: Path, section: str) -> None:
    data = problem_data()
    data[section].append(dict(data[section][0]))
    found = faults(write(tmp_path / "p.yaml", data))
    assert [fault.path for fault in found] == [(section, 0), (section, len(data[section]) - 1)]
    assert all("is given 2 times" in fault.problem for fault in found)


class TestNotADocument:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "empty"),
            ("# nothing\n", "empty"),
            ("- a\n- b\n", "is a list"),
            ("just words", "is plain text"),
            ("7", "is a single int"),
            ("a: [1, 2", "not YAML"),
            ("a: 1\n\tb: 2", "not YAML"),
            ("a: 1\n---\nb: 2\n", "not YAML"),
            ("name: *nobody", "not YAML"),
            ("a: \x00", "not YAML"),
            ("name: x\nname: y", "'name' is given twice"),
            ("{1: 2, [3]: 4}", "a key must be a word"),
            ("name: !!python/object/apply:os.system ['touch pwned']", "is refused"),
            ("name: !!python/name:os.system", "is refused"),
            ("name: !custom x", "is refused"),
            ("capacity: {A: " + "9" * 5000 + "}", "must be a whole number"),
            ("name: !!int 7", "is refused"),
            ("<<: 7", "takes mappings"),
            ("a: {<<: [" + "*x, " * 3 + "]}", "not YAML"),
        ],
    )
    def test_yaml(self, tmp_path: Path, text: str, problem: str) -> None:
        assert any(problem in fault.problem for fault in faults(write(tmp_path / "p.yaml", text)))

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "empty"),
            ("{", "not JSON"),
            ('{"name": "x",}', "not JSON"),
            ('{"capacity": {"A": 1' + "0" * 5000 + "}}", "must be a whole number"),
            ('{"name": "\\ud800"}', "must be Unicode text"),
            ('{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
            ("[" * 100_000, "levels deep"),
            ("[" * 200 + "]" * 200, "levels deep"),
            ("null", "empty"),
        ],
    )
    def test_json(self, tmp_path: Path, text: str, problem: str) -> None:
        assert any(problem in fault.problem for fault in faults(write(tmp_path / "p.json", text)))

    def test_code_is_not_run(self, tmp_path: Path) -> None:
        target = tmp_path / "pwned"
        faults(write(tmp_path / "p.yaml", f"name: !!python/object/apply:os.system ['touch {target}']"))
        assert not target.exists()

    def test_an_alias_bomb(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
        assert "aliases expanded" in only_fault(write(tmp_path / "p.yaml", "\n".join(lines))).problem

    def test_a_bomb_of_merges(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 {x: 1}"]
        lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
        assert "aliases expanded" in only_fault(write(tmp_path / "p.yaml", "\n".join(lines))).problem

    def test_a_million_faults_are_told_in_brief(self, tmp_path: Path) -> None:
        data = {**problem_data(), "include": [1] * 100_000}
        found = faults(write(tmp_path / "p.json", json.dumps(data)))
        assert len(found) == 201
        assert any("and 99800 more" in fault.problem for fault in found)

    def test_duplicates_among_many_keys(self, tmp_path: Path) -> None:
        entries = ", ".join(f'"A{i}": 1' for i in range(100_000))
        text = json.dumps(problem_data()).replace('"capacity": {"A": 20', '"capacity": {"A": 20, "A": 21, ' + entries)
        assert any("'A' is given twice" in fault.problem for fault in faults(write(tmp_path / "p.json", text)))

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p.yaml")
        assert "no regular file" in only_fault(tmp_path / "p.yaml").problem
        path = write(tmp_path / "q.yaml", {"include": ["p.yaml"], **problem_data()})
        assert "no regular file" in only_fault(path).problem

    @pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "loop.yaml"])
    def test_impossible_paths(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "loop.yaml").symlink_to("loop.yaml")
        if "\0" not in name:
            assert faults(tmp_path / name)
        path = write(tmp_path / "p.json", json.dumps({"include": [name], **problem_data()}))
        assert only_fault(path).path == ("include", 0)

    def test_an_alias_of_itself(self, tmp_path: Path) -> None:
        assert "levels deep" in only_fault(write(tmp_path / "p.yaml", "servers: &s [*s]")).problem

    @pytest.mark.parametrize("text", ["[" * 200_000, "- " * 200_000, "{a: " * 100_000])
    def test_nesting(self, tmp_path: Path, text: str) -> None:
        assert "levels deep" in only_fault(write(tmp_path / "p.yaml", text)).problem

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        path.write_bytes("name: é".encode("utf-16"))
        assert "not UTF-8" in only_fault(path).problem

    def test_50_megabytes(self, tmp_path: Path) -> None:
        path = tmp_path / "p.yaml"
        with path.open("wb") as file:
            file.truncate(50_000_000)
        assert MAX_FILE_BYTES < 50_000_000
        assert "larger than 20 MB" in only_fault(path).problem

    def test_missing(self, tmp_path: Path) -> None:
        assert only_fault(tmp_path / "none.yaml").problem == "no such file"

    def test_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "folder.yaml").mkdir()
        path = write(tmp_path / "p.yaml", {"include": ["folder.yaml"], **problem_data()})
        assert "cannot be read" in only_fault(path).problem


FILES = {
    "acceleratorData": "accelerator-data.json",
    "modelData": "model-data.json",
    "serviceClassData": "serviceclass-data.json",
    "serverData": "server-data.json",
    "optimizerData": "optimizer-data.json",
    "capacityData": "capacity-data.json",
}


def shout(data: Any) -> Any:
    """All keys in capitals."""
    if isinstance(data, dict):
        return {key.upper(): shout(value) for key, value in data.items()}
    return [shout(item) for item in data] if isinstance(data, list) else data


class TestSystemData:
    """llm-inferno's own documents."""

    def write_folder(self, folder: Path, data: dict[str, Any]) -> Path:
        for part, content in data.items():
            write(folder / FILES[part], json.dumps(content, indent=2))
        return folder

    def test_power_that_is_no_curve(self, tmp_path: Path) -> None:
        data = system()
        data["acceleratorData"]["accelerators"][0]["power"]["idle"] = 900
        file = write(tmp_path / "s.json", json.dumps({"system": data}))
        assert im.read_problem(file).accelerators[0].power is None

    def test_one_file(self, tmp_path: Path) -> None:
        problem = im.read_problem(write(tmp_path / "s.json", json.dumps({"system": system()})))
        assert (problem.name, problem.currency, problem.capacity) == ("s", "cents", {"A": 10})
        first, second = problem.profiles
        assert (first.accelerators_per_replica, first.at_output_tokens, first.gamma_ms) == (1, 512, 5.2)
        # The newer form: one law for prompts and decoding, and a slope per token read.
        assert (second.alpha_ms, second.gamma_ms, second.beta_ms, second.delta_ms) == (8, 8, 0.04, 0.04)
        assert (second.kappa_ms, second.at_output_tokens) == (0.00005, None)
        assert problem.service_classes[0].priority == 100
        targets = problem.service_classes[0].targets["m"]
        assert (targets.ttft_ms, targets.itl_ms, targets.tps) == (1000, 40, None)
        server, idle = problem.servers
        assert server.service_class == "Free"
        assert server.load is not None
        assert server.load.arrival_rate_per_s == pytest.approx(2.0)
        assert server.keep_accelerator is False  # there is none to keep
        assert idle.load is None
        assert problem.accelerators[0].power is not None
        assert problem.accelerators[0].power.mid_utilization == 0.6
        assert (problem.options.law, problem.options.batch_sizes) == ("inferno", "largest")

    def test_keys_in_any_letter_case(self, tmp_path: Path) -> None:
        plain = im.read_problem(write(tmp_path / "s.json", json.dumps({"system": system()})))
        (tmp_path / "loud").mkdir()
        loud = im.read_problem(write(tmp_path / "loud" / "s.json", json.dumps(shout({"system": system()}))))
        assert loud == plain

    def test_a_folder_of_six_files(self, tmp_path: Path) -> None:
        plain = im.read_problem(write(tmp_path / "s.json", json.dumps({"system": system()})))
        folder = self.write_folder(tmp_path / "s", system())
        write(folder / "solution-data.json", "{not even JSON")
        assert im.read_problem(folder) == plain

    def test_the_sample_itself(self, instances: Path, tmp_path: Path) -> None:
        """The large sample, written back in llm-inferno's form from our instance, plans as our instance does."""
        ours = im.read_problem(instances / "limited.yaml")
        data = as_system_data(ours)
        theirs = im.read_problem(write(tmp_path / "limited.json", json.dumps({"system": data})))
        assert theirs.profiles == ours.profiles
        assert theirs.servers == ours.servers
        plan = im.optimize(theirs)
        assert (plan.status, plan.total_cost_per_hour) == ("optimal", pytest.approx(26300.5))

    def test_unlimited(self, tmp_path: Path) -> None:
        data = system()
        data["optimizerData"]["optimizer"]["unlimited"] = True
        del data["capacityData"]
        assert im.read_problem(self.write_folder(tmp_path / "s", data)).capacity is None

    @pytest.mark.parametrize(
        ("path", "value", "place", "problem"),
        [
            ("serverData.servers.0.model", "n", "servers[0].model", "no targets for model 'n'"),
            ("serverData.servers.0.class", "Fee", "servers[0].class", "unknown service class 'Fee'"),
            ("modelData.models.1.acc", "3xA", "models[1].acc", "unknown accelerator '3xA'"),
            ("modelData.models.0.decodeParms.alpha", -1, "models[0].decodeParms.alpha", "must be at least 0"),
            ("modelData.models.0.maxBatchSize", "9", "models[0].maxBatchSize", "must be a whole number"),
            ("serviceClassData.serviceClasses.0.modelTargets.0.slo-itll", 4,
             "serviceClasses[0].modelTargets[0].slo-itll", "unknown key"),
            ("serverData.servers.0.currentAlloc.load.arrivalRate", -5,
             "servers[0].currentAlloc.load.arrivalRate", "must be at least 0"),
            ("serverData.servers.1.currentAlloc", {"accelerator": "B"}, "servers[1].currentAlloc.accelerator",
             "unknown accelerator 'B'"),
            ("capacityData.count.0.type", "B", "count[0].type", "unknown accelerator type 'B'"),
            ("optimizerData.optimizer.saturationPolicy", "Some", "optimizer.saturationPolicy",
             "unknown saturation policy 'Some'"),
        ],
    )  # fmt: skip
    def test_faults_in_its_own_words(self, tmp_path: Path, path: str, value: Any, place: str, problem: str) -> None:
        data = change(system(), path, value)
        folder = self.write_folder(tmp_path / "s", data)
        fault = next(fault for fault in faults(folder) if problem in fault.problem)
        assert path_text(fault.path) == place
        assert fault.file == str(folder / FILES[path.split(".")[0]])
        assert fault.line is not None
        assert place.rsplit(".", 1)[-1].split("[")[0] in Path(fault.file).read_text().splitlines()[fault.line - 1]
        in_one = write(tmp_path / "one.json", json.dumps({"system": data}, indent=1))
        fault = next(fault for fault in faults(in_one) if problem in fault.problem)
        assert path_text(fault.path) == f"system.{path.split('.')[0]}.{place}"

    @pytest.mark.parametrize(
        ("path", "value", "place", "problem"),
        [
            ("acceleratorData.accelerators", 5, "accelerators", "must be a list"),
            ("acceleratorData.accelerators", None, "accelerators", "accelerators is missing"),
            ("acceleratorData.accelerators.0.cost", ..., "accelerators[0].cost", "is missing"),
            ("modelData.models.0.prefillParms", ..., "models[0]", "both decodeParms and prefillParms"),
            ("modelData.models.0.perfParms", {"alpha": 1, "beta": 1}, "models[0]", "give either perfParms"),
            ("modelData.models.0.decodeParms", {"a": 1, "b": 1}, "models[0].decodeParms.alpha", "is missing"),
            ("modelData.models.0.maxBatchSzie", 4, "models[0].maxBatchSzie", "unknown key"),
            ("serviceClassData.serviceClasses.0.modelTargets", [{"model": "m"}, {"model": "m", "slo-itl": 4}],
             "serviceClasses[0]", "models with two targets: m"),
            ("serverData", {"serverData": []}, "servers", "servers is missing"),
            ("capacityData.count", [{"type": "A", "count": -8}, {"type": "A1", "count": 1}], "count[1].type",
             "unknown accelerator type 'A1'"),
        ],
    )  # fmt: skip
    def test_what_the_seed_would_take_for_nothing(
        self, tmp_path: Path, path: str, value: Any, place: str, problem: str
    ) -> None:
        found = faults(self.write_folder(tmp_path / "s", change(system(), path, value)))
        assert any(problem in fault.problem and path_text(fault.path) == place for fault in found), found

    def test_suggestions_are_spelled_as_the_seed_does(self, tmp_path: Path) -> None:
        data = change(system(), "modelData.models.0.maxBatchSzie", 4)
        assert only_fault(self.write_folder(tmp_path / "s", data)).remedy == "did you mean 'maxBatchSize'?"

    def test_null_is_nothing(self, tmp_path: Path) -> None:
        data = change(system(), "modelData.models.1.atTokens", None)
        change(data, "serverData.servers.1.currentAlloc", None)
        assert im.read_problem(self.write_folder(tmp_path / "s", data)).profiles[1].at_output_tokens is None

    def test_no_cascade_from_a_faulty_flag(self, tmp_path: Path) -> None:
        data = system()
        data["optimizerData"]["optimizer"] = {"unlimited": True, "milpSolver": "yes"}
        del data["capacityData"]
        assert path_text(only_fault(self.write_folder(tmp_path / "s", data)).path) == "optimizer.milpSolver"

    def test_keys_beside_the_system(self, tmp_path: Path) -> None:
        path = write(tmp_path / "s.json", json.dumps({"system": system(), "System": {}, "capacity": {}}))
        assert {fault.path for fault in faults(path)} == {("System",), ("capacity",)}

    def test_keys_that_fold_together(self, tmp_path: Path) -> None:
        data = system()
        data["modelData"]["models"][0]["MAXBATCHSIZE"] = 3
        assert "different letter case" in only_fault(self.write_folder(tmp_path / "s", data)).problem

    @pytest.mark.parametrize("part", ["acceleratorData", "modelData", "serviceClassData", "serverData", "capacityData"])
    def test_a_missing_part(self, tmp_path: Path, part: str) -> None:
        data = system()
        del data[part]
        name = FILES[part] if part != "capacityData" else "capacity"
        assert name in only_fault(self.write_folder(tmp_path / "s", data)).problem
        assert part in only_fault(write(tmp_path / "one.json", json.dumps({"system": data}))).problem

    def test_unknown_keys_are_said_but_left_alone(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        data = system()
        data["modelData"]["models"][0] |= {"_comment": "x", "quantization": "fp8"}
        im.read_problem(self.write_folder(tmp_path / "s", data))
        assert "quantization" in caplog.text
        assert "_comment" not in caplog.text

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "s").mkdir()
        assert len(faults(tmp_path / "s")) >= 4


def test_a_fault_reads_as_one_line() -> None:
    fault = Fault("must be at least 0, is -1", "pay, not earn", ("servers", 3, "load", "rate_per_s"), "a.yaml", 12)
    assert str(fault) == "a.yaml:12: servers[3].load.rate_per_s: must be at least 0, is -1; pay, not earn"
    assert re.fullmatch(r"[^\n]*", str(fault))
