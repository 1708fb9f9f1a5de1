"""What a problem is made of: its sections, as frozen models with every number's unit in its name.

Field rules live on the fields; the rules between sections are in `problem`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from inferno_milp.problem.architecture import LanguageModel, Precision, Words
from inferno_milp.problem.fields import (
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
    is_name,
)
from inferno_milp.problem.loads import Load
from inferno_milp.problem.supply import Accelerator, NodeGroup, Pool


class Origin(Model):
    """Where the figures of a profile are from, and how far they can be trusted."""

    kind: Literal["measured", "estimated"]
    """Fitted to measurements, or estimated from the model's and the accelerator's figures."""
    source: Words | None = None
    """What was measured, and where it is published; or what the estimate rests on."""
    precision: Precision | None = None
    """Of the weights."""
    engine: Words | None = None
    """Inference engine that was measured: `vllm`, `sglang`, `trtllm`."""
    engine_version: Words | None = None
    """Its version."""
    runs: Count | None = None
    """Runs that the fit rests on."""
    shapes: Count | None = None
    """Shapes of requests, prompt and output tokens, among them."""
    ttft_error: NonNegative | None = None
    """Mean relative error of the mean time to first token."""
    itl_error: NonNegative | None = None
    """Mean relative error of the inter-token latency."""
    errors_on: Literal["held-out shapes", "fitted runs", "held-out pairs", "observations"] | None = None
    """What the errors were found on."""
    longest_input_tokens: Positive | None = None
    """Longest mean prompt that was measured: beyond it, figures are extrapolated."""
    largest_batch: Positive | None = None
    """Most requests that ran at once in a measurement."""
    not_identified: tuple[Name, ...] = ()
    """Terms that the measurements hardly determine."""


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
    kv_bytes_per_token: Positive | None = None
    """Bytes of a token in the KV cache, over all accelerators of a replica; None: as the model's architecture says."""
    max_batch_size: BatchSize = 256
    """Largest batch that the memory holds, for outputs of `at_output_tokens` where that is given; or, where
    `kv_tokens` says what the memory holds, the engine's own limit (256, as vLLM's)."""
    max_adapters: Count | None = None
    """LoRA adapters that an engine holds at once (vLLM's `max_loras`); None: as many as there are."""
    at_output_tokens: Positive | None = None
    """Output tokens per request that `max_batch_size` was found for: at K tokens the memory holds
    `max(max_batch_size · at_output_tokens // K, 1)` requests. None: it holds `max_batch_size` whatever the length."""
    origin: Origin | None = None
    """Where the figures are from."""

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

    def holds(self, adapters: Collection[str]) -> bool:
        """Whether an engine holds so many different adapters at once."""
        return self.max_adapters is None or len(set(adapters)) <= self.max_adapters


class ServiceClass(Model):
    """A priority, and targets per model."""

    name: Name
    priority: Annotated[int, Field(strict=True, ge=1, le=100)] = 100
    """1 is the highest, 100 the lowest."""
    targets: dict[Name, Targets] = Field(default_factory=dict)
    """Targets by model; `{}` serves a model without a promise."""


class CurrentAllocation(Model):
    """Replicas that a server runs now, all on one accelerator."""

    accelerator: Name
    """Accelerator by name."""
    replicas: Count = 0
    """Replicas at present."""
    batch_size: BatchSize | None = None
    """Max batch size at present."""


def _read_share(value: Any) -> Any:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", value) if isinstance(value, str) else None
    return float(match[1]) / 100 if match else value


