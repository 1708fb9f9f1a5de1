"""What a plan says of all servers together: devices, nodes, limits, objective, bound, status."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from inferno_milp.plan import Plan
from inferno_milp.plan.check.common import RELATIVE, pairs, same
from inferno_milp.problem import Problem


def limit_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Recount devices and nodes; add up price, power and changes against their limits."""
    yield from _capacity_violations(problem, plan)
    yield from _node_violations(problem, plan)
    options = problem.options
    allocations = [a for server in plan.servers for a in server.allocations]
    powers = [a.power_w for a in allocations]
    power = math.fsum(p for p in powers if p is not None) if powers and None not in powers else None
    if not (plan.power_w is None if power is None else same(plan.power_w, power)):
        yield f"power {plan.power_w} W, recomputed {power}"
    cost = math.fsum(a.cost_per_hour for a in allocations)
    if options.max_cost_per_hour is not None and cost > options.max_cost_per_hour * (1 + RELATIVE):
        yield f"cost {cost} above the budget {options.max_cost_per_hour}"
    if options.max_power_w is not None and (power or 0.0) > options.max_power_w * (1 + RELATIVE):
        yield f"power {power} W above the limit {options.max_power_w}"
    if options.max_carbon_kg_per_hour is not None:
        carbon = (power or 0.0) / 1000 * (options.carbon_kg_per_kwh or 0.0)
        if carbon > options.max_carbon_kg_per_hour * (1 + RELATIVE):
            yield f"carbon {carbon} kg/h above the limit {options.max_carbon_kg_per_hour}"
    moved = sum(_moves(problem, plan))
    if options.max_changes is not None and moved > options.max_changes:
        yield f"{moved} servers change their accelerator, {options.max_changes} may"


def _moves(problem: Problem, plan: Plan) -> Iterator[bool]:
    for server, planned in pairs(problem, plan):
        now = {current.accelerator for current in server.current}
        planned_ = {a.accelerator for a in planned.allocations}
        yield bool(now) and bool(planned_) and now != planned_


def _capacity_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    used: Counter[str] = Counter()
    for server in plan.servers:
        for allocation in server.allocations:
            used[allocation.type] += allocation.devices
    types = {a.type for a in problem.accelerators}
    if Counter(use.type for use in plan.capacity) != Counter(types):
        yield "the plan's types are not the problem's"
    said = {use.type: use for use in plan.capacity}
    for name in types | used.keys():
        use = said.get(name)
        available = None
        if problem.capacity is not None:
            in_nodes = sum(group.devices * group.count for group in problem.nodes if group.type == name)
            available = problem.capacity.get(name, 0) + in_nodes
        if use is None or use.used != used[name] or use.available != available:
            yield f"capacity of {name}: the plan says {use}, recounted {used[name]} of {available}"
        if available is not None and used[name] > available:
            yield f"{used[name]} {name} used, {available} available"


