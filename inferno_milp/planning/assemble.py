"""From the replicas that a solver chose to a plan: rates, latencies, reasons, totals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from inferno_milp.columns.attainable import missed_targets, words_of_missed
from inferno_milp.columns.batches import quickest_batches, spaced
from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.choice import Choice
from inferno_milp.columns.energy import power_w
from inferno_milp.columns.limits import nodes_of, sizes_of
from inferno_milp.columns.options import Program
from inferno_milp.columns.packing import pack
from inferno_milp.columns.rows import FloatArray, IntArray, Rows, rows_of
from inferno_milp.plan import (
    Allocation,
    BatchSizeChoice,
    CapacityUse,
    NodeUse,
    Placed,
    Plan,
    ServerPlan,
    SolverRun,
    Status,
    TargetUse,
)
from inferno_milp.planning.reasons import why_left_out, why_not_in_full, why_not_placed
from inferno_milp.planning.slack import Room
from inferno_milp.planning.trust import profile_use, rests_on_estimates
from inferno_milp.problem.transition import price_today
from inferno_milp.queueing import analyze

BATCH_SIZES_SHOWN = 24
"""Batch sizes of which a plan says what they would take, evenly spaced on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """Allocations in the order of the servers: rows of the whole table, replicas, shares, and rates of each replica."""

    rows: Rows
    replicas: IntArray
    share: FloatArray
    rate_per_s: FloatArray

    def __len__(self) -> int:
        return len(self.rows)

    def room_left(self, program: Program) -> Room:
        """Return what the limits have room for beside these allocations."""
        room = Room(program.table, program.limits)
        loaded = ~np.isnan(self.rows.max_rate_per_s)
        usage = room.usage(self.rows, self.replicas, np.where(loaded, self.rate_per_s, np.nan))
        for i in range(len(self)):
            room.take(usage[i], i, self.rows, int(self.replicas[i]))
        return room


def assign(table: Candidates, choice: Choice) -> Assigned:
    """Share out every server's traffic in proportion to what its replicas can carry.

    A server that is not served in full carries what keeps its targets. With mixed assignment the batch size is the
    smallest that carries its part: the one with the highest rate was only the best before the rates were known. Where
    power counts it stays, since the power that was counted is that of this batch size.
    """
    best = choice.candidates.rows.take(choice.row)
    capable = np.nan_to_num(best.max_rate_per_s, nan=0.0) * choice.replicas
    count = len(table.needs)
    of_server = np.bincount(best.server, capable, count)[best.server]
    number = np.bincount(best.server, choice.replicas, count)[best.server]
    required = table.required_rate_per_s[best.server]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(required > 0, capable / of_server, choice.replicas / number)
    carried = np.where(choice.served[best.server], required, np.minimum(required, of_server))
    rate = carried * share / choice.replicas
    rows = best
    if table.problem.options.assignment == "mixed" and not table.problem.options.uses_power:
        servers = table.problem.servers
        wanted = rate * (1 + np.array([servers[s].reserve for s in best.server.tolist()]))
        fixed = np.array([servers[s].survive > 0 for s in best.server.tolist()], dtype=bool)
        positions = [_smallest_batch(table, best, i, np.inf if fixed[i] else wanted[i]) for i in range(len(best))]
        rows = table.rows.take(np.array(positions, dtype=np.intp))
    options = table.problem.options
    if options.batch_choice == "quickest" and not options.uses_power and len(rows):
        rows = table.rows.take(quickest_batches(table, rows, rate))
    return Assigned(rows, choice.replicas, share, rate)


def _smallest_batch(table: Candidates, best: Rows, i: int, rate_per_s: float) -> int:
    """Position in the whole table of the smallest batch on the same accelerator that carries a rate, or of this one."""
    rows = table.rows
    same = rows.batches_of(int(best.server[i]), int(best.profile[i]))
    enough = same[rows.max_rate_per_s[same] >= rate_per_s]
    return int(enough[0] if enough.size else same[rows.batch_size[same] == best.batch_size[i]][0])


def relative_gap(cost: float, bound: float) -> float:
    """Return (cost − bound) / cost; 0 where the cost is 0 or not above the bound."""
    return max(cost - bound, 0.0) / cost if cost > 0 else 0.0


