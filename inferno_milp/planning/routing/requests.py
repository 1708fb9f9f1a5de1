"""From a file of requests to a mix: a histogram over prompt and output lengths."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inferno_milp.errors import Fault, InputError, OptionError
from inferno_milp.problem.reading.regular import check_regular

FloatArray = npt.NDArray[np.float64]
INPUT_EDGES = (25, 100, 250, 500, 1000, 2000, 4000, 8000, 12_000, 16_000)
OUTPUT_EDGES = (25, 100, 250, 500, 1000, 2000)
"""Upper edges of the buckets, tokens, the last one open. Source: Mélange (arXiv:2404.14527)."""
INPUTS = ("input_tokens", "ContextTokens", "Request tokens", "prompt_tokens", "input_length", "num_prefill_tokens")
OUTPUTS = (
    "output_tokens", "GeneratedTokens", "Response tokens", "completion_tokens", "output_length", "num_decode_tokens",
)  # fmt: skip
MOMENTS = ("arrived_at_s", "TIMESTAMP", "Timestamp", "timestamp", "arrived_at")
"""Columns as traces call them: our own, Azure's, BurstGPT's, and others'. Numbers are seconds, texts are dates."""


def mix_of_requests(
    path: str | PathLike[str],
    *,
    input_edges: Sequence[float] = INPUT_EDGES,
    output_edges: Sequence[float] = OUTPUT_EDGES,
) -> dict[str, Any]:
    """Read requests, and return a load: their mean rate where they have times, and their mix.

    Parameters
    ----------
    path : CSV with a row for each request: prompt and output tokens, and, if there are, when it came.
    input_edges, output_edges : upper edges of the buckets, tokens, rising; the last one is open.

    Returns
    -------
    `rate_per_s`, if it is known, and `mix`, as a server's `load` takes them.

    Raises
    ------
    InputError
        If there is no such file, a column is missing, or a number is none.
    OptionError
        If edges do not rise.
    """
    for edges in (input_edges, output_edges):
        if not len(edges) or edges[0] <= 0 or any(b <= a for a, b in itertools.pairwise(edges)):
            raise OptionError(f"edges must be above 0 and rise: {', '.join(f'{edge:g}' for edge in edges)}")
    frame = _read(fspath(path))
    inputs, outputs = (_column(frame, names, fspath(path)) for names in (INPUTS, OUTPUTS))
    faults = []
    for name, values in (("prompt", inputs), ("output", outputs)):
        wrong = np.flatnonzero(~np.isfinite(values) | (values < 0))
        if wrong.size:
            words = f"{wrong.size} requests, the first in row {wrong[0] + 1}: {name} tokens must be numbers from 0 on"
            faults.append(Fault(words, "", (), fspath(path)))
    if faults:
        raise InputError(faults)
    kept = outputs >= 1  # who was answered with nothing says nothing of how long answers are
    if not kept.any():
        raise InputError([Fault("no request has any output", "", (), fspath(path))])
    rate = _rate_per_s(frame)
    mix = list(_buckets(inputs[kept], outputs[kept], np.array(input_edges), np.array(output_edges)))
    return {**({} if rate is None else {"rate_per_s": rate}), "mix": mix}


def _read(path: str) -> Any:
    import pandas as pd

    try:
        check_regular(Path(path), path)
        frame = pd.read_csv(path)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise InputError(
            [Fault(f"cannot be read: {words}", "a CSV file with a row for each request", (), path)]
        ) from None
    if frame.empty:
        raise InputError([Fault("has no requests", "", (), path)])
    return frame


def _column(frame: Any, names: Sequence[str], path: str) -> FloatArray:
    import pandas as pd

    found = next((name for name in names if name in frame.columns), None)
    if found is None:
        raise InputError(
            [Fault(f"no column of {', '.join(names)}", f"there are {', '.join(map(str, frame.columns))}", (), path)]
        )
    values: FloatArray = pd.to_numeric(frame[found], errors="coerce").to_numpy(dtype=float)
    return values


def _rate_per_s(frame: Any) -> float | None:
    """Return the mean rate between the first and the last request; None where times are not known."""
    import pandas as pd

    found = next((name for name in MOMENTS if name in frame.columns), None)
    if found is None:
        return None
    moments = pd.to_numeric(frame[found], errors="coerce")
    if moments.isna().any():
        dates = pd.to_datetime(frame[found], errors="coerce", utc=True, format="ISO8601")
        if dates.isna().any():
            return None
        moments = (dates - dates.min()).dt.total_seconds()
    length = float(moments.max() - moments.min())
    return float(f"{(len(moments) - 1) / length:.6g}") if length > 0 else None


def _buckets(inputs: FloatArray, outputs: FloatArray, input_edges: FloatArray, output_edges: FloatArray) -> Any:
    rows = np.minimum(np.searchsorted(input_edges, inputs, side="left"), len(input_edges) - 1)
    columns = np.minimum(np.searchsorted(output_edges, outputs, side="left"), len(output_edges) - 1)
    for row, column in sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))):
        mine = (rows == row) & (columns == column)
        bucket = {
            "input_tokens": _rounded(inputs[mine].mean()),
            "output_tokens": _rounded(outputs[mine].mean()),
            "share": float(f"{mine.mean():.8g}"),
        }
        for name, lengths in (("cv2_input", inputs[mine]), ("cv2_output", outputs[mine])):
            if lengths.mean() > 0 and lengths.std() > 0:
                bucket[name] = float(f"{(lengths.std() / lengths.mean()) ** 2:.4g}")
        yield bucket


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
