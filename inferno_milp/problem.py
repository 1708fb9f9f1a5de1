"""The problem: what a document says, as frozen models with every number's unit in its name.

Field rules live on the fields; `reference_faults` holds the rules between sections (names that must exist, or must
not exist twice). A `Problem` that exists has passed both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_serializer, model_validator

from inferno_milp.errors import Fault, InputError, OptionError, PathPart, nearest, path_text
from inferno_milp.fields import (
    LARGEST_BATCH,
    BatchSize,
    Count,
    Flag,
    Model,
    Name,
    NonNegative,
    Positive,
    PositiveCount,
    Targets,
    Variability,
    is_name,
)


class Power(Model):
    """Power drawn as a function of utilisation: straight from idle to a middle point, straight on to full."""

    idle_w: NonNegative
    """Power of an idle accelerator, W."""
    full_w: NonNegative
    """Power at full utilisation, W."""
    mid_w: NonNegative
    """Power at `mid_utilization`, W."""
    mid_utilization: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
    """Utilisation of the middle point, a fraction."""


class Accelerator(Model):
    """An arrangement of devices that one engine runs on."""

    name: Name
    """Name of the arrangement: `2xH100`."""
    type: Name
    """Accelerator type of its devices, `H100` for `2xH100`; for a single device by default the name."""
    devices: PositiveCount = 1
    """Devices in it."""
    cost_per_hour: NonNegative
    """Price of the whole arrangement per hour, in the problem's currency."""
    memory_gb: Positive | None = None
    """Memory of the whole arrangement, GB."""
    memory_bandwidth_gb_per_s: Positive | None = None
    """Memory bandwidth of the whole arrangement, GB/s."""
    power: Power | None = None
    """Power of the whole arrangement."""

    @model_validator(mode="before")
    @classmethod
    def _typeis_name(cls, data: Any) -> Any:
        # An arrangement of several devices is rarely a type of its own: that would silently have no capacity.
        if isinstance(data, dict) and "type" not in data and data.get("devices", 1) == 1:
            name = data.get("name")
            return {**data, "type": name if is_name(name) else "?"}  # what is wrong with the name is said there
        return data


