"""A problem as a document that can be read again."""

from __future__ import annotations

import re
from typing import Any

import yaml

from inferno_milp.problem import Problem

LISTS = ("accelerators", "profiles", "service_classes", "servers", "nodes")
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
    head: dict[str, Any] = {"name": data.pop("name", problem.name)}
    if description:
        head["description"] = description
    parts = [_block(head)]
    for key, value in data.items():
        if key in LISTS:
            if value:
                parts.append("".join([f"{key}:\n", *(f"  - {_flow(item)}\n" for item in value)]))
        elif value or key == "capacity":  # to have no devices is not the same as not to say how many
            parts.append(_block({key: value}) if not isinstance(value, dict) else f"{key}: {_flow(value)}\n")
    return "\n".join(parts)


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
