"""Runs as a fit needs them: arrays of what was set and measured, and which of the figures count, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fclusterdata

from inferno_milp.errors import OptionError
from inferno_milp.profiles.fitting.terms import FloatArray
from inferno_milp.profiles.measurements import Measurement

BoolArray = npt.NDArray[np.bool_]

IDENTITY = (
    "model", "accelerator", "devices", "backend", "backend_version", "precision", "pp_size", "moe_tp_size",
    "moe_ep_size", "attention_dp_size", "tensor_parallel_size", "quantization",
)  # fmt: skip
"""Labels of which all runs of a fit must have the same: other engines have other terms."""
SERVED = 0.95
"""Runs that served less than this share of what was sent before their last request may be saturated …"""
FEW = 20
"""… if that is more than so many requests, and …"""
WAITED = 0.3
"""… first tokens waited for this share of the time that the run took longer than sending and one request …"""
CALM = 3.0
"""… and longer than so many times the usual, or …"""
CHANCE = 2.0
"""… the run took longer than requests of the most irregular lengths do, and so many standard deviations of arrivals."""
NEAR_CAPACITY = 0.97
"""And runs sent at more than this share of what the engine served when requests came all at once."""
IN_BATCH = 0.85
"""Fewer than this share of the clients in the batch: the others waited for a place."""
WAITS = 12.0
"""And the first token took this many times as long as in the quickest run of the shape."""
LONGEST_REQUEST = 0.25
"""A request that takes more than this share of the run: the run is mostly its own beginning and end."""
EARLY_END = 0.5
"""Runs shorter than this share of the median of a sweep of one length ended before their time."""
CROWD = "sent all at once: the first tokens wait for the crowd; counts for the memory"
SAME_SHAPE = 0.2
"""Shapes whose tokens differ by less than this, as logarithms to the base 2, are one."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one engine; arrays have one element per run.

    Attributes
    ----------
    measurements : the runs.
    closed, batch : whether sent by a number of clients, or as one batch; the others were sent at a rate.
    rate_per_s, clients : the rate, or the number of clients; NaN where it is the other.
    ttft_ms, itl_ms : measured means.
    counts_ttft, counts_itl : whether they count.
    reasons : why a run does not count, or counts in part; empty where it does.
    shapes : number of the shape that a run has, from 0.
    cv2_input, cv2_output, cv2_arrival : variabilities, those not told taken from `assumed`.
    """

    measurements: tuple[Measurement, ...]
    closed: BoolArray
    batch: BoolArray
    rate_per_s: FloatArray
    clients: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    cv2_input: FloatArray
    cv2_output: FloatArray
    cv2_arrival: FloatArray
    ttft_ms: FloatArray
    itl_ms: FloatArray
    counts_ttft: BoolArray
    counts_itl: BoolArray
    reasons: tuple[str, ...]
    shapes: npt.NDArray[np.int64]

    def take(self, which: BoolArray) -> Runs:
        """Return some of the runs."""
        kept = [m for m, chosen in zip(self.measurements, which, strict=True) if chosen]
        reasons = [r for r, chosen in zip(self.reasons, which, strict=True) if chosen]
        arrays = {name: value[which] for name in self.__slots__ if isinstance(value := getattr(self, name), np.ndarray)}
        return replace(self, measurements=tuple(kept), reasons=tuple(reasons), **arrays)

    @property
    def crowd(self) -> BoolArray:
        """Whether all requests were sent at once."""
        return np.array([m.crowd for m in self.measurements], dtype=bool)

    @property
    def served_per_s(self) -> FloatArray:
        """Completed requests/s; NaN where that was not measured."""
        return _column([m.throughput_per_s for m in self.measurements])

    @property
    def counts(self) -> BoolArray:
        """Whether a run counts at all."""
        return self.counts_ttft | self.counts_itl


def make_runs(
    measurements: Sequence[Measurement], cv2_input: float = 0.0, cv2_output: float = 0.0, cv2_arrival: float = 1.0
) -> Runs:
    """Lay runs out, and judge which count.

    Parameters
    ----------
    cv2_input, cv2_output, cv2_arrival : taken where a file does not say.
    """
    ms = list(measurements)
    outputs = _column([m.output_tokens for m in ms])
    runs = Runs(
        measurements=tuple(ms),
        closed=np.array([m.sent == "concurrency" for m in ms], dtype=bool),
        batch=np.array([m.sent == "batch" for m in ms], dtype=bool),
        rate_per_s=_column([m.rate_per_s if m.sent == "rate" else None for m in ms]),
        clients=_column([m.concurrency for m in ms]),
        input_tokens=_column([m.input_tokens for m in ms]),
        output_tokens=outputs,
        cv2_input=_column([m.cv2_input for m in ms], cv2_input),
        cv2_output=_column([m.cv2_output for m in ms], cv2_output),
        cv2_arrival=_column([m.cv2_arrival for m in ms], cv2_arrival),
        ttft_ms=_column([m.ttft_ms.get("mean") for m in ms]),
        itl_ms=_column([m.itl_ms.get("mean") for m in ms]),
        counts_ttft=np.ones(len(ms), dtype=bool),
        counts_itl=outputs > 1,
        reasons=("",) * len(ms),
        shapes=find_shapes(ms),
    )
    reasons = _judge(runs)
    out = np.array([bool(reason) for reason in reasons], dtype=bool)
    crowd = runs.crowd
    # Where nothing else tells how iterations grow with the batch, the times between tokens of the crowd do.
    shared = ~out & ~crowd & ~(runs.closed & (runs.clients <= 1))
    out |= crowd & bool(shared.any())
    reasons = tuple(r or (CROWD if m.crowd else "") for r, m in zip(reasons, ms, strict=True))
    return replace(runs, reasons=reasons, counts_ttft=~(out | crowd), counts_itl=runs.counts_itl & ~out)


def _column(values: Sequence[float | None], missing: float = np.nan) -> FloatArray:
    return np.array([missing if value is None else value for value in values], dtype=float)


def check_alike(measurements: Sequence[Measurement]) -> None:
    """Raise OptionError where runs say that they are of different engines."""
    mixed = []
    for label in IDENTITY:
        values = sorted({m.labels[label] for m in measurements if label in m.labels})
        if len(values) > 1:
            shown = ", ".join(values[:6]) + (" …" if len(values) > 6 else "")
            mixed.append(f"{len(values)} values of {label} ({shown})")
    if mixed:
        one = next(label for label in IDENTITY if label in mixed[0])
        raise OptionError(f"the runs are of different engines: {'; '.join(mixed)}: choose, as with --where {one}=…")


def find_shapes(measurements: Sequence[Measurement]) -> npt.NDArray[np.int64]:
    """Give each shape a number: tokens that are alike up to chance are one, by what was asked for where it is told."""
    if len(measurements) < 2:
        return np.zeros(len(measurements), dtype=np.int64)
    tokens = np.array([m.nominal or (m.input_tokens, m.output_tokens) for m in measurements], dtype=float)
    found = fclusterdata(np.log2(np.maximum(tokens, 1.0)), SAME_SHAPE, criterion="distance", method="single")
    _, numbers = np.unique(found, return_inverse=True)
    return numbers.astype(np.int64)


def in_batch(runs: Runs) -> FloatArray:
    """Return the mean number of requests that decode, by Little's law, or of a number of clients by the times taken."""
    served = runs.served_per_s
    decoding_ms = np.maximum(runs.output_tokens - 1, 0) * runs.itl_ms
    of_clients = runs.clients * decoding_ms / np.maximum(decoding_ms + runs.ttft_ms, 1e-9)
    return np.asarray(np.where(np.isfinite(served), served * decoding_ms / 1e3, of_clients))


