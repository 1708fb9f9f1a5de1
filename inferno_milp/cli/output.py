"""Where results go: stdout, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from inferno_milp.errors import OptionError

STDOUT = "-"


OUTPUTS = ("json", "csv", "plot", "write", "html", "write_model", "output", "routed_problem", "shared_problem")
"""Options that name a file to be written."""
INPUTS = ("problem", "current", "plan", "before", "after", "trace")
MANY_INPUTS = ("files", "catalogue")
"""Arguments that name a file to be read."""
PICTURE_FORMATS = (".svg", ".png", ".pdf")
MODEL_FORMATS = (".lp", ".mps")


def check_outputs(arguments: Namespace, opened: Iterable[Path] = ()) -> None:
    """Raise OptionError, before any work is done, if a file can't be written where it is wanted.

    Parameters
    ----------
    opened : files that were read besides those that the arguments name; none of either may be written over.
    """
    wanted = {name: getattr(arguments, name, None) for name in OUTPUTS}
    targets: dict[str, str] = {name: str(target) for name, target in wanted.items() if target is not None}
    named = [Path(path) for name in INPUTS if (path := getattr(arguments, name, None)) is not None]
    named += [path for name in MANY_INPUTS for path in getattr(arguments, name, None) or ()]
    faults = []
    if STDOUT in targets.values() and sys.stdout is None:
        faults.append("stdout is closed")
    seen: dict[str, str] = {}
    for name, target in targets.items():
        option = f"--{name.replace('_', '-')}"
        if (other := seen.setdefault(_real(target), option)) != option:
            faults.append(f"{other} and {option} cannot go to the same place")
        if target != STDOUT:
            faults += _target_faults(target, [*named, *opened])
    faults += _format_faults(targets)
    if faults:
        raise OptionError("; ".join(faults))


def _format_faults(targets: dict[str, str]) -> Iterator[str]:
    picture, model = targets.get("plot"), targets.get("write_model")
    if picture is not None:
        if Path(picture).suffix not in PICTURE_FORMATS:
            yield f"a figure is written as .svg, .png or .pdf, not {picture}"
        yield from missing_extra("plots", "matplotlib")
    if model is not None and Path(model).suffix not in MODEL_FORMATS:
        yield f"--write-model writes .lp or .mps, not {model}"
    if "html" in targets:
        yield from missing_extra("report", "jinja2", "matplotlib")


def missing_extra(extra: str, *modules: str) -> Iterator[str]:
    """Yield which modules that an extra of the package brings are not there."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        yield f"this needs {' and '.join(missing)}: pip install 'inferno-milp[{extra}]'"


def _real(target: str) -> str:
    return target if target == STDOUT else os.path.realpath(target)


def _target_faults(target: str, inputs: Sequence[Path]) -> Iterator[str]:
    path = Path(target)
    try:
        if path.is_dir():
            yield f"{target} is a folder"
        elif not path.parent.is_dir():
            yield f"cannot write {target}: no folder {path.parent}"
        elif any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
            yield f"{target} is read, and would be written over"
        elif not os.access(path if path.exists() else path.parent, os.W_OK):
            yield f"cannot write {target}: not permitted"
    except (OSError, ValueError) as error:
        yield f"cannot write {target}: {getattr(error, 'strerror', None) or error}"


def write_json(document: Any, target: str) -> None:
    """Write one JSON document to a file, or to stdout for `-`."""
    write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", target)


def write_model(model: Any, target: str) -> None:
    """Write a Pyomo model, with its names, in the format that the file's name ends in."""
    from pyomo.opt import ProblemFormat

    file_format = ProblemFormat.cpxlp if target.endswith(".lp") else ProblemFormat.mps
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.write(str(path), format=file_format, io_options={"symbolic_solver_labels": True})
        write_text(path.read_text(encoding="utf-8"), target)


def write_picture(
    draw: Callable[[Sequence[Any]], Any], target: str, *, columns: int = 1, width: float = 7.0, height: float = 4.0
) -> None:
    """Draw on so many axes, side by side, and write the figure in the format that the file's name ends in."""
    from matplotlib.figure import Figure

    from inferno_milp.report.plots import figure_bytes

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    draw([figure.add_subplot(1, columns, i + 1) for i in range(columns)])
    write_bytes(figure_bytes(figure, Path(target).suffix[1:]), target)


def write_text(text: str, target: str) -> None:
    """Write text to a file, or to stdout for `-`.

    A regular file is written so that, whatever happens, the old or the new one is there, and whole. What is no regular
    file (a device, a pipe) is written to as it is.

    Raises
    ------
    OptionError
        If it cannot be written.
    """
    if target == STDOUT:
        with stdout_to_its_end() as stdout:
            stdout.write(text)
        return
    write_bytes(text.encode("utf-8"), target)


def write_bytes(data: bytes, target: str) -> None:
    """Write a file as `write_text` does."""
    path = Path(os.path.realpath(target))
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path, data)
    except OSError as error:
        raise OptionError(f"cannot write {target}: {error.strerror or error}") from None


def _replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".inferno-milp.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(path.stat().st_mode if path.exists() else 0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def stdout_to_its_end() -> Iterator[TextIO]:
    """Give stdout, flushed at the end; a reader that has gone (`| head -1`) is no fault of the result.

    Raises
    ------
    OptionError
        If stdout cannot be written to for another reason: a full disk, say.
    """
    if sys.stdout is None:
        raise OptionError("stdout is closed")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered has nowhere to go, and the interpreter must not try again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OptionError(f"cannot write to stdout: {error.strerror or error}") from None


def tell(text: str) -> None:
    """Write a line for the user to stderr, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show on stderr which stage is running; only where it is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    words = {
        "read": "reading the problem",
        "candidates": "analysing candidates",
        "build": "building the program",
        "solve": "solving",
        "check": "checking the plan",
    }
    with console.status("starting") as status:
        yield lambda stage: status.update(words.get(stage, stage))


@contextmanager
def busy(words: str, *, quiet: bool) -> Iterator[None]:
    """Show on stderr that something is being done; only where it is a terminal."""
    with progress(quiet=quiet) as tell_stage:
        tell_stage(words)
        yield


@contextmanager
def counted_progress(words: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how much is done of how much; only where it is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(words, total=None)  # the bar moves until it is known how much there is to do
        yield lambda done, total: bars.update(bar, completed=done, total=total)
