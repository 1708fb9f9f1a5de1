"""Plain words: how docstrings begin."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from small_problems import ROOT

BEGINNINGS = {"Say": "Return, Yield or Report", "Tell": "Return or Report", "Go": "Yield", "Mend": "Fix or Repair"}
"""Verbs that docstrings do not begin with, and those that they do."""


def docstrings() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "inferno_milp").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def test_docstrings_begin_with_a_plain_verb() -> None:
    found = list(docstrings())
    assert len(found) > 1000
    wrong = [
        f"{place}: {word!r}; better {BEGINNINGS[word]}"
        for place, text in found
        if (word := text.split()[0].rstrip(":,")) in BEGINNINGS
    ]
    assert not wrong, "\n".join(wrong)
