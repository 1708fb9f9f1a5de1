"""Templates of pages: everything in them is text unless it says otherwise, and what is not there is an error."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files

import jinja2


@cache
def load_template(package: str, name: str) -> jinja2.Template:
    """Return a template of a package, with the filters `number`, `ms` and `percent`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": number, "ms": ms, "percent": percent}
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))


def number(value: float | None) -> str:
    """Write an amount."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 100 else f"{value:.4g}"


def ms(value: float | None) -> str:
    """Write milliseconds."""
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Write a fraction in percent."""
    return "–" if value is None else f"{value:.0%}"
