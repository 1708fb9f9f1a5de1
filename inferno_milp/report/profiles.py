"""Fits, catalogues and estimates, laid out for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.report.grid import fitted, make_grid

if TYPE_CHECKING:
    import pandas as pd

    from inferno_milp.problem.sections import Profile
    from inferno_milp.profiles.fitting import Fit
    from inferno_milp.profiles.fitting.tracking import Tracker
    from inferno_milp.profiles.roofline import Fit as MemoryFit

MOST_REASONS = 12
"""Runs that do not count are told one by one up to so many."""


def fit_report(fit: Fit, console: Console) -> list[Any]:
    """Lay out a fit: its terms, its errors, what does not count and what is not identified."""
    frame = fit.terms_frame()
    rows = [
        (str(name), str(row["state"]), *(_figure(row[figure]) for figure in ("value", "low", "high")))
        for name, row in frame.iterrows()
        if row["state"] != "not kept"
    ]
    dropped = [str(name) for name in frame.index[frame["state"] == "not kept"]]
    lines: list[Any] = [fitted(make_grid(("term", "told by"), ("value", "low", "high"), rows), console), ""]
    if dropped:
        lines.append(Text(f"not kept, since they predict nothing better: {', '.join(dropped)}"))
    return [*lines, *map(Text, _fit_lines(fit))]


def _fit_lines(fit: Fit) -> Iterator[str]:
    runs, memory = fit.runs, fit.memory
    ttft, itl = fit.errors
    errors = f"TTFT {_share(ttft)}, ITL {_share(itl)}"
    yield f"{int(runs.counts.sum())} of {len(runs.shapes)} runs count; errors on them: {errors}"
    if fit.held_out is not None:
        yield f"errors on shapes left out: TTFT {_share(fit.held_out.ttft)}, ITL {_share(fit.held_out.itl)}"
    else:
        yield "all runs have one shape: nothing could be left out, and other shapes are a guess"
    condition = fit.certainty.condition
    yield f"condition number {condition:.3g}" if math.isfinite(condition) else "condition number infinite"
    if fit.certainty.not_identified:
        names = ", ".join(fit.certainty.not_identified)
        yield f"hardly identified by these runs, taken from what is usual: {names}"
        yield f"two runs that would tell: {'; '.join(fit.advice)}"
    if memory.kv_tokens is not None:
        yield f"KV cache by the runs: {memory.kv_tokens} tokens, from {memory.runs} runs in which clients waited"
    elif memory.max_batch is not None:
        yield f"max batch size: {memory.max_batch}, from {memory.runs} runs in which clients waited"
    else:
        held = f"a KV cache of {fit.profile.kv_tokens} tokens, given or by the memory's size"
        yield f"no run reached a limit of the memory: {held if fit.profile.kv_tokens else 'the default'}"
    reasons = [f"{m.place} ({m.load_text}): {r}" for m, r in zip(runs.measurements, runs.reasons, strict=True) if r]
    reasons += [f"{m.place} ({m.load_text}): {note}" for m in runs.measurements for note in m.notes]
    yield from reasons[:MOST_REASONS]
    if len(reasons) > MOST_REASONS:
        yield f"and {len(reasons) - MOST_REASONS} more notes: --csv FILE has them all"


def tracking_report(tracker: Tracker, console: Console) -> list[Any]:
    """Lay out what a stream of observations did to a profile."""
    before, after = tracker.profile, tracker.updated
    rows = [
        (name, _figure(getattr(before, name)), _figure(getattr(after, name)), f"{spread:.1%}")
        for name, spread in tracker.spread.items()
        if hasattr(before, name)
    ]
    table = make_grid(("term",), ("before", "after", "± 1 σ"), rows)
    used = [step for step in tracker.steps if step.used]
    lines = [f"{len(used)} of {len(tracker.steps)} observations were used"]
    for words, some in (("first", used[:10]), ("last", used[-10:])):
        ttft = _mean([abs(step.ttft_error) for step in some])
        itl = _mean([abs(step.itl_error) for step in some])
        lines.append(
            f"errors of the {words} {len(some)} before each was taken in: TTFT {_share(ttft)}, ITL {_share(itl)}"
        )
    told = [f"{step.place}: {step.reason}" for step in tracker.steps if step.reason]
    lines += told[:MOST_REASONS]
    return [fitted(table, console), "", *map(Text, lines)]


def profiles_table(profiles: Sequence[Profile], console: Console) -> RenderableType:
    """Lay out profiles, one a line."""
    rows: list[tuple[Text | str, ...]] = [
        (
            Text(p.model),
            Text(p.accelerator),
            Text(" ".join(filter(None, (p.origin.kind, p.origin.precision))) if p.origin else "–"),
            *(_figure(getattr(p, name)) for name in ("alpha_ms", "beta_ms", "delta_ms", "kappa_ms")),
            "–" if p.kv_tokens is None else str(p.kv_tokens),
            "–" if p.origin is None or p.origin.runs is None else str(p.origin.runs),
            *("–" if p.origin is None else _share(error) for error in _errors(p)),
        )
        for p in profiles
    ]
    numbers = ("α ms", "β ms", "δ ms", "κ ms", "KV tokens", "runs", "TTFT err.", "ITL err.")
    droppable = ("κ ms", "δ ms", "β ms", "runs", "KV tokens", "α ms")
    return fitted(make_grid(("model", "accelerator", "kind"), numbers, rows, droppable), console)


def _errors(profile: Profile) -> tuple[float | None, float | None]:
    return (profile.origin.ttft_error, profile.origin.itl_error) if profile.origin else (None, None)


def comparison_of_profiles(rows: pd.DataFrame, console: Console) -> list[Any]:
    """Lay out a model's profiles side by side."""
    cells: list[tuple[Text | str, ...]] = [
        (
            Text(str(row["model"])),
            Text(str(row["accelerator"])),
            Text(f"{row['kind']} {row['precision'] or ''}".strip() + (", extrapolated" if row["extrapolated"] else "")),
            f"{row['max_rate_per_s']:.4g}" if row["max_rate_per_s"] > 0 else "none",
            f"{row['output_tokens_per_s']:.4g}",
            f"{row['cost_per_hour']:.4g}",
            f"{row['cost_per_million_output_tokens']:.3g}" if row["max_rate_per_s"] > 0 else "–",
            _share(row["ttft_error"]),
            _share(row["itl_error"]),
        )
        for _, row in rows.iterrows()
    ]
    numbers = ("rate/s", "tokens/s", "price/h", "per 10⁶ tokens", "TTFT err.", "ITL err.")
    return [fitted(make_grid(("model", "accelerator", "kind"), numbers, cells, ("tokens/s", "price/h")), console)]


def estimate_report(profile: Profile, fit: MemoryFit, console: Console) -> list[Any]:
    """Lay out an estimate, and the memory it leaves."""
    memory = f"weights {fit.weights_gb:.4g} GB of {fit.memory_gb:.4g} GB; the KV cache holds {fit.kv_tokens} tokens"
    return [profiles_table([profile], console), "", Text(memory)]


def facts_lines(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    """Lay out what is known of a model or an accelerator."""
    for part in facts.values():
        for name, value in part.items():
            words = ", ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(value, dict):
                words = ", ".join(f"{key} {number:g}" for key, number in value.items())
            yield Text(f"{name}: {words}")
        yield ""


def _figure(value: Any) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _share(value: Any) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.1%}"


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
