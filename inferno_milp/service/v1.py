"""Our own API: one path for each thing that can be asked, the same things as jobs, and how the service is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, HTTPException, Path, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse, ServerSentEvent

from inferno_milp.service import documents as doc
from inferno_milp.service.analyst import is_light
from inferno_milp.service.answers import JSON, SVG, YAML, Answer, Task
from inferno_milp.service.bodies import (
    AnalyzeBody,
    DisaggregateBody,
    ExplainBody,
    Job,
    OptimizeBody,
    PeriodsBody,
    PricesBody,
    RouteBody,
    ScenariosBody,
    ShareBody,
    SimulateBody,
    ValidateBody,
    WhatifBody,
)
from inferno_milp.service.documents import ALWAYS, ERROR, OF_JOB, WITH_BODY, Errors
from inferno_milp.service.guard import failure
from inferno_milp.service.planning import Figure
from inferno_milp.service.rooms import Rooms, find_rooms
from inferno_milp.service.store import JobRecord, JobStatus

OVERTIME_S = 15.0
"""What a request may take beyond its time limit, for reading, analysing and checking, before it is ended."""
CLIENT_GONE = 499
"""Status of an answer that nobody reads."""


class JsonRoute(APIRoute):
    """Takes every body for JSON, whatever its content type says: `curl -d` calls it a form, and the seed does not ask.

    That pages of other origins could send such bodies without asking is prevented by `guard.Guarded`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request."""
        handle = super().get_route_handler()

        async def handle_as_json(request: Request) -> Response:
            headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
            scope = {**request.scope, "headers": [*headers, (b"content-type", JSON.encode())]}
            return await handle(Request(scope, request.receive))

        return handle_as_json


router = APIRouter(prefix="/v1", route_class=JsonRoute)
health = APIRouter()
RoomsHere = Annotated[Rooms, Depends(find_rooms)]


async def answered(
    request: Request, kind: str, body: Any = None, *, pool: Literal["quick", "solve"] = "solve", extra: Any = None
) -> Response:
    """Let a worker do something and wait for it; ends it when the client goes away.

    Parameters
    ----------
    kind, body, extra : as in `Task`.
    """
    rooms = find_rooms(request)
    task = Task(kind, body, rooms.config.time_limit_s, extra=extra)
    _check_limit(body, task.time_limit_s, "here; ask as a job (/v1/jobs) for more")
    workers = rooms.quick if pool == "quick" else rooms.solve
    return await awaited(request, workers.do(task, time_limit_s=task.longest_s + OVERTIME_S))


def _check_limit(body: Any, most_s: float, where: str) -> None:
    asked_s = getattr(body, "time_limit_s", None)
    if asked_s is not None and asked_s > most_s:
        raise HTTPException(422, f"time_limit_s: at most {most_s:g} s {where}")


async def awaited(request: Request, work: Coroutine[Any, Any, Answer]) -> Response:
    """Wait for an answer, as long as there is a client to give it to, and return it as a response."""
    answer = await unless_gone(request, work)
    return Response(status_code=CLIENT_GONE) if answer is None else as_response(answer)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Wait for an answer; None, and the work is ended, when the client goes away."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        gone.cancel()
        working.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def as_response(answer: Answer) -> Response:
    """Return an answer as a response; an error with the request's id."""
    if answer.status != 200:
        return failure(answer.status, **json.loads(answer.body))
    return Response(answer.body, media_type=answer.media_type)


def _answers(model: type[doc.DocumentModel]) -> dict[str, Any]:
    return {"responses": {200: {"model": model}, **WITH_BODY}, "response_class": Response}


@router.post("/validate", **_answers(doc.ProblemSummary), tags=["planning"])
async def validate_problem(request: Request, body: ValidateBody) -> Response:
    """Return everything that is wrong with a problem, or what is in it."""
    return await answered(request, "validate", body, pool="quick")


@router.post("/optimize", **_answers(doc.PlanDocument), tags=["planning"])
async def optimize(request: Request, body: OptimizeBody) -> Response:
    """Find the plan of least cost, with its proof."""
    return await answered(request, "optimize", body)


@router.post("/analyze", **_answers(doc.AnalysisDocument), tags=["planning"])
async def analyze(request: Request, rooms: RoomsHere, body: AnalyzeBody) -> Response:
    """Analyse one engine: latencies at several rates, the highest rate that keeps the targets, other batch sizes."""
    if is_light(body):
        return await awaited(request, rooms.analyst.do(body, time_limit_s=rooms.config.time_limit_s + OVERTIME_S))
    return await answered(request, "analyze", body, pool="quick")


@router.post(
    "/analyze/plot",
    response_class=Response,
    responses={200: {"content": {SVG: {"schema": {"type": "string"}}}}, **WITH_BODY},
    tags=["planning"],
)
async def plot_analysis(request: Request, body: AnalyzeBody, figure: Figure = "ttft_ms") -> Response:
    """Draw a latency of one engine against its rate, or its highest rate against the max batch size."""
    return await answered(request, "plot", body, pool="quick", extra=figure)


