"""Examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest
from small_problems import ROOT

import inferno_milp as im

FINDER = doctest.DocTestFinder()


def with_examples() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(im.__path__, "inferno_milp.")]
    paths = {name: ROOT / f"{name.replace('.', '/')}.py" for name in names}
    return [name for name, path in paths.items() if path.is_file() and ">>> " in path.read_text()]


@pytest.mark.parametrize("name", with_examples())
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    tests = [test for test in FINDER.find(module) if test.examples]
    assert tests
    for test in tests:
        assert runner.run(test).failed == 0, test.name


@pytest.mark.parametrize("name", ["optimize", "read_problem", "explain", "analyze", "size", "read_measurements"])
def test_the_most_used_functions_have_one(name: str) -> None:
    assert ">>> " in (getattr(im, name).__doc__ or "")
    assert Path(im.__file__).parent == ROOT / "inferno_milp"
