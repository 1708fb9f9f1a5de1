"""Supply pools: devices of one type that differ in where they are, what they cost, and how likely one keeps them.

A problem with pools is read as one in which every accelerator of such a type is there once for each pool: `H100@spot`,
of the type `H100@spot`, with the pool's price and count. So all that plans, analyses and draws knows them.
"""

from __future__ import annotations

from typing import Any

from inferno_milp.problem import Problem
from inferno_milp.problem.supply import Accelerator, Pool, pooled


def with_pools(problem: Problem) -> Problem:
    """Return a problem with its pools made accelerators, types and capacity; as it is where it has none."""
    if not problem.pools:
        return problem
    of_type: dict[str, list[Pool]] = {}
    for pool in problem.pools:
        of_type.setdefault(pool.type, []).append(pool)
    accelerators: list[Accelerator] = []
    homes: dict[str, list[str]] = {}
    for accelerator in problem.accelerators:
        for pool in of_type.get(accelerator.type, ()):
            reserved = accelerator.reserved_cost_per_hour
            update: dict[str, Any] = {
                "name": pooled(accelerator.name, pool.name),
                "type": pooled(accelerator.type, pool.name),
                "cost_per_hour": accelerator.cost_per_hour * pool.cost_factor,
                "reserved_cost_per_hour": None if reserved is None else reserved * pool.cost_factor,
                "availability": accelerator.availability * pool.availability,
                "pool": pool.name,
                "region": pool.region,
            }
            accelerators.append(accelerator.model_copy(update=update))
            homes.setdefault(accelerator.name, []).append(update["name"])
        if accelerator.type not in of_type:
            accelerators.append(accelerator)
            homes[accelerator.name] = [accelerator.name]
    profiles = [
        profile.model_copy(update={"accelerator": name})
        for profile in problem.profiles
        for name in homes[profile.accelerator]
    ]
    capacity = dict(problem.capacity or {})
    capacity |= {pooled(pool.type, pool.name): pool.count for pool in problem.pools}
    buyable = problem.buyable and tuple(
        name
        for type_ in problem.buyable
        for name in ([pooled(type_, pool.name) for pool in of_type[type_]] if type_ in of_type else [type_])
    )
    changed = {"accelerators": tuple(accelerators), "profiles": tuple(profiles), "capacity": capacity, "pools": ()}
    return problem.model_copy(update={**changed, "buyable": buyable})