@router.post("/explain", **_answers(doc.ExplanationDocument), tags=["understanding"])
async def explain(request: Request, body: ExplainBody) -> Response:
    """Return why a plan is as it is: what each server pays for, what else it could run on, what is at odds."""
    return await answered(request, "explain", body)


@router.post("/whatif", **_answers(doc.WhatifDocument), tags=["understanding"])
async def whatif(request: Request, body: WhatifBody) -> Response:
    """Plan as it is and with other figures, and say what changes."""
    return await answered(request, "whatif", body)


@router.post("/simulate", **_answers(doc.SimulationDocument), tags=["understanding"])
async def simulate(request: Request, body: SimulateBody) -> Response:
    """Simulate a plan, request by request, beside what it predicts."""
    return await answered(request, "simulate", body)


@router.post("/prices", **_answers(doc.PricesDocument), tags=["understanding"])
async def prices(request: Request, body: PricesBody) -> Response:
    """Return what a device more or fewer, and a looser promise, are worth."""
    return await answered(request, "prices", body)


@router.post("/periods", **_answers(doc.PeriodsDocument), tags=["more plans"])
async def periods(request: Request, body: PeriodsBody) -> Response:
    """Plan the replicas of every period of a day, and what to reserve for all of them."""
    return await answered(request, "periods", body)


@router.post("/scenarios", **_answers(doc.ScenariosDocument), tags=["more plans"])
async def scenarios(request: Request, body: ScenariosBody) -> Response:
    """Plan what to reserve, and where to run, for loads that are not certain."""
    return await answered(request, "scenarios", body)


@router.post("/route", **_answers(doc.RoutedDocument), tags=["more plans"])
async def route(request: Request, body: RouteBody) -> Response:
    """Plan with requests routed to accelerators by their sizes."""
    return await answered(request, "route", body)


@router.post("/share", **_answers(doc.SharedDocument), tags=["more plans"])
async def share(request: Request, body: ShareBody) -> Response:
    """Plan with servers of one model that share replicas."""
    return await answered(request, "share", body)


@router.post("/disaggregate", **_answers(doc.DisaggregatedDocument), tags=["more plans"])
async def disaggregate(request: Request, body: DisaggregateBody) -> Response:
    """Plan with prompts and outputs on engines of their own."""
    return await answered(request, "disaggregate", body)


PLAN_OF = {"optimize": None, "whatif": "after", "route": "plan", "share": "plan", "disaggregate": "plan"}
"""Kinds of jobs whose answer is a plan of one load, or has one, and under which key."""
JobId = Annotated[str, Path(max_length=64, pattern=r"^[\w-]+$")]


async def find_job(rooms: RoomsHere, job: JobId) -> JobRecord:
    """Return a job, or 404."""
    record = await rooms.store.do(rooms.store.get, job)
    if record is None:
        raise HTTPException(404, "no such job")
    return record


FoundJob = Annotated[JobRecord, Depends(find_job)]


def job_document(rooms: Rooms, record: JobRecord) -> doc.JobDocument:
    """Return a job as JSON has it."""
    return doc.JobDocument(**_told(record), progress=rooms.jobs.progress_of(record.id))


def _told(record: JobRecord) -> dict[str, Any]:
    fields = asdict(record)
    del fields["owner"]
    return fields


@router.post("/jobs", status_code=202, responses=WITH_BODY, tags=["jobs"])
async def add_job(rooms: RoomsHere, response: Response, body: Annotated[Job, Body()]) -> doc.JobDocument:
    """Ask for something that may take long; what came of it is kept, also when the service is started anew."""
    _check_limit(body, rooms.config.job_time_limit_s, "for a job here")
    record = await rooms.jobs.add(body)
    response.headers["location"] = f"/v1/jobs/{record.id}"
    return job_document(rooms, record)


@router.get("/jobs", responses={**ALWAYS, 422: ERROR}, tags=["jobs"])
async def list_jobs(
    rooms: RoomsHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    status: JobStatus | None = None,
    before: Annotated[float | None, Query(description="created before, seconds since 1970", ge=0, le=1e12)] = None,
) -> list[doc.JobDocument]:
    """List jobs, the latest first."""
    records = await rooms.store.do(rooms.store.jobs, limit=limit, status=status, before=before)
    return [job_document(rooms, record) for record in records]


@router.get("/jobs/{job}", responses=OF_JOB, tags=["jobs"])
async def get_job(rooms: RoomsHere, record: FoundJob) -> doc.JobDocument:
    """Return how a job is."""
    return job_document(rooms, record)


@router.get("/jobs/{job}/events", response_class=EventSourceResponse, responses=OF_JOB, tags=["jobs"])
async def follow_job(rooms: RoomsHere, record: FoundJob) -> AsyncIterator[ServerSentEvent]:
    """Follow a job, as server-sent events: `status`, `progress` (`stage`, `done`, `of`), and `end` at last."""
    async for event, data in rooms.jobs.events(record.id):
        data.pop("owner", None)
        yield ServerSentEvent(event=event, data=data)