def waiting(runs: Runs) -> BoolArray:
    """Whether clients waited for a place: few of them decode, and the first token takes far longer than it need."""
    alike = (runs.shapes[:, None] == runs.shapes) & ~runs.batch
    least_ms = np.min(np.where(alike & np.isfinite(runs.ttft_ms), runs.ttft_ms, np.inf), axis=1, initial=np.inf)
    few = in_batch(runs) < IN_BATCH * runs.clients - 1
    return np.asarray(runs.closed & few & (runs.ttft_ms > WAITS * least_ms))


def _judge(runs: Runs) -> tuple[str, ...]:
    """Return for each run why it does not count; empty where it does."""
    served = runs.served_per_s
    length_s = _column([m.duration_s for m in runs.measurements])
    done = _column([m.requests for m in runs.measurements])
    first_ms = np.array([m.ttft_ms.get("p50", t) for m, t in zip(runs.measurements, runs.ttft_ms, strict=True)])
    request_s = (first_ms + np.maximum(runs.output_tokens - 1, 0) * runs.itl_ms) / 1e3
    slowest_s = np.array([_slowest_first_token_ms(m) for m in runs.measurements]) / 1e3
    full, decoding = waiting(runs), in_batch(runs)
    reasons = []
    for i, shape in enumerate(runs.shapes):
        alike = (runs.shapes == shape) & ~runs.batch
        is_open = not (runs.closed[i] or runs.batch[i])
        at_once = served[alike & runs.crowd]
        capacity = float(np.max(at_once[np.isfinite(at_once)], initial=0.0))
        usual_s = np.min(runs.ttft_ms[alike & np.isfinite(runs.ttft_ms)], initial=np.inf) / 1e3
        if not runs.measurements[i].is_streamed:
            reason = "measured without streaming, so without times of tokens: run it with streaming"
        elif is_open and (words := _ended_early(length_s, done, i, np.flatnonzero(alike & ~runs.closed))):
            reason = f"ended early: {words}"
        elif request_s[i] > LONGEST_REQUEST * length_s[i]:
            part = request_s[i] / length_s[i]
            reason = f"a request takes {part:.0%} of the run, which is mostly its beginning and end"
        elif is_open and _fell_behind(runs, i, length_s[i], done[i], request_s[i], slowest_s[i], usual_s):
            sending_s = done[i] / runs.rate_per_s[i]
            reason = f"saturated: {done[i]:.0f} requests, sent within {sending_s:.0f} s, took {length_s[i]:.0f} s"
        elif is_open and 0 < NEAR_CAPACITY * capacity < runs.rate_per_s[i]:
            reason = f"saturated: sent at what the engine can serve, {capacity:.4g}/s"
        elif full[i]:
            reason = f"saturated: {decoding[i]:.0f} of {runs.clients[i]:.0f} requests decode, the others wait"
        else:
            reason = ""
        reasons.append(reason)
    return tuple(reasons)


