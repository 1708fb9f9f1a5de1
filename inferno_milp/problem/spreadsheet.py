"""Tables as plain data, and as CSV in which a spreadsheet finds no formulas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes a cell for a formula by; names of a problem may begin so."""


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON has them: every number to its last digit, None for what is none or infinite.

    pandas' own `to_json` keeps so many decimal places, and of a price of 1e-12 three digits.
    """
    rows = frame.astype(object).to_dict("records")
    return [{str(name): _as_json(value) for name, value in row.items()} for row in rows]


def _as_json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV; before a text that a spreadsheet would run as a formula stands an apostrophe."""
    return frame.map(_as_text).rename(columns=_as_text).to_csv(index=False)


def _as_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value.startswith(FORMULA_STARTS) else value
    return text.replace("\r", " ")  # pandas leaves it without quotes, and what follows would be a row of its own
