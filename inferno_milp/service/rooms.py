"""What one running service has: its set-up, its store, its workers, its jobs."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from inferno_milp.service.analyst import Analyst
from inferno_milp.service.config import ServiceConfig
from inferno_milp.service.jobs import Jobs
from inferno_milp.service.metrics import Metrics
from inferno_milp.service.pool import WorkerPool
from inferno_milp.service.store import Store


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the paths of a service share."""

    config: ServiceConfig
    store: Store
    metrics: Metrics
    jobs: Jobs
    quick: WorkerPool
    solve: WorkerPool
    analyst: Analyst


def find_rooms(request: Request) -> Rooms:
    """Return the rooms of the service that a request came to."""
    rooms: Rooms = request.app.state.rooms
    return rooms