def _slowest_first_token_ms(measurement: Measurement) -> float:
    """Return the time to first token that few requests exceed; of a wait that grows steadily, twice the mean."""
    told = [measurement.ttft_ms[p] for p in ("p99", "p95", "p90") if p in measurement.ttft_ms]
    return told[0] if told else 2 * measurement.ttft_ms.get("mean", np.nan)


def _ended_early(length_s: FloatArray, done: FloatArray, i: int, sweep: npt.NDArray[np.intp]) -> str:
    """Return how much shorter a run was than the others of its sweep; not where the number of requests was fixed."""
    known_s = length_s[sweep][np.isfinite(length_s[sweep])]
    if not known_s.size or _irregularity(done[sweep]) < _irregularity(known_s):
        return ""
    usual_s = float(np.median(known_s))
    too_short = length_s[i] < EARLY_END * usual_s
    return f"{length_s[i]:.0f} s, where runs of this shape took {usual_s:.0f} s" if too_short else ""


def _irregularity(values: FloatArray) -> float:
    """Return the median deviation from the median, of logarithms: that of most, whatever some of them are."""
    known = np.log(values[values > 0])
    return float(np.median(np.abs(known - np.median(known)))) if known.size else np.inf


def _fell_behind(
    runs: Runs, i: int, length_s: float, done: float, request_s: float, slowest_s: float, usual_s: float
) -> bool:
    """Whether a run at a rate served less than was sent.

    A run of a fixed number of requests lasts until the last of them ends, where lengths differ long after the last was
    sent: that alone is no sign. First tokens that waited are one, as is an end later than lengths can explain.
    """
    rate = runs.rate_per_s[i]
    expected = rate * max(length_s - request_s, 0.0)
    if not (expected > FEW and done < SERVED * expected):
        return False
    longer_s = length_s - done / rate - request_s
    if slowest_s > max(WAITED * longer_s, CALM * usual_s):
        return True
    chance = CHANCE * np.sqrt(max(runs.cv2_arrival[i], 0.0) * expected)
    return bool(longer_s > request_s * np.log1p(rate * request_s) + chance / rate)
