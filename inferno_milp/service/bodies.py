"""What requests to our own API may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, model_validator

from inferno_milp.plan import DEFAULT_GAP, SolverName
from inferno_milp.planning.horizon.program import Criterion
from inferno_milp.problem.fields import BatchSize, NonNegative, PositiveCount, Targets, Variability
from inferno_milp.problem.reading.source import not_unicode, too_much
from inferno_milp.problem.sections import Law


def not_too_much(value: Any) -> Any:
    """Return a JSON value, if it is not so deep or large that reading it would take too much."""
    if reason := too_much(value):
        raise ValueError(reason)
    return value


Document = Annotated[dict[str, Any], AfterValidator(not_too_much)]
"""A JSON object."""
ProblemSource = str | Document
"""A problem as its text, YAML or JSON, or as a JSON object."""
MOST_SETTINGS, MOST_FILES, MOST_NAMES = 1000, 200, 10_000
"""Items that lists of a request may have: each takes a worker's time."""
Settings = Annotated[
    Annotated[Document, Field(max_length=MOST_SETTINGS)] | Annotated[list[str], Field(max_length=MOST_SETTINGS)],
    Field(examples=[["servers.*.load.rate_per_min*=2"]]),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Files = Annotated[dict[Name, str], Field(max_length=MOST_FILES)]
Names = Annotated[list[Name], Field(max_length=MOST_NAMES)]
RequestCount = Annotated[int, Field(ge=1000, le=1_000_000)]
Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Gap = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


EXAMPLE = """\
name: example
capacity: {H100: 8, L4: 16}
accelerators:
  - {name: H100, cost_per_hour: 400}
  - {name: L4, cost_per_hour: 70}
profiles:
  - {model: chat-8b, accelerator: H100, alpha_ms: 6, beta_ms: 0.05, gamma_ms: 7, delta_ms: 0.02, max_batch_size: 128}
  - {model: chat-8b, accelerator: L4, alpha_ms: 28, beta_ms: 0.3, gamma_ms: 30, delta_ms: 0.15, max_batch_size: 24}
service_classes:
  - {name: gold, priority: 1, targets: {chat-8b: {ttft_ms: {p95: 800}, itl_ms: 40}}}
servers:
  - {service_class: gold, model: chat-8b, load: {rate_per_min: 600, input_tokens: 512, output_tokens: 128}}
"""
"""A small problem, for the API's document."""


def _example(**more: Any) -> dict[str, Any]:
    example = {"problem": EXAMPLE, **more}
    return {"examples": [example], "example": example}  # the singular is what the API's page shows


class Body(BaseModel):
    """Base of all bodies: what is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _only_unicode(cls, data: Any) -> Any:
        if wrong := not_unicode(data):
            raise ValueError(str(wrong))
        return data


class ProblemBody(Body):
    """A problem, and other figures for it."""

    problem: ProblemSource
    """The problem (docs/problem.md): its text, in YAML or JSON, or a JSON object. llm-inferno's system data as well."""
    files: Files = Field(default_factory=dict)
    """Texts that the problem includes, by name; names of the catalogue that comes with the service need not be here."""
    settings: Settings = Field(default_factory=list)
    """Other figures, as `--set` takes them: `["capacity.H100=64"]`, or `{"capacity.H100": 64}`."""


class SolvingBody(ProblemBody):
    """A problem, and how long and how exactly it may be solved."""

    time_limit_s: Seconds | None = None
    """Time limit of the solver for each plan, s; by default, and at most, that of the service. Where several plans are
    made, each gets a part of that at most."""
    gap: Gap = DEFAULT_GAP
    """Relative gap between cost and bound at which a plan counts as optimal."""


class ValidateBody(ProblemBody):
    """Asks what is wrong with a problem; whatever else a body for another path has is left alone."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=_example())


class OptimizeBody(SolvingBody):
    """Asks for the plan of least cost."""

    model_config = ConfigDict(json_schema_extra=_example(time_limit_s=10))

    solver: SolverName = "milp"
    current: Document | None = None
    """A plan: what runs today, in place of the problem's own `current`."""


class EngineFigures(Body):
    """An engine's parameters, as `analyze` takes them."""

    alpha_ms: NonNegative | None = None
    beta_ms: NonNegative | None = None
    gamma_ms: NonNegative | None = None
    delta_ms: NonNegative | None = None
    input_tokens: NonNegative | None = None
    output_tokens: Annotated[float, Field(ge=1, le=1e9, allow_inf_nan=False)] | None = None
    max_batch: BatchSize | None = None
    max_queue: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    kappa_ms: NonNegative | None = None
    overhead_ms: NonNegative | None = None
    prefill_quadratic_ms: NonNegative | None = None
    lag_iterations: NonNegative | None = None
    cv2_input: Variability | None = None
    cv2_output: Variability | None = None
    cov_lengths: Annotated[float, Field(ge=-1, le=1000, allow_inf_nan=False)] | None = None
    cv2_arrival: Variability | None = None
    token_budget: PositiveCount | None = None
    kv_tokens: PositiveCount | None = None
    max_blocking: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None


class AnalyzeBody(Body):
    """Asks for the figures of one engine: of a problem's server on an accelerator, or of figures given here."""

    model_config = ConfigDict(
        json_schema_extra=_example(server="gold-chat-8b", accelerator="L4", batch_sizes=[8, 16, 24])
    )

    problem: ProblemSource | None = None
    files: Files = Field(default_factory=dict)
    settings: Settings = Field(default_factory=list)
    server: Name | None = None
    """Server of the problem."""
    accelerator: Name | None = None
    """Accelerator of the problem."""
    engine: EngineFigures = EngineFigures()
    """Figures; needed without a problem, with one they replace its own."""
    targets: Targets | None = None
    """Promises; with a problem they replace its own."""
    law: Law | None = None
    rates_per_s: Annotated[list[Rate], Field(min_length=1, max_length=500)] | None = None
    """Arrival rates to analyse, requests/s; by default ten, up to the highest."""
    batch_sizes: Annotated[list[BatchSize], Field(max_length=500)] = Field(default_factory=list)
    """Max batch sizes for which the highest rate is found."""

    @model_validator(mode="after")
    def _one_engine(self) -> AnalyzeBody:
        named = self.server is not None and self.accelerator is not None
        if self.problem is not None and not named:
            raise ValueError("with a problem, server and accelerator say which engine is meant")
        if self.problem is None and (self.server is not None or self.accelerator is not None):
            raise ValueError("server and accelerator name parts of a problem: give one")
        return self


class ExplainBody(SolvingBody):
    """Asks why a plan is as it is."""

    model_config = ConfigDict(json_schema_extra=_example())

    servers: Names | None = None
    """Servers whose alternatives are told; all by default."""
    compared: Names | None = None
    """Servers for which the whole is planned anew with each alternative; by default those named in `servers`."""


class WhatifBody(SolvingBody):
    """Asks what changes with other figures."""

    model_config = ConfigDict(json_schema_extra=_example(changes=["servers.*.load.rate_per_min*=2"]))

    changes: Annotated[Settings, Field(examples=[["capacity.H100+=8"]])]
    """The other figures, as `settings`, which hold for both plans."""
    transition: bool = False
    """Whether the plan before is what runs today when the one after is made."""


class SimulateBody(SolvingBody):
    """Asks for the simulation of a plan, request by request."""

    model_config = ConfigDict(json_schema_extra=_example(requests=1000))

    plan: Document | None = None
    """A plan of the problem; made first if there is none."""
    requests: RequestCount = 4000
    """Simulated for each allocation."""
    burstiness: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """c² of the times between arrivals; by default each load's own."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


class PricesBody(SolvingBody):
    """Asks what a device more or fewer, and a looser promise, are worth."""

    model_config = ConfigDict(json_schema_extra=_example(of=["devices"]))

    relaxed: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """By how much promises are made looser."""
    of: Annotated[list[Literal["devices", "promises"]], Field(min_length=1, max_length=2)] = Field(
        default=["devices", "promises"]
    )


PERIODS = [{"name": "night", "hours": 8, "factor": 0.3}, {"name": "day", "hours": 16}]
SCENARIOS = [{"name": "calm", "probability": 0.9}, {"name": "busy", "probability": 0.1, "factor": 1.5}]
LOAD = {
    "rate_per_min": 420,
    "mix": [
        {"input_tokens": 128, "output_tokens": 64, "share": 0.85},
        {"input_tokens": 2048, "output_tokens": 256, "share": 0.15},
    ],
}


def _example_with(key: str, value: Any, **more: Any) -> dict[str, Any]:
    return _example(settings={key: value}, **more)


class PeriodsBody(SolvingBody):
    """Asks for the replicas of every period of a problem, and what to reserve."""

    model_config = ConfigDict(json_schema_extra=_example_with("periods", PERIODS))


class ScenariosBody(SolvingBody):
    """Asks what to reserve, and where to run, for a problem's scenarios."""

    model_config = ConfigDict(json_schema_extra=_example_with("scenarios", SCENARIOS))

    criterion: Criterion = "expected"
    """Cost that counts."""
    served: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Least probability that everybody is served in full."""


class RouteBody(SolvingBody):
    """Asks which accelerators requests should go to, by their sizes."""

    model_config = ConfigDict(json_schema_extra=_example_with("servers.*.load", LOAD))


class ShareBody(SolvingBody):
    """Asks which servers of one model should share replicas."""

    model_config = ConfigDict(json_schema_extra=_example(time_limit_s=10))


class DisaggregateBody(SolvingBody):
    """Asks which servers should run prompts and outputs on engines of their own."""

    model_config = ConfigDict(json_schema_extra=_example(network_gb_per_s=50, kv_bytes_per_token=131072))

    network_gb_per_s: Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)] | None = None
    """Speed of each device's network, GB/s, for accelerators that do not say."""
    kv_bytes_per_token: Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)] | None = None
    """Bytes of a token in the KV cache, for profiles that do not say, of models that are not known."""


