"""A problem as a document that can be read again."""

from __future__ import annotations

from typing import Any

import yaml

from inferno_milp.problem import Problem

LISTS = ("accelerators", "profiles", "service_classes", "servers", "nodes")
WIDE = 10_000


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


def _block(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=WIDE)


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=WIDE)
    return text.strip()
