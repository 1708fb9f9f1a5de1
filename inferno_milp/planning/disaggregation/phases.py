"""The two phases of a server as servers of their own: one computes prompts, the other makes the tokens.

The prompt's engine makes a single token, which nobody sees. The engine of the outputs gets a request with the KV cache
of its prompt, computes the last token of that prompt once more, as vLLM does, and goes on from there: to it the request
is a prompt of one token, and each of its tokens costs what decoding one beside the whole context costs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from inferno_milp.problem import Problem, new_name
from inferno_milp.problem.fields import Targets
from inferno_milp.problem.loads import Load
from inferno_milp.problem.sections import Profile, Server, ServiceClass
from inferno_milp.queueing import QUEUE_PER_BATCH, largest_kv_batch, mean_context_tokens
from inferno_milp.queueing.percentiles import read_percent

Phase = Literal["prefill", "decode"]
PREFILL: Phase = "prefill"
DECODE: Phase = "decode"

LEAST_PERCENT = 80
"""Percentiles of parts, added up, are no less than those of the whole from about here on."""

Promise = Mapping[str, float]
"""A promise of the time to first token by its statistics, ms."""


class Part(NamedTuple):
    """A phase of a server as a server, with the class and the profiles that are its own."""

    server: Server
    service_class: ServiceClass
    profiles: tuple[Profile, ...]


def why_not_split(problem: Problem, server: Server) -> str | None:
    """Return why a server may not run its phases apart, whatever it runs on; None if it may."""
    load = server.load
    if load is None or load.arrival_rate_per_s <= 0:
        return "it has no load"
    if load.input_tokens < 1 or load.output_tokens <= 1:
        return "its requests have no prompts, or outputs of one token"
    if server.keep_accelerator or server.max_batch_size is not None:
        return "its accelerator or its batch size is fixed"
    percents = [read_percent(statistic) for statistic in problem.targets_of(server).limits_of("ttft_ms")]
    if any(percent is not None and percent < LEAST_PERCENT for percent in percents):
        return f"it promises a percentile below p{LEAST_PERCENT}, and those of parts cannot be added up"
    return None


def make_part(
    problem: Problem,
    server: Server,
    phase: Phase,
    profiles: Sequence[Profile],
    promise: Promise,
    taken: Collection[str],
    *,
    replicas: int | None = None,
) -> Part:
    """Make a server of a phase.

    Parameters
    ----------
    profiles : of the server's model, where it may run.
    promise : what the phase may take of the promise of the time to first token.
    taken : names that it cannot have.
    replicas : how many there must be; None: as few as will do.
    """
    load = server.load
    assert load is not None
    name = new_name(f"{server.name}@{phase}", taken)
    limited = {statistic: limit_ms for statistic, limit_ms in promise.items() if math.isfinite(limit_ms)}
    targets = {"ttft_ms": limited} if limited else {}
    between = problem.targets_of(server).limits_of("itl_ms")
    if phase == DECODE and between:
        targets["itl_ms"] = between
    rate_per_s = problem.required_rate_per_s(server)
    update = {
        "name": name,
        "service_class": name,
        "model": name,
        "load": _prefill_load(load, rate_per_s) if phase == PREFILL else _decode_load(load, rate_per_s),
        "min_replicas": replicas or 0,
        "max_replicas": None,
        "current": (),
    }
    if phase == DECODE:  # the queue and the way to the user are counted once
        update |= {"max_queue_size": None, "region": None}
    elif server.max_queue_size is None:
        # Few prompts are computed at once, but no fewer may wait than at an engine that does both.
        fewest = min(profile.largest_batch(load.output_tokens) for profile in profiles)
        update["max_queue_size"] = QUEUE_PER_BATCH * fewest
    priority = next(c.priority for c in problem.service_classes if c.name == server.service_class)
    make = _prefill_profile if phase == PREFILL else _decode_profile
    return Part(
        server.model_copy(update=update),
        ServiceClass(name=name, priority=priority, targets={name: Targets.model_validate(targets)}),
        tuple(make(profile, name, load) for profile in profiles),
    )


def with_parts(problem: Problem, parts: Mapping[int, Sequence[Part]]) -> Problem:
    """Return the problem with parts in the place of the servers at these positions."""
    found: list[tuple[Server, ...]] = [
        tuple(part.server for part in parts[s]) if s in parts else (server,) for s, server in enumerate(problem.servers)
    ]
    listed = [part for of_server in parts.values() for part in of_server]
    return problem.with_servers(
        (server for of_server in found for server in of_server),
        (part.service_class for part in listed),
        (profile for part in listed for profile in part.profiles),
    )


def _prefill_load(load: Load, rate_per_s: float) -> Load:
    return Load(
        rate_per_s=rate_per_s,
        input_tokens=load.input_tokens,
        output_tokens=1.0,
        cv2_input=load.cv2_input,
        cv2_output=0.0,
        cv2_arrival=load.cv2_arrival,
    )


def _decode_load(load: Load, rate_per_s: float) -> Load:
    return Load(
        rate_per_s=rate_per_s,
        input_tokens=1.0,
        output_tokens=load.output_tokens,
        cv2_output=load.cv2_output,
        cv2_arrival=max(load.cv2_arrival, 1.0),  # what comes out of the other engines is no longer regular
    )


def _prefill_profile(profile: Profile, model: str, load: Load) -> Profile:
    update = {
        "model": model,
        "max_batch_size": profile.largest_batch(load.output_tokens),
        "at_output_tokens": None,
    }
    return profile.model_copy(update=update)


def _decode_profile(profile: Profile, model: str, load: Load) -> Profile:
    lengths = {name: getattr(load, name) for name in ("input_tokens", "output_tokens", "cv2_output", "cov_lengths")}
    kv_tokens = np.nan if profile.kv_tokens is None else profile.kv_tokens
    held = min(float(largest_kv_batch(kv_tokens, **lengths)), profile.largest_batch(load.output_tokens))
    token_ms = profile.beta_ms + profile.kappa_ms * float(mean_context_tokens(**lengths))
    update = {
        "model": model,
        "beta_ms": token_ms,
        "gamma_ms": profile.alpha_ms,
        "delta_ms": token_ms,
        "kappa_ms": 0.0,
        "prefill_quadratic_ms": 0.0,
        "kv_tokens": None,
        "max_batch_size": int(held),
        "at_output_tokens": None,
    }
    return profile.model_copy(update=update)
