"""The page to plan on: a shell that holds nobody's data, and parts of it that workers make of jobs."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.staticfiles import StaticFiles

from inferno_milp.html.templates import load_template
from inferno_milp.service.answers import Task
from inferno_milp.service.bodies import AnalyzeBody, ValidateBody
from inferno_milp.service.rooms import Rooms
from inferno_milp.service.v1 import FoundJob, JobId, RoomsHere, answered, request_of, result_of
from inferno_milp.shipped import INSTANCES, shipped

router = APIRouter(include_in_schema=False)


def add_page(app: FastAPI) -> None:
    """Add the page, its parts and its files."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=str(files("inferno_milp.service").joinpath("static"))), "static")


@cache
def _examples() -> dict[str, dict[str, str]]:
    """Examples that come with the program: their text, and the first sentence of their description."""
    found = {}
    for path in shipped(INSTANCES):
        text = path.read_text(encoding="utf-8")
        words = str((yaml.safe_load(text) or {}).get("description", "")).strip().split("\n")[0].split(". ")[0]
        found[path.stem] = {"name": path.stem, "words": words.rstrip("."), "text": text}
    return found


def _shell(request: Request, job: str) -> HTMLResponse:
    root = request.scope.get("root_path", "").rstrip("/")
    template = load_template("inferno_milp.service", "templates/page.html")
    return HTMLResponse(template.render(root=root, job=job, examples=list(_examples().values())))


@router.get("/")
async def show_page(request: Request) -> HTMLResponse:
    """Show the page."""
    return _shell(request, "")


@router.get("/p/{job}")
async def show_plan(request: Request, job: JobId) -> HTMLResponse:
    """Show the page with a plan that was made before."""
    return _shell(request, job)


@router.get("/page/examples/{name}")
async def get_example(name: str) -> PlainTextResponse:
    """Return the text of an example."""
    if name not in _examples():
        raise HTTPException(404, "no such example")
    return PlainTextResponse(_examples()[name]["text"])


async def _document(rooms: Rooms, job: FoundJob, kind: str) -> Any:
    if job.kind != kind:
        raise HTTPException(409, f"this job is no {kind}")
    status, text = await result_of(rooms, job)
    if status != 200:
        raise HTTPException(409, "this job has no result to show")
    return json.loads(text)


@router.get("/page/plans/{job}")
async def get_plan_part(request: Request, rooms: RoomsHere, record: FoundJob, before: str = "") -> Response:
    """Return the part with a plan, and what has changed since another."""
    plan = await _document(rooms, record, "optimize")
    asked = await request_of(rooms, record)
    body = ValidateBody(**{name: asked[name] for name in ("problem", "files", "settings") if name in asked})
    earlier = await run_in_threadpool(rooms.store.get, before) if before else None
    extra = {
        "job": record.id,
        "plan": plan,
        "before": await _document(rooms, earlier, "optimize") if earlier is not None else None,
        "root": request.scope.get("root_path", "").rstrip("/"),
    }
    return await answered(request, Task("plan_page", body, 0, extra=extra), "quick")


@router.get("/page/why/{job}")
async def get_why_part(request: Request, rooms: RoomsHere, record: FoundJob) -> Response:
    """Return the part with an explanation."""
    extra = await _document(rooms, record, "explain")
    return await answered(request, Task("why_page", None, 0, extra=extra), "quick")


@router.get("/page/prices/{job}")
async def get_prices_part(request: Request, rooms: RoomsHere, record: FoundJob) -> Response:
    """Return the part with prices."""
    extra = await _document(rooms, record, "prices")
    return await answered(request, Task("prices_page", None, 0, extra=extra), "quick")


@router.post("/page/curves")
async def get_curves_part(request: Request, body: AnalyzeBody) -> Response:
    """Return the part with the curves of an engine."""
    return await answered(request, Task("curves_page", body, 0), "quick")
