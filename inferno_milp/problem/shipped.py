"""Files that come with the program: the examples, and the catalogue of accelerators and profiles."""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePath

MODELS, INSTANCES = "models", "instances"
CATALOGUE = "catalogue"
"""Word for the whole catalogue where a document includes files."""
CLOUD, LANGUAGE_MODELS, MEASURED, ESTIMATED = "cloud", "language_models", "measured", "estimated"
"""Files of the catalogue; the others in the folder are llm-inferno's sample."""
_HERE = Path(__file__).parent.parent


def shipped(folder: str) -> list[Path]:
    """List the YAML files of one of the two folders, by name; they are in the package, or beside it in a clone."""
    inside = _HERE / folder
    return sorted((inside if inside.is_dir() else _HERE.parent / folder).glob("*.yaml"))


def catalogue_files() -> list[Path]:
    """List the files of the catalogue."""
    by_name = {path.stem: path for path in shipped(MODELS)}
    return [by_name[name] for name in (CLOUD, LANGUAGE_MODELS, MEASURED, ESTIMATED)]


@cache
def _by_name() -> dict[str, tuple[str, Path]]:
    return {file.name: (folder, file) for folder in (INSTANCES, MODELS) for file in shipped(folder)}


def shipped_file(name: str) -> Path | None:
    """Find a file that comes with the program: `small.yaml`, `instances/small.yaml`; None if it is none.

    What stands before `instances` and `models` does not matter: `../models/cloud.yaml`. Any other folder does.
    """
    path = PurePath(name.replace("\\", "/"))
    folder, file = _by_name().get(path.name, ("", None))
    return file if path.parent.name in ("", "..", folder) and not path.is_absolute() else None