class Profile(Model):
    """Measured speed of a model on an accelerator, and what its memory holds.

    An iteration with B decoding sequences, P prompt tokens and C context tokens takes
    `(α, or max(α, γ) if P > 0) + β·B + δ·P + κ·C` ms. Without γ and δ it is llm-inferno's newer form,
    `α + β·(tokens computed) + κ·(tokens read)`: γ = α and δ = β.
    """

    model: Name
    """Language model."""
    accelerator: Name
    """Accelerator by name."""
    accelerators_per_replica: PositiveCount = 1
    """Accelerators that one replica takes."""
    alpha_ms: NonNegative
    """α: iteration time of decoding, base, ms."""
    beta_ms: NonNegative
    """β: slope per running sequence, ms."""
    gamma_ms: NonNegative
    """γ: base of an iteration that holds prompt work, ms; with δ left out, α."""
    delta_ms: NonNegative
    """δ: slope per prompt token, ms; with γ left out, β."""
    kappa_ms: NonNegative = 0.0
    """κ: slope per context token read, ms; 0 if not measured."""
    overhead_ms: NonNegative = 0.0
    """Time outside the engine (tokenizer, HTTP, scheduling), added to the time to first token, ms."""
    prefill_quadratic_ms: NonNegative = 0.0
    """q: a prompt of I tokens takes q·I² longer (attention over long prompts), ms."""
    lag_iterations: NonNegative = 0.0
    """Iterations by which tokens come out late under load (asynchronous scheduling)."""
    token_budget: PositiveCount = 8192
    """Tokens of an iteration: one for each decoding sequence, the rest for prompts, which are cut to fit."""
    kv_tokens: PositiveCount | None = None
    """Tokens that the KV cache holds; None if not known."""
    max_batch_size: BatchSize = 256
    """Largest batch that the memory holds, for outputs of `at_output_tokens` where that is given; or, where
    `kv_tokens` says what the memory holds, the engine's own limit (256, as vLLM's)."""
    at_output_tokens: Positive | None = None
    """Output tokens per request that `max_batch_size` was found for: at K tokens the memory holds
    `max(max_batch_size · at_output_tokens // K, 1)` requests. None: it holds `max_batch_size` whatever the length."""

    @model_validator(mode="before")
    @classmethod
    def _newer_form(cls, data: Any) -> Any:
        if isinstance(data, dict) and "gamma_ms" not in data and "delta_ms" not in data:
            names = (("gamma_ms", "alpha_ms"), ("delta_ms", "beta_ms"))
            return {**data, **{name: data[same] for name, same in names if same in data}}
        return data

    @model_validator(mode="after")
    def _has_memory(self) -> Profile:
        if "max_batch_size" not in self.model_fields_set and self.kv_tokens is None:
            raise ValueError("give max_batch_size, or kv_tokens, or both: what the memory holds")
        return self

    def largest_batch(self, output_tokens: float) -> int:
        """Largest batch that the memory holds at a mean number of output tokens."""
        if self.at_output_tokens is None:
            return self.max_batch_size
        held = max(int(self.max_batch_size * self.at_output_tokens // output_tokens), 1)
        return min(held, LARGEST_BATCH)


class ServiceClass(Model):
    """A priority, and targets per model."""

    name: Name
    priority: Annotated[int, Field(strict=True, ge=1, le=100)] = 100
    """1 is the highest, 100 the lowest."""
    targets: dict[Name, Targets] = Field(default_factory=dict)
    """Targets by model; `{}` serves a model without a promise."""


class Load(Model):
    """Traffic of a server; exactly one of the two rates is given."""

    rate_per_min: NonNegative | None = None
    """Arrival rate, requests/min."""
    rate_per_s: NonNegative | None = None
    """Arrival rate, requests/s."""
    input_tokens: NonNegative
    """Mean prompt tokens per request."""
    output_tokens: Annotated[float, Field(strict=True, ge=1, le=1e9, allow_inf_nan=False)]
    """Mean output tokens per request."""
    cv2_input: Variability = 0.0
    """Squared coefficient of variation of the prompt lengths; 0: all alike."""
    cv2_output: Variability = 1.0
    """Squared coefficient of variation of the output lengths; 1: geometric."""
    cv2_arrival: Variability = 1.0
    """Squared coefficient of variation of the times between arrivals; 0: a constant pace, 1: Poisson, more: bursty."""

    @model_validator(mode="after")
    def _one_rate(self) -> Load:
        if (self.rate_per_min is None) == (self.rate_per_s is None):
            raise ValueError("give one of rate_per_min and rate_per_s")
        return self

    @property
    def arrival_rate_per_s(self) -> float:
        """Arrival rate, requests/s."""
        if self.rate_per_s is not None:
            return self.rate_per_s
        assert self.rate_per_min is not None
        return self.rate_per_min / 60


class CurrentAllocation(Model):
    """What a server runs on now."""

    accelerator: Name
    """Accelerator by name."""
    replicas: Count = 0
    """Replicas at present."""
    batch_size: BatchSize | None = None
    """Max batch size at present."""


class Server(Model):
    """One (service class, model) pair with its load: what allocations are made for."""

    name: Name
    """By default `<service class>-<model>`."""
    service_class: Name
    model: Name
    load: Load | None = None
    """None is no load: the server gets `min_replicas`."""
    min_replicas: Count = 0
    """Fewest replicas."""
    max_batch_size: BatchSize | None = None
    """Max batch size of the engine, where the server fixes it; taken as it is, whatever the profile's memory holds."""
    max_queue_size: Annotated[int, Field(strict=True, ge=0, le=10**9)] | None = None
    """Requests that may wait at a replica; by default 10 × the max batch size."""
    keep_accelerator: Flag = False
    """Only the accelerator of `current` may be used."""
    current: CurrentAllocation | None = None
    """Present allocation."""

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("name") is None:
            parts = (data.get("service_class"), data.get("model"))
            return {**data, "name": f"{parts[0]}-{parts[1]}" if all(map(is_name, parts)) else "?"}
        return data


Law = Literal["continuous-batching", "inferno"]
Assignment = Literal["single"]
BatchSizes = Literal["largest", "every"]


class Options(Model):
    """How the problem is to be read by the analysis and the optimization."""

    law: Law = "continuous-batching"
    """Law of the queueing analysis."""
    assignment: Assignment = "single"
    """`single`: each server runs on one accelerator, with one batch size."""
    batch_sizes: BatchSizes | None = None
    """`every`: all batch sizes from 1 to the largest that fits are candidates, by default with law
    `continuous-batching`; `largest`: only the largest that fits, as llm-inferno does, by default with law `inferno`."""
    max_blocking: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)] = 0.01
    """Highest share of requests that a full queue may turn away; law `inferno` knows no such limit."""

    @property
    def every_batch_size(self) -> bool:
        """Whether all batch sizes are candidates."""
        return self.batch_sizes == "every" or (self.batch_sizes is None and self.law != "inferno")


