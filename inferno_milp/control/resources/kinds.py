"""The kinds of custom resources: those of llm-inferno's controller, in the words and units of a problem's sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inferno_milp.architecture import LanguageModel
from inferno_milp.errors import PathPart
from inferno_milp.fields import Count, Flag, Model, Name
from inferno_milp.sections import Accelerator, NodeGroup, Options, Profile, Server, ServiceClass

GROUP, VERSION = "inferno-milp.dev", "v1alpha1"


class ModelSpec(Model):
    """A language model: how fast it is on accelerators, and its architecture where that is to be estimated."""

    name: Name
    """Name of the model."""
    profiles: tuple[Profile, ...] = ()
    """Its speed on accelerators; each without `model`."""
    architecture: LanguageModel | None = None
    """Figures of its configuration; without `name`."""


class CapacitySpec(Model):
    """Devices that there are."""

    devices: dict[Name, Count] | None = None
    """Devices of each accelerator type."""
    unlimited: Flag = False
    """Whether there are always enough of all types."""
    nodes: tuple[NodeGroup, ...] = ()
    """Nodes that they are in."""


class OptimizerSpec(Model):
    """How the fleet is planned, and whether."""

    optimize: Flag = True
    """False: rounds say what they would do, and change nothing."""
    name: Name = "cluster"
    """Name of the problem."""
    currency: Name = "cents"
    """Unit of all costs."""
    options: Options = Options()


Spec = Mapping[str, Any]


def _model(spec: Spec, name: str) -> dict[str, Any]:
    """Return a Model as profiles and a language model; keys that it does not know stay, for the reader to refuse."""
    known = ("name", "profiles", "architecture")
    found = {key: value for key, value in spec.items() if key not in known}
    name = spec.get("name", name)
    if "profiles" in spec:
        found["profiles"] = _named(spec["profiles"], "model", name)
    if "architecture" in spec:
        found["language_models"] = _named([spec["architecture"]], "name", name)
    return found


def _named(items: Any, key: str, name: Any) -> Any:
    if not isinstance(items, list):
        return items
    return [{key: name, **item} if isinstance(item, dict) else item for item in items]


def _capacity(spec: Spec, name: str) -> dict[str, Any]:
    found = {key: value for key, value in spec.items() if key not in ("devices", "unlimited")}
    if "devices" in spec:
        found["capacity"] = spec["devices"]
    if spec.get("unlimited") is True and "devices" not in spec:
        found["capacity"] = "unlimited"
    return found


def _optimizer(spec: Spec, name: str) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "optimize"}


def _item_of(section: str) -> Callable[[Spec, str], dict[str, Any]]:
    return lambda spec, name: {section: [{"name": name, **spec}]}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    Attributes
    ----------
    spec : its model; what of that is not asked for is in `given`, by the path of the mapping that it is a field of.
    document : from a spec and the object's name to the sections of a problem.
    places : where in that document a part of the spec stands, by its path in the spec.
    columns : what `kubectl get` shows: title, type, path.
    """

    name: str
    plural: str
    spec: type[Model]
    document: Callable[[Spec, str], dict[str, Any]]
    places: Mapping[tuple[str, ...], tuple[PathPart, ...]]
    given: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    columns: tuple[tuple[str, str, str], ...] = ()

    def place(self, path: tuple[PathPart, ...]) -> tuple[PathPart, ...]:
        """Return where in the object it is that stands at a path of its document."""
        for own, place in self.places.items():
            if path[: len(place)] == place:
                return ("spec", *own, *path[len(place) :])
        return ("spec", *path)


VALID = ("Valid", "string", '.status.conditions[?(@.type=="Valid")].status')
NAME: dict[tuple[str, ...], tuple[str, ...]] = {(): ("name",)}
KINDS = (
    Kind(
        "Accelerator",
        "accelerators",
        Accelerator,
        _item_of("accelerators"),
        {(): ("accelerators", 0)},
        {(): ("name", "type")},
        (("Type", "string", ".spec.type"), ("Cost", "number", ".spec.cost_per_hour"), VALID),
    ),
    Kind("Capacity", "capacities", CapacitySpec, _capacity, {("devices",): ("capacity",)}, columns=(VALID,)),
    Kind(
        "Model",
        "models",
        ModelSpec,
        _model,
        {("architecture",): ("language_models", 0)},
        {**NAME, ("profiles",): ("model", "gamma_ms", "delta_ms"), ("architecture",): ("name",)},
        (VALID,),
    ),
    Kind(
        "ServiceClass",
        "serviceclasses",
        ServiceClass,
        _item_of("service_classes"),
        {(): ("service_classes", 0)},
        NAME,
        (("Priority", "integer", ".spec.priority"), VALID),
    ),
    Kind(
        "Server",
        "servers",
        Server,
        _item_of("servers"),
        {(): ("servers", 0)},
        NAME,
        (
            ("Class", "string", ".spec.service_class"),
            ("Model", "string", ".spec.model"),
            ("Desired", "string", ".status.desired[*].accelerator"),
            ("Replicas", "string", ".status.desired[*].replicas"),
            ("Served", "string", '.status.conditions[?(@.type=="Served")].status'),
            ("Reason", "string", ".status.reason"),
        ),
    ),
    Kind(
        "Optimizer",
        "optimizers",
        OptimizerSpec,
        _optimizer,
        {},
        columns=(
            ("Optimize", "boolean", ".spec.optimize"),
            ("State", "string", ".status.state"),
            ("Cost", "number", ".status.plan.total_cost_per_hour"),
            ("Round", "integer", ".status.round"),
            VALID,
        ),
    ),
)
BY_NAME = {kind.name: kind for kind in KINDS}
