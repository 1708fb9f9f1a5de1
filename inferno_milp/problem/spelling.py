"""Misspelt names: which known name is near, and which only looks like it (`input_tokens` and `output_tokens`)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
AXES: tuple[tuple[frozenset[str], ...], ...] = tuple(
    tuple(frozenset(words.split()) for words in poles)
    for poles in (
        (
            "in input inputs prompt prompts prefill isl prefills request",
            "out output outputs completion completions generated generation gen decode decoding osl response",
        ),
        ("min minimum least fewest lowest smallest floor", "max maximum most highest largest ceiling limit"),
        ("ttft first", "itl tpot tbt inter between", "e2e total", "tps throughput"),
        ("idle", "mid middle", "full peak"),
        ("start begin started", "stop end stopped ended"),
        ("current now present", "desired wanted planned"),
        ("energy electricity", "carbon emissions co2"),
        ("before old from", "after new to"),
        ("mean avg average", "percentile"),
        ("unlimited infinite", "limited finite"),
    )
)
"""For each question that a name may answer, the words of its answers."""
UNITS = {
    "ms": "ms", "millis": "ms", "milliseconds": "ms", "us": "µs", "s": "s", "sec": "s", "second": "s", "seconds": "s",
    "rps": "s", "qps": "s", "rpm": "min", "qpm": "min", "minute": "min", "minutes": "min", "h": "hour", "hr": "hour",
    "hour": "hour", "hours": "hour", "day": "day", "gb": "GB", "gib": "GiB", "mb": "MB", "mib": "MiB", "w": "W",
    "kw": "kW", "kwh": "kWh", "mwh": "MWh", "cents": "cents",
}  # fmt: skip
"""Units that a name may end with."""


def parts_of(name: str) -> list[str]:
    """Return the words of a name, `avgInTokens` or `max_batch-size`, in lower case."""
    return [part.casefold() for part in _PART.findall(name)]


def unit_of(name: str) -> str | None:
    """Return the unit that a name says its figure is in; None if it says none."""
    parts = parts_of(name)
    if parts[-2:] == ["per", "min"]:
        return "min"
    return UNITS.get(parts[-1]) if parts else None


def are_opposed(one: str, other: str) -> bool:
    """Whether two names answer the same question differently."""
    mine, others = dict(_answers(one)), dict(_answers(other))
    return any(mine[axis] != others[axis] for axis in mine.keys() & others.keys())


def _answers(name: str) -> Iterator[tuple[int, int]]:
    parts = parts_of(name)
    words = {part for i, part in enumerate(parts) if not (part == "min" and parts[i - 1 : i] == ["per"])}
    for axis, poles in enumerate(AXES):
        found = [pole for pole, answers in enumerate(poles) if answers & words]
        if len(found) == 1:
            yield axis, found[0]


def folded(name: str) -> str:
    """Return a name without what its writers disagree on: letter case, hyphens, underscores."""
    return name.casefold().lstrip("-").replace("-", "_")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a remedy naming the known name nearest to a misspelt one, else all of them if they are few.

    No name is called near that means the opposite: `prompt_tokens` is spelled like `output_tokens`.
    """
    names = sorted(set(known))
    found = nearest_name(name, names)
    return known_names(names) if found is None else did_you_mean([found])


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelled most like a name, and does not mean the opposite; None if none is."""
    by_folded = {other.casefold(): other for other in sorted(set(known)) if not are_opposed(name, other)}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    if len(name) >= 3:
        close += [part for part in by_folded if name.casefold() in part or (len(part) >= 3 and part in name.casefold())]
    return by_folded[close[0]] if close else None


def did_you_mean(names: Sequence[str]) -> str:
    """Return the remedy that names what may have been meant."""
    return f"did you mean {' or '.join(map(repr, names))}?"


def known_names(known: Iterable[str], most: int = 12) -> str:
    """Return the remedy that lists all known names, if they are few."""
    names = sorted(set(known))
    if not names:
        return "none is defined"
    return f"known: {', '.join(names)}" if len(names) <= most else f"{len(names)} are known, none like it"
