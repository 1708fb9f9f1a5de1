"""Values of options: text → numbers, or a word on what is wrong."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

LARGEST_NUMBER = 1e12
LARGEST_COVARIANCE = 1000.0


def number(text: str) -> float:
    """Read a number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value <= LARGEST_NUMBER:  # NaN is not either
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {LARGEST_NUMBER:g}, not {text}")
    return value


def positive(text: str) -> float:
    """Read a number above 0."""
    value = number(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def tokens(text: str) -> float:
    """Read mean tokens per request, at least 1."""
    value = number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def factor(text: str) -> float:
    """Read a number above 0 and below 1."""
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"must be less than 1, not {text}")
    return value


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within bounds."""

    def read(text: str) -> int:
        if not (text.isdecimal() and len(text) <= 10 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text}")
        return int(text)

    return read


def count(text: str) -> int:
    """Read a whole number from 0 on."""
    if not (text.isdecimal() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 0, not {text}")
    return int(text)


def gap(text: str) -> float:
    """Read a relative gap."""
    value = number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"must be within [0, 1), not {text}")
    return value


def edges(text: str) -> tuple[float, ...]:
    """Read numbers above 0 that rise, with commas between them."""
    values = tuple(positive(part) for part in text.split(","))
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise argparse.ArgumentTypeError(f"must rise: {text}")
    return values


def share(text: str) -> float:
    """Read a number above 0, at most 1."""
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"must be at most 1, not {text}")
    return value


def covariance(text: str) -> float:
    """Read a relative covariance, from -1 on."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not -1 <= value <= LARGEST_COVARIANCE:  # NaN is not either
        raise argparse.ArgumentTypeError(f"must be a number from -1 to {LARGEST_COVARIANCE:g}, not {text}")
    return value


def jobs(text: str) -> int:
    """Read a number of processes; -1 is one per core."""
    return -1 if text == "-1" else whole(1, 10_000)(text)
