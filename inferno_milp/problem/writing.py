"""A problem as a document that can be read again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from inferno_milp.problem import Problem
from inferno_milp.problem.reading import read_sections
from inferno_milp.problem.reading.document import LISTS
from inferno_milp.problem.reading.source import load_source
from inferno_milp.problem.sections import Profile

HEAD = ("name", "description", "source", "include", "currency")
WIDE = 10_000
WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf")
"""Words that a reader of YAML may take for something else than a text."""


def problem_text(problem: Problem, *, description: str = "") -> str:
    """Return a problem as YAML: one line for each accelerator, profile and server.

    Parameters
    ----------
    description : for the reader of the file.
    """
    data = problem.model_dump(mode="json", exclude_unset=True)
    for server, written in zip(problem.servers, data["servers"], strict=True):
        written["model"] = server.weights
    head: dict[str, Any] = {"name": data.pop("name", problem.name)}
    if description:
        head["description"] = description
    return _document({**head, **data})


def _document(data: dict[str, Any]) -> str:
    head = {key: data[key] for key in HEAD if data.get(key)}
    parts = [_block(head)] if head else []
    data = {key: value for key, value in data.items() if key not in HEAD}
    for key, value in data.items():
        if key in LISTS:
            if value:
                parts.append("".join([f"{key}:\n", *(f"  - {_flow(item)}\n" for item in value)]))
        elif value or key == "capacity":  # to have no devices is not the same as not to say how many
            parts.append(_block({key: value}) if not isinstance(value, dict) else f"{key}: {_flow(value)}\n")
    return "\n".join(parts)


def with_profile(path: Path | None, profile: Profile) -> str:
    """Return the text of a file of sections with a profile added, or put in the place of that of the same pair.

    Parameters
    ----------
    path : the file; None begins one. Its comments are not kept.

    Raises
    ------
    InputError
        With every fault of the file.
    """
    data = {} if path is None else load_source(path, str(path)).data
    if path is not None:
        read_sections(path)  # what is wrong with it is told now
    new = profile.model_dump(mode="json", exclude_unset=True)
    pair = (profile.model, profile.accelerator)
    profiles = list(data.get("profiles") or [])
    place = next((i for i, p in enumerate(profiles) if (p.get("model"), p.get("accelerator")) == pair), len(profiles))
    profiles[place : place + 1] = [{key: value for key, value in new.items() if value is not None}]
    return _document({**data, "profiles": profiles})


class _Dumper(yaml.SafeDumper):
    """Writes texts so that YAML 1.2, as we read it, and YAML 1.1 take them for texts."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.casefold() not in WORDS
    style = None if is_plain else "|" if "\n" in text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)


def _block(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDE)


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=WIDE)
    return text.strip().removesuffix("...").strip()
