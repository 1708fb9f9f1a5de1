"""Files that can be read without waiting: regular ones."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

from inferno_milp.errors import Fault, InputError


class UnreadableError(InputError):
    """A file that could not be opened: missing, no file, or not permitted."""


def regular_content(path: Path, label: str, most_bytes: int) -> bytes:
    """Read so many bytes of a file, and one more; UnreadableError if it is no regular file."""
    check_regular(path, label)  # to open a device may do something already
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        check_regular(file.fileno(), label)  # it may be another one by now
        return file.read(most_bytes + 1)


def check_regular(path: Path | int, label: str) -> None:
    """Check that a file is a regular one, or raise UnreadableError: to read a device or a pipe may wait for ever."""
    found = os.stat(path)  # noqa: PTH116 - it may be a descriptor
    # Those of the kernel (/proc/kmsg) call themselves regular and empty, and may keep a reader waiting as well.
    of_kernel = not found.st_size and found.st_dev in _kernel_devices()
    if not stat.S_ISREG(found.st_mode) or of_kernel:
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise UnreadableError([Fault(f"cannot be read: it is {what}", file=label)])


@cache
def _kernel_devices() -> frozenset[int]:
    """Return the devices of the file systems that the kernel makes up."""
    folders = map(Path, ("/proc", "/sys", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security"))
    return frozenset(device for folder in folders if (device := _device(folder)) is not None)


def _device(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:
        return None
