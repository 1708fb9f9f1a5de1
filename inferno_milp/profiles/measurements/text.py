"""The text of a file → what it is: a JSON document, several of them, a page of guidellm's, or a table."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

from inferno_milp.errors import Fault, InputError
from inferno_milp.problem.reading.source import read_text, too_much

MAX_FILE_BYTES = 500_000_000
"""A file larger than this is refused; benchmarks that list every request come to some 100 MB."""

PAGE_VALUES = ("runInfo", "workloadDetails", "benchmarks")
"""What guidellm's page sets."""

Kind = Literal["json", "html", "table"]


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds.

    Attributes
    ----------
    kind : `json` holds a list of documents, `html` the values that guidellm's page sets, `table` rows of cells.
    data : documents; values by name; rows.
    unfinished : whether a table does not end with the end of a line, or a page with its own end.
    """

    kind: Kind
    data: Any
    unfinished: bool = False


def load_content(path: Path, label: str) -> Content:
    """Read a file, and recognise by its content what it is.

    Raises
    ------
    InputError
        If it cannot be read, or is cut off, or is nothing of the kind.
    """
    text = read_text(path, label, MAX_FILE_BYTES)
    start = text.lstrip()[:1]
    if not start:
        _refuse(label, "the file is empty")
    if start in "{[":
        return Content("json", _documents(text, label))
    if start == "<":
        return Content("html", _page_values(text, label), unfinished="</html>" not in text[-200:])
    rows = _rows(text, label)
    if len(rows) < 2 or len(rows[0]) < 2:
        _refuse(label, f"{_looks_like(text)}: no benchmark", "give JSON, JSON Lines or CSV of a benchmark tool")
    return Content("table", rows, unfinished=not text.endswith("\n"))


def _refuse(label: str, problem: str, remedy: str = "", line: int | None = None) -> NoReturn:
    raise InputError([Fault(problem, remedy, file=label, line=line)])


def _documents(text: str, label: str) -> list[Any]:
    """Take JSON documents apart that follow one another, with or without ends of lines between them."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    documents, position = [], 0
    while position < len(text):
        if text[position] in " \t\r\n":
            position += 1
            continue
        try:
            document, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            line = text.count("\n", 0, error.pos) + 1
            cut = "cut off" if not text[error.pos :].strip() or "Unterminated" in error.msg else "not JSON"
            _refuse(label, f"{cut}: {error.msg}", "take the whole file as the tool wrote it", line)
        except (RecursionError, _TwiceError) as error:
            _refuse(label, str(error) or "nested too deep")
        documents.append(document)
    if reason := too_much(documents):
        _refuse(label, reason)
    return documents


class _TwiceError(Exception):
    """A key is given twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return result


_SET = re.compile(r"(?<![\w.$])window\.(\w+)\s*=(?!=)\s*")


def _page_values(text: str, label: str) -> dict[str, Any]:
    """Take the values out of `window.NAME = …` of a page."""
    values: dict[str, Any] = {}
    decoder = json.JSONDecoder()
    position = 0
    while found := _SET.search(text, position):
        name, position = found[1], found.end()
        try:
            value, position = decoder.raw_decode(text, position)  # whatever is inside is not looked at
        except (json.JSONDecodeError, RecursionError):
            if name in values or name not in PAGE_VALUES:
                continue  # of a script of the page
            _refuse(label, f"cut off: what `window.{name}` is set to is no JSON", "take the whole page")
        values.setdefault(name, value)
    if "benchmarks" not in values:
        _refuse(label, "a page, but not guidellm's report: it sets no `window.benchmarks`")
    return values


def _rows(text: str, label: str) -> list[list[str]]:
    header = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        _refuse(label, f"no table: {error}")
    return rows


def _looks_like(text: str) -> str:
    try:
        documents = list(yaml.safe_load_all(text)) if len(text) < 1_000_000 else []
    except yaml.YAMLError:
        return "plain text"
    kinds = [d["kind"] for d in documents if isinstance(d, dict) and isinstance(d.get("kind"), str)]
    if kinds:
        return f"Kubernetes objects ({', '.join(kinds)})"
    return "a YAML document" if any(isinstance(d, (dict, list)) for d in documents) else "plain text"
