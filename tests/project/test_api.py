"""The public names: each is what it says, also after every module has been imported."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from types import ModuleType

from small_problems import ROOT

import inferno_milp as im


def test_names_are_no_modules() -> None:
    """A module of the same name would take a function's place as soon as something imports it."""
    for module in pkgutil.walk_packages(im.__path__, "inferno_milp."):
        if not module.name.endswith(("__main__", "highs_child")):
            import_module(module.name)
    for name in im.__all__:
        assert not isinstance(getattr(im, name), ModuleType), name
    assert sorted(im.__all__) == im.__all__
    assert {*im.__all__} <= {*dir(im)}


def test_the_main_job_imports_nothing_of_the_extras() -> None:
    """Planning needs no matplotlib, jinja2, joblib or Dask, installed or not."""
    code = """
import sys
from inferno_milp.cli import main
main(["instances/small.yaml", "--quiet"])
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"matplotlib", "jinja2", "joblib", "distributed", "dask"}), end="")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("", "")
