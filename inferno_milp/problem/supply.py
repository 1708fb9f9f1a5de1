"""What there is to run on: accelerators, nodes, pools, capacity."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from inferno_milp.problem.architecture import Precision, Words
from inferno_milp.problem.fields import Count, Model, Name, NonNegative, Positive, PositiveCount, is_name


class Power(Model):
    """Power drawn as a function of utilisation: straight from idle to a middle point, straight on to full."""

    idle_w: NonNegative
    """Power of an idle accelerator, W."""
    full_w: NonNegative
    """Power at full utilisation, W."""
    mid_w: NonNegative
    """Power at `mid_utilization`, W."""
    mid_utilization: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
    """Utilisation of the middle point, a fraction."""

    @model_validator(mode="after")
    def _rises(self) -> Power:
        if not self.idle_w <= self.mid_w <= self.full_w:
            raise ValueError("an accelerator that does more draws no less: idle_w ≤ mid_w ≤ full_w")
        return self


class Discount(Model):
    """What is reserved beyond a number costs less."""

    beyond_units: PositiveCount
    """Reserved units up to which it does not count."""
    factor: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
    """On the price of each unit beyond those, up to the next discount."""


class Accelerator(Model):
    """An arrangement of devices that one engine runs on."""

    name: Name
    """Name of the arrangement: `2xH100`."""
    type: Name
    """Accelerator type of its devices, `H100` for `2xH100`; for a single device by default the name."""
    devices: PositiveCount = 1
    """Devices in it."""
    cost_per_hour: NonNegative
    """Price of the whole arrangement per hour, in the problem's currency."""
    memory_gb: Positive | None = None
    """Memory of the whole arrangement, GB."""
    memory_bandwidth_gb_per_s: Positive | None = None
    """Memory bandwidth of the whole arrangement, GB/s."""
    network_gb_per_s: Positive | None = None
    """Speed at which the whole arrangement sends, and at which it receives, KV caches, GB/s; None: it cannot."""
    power: Power | None = None
    """Power of the whole arrangement."""
    peak_tflops: dict[Precision, Positive] | None = None
    """Peak arithmetic of the whole arrangement by precision, without sparsity, 10¹² operations/s."""
    reserved_cost_per_hour: NonNegative | None = None
    """Price of the whole arrangement per hour where it is reserved for all periods; None: it cannot be reserved."""
    reserved_discounts: tuple[Discount, ...] = ()
    """Discounts on `reserved_cost_per_hour` by volume, each for more units, and a lower factor, than the one before."""
    availability: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Part of the time that a replica on it is there: on average it carries that part of what it could."""
    pool: Name | None = None
    """Supply pool that its devices are from."""
    region: Name | None = None
    """Where they are."""
    price_source: Words | None = None
    """Whose price it is, and of when."""

    @model_validator(mode="before")
    @classmethod
    def _typeis_name(cls, data: Any) -> Any:
        # An arrangement of several devices is rarely a type of its own: that would silently have no capacity.
        if isinstance(data, dict) and "type" not in data and data.get("devices", 1) == 1:
            name = data.get("name")
            return {**data, "type": name if is_name(name) else "?"}  # what is wrong with the name is said there
        return data

    @model_validator(mode="after")
    def _discounts_rise(self) -> Accelerator:
        discounts = self.reserved_discounts
        if discounts and self.reserved_cost_per_hour is None:
            raise ValueError("reserved_discounts are on a reserved_cost_per_hour: give it too")
        if any(b.beyond_units <= a.beyond_units or b.factor >= a.factor for a, b in pairwise(discounts)):
            raise ValueError("each of reserved_discounts must be beyond more units, and have a lower factor")
        return self

    @property
    def reserved_tiers(self) -> tuple[tuple[int, float], ...]:
        """Reserved units from which on each price per hour counts, the first from 0 on; none: it cannot be reserved."""
        price = self.reserved_cost_per_hour
        if price is None:
            return ()
        return ((0, price), *((one.beyond_units, one.factor * price) for one in self.reserved_discounts))

    def cost_of_reserved(self, units: int) -> float:
        """Return what reserved units cost per hour, discounts included."""
        tiers = self.reserved_tiers
        if not tiers and not units:
            return 0.0
        ends = [start for start, _ in tiers[1:]] + [units]
        return sum(price * max(min(end, units) - start, 0) for (start, price), end in zip(tiers, ends, strict=True))


class NodeGroup(Model):
    """Nodes that are alike; a replica's devices must all be in one node."""

    type: Name
    """Accelerator type of the devices."""
    devices: PositiveCount
    """Devices in each node."""
    count: Count
    """Number of nodes."""


class Pool(Model):
    """Devices of one type: in a region, owned, reserved, on demand or spot."""

    name: Name
    """Name of the pool."""
    type: Name
    """Accelerator type of the devices."""
    count: Count
    """Devices in it."""
    cost_factor: NonNegative = 1.0
    """Factor on the prices of accelerators of its type."""
    region: Name | None = None
    """Where it is."""
    interruptions_per_hour: NonNegative = 0.0
    """How often a replica on its devices is taken away, on average."""
    recovery_hours: NonNegative = 0.0
    """How long it is then until another one is there in its place."""

    @model_validator(mode="after")
    def _interruptions_take_time(self) -> Pool:
        if (self.interruptions_per_hour > 0) != (self.recovery_hours > 0):
            raise ValueError("give interruptions_per_hour and recovery_hours, or neither")
        return self

    @property
    def availability(self) -> float:
        """Part of the time that a replica is there: between interruptions, of that and recovery."""
        return 1 / (1 + self.interruptions_per_hour * self.recovery_hours)


def pooled(name: str, pool: str) -> str:
    """Return what an accelerator, or a type, is called in a pool."""
    return f"{name}@{pool}"


def _read_capacity(value: Any) -> Any:
    if value == "unlimited":
        return None
    if isinstance(value, dict):
        return value
    raise ValueError("give a count for each accelerator type, or the word unlimited")


Capacity = Annotated[dict[Name, Count] | None, BeforeValidator(_read_capacity)]