Reserve = Annotated[float, BeforeValidator(_read_share), Field(strict=True, ge=0, le=100, allow_inf_nan=False)]
"""A fraction, 0.2, or the same in percent, `20 %`."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (dict, CurrentAllocation)) else value


Current = Annotated[tuple[CurrentAllocation, ...], BeforeValidator(_as_list)]


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
    max_replicas: PositiveCount | None = None
    """Most replicas; None: no limit of the server's own."""
    weight: Positive = 1.0
    """What serving it counts for among servers of the same priority, where not all of them can be served."""
    reserve: Reserve = 0.0
    """Rate that the replicas could carry on top of what they must, as a fraction of that: `0.2`, or `20 %`."""
    survive: Annotated[int, Field(strict=True, ge=0, le=1000)] = 0
    """Replicas, the strongest ones, whose loss must leave enough to carry the rate and its reserve."""
    max_batch_size: BatchSize | None = None
    """Max batch size of the engine, where the server fixes it; taken as it is, whatever the profile's memory holds."""
    max_queue_size: Annotated[int, Field(strict=True, ge=0, le=10**9)] | None = None
    """Requests that may wait at a replica; by default 10 × the max batch size."""
    keep_accelerator: Flag = False
    """Only accelerators of `current` may be used."""
    pools: tuple[Name, ...] | None = None
    """Supply pools that it may use; None: any, and what is in none."""
    region: Name | None = None
    """Where its requests come from."""
    adapters: tuple[Name, ...] = ()
    """LoRA adapters of the model that its requests call; its engines must hold them all."""
    survive_pools: Flag = False
    """Whether the loss of any one pool must leave enough to carry its rate: in periods and scenarios, on mixes."""
    current: Current = ()
    """Present allocations: one, or a list of several."""

    _written_as: str | None = PrivateAttr(None)

    @property
    def weights(self) -> str:
        """Name of the weights that its engines load: the model's as the document has it, which may be an alias."""
        return self._written_as or self.model

    def called(self, model: str) -> Server:
        """Return the same server, its model by another of its names."""
        return self.model_copy(update={"model": model}).written_as(self.weights)

    def written_as(self, name: str) -> Server:
        """Return the same server, whose document calls its model so."""
        if name == self.weights:
            return self
        named = self.model_copy()
        named._written_as = name
        return named

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("name") is None:
            parts = (data.get("service_class"), data.get("model"))
            return {**data, "name": f"{parts[0]}-{parts[1]}" if all(map(is_name, parts)) else "?"}
        return data


Law = Literal["continuous-batching", "inferno"]
Assignment = Literal["single", "mixed"]
BatchSizes = Literal["largest", "every"]
BatchChoice = Literal["smallest", "quickest"]
SaturationPolicy = Literal["none", "priority_exhaustive", "priority_round_robin", "round_robin"]


class Options(Model):
    """How the problem is to be read by the analysis and the optimization."""

    law: Law = "continuous-batching"
    """Law of the queueing analysis."""
    assignment: Assignment = "single"
    """`single`: each server runs on one accelerator, with one batch size; `mixed`: on any mix of them."""
    batch_sizes: BatchSizes | None = None
    """`every`: all batch sizes from 1 to the largest that fits are candidates, by default with law
    `continuous-batching`; `largest`: only the largest that fits, as llm-inferno does, by default with law `inferno`."""
    batch_choice: BatchChoice = "quickest"
    """Of batch sizes that serve with the same replicas: the smallest, or the one with which requests are done soonest.
    Where power is priced or limited it is the smallest."""
    max_blocking: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)] = 0.01
    """Highest share of requests that a full queue may turn away; law `inferno` knows no such limit."""
    saturation_policy: SaturationPolicy = "none"
    """Who gets what is left when not all can be served in full: nobody; server after server by priority, as much as
    each can use; by priority, a replica each in turn; or all in turn."""
    change_penalty: Annotated[float, Field(strict=True, ge=0, le=1000, allow_inf_nan=False)] = 0.1
    """Cost of changing a server's accelerator, as a fraction of the prices given up and taken on."""
    max_changes: Count | None = None
    """Servers that may change their accelerator; None: any number."""
    max_cost_per_hour: NonNegative | None = None
    """Budget: what all allocations may cost together."""
    max_power_w: NonNegative | None = None
    """Power that all replicas may draw together, W."""
    energy_price_per_kwh: NonNegative = 0.0
    """Price of energy, added to what is minimised; not part of an accelerator's own price."""
    carbon_kg_per_kwh: NonNegative | None = None
    """Carbon intensity of the energy, kg/kWh."""
    carbon_price_per_kg: NonNegative = 0.0
    """Price of carbon, added to what is minimised."""
    max_carbon_kg_per_hour: NonNegative | None = None
    """Carbon that may be emitted, kg/h."""
    kv_transfer_overhead_ms: NonNegative = 0.0
    """What handing a KV cache from one engine to another takes besides its way over the network, ms."""

    @model_validator(mode="after")
    def _carbon_needs_its_intensity(self) -> Options:
        if self.carbon_kg_per_kwh is None and (self.carbon_price_per_kg or self.max_carbon_kg_per_hour is not None):
            raise ValueError("carbon is priced or limited: give carbon_kg_per_kwh as well")
        return self

    @property
    def uses_power(self) -> bool:
        """Whether power is priced or limited."""
        limited = self.max_power_w is not None or self.max_carbon_kg_per_hour is not None
        return limited or self.power_price_per_kwh > 0

    @property
    def power_price_per_kwh(self) -> float:
        """Price of energy and of the carbon that goes with it."""
        return self.energy_price_per_kwh + self.carbon_price_per_kg * (self.carbon_kg_per_kwh or 0.0)

    @property
    def every_batch_size(self) -> bool:
        """Whether all batch sizes are candidates."""
        return self.batch_sizes == "every" or (self.batch_sizes is None and self.law != "inferno")


