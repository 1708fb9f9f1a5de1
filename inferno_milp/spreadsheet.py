"""Tables as CSV in which a spreadsheet finds no formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes a cell for a formula by; names of a problem may begin so."""


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV; before a text that a spreadsheet would run as a formula stands an apostrophe."""
    return frame.map(_as_text).rename(columns=_as_text).to_csv(index=False)


def _as_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value.startswith(FORMULA_STARTS) else value
    return text.replace("\r", " ")  # pandas leaves it without quotes, and what follows would be a row of its own
