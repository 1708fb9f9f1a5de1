"""Outcomes of many cases in a folder of Parquet files, written as they come: what is there need not be planned again.

A file is written whole or not at all. Each says in its metadata of which cases it is, so that a folder is never filled
with outcomes of different sweeps.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from inferno_milp._version import __version__
from inferno_milp.errors import OptionError

if TYPE_CHECKING:
    import pyarrow as pa

EVERY, EVERY_S = 200, 30.0
"""A file is written after so many outcomes, or after so long."""
OF = b"inferno_milp.studies.whatif"
SUFFIX, NEW = ".parquet", ".new"
STALE_S = 3600.0


def fingerprint(*what: object) -> str:
    """Return what tells one set of cases from another: it depends on every figure, and on this program's version."""
    return hashlib.sha256("\n".join([__version__, *(repr(_plain(one)) for one in what)]).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return numbers as floats, whoever made them, and what holds them as tuples: 1 and 1.0 are the same figure."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, *(_plain(getattr(value, part.name)) for part in fields(value)))
    if isinstance(value, BaseModel):  # its representation is shortened, and says little
        return (type(value).__name__, *(_plain(getattr(value, name)) for name in type(value).model_fields))
    if isinstance(value, dict):
        return tuple((_plain(key), _plain(part)) for key, part in value.items())
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


class Parts:
    """A folder of outcomes.

    Parameters
    ----------
    folder : made if it is not there.
    of : of which cases, by `fingerprint`.

    Raises
    ------
    OptionError
        If PyArrow is not installed, the folder cannot be used, or holds what is not of these cases.
    """

    def __init__(self, folder: Path, of: str):
        try:
            import pyarrow  # noqa: F401 - told before any work is done
        except ImportError:
            raise OptionError("a folder of Parquet files needs PyArrow: pip install 'inferno-milp[dask]'") from None
        self._folder, self._of = folder, of
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._found = sorted(folder.glob(f"part-*{SUFFIX}"))
            for stale in folder.glob(f".part-*{NEW}"):
                if time.time() - stale.stat().st_mtime > STALE_S:
                    stale.unlink(missing_ok=True)  # of a sweep that was killed as it wrote
        except OSError as error:
            raise OptionError(f"cannot write into {folder}: {error.strerror}") from None

    def read(self) -> list[dict[str, Any]]:
        """Return the rows that are there already."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = []
        for path in self._found:
            try:
                table = pq.read_table(path)
            except (OSError, pa.ArrowException) as error:
                raise OptionError(f"{path} cannot be read: {error}") from None
            if (table.schema.metadata or {}).get(OF) != self._of.encode():
                raise OptionError(f"{path} holds outcomes of other cases: give a folder that has none of others")
            rows += table.to_pylist()
        return rows

    def add(self, row: dict[str, Any]) -> None:
        """Take a row, and write those that have gathered if it is time."""
        self._rows.append(row)
        if len(self._rows) >= EVERY or time.monotonic() - self._since >= EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        import pyarrow.parquet as pq

        self._since = time.monotonic()
        if not self._rows:
            return
        first = min(row["case"] for row in self._rows)
        # Names of their own, so that two sweeps at once lose nothing; readers pass over what begins with a dot.
        path = self._folder / f"part-{first:07d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
        new = self._folder / f".{path.stem}{NEW}"
        try:
            pq.write_table(_table(self._rows, self._of), new)
            new.replace(path)
        except OSError as error:
            raise OptionError(f"cannot write {path}: {error.strerror or error}") from None
        self._found.append(path)
        self._rows = []


def _table(rows: Sequence[dict[str, Any]], of: str) -> pa.Table:
    import pyarrow as pa

    number, text = pa.float64(), pa.string()
    schema = pa.schema(
        [
            ("case", pa.int64()), ("status", text), ("total_cost_per_hour", number), ("objective", number),
            ("bound", number), ("gap", number), ("power_w", number), ("servers_served", pa.int64()),
            ("unserved", pa.list_(text)), ("replicas", pa.int64()), ("ttft_p95_ms", number),
            ("device_types", pa.list_(text)), ("device_counts", pa.list_(pa.int64())), ("error", text),
            ("plan", text), ("cluster", text), ("key", text),
        ],
        metadata={OF: of.encode()},
    )  # fmt: skip
    return pa.Table.from_pylist(list(rows), schema=schema)
