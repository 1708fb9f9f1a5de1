"""The problem: what a document says, as frozen models with every number's unit in its name.

Field rules live on the fields; `reference_faults` holds the rules between sections (names that must exist, or must
not exist twice). A `Problem` that exists has passed both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr, ValidationError, field_serializer, model_validator

from inferno_milp.errors import Fault, InputError, OptionError, PathPart, path_text
from inferno_milp.problem.fields import Targets
from inferno_milp.problem.sections import Options, Profile, Sections, Server, ServiceClass
from inferno_milp.problem.spelling import nearest
from inferno_milp.problem.supply import Capacity, pooled

PROBABILITIES_OFF = 1e-6
"""By so much the probabilities of scenarios may miss 1."""
MOST_SPREAD = 1e6
"""Factor between weights of one priority up to which the smallest still counts beside the largest."""


def new_name(name: str, taken: Collection[str]) -> str:
    """Return a name that nothing has yet: this one, or with primes."""
    while name in taken:
        name += "'"
    return name


class Problem(Sections):
    """A whole problem: accelerators, profiles, capacity, service classes, servers.

    Raises
    ------
    InputError
        If a name is missing or given twice. Wrong fields raise pydantic's ValidationError.
    """

    capacity: Capacity
    """Devices of each accelerator type (a type not named has none); None, written `unlimited`, is no limit."""

    _relaxed_targets: dict[str, Targets] = PrivateAttr(default_factory=dict)

    @field_serializer("capacity")
    def _write_capacity(self, capacity: dict[str, int] | None) -> dict[str, int] | str:
        return "unlimited" if capacity is None else capacity

    @model_validator(mode="after")
    def _references(self) -> Problem:
        faults = tuple(reference_faults(self, self.capacity))
        if faults:
            raise InputError(faults)
        return self

    def __repr__(self) -> str:
        models = {server.model for server in self.servers}
        counts = {"server": self.servers, "language model": models, "accelerator": self.accelerators}
        words = ", ".join(f"{len(all_)} {name}{'' if len(all_) == 1 else 's'}" for name, all_ in counts.items())
        return f"<Problem {self.name}: {words}>"

    def __str__(self) -> str:
        return repr(self)

    @property
    def devices_available(self) -> dict[str, int] | None:
        """Devices of each type that has any, those in nodes included; None without limits."""
        if self.capacity is None:
            return None
        available = Counter(self.capacity)
        for group in self.nodes:
            available[group.type] += group.devices * group.count
        return dict(available)

    @property
    def buyable_types(self) -> frozenset[str]:
        """Accelerator types that may be bought: those of which there is a count, where nothing else is given."""
        if self.buyable is not None:
            return frozenset(self.buyable)
        return frozenset(self.devices_available or {})

    @property
    def accelerators_per_replica(self) -> dict[tuple[str, str], int]:
        """Accelerators that a replica takes, by model and accelerator."""
        return {(p.model, p.accelerator): p.accelerators_per_replica for p in self.profiles}

    @property
    def availabilities(self) -> dict[str, float]:
        """Part of the time that a replica on each accelerator is there, by name."""
        return {a.name: a.availability for a in self.accelerators}

    def positions_of(self, names: Iterable[str]) -> list[int]:
        """Return the positions of servers, by their names.

        Raises
        ------
        OptionError
            With every name that no server has.
        """
        known = {server.name: i for i, server in enumerate(self.servers)}
        names = list(dict.fromkeys(names))
        unknown = [f"unknown server {name!r}; {nearest(name, known)}" for name in names if name not in known]
        if unknown:
            raise OptionError("; ".join(unknown))
        return [known[name] for name in names]

    @property
    def relaxed_targets(self) -> dict[str, Targets]:
        """Targets that servers are planned for, by name, where those promised to them cannot be met."""
        return self._relaxed_targets

    def with_relaxed_targets(self, targets: dict[str, Targets]) -> Problem:
        """Return the same problem with targets in place of those promised, by the names of servers."""
        if targets == self._relaxed_targets:
            return self
        problem = self.model_copy()
        problem._relaxed_targets = dict(targets)
        return problem

    def targets_of(self, server: Server) -> Targets:
        """Return the targets that one of the problem's servers is planned for."""
        return self._relaxed_targets.get(server.name) or self.promised_targets_of(server)

    def promised_targets_of(self, server: Server) -> Targets:
        """Return the targets that are promised to one of the problem's servers."""
        service_class = next(c for c in self.service_classes if c.name == server.service_class)
        return service_class.targets[server.model]

    def latency_ms(self, server: Server, accelerator: str) -> float:
        """Return the time between a server's region and that of an accelerator, by name, there and back."""
        if server.region is None or not self.latencies_ms:
            return 0.0
        region = next(a.region for a in self.accelerators if a.name == accelerator)
        return 0.0 if region is None else self.latencies_ms.get(server.region, {}).get(region, 0.0)

    def promises(self) -> Iterator[tuple[str, str, Targets]]:
        """Yield the promises that servers rely on, each once: service class, model, targets."""
        for server in {(server.service_class, server.model): server for server in self.servers}.values():
            yield server.service_class, server.model, self.targets_of(server)

    def required_rate_per_s(self, server: Server) -> float:
        """Return the rate a server's replicas must carry: the offered one, or what its tokens per second ask for."""
        if server.load is None:
            return 0.0
        promised = (self.targets_of(server).tps or 0.0) / server.load.output_tokens
        return max(server.load.arrival_rate_per_s, promised)

    def with_options(self, **changes: Any) -> Problem:
        """Return the same problem with other options, named as the fields of `Options`.

        Raises
        ------
        OptionError
            For an option that cannot be.
        """
        try:
            options = Options.model_validate({**self.options.model_dump(), **changes})
        except ValidationError as error:
            wrong = [f"{path_text(d['loc'])}={d['input']!r}: {d['msg']}" for d in error.errors(include_url=False)]
            raise OptionError("; ".join(wrong)) from None
        problem = self.model_copy(update={"options": options})
        if faults := [*_region_faults(problem), *_power_faults(problem)]:  # what other options may break
            raise OptionError("; ".join(map(str, faults)))
        return problem

    def with_servers(
        self,
        servers: Iterable[Server],
        service_classes: Iterable[ServiceClass] = (),
        profiles: Iterable[Profile] = (),
    ) -> Problem:
        """Return the problem with other servers, and classes and profiles of theirs besides.

        It has no periods and scenarios: those are of the servers as they were.
        """
        update = {
            "servers": tuple(servers),
            "service_classes": (*self.service_classes, *service_classes),
            "profiles": (*self.profiles, *profiles),
            "periods": (),
            "scenarios": (),
        }
        return self.model_copy(update=update)

    def without_current(self, servers: Collection[int]) -> Problem:
        """Return the problem in which the servers at these positions run nothing today."""
        emptied = [s.model_copy(update={"current": ()}) if i in servers else s for i, s in enumerate(self.servers)]
        return self.model_copy(update={"servers": tuple(emptied)})

    def with_unlimited_capacity(self) -> Problem:
        """Return the same problem without limits on the devices."""
        return self.model_copy(update={"capacity": None, "nodes": ()})


