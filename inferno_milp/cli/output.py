"""Where results go: stdout, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from inferno_milp.errors import OptionError

STDOUT = "-"
PLAIN_WIDTH = 100_000
"""Width of a console that is no terminal: lines of plain text are never cut."""


def result_console() -> Console:
    """Return the console for results: stdout."""
    console = Console(file=sys.stdout, highlight=False)
    return console if console.is_terminal else Console(file=sys.stdout, highlight=False, width=PLAIN_WIDTH)


def check_targets(*files: str | None) -> None:
    """Raise OptionError, before any work is done, if a file can't be written where it is wanted."""
    faults = []
    for name in files:
        if name is None or name == STDOUT:
            continue
        path = Path(name)
        if path.is_dir():
            faults.append(f"{name} is a folder")
        elif not path.parent.is_dir():
            faults.append(f"cannot write {name}: no folder {path.parent}")
        elif not os.access(path.parent, os.W_OK):
            faults.append(f"cannot write {name}: folder {path.parent} is read-only")
    if faults:
        raise OptionError("; ".join(faults))


def write_json(document: Any, target: str) -> None:
    """Write one JSON document to a file, or to stdout for `-`."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_whole(text, Path(target))


def write_whole(text: str, path: Path) -> None:
    """Write a text file so that, whatever happens, the old or the new file is there, and whole."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show on stderr which stage is running; only where it is a terminal."""
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    words = {
        "read": "reading the problem",
        "candidates": "analysing candidates",
        "build": "building the program",
        "solve": "solving",
    }
    with console.status("starting") as status:
        yield lambda stage: status.update(words.get(stage, stage))
