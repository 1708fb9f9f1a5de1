"""The page to plan on: a shell that holds nobody's data, and parts of it that workers make of jobs."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.staticfiles import StaticFiles

from inferno_milp.problem.shipped import INSTANCES, shipped
from inferno_milp.report.html.templates import load_template
from inferno_milp.service.bodies import EXAMPLE, AnalyzeBody, ValidateBody
from inferno_milp.service.rooms import Rooms
from inferno_milp.service.v1 import FoundJob, JobId, RoomsHere, answered, request_of, result_of

router = APIRouter(include_in_schema=False)
PARTS = {
    "why": ("explain", "why_page"),
    "prices": ("prices", "prices_page"),
    "simulations": ("simulate", "simulation_page"),
}
"""Parts of the page that show what came of a job: the job's kind, and the work that makes the part."""


def add_page(app: FastAPI) -> None:
    """Add the page, its parts and its files, and the API's own page."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=str(files("inferno_milp.service").joinpath("static"))), "static")
    app.mount("/swagger", StaticFiles(directory=str(files("fastapi_swagger").joinpath("resources"))), "swagger")


@cache
def _examples() -> dict[str, dict[str, str]]:
    """Examples that come with the program: their text, and the first sentence of their description."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in shipped(INSTANCES)}
    first = ["small", "limited"]
    names = [*first, *sorted(texts.keys() - {*first})]
    found = {"smallest": {"name": "smallest", "words": "One server, two types of GPU", "text": EXAMPLE}}
    for name in names:
        description = str((yaml.safe_load(texts[name]) or {}).get("description", ""))
        words = " ".join(description.split()).split(". ")[0].split(" (")[0].replace("`", "").rstrip(".")
        found[name] = {"name": name, "words": words, "text": texts[name]}
    return found


def _shell(job: str) -> HTMLResponse:
    template = load_template("inferno_milp.service", "templates/page.html")
    return HTMLResponse(template.render(job=job, examples=list(_examples().values())))


@router.get("/")
async def show_page() -> HTMLResponse:
    """Show the page."""
    return _shell("")


@router.get("/docs")
async def show_api() -> HTMLResponse:
    """Show the API's document; all that the page needs comes from here, by paths that hold behind any proxy."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="inferno_milp: API",
        swagger_js_url="/swagger/swagger-ui-bundle.js",
        swagger_css_url="/swagger/swagger-ui.css",
        swagger_favicon_url="/static/icon.svg",
        swagger_ui_parameters={"tryItOutEnabled": True, "filter": True, "defaultModelsExpandDepth": 0},
    )


@router.get("/p/{job}")
async def show_plan(job: JobId) -> HTMLResponse:
    """Show the page with a plan that was made before."""
    return _shell(job)


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
    earlier = await rooms.store.do(rooms.store.get, before) if before else None
    extra = {
        "job": record.id,
        "plan": plan,
        "before": await _document(rooms, earlier, "optimize") if earlier is not None else None,
        "settings": asked.get("settings", []),
    }
    return await answered(request, "plan_page", ValidateBody(**asked), pool="quick", extra=extra)


@router.get("/page/{part}/{job}")
async def get_part(request: Request, rooms: RoomsHere, record: FoundJob, part: str) -> Response:
    """Return a part that shows what came of a job."""
    if part not in PARTS:
        raise HTTPException(404, "no such part")
    kind, work = PARTS[part]
    return await answered(request, work, pool="quick", extra=await _document(rooms, record, kind))


@router.post("/page/curves")
async def get_curves_part(request: Request, body: AnalyzeBody, rate: float | None = None) -> Response:
    """Return the part with the curves of an engine, on which a rate may be marked, requests/s."""
    return await answered(request, "curves_page", body, pool="quick", extra=rate)