def reference_faults(
    sections: Sections,
    capacity: dict[str, int] | None,
    excused: frozenset[str] = frozenset(),
    *,
    has_servers: bool = False,
    has_all_scenarios: bool = True,
) -> Iterator[Fault]:
    """Find what is wrong between the sections: dangling references, duplicates, models that nothing can serve.

    Parameters
    ----------
    excused : names that are defined somewhere, but wrongly: references to them are not reported again.
    has_servers : whether there are servers at all, though perhaps wrong ones.
    has_all_scenarios : whether no scenario is left out because it is wrong.
    """
    accelerators = _Names({a.name for a in sections.accelerators}, excused)
    in_pools = _pooled(sections)
    homes = _Names((accelerators.known - {base for _, base in in_pools}) | {name for name, _ in in_pools}, excused)
    types = _Names({a.type for a in sections.accelerators}, excused)
    classes = _Names({c.name for c in sections.service_classes}, excused)
    yield from _duplicates(("accelerators", i, a.name) for i, a in enumerate(sections.accelerators))
    yield from _duplicates(("profiles", i, f"{p.model} on {p.accelerator}") for i, p in enumerate(sections.profiles))
    yield from _duplicates(("service_classes", i, c.name) for i, c in enumerate(sections.service_classes))
    yield from _duplicates(("servers", i, s.name) for i, s in enumerate(sections.servers))
    for i, profile in enumerate(sections.profiles):
        if profile.accelerator not in accelerators:
            yield _unknown("accelerator", profile.accelerator, accelerators, ("profiles", i, "accelerator"))
    named: list[tuple[str, tuple[PathPart, ...]]] = [(name, ("capacity", name)) for name in capacity or {}]
    named += [(name, ("buyable", i)) for i, name in enumerate(sections.buyable or ())]
    yield from (_unknown("accelerator type", name, types, path) for name, path in named if name not in types)
    yield from _node_faults(sections, capacity, types)
    yield from _power_faults(sections)
    yield from _pool_faults(sections, capacity, types)
    yield from _moment_faults(sections, _Names({s.name for s in sections.servers}, excused))
    yield from _weight_faults(sections)
    total = sum(scenario.probability for scenario in sections.scenarios)
    if has_all_scenarios and sections.scenarios and abs(total - 1) > PROBABILITIES_OFF:
        yield Fault(f"the probabilities sum to {total:.6g}", "they must sum to 1", ("scenarios",))
    if not sections.servers and not has_servers:
        yield Fault("no servers: there is nothing to plan for", "list at least one", ("servers",))
    profiles = {(p.model, p.accelerator) for p in sections.profiles}
    profiles |= {
        (p.model, name) for p in sections.profiles for name, base in _pooled(sections) if base == p.accelerator
    }
    models = _Names({model for model, _ in profiles}, excused)
    targets = {c.name: c.targets for c in sections.service_classes}
    for i, server in enumerate(sections.servers):
        yield from _server_faults(("servers", i), server, homes, classes, models, targets)
        kept = [c.accelerator for c in server.current] if server.keep_accelerator else []
        known = server.model in models and server.model not in excused and all(name in homes for name in kept)
        if known and kept and not any((server.model, name) in profiles for name in kept):
            yield Fault(
                f"model {server.model!r} has no profile on {' or '.join(map(repr, kept))}, which the server must keep",
                "add the profile, or set keep_accelerator: false",
                ("servers", i, "keep_accelerator"),
            )