class Moment(Model):
    """What comes at some time, or may come."""

    name: Name
    """Name of it."""
    factor: NonNegative = 1.0
    """Of the rates of all servers."""
    rates_per_s: dict[Name, NonNegative] = Field(default_factory=dict)
    """Arrival rates of servers, by name, instead, requests/s."""

    def rate_per_s(self, server: Server) -> float:
        """Return the arrival rate of a server, requests/s."""
        if server.load is None:
            return 0.0
        return self.rates_per_s.get(server.name, self.factor * server.load.arrival_rate_per_s)


class Period(Moment):
    """A part of the day, or of any other time that is planned for."""

    hours: Positive = 1.0
    """Its length."""


class Scenario(Moment):
    """What may come."""

    probability: Annotated[float, Field(strict=True, gt=0, le=1)]
    """How likely it is; all of them together 1."""


class Planning(Model):
    """What holds from one period to the next."""

    start_cost_hours: NonNegative = 0.0
    """What a start of a replica costs, in hours of its price."""
    stop_cost_hours: NonNegative = 0.0
    """The same of an end."""
    min_up_hours: NonNegative = 0.0
    """A replica that was started runs for so long at least."""
    moves: Flag = False
    """Whether servers may run on another accelerator in another period, with `single` assignment."""
    cyclic: Flag = True
    """Whether the first period comes again after the last; if not, all replicas of the first are started in it."""


class Sections(Model):
    """The sections that a document may hold; every one may be left out of a file that others include."""

    name: Name = "problem"
    """Name of the problem."""
    currency: Name = "cents"
    """Unit of all costs, for display."""
    accelerators: tuple[Accelerator, ...] = ()
    profiles: tuple[Profile, ...] = ()
    language_models: tuple[LanguageModel, ...] = ()
    """Models by their architecture, from which the speed of a model can be estimated where it was not measured."""
    service_classes: tuple[ServiceClass, ...] = ()
    servers: tuple[Server, ...] = ()
    nodes: tuple[NodeGroup, ...] = ()
    pools: tuple[Pool, ...] = ()
    """Supply pools; a type that has some has no capacity besides."""
    buyable: tuple[Name, ...] | None = None
    """Accelerator types that may be bought, of which advice on what is missing is made; None: those of which there is a
    count."""
    latencies_ms: dict[Name, dict[Name, NonNegative]] = Field(default_factory=dict)
    """From the region of a server to that of an accelerator, ms, there and back; of all pairs that may be."""
    periods: tuple[Period, ...] = ()
    """Times that are planned for together, one after the other."""
    scenarios: tuple[Scenario, ...] = ()
    """What may come."""
    planning: Planning = Planning()
    options: Options = Options()
