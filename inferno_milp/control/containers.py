"""The container of an engine, where its deployment moves to another accelerator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inferno_milp.control.config import ActuationSettings
from inferno_milp.control.fleet import ClusterError


def moved_container(
    container: Any, settings: ActuationSettings, resources: Iterable[str], batch_size: int, devices: int
) -> dict[str, Any]:
    """Return what an engine's container is to be where it moves: its arguments, and the devices that it asks for.

    Parameters
    ----------
    resources : those that count devices.
    devices : of a replica there.

    Raises
    ------
    ClusterError
        If its arguments are in a script of a shell.
    """
    command, arguments = list(container.command or ()), list(container.args or ())
    settled: list[tuple[tuple[str, ...], int]] = [((settings.batch_size_argument,), batch_size)]
    names = settings.tensor_parallel_arguments
    if devices > 1 or any(_at(part, names) is not None for part in (command, arguments)):
        settled.append((names, devices))
    if any(argument in ("-c", "-ec", "-lc") for argument in command[:2]):
        raise ClusterError("refused", "its engine's arguments are in a script of a shell")
    for aliases, value in settled:
        if _at(command, aliases) is not None:
            command = _with_argument(command, aliases, str(value))
        else:
            arguments = _with_argument(arguments, aliases, str(value))
    found: dict[str, Any] = {"name": container.name, "args": arguments}
    if command != list(container.command or ()):
        found["command"] = command
    given = container.resources
    limits, requests = ((part or {}) for part in ((given.limits, given.requests) if given else ({}, {})))
    resource = next((name for name in resources if name in limits or name in requests), None)
    if resource is not None:
        amount = {resource: str(devices)}
        found["resources"] = {"limits": amount, **({"requests": amount} if resource in requests else {})}
    return found


def _at(arguments: list[str], names: Iterable[str]) -> tuple[int, str] | None:
    """Return where an argument is, as `--name value` or `--name=value`, and its name there."""
    for i, argument in enumerate(arguments):
        name = argument.partition("=")[0]
        if name in names and ("=" in argument or i + 1 < len(arguments)):
            return i, name
    return None


def _with_argument(arguments: list[str], names: tuple[str, ...], value: str) -> list[str]:
    """Set an argument by the first of its names that is there, or add it by its first name."""
    found, at = list(arguments), _at(arguments, names)
    if at is None:
        return [*found, f"{names[0]}={value}"]
    i, name = at
    if "=" in found[i]:
        found[i] = f"{name}={value}"
    else:
        found[i + 1] = value
    return found