class OptimizeJob(OptimizeBody):
    """A plan, as a job."""

    model_config = ConfigDict(json_schema_extra=_example(kind="optimize", time_limit_s=10))

    kind: Literal["optimize"]


class AnalyzeJob(AnalyzeBody):
    """An analysis, as a job."""

    model_config = ConfigDict(json_schema_extra=_example(kind="analyze", server="gold-chat-8b", accelerator="L4"))

    kind: Literal["analyze"]


class ExplainJob(ExplainBody):
    """An explanation, as a job."""

    model_config = ConfigDict(json_schema_extra=_example(kind="explain"))

    kind: Literal["explain"]


class WhatifJob(WhatifBody):
    """A comparison, as a job."""

    model_config = ConfigDict(json_schema_extra=_example(kind="whatif", changes=["servers.*.load.rate_per_min*=2"]))

    kind: Literal["whatif"]


class SimulateJob(SimulateBody):
    """A simulation, as a job."""

    model_config = ConfigDict(json_schema_extra=_example(kind="simulate", requests=1000))

    kind: Literal["simulate"]


class PricesJob(PricesBody):
    """Prices, as a job."""

    model_config = ConfigDict(json_schema_extra=_example(kind="prices", of=["devices"]))

    kind: Literal["prices"]


class PeriodsJob(PeriodsBody):
    """Periods, as a job."""

    model_config = ConfigDict(json_schema_extra=_example_with("periods", PERIODS, kind="periods"))

    kind: Literal["periods"]


class ScenariosJob(ScenariosBody):
    """Scenarios, as a job."""

    model_config = ConfigDict(json_schema_extra=_example_with("scenarios", SCENARIOS, kind="scenarios"))

    kind: Literal["scenarios"]


class RouteJob(RouteBody):
    """Routes, as a job."""

    model_config = ConfigDict(json_schema_extra=_example_with("servers.*.load", LOAD, kind="route"))

    kind: Literal["route"]


class ShareJob(ShareBody):
    """Shared replicas, as a job."""

    model_config = ConfigDict(json_schema_extra=_example(kind="share"))

    kind: Literal["share"]


class DisaggregateJob(DisaggregateBody):
    """Phases apart, as a job."""

    model_config = ConfigDict(
        json_schema_extra=_example(kind="disaggregate", network_gb_per_s=50, kv_bytes_per_token=131072)
    )

    kind: Literal["disaggregate"]


Job = Annotated[
    OptimizeJob
    | AnalyzeJob
    | ExplainJob
    | WhatifJob
    | SimulateJob
    | PricesJob
    | PeriodsJob
    | ScenariosJob
    | RouteJob
    | ShareJob
    | DisaggregateJob,
    Discriminator("kind"),
]