def _read_capacity(value: Any) -> Any:
    if value == "unlimited":
        return None
    if isinstance(value, dict):
        return value
    raise ValueError("give a count for each accelerator type, or the word unlimited")


Capacity = Annotated[dict[Name, Count] | None, BeforeValidator(_read_capacity)]


class Sections(Model):
    """The sections that a document may hold; every one may be left out of a file that others include."""

    name: Name = "problem"
    """Name of the problem."""
    currency: Name = "cents"
    """Unit of all costs, for display."""
    accelerators: tuple[Accelerator, ...] = ()
    profiles: tuple[Profile, ...] = ()
    service_classes: tuple[ServiceClass, ...] = ()
    servers: tuple[Server, ...] = ()
    options: Options = Options()


class Problem(Sections):
    """A whole problem: accelerators, profiles, capacity, service classes, servers.

    Raises
    ------
    InputError
        If a name is missing or given twice. Wrong fields raise pydantic's ValidationError.
    """

    capacity: Capacity
    """Devices of each accelerator type (a type not named has none); None, written `unlimited`, is no limit."""

    @field_serializer("capacity")
    def _write_capacity(self, capacity: dict[str, int] | None) -> dict[str, int] | str:
        return "unlimited" if capacity is None else capacity

    @model_validator(mode="after")
    def _references(self) -> Problem:
        faults = tuple(reference_faults(self, self.capacity))
        if faults:
            raise InputError(faults)
        return self

    def targets_of(self, server: Server) -> Targets:
        """Return the targets of one of the problem's servers."""
        service_class = next(c for c in self.service_classes if c.name == server.service_class)
        return service_class.targets[server.model]

    def required_rate_per_s(self, server: Server) -> float:
        """Return the rate a server's replicas must carry: the offered one, or what its tokens per second ask for."""
        if server.load is None:
            return 0.0
        promised = (self.targets_of(server).tps or 0.0) / server.load.output_tokens
        return max(server.load.arrival_rate_per_s, promised)

    def with_options(self, **changes: Any) -> Problem:
        """Return the same problem with other options, named as the fields of `Options`.

        Raises
        ------
        OptionError
            For an option that cannot be.
        """
        try:
            options = Options.model_validate({**self.options.model_dump(), **changes})
        except ValidationError as error:
            wrong = [f"{path_text(d['loc'])}={d['input']!r}: {d['msg']}" for d in error.errors(include_url=False)]
            raise OptionError("; ".join(wrong)) from None
        return self.model_copy(update={"options": options})

    def with_unlimited_capacity(self) -> Problem:
        """Return the same problem without limits on the devices."""
        return self.model_copy(update={"capacity": None})


