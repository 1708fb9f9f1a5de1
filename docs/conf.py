"""The documentation as a site: `sphinx-build -W docs site`. Nothing in it is fetched from anywhere."""

import re
from typing import Any

from sphinx.application import Sphinx

from inferno_milp import __version__

project = "inferno_milp"
author = "the inferno_milp team"
copyright = author  # noqa: A001 - the name is Sphinx's
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"inferno_milp {__version__}"
html_copy_source = False
html_show_sourcelink = False

SECTION = re.compile(r"(Parameters|Attributes)$")
ENTRY = re.compile(r"(\*{0,2}\w+(?:, \w+)*) : (.*)")


def say_meaning(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn `name : meaning`, as our docstrings have it, into a name with its meaning below; the types are annotated."""
    result: list[str] = []
    inside = False
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and set(lines[i + 1]) == {"-"}:
            inside = SECTION.match(line) is not None
        entry = ENTRY.fullmatch(line) if inside else None
        result += [entry[1], f"    {entry[2]}"] if entry else [line]
    lines[:] = result


def no_signature(app: Sphinx, what: str, name: str, thing: Any, options: Any, *_: Any) -> tuple[str, None] | None:
    """Leave out what a class is made with: nobody makes plans by hand, and the attributes are listed below."""
    return ("", None) if what == "class" else None


def setup(app: Sphinx) -> None:
    """Add the hooks, to run before the sections of docstrings are read."""
    app.connect("autodoc-process-docstring", say_meaning, priority=100)
    app.connect("autodoc-process-signature", no_signature)
