"""Files of benchmark tools → `Measurement`s in one form; what cannot be is refused or left out, never in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from inferno_milp.errors import Fault, InputError, PathPart
from inferno_milp.profiles.measurements import aiperf, guidellm, inference_perf, sanity, table, vllm_bench
from inferno_milp.profiles.measurements.facts import Facts
from inferno_milp.profiles.measurements.records import Measurement, Sent
from inferno_milp.profiles.measurements.text import Content, load_content

__all__ = ["Measurement", "Reading", "Sent", "read_measurements"]

Reader = Callable[[Facts], Iterator[Measurement]]
_JSON: tuple[tuple[Callable[[Any], bool], Reader], ...] = (
    (guidellm.is_report, guidellm.read_report),
    (guidellm.is_flat, guidellm.read_flat),
    (vllm_bench.is_run, vllm_bench.read_run),
    (aiperf.is_summary, aiperf.read_summary),
    (inference_perf.is_metrics, inference_perf.read_metrics),
)
_FORMS = "guidellm, vllm bench serve, aiperf, genai-perf, inference-perf, or CSV with named columns"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read.

    Attributes
    ----------
    measurements : runs that can be.
    left_out : runs, also whole files of them, that are in order but of no use, each with the reason.
    """

    measurements: tuple[Measurement, ...]
    left_out: tuple[Fault, ...]


def read_measurements(paths: Iterable[str | PathLike[str]], *, allow_mock: bool = False) -> Reading:
    """Read files that benchmark tools wrote, whichever tool, recognised by their content.

    Parameters
    ----------
    paths : files: guidellm (JSON, CSV, HTML), `vllm bench serve`, aiperf (JSON, CSV), genai-perf, inference-perf
        (stages), CSV with named columns; docs/profiles.md says what of each.
    allow_mock : whether measurements of mock servers are let through, which show a format and no speed.

    Returns
    -------
    Reading

    Raises
    ------
    InputError
        With every fault of every file: what cannot be read, is cut off, misaligned or mixed; or that no run of all is
        of use.

    Examples
    --------
    >>> import inferno_milp as im
    >>> len(im.read_measurements(["tests/data/vllm_llama31_8b_h100.csv"]).measurements)
    158
    """
    measurements: list[Measurement] = []
    left_out: list[Fault] = []
    faults: list[Fault] = []
    for path in paths:
        label = fspath(path)
        try:
            found, spared = _read_file(Path(path), label, allow_mock=allow_mock)
        except InputError as error:
            faults += error.faults
            continue
        measurements += found
        left_out += spared
        if not found and not spared:
            faults.append(Fault("holds no run", file=label))
    if faults or not measurements:
        raise InputError([*faults, *left_out] if not measurements else faults)
    return Reading(tuple(measurements), tuple(left_out))


def _read_file(path: Path, label: str, *, allow_mock: bool) -> tuple[list[Measurement], list[Fault]]:
    content = load_content(path, label)
    faults: list[Fault] = []
    found: list[Measurement] = []
    left_out: list[Fault] = []
    for reader, facts in _readers(content, label, faults, left_out):
        try:
            found += reader(facts)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            facts.fault(f"not in the form that the tool writes: {error}", "take the file as the tool wrote it")
    if any(not fault.path or not _is_of_row(fault) for fault in faults) or (faults and not found):
        raise InputError(faults)
    left_out += faults
    if not allow_mock:
        names = [m.labels.get("model", "") for m in found] + [path.name]
        if mock := next((name for name in names if "mock" in name.lower()), None):
            fault = Fault(f"a mock server's ({mock!r}): it shows the form of the file, and no speed", file=label)
            raise InputError([fault])
    if content.unfinished and found:
        if content.kind == "table":
            found = found[:-1]
            left_out.append(Fault("the last line does not end: was the file cut?", "it is left out", file=label))
        else:
            left_out.append(
                Fault("the page does not end: was the file cut?", "what was read of it is whole", file=label)
            )
    kept = []
    for measurement in found:
        measurement, reasons = sanity.judge(measurement)
        if reasons:
            place = measurement.place.removeprefix(f"{label}: ")
            left_out.append(Fault("; ".join(reasons), path=(place,) if place != label else (), file=label))
        else:
            kept.append(measurement)
    return kept, left_out


def _is_of_row(fault: Fault) -> bool:
    """Whether a fault concerns the figures of one of several runs, which can be left out."""
    first = fault.path[0]
    return (
        isinstance(first, int) or first == "benchmarks" or first.startswith("row ")
    ) and "headers" not in fault.problem


def _readers(
    content: Content, label: str, faults: list[Fault], left_out: list[Fault]
) -> Iterator[tuple[Reader, Facts]]:
    def facts_of(data: Any, *path: PathPart) -> Facts:
        return Facts(data, label, path, faults, left_out=left_out)

    if content.kind == "html":
        yield guidellm.read_page, facts_of(content.data)
    elif content.kind == "table":
        rows = content.data
        known = guidellm.read_csv if guidellm.is_csv(rows) else aiperf.read_csv if aiperf.is_csv(rows) else None
        yield known or table.read_table, facts_of(rows)
    else:
        documents = content.data
        if len(documents) == 1 and isinstance(documents[0], list) and not guidellm.is_flat(documents[0]):
            documents = documents[0]
        for i, document in enumerate(documents):
            facts = facts_of(document, *((f"run {i + 1}",) if len(documents) > 1 else ()))
            reader = next((reader for matches, reader in _JSON if matches(document)), None)
            if reader is None:
                facts.fault(*_refusal(document))
                return
            yield reader, facts


def _refusal(document: Any) -> tuple[str, str]:
    if aiperf.is_record(document):
        single = "records of single requests, which do not say how they were sent"
        return single, "give profile_export_aiperf.json beside it"
    if isinstance(document, dict) and isinstance(document.get("kind"), str):
        return f"a Kubernetes object ({document['kind']}), no benchmark", f"give one of {_FORMS}"
    if isinstance(document, dict) and "system" in {str(key).lower() for key in document}:
        return "llm-inferno's system data, no benchmark", "optimize takes it as a problem"
    keys = f" with {', '.join(map(repr, list(document)[:3]))} …" if isinstance(document, dict) and document else ""
    return f"no benchmark that is known: a document{keys}", f"give one of {_FORMS}"
