"""One file on disk → plain data, with nothing lost and nothing run: YAML and JSON, size, depth and duplicates."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from inferno_milp.errors import Fault, InputError, PathPart

MAX_FILE_BYTES = 20_000_000
"""A file larger than this is refused; 10,000 servers take about 2 MB."""
MAX_DEPTH = 50
MAX_VALUES = 5_000_000
"""Values in one document, aliases expanded."""

_MERGE_TAG = "tag:yaml.org,2002:merge"
_MAP_TAG, _SEQ_TAG = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"


class _Loader(yaml.CSafeLoader):
    """The safe loader, and numbers such as `1e3`, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Source:
    """A file's data.

    Attributes
    ----------
    label : the file as the user named it.
    path : the file itself.
    data : mappings, sequences and scalars.
    text : what was read, kept to find the lines of faults.
    """

    label: str
    path: Path
    data: Any
    text: str

    def fault(self, problem: str, remedy: str = "", path: tuple[PathPart, ...] = ()) -> Fault:
        """Return a fault at a place of this file, with its line."""
        return self.placed(Fault(problem, remedy, path))

    def placed(self, fault: Fault) -> Fault:
        """Return the fault with this file's name and the line of its path."""
        return replace(fault, file=self.label, line=self.line(fault.path))

    def line(self, path: tuple[PathPart, ...]) -> int | None:
        """Line (from 1) of the deepest part of `path` that the file has; None if the text is not YAML or JSON."""
        node = self._tree
        if node is None:
            return None
        line = int(node.start_mark.line)
        for part in path:
            entry = _child(node, part)
            if entry is None:
                break
            key, node = entry
            line = int(key.start_mark.line)
        return line + 1

    @cached_property
    def _tree(self) -> yaml.Node | None:
        try:
            return yaml.compose(self.text, Loader=_Loader)
        except (yaml.YAMLError, RecursionError):
            return None


def _child(node: yaml.Node, part: PathPart) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
        return node.value[part], node.value[part]
    return None


def load_source(path: Path, label: str) -> Source:
    """Read one file.

    Raises
    ------
    InputError
        If it is missing, unreadable, too large, empty, not UTF-8, neither YAML nor JSON, or holds duplicate keys,
        tags that would run code, endless aliases or too much nesting.
    """
    text = _read_text(path, label)
    data = load_json(text, label) if path.suffix.lower() == ".json" else load_yaml(text, label)
    if data is None:
        raise InputError([Fault("the file is empty", "see docs/problem.md for what it holds", file=label)])
    if not isinstance(data, dict):
        raise InputError([Fault(f"the document is {_kind(data)}", "it must be a mapping of sections", file=label)])
    return Source(label, path, data, text)


def _read_text(path: Path, label: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise InputError([Fault("no such file", file=label)]) from None
    except OSError as error:
        raise InputError([Fault(f"cannot be read: {error.strerror or error}", file=label)]) from None
    if len(content) > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES // 10**6} MB"
        raise InputError([Fault(f"the file is larger than {limit}", "split it, or check that it is one", file=label)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text (byte {error.start})"
        raise InputError([Fault(problem, "save it as UTF-8", file=label)]) from None


def load_json(text: str, label: str) -> Any:
    """Parse JSON; raise InputError for syntax, duplicate keys and depth."""
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(key for key in result if keys.count(key) > 1)
        return result

    if not text.strip():
        return None
    try:
        data = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError([Fault(f"not JSON: {error.msg}", file=label, line=error.lineno)]) from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError([Fault(f"not readable as JSON: {reason}", file=label)]) from None
    if twice:
        raise InputError(Fault(f"key {key!r} is given twice in one mapping", file=label) for key in twice)
    return data


def load_yaml(text: str, label: str) -> Any:
    """Parse YAML without running anything; raise InputError for syntax, tags, duplicate keys, aliases and depth."""
    # Both the parser and PyYAML's composer recurse: the depth is bounded before either sees the text.
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            builder = _Builder(loader, label)
            data = builder.build(node, (), 0)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark else None
        raise InputError([Fault(f"not YAML: {problem}", file=label, line=line)]) from None
    except _TooMuchError as error:
        raise InputError([Fault(str(error), file=label)]) from None
    if builder.faults:
        raise InputError(builder.faults)
    return data


class _TooMuchError(Exception):
    """The document is too deep or too large."""


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _TooMuchError(f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Builder:
    """Turns YAML nodes into data; faults are gathered so that all of them are told at once."""

    def __init__(self, loader: _Loader, label: str):
        self.loader = loader
        self.label = label
        self.faults: list[Fault] = []
        self.values = 0

    def build(self, node: yaml.Node, path: tuple[PathPart, ...], depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise _TooMuchError(f"more than {MAX_VALUES} values, aliases expanded")
        if depth > MAX_DEPTH:
            raise _TooMuchError(f"nested more than {MAX_DEPTH} levels deep, aliases expanded")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ_TAG:
            return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP_TAG:
            return self._mapping(node, path, depth)
        return self._refuse(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: tuple[PathPart, ...]) -> Any:
        # A tag with no constructor of its own falls to the one under None, which only refuses.
        if node.tag not in self.loader.yaml_constructors:
            return self._refuse(node, path)
        try:
            return self.loader.construct_object(node)
        except (ValueError, yaml.YAMLError) as error:
            return self._fault(node, f"unreadable value {node.value[:40]!r}: {error}", path)

    def _mapping(self, node: yaml.MappingNode, path: tuple[PathPart, ...], depth: int) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE_TAG:
                if key.value in keys:
                    self._fault(key, f"key {key.value!r} is given twice", path)
                keys.add(key.value)
        self.loader.flatten_mapping(node)
        result: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault(key, "a key must be a word", path)
                continue
            # Keys are names: an unquoted 70 or `no` means that text, not a number or a truth.
            result[key.value] = self.build(value, (*path, key.value), depth + 1)
        return result

    def _refuse(self, node: yaml.Node, path: tuple[PathPart, ...]) -> None:
        return self._fault(node, f"tag {node.tag!r} is refused", path, "only plain YAML is read, nothing is run")

    def _fault(self, node: yaml.Node, problem: str, path: tuple[PathPart, ...], remedy: str = "") -> None:
        self.faults.append(Fault(problem, remedy, path, self.label, int(node.start_mark.line) + 1))


def _kind(data: Any) -> str:
    if isinstance(data, list):
        return "a list"
    return "plain text" if isinstance(data, str) else f"a single {type(data).__name__}"
