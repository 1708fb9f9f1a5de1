"""A model's profiles side by side: the highest rate under promises, and what a million tokens cost."""

from __future__ import annotations

import math

import pandas as pd

from inferno_milp.errors import OptionError
from inferno_milp.problem.engines import OF_PROFILE
from inferno_milp.problem.spelling import nearest
from inferno_milp.profiles.catalogue import Catalogue
from inferno_milp.queueing import size


def compare_profiles(
    catalogue: Catalogue,
    model: str,
    *,
    input_tokens: float,
    output_tokens: float,
    ttft_ms: float,
    itl_ms: float,
) -> pd.DataFrame:
    """Size an engine of every profile that a model has.

    Parameters
    ----------
    model : by its name, an alias, or the last part of either.
    input_tokens, output_tokens : mean tokens of a request.
    ttft_ms, itl_ms : promised means, ms.

    Returns
    -------
    DataFrame
        One row per profile, the cheapest per million output tokens first: `model`, `accelerator`, `kind`, `precision`,
        `max_rate_per_s` (0 where the promises cannot be kept), `output_tokens_per_s`, `cost_per_hour` (NaN without a
        price), `cost_per_million_output_tokens`, `ttft_error`, `itl_error`, `extrapolated`.

    Raises
    ------
    OptionError
        If the model has no profile.
    """
    names = {model.casefold()}
    try:
        known = catalogue.language_model(model)
        names |= {name.casefold() for name in (known.name, *known.aliases)}
    except OptionError:
        pass
    profiles = [p for p in catalogue.profiles if p.model.casefold() in names]
    if not profiles:
        raise OptionError(f"no profile of {model!r}; {nearest(model, {p.model for p in catalogue.profiles})}")
    columns = {name: [getattr(p, name) for p in profiles] for name in OF_PROFILE}
    columns["kv_tokens"] = [math.nan if value is None else value for value in columns["kv_tokens"]]
    sized = size(
        **columns,  # type: ignore[arg-type]
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        max_batch=[p.largest_batch(output_tokens) for p in profiles],
        ttft_ms=ttft_ms,
        itl_ms=itl_ms,
    )
    rows = []
    for profile, rate in zip(profiles, sized.max_rate_per_s.tolist(), strict=True):
        priced = catalogue.accelerators.get(profile.accelerator)
        rate *= 1.0 if priced is None else priced.availability
        hourly = math.nan if priced is None else priced.cost_per_hour * profile.accelerators_per_replica
        tokens = rate * output_tokens
        origin = profile.origin
        longest = origin.longest_input_tokens if origin else None
        rows.append(
            {
                "model": profile.model,
                "accelerator": profile.accelerator,
                "kind": origin.kind if origin else "unknown",
                "precision": origin.precision if origin else None,
                "max_rate_per_s": rate,
                "output_tokens_per_s": tokens,
                "cost_per_hour": hourly,
                "cost_per_million_output_tokens": hourly / (tokens * 3600) * 1e6 if tokens > 0 else math.inf,
                "ttft_error": origin.ttft_error if origin else None,
                "itl_error": origin.itl_error if origin else None,
                "extrapolated": longest is not None and input_tokens > longest,
            }
        )
    return pd.DataFrame(rows).sort_values("cost_per_million_output_tokens", kind="stable", ignore_index=True)
