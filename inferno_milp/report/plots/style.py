"""What all figures share: axes, colours, and how they are written to files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#2a6fbb", "#c2452d", "#2f8f5b", "#8a8f98"
PALETTE = (
    "#2a6fbb", "#e08a2c", "#2f8f5b", "#c2452d", "#7a5bb5", "#1a9ba1", "#b5457f", "#8a6d3b", "#5c6b7a", "#a3b53a",
    "#4b9be0", "#d9a9a0",
)  # fmt: skip
FORMATS = ("svg", "png", "pdf")


def own_axes(ax: Axes | None, *, width: float = 7.0, height: float = 4.0) -> Axes:
    """Return the axes, or new ones in a figure of pyplot, as a notebook shows them."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(width, height), layout="constrained").add_subplot()
    return ax


def new_figure(width: float = 7.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """Return a figure that pyplot does not keep, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def figure_bytes(figure: Figure, file_format: str) -> bytes:
    """Return a figure as a file; the same figure gives the same bytes.

    Parameters
    ----------
    file_format : one of "svg", "png", "pdf".
    """
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format)
    with mpl.rc_context({"svg.hashsalt": "inferno-milp"}), BytesIO() as file:
        figure.savefig(file, format=file_format, dpi=150, metadata=metadata)
        return file.getvalue()


def tidy(ax: Axes, *, grid: str | None = "y") -> None:
    """Take away what says nothing."""
    ax.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        ax.grid(visible=True, axis=grid, color="#e6e8eb", linewidth=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)


def legend(ax: Axes, *, outside: bool = False) -> None:
    """Add a legend, where there are several colours."""
    if not ax.get_legend_handles_labels()[1]:
        return
    if outside:
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        ax.legend(frameon=False, fontsize=8)


def colours(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour; the same names in the same order get the same."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def slanted(ax: Axes, names: Sequence[str]) -> None:
    """Name the places of the x axis, slanted where they would not fit."""
    ax.set_xticks(range(len(names)))
    long = sum(len(name) for name in names) > 60
    ax.set_xticklabels(
        [plain(name) for name in names], rotation=35 if long else 0, ha="right" if long else "center", fontsize=8
    )


def shortened(name: str, most: int = 36) -> str:
    """Return a name of at most so many letters, without its middle where it is longer: the axes need room too."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def plain(text: str) -> str:
    """Write a text so that no part of it is read as a formula, whatever names hold."""
    return text.replace("$", r"\$")


def number(value: float) -> str:
    """Write a number for a label."""
    return f"{value:,.1f}".removesuffix(".0") if abs(value) >= 100 else f"{value:.3g}"
