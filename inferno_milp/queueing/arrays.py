"""Array types, and dataclasses of arrays of which some elements can be taken."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Which = npt.NDArray[np.intp] | BoolArray | slice

TINY = 1e-12


class Takes:
    """Base of dataclasses whose fields are arrays of one length, or again such dataclasses, or None."""

    __slots__ = ()

    def take(self, which: Which) -> Self:
        """Return the chosen elements, in the order chosen."""
        return type(self)(*(_take(getattr(self, field.name), which) for field in fields(self)))  # type: ignore[arg-type]


def _take(value: Any, which: Which) -> Any:
    if value is None:
        return None
    return value.take(which) if isinstance(value, Takes) else value[which]
