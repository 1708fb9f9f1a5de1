"""The kinds of custom resources: those of llm-inferno's controller, in the words and units of a problem's sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from inferno_milp.errors import Fault, PathPart
from inferno_milp.problem.architecture import LanguageModel
from inferno_milp.problem.fields import Count, Flag, Model, Name, NonNegative, is_name
from inferno_milp.problem.sections import Options, Profile, Server, ServiceClass
from inferno_milp.problem.spelling import nearest
from inferno_milp.problem.supply import Accelerator, NodeGroup

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
    latencies_ms: dict[Name, dict[Name, NonNegative]] = {}  # noqa: RUF012 - pydantic copies it
    """From the region of a server to that of an accelerator, ms, there and back."""


Spec = Mapping[str, Any]


def _model(spec: Spec, name: str) -> dict[str, Any]:
    """Return a Model as profiles and a language model."""
    found: dict[str, Any] = {}
    name = spec["name"] if is_name(spec.get("name")) else name
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
    found = {"nodes": spec["nodes"]} if "nodes" in spec else {}
    if "devices" in spec:
        found["capacity"] = spec["devices"]
    else:
        found["capacity"] = "unlimited" if spec.get("unlimited") is True else {}
    return found


def _own_faults(kind: Kind, spec: Spec) -> Iterator[Fault]:
    """Find what is wrong with a spec of our own words, beside what the reader of problems says of its parts."""
    for key in spec:
        if key not in kind.spec.model_fields:
            yield Fault("unknown key", nearest(str(key), kind.spec.model_fields), (str(key),))
    for key in ("optimize", "unlimited"):
        if not isinstance(spec.get(key, False), bool):
            yield Fault("must be true or false", "", (key,))
    if kind.name == "Model" and not is_name(spec.get("name", "none")):
        yield Fault("is no name", "", ("name",))
    if kind.name == "Capacity" and (("devices" in spec) == bool(spec.get("unlimited"))):
        yield Fault("must have `devices`, or `unlimited: true`", "one of the two")


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
    loose : fields of the spec that may be written in more ways than a schema says.
    """

    name: str
    plural: str
    spec: type[Model]
    document: Callable[[Spec, str], dict[str, Any]]
    places: Mapping[tuple[str, ...], tuple[PathPart, ...]]
    given: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    columns: tuple[tuple[str, str, str], ...] = ()
    loose: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether its words are our own, not those of one section of a problem."""
        return () not in self.places

    def faults(self, spec: Spec) -> Iterator[Fault]:
        """Find what the reader of problems cannot see."""
        return _own_faults(self, spec) if self.own else iter(())

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
            VALID,
            ("Desired", "string", ".status.summary"),
            ("Served", "string", '.status.conditions[?(@.type=="Served")].status'),
            ("Reason", "string", ".status.reason"),
        ),
        ("reserve", "current"),
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
