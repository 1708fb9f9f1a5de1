"""Tables for a terminal, or as plain text where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 100_000
"""Width of a console that is no terminal: lines of plain text are never cut."""


FOLDED_WIDTH = 8
"""Width to which names are folded before columns that matter are left out."""


class _ResultConsole(Console):
    """Writes text as it is: no name is markup."""

    def __init__(self, width: int | None = None):
        super().__init__(highlight=False, markup=False, emoji=False, width=width)

    def on_broken_pipe(self) -> None:
        """Leave a reader that has gone to `stdout_to_its_end`: rich would end the program, with a code of its own."""
        raise BrokenPipeError


def result_console() -> Console:
    """Return the console for results: stdout."""
    console = _ResultConsole()
    return console if console.is_terminal else _ResultConsole(width=PLAIN_WIDTH)


def print_report(console: Console, *parts: RenderableType) -> None:
    """Print parts one below the other; where the console is no terminal, as plain lines that are never wrapped."""
    console.print(Group(*parts), soft_wrap=not console.is_terminal)


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of cells under columns, some of which are numbers and some of which may be left out.

    Attributes
    ----------
    numbers : columns that are numbers: set to the right, never folded.
    droppable : columns to leave out, in this order, while the table is wider than the terminal.
    vital : columns to leave out last, in this order, only where the table is too wide with its names folded as well.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[RenderableType, ...], ...]
    numbers: frozenset[str] = frozenset()
    droppable: tuple[str, ...] = ()
    vital: tuple[str, ...] = ()


def fitted(grid: Grid, console: Console) -> RenderableType:
    """Lay a grid out for a console: plain lines of any length, or a table as wide as the terminal allows."""
    dropped: list[str] = []
    table = _laid_out(grid, console, dropped)
    if not console.is_terminal:
        return table
    for columns, narrow in ((grid.droppable, False), (grid.vital, True)):
        for column in columns:
            measured = _laid_out(grid, console, dropped, narrow=narrow)
            if Measurement.get(console, console.options.update(max_width=10_000), measured).maximum <= console.width:
                break
            dropped.append(column)
    table = _laid_out(grid, console, dropped)
    if not dropped:
        return table
    return Group(table, Text(f"(left out, for the terminal is narrow: {', '.join(dropped)})", style="dim"))


def _laid_out(grid: Grid, console: Console, dropped: Sequence[str], *, narrow: bool = False) -> Table:
    plain = not console.is_terminal
    table = Table(
        box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0) if plain else (0, 1, 0, 0)
    )
    shown = [i for i, column in enumerate(grid.columns) if column not in dropped]
    for column in (grid.columns[i] for i in shown):
        is_number = column in grid.numbers
        # On a narrow terminal names are folded, numbers never.
        table.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=plain or is_number,
            min_width=len(column) if is_number else None,
            max_width=FOLDED_WIDTH if narrow and not is_number else None,
            overflow="fold",
        )
    for row in grid.rows:
        table.add_row(*(row[i] for i in shown))
    return table


def make_grid(
    names: Sequence[str],
    numbers: Sequence[str],
    rows: Iterable[tuple[RenderableType, ...]],
    droppable: tuple[str, ...] = (),
    vital: tuple[str, ...] = (),
) -> Grid:
    """Make a grid of names followed by numbers."""
    return Grid((*names, *numbers), tuple(rows), frozenset(numbers), droppable, vital)
