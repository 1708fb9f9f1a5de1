"""What our own API answers, for its OpenAPI document; each has the fields that the library's own documents have."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from inferno_milp.plan import Allocation, Change, MissedTarget, NodeUse, PriorityUse, SolverRun, Status, UsedProfile
from inferno_milp.planning.disaggregation.plans import Split
from inferno_milp.planning.horizon.plans import Held, MomentPlan, Unserved
from inferno_milp.planning.routing.plans import Route
from inferno_milp.problem.fields import Targets
from inferno_milp.service.store import JobStatus
from inferno_milp.studies.explanation import Alternative
from inferno_milp.studies.prices import DevicePrice, TargetPrice


class DocumentModel(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class FaultDocument(DocumentModel):
    """One thing that is wrong with the input."""

    problem: str
    """What is wrong."""
    remedy: str
    """What would be right."""
    path: str
    """Place in the document: `servers[3].load.rate_per_min`."""
    file: str
    line: int | None
    text: str
    """All of it in a line."""


class ErrorDocument(DocumentModel):
    """Why there is no answer."""

    message: str
    errors: list[FaultDocument] = []
    """All that is wrong with the input."""
    request_id: str = ""


class ServerDocument(DocumentModel):
    """What a plan does for a server (docs/plan.md)."""

    service_class: str
    model: str
    priority: int
    offered_rate_per_s: float
    required_rate_per_s: float
    served_rate_per_s: float
    meets_targets: bool
    is_carried: bool
    reason: str | None
    allocations: list[Allocation]
    missed: list[MissedTarget]


class CapacityDocument(DocumentModel):
    """Devices of a type: how many there are (null: no limit) and how many the plan uses."""

    available: int | None
    used: int


class PlanDocument(DocumentModel):
    """A plan (docs/plan.md)."""

    problem: str
    currency: str
    status: Status
    total_cost_per_hour: float | None
    objective: float | None
    objective_parts: dict[str, float]
    bound: float | None
    gap: float | None
    solver: SolverRun
    stages_s: dict[str, float]
    assignment: str
    rests_on_estimates: bool
    power_w: float | None
    messages: list[str]
    servers: dict[str, ServerDocument]
    capacity: dict[str, CapacityDocument]
    priorities: list[PriorityUse]
    changes: list[Change]
    nodes: list[NodeUse]


class ProblemSummary(DocumentModel):
    """What is in a problem that has no fault."""

    name: str
    servers: int
    models: int
    service_classes: int
    accelerators: int
    profiles: int
    capacity: dict[str, int] | None


class BatchRate(DocumentModel):
    """The highest rate with a max batch size; null: any."""

    batch_size: int
    max_rate_per_s: float | None
    verdict: str


class AnalysisDocument(DocumentModel):
    """The figures of an engine, at each rate asked for."""

    law: str
    engine: dict[str, float]
    targets: Targets
    max_rate_per_s: float | None
    verdict: str
    sentence: str
    rates: list[dict[str, float | None]]
    batch_sizes: list[BatchRate]


class ServerExplanationDocument(DocumentModel):
    """Why a server runs where it does (docs/explain.md)."""

    name: str
    words: str
    accelerators: list[str]
    cost_per_hour: float
    parts: dict[str, float]
    reason: str | None
    alternatives: list[Alternative]


class ExplanationDocument(DocumentModel):
    """Why a plan is as it is (docs/explain.md)."""

    currency: str
    status: Status
    total_cost_per_hour: float | None
    parts: dict[str, float]
    servers: dict[str, ServerExplanationDocument]
    types: list[dict[str, Any]]
    purchase: list[dict[str, Any]] | None
    conflict: dict[str, Any] | None


class WhatifDocument(DocumentModel):
    """Two plans, and what changes from one to the other."""

    before: PlanDocument
    after: PlanDocument
    changes: list[Change]


class SimulationDocument(DocumentModel):
    """A plan, simulated (docs/simulation.md)."""

    requests: int
    meets_targets: bool
    allocations: list[dict[str, Any]]


class PricesDocument(DocumentModel):
    """What devices and promises are worth (docs/prices.md)."""

    currency: str
    status: Status
    objective: float | None
    relaxed: float
    devices: list[DevicePrice]
    targets: list[TargetPrice]


class HorizonDocument(DocumentModel):
    """Replicas in every period or scenario, and what is reserved for all of them (docs/horizon.md)."""

    problem_name: str
    currency: str
    status: Status
    cost_per_hour: float | None
    bound: float | None
    gap: float | None
    parts: dict[str, float]
    reserved: dict[str, int]
    moments: list[MomentPlan]
    held: list[Held]
    unserved: list[Unserved]
    missed: list[Unserved]
    profiles: list[UsedProfile]
    rests_on_estimates: bool


class PeriodsDocument(DocumentModel):
    """A plan of periods, beside what one would do otherwise (docs/horizon.md)."""

    plan: HorizonDocument
    peak_cost_per_hour: float | None
    replanned_cost_per_hour: float | None
    replanned_moves: bool


class ScenariosDocument(DocumentModel):
    """A plan for scenarios, and what knowing would be worth (docs/horizon.md)."""

    plan: HorizonDocument
    known_cost_per_hour: float | None
    mean_cost_per_hour: float | None
    value_of_knowing_per_hour: float | None
    value_of_planning_per_hour: float | None


class RoutedDocument(DocumentModel):
    """A plan with a router's table, and the plan without one (docs/mixes.md)."""

    plan: PlanDocument
    routes: list[Route]
    unrouted: PlanDocument
    saving_per_hour: float | None
    rounds: int


class SharedDocument(DocumentModel):
    """A plan in which servers share replicas, and the plan in which none do (docs/sharing.md)."""

    plan: PlanDocument
    groups: list[list[str]]
    apart: PlanDocument
    saving_per_hour: float | None
    replicas_saved: int


class DisaggregatedDocument(DocumentModel):
    """A plan in which phases may run apart, and the plan in which none do (docs/disaggregation.md)."""

    plan: PlanDocument
    splits: list[Split]
    together: PlanDocument
    saving_per_hour: float | None
    bound: float | None
    not_split: dict[str, str]
    why_together: str | None


class JobDocument(DocumentModel):
    """A job; times are seconds since 1970."""

    id: str
    kind: str
    status: JobStatus
    created_at: float
    started_at: float | None
    ended_at: float | None
    progress: dict[str, Any]
    summary: dict[str, Any]
    """A few figures of what came of it."""


class HealthDocument(DocumentModel):
    """How the service is."""

    status: Literal["ok"]


Errors = dict[int | str, dict[str, Any]]
ERROR: dict[str, Any] = {"model": ErrorDocument}
ALWAYS: Errors = {
    500: {**ERROR, "description": "A defect of the service, or its worker died over this"},
    401: {**ERROR, "description": "A bearer token is needed"},
    403: {**ERROR, "description": "A page of another origin"},
    503: {**ERROR, "description": "The store of jobs does not answer"},
}
WITH_BODY: Errors = {
    **ALWAYS,
    400: {**ERROR, "description": "Not JSON"},
    408: {**ERROR, "description": "The body did not come in time"},
    413: {**ERROR, "description": "The body is too large"},
    422: {**ERROR, "description": "Everything that is wrong with the input"},
    429: {**ERROR, "description": "Full: try again after Retry-After seconds"},
    504: {**ERROR, "description": "Not done in time: ask as a job"},
}
OF_JOB: Errors = {**ALWAYS, 404: {**ERROR, "description": "No such job"}, 422: ERROR}
"""What may be answered in place of what was asked, by status: always, to a body, and of a job."""