def reference_faults(
    sections: Sections,
    capacity: dict[str, int] | None,
    excused: frozenset[str] = frozenset(),
    *,
    has_servers: bool = False,
) -> Iterator[Fault]:
    """Find what is wrong between the sections: dangling references, duplicates, models that nothing can serve.

    Parameters
    ----------
    excused : names that are defined somewhere, but wrongly: references to them are not reported again.
    has_servers : whether there are servers at all, though perhaps wrong ones.
    """
    accelerators = _Names({a.name for a in sections.accelerators}, excused)
    types = _Names({a.type for a in sections.accelerators}, excused)
    classes = _Names({c.name for c in sections.service_classes}, excused)
    yield from _duplicates(("accelerators", i, a.name) for i, a in enumerate(sections.accelerators))
    yield from _duplicates(("profiles", i, f"{p.model} on {p.accelerator}") for i, p in enumerate(sections.profiles))
    yield from _duplicates(("service_classes", i, c.name) for i, c in enumerate(sections.service_classes))
    yield from _duplicates(("servers", i, s.name) for i, s in enumerate(sections.servers))
    for i, profile in enumerate(sections.profiles):
        if profile.accelerator not in accelerators:
            yield _unknown("accelerator", profile.accelerator, accelerators, ("profiles", i, "accelerator"))
    for type_name in capacity or {}:
        if type_name not in types:
            yield _unknown("accelerator type", type_name, types, ("capacity", type_name))
    if not sections.servers and not has_servers:
        yield Fault("no servers: there is nothing to plan for", "list at least one", ("servers",))
    profiles = {(p.model, p.accelerator) for p in sections.profiles}
    models = _Names({model for model, _ in profiles}, excused)
    targets = {c.name: c.targets for c in sections.service_classes}
    for i, server in enumerate(sections.servers):
        yield from _server_faults(("servers", i), server, accelerators, classes, models, targets)
        kept = server.current.accelerator if server.keep_accelerator and server.current else None
        known = kept is not None and kept in accelerators and server.model in models and server.model not in excused
        if known and (server.model, kept) not in profiles:
            yield Fault(
                f"model {server.model!r} has no profile on {kept!r}, which the server must keep",
                "add the profile, or set keep_accelerator: false",
                ("servers", i, "keep_accelerator"),
            )


def _server_faults(
    path: tuple[PathPart, ...],
    server: Server,
    accelerators: _Names,
    classes: _Names,
    models: _Names,
    targets: dict[str, dict[str, Targets]],
) -> Iterator[Fault]:
    if server.service_class not in classes:
        yield _unknown("service class", server.service_class, classes, (*path, "service_class"))
    elif server.service_class in targets and server.model not in targets[server.service_class]:
        promised = targets[server.service_class]
        yield Fault(
            f"service class {server.service_class!r} has no targets for model {server.model!r}",
            f"{nearest(server.model, promised)}; `{server.model}: {{}}` there serves it without a promise",
            (*path, "model"),
        )
    if server.model not in models:
        yield Fault(f"model {server.model!r} has no profile", nearest(server.model, models.known), (*path, "model"))
    if server.current and server.current.accelerator not in accelerators:
        place = (*path, "current", "accelerator")
        yield _unknown("accelerator", server.current.accelerator, accelerators, place)
    if server.keep_accelerator and not server.current:
        yield Fault(
            "keep_accelerator without a current allocation", "say what `current` is", (*path, "keep_accelerator")
        )


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that are defined, and names that are excused: defined, but wrongly."""

    known: set[str]
    excused: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.known or name in self.excused


def _unknown(kind: str, name: str, names: _Names, path: tuple[PathPart, ...]) -> Fault:
    return Fault(f"unknown {kind} {name!r}", nearest(name, names.known), path)


def _duplicates(entries: Iterator[tuple[str, int, str]]) -> Iterator[Fault]:
    listed = list(entries)
    counts = Counter(name for _, _, name in listed)
    for section, index, name in listed:
        if counts[name] > 1:
            remedy = "give each a name of its own" if section == "servers" else "keep one"
            yield Fault(f"{name!r} is given {counts[name]} times", remedy, (section, index))
