"""llm-inferno's own REST API, path by path: names, verbs, units and messages as its clients know them.

Requests per minute, cents per hour, ms. An unknown name is a 404 `{"message": "<kind> <name> not found"}`, an error of
the optimization a 404 as well, a body that is not what is wanted a 400. Source: llm-inferno/optimizer v0.6.0.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Path, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from inferno_milp.errors import InputError
from inferno_milp.problem.reading.system_convert import read_priority
from inferno_milp.problem.reading.system_models import (
    SystemAccelerator,
    SystemAcceleratorData,
    SystemAllocation,
    SystemCapacityData,
    SystemModelData,
    SystemModelTarget,
    SystemOptimizer,
    SystemProfile,
    SystemServer,
    SystemServerData,
    SystemServiceClass,
    SystemServiceClassData,
    SystemTypeCount,
)
from inferno_milp.service.answers import JSON, Task, dumped
from inferno_milp.service.documents import ALWAYS, ERROR, WITH_BODY, Errors
from inferno_milp.service.failures import SEEDS
from inferno_milp.service.pool import TimeUpError
from inferno_milp.service.rooms import find_rooms
from inferno_milp.service.seed_state import (
    MOST_TOLD,
    AllocationSolution,
    AnyCase,
    SystemData,
    SystemState,
    with_targets,
)
from inferno_milp.service.v1 import CLIENT_GONE, OVERTIME_S, JsonRoute, unless_gone

logger = logging.getLogger(__name__)

NameInPath = Annotated[str, Path(max_length=200)]
BAD: Errors = {status: words for status, words in WITH_BODY.items() if status not in (422, 504)}
UNKNOWN: Errors = {**ALWAYS, 404: {**ERROR, "description": "No such name"}, 400: ERROR}
PLANNED: Errors = {**BAD, 404: {**ERROR, "description": "An error of the optimization"}}
Endpoint = Callable[..., Awaitable[Any]]


class Seed:
    """The paths, and the system that they set up and ask for.

    Parameters
    ----------
    stateful : whether the system can be set up piece by piece.
    """

    def __init__(self, *, stateful: bool):
        self.state = SystemState()
        self.router = APIRouter(tags=[SEEDS], route_class=JsonRoute)
        self._add_reading()
        self._post("/optimizeOne", AllocationSolution, self.optimize_one, PLANNED)
        if stateful:
            self._add_changing()

    def _add_reading(self) -> None:
        self._get("/getAccelerators", list[SystemAccelerator], self.get_accelerators, ALWAYS)
        self._get("/getAccelerator/{name}", SystemAccelerator, self.get_accelerator)
        self._get("/getCapacities", SystemCapacityData, self.get_capacities, ALWAYS)
        self._get("/getCapacity/{type}", SystemTypeCount, self.get_capacity)
        self._get("/getModels", list[str], self.get_models, ALWAYS)
        self._get("/getModel/{name}", SystemModelData, self.get_model)
        self._get("/getServiceClasses", SystemServiceClassData, self.get_service_classes, ALWAYS)
        self._get("/getServiceClass/{name}", SystemServiceClass, self.get_service_class)
        self._get("/getServiceClassModelTarget/{name}/{model}", SystemModelTarget, self.get_target)
        self._get("/getServers", SystemServerData, self.get_servers, ALWAYS)
        self._get("/getServer/{name}", SystemServer, self.get_server)
        self._get("/getModelAcceleratorPerf/{name}/{acc}", SystemProfile, self.get_profile)

    def _add_changing(self) -> None:
        found = {**BAD, 404: UNKNOWN[404]}
        self._post("/setAccelerators", SystemAcceleratorData, self.set_accelerators, BAD)
        self._post("/addAccelerator", SystemAccelerator, self.add_accelerator, BAD)
        self._get("/removeAccelerator/{name}", SystemAccelerator, self.remove_accelerator)
        self._post("/setCapacities", SystemCapacityData, self.set_capacities, BAD)
        self._post("/setCapacity", SystemTypeCount, self.set_capacity, BAD)
        self._get("/removeCapacity/{type}", SystemTypeCount, self.remove_capacity)
        self._post("/setModels", SystemModelData, self.set_models, BAD)
        self._get("/addModel/{name}", str, self.add_model)
        self._get("/removeModel/{name}", str, self.remove_model)
        self._post("/setServiceClasses", SystemServiceClassData, self.set_service_classes, BAD)
        self._get("/addServiceClass/{name}/{priority}", SystemServiceClass, self.add_service_class)
        self._get("/removeServiceClass/{name}", SystemServiceClass, self.remove_service_class)
        self._post("/addServiceClassModelTargets", SystemServiceClass, self.add_targets, found)
        self._get("/removeServiceClassModelTarget/{name}/{model}", SystemModelTarget, self.remove_target)
        self._post("/setServers", SystemServerData, self.set_servers, BAD)
        self._post("/addServer", SystemServer, self.add_server, BAD)
        self._get("/removeServer/{name}", SystemServer, self.remove_server)
        self._post("/addModelAcceleratorPerf", SystemProfile, self.add_profile, found)
        self._get("/removeModelAcceleratorPerf/{name}/{acc}", SystemProfile, self.remove_profile)
        self._post("/optimize", AllocationSolution, self.optimize, PLANNED)
        self._get("/applyAllocation", str, self.apply_allocation, ALWAYS)

    def _get(self, path: str, model: Any, endpoint: Endpoint, responses: Errors = UNKNOWN) -> None:
        answers: Errors = {200: {"model": model}, **responses}
        self.router.get(path, responses=answers, response_class=Response)(_told(endpoint))
        self.router.add_route(f"{path}/", _without_slash, ["GET"], include_in_schema=False)

    def _post(self, path: str, model: Any, endpoint: Endpoint, responses: Errors) -> None:
        answers: Errors = {200: {"model": model}, **responses}
        self.router.post(path, responses=answers, response_class=Response)(_told(endpoint))
        self.router.add_route(f"{path}/", _without_slash, ["POST"], include_in_schema=False)

    # What is there.

    async def get_accelerators(self) -> Any:
        """List the accelerators."""
        return list(self.state.accelerators.values())

    async def get_accelerator(self, name: NameInPath) -> Any:
        """Return an accelerator."""
        return _found(self.state.accelerators, name, "accelerator")

    async def get_capacities(self) -> Any:
        """Return the devices of all types."""
        counts = tuple(SystemTypeCount(type=t, count=count) for t, count in self.state.capacities.items())
        return SystemCapacityData(count=counts)

    async def get_capacity(self, type: NameInPath) -> Any:  # noqa: A002 - the seed's own name
        """Return the devices of a type."""
        return SystemTypeCount(type=type, count=_found(self.state.capacities, type, "capacity for"))

    async def get_models(self) -> Any:
        """List the models' names."""
        return list(self.state.models)

    async def get_model(self, name: NameInPath) -> Any:
        """Return a model's profiles."""
        return SystemModelData(models=tuple(_found(self.state.models, name, "model").values()))

    async def get_service_classes(self) -> Any:
        """Return the service classes."""
        return SystemServiceClassData(serviceclasses=tuple(self.state.classes.values()))

    async def get_service_class(self, name: NameInPath) -> Any:
        """Return a service class."""
        return _found(self.state.classes, name, "service class")

    async def get_target(self, name: NameInPath, model: NameInPath) -> Any:
        """Return what a service class promises for a model."""
        targets = _found(self.state.classes, name, "service class").modeltargets
        return _found({target.model: target for target in targets}, model, "model")

    async def get_servers(self) -> Any:
        """Return the servers."""
        return SystemServerData(servers=tuple(map(_whole, self.state.servers.values())))

    async def get_server(self, name: NameInPath) -> Any:
        """Return a server."""
        return _whole(_found(self.state.servers, name, "server"))

    async def get_profile(self, name: NameInPath, acc: NameInPath) -> Any:
        """Return the profile of a model on an accelerator."""
        return _found(_found(self.state.models, name, "model"), acc, "accelerator")

    # What may be changed.

    async def set_accelerators(self, data: Annotated[SystemAcceleratorData, AnyCase, Body()]) -> Any:
        """Add accelerators."""
        self.state.add_accelerators(data.accelerators)
        return data

    async def add_accelerator(self, accelerator: Annotated[SystemAccelerator, AnyCase, Body()]) -> Any:
        """Add an accelerator."""
        self.state.add_accelerators([accelerator])
        return accelerator

    async def remove_accelerator(self, name: NameInPath) -> Any:
        """Remove an accelerator, and return it."""
        return _taken(self.state.accelerators, name, "accelerator")

    async def set_capacities(self, data: Annotated[SystemCapacityData, AnyCase, Body()]) -> Any:
        """Set how many devices there are of some types."""
        self.state.add_capacities(data.count)
        return data

    async def set_capacity(self, count: Annotated[SystemTypeCount, AnyCase, Body()]) -> Any:
        """Set how many devices there are of a type."""
        self.state.add_capacities([count])
        return count

    async def remove_capacity(self, type: NameInPath) -> Any:  # noqa: A002 - the seed's own name
        """Forget the devices of a type, and return how many they were."""
        return SystemTypeCount(type=type, count=_taken(self.state.capacities, type, "accelerator type"))

    async def set_models(self, data: Annotated[SystemModelData, AnyCase, Body()]) -> Any:
        """Add profiles, and the models that they are of."""
        self.state.add_profiles(data.models)
        return data

    async def add_model(self, name: NameInPath) -> Any:
        """Add a model without profiles; one of that name loses its own."""
        self.state.models[name] = {}
        return name

    async def remove_model(self, name: NameInPath) -> Any:
        """Remove a model."""
        _taken(self.state.models, name, "model")
        return name

    async def set_service_classes(self, data: Annotated[SystemServiceClassData, AnyCase, Body()]) -> Any:
        """Add service classes; those that are there are replaced."""
        self.state.add_classes(data.serviceclasses)
        return data

    async def add_service_class(self, name: NameInPath, priority: NameInPath) -> Any:
        """Add a service class without targets; one of that name loses its own."""
        try:
            number = int(priority[:20])
        except ValueError:
            raise HTTPException(400, f"service class priority {priority} invalid") from None
        self.state.classes[name] = SystemServiceClass.model_construct(
            name=name, priority=read_priority(number), modeltargets=()
        )
        return self.state.classes[name]

    async def remove_service_class(self, name: NameInPath) -> Any:
        """Remove a service class, and return it."""
        return _taken(self.state.classes, name, "service class")

    async def add_targets(self, data: Annotated[SystemServiceClass, AnyCase, Body()]) -> Any:
        """Add promises to a service class, whose priority must be as it is."""
        known = _found(self.state.classes, data.name, "service class")
        if data.priority != known.priority:
            told = f"priority {data.priority}, and it has {known.priority}"
            raise HTTPException(400, f"inconsistent service class {data.name}: {told}")
        self.state.classes[data.name] = with_targets(known, data.modeltargets)
        return self.state.classes[data.name]

    async def remove_target(self, name: NameInPath, model: NameInPath) -> Any:
        """Remove what a service class promises for a model, and return it."""
        known = _found(self.state.classes, name, "service class")
        targets = {target.model: target for target in known.modeltargets}
        gone = _taken(targets, model, "model")
        self.state.classes[name] = known.model_copy(update={"modeltargets": tuple(targets.values())})
        return gone

    async def set_servers(self, data: Annotated[SystemServerData, AnyCase, Body()]) -> Any:
        """Add servers."""
        self.state.add_servers(data.servers)
        return data

    async def add_server(self, server: Annotated[SystemServer, AnyCase, Body()]) -> Any:
        """Add a server."""
        self.state.add_servers([server])
        return server

    async def remove_server(self, name: NameInPath) -> Any:
        """Remove a server, and return it."""
        return _whole(_taken(self.state.servers, name, "server"))

    async def add_profile(self, profile: Annotated[SystemProfile, AnyCase, Body()]) -> Any:
        """Add a profile to a model that is there."""
        _found(self.state.models, profile.name, "model")
        self.state.add_profiles([profile])
        return profile

    async def remove_profile(self, name: NameInPath, acc: NameInPath) -> Any:
        """Remove the profile of a model on an accelerator, and return it."""
        return _taken(_found(self.state.models, name, "model"), acc, "accelerator")

    async def apply_allocation(self) -> Any:
        """Let the desired allocations be the current ones."""
        self.state.apply()
        return "Done"

    # What is planned.

    async def optimize(self, request: Request, flags: Annotated[SystemOptimizer, AnyCase, Body()]) -> Any:
        """Plan for the system as it was set up."""
        return await self._planned(self.state, flags, request)

    async def optimize_one(self, request: Request, data: Annotated[SystemData, AnyCase, Body()]) -> Any:
        """Plan for a whole system, which takes the place of the one that was there."""
        state = self.state = await run_in_threadpool(SystemState.of, data.system)
        return await self._planned(state, data.system.optimizerData.optimizer, request)

    async def _planned(
        self, state: SystemState, flags: SystemOptimizer, request: Request
    ) -> tuple[AllocationSolution, dict[str, str]]:
        rooms = find_rooms(request)
        if not flags.milpsolver and flags.heterogeneous:
            flags = flags.model_copy(update={"heterogeneous": False})  # greedy knows no mixes, here as in the seed
        try:
            # A copy, since the thread reads it while other requests change the system.
            task = await run_in_threadpool(_task, state.copy(), flags, rooms.config.time_limit_s)
            if task is None:
                return AllocationSolution(allocations={}), {}
            work = rooms.solve.do(task, time_limit_s=rooms.config.time_limit_s + OVERTIME_S)
            answer = await unless_gone(request, work)
        except InputError as error:
            told = "; ".join(map(str, error.faults[:MOST_TOLD]))
            raise HTTPException(404, f"optimization error: {told}") from None
        except TimeUpError:
            raise HTTPException(404, "optimization error: no plan within the time limit") from None
        if answer is None:
            raise HTTPException(CLIENT_GONE, "the client has gone away")
        if answer.status != 200:
            raise HTTPException(404, f"optimization error: {answer.summary.get('message', 'no plan')}")
        headers = {}
        if answer.summary["is_single_instead"]:
            note = "some servers would run on several accelerators, which this answer cannot say: planned with one each"
            logger.warning("heterogeneous: %s", note)
            headers["x-inferno-note"] = note
        solution = state.solution(answer.summary["plan"])
        state.desire(solution)
        return solution, headers


