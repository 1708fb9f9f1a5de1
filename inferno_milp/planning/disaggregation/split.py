"""Which servers should run prompts and outputs on engines of their own: one program picks among all ways."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from inferno_milp.columns.candidates import Candidates, find_candidates
from inferno_milp.columns.limits import Limits
from inferno_milp.errors import OptionError
from inferno_milp.plan import DEFAULT_GAP
from inferno_milp.planning.disaggregation.check import check_splits
from inferno_milp.planning.disaggregation.phases import DECODE, PREFILL, Part, make_part, why_not_split, with_parts
from inferno_milp.planning.disaggregation.plans import PromiseParts, Split, SplitPlan
from inferno_milp.planning.disaggregation.transfer import with_network
from inferno_milp.planning.disaggregation.ways import Way, find_ways, usable_profiles
from inferno_milp.planning.optimize import optimize, plan_candidates
from inferno_milp.planning.picking import Picked, Ways, alone, candidates_alone, pick_ways, without_today
from inferno_milp.planning.trust import resting_as
from inferno_milp.problem import Problem
from inferno_milp.problem.sections import Server

NOWHERE = "no engine has room for its requests in its KV cache, and holds its adapters"
LATE = "the time ran out before phases apart were tried"


def disaggregate(
    problem: Problem,
    *,
    network_gb_per_s: float | None = None,
    kv_bytes_per_token: float | None = None,
    time_limit_s: float | None = None,
    gap: float = DEFAULT_GAP,
) -> SplitPlan:
    """Find which servers should run prompts and outputs on engines of their own, and plan so.

    Parameters
    ----------
    problem : with law `continuous-batching` and single assignment; a server may be split where the accelerators say
        how fast they send KV caches (`network_gb_per_s`), and it is known how large these are.
    network_gb_per_s : speed of each device's network, GB/s, for accelerators that do not say.
    kv_bytes_per_token : bytes of a token in the KV cache, for profiles that do not say, of models that are not known.
    time_limit_s : seconds for the plan together, for the program, and for the plan split; None: no limit.
    gap : relative gap between cost and bound.

    Returns
    -------
    SplitPlan
        Its plan and its splits are checked; it is never dearer than the plan together.

    Raises
    ------
    OptionError
        If something is asked for that is not counted here.
    """
    if problem.options.law != "continuous-batching":
        raise OptionError("disaggregation knows law continuous-batching alone")
    problem = with_network(problem, network_gb_per_s, kv_bytes_per_token)
    reasons = {server.name: reason for server in problem.servers if (reason := _why_not(problem, server))}
    able = [s for s, server in enumerate(problem.servers) if server.name not in reasons]
    problem = without_today(problem, able, "disaggregation")
    together = optimize(problem, time_limit_s=time_limit_s, gap=gap)
    end = None if time_limit_s is None else time.perf_counter() + time_limit_s
    table = find_candidates(problem)
    profiles = {s: usable_profiles(table, s) for s in able}
    reasons |= {problem.servers[s].name: NOWHERE for s in able if not profiles[s]}
    able = [s for s in able if profiles[s]]

    def as_it_is(why: str, bound: float | None = None) -> SplitPlan:
        """Return the plan together."""
        return SplitPlan(problem, together, (), together, bound if together.serves_all else None, reasons, why)

    if not able:
        return as_it_is("no server can be split", together.bound)
    found = find_ways(table, {s: profiles[s] for s in able}, end)
    if found is None:
        return as_it_is(LATE)
    ways, limits = found
    picked, kept = _pick(table, ways, limits, gap, end)
    if picked is None:
        is_late = end is not None and time.perf_counter() >= end
        return as_it_is(LATE if is_late else "not everybody can be served, with phases apart or together")
    chosen = {way.server: way for way in (ways[k - kept] for k in picked.ways if k >= kept)}
    if not chosen:
        return as_it_is("phases apart save nothing: the plan is that with both together", picked.bound)
    parts = _parts(problem, chosen)
    split = with_parts(problem, parts)
    plan = plan_candidates(find_candidates(split), time_limit_s=time_limit_s, gap=gap)
    if not plan.serves_all:
        return as_it_is("the split that was picked could not be planned in time, or with its limits", picked.bound)
    if together.serves_all and (plan.objective or 0.0) >= (together.objective or 0.0):
        return as_it_is("phases apart save nothing: the plan is that with both together", picked.bound)
    result = SplitPlan(split, resting_as(plan, together), (), together, picked.bound, reasons, None)
    result = replace(result, splits=tuple(_split(problem, result, way, parts[s]) for s, way in chosen.items()))
    check_splits(problem, result)
    return result


def _pick(
    table: Candidates, ways: Sequence[Way], limits: Limits, gap: float, end: float | None
) -> tuple[Picked | None, int]:
    """Pick among the candidates together, which come first, and the ways apart; return how many of the former."""
    kept = candidates_alone(table)
    costs, usage = alone(table, kept, limits)
    both = Ways(
        [*((s,) for s in kept.server.tolist()), *((way.server,) for way in ways)],
        np.concatenate([costs, [way.cost_per_hour for way in ways]]),
        np.vstack([usage, *(way.usage for way in ways)]),
    )
    left_s = None if end is None else end - time.perf_counter()
    needs = np.flatnonzero(table.needs).tolist()
    return pick_ways(both, needs, limits, gap=gap, time_limit_s=left_s), len(kept)


def _why_not(problem: Problem, server: Server) -> str | None:
    """Return why a server cannot be split; None if it can."""
    if reason := why_not_split(problem, server):
        return reason
    profiles = [p for p in problem.profiles if p.model == server.model]
    networks = {a.name: a.network_gb_per_s for a in problem.accelerators}
    if not any(networks[p.accelerator] for p in profiles):
        return "no accelerator of its model says how fast it sends KV caches: network_gb_per_s"
    if not any(p.kv_bytes_per_token for p in profiles):
        return "it is not known how large its model's KV cache is: kv_bytes_per_token of a profile, or language_models"
    return None


def _parts(problem: Problem, chosen: Mapping[int, Way]) -> dict[int, tuple[Part, Part]]:
    """Make the phases of the servers that are split, each on its accelerator, with its part of the promise."""
    taken = {s.name for s in problem.servers} | {c.name for c in problem.service_classes}
    taken |= {p.model for p in problem.profiles}
    result = {}
    for s, way in chosen.items():
        server, pair = problem.servers[s], way.pair
        sides = (
            (PREFILL, way.profiles[0], pair.prefill_ms, pair.prefill_replicas),
            (DECODE, way.profiles[1], pair.decode_ms, pair.decode_replicas),
        )
        first, second = (
            make_part(problem, server, phase, [profile], promise, taken, replicas=replicas)
            for phase, profile, promise, replicas in sides
        )
        taken |= {first.server.name, second.server.name}
        result[s] = (first, second)
    return result


def _split(problem: Problem, found: SplitPlan, way: Way, parts: tuple[Part, Part]) -> Split:
    """Put together what a server's phases come to at the rates of the plan."""
    server = problem.servers[way.server]
    first, second = (found.allocation(part.server.name) for part in parts)
    there = problem.availabilities
    rates = first.rate_per_s / there[first.accelerator], second.rate_per_s / there[second.accelerator]
    spent = [{use.statistic: use.value_ms for use in a.targets if use.latency == "ttft_ms"} for a in (first, second)]

    def whole_ms(statistic: str) -> float:
        return spent[0][statistic] + float(way.link.transfer_ms(statistic, *rates)) + spent[1][statistic]

    promises = tuple(
        PromiseParts(
            statistic,
            limit,
            way.pair.prefill_ms[statistic],
            way.pair.transfer_ms[statistic],
            way.pair.decode_ms[statistic],
            whole_ms(statistic),
        )
        for statistic, limit in problem.targets_of(server).limits_of("ttft_ms").items()
    )
    transfer_ms = float(way.link.transfer_ms("mean", *rates))
    busy = way.link.utilizations(*rates)
    return Split(
        server=server.name,
        prefill=parts[0].server.name,
        decode=parts[1].server.name,
        link=way.link,
        promises=promises,
        ttft_ms=(first.ttft_ms or 0.0) + transfer_ms + (second.ttft_ms or 0.0),
        itl_ms=second.itl_ms or 0.0,
        transfer_ms=transfer_ms,
        sender_utilization=float(busy[0]),
        receiver_utilization=float(busy[1]),
    )
