"""The command line: `python -m inferno_milp PROBLEM`, and its subcommands.

Exit codes: 0 a plan that serves everybody; 1 a plan that does not, or none; 2 bad input or usage; 3 internal error.
stdout holds the result alone; progress, warnings and errors go to stderr.
"""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from inferno_milp.cli.arguments import SUBCOMMANDS, make_parser
from inferno_milp.cli.output import tell
from inferno_milp.cli.parser import with_subcommand
from inferno_milp.errors import InputError, OptionError

SERVES_ALL, UNSERVED, BAD_INPUT, INTERNAL_ERROR, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Parameters
    ----------
    argv : arguments after the program's name; by default the process's own.
    """
    parser = make_parser()
    arguments = parser.parse_all(with_subcommand(sys.argv[1:] if argv is None else argv, SUBCOMMANDS, parser))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no "–" gets "?", not a failure
    with _logging_to_stderr(arguments):
        return _run(arguments)


@contextmanager
def _logging_to_stderr(arguments: Namespace) -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handler.setLevel(logging.ERROR if arguments.quiet else logging.INFO if arguments.verbose else logging.WARNING)
    logger = logging.getLogger("inferno_milp")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(handler.level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _run(arguments: Namespace) -> int:
    try:
        return int(arguments.run(arguments))
    except InputError as error:
        count = len(error.faults)
        tell(f"{error}\n{count} error{'s' * (count != 1)} in the input; nothing was written")
        return BAD_INPUT
    except OptionError as error:
        tell(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        tell("interrupted")
        return INTERRUPTED
    except Exception as error:
        logging.getLogger(__name__).critical(
            "internal error: %s: %s", type(error).__name__, error, exc_info=arguments.verbose
        )
        return INTERNAL_ERROR