def assemble(
    table: Candidates,
    program: Program,
    choice: Choice,
    assigned: Assigned,
    room: Room,
    stages_s: dict[str, float],
) -> Plan:
    """Turn allocations into a plan.

    Parameters
    ----------
    table : all candidates.
    program : what the solver solved.
    choice, assigned : what it chose, and how the traffic is shared.
    room : what these leave of the limits.
    """
    allocations = _allocations(table, assigned)
    servers = _servers(table, program, choice, allocations, room)
    used = np.zeros(len(table.types), dtype=np.int64)
    np.add.at(used, assigned.rows.type, assigned.replicas * assigned.rows.devices_per_replica)
    all_served = all(server.meets_targets for server in servers)
    status = cast(Status, choice.outcome)
    if choice.outcome in ("heuristic", "optimal", "feasible") and not all_served:
        status = "partial"
    elif choice.outcome == "heuristic":
        status = "feasible"
    if status == "infeasible" and allocations:
        status = "partial"  # nobody in full, some by best effort
    without_plan = status in ("infeasible", "no_solution")
    parts = {} if choice.objective is None else _objective_parts(table, servers)
    objective = None if choice.objective is None else math.fsum(parts.values())
    bound = choice.bound
    # Rounding alone may lift a bound above the objective; more than that is left for the check to refuse.
    if objective is not None and bound is not None and objective < bound <= objective * (1 + 1e-9):
        bound = objective
    everything = [a for server in servers for a in server.allocations]
    available = table.problem.devices_available
    return Plan(
        problem_name=table.problem.name,
        currency=table.problem.currency,
        status=status,
        total_cost_per_hour=None if without_plan else math.fsum(a.cost_per_hour for a in everything),
        objective=objective,
        objective_parts=parts,
        bound=bound,
        gap=None if objective is None or bound is None else relative_gap(objective, bound),
        solver=SolverRun(choice.solver, choice.version, choice.wall_s),
        stages_s=stages_s,
        servers=servers,
        capacity=tuple(
            CapacityUse(name, None if available is None else available.get(name, 0), int(used[t]))
            for t, name in enumerate(table.types)
        ),
        power_w=total_power_w(everything),
        priorities=choice.priorities,
        nodes=tuple(_nodes(table, assigned)),
        assignment=table.problem.options.assignment,
        rests_on_estimates=rests_on_estimates(table),
    )


def total_power_w(allocations: list[Allocation]) -> float | None:
    """Return the power of allocations together; None if one of them is not known, or there are none."""
    powers = [a.power_w for a in allocations]
    if not powers or any(power is None for power in powers):
        return None
    return math.fsum(power for power in powers if power is not None)


def _objective_parts(table: Candidates, servers: tuple[ServerPlan, ...]) -> dict[str, float]:
    """Take the objective apart, over the servers whose rate is carried in full."""
    problem, options = table.problem, table.problem.options
    price, changes, power = [], [], []
    for server, planned, before in zip(problem.servers, servers, price_today(problem), strict=True):
        if planned.is_carried:
            price.append(planned.cost_per_hour)
            if server.current and planned.allocations:
                new = [a.cost_per_hour for a in planned.allocations if a.accelerator not in before.price_per_hour]
                left = before.left([a.accelerator for a in planned.allocations])
                changes.append(options.change_penalty * (left + math.fsum(new)))
            if options.power_price_per_kwh:
                power += [
                    (a.max_power_w if options.assignment == "mixed" else a.power_w) or 0.0 for a in planned.allocations
                ]
    energy_kwh = math.fsum(power) / 1000
    return {
        "price": math.fsum(price),
        "changes": math.fsum(changes),
        "energy": energy_kwh * options.energy_price_per_kwh,
        "carbon": energy_kwh * options.carbon_price_per_kg * (options.carbon_kg_per_kwh or 0.0),
    }


def _allocations(table: Candidates, assigned: Assigned) -> dict[int, list[Allocation]]:
    """Make the allocations by server, with latencies at the rate that each replica carries."""
    rows, problem = assigned.rows, table.problem
    if not len(rows):
        return {}
    engines = table.engines.of(rows.server, rows.profile, rows.batch_size)
    loaded = ~np.isnan(rows.max_rate_per_s)
    rate, most = assigned.rate_per_s, np.where(loaded, rows.max_rate_per_s, 0.0)
    analysis = analyze(problem.options.law, **engines, rate_per_s=table.while_there_per_s(rows, rate))
    at_most = analyze(problem.options.law, **engines, rate_per_s=table.while_there_per_s(rows, most))
    ttft_p95_ms, ttft_p99_ms = analysis.ttft_percentile((95, 99))
    figures = {
        "wait_ms": analysis.wait_ms,
        "ttft_ms": analysis.ttft_ms,
        "ttft_p95_ms": ttft_p95_ms,
        "ttft_p99_ms": ttft_p99_ms,
        "itl_ms": analysis.itl_ms,
        "itl_p95_ms": analysis.itl_percentile(95),
        "utilization": analysis.utilization,
    }
    promised = {
        (latency, statistic): analysis.statistic(latency, statistic)
        for latency, by_statistic in table.latency_targets.items()
        for statistic in by_statistic
    }
    result: dict[int, list[Allocation]] = {}
    for i, s in enumerate(rows.server.tolist()):
        server, accelerator = problem.servers[s], problem.accelerators[rows.accelerator[i]]
        pieces, replicas = problem.profiles[rows.profile[i]].accelerators_per_replica, int(assigned.replicas[i])
        is_loaded, targets, curve = bool(loaded[i]), problem.promised_targets_of(server), accelerator.power
        uses = [
            TargetUse(latency, statistic, limit, float(promised[latency, statistic][i]))
            for latency, statistic, limit in targets.limits_ms()
        ]
        powers = [
            None
            if curve is None
            else replicas * pieces * power_w(curve, float(found.utilization[i]) if is_loaded else 0.0)
            for found in (analysis, at_most)
        ]
        allocation = Allocation(
            accelerator=accelerator.name,
            type=accelerator.type,
            batch_size=int(rows.batch_size[i]),
            replicas=replicas,
            share=float(assigned.share[i]),
            rate_per_s=float(assigned.rate_per_s[i]),
            max_rate_per_s=float(rows.max_rate_per_s[i]) if is_loaded else None,
            cost_per_hour=replicas * float(rows.price_per_replica[i]),
            devices=replicas * int(rows.devices_per_replica[i]),
            power_w=powers[0],
            max_power_w=powers[1],
            **{name: float(values[i]) if is_loaded else None for name, values in figures.items()},
            targets=tuple(uses) if is_loaded else (),
            batch_sizes=tuple(_batch_size_choices(table, rows, i)) if is_loaded else (),
            profile=profile_use(problem.profiles[rows.profile[i]]),
        )
        result.setdefault(s, []).append(allocation)
    return result