def _node_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Check that every replica on a type with nodes sits in one node, and no node holds more than it can."""
    if problem.capacity is None:
        return
    types = {group.type for group in problem.nodes}
    sizes: dict[tuple[str, str], int] = {}
    planned: Counter[tuple[str, str]] = Counter()
    for server in plan.servers:
        for a in server.allocations:
            if a.type in types and a.replicas > 0:
                sizes[server.name, a.accelerator] = a.devices // a.replicas
                planned[server.name, a.accelerator] += a.replicas
    yield from _node_counts(problem, plan)
    placed: Counter[tuple[str, str]] = Counter()
    for node in plan.nodes:
        used = 0
        for held in node.holds:
            placed[held.server, held.accelerator] += held.replicas
            used += held.replicas * sizes.get((held.server, held.accelerator), node.devices + 1)
        if used != node.used or used > node.devices:
            yield f"a node of {node.devices} {node.type} holds {used}, the plan says {node.used}"
    if placed != planned:
        yield "the replicas in nodes are not those of the plan"


def _node_counts(problem: Problem, plan: Plan) -> Iterator[str]:
    there_are: Counter[tuple[str, int]] = Counter()
    for group in problem.nodes:
        there_are[group.type, group.devices] += group.count
    for kind, count in Counter((node.type, node.devices) for node in plan.nodes).items():
        if count > there_are[kind]:
            yield f"{count} nodes of {kind[1]} {kind[0]} used, {there_are[kind]} available"


def total_violations(problem: Problem, plan: Plan) -> Iterator[str]:
    """Recompute cost, objective, bound and gap."""
    cost = math.fsum(a.cost_per_hour for server in plan.servers for a in server.allocations)
    if plan.status in ("infeasible", "no_solution"):
        if plan.total_cost_per_hour is not None or plan.objective is not None or plan.gap is not None:
            yield f"status {plan.status}, but with a cost, an objective or a gap"
        return
    if not same(plan.total_cost_per_hour, cost):
        yield f"total cost {plan.total_cost_per_hour}, recomputed {cost}"
    if plan.objective is None:
        if plan.bound is not None or plan.gap is not None:
            yield "a bound or a gap without an objective"
        return
    parts = _objective_parts(problem, plan)
    if plan.objective_parts.keys() != parts.keys():
        yield "the parts of the objective are not those that there are"
    for name, value in parts.items():
        if not same(plan.objective_parts.get(name), value):
            yield f"part {name} of the objective {plan.objective_parts.get(name)}, recomputed {value}"
    objective = math.fsum(parts.values())
    if not same(plan.objective, objective):
        yield f"objective {plan.objective}, recomputed {objective}"
    yield from _bound_violations(plan, objective)


def _objective_parts(problem: Problem, plan: Plan) -> dict[str, float]:
    """Price of the servers whose rate is carried in full, and what changes, energy and carbon are charged for them."""
    prices = {a.name: a.cost_per_hour for a in problem.accelerators}
    pieces = problem.accelerators_per_replica
    options, price, changes, power = problem.options, 0.0, 0.0, 0.0
    for server, planned in pairs(problem, plan):
        if not planned.is_carried:
            continue
        price += planned.cost_per_hour
        if options.energy_price_per_kwh or options.carbon_price_per_kg:
            name = "max_power_w" if options.assignment == "mixed" else "power_w"
            power += sum(getattr(a, name) or 0.0 for a in planned.allocations)
        now = {
            c.accelerator: c.replicas * pieces.get((server.model, c.accelerator), 1) * prices[c.accelerator]
            for c in server.current
        }
        if now and planned.allocations:
            runs = {a.accelerator for a in planned.allocations}
            moved = sum(worth for name, worth in now.items() if name not in runs)
            moved += sum(a.cost_per_hour for a in planned.allocations if a.accelerator not in now)
            changes += options.change_penalty * moved
    energy, carbon = options.energy_price_per_kwh, options.carbon_price_per_kg * (options.carbon_kg_per_kwh or 0.0)
    return {"price": price, "changes": changes, "energy": power / 1000 * energy, "carbon": power / 1000 * carbon}


def _bound_violations(plan: Plan, objective: float) -> Iterator[str]:
    if plan.bound is None:
        if plan.gap is not None:
            yield "a gap without a bound"
        return
    if not plan.bound <= objective * (1 + RELATIVE):
        yield f"bound {plan.bound} above the objective {objective}"
    gap = max(objective - plan.bound, 0.0) / objective if objective else 0.0
    if plan.gap is None or not math.isclose(plan.gap, gap, rel_tol=1e-3, abs_tol=1e-9):
        yield f"gap {plan.gap}, recomputed {gap}"


def status_violations(plan: Plan, gap: float | None) -> Iterator[str]:
    """Check that the status says what is known."""
    allocated = any(server.allocations for server in plan.servers)
    if plan.status in ("optimal", "feasible") and not plan.serves_all:
        yield f"status {plan.status}, but {', '.join(plan.unserved)} unserved"
    if plan.status == "partial" and plan.serves_all:
        yield "status partial, but everybody is served"
    if plan.status in ("infeasible", "no_solution") and (allocated or plan.serves_all):
        yield f"status {plan.status}, but with allocations"
    if plan.status == "infeasible" and plan.bound is not None:
        yield "status infeasible, but with a bound"
    if plan.status == "optimal":
        proven = plan.objective is not None and plan.bound is not None and plan.gap is not None
        if not proven or (gap is not None and plan.gap is not None and not plan.gap <= gap + 2e-9):
            yield f"status optimal with a gap of {plan.gap}, asked for {gap}"
    for use in plan.priorities:
        if not 0 <= use.served <= use.could * (1 + RELATIVE) or use.could > use.weight * (1 + RELATIVE):
            yield f"priority {use.priority}: served {use.served}, could {use.could}, of {use.weight}"
