"""What `fit` and `models` do."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferno_milp.cli.commands import show
from inferno_milp.cli.output import check_outputs, progress, tell, write_text
from inferno_milp.errors import OptionError
from inferno_milp.problem.spelling import nearest
from inferno_milp.problem.spreadsheet import records

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import Console

    from inferno_milp.problem.sections import Profile
    from inferno_milp.profiles.catalogue import Catalogue
    from inferno_milp.profiles.fitting import Fit
    from inferno_milp.profiles.fitting.tracking import Tracker
    from inferno_milp.profiles.measurements import Measurement


def run_fit(arguments: Namespace) -> int:
    """Fit a profile, or refine one; show how good it is; write it."""
    from inferno_milp.profiles.measurements import read_measurements

    check_outputs(arguments)
    if arguments.forgetting is not None and arguments.update is None:
        raise OptionError("--forgetting goes with --update")
    reading = read_measurements(arguments.files, allow_mock=arguments.allow_mock)
    if not arguments.quiet:
        for fault in reading.left_out:
            tell(f"warning: {fault}")
    runs = _chosen(reading.measurements, arguments.where)
    if not arguments.quiet:
        for words in _doubts(runs, arguments):
            tell(f"warning: {words}")
    if arguments.update is not None:
        return _update(arguments, runs)
    fit = _fit(arguments, runs)

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report.profiles import fit_report

        return fit_report(fit, console)

    def draw(axes: Sequence[Axes]) -> None:
        from inferno_milp.report.plots import plot_fit

        plot_fit(fit, axes)

    if arguments.output:
        _add_to(arguments.output, fit.profile)
    show(arguments, parts, fit.to_dict, fit.runs_frame, draw, panels=2)
    return 0


def _fit(arguments: Namespace, runs: Sequence[Measurement]) -> Fit:
    from inferno_milp.profiles.catalogue import read_catalogue
    from inferno_milp.profiles.fitting import fit_profile
    from inferno_milp.profiles.fitting.beforehand import roofline_priors
    from inferno_milp.profiles.roofline import memory_fit

    catalogue, priors, kv_tokens = read_catalogue(arguments.catalogue), {}, arguments.kv_tokens
    try:
        one = catalogue.accelerator(arguments.accelerator)
        accelerator = catalogue.accelerator(one.type, one.devices * arguments.accelerators_per_replica)
        model = catalogue.language_model(arguments.model)
    except OptionError:
        pass  # of a pair that the catalogue does not know, nothing is known beforehand
    else:
        precision = arguments.precision or model.precision
        priors = roofline_priors(model, accelerator, precision)
        room = memory_fit(model, accelerator, precision).kv_tokens if accelerator.memory_gb else 0
    with progress(quiet=arguments.quiet) as on_stage:
        on_stage("fitting the law to the runs")
        fit = fit_profile(
            runs,
            model=arguments.model,
            accelerator=arguments.accelerator,
            accelerators_per_replica=arguments.accelerators_per_replica,
            source=arguments.source,
            precision=arguments.precision,
            max_batch_size=arguments.max_batch_size,
            kv_tokens=kv_tokens,
            token_budget=arguments.token_budget,
            priors=priors,
            cv2_input=arguments.cv2_input,
            cv2_output=arguments.cv2_output,
        )
    if fit.profile.kv_tokens is None and priors and room > 0:
        fit = fit.with_kv_tokens(room)
    return fit


def _chosen(runs: Sequence[Measurement], conditions: Sequence[str]) -> list[Measurement]:
    chosen = list(runs)
    for condition in conditions:
        label, equals, value = condition.partition("=")
        if not equals:
            raise OptionError(f"--where takes LABEL=VALUE, not {condition!r}")
        labels = {name for m in runs for name in m.labels}
        if label not in labels:
            raise OptionError(f"no run has a label {label!r}; {nearest(label, labels)}")
        values = {m.labels[label] for m in chosen if label in m.labels}
        chosen = [m for m in chosen if m.labels.get(label) == value]
        if not chosen:
            raise OptionError(f"no run has {label} {value!r}; {nearest(value, values)}")
    return chosen


NOT_WITH_UPDATE: dict[str, Any] = {
    "source": None, "kv_tokens": None, "max_batch_size": None, "token_budget": 8192, "precision": None,
    "accelerators_per_replica": 1, "catalogue": [],
}  # fmt: skip
"""Options that a refined profile has from before, with their defaults."""


def _doubts(runs: Sequence[Measurement], arguments: Namespace) -> Iterator[str]:
    """Yield where the runs are of another pair than the profile is to be for, by their labels, or given twice."""
    for label in ("model", "accelerator"):
        named = {m.labels[label] for m in runs if label in m.labels}
        wanted = _letters(getattr(arguments, label))
        for name in sorted(named):
            said = _letters(name)
            if not (said in wanted or wanted in said or said[:4] == wanted[:4]):
                yield f"the runs say {label} {name!r}, the profile is for {getattr(arguments, label)!r}"
        silent = sum(label not in m.labels for m in runs)
        if named and silent:
            yield f"{silent} of {len(runs)} runs do not say their {label}"
    tools = sorted({m.tool for m in runs})
    if len(tools) > 1:
        yield f"runs of {' and '.join(tools)} together: are they of one engine?"
    figures = [(m.load_text, m.input_tokens, m.output_tokens, *m.ttft_ms.items(), *m.itl_ms.items()) for m in runs]
    if (again := len(figures) - len(set(figures))) > 0:
        yield f"{again} runs are given twice: each counts as often as it is given"


def _letters(name: str) -> str:
    """Take what tells one name from another: `meta-llama/Llama-3.1-8B` and `llama3.1-8b` are alike."""
    last = re.sub(r"^([0-9]+x|nvidia[-_ ])", "", name.casefold().rpartition("/")[2])
    return re.sub(r"[^a-z0-9]", "", last.removesuffix("-instruct"))


def _update(arguments: Namespace, runs: Sequence[Measurement]) -> int:
    from inferno_milp.problem.reading import read_sections
    from inferno_milp.profiles.fitting.tracking import FORGETTING, track_profile

    useless = [name for name, default in NOT_WITH_UPDATE.items() if getattr(arguments, name) != default]
    if useless:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise OptionError(f"{options}: the profile that is refined has that already")
    profiles = read_sections(arguments.update).profiles
    found = [p for p in profiles if (p.model, p.accelerator) == (arguments.model, arguments.accelerator)]
    if not found:
        known = [f"{p.model} on {p.accelerator}" for p in profiles]
        wanted = f"{arguments.model} on {arguments.accelerator}"
        raise OptionError(f"{arguments.update} has no profile of {wanted}; {nearest(wanted, known)}")
    tracker = track_profile(
        found[0],
        runs,
        FORGETTING if arguments.forgetting is None else arguments.forgetting,
        cv2_input=arguments.cv2_input,
        cv2_output=arguments.cv2_output,
    )

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report.profiles import tracking_report

        return tracking_report(tracker, console)

    def draw(axes: Sequence[Axes]) -> None:
        from inferno_milp.report.plots import plot_tracking

        plot_tracking(tracker, axes)

    if arguments.output:
        _add_to(arguments.output, tracker.updated)
    show(arguments, parts, tracker.to_dict, lambda: _steps_frame(tracker), draw, panels=2)
    return 0


def _steps_frame(tracker: Tracker) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([asdict(step) for step in tracker.steps])


def _add_to(target: str, profile: Profile) -> None:
    from inferno_milp.problem.writing import with_profile

    path = Path(target)
    write_text(with_profile(path if path.exists() else None, profile), target)


def _keep_measured(target: str, profile: Profile) -> None:
    """Refuse to put an estimate in the place of a measured profile."""
    from inferno_milp.problem.reading import read_sections

    there = read_sections(target).profiles if Path(target).exists() else ()
    pair = (profile.model, profile.accelerator)
    if any((p.model, p.accelerator) == pair and (p.origin is None or p.origin.kind == "measured") for p in there):
        raise OptionError(f"{target} has a profile of {pair[0]} on {pair[1]} that was not estimated: it is kept")


def run_list(arguments: Namespace) -> int:
    """List profiles."""
    check_outputs(arguments)
    catalogue = _catalogue(arguments)
    profiles = [
        p
        for p in catalogue.profiles
        if (arguments.model or "").casefold() in p.model.casefold()
        and (arguments.accelerator or "").casefold() in p.accelerator.casefold()
        and (arguments.kind is None or (p.origin is not None and p.origin.kind == arguments.kind))
    ]
    if not profiles:
        raise OptionError("no profile is like that; `models list` shows all, `models estimate` makes one")
    _show_profiles(arguments, profiles)
    return 0


def run_show(arguments: Namespace) -> int:
    """Show all of a model or an accelerator."""
    check_outputs(arguments)
    catalogue = _catalogue(arguments)
    found: dict[str, Any] = {}
    profiles: list[Profile] = []
    try:
        accelerator = catalogue.accelerator(arguments.name)
        found["accelerator"] = accelerator.model_dump(mode="json", exclude_none=True)
        profiles = [p for p in catalogue.profiles if p.accelerator == accelerator.name]
    except OptionError:
        try:
            model = catalogue.language_model(arguments.name)
        except OptionError as error:
            names = [*catalogue.accelerators, *catalogue.language_models]
            raise OptionError(
                f"{arguments.name!r} is no accelerator and no model; {nearest(arguments.name, names)}"
            ) from error
        found["language_model"] = model.model_dump(mode="json", exclude_none=True)
        profiles = [p for p in catalogue.profiles if p.model in (model.name, *model.aliases)]
    _show_profiles(arguments, profiles, found)
    return 0


def _show_profiles(arguments: Namespace, profiles: Sequence[Profile], head: dict[str, Any] | None = None) -> None:
    import pandas as pd

    documents = [p.model_dump(mode="json", exclude_unset=True) for p in profiles]

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report.profiles import facts_lines, profiles_table

        return [*facts_lines(head or {}), profiles_table(profiles, console)]

    show(
        arguments,
        parts,
        lambda: {**(head or {}), "profiles": documents},
        lambda: pd.json_normalize(documents),
    )


def run_compare_models(arguments: Namespace) -> int:
    """Set a model's profiles side by side."""
    from inferno_milp.studies.compare_profiles import compare_profiles

    check_outputs(arguments)
    catalogue = _catalogue(arguments)
    rows = compare_profiles(
        catalogue,
        arguments.model,
        input_tokens=arguments.input_tokens,
        output_tokens=arguments.output_tokens,
        ttft_ms=arguments.ttft_ms,
        itl_ms=arguments.itl_ms,
    )

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report.profiles import comparison_of_profiles

        return comparison_of_profiles(rows, console)

    show(arguments, parts, lambda: records(rows), lambda: rows)
    return 0


def run_estimate(arguments: Namespace) -> int:
    """Estimate a profile."""
    import pandas as pd

    from inferno_milp.profiles.roofline import estimate_profile, memory_fit

    check_outputs(arguments)
    catalogue = _catalogue(arguments)
    model = catalogue.language_model(arguments.model)
    accelerator = catalogue.accelerator(arguments.accelerator, arguments.devices)
    profile = estimate_profile(model, accelerator, arguments.precision)
    fit = memory_fit(model, accelerator, arguments.precision)
    document = profile.model_dump(mode="json", exclude_none=True)
    if arguments.output:
        _keep_measured(arguments.output, profile)
        _add_to(arguments.output, profile)

    def parts(console: Console) -> list[Any]:
        from inferno_milp.report.profiles import estimate_report

        return estimate_report(profile, fit, console)

    show(arguments, parts, lambda: document, lambda: pd.json_normalize([document]))
    return 0


def _catalogue(arguments: Namespace) -> Catalogue:
    from inferno_milp.profiles.catalogue import read_catalogue

    return read_catalogue(arguments.catalogue)