def _batch_size_choices(table: Candidates, rows: Rows, i: int) -> Iterator[BatchSizeChoice]:
    """Yield what the server of a row would take with the other batch sizes analysed for its accelerator."""
    server, profile = int(rows.server[i]), int(rows.profile[i])
    good = {int(table.rows.batch_size[row]): row for row in table.rows.batches_of(server, profile).tolist()}
    rejected = table.rejected
    mine = rows_of(rejected.server, server)
    bad = rejected.batch_size[mine[rejected.profile[mine] == profile]]
    sizes = np.array(sorted({*good, *bad.tolist()}))
    for size in sorted({*sizes[spaced(len(sizes), BATCH_SIZES_SHOWN)].tolist(), int(rows.batch_size[i])}):
        row = good.get(size)
        if row is None:
            yield BatchSizeChoice(size, 0.0, None, None)
        else:
            cost, replicas = float(table.rows.cost_per_hour[row]), int(table.rows.replicas[row])
            yield BatchSizeChoice(size, float(table.rows.max_rate_per_s[row]), replicas, cost)


def _servers(
    table: Candidates, program: Program, choice: Choice, allocations: dict[int, list[Allocation]], room: Room
) -> tuple[ServerPlan, ...]:
    problem = table.problem
    priority = {c.name: c.priority for c in problem.service_classes}
    left_out = set(program.left_out.tolist())
    result = []
    for s, server in enumerate(problem.servers):
        offered = server.load.arrival_rate_per_s if server.load else 0.0
        found = tuple(allocations.get(s, ()))
        served, reason = offered, None
        if not choice.served[s]:
            served = min(offered, math.fsum(a.replicas * a.rate_per_s for a in found))
            reason = _reason(table, program, choice, s, found, room, is_left_out=s in left_out)
        missed = tuple(missed_targets(problem, server)) if found else ()
        if missed:
            unattainable = words_of_missed(missed)
            reason = unattainable if reason is None else f"{unattainable}; {reason}"
        result.append(
            ServerPlan(
                name=server.name,
                service_class=server.service_class,
                model=server.model,
                priority=priority[server.service_class],
                offered_rate_per_s=offered,
                required_rate_per_s=float(table.required_rate_per_s[s]),
                served_rate_per_s=served,
                meets_targets=reason is None,
                is_carried=bool(choice.served[s]),
                reason=reason,
                allocations=found,
                missed=missed,
            )
        )
    return tuple(result)


def _reason(
    table: Candidates,
    program: Program,
    choice: Choice,
    server: int,
    found: tuple[Allocation, ...],
    room: Room,
    *,
    is_left_out: bool,
) -> str:
    if choice.outcome == "no_solution":
        return "the time ran out before a plan was found"
    why = why_left_out(table, program, server) if is_left_out else why_not_placed(program, server, room)
    return f"{why_not_in_full(table, server, found)}; {why}" if found else why


def _nodes(table: Candidates, assigned: Assigned) -> Iterator[NodeUse]:
    """Yield which replica sits in which node."""
    rows, problem = assigned.rows, table.problem
    for t, name in enumerate(table.types):
        groups = nodes_of(table, t)
        here = np.flatnonzero(rows.type == t)
        if not groups or not here.size:
            continue
        sizes = sizes_of(table, t)
        waiting: dict[int, list[Placed]] = {size: [] for size in sizes}
        for i in here.tolist():
            server, accelerator = problem.servers[rows.server[i]].name, problem.accelerators[rows.accelerator[i]].name
            waiting[int(rows.devices_per_replica[i])].append(Placed(server, accelerator, int(assigned.replicas[i])))
        counts = [sum(part.replicas for part in waiting[size]) for size in sizes]
        for node in pack(groups, sizes, counts) or ():
            holds = []
            for size, count in zip(sizes, node.counts, strict=True):
                left = count
                while left:
                    part = waiting[size].pop(0)
                    placed = min(part.replicas, left)
                    holds.append(replace(part, replicas=placed))
                    left -= placed
                    if part.replicas > placed:
                        waiting[size].insert(0, replace(part, replicas=part.replicas - placed))
            used = sum(size * count for size, count in zip(sizes, node.counts, strict=True))
            yield NodeUse(name, groups[node.group].devices, used, tuple(holds))
