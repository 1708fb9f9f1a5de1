"""Words of other tools: corrected by what they mean, never by letters alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from small_problems import make_problem, problem_data

import inferno_milp as im
from inferno_milp.cli.arguments import SUBCOMMANDS, make_parser
from inferno_milp.cli.parser import Parser
from inferno_milp.problem import synonyms
from inferno_milp.problem.fields import Model
from inferno_milp.problem.reading.document import Document
from inferno_milp.problem.reading.system_models import SystemModel
from inferno_milp.problem.reading.validate import validate
from inferno_milp.problem.spelling import are_opposed, folded, nearest, unit_of
from inferno_milp.problem.synonyms import nearest_key, nearest_option, nearest_subcommand


def kinds(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def parsers(parser: Parser) -> Iterator[Parser]:
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                yield from parsers(inner)


SECTIONS = {kind.__name__: kind for base in (Model, SystemModel) for kind in kinds(base)}
FIELDS = {name: [f.alias or key for key, f in kind.model_fields.items()] for name, kind in SECTIONS.items()}
ENTRIES = [
    (section, key, word)
    for section, keys in synonyms.KEYS.items()
    for key, words in keys.items()
    for word in words.split()
]
OPTIONS = {option for parser in parsers(make_parser()) for option in parser._option_string_actions}


@pytest.mark.parametrize("section", synonyms.KEYS)
def test_every_key_that_is_suggested_is_one_of_its_section(section: str) -> None:
    assert SECTIONS[section].model_fields
    assert synonyms.KEYS[section].keys() <= {*FIELDS[section]}


def test_every_subcommand_and_option_that_is_suggested_exists() -> None:
    assert synonyms.SUBCOMMANDS.keys() <= {*SUBCOMMANDS}
    assert synonyms.OPTIONS.keys() <= OPTIONS


def test_a_word_that_is_a_key_of_its_section_means_no_other() -> None:
    keys = {section: {folded(key) for key in fields} for section, fields in FIELDS.items()}
    assert not [(s, word) for s, key, word in ENTRIES if folded(word) in keys[s] - {folded(key)}]


def test_every_word_leads_to_what_it_means() -> None:
    for section, key, word in ENTRIES:
        remedy = nearest_key(word, FIELDS[section], section)
        assert remedy.startswith("did you mean"), (section, word, remedy)
        assert repr(key) in remedy, (section, word, remedy)
    for key, words in synonyms.SUBCOMMANDS.items():
        assert all(repr(key) in nearest_subcommand(word, SUBCOMMANDS) for word in words.split())
    for key, words in synonyms.OPTIONS.items():
        assert all(repr(key) in nearest_option(word, [key]) for word in words.split())


def test_no_word_leads_to_its_opposite() -> None:
    wrong = [(word, key) for _, key, word in ENTRIES if are_opposed(word, key)]
    wrong += [
        (word, key) for key, words in synonyms.OPTIONS.items() for word in words.split() if are_opposed(word, key)
    ]
    assert not wrong


def misspelt(word: str) -> Iterator[str]:
    yield from (word[:i] + word[i + 1 :] for i in range(len(word)))
    yield from (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1))


SIDES = [
    ("Load", "input_tokens", synonyms._INPUT),
    ("Load", "output_tokens", synonyms._OUTPUT),
    ("Targets", "ttft_ms", synonyms._TTFT),
    ("Targets", "itl_ms", synonyms._ITL),
]


@pytest.mark.parametrize(("section", "key", "words"), SIDES, ids=[key for _, key, _ in SIDES])
def test_no_slip_in_a_word_leads_to_the_other_side(section: str, key: str, words: str) -> None:
    other = next(k for s, k, _ in SIDES if s == section and k != key)
    for word in (w for w in words.split() if len(w) > 4):
        for slip in misspelt(word):
            assert repr(other) not in nearest_key(slip, FIELDS[section], section), slip


def test_where_the_unit_is_another_the_figure_is_to_be_converted() -> None:
    for section, key, word in ENTRIES:
        given = unit_of(word)
        if given is not None and unit_of(key) not in (None, given):
            remedy = nearest_key(word, FIELDS[section], section)
            named = [k for k in FIELDS[section] if repr(k) in remedy]
            assert given in {unit_of(k) for k in named} or f"Convert from {given} to" in remedy, (word, remedy)


def remedies(**load: float) -> dict[str, str]:
    data = problem_data()
    data["servers"][0]["load"] = load
    return {str(fault.path[-1]): fault.remedy for fault in validate(Document, data).faults}


def test_following_the_hints_gives_the_load_that_was_meant() -> None:
    given = {"rps": 1, "prompt_tokens": 1000, "completion_tokens": 250}
    found = remedies(**given)
    renamed = {found[word].split("'")[1]: value for word, value in given.items()}
    assert renamed == {"rate_per_s": 1, "input_tokens": 1000, "output_tokens": 250}


def test_an_ambiguous_word_names_all_that_it_may_mean() -> None:
    found = remedies(rate=60, input_tokens=1, output_tokens=2)
    assert found["rate"] == "did you mean 'rate_per_s' or 'rate_per_min'?"


def test_a_key_of_an_inner_part_is_named_with_it() -> None:
    data = problem_data()
    data["servers"][0] |= {"osl": 5, "rate_per_s": 2}
    found = {fault.path[-1]: fault.remedy for fault in validate(Document, data).faults}
    assert found == {"osl": "did you mean 'load.output_tokens'?", "rate_per_s": "did you mean 'load.rate_per_s'?"}


def test_of_a_word_that_means_nothing_here_all_keys_are_listed() -> None:
    found = validate(Document, {"nodes": [{"type": "A", "devices": 8, "count": 1, "osl": 3}]}).faults
    assert [fault.remedy for fault in found] == ["known: count, devices, type"]


def test_no_name_is_near_that_means_the_opposite() -> None:
    assert nearest("prompt_tokens", ["output_tokens"]) == "known: output_tokens"
    assert nearest("output_tokens", ["outputtokens"]) == "did you mean 'outputtokens'?"


class TestSettings:
    def test_a_word_of_another_tool(self) -> None:
        from inferno_milp.problem.reading.settings import with_settings

        problem = make_problem()
        with pytest.raises(im.InputError, match=r"did you mean 'output_tokens'\?"):
            with_settings(problem, ["servers.*.load.completion_tokens=5"])
        with pytest.raises(im.InputError, match=r"did you mean 'service_classes'\?"):
            with_settings(problem, ["slos.gold.targets={}"])


class TestCommandLine:
    def usage(self, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
        from inferno_milp.cli import main

        with pytest.raises(SystemExit) as left:
            main(argv)
        assert left.value.code == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize(("word", "meant"), [("plan", "optimize"), ("init", "generate"), ("analize", "analyze")])
    def test_a_subcommand(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, meant: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert f"no subcommand and no file {word!r}; did you mean {meant!r}?" in self.usage(capsys, word)
        (tmp_path / word).write_text("capacity: {}")
        from inferno_milp.cli import main

        assert main([word]) == 2
        assert "no servers" in capsys.readouterr().err  # a file of that name is read

    def test_a_word_like_none_lists_all(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "no subcommand and no file 'zzz'; known: analyze, candidates" in self.usage(capsys, "zzz")

    def test_an_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        err = self.usage(capsys, "x.yaml", "--timeout", "5", "--fooo")
        assert "unrecognized arguments: --timeout 5 --fooo; --timeout: did you mean '--time-limit'?" in err
        assert "'--output-tokens'" not in self.usage(capsys, "analyze", "--prompt-tokens", "5")

    def test_no_option_is_guessed_from_its_beginning(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`--rate 60` was taken for 60 requests per second."""
        assert "did you mean '--rate-per-s'?" in self.usage(capsys, "analyze", "--rate", "60")
