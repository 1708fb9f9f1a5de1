"""Data → frozen models, keeping what is right and telling all that is wrong in words."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from inferno_milp.errors import Fault, PathPart
from inferno_milp.problem.spelling import did_you_mean
from inferno_milp.problem.synonyms import meant_by, nearest_key

M = TypeVar("M", bound=BaseModel)


MOST_FAULTS = 200
"""Faults told of one document; a file with more has one cause."""


@dataclass(frozen=True, slots=True)
class Validated(Generic[M]):
    """What came of validating a document.

    Attributes
    ----------
    model : the document without its faulty parts, so that what refers to what can still be checked.
    faults : what is wrong, with paths but no file yet.
    kept : for each section that is a list, the positions in the file of the items kept.
    faulty : the positions of the others.
    defined : all names that the faulty parts define.
    """

    model: M
    faults: tuple[Fault, ...]
    kept: dict[str, tuple[int, ...]]
    faulty: dict[str, tuple[int, ...]]
    defined: frozenset[str]


def validate(model: type[M], data: dict[str, Any]) -> Validated[M]:
    """Validate `data`; parts of the top level, or items of its lists, that have a fault are left out of the result.

    Every field of `model` must have a default, for the case that it is left out.
    """
    kept = {key: range(len(value)) for key, value in data.items() if isinstance(value, list)}
    try:
        return Validated(model.model_validate(data), (), {k: tuple(v) for k, v in kept.items()}, {}, frozenset())
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
    faults = [_fault(model, data, detail) for detail in details[:MOST_FAULTS]]
    if len(details) > MOST_FAULTS:
        faults.append(Fault(f"and {len(details) - MOST_FAULTS} more faults like these"))
    faulty_items: dict[str, set[int]] = {}
    faulty_sections: set[str] = set()
    for detail in details:
        section, *rest = detail["loc"] or ("",)
        if rest and isinstance(rest[0], int):
            faulty_items.setdefault(str(section), set()).add(rest[0])
        else:
            faulty_sections.add(str(section))
    spared = {key: value for key, value in data.items() if key not in faulty_sections}
    dropped = [(key, data[key]) for key in faulty_sections if key in data]
    positions = {key: tuple(kept[key]) for key in kept if key in spared}
    for section, wrong in faulty_items.items():
        if section in spared:
            positions[section] = tuple(i for i in kept[section] if i not in wrong)
            dropped += [(section, data[section][i]) for i in sorted(wrong)]
            spared[section] = [data[section][i] for i in positions[section]]
    defined = frozenset(name for section, part in dropped for name in _defined(section, part))
    faulty = {section: tuple(sorted(wrong)) for section, wrong in faulty_items.items() if section in spared}
    return Validated(model.model_validate(spared), tuple(faults), positions, faulty, defined)


def _defined(section: str, part: Any) -> Iterator[str]:
    """Yield the names that a faulty part of a section defines; servers define none that others use."""
    if section == "servers":
        return
    if isinstance(part, list):
        for item in part:
            yield from _defined(section, item)
    elif isinstance(part, dict):
        yield from (part[key] for key in ("name", "type", "model") if isinstance(part.get(key), str))


def _fault(model: type[BaseModel], data: Any, detail: ErrorDetails) -> Fault:
    path = _path_in(data, tuple(p for p in detail["loc"] if p != "[key]" and not str(p).startswith("~")))
    problem, remedy = _words(detail)
    if detail["type"] == "extra_forbidden":
        remedy = _nearest_key(str(path[-1]), model_at(model, path[:-1]))
    elif detail["type"] == "missing":
        remedy = _description(model, path)
    return Fault(problem, remedy, path)


def _path_in(data: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Leave out positions that the document does not have: one item may stand for a list of one."""
    path: list[int | str] = []
    for part in location:
        if isinstance(part, int) and isinstance(data, dict) and part not in data:
            continue
        path.append(part)
        try:
            data = data[part]
        except (LookupError, TypeError):
            data = None
    return tuple(path)


def _words(detail: ErrorDetails) -> tuple[str, str]:
    """Return one of pydantic's findings in the words of the document's author: what is wrong, what would be right."""
    kind, context, shown = detail["type"], detail.get("ctx", {}), _shown(detail["input"])
    bounds = {
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "literal_error": "must be {expected}",
    }
    plain = {
        "float_type": "must be a number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "bool_type": "must be true or false",
        "string_type": "must be text",
        "finite_number": "must be a finite number",
        "model_type": "must be a mapping",
        "model_attributes_type": "must be a mapping",
        "dict_type": "must be a mapping",
        "tuple_type": "must be a list",
        "string_too_short": "must not be empty",
        "string_pattern_mismatch": "must not begin or end with white space, or hold control characters",
        "string_unicode": "must be Unicode text",
    }
    if kind == "missing":
        return "is missing", ""
    if kind == "extra_forbidden":
        return "unknown key", ""
    if kind in bounds:
        limits = {name: f"{bound:.15g}" if isinstance(bound, float) else bound for name, bound in context.items()}
        return f"{bounds[kind].format(**limits)}, is {shown}", ""
    if kind in plain:
        return f"{plain[kind]}, is {shown}", _remedy(kind, detail["input"])
    message = detail["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:] + (f", is {shown}" if kind != "value_error" else ""), ""


def _remedy(kind: str, value: Any) -> str:
    if kind in ("float_type", "int_type") and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return "write it without quotes"
    if kind == "string_type" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"write it in quotes: '{value}'"
    return ""


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _nearest_key(key: str, model: type[BaseModel] | None) -> str:
    """Return which key of a model, or of a part of it, was meant."""
    if model is None:
        return ""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    if not meant_by(key, model.__name__):
        for name, field in fields.items():
            part = _without_none(field.annotation)
            if isinstance(part, type) and issubclass(part, BaseModel):
                meant = [key] if key in part.model_fields else meant_by(key, part.__name__)
                if meant:
                    return did_you_mean([f"{name}.{inner}" for inner in meant])
    return nearest_key(key, fields, model.__name__)


def _description(model: type[BaseModel], path: tuple[PathPart, ...]) -> str:
    found = model_at(model, path[:-1])
    if found is None:
        return ""
    by_key = {field.alias or name: field for name, field in found.model_fields.items()}
    field = by_key.get(str(path[-1])) if path else None
    if field is None or not field.description:
        return ""
    sentence = field.description.replace("\n", " ").split(";")[0].split(". ")[0].rstrip(".")
    return f"give {path[-1]}: {sentence[:1].lower()}{sentence[1:]}"


def model_at(model: type[BaseModel], path: tuple[PathPart, ...]) -> type[BaseModel] | None:
    """Return the model of what stands at a path of a document; None where there is none."""
    here: Any = model
    for part in path:
        here = _without_none(here)
        origin, arguments = typing.get_origin(here), typing.get_args(here)
        if origin in (tuple, list):
            here = arguments[0]
        elif origin is dict:
            here = arguments[1]
        elif isinstance(here, type) and issubclass(here, BaseModel):
            by_key = {field.alias or name: field for name, field in here.model_fields.items()}
            if str(part) not in by_key:
                return None
            here = by_key[str(part)].annotation
        else:
            return None
    here = _without_none(here)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation
