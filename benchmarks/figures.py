"""Every figure of the documentation: `python -m benchmarks.figures [--folder docs/figures] [--only NAME]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

from benchmarks import profile_figures, queueing_figures, study_figures

FIGURES = {**queueing_figures.FIGURES, **profile_figures.FIGURES, **study_figures.FIGURES}


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/figures"))
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    parser.add_argument("--only", choices=sorted(FIGURES), nargs="+", help="these alone")
    arguments = parser.parse_args()
    with mpl.rc_context({"svg.hashsalt": "inferno_milp", "font.size": 9, "svg.fonttype": "path"}):
        for name, draw in FIGURES.items():
            if arguments.only is None or name in arguments.only:
                target = arguments.folder / f"{name}.{arguments.format}"
                draw().savefig(target, dpi=110, metadata={"Date": None} if arguments.format == "svg" else None)


if __name__ == "__main__":
    main()
