"""One file, or its text → plain data, with nothing lost and nothing run: YAML and JSON, size, depth, duplicates."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from inferno_milp.errors import Fault, InputError, PathPart
from inferno_milp.problem.reading.regular import UnreadableError, regular_content

MAX_FILE_BYTES = 20_000_000
"""A file larger than this is refused; 10,000 servers take about 2 MB."""
MAX_DEPTH = 50
MAX_VALUES = 2_000_000
"""Values in one document, aliases expanded."""
EXPANSION = 20
"""Values for each character of a text, aliases expanded: more is a bomb, not a document."""
MAX_DIGITS = 400
LINES_UP_TO = 4_000_000
"""Characters of a text up to which the lines of faults are looked up: it takes hundreds of times the text's memory."""

_STR, _MAP, _SEQ = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))
_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None}
_WORDS |= dict.fromkeys(("null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_WORDS |= {word: float("nan") for word in (".nan", ".NaN", ".NAN")}
_WORDS |= {
    sign + word: float(f"{sign}inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")
}  # fmt: skip


class _Loader(yaml.CSafeLoader):
    """A loader that resolves no plain words: `_plain` does, by YAML 1.2, where 0120 is no octal and `no` no truth."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


@dataclass(frozen=True)
class Source:
    """A file's data.

    Attributes
    ----------
    label : the file as the user named it.
    path : the file itself.
    data : mappings, sequences and scalars.
    text : what was read, kept to find the lines of faults.
    faults : what is wrong with the text itself, where the data could be made out all the same.
    """

    label: str
    path: Path
    data: dict[str, Any]
    text: str
    faults: list[Fault] = field(default_factory=list)

    def fault(self, problem: str, remedy: str = "", path: tuple[PathPart, ...] = ()) -> Fault:
        """Return a fault at a place of this file, with its line."""
        return self.placed(Fault(problem, remedy, path))

    def placed(self, fault: Fault) -> Fault:
        """Return the fault with this file's name and the line of its path."""
        return replace(fault, file=self.label, line=self.line(fault.path))

    def line(self, path: tuple[PathPart, ...]) -> int | None:
        """Line (from 1) of the deepest part of `path` that the file has; None where it cannot be told."""
        node = self._tree
        if node is None:
            return None
        line = int(node.start_mark.line)
        for part in path:
            entry = self._children(node).get(part)
            if entry is None:
                break
            line, node = entry
        return line + 1

    @cached_property
    def _tree(self) -> yaml.Node | None:
        if len(self.text) > LINES_UP_TO:
            return None
        try:
            return yaml.compose(self.text, Loader=_Loader)
        except (yaml.YAMLError, RecursionError):
            return None

    @cached_property
    def _indexed(self) -> dict[int, dict[PathPart, tuple[int, yaml.Node]]]:
        return {}

    def _children(self, node: yaml.Node) -> dict[PathPart, tuple[int, yaml.Node]]:
        """Lines and nodes below a node, by key or position."""
        if id(node) not in self._indexed:
            found: dict[PathPart, tuple[int, yaml.Node]] = {}
            if isinstance(node, yaml.MappingNode):
                found = {str(key.value): (int(key.start_mark.line), value) for key, value in reversed(node.value)}
            elif isinstance(node, yaml.SequenceNode):
                found = {i: (int(item.start_mark.line), item) for i, item in enumerate(node.value)}
            self._indexed[id(node)] = found
        return self._indexed[id(node)]


_OPENED: ContextVar[list[Path] | None] = ContextVar("opened", default=None)


@contextmanager
def opened_files() -> Iterator[list[Path]]:
    """Take note of all files that are read within the context."""
    files: list[Path] = []
    token = _OPENED.set(files)
    try:
        yield files
    finally:
        _OPENED.reset(token)


def load_source(path: Path, label: str) -> Source:
    """Read one file.

    Raises
    ------
    InputError
        If it is missing, unreadable, too large, empty, not UTF-8, neither YAML nor JSON, or holds tags, endless
        aliases or too much nesting. Keys given twice are faults of the source.
    """
    text = read_text(path, label)
    if (opened := _OPENED.get()) is not None:
        opened.append(path)
    return parse_source(text, path, label)


def parse_source(text: str, path: Path, label: str) -> Source:
    """Parse the text of a file, JSON by its name or else YAML; errors as of `load_source`."""
    loaded = _load_json(text, label) if path.suffix.lower() == ".json" else _load_yaml(text, label)
    data, faults = loaded
    if wrong := not_unicode(data):
        raise InputError([Source(label, path, data, text).placed(wrong)])
    if data is None:
        raise InputError([Fault("the file is empty", "see docs/problem.md for what it holds", file=label)])
    if not isinstance(data, dict):
        raise InputError([Fault(f"the document is {_kind(data)}", "it must be a mapping of sections", file=label)])
    return Source(label, path, data, text, faults)


def read_text(path: Path, label: str, most_bytes: int = MAX_FILE_BYTES) -> str:
    """Read the text of one file; InputError if it is missing, no regular file, unreadable, too large or not UTF-8."""
    try:
        content = regular_content(path, label, most_bytes)
    except FileNotFoundError:
        raise UnreadableError([Fault("no such file", file=label)]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError([Fault(f"cannot be read: {reason}", file=label)]) from None
    if len(content) > most_bytes:
        limit = f"{most_bytes // 10**6} MB"
        raise InputError([Fault(f"the file is larger than {limit}", "split it, or check that it is one", file=label)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text (byte {error.start})"
        raise InputError([Fault(problem, "save it as UTF-8", file=label)]) from None


def _load_json(text: str, label: str) -> tuple[Any, list[Fault]]:
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            twice.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return result

    if not text.strip():
        return None, []
    try:
        data = json.loads(text, object_pairs_hook=unique, parse_int=_parse_int)
        reason = too_much(data)
    except json.JSONDecodeError as error:
        raise InputError([Fault(f"not JSON: {error.msg}", file=label, line=error.lineno)]) from None
    except RecursionError:
        reason = f"nested more than {MAX_DEPTH} levels deep"
    if reason:
        raise InputError([Fault(reason, file=label)])
    if not twice:
        return data, []
    try:
        return data, _load_yaml(text, label)[1]  # JSON is YAML, and that reader knows lines
    except InputError:
        return data, [Fault(f"key {key!r} is given twice", "keep one", file=label) for key in twice]


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def not_unicode(data: Any) -> Fault | None:
    """Find half of a surrogate pair in a text of a document: JSON can write it, and nothing can store it."""
    rest: list[tuple[tuple[PathPart, ...], Any]] = [((), data)]
    while rest:
        path, item = rest.pop()
        if isinstance(item, dict):
            rest += [entry for key, value in item.items() for entry in ((path, key), ((*path, key), value))]
        elif isinstance(item, list):
            rest += [((*path, i), value) for i, value in enumerate(item)]
        elif isinstance(item, str) and not item.isascii() and (half := re.search("[\ud800-\udfff]", item)):
            problem = f"must be Unicode text, and holds half of a character, \\u{ord(half[0]):04x}"
            return Fault(problem, "write whole characters", path)
    return None


def too_much(data: Any) -> str:
    """Return what there is too much of in a document, depth or values, found without recursion; else empty."""
    level, values = [data], 0
    for _ in range(MAX_DEPTH + 1):
        values += len(level)
        if values > MAX_VALUES:
            return f"more than {MAX_VALUES} values"
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return ""
    return f"nested more than {MAX_DEPTH} levels deep"


def _load_yaml(text: str, label: str) -> tuple[Any, list[Fault]]:
    if wrong := not_unicode(text):
        raise InputError([replace(wrong, file=label)])
    # Both the parser's tree and ours are made by recursion: depth and size are bounded before either sees the text.
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        builder = _Builder(label, min(MAX_VALUES, 1000 + EXPANSION * len(text)))
        data = None if node is None else builder.build(node, (), 0)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark else None
        if "nesting depth" in problem:  # PyYAML from 6.0.4 on has a limit of its own, far above ours
            raise InputError([Fault(f"nested more than {MAX_DEPTH} levels deep", file=label, line=line)]) from None
        raise InputError([Fault(f"not YAML: {problem}", file=label, line=line)]) from None
    except _TooMuchError as error:
        raise InputError([Fault(str(error), file=label)]) from None
    if builder.fatal:
        raise InputError(builder.fatal + builder.faults)
    return data, builder.faults


def read_value(text: str) -> Any:
    """Read one value as a document would have it.

    Raises
    ------
    InputError
        If it is none.
    """
    data, faults = _load_yaml(text, "")
    if faults:
        raise InputError(faults)
    return data


class _TooMuchError(Exception):
    """The document is too deep or too large."""


def _check_events(text: str) -> None:
    depth = 0
    for values, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if values > 2 * MAX_VALUES:
            raise _TooMuchError(f"more than {MAX_VALUES} values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _TooMuchError(f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Builder:
    """Turns YAML nodes into data; faults are gathered so that all of them are told at once."""

    def __init__(self, label: str, most_values: int):
        self.label, self.most_values = label, most_values
        self.faults: list[Fault] = []
        self.fatal: list[Fault] = []  # those that leave no value to go on with
        self.values = 0

    def build(self, node: yaml.Node, path: tuple[PathPart, ...], depth: int) -> Any:
        self.values += 1
        if self.values > self.most_values:
            raise _TooMuchError(f"more than {self.most_values} values, aliases expanded")
        if depth > MAX_DEPTH:
            raise _TooMuchError(f"nested more than {MAX_DEPTH} levels deep, aliases expanded")
        if isinstance(node, yaml.ScalarNode) and node.tag == _STR:
            return node.value if node.style else _plain(node.value)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self._mapping(node, path, depth)
        problem = f"tag {node.tag!r} is refused"
        self.fatal.append(self._fault(node, problem, "only plain YAML is read, nothing is run", path))
        return None

    def _mapping(self, node: yaml.MappingNode, path: tuple[PathPart, ...], depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fatal.append(self._fault(key, "a key must be a word", "", path))
            elif key.value == "<<" and not key.style:
                self._merge(value, merged, path, depth)
            elif key.value in own:
                self.faults.append(self._fault(key, f"key {key.value!r} is given twice", "keep one", path))
            else:
                # Keys are names: an unquoted 70 or `true` means that text, not a number or a truth.
                own[key.value] = self.build(value, (*path, key.value), depth + 1)
        return {**merged, **own}

    def _merge(self, value: yaml.Node, merged: dict[str, Any], path: tuple[PathPart, ...], depth: int) -> None:
        """`<<: *one` or `<<: [*one, *other]`: what they hold and this mapping does not; the first one's word counts."""
        built = self.build(value, path, depth + 1)
        for part in built if isinstance(built, list) else [built]:
            if isinstance(part, dict):
                merged.update({key: item for key, item in part.items() if key not in merged})
            else:
                self.fatal.append(self._fault(value, "`<<` takes mappings", "", path))

    def _fault(self, node: yaml.Node, problem: str, remedy: str, path: tuple[PathPart, ...]) -> Fault:
        return Fault(problem, remedy, path, self.label, int(node.start_mark.line) + 1)


def _plain(word: str) -> Any:
    """Resolve an unquoted word by the core schema of YAML 1.2 (section 10.3.2)."""
    if word in _WORDS:
        return _WORDS[word]
    if _INT.fullmatch(word):
        return _parse_int(word.replace("_", ""))
    return float(word) if _FLOAT.fullmatch(word) else word


def _kind(data: Any) -> str:
    if isinstance(data, list):
        return "a list"
    return "plain text" if isinstance(data, str) else f"a single {type(data).__name__}"