@router.post("/jobs/{job}/cancel", responses=OF_JOB, tags=["jobs"])
async def cancel_job(rooms: RoomsHere, record: FoundJob) -> doc.JobDocument:
    """Cancel a job; one that has ended stays as it is."""
    now = await rooms.jobs.cancel(record.id)
    return job_document(rooms, now or record)


@router.delete(
    "/jobs/{job}",
    status_code=204,
    response_class=Response,
    responses={**OF_JOB, 409: {**ERROR, "description": "It has not ended: cancel it first"}},
    tags=["jobs"],
)
async def delete_job(rooms: RoomsHere, record: FoundJob) -> Response:
    """Forget a job that has ended, and what came of it."""
    if not await rooms.store.do(rooms.store.delete, record.id):
        raise HTTPException(409, "the job has not ended: cancel it first")
    return Response(status_code=204)


RESULT: Errors = {**OF_JOB, 409: {**ERROR, "description": "There is no result: the job has not ended, or was ended"}}


MADE: Errors = {**RESULT, 429: WITH_BODY[429], 504: WITH_BODY[504]}


async def result_of(rooms: Rooms, record: JobRecord) -> tuple[int, str]:
    """Return a job's result, or 409."""
    result = await rooms.store.do(rooms.store.result_of, record.id)
    if result is None:
        raise HTTPException(409, f"there is no result: the job is {record.status}")
    return result


@router.get(
    "/jobs/{job}/result",
    response_class=Response,
    responses={
        **RESULT,
        200: {"description": "What the path of the job's kind answers", "content": {JSON: {"schema": {}}}},
        422: {**ERROR, "description": "What was asked cannot be answered"},
        500: {**ERROR, "description": "The job failed"},
        504: {**ERROR, "description": "The job did not end in time"},
    },
    tags=["jobs"],
)
async def get_result(rooms: RoomsHere, record: FoundJob) -> Response:
    """Return what came of a job, as its kind's own path would have answered it."""
    status, text = await result_of(rooms, record)
    return as_response(Answer(status, text.encode()))


async def request_of(rooms: Rooms, record: JobRecord) -> dict[str, Any]:
    """Return what a job was asked."""
    text = await rooms.store.do(rooms.store.request_of, record.id)
    found: dict[str, Any] = json.loads(text or "{}")
    return found


@router.get("/jobs/{job}/request", responses=OF_JOB, tags=["jobs"])
async def get_request(rooms: RoomsHere, record: FoundJob) -> dict[str, Any]:
    """Return what a job was asked."""
    return await request_of(rooms, record)


@router.get(
    "/jobs/{job}/problem.yaml",
    response_class=Response,
    responses={**MADE, 200: {"content": {YAML: {"schema": {"type": "object"}}}}},
    tags=["jobs"],
)
async def get_problem(request: Request, rooms: RoomsHere, record: FoundJob) -> Response:
    """Return the problem of a job, its settings applied and all it includes in it, as YAML."""
    asked = await request_of(rooms, record)
    if asked.get("problem") is None:
        raise HTTPException(409, "this job has no problem")
    return _download(await answered(request, "problem_yaml", ValidateBody(**asked), pool="quick"), "problem.yaml")


@router.get(
    "/jobs/{job}/plan.csv",
    response_class=Response,
    responses={**MADE, 200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    tags=["jobs"],
)
async def get_plan_table(request: Request, rooms: RoomsHere, record: FoundJob) -> Response:
    """Return the plan of a job as CSV, a row for each allocation."""
    status, text = await result_of(rooms, record)
    document = json.loads(text)
    if status != 200 or record.kind not in PLAN_OF:
        raise HTTPException(409, "this job has no plan of one load")
    key = PLAN_OF[record.kind]
    plan = document if key is None else document[key]
    return _download(await answered(request, "plan_csv", pool="quick", extra=plan), "plan.csv")


def _download(response: Response, name: str) -> Response:
    if response.status_code == 200:
        response.headers["content-disposition"] = f'attachment; filename="{name}"'
    return response


@health.get("/healthz", tags=["operation"])
async def is_alive() -> doc.HealthDocument:
    """Return whether the service is alive, whatever its workers do."""
    return doc.HealthDocument(status="ok")


@health.get("/readyz", responses={503: ERROR}, tags=["operation"])
async def is_ready(rooms: RoomsHere) -> doc.HealthDocument:
    """Return whether the service takes on work: it is not about to stop, and its store answers."""
    if rooms.jobs.closing:
        raise HTTPException(503, "the service is about to stop")
    await rooms.store.do(rooms.store.ping)
    return doc.HealthDocument(status="ok")


@health.get(
    "/metrics",
    response_class=Response,
    responses={**ALWAYS, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    tags=["operation"],
)
async def get_metrics(rooms: RoomsHere) -> Response:
    """Return counters and gauges for Prometheus."""
    return Response(rooms.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
