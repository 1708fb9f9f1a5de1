"""Files that come with the program: the examples, and the catalogue of accelerators and profiles."""

from __future__ import annotations

from pathlib import Path

MODELS, INSTANCES = "models", "instances"
_HERE = Path(__file__).parent


def shipped(folder: str) -> list[Path]:
    """List the YAML files of one of the two folders, by name; they are in the package, or beside it in a clone."""
    inside = _HERE / folder
    return sorted((inside if inside.is_dir() else _HERE.parent / folder).glob("*.yaml"))