def _node_faults(sections: Sections, capacity: dict[str, int] | None, types: _Names) -> Iterator[Fault]:
    for i, group in enumerate(sections.nodes):
        if group.type not in types:
            yield _unknown("accelerator type", group.type, types, ("nodes", i, "type"))
        if capacity is not None and group.type in capacity:
            fault = f"{group.type!r} has nodes and a capacity as well"
            yield Fault(fault, "leave it out of capacity: nodes say how many there are", ("nodes", i, "type"))


def _pooled(sections: Sections) -> list[tuple[str, str]]:
    """Return what accelerators are called in pools, and what they are copies of."""
    pairs = [(a, pool) for a in sections.accelerators for pool in sections.pools if pool.type == a.type]
    return [(pooled(a.name, pool.name), a.name) for a, pool in pairs]


def _pool_faults(sections: Sections, capacity: dict[str, int] | None, types: _Names) -> Iterator[Fault]:
    yield from _duplicates(("pools", i, f"{p.type} in {p.name}") for i, p in enumerate(sections.pools))
    noded = {group.type for group in sections.nodes}
    for i, pool in enumerate(sections.pools):
        if pool.type not in types:
            yield _unknown("accelerator type", pool.type, types, ("pools", i, "type"))
        if (capacity is not None and pool.type in capacity) or pool.type in noded:
            fault = f"{pool.type!r} has pools and a capacity or nodes as well"
            yield Fault(fault, "leave it out there: pools say how many there are", ("pools", i, "type"))
    if sections.pools and capacity is None:
        yield Fault(
            "capacity is unlimited, and pools have counts", "give `capacity:` of the other types", ("capacity",)
        )
    there = {a.name for a in sections.accelerators}
    made = {pooled(p.type, p.name) for p in sections.pools} & (types.known | set(capacity or {}))
    for name in sorted(made | ({name for name, _ in _pooled(sections)} & there)):
        yield Fault(f"{name!r} is there already, and what an accelerator is called in a pool", "rename it", ("pools",))
    yield from _region_faults(sections)
    known = {p.name for p in sections.pools} | {a.pool for a in sections.accelerators if a.pool is not None}
    names = _Names(known, frozenset())
    for i, server in enumerate(sections.servers):
        for name in server.pools or ():
            if name not in names:
                yield _unknown("pool", name, names, ("servers", i, "pools"))