async def _without_slash(request: Request) -> Response:
    """Send a client to the path without the slash at its end, as the seed's router (gin) does."""
    path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    query = f"?{request.url.query}" if request.url.query else ""
    # One slash at the start: with two, the place would be another host.
    place = f"/{path.strip('/')}{query}"
    return Response(status_code=301 if request.method in ("GET", "HEAD") else 307, headers={"location": place})


def _told(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint answer as the seed does: keys as it spells them, and whole numbers without a point.

    A reader in Go takes 24.0 for no whole number, and half of its fields are such.
    """

    @functools.wraps(endpoint)
    async def answer(*arguments: Any, **named: Any) -> Response:
        found = await endpoint(*arguments, **named)
        if isinstance(found, tuple):
            found, headers = found
        else:
            headers = None
        return Response(dumped(_plain(found)), media_type=JSON, headers=headers)

    return answer


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, exclude_none=True)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _task(state: SystemState, flags: SystemOptimizer, time_limit_s: float) -> Task | None:
    problem, solver = state.problem(flags), "milp" if flags.milpsolver else "greedy"
    return None if problem is None else Task("seed", problem, time_limit_s, extra=solver)


def _found(known: dict[str, Any], name: str, kind: str) -> Any:
    if name not in known:
        raise HTTPException(404, f"{kind} {name} not found")
    return known[name]


def _taken(known: dict[str, Any], name: str, kind: str) -> Any:
    found = _found(known, name, kind)
    del known[name]
    return found


def _whole(server: SystemServer) -> SystemServer:
    """Return a server with a desired allocation, if only an empty one, as the seed's always have."""
    return server if server.desiredalloc else server.model_copy(update={"desiredalloc": SystemAllocation()})
