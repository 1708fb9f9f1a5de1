"""A parser of arguments that names what an unknown word may mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from inferno_milp.problem.shipped import shipped_file
from inferno_milp.problem.synonyms import nearest_option, nearest_subcommand


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names alone: `--rate 60` must not become `--rate-per-s 60`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.set_defaults(parser=self)  # of several, the subcommand's own is the last to say so

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse arguments; end with a word on each one that is not known."""
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            arguments.parser.refuse(unknown)
        return arguments

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """End with what is not known, and what it may mean."""
        known = [option for option in self._option_string_actions if option.startswith("--") and option != "--help"]
        words = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        remedies = {word: nearest_option(word, known) for word in words}
        hints = "".join(f"; {word}: {remedy}" for word, remedy in remedies.items() if remedy)
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hints}")


def with_subcommand(argv: Sequence[str], subcommands: Sequence[str], parser: Parser) -> list[str]:
    """Return the arguments with their subcommand: `inferno-milp PROBLEM …` means `inferno-milp optimize PROBLEM …`.

    Ends with a word on what was meant, where the first one is neither a subcommand nor a file.
    """
    if not argv or argv[0] in subcommands or argv[0] in ("-h", "--help", "--version"):
        return [*argv] or ["optimize"]
    first = argv[0]
    if first.startswith("-") or _is_there(first) or shipped_file(first) is not None:
        return ["optimize", *argv]
    meant = nearest_subcommand(first, subcommands)
    if meant.startswith("did you mean") or not _looks_like_a_file(first):
        parser.error(f"no subcommand and no file {first!r}; {meant}")
    return ["optimize", *argv]


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # no path at all
        return False


def _looks_like_a_file(name: str) -> bool:
    return "/" in name or "\\" in name or bool(Path(name).suffix)