def _region_faults(sections: Sections) -> Iterator[Fault]:
    if not sections.latencies_ms:
        return
    if sections.options.law == "inferno":
        yield Fault("law `inferno` knows no latencies between regions", "take them out", ("latencies_ms",))
    supply = {p.region for p in sections.pools if p.region} | {a.region for a in sections.accelerators if a.region}
    for start in sorted({s.region for s in sections.servers if s.region}):
        for end in sorted(supply - {start} - sections.latencies_ms.get(start, {}).keys()):
            yield Fault(f"nothing is said from {start!r} to {end!r}", "give it, 0 if it is none", ("latencies_ms",))


def _weight_faults(sections: Sections) -> Iterator[Fault]:
    priorities = {c.name: c.priority for c in sections.service_classes}
    weights: dict[int, list[float]] = {}
    for server in sections.servers:
        if server.service_class in priorities:
            weights.setdefault(priorities[server.service_class], []).append(server.weight)
    for priority, found in sorted(weights.items()):
        if max(found) > min(found) * MOST_SPREAD:
            fault = f"weights of priority {priority} from {min(found):g} to {max(found):g}: the smallest do not count"
            yield Fault(fault, "give a priority of its own to what counts so little", ("servers",))


def _moment_faults(sections: Sections, servers: _Names) -> Iterator[Fault]:
    for section, moments in (("periods", sections.periods), ("scenarios", sections.scenarios)):
        yield from _duplicates((section, i, moment.name) for i, moment in enumerate(moments))
        for i, moment in enumerate(moments):
            for name in moment.rates_per_s:
                if name not in servers:
                    yield _unknown("server", name, servers, (section, i, "rates_per_s", name))


def _power_faults(sections: Sections) -> Iterator[Fault]:
    if not sections.options.uses_power:
        return
    used = {profile.accelerator for profile in sections.profiles}
    for i, accelerator in enumerate(sections.accelerators):
        if accelerator.power is None and accelerator.name in used:
            fault = f"power is priced or limited, and {accelerator.name!r} has no power"
            yield Fault(fault, "give its idle_w, mid_w, mid_utilization and full_w", ("accelerators", i, "power"))


def _server_faults(
    path: tuple[PathPart, ...],
    server: Server,
    accelerators: _Names,
    classes: _Names,
    models: _Names,
    targets: dict[str, dict[str, Targets]],
) -> Iterator[Fault]:
    if server.service_class not in classes:
        yield _unknown("service class", server.service_class, classes, (*path, "service_class"))
    elif server.service_class in targets and server.model not in targets[server.service_class]:
        promised = targets[server.service_class]
        yield Fault(
            f"service class {server.service_class!r} has no targets for model {server.model!r}",
            f"{nearest(server.model, promised)}; `{server.model}: {{}}` there serves it without a promise",
            (*path, "model"),
        )
    if server.model not in models:
        yield Fault(f"model {server.model!r} has no profile", nearest(server.model, models.known), (*path, "model"))
    for i, now in enumerate(server.current):
        if now.accelerator not in accelerators:
            place = ("current", i, "accelerator") if len(server.current) > 1 else ("current", "accelerator")
            yield _unknown("accelerator", now.accelerator, accelerators, (*path, *place))
    names = [now.accelerator for now in server.current]
    if len(set(names)) < len(names):
        yield Fault("an accelerator is given twice", "add its replicas up", (*path, "current"))
    if server.max_replicas is not None and server.max_replicas < server.min_replicas:
        fault = f"max_replicas {server.max_replicas} is less than min_replicas {server.min_replicas}"
        yield Fault(fault, "one of the two is wrong", (*path, "max_replicas"))
    if server.keep_accelerator and not server.current:
        yield Fault(
            "keep_accelerator without a current allocation", "say what `current` is", (*path, "keep_accelerator")
        )


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that are defined, and names that are excused: defined, but wrongly."""

    known: set[str]
    excused: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.known or name in self.excused


def _unknown(kind: str, name: str, names: _Names, path: tuple[PathPart, ...]) -> Fault:
    return Fault(f"unknown {kind} {name!r}", nearest(name, names.known), path)


def _duplicates(entries: Iterator[tuple[str, int, str]]) -> Iterator[Fault]:
    listed = list(entries)
    counts = Counter(name for _, _, name in listed)
    for section, index, name in listed:
        if counts[name] > 1:
            remedy = "give each a name of its own" if section == "servers" else "keep one"
            yield Fault(f"{name!r} is given {counts[name]} times", remedy, (section, index))
