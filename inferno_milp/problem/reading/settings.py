"""Other figures for a problem, named by their path: `servers.gold-chat.load.rate_per_min=240`, `capacity.H100*=2`.

A path names items by what they are called, not by position, and may hold `*` and `?`: `servers.*.load.rate_per_s`.
Names may have dots in them: of several readings of a path the one with the longest names holds, and of patterns the one
with the shortest, if what is left names a figure.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from inferno_milp.errors import Fault, InputError, PathPart
from inferno_milp.problem import Problem
from inferno_milp.problem.pools import with_pools
from inferno_milp.problem.reading.document import Document
from inferno_milp.problem.reading.source import read_value
from inferno_milp.problem.reading.validate import model_at, validate
from inferno_milp.problem.sections import Sections
from inferno_milp.problem.spelling import nearest
from inferno_milp.problem.synonyms import nearest_key

Operation = Literal["=", "*=", "+="]
KEYS: dict[str, tuple[str, ...]] = {
    "accelerators": ("name",),
    "profiles": ("model", "accelerator"),
    "service_classes": ("name",),
    "servers": ("name",),
    "nodes": ("type", "devices"),
}
"""What the items of each list are called by."""
SECTIONS = (*Sections.model_fields, "capacity")
OTHER_UNIT = {"rate_per_s": "rate_per_min", "rate_per_min": "rate_per_s"}
"""A load has its rate in one unit of the two."""
_ASSIGNMENT = re.compile(r"(?P<path>.*?)\s*(?P<operation>[-*+]?=)\s*(?P<value>.*)", re.S)


@dataclass(frozen=True, slots=True)
class Setting:
    """A figure to set, to multiply or to add to.

    Attributes
    ----------
    path : which one, or which ones.
    operation : "=" sets it, "*=" multiplies what is there, "+=" adds to it.
    value : a number, text, a list or a mapping, as a problem's document would have it.
    """

    path: str
    operation: Operation
    value: Any

    @property
    def target(self) -> str:
        """Path and operation as they are written: `capacity.H100`, `capacity.H100 *=`."""
        return self.path if self.operation == "=" else f"{self.path} {self.operation}"

    def __str__(self) -> str:
        value = json.dumps(self.value, ensure_ascii=False)
        return f"{self.path}{self.operation}{value}"


def read_setting(text: str) -> Setting:
    """Read `PATH=VALUE`, `PATH*=FACTOR`, `PATH+=AMOUNT` or `PATH-=AMOUNT`; the value is YAML, as in a document.

    Raises
    ------
    InputError
        If it is none of these.
    """
    found = _split(text)
    if found is None or not found[2]:
        raise InputError([Fault(f"{text!r} sets nothing", "write PATH=VALUE, PATH*=FACTOR or PATH+=AMOUNT")])
    path, operation, written = found
    try:
        value = read_value(written)
    except InputError as error:
        raise InputError(replace(fault, path=(path,), line=None) for fault in error.faults) from None
    if operation == "-=":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError([Fault(f"{value!r} is not a number", "only numbers are taken away", (path,))])
        return Setting(path, "+=", -value)
    return Setting(path, operation, value)  # type: ignore[arg-type]  # the pattern knows no other


def read_target(text: str) -> tuple[str, Operation]:
    """Read what is left of the value: `capacity.H100`, `capacity.H100 =`, `servers.*.load.rate_per_s *=`."""
    found = _split(text)
    if found is None:
        return text.strip(), "="
    if found[2] or found[1] == "-=":
        raise InputError([Fault(f"{text!r} has a value", "name what is set, PATH, PATH*= or PATH+=")])
    return found[0], found[1]  # type: ignore[return-value]  # the pattern knows no other


def _split(text: str) -> tuple[str, str, str] | None:
    match = _ASSIGNMENT.fullmatch(text.strip())
    if match is None or not match["path"]:
        return None
    path, operation = match["path"], match["operation"]
    if path.endswith(".") and operation == "*=":  # `capacity.*=8` sets them all
        path, operation = f"{path}*", "="
    return path, operation, match["value"]


def read_settings(settings: Mapping[str, Any] | Iterable[Setting | str]) -> tuple[Setting, ...]:
    """Read settings given as `{"capacity.H100": 96, "servers.*.load.rate_per_s *=": 2}`, or as a list of texts.

    Raises
    ------
    InputError
        With every one that cannot be read.
    """
    faults: list[Fault] = []
    result: list[Setting] = []
    given: Iterable[Any] = settings.items() if isinstance(settings, Mapping) else settings
    for item in given:
        try:
            if isinstance(item, tuple):
                result.append(Setting(*read_target(item[0]), item[1]))
            else:
                result.append(item if isinstance(item, Setting) else read_setting(item))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return tuple(result)


def with_settings(problem: Problem, settings: Mapping[str, Any] | Iterable[Setting | str]) -> Problem:
    """Return the same problem with other figures.

    Parameters
    ----------
    settings : `{"servers.Premium-llama_13b.load.rate_per_min": 240, "capacity.H100 *=": 2}`, or a list of texts as
        `read_setting` takes them. A later one builds on those before it.

    Raises
    ------
    InputError
        With everything that is wrong: paths that name nothing, values that cannot be.
    """
    chosen = read_settings(settings)
    data = problem.model_dump(mode="json", exclude_unset=True)
    faults: list[Fault] = []
    for setting in chosen:
        before = copy.deepcopy(data) if _replaces_a_part(setting) else None
        try:
            _apply(data, setting)
        except _WrongPathError as wrong:
            faults.append(Fault(wrong.problem, wrong.remedy, (setting.path,)))
        if before is not None:  # what comes after goes on with a whole problem
            made, wrong_parts = _made(data)
            faults += wrong_parts
            data = before if made is None else made.model_dump(mode="json", exclude_unset=True)
    changed, more = _made(data)
    faults += more
    if faults or changed is None:
        raise InputError(dict.fromkeys(faults))
    written = {(server.name, server.model): server.weights for server in problem.servers}
    servers = [s.written_as(written.get((s.name, s.model), s.model)) for s in changed.servers]
    return changed.model_copy(update={"servers": tuple(servers)})


def _replaces_a_part(setting: Setting) -> bool:
    """Whether more than a number or a word is set, which what comes after may go into."""
    return "." not in setting.path or setting.value is None or isinstance(setting.value, (dict, list))


def _made(data: dict[str, Any]) -> tuple[Problem | None, list[Fault]]:
    """Make a problem, or say what is wrong with it."""
    try:
        return with_pools(Problem.model_validate(data)), []
    except ValidationError:
        faults = validate(Document, data).faults
    except InputError as error:
        faults = error.faults
    return None, [Fault(fault.problem, fault.remedy, _by_name(data, fault.path)) for fault in faults]


class _WrongPathError(Exception):
    def __init__(self, problem: str, remedy: str = ""):
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def _apply(data: dict[str, Any], setting: Setting) -> None:
    section, _, rest = setting.path.partition(".")
    if section not in SECTIONS:
        raise _WrongPathError(f"unknown section {section!r}", nearest_key(section, SECTIONS, Document.__name__))
    if not rest:
        _change(data, section, setting)
        return
    if section == "capacity":
        _set_capacity(data, rest, setting)
        return
    if section in KEYS:
        items, rest = _items(data.get(section, []), section, rest)
        if not rest:
            raise _WrongPathError("names a whole item, not one of its figures", "go on with a dot and the field's name")
        places = [(item, rest) for item in items]
    elif section == "options":
        places = [(data.setdefault(section, {}), rest)]
    else:
        hint = f"set {section} as a whole"
        if section == "pools":  # there are none any more once a problem is read
            hint = "set capacity.TYPE@POOL, or accelerators.NAME@POOL.cost_per_hour or .availability"
        raise _WrongPathError(f"{section} has no parts", hint)
    done = [_set_field(item, field, setting) for item, field in places]
    if not any(done):
        raise _WrongPathError("is given for none of them: there is nothing to change", "set it with =")


def _set_capacity(data: dict[str, Any], path: str, setting: Setting) -> None:
    capacity = data["capacity"]
    if capacity == "unlimited":
        raise _WrongPathError("capacity is unlimited", "set `capacity` as a whole: 'capacity={H100: 8}'")
    types = [accelerator["type"] for accelerator in data.get("accelerators", [])]
    found, rest = _take(path, dict.fromkeys((*capacity, *types)), "accelerator type")
    if rest:
        raise _WrongPathError("the devices of a type have no parts", f"set capacity.{path.removesuffix('.' + rest)}")
    for name in sorted(found if path in found else found & {*capacity}):
        capacity.setdefault(name, 0)
        _change(capacity, name, setting)


def _items(listed: Sequence[Any], section: str, path: str) -> tuple[list[Any], str]:
    """Items whose names the path begins with, and the rest of it."""
    model = model_at(Document, (section, 0))
    fields = {} if model is None else model.model_fields
    readings = list(_item_readings(listed, KEYS[section], path))
    for items, rest in readings:
        first = rest.partition(".")[0]
        if first in fields or set(first) & {"*", "?"}:
            return items, rest
    if readings:
        return readings[0]
    rest = path
    for key in KEYS[section]:  # one of them has no such name
        names = dict.fromkeys(str(item[key]) for item in listed)
        kind = f"profile of {listed[0]['model']} on" if key == "accelerator" else _words(key)
        found, rest = _take(rest, names, kind)
        listed = [item for item in listed if str(item[key]) in found]
    raise AssertionError("unreachable")


def _item_readings(listed: Sequence[Any], keys: tuple[str, ...], path: str) -> Iterator[tuple[list[Any], str]]:
    if not keys:
        yield list(listed), path
        return
    for found, rest in _readings(path, dict.fromkeys(str(item[keys[0]]) for item in listed)):
        yield from _item_readings([item for item in listed if str(item[keys[0]]) in found], keys[1:], rest)


def _words(key: str) -> str:
    return {"name": "name", "devices": "size of node", "type": "type of node"}.get(key, key)


def _take(path: str, names: Iterable[str], kind: str) -> tuple[set[str], str]:
    """Names that the path begins with, and what follows them."""
    names = list(names)
    for reading in _readings(path, names):
        return reading
    first = path.partition(".")[0]
    word = "no" if kind.startswith("profile of") else "unknown"
    raise _WrongPathError(f"{word} {kind} {first!r}", nearest(first, names))


def _readings(path: str, names: Iterable[str]) -> Iterator[tuple[set[str], str]]:
    """Yield the ways to read the beginning of a path as names, and what follows them.

    The longest name is first, since it may hold dots itself; of patterns, which match dots as well, the shortest.
    """
    names = list(names)
    ends = [*(match.start() for match in re.finditer(r"\.", path)), len(path)]
    yield from (({path[:end]}, path[end + 1 :]) for end in reversed(ends) if path[:end] in names)
    for end in ends:
        found = {name for name in names if _is_like(path[:end], name)}
        if found:
            yield found, path[end + 1 :]


def _is_like(pattern: str, name: str) -> bool:
    if not set(pattern) & {"*", "?"}:
        return False
    expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch(expression, name, re.S) is not None


def _set_field(item: dict[str, Any], path: str, setting: Setting) -> bool:
    """Set what a path within an item names; whether anything was there to be changed."""
    first, _, rest = path.partition(".")
    if first == "targets" and rest and isinstance(item.get("targets"), dict):
        models, rest = _take(rest, item["targets"], "model")
        if rest:
            return _any(_set_target(item["targets"][model], rest, setting) for model in sorted(models))
        return _any(_change(item["targets"], model, setting) for model in sorted(models))
    if first in ("targets", "service_class") and "service_class" in item and rest:
        raise _WrongPathError(
            "targets belong to a service class", f"service_classes.{item['service_class']}.targets.{item['model']}.…"
        )
    if rest:
        inner = item.get(first)
        if inner is None:
            if setting.operation != "=":
                return False
            inner = item[first] = {}
        if not isinstance(inner, dict):
            raise _WrongPathError(f"{first} has no parts that have names", f"set {first} as a whole")
        return _set_field(inner, rest, setting)
    if any(c in first for c in "*?") and first not in item:
        found, _ = _take(first, item, "name")
        return _any(_change(item, name, setting) for name in sorted(found))
    return _change(item, first, setting)


def _any(done: Iterable[bool]) -> bool:
    """Whether one of them is true, after all have been done."""
    return sum(done) > 0


def _set_target(targets: dict[str, Any], path: str, setting: Setting) -> bool:
    """Set a promise, `ttft_ms`, or one statistic of it, `ttft_ms.p95`; the others stay."""
    if not isinstance(targets, dict):
        raise _WrongPathError(f"is {targets!r}, no promises", "give a mapping, {} for none")
    latency, _, statistic = path.partition(".")
    if not statistic:
        return _change(targets, latency, setting)
    old = targets.get(latency)
    by_statistic = dict(old) if isinstance(old, dict) else {} if old is None else {"mean": old}
    done = _change(by_statistic, statistic, setting)
    if done:
        targets[latency] = by_statistic
    return done


def _change(holder: dict[str, Any], key: str, setting: Setting) -> bool:
    """Set, multiply or add to one figure; False if there is none to multiply or to add to."""
    given = holder.pop(OTHER_UNIT[key], None) if key in OTHER_UNIT else None
    if isinstance(given, (int, float)):
        holder[key] = given / 60 if key == "rate_per_s" else given * 60
    if setting.operation == "=":
        holder[key] = setting.value
        return True
    old = holder.get(key)
    if old is None:
        return False
    amount = setting.value
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise _WrongPathError(f"{amount!r} is not a number", "only numbers multiply and add")
    holder[key] = _computed(old, lambda x: x * amount if setting.operation == "*=" else x + amount)
    return True


def _computed(old: Any, compute: Callable[[float], float]) -> Any:
    """Change a number, or all numbers of a mapping; whole numbers stay whole."""
    if isinstance(old, dict):
        return {name: _computed(value, compute) for name, value in old.items()}
    if isinstance(old, bool) or not isinstance(old, (int, float)):
        raise _WrongPathError(f"is {old!r}, not a number", "set it with =")
    try:
        new = compute(old)
    except OverflowError:
        raise _WrongPathError("is too large a number") from None
    return round(new) if isinstance(old, int) and abs(new) < 1e15 else new


def _by_name(data: dict[str, Any], path: tuple[PathPart, ...]) -> tuple[PathPart, ...]:
    """Return a path with the names of items in place of their positions."""
    return tuple(_named(data, path))


def _named(data: dict[str, Any], path: tuple[PathPart, ...]) -> Iterator[PathPart]:
    for i, part in enumerate(path):
        if i == 1 and isinstance(part, int) and path[0] in KEYS:
            item = data[str(path[0])][part]
            names = [item.get(key) for key in KEYS[str(path[0])]] if isinstance(item, dict) else [None]
            yield from ([part] if None in names else map(str, names))
        else:
            yield part
