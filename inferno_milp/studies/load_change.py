"""What becomes of a plan when loads change: of all servers at random, or of one.

The changes are those of llm-inferno/optimizer's demonstrations `transition` and `scale`: every arrival rate times a
random factor within [α, 2 − α), prompts and outputs of a server times another one, the same for both; α is 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from inferno_milp.columns.candidates import find_candidates
from inferno_milp.errors import OptionError, path_text
from inferno_milp.plan import DEFAULT_GAP, Change, Plan
from inferno_milp.plan.differences import diff, with_current
from inferno_milp.planning.optimize import optimize, plan_candidates
from inferno_milp.problem import Problem
from inferno_milp.problem.loads import Load, moments
from inferno_milp.problem.sections import Server

if TYPE_CHECKING:
    import pandas as pd

LEAST_FACTOR = 0.1


@dataclass(frozen=True, slots=True)
class Transition:
    """A plan, and the plan after a change.

    Attributes
    ----------
    problem : after the change; of a transition, its servers running what was planned before.
    before, after : the plans.
    changes : servers that run something else after than before.
    """

    problem: Problem
    before: Plan
    after: Plan
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers, text and None."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "changes": [asdict(change) for change in self.changes],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per server: loads, accelerators, replicas and costs before and after."""
        import pandas as pd

        rows = []
        for was, is_ in zip(self.before.servers, self.after.servers, strict=True):
            rows.append(
                {
                    "server": was.name,
                    "rate_before_per_s": was.offered_rate_per_s,
                    "rate_after_per_s": is_.offered_rate_per_s,
                    "accelerator_before": " + ".join(a.accelerator for a in was.allocations),
                    "accelerator_after": " + ".join(a.accelerator for a in is_.allocations),
                    "replicas_before": sum(a.replicas for a in was.allocations),
                    "replicas_after": sum(a.replicas for a in is_.allocations),
                    "cost_before_per_hour": was.cost_per_hour,
                    "cost_after_per_hour": is_.cost_per_hour,
                }
            )
        return pd.DataFrame(rows)


def change_loads(problem: Problem, *, least_factor: float = LEAST_FACTOR, seed: int = 0) -> Problem:
    """Return the same problem with every load changed at random.

    Parameters
    ----------
    least_factor : α within (0, 1]: factors are drawn from [α, 2 − α), so that the mean load stays as it is.
    seed : of the random numbers.

    Raises
    ------
    OptionError
        If `least_factor` cannot be.
    """
    if not 0 < least_factor <= 1:
        raise OptionError(f"least_factor must be within (0, 1], not {least_factor}")
    draws = np.random.default_rng(seed).uniform(least_factor, 2 - least_factor, (len(problem.servers), 2))
    draws = np.maximum(draws.round(3), 0.001)  # figures that can be read
    servers = [_scaled(server, *factors) for server, factors in zip(problem.servers, draws.tolist(), strict=True)]
    return problem.model_copy(update={"servers": tuple(servers)})


def _scaled(server: Server, rate_factor: float, tokens_factor: float) -> Server:
    load = server.load
    if load is None:
        return server
    changed = load.model_dump(exclude_unset=True)
    unit = "rate_per_s" if load.rate_per_s is not None else "rate_per_min"
    changed[unit] = float(f"{changed[unit] * rate_factor:.12g}")
    if load.mix:
        for name in moments(load.mix):
            changed.pop(name, None)  # they follow from the mix
    for part in (changed.get("mix") or [changed]) if tokens_factor != 1 else ():
        for name in ("input_tokens", "output_tokens"):
            scaled = math.ceil(part[name] * tokens_factor * (1 - 1e-12))  # 400 × 1.1 is 440, and not a hair more
            part[name] = float(max(scaled, 1 if name == "output_tokens" else 0))
    try:
        return server.model_copy(update={"load": Load.model_validate(changed)})
    except ValidationError as error:
        details = error.errors(include_url=False)
        wrong = [f"{path_text(('load', *d['loc']))} {_shown(d['input'])}: {d['msg']}" for d in details]
        raise OptionError(f"{server.name}: {'; '.join(wrong)}") from None


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)[:60]


def find_transition(
    problem: Problem,
    changed: Problem,
    *,
    before: Plan | None = None,
    gap: float = DEFAULT_GAP,
    time_limit_s: float | None = None,
) -> Transition:
    """Plan a problem, change it, and plan again from what runs then: changes of accelerator are charged.

    Parameters
    ----------
    changed : the same servers, their loads or what they have at hand changed.
    before : the plan of `problem`, if there is one already.
    gap, time_limit_s : of each plan, as in `optimize`.

    Raises
    ------
    OptionError
        If the servers are not the same.
    """
    if [s.name for s in problem.servers] != [s.name for s in changed.servers]:
        raise OptionError("the servers before and after are not the same")
    return find_difference(problem, changed, before=before, from_before=True, gap=gap, time_limit_s=time_limit_s)


def find_difference(
    problem: Problem,
    changed: Problem,
    *,
    before: Plan | None = None,
    from_before: bool = False,
    gap: float = DEFAULT_GAP,
    time_limit_s: float | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Transition:
    """Plan a problem as it is, and with other figures.

    Parameters
    ----------
    before : the plan of `problem`, if there is one already.
    from_before : whether it is what runs when the other plan is made.
    gap, time_limit_s, on_stage : of each plan, as in `optimize`.

    Raises
    ------
    OptionError
        If the two are in different currencies.
    """
    if changed.currency != problem.currency:
        raise OptionError("plans in two currencies cannot be compared: leave the currency as it is")
    if before is None:
        before = optimize(problem, gap=gap, time_limit_s=time_limit_s, on_stage=on_stage)
    if from_before:
        changed = with_current(changed, before)
    after = optimize(changed, gap=gap, time_limit_s=time_limit_s, on_stage=on_stage)
    return Transition(changed, before, after, diff(before, after))


@dataclass(frozen=True, slots=True)
class Scaling:
    """What one server may do when its load changes.

    Attributes
    ----------
    server : its name.
    before : the plan before.
    scaled : the server keeps its accelerators, and all others theirs; only replicas change.
    moved : the server may move, the others stay.
    replanned : everybody may move.
    """

    server: str
    before: Plan
    scaled: Plan
    moved: Plan
    replanned: Plan

    @property
    def plans(self) -> dict[str, Plan]:
        """The four plans by name."""
        return {name: getattr(self, name) for name in ("before", "scaled", "moved", "replanned")}

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers, text and None."""
        return {"server": self.server, **{name: plan.to_dict() for name, plan in self.plans.items()}}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per plan: what the server runs, its cost and the whole's, who moves or is not served."""
        import pandas as pd

        rows = []
        for name, plan in self.plans.items():
            mine = next(server for server in plan.servers if server.name == self.server)
            changes = diff(self.before, plan)
            rows.append(
                {
                    "plan": name,
                    "accelerator": " + ".join(a.accelerator for a in mine.allocations),
                    "replicas": sum(a.replicas for a in mine.allocations),
                    "cost_per_hour": mine.cost_per_hour,
                    "total_cost_per_hour": math.nan if plan.total_cost_per_hour is None else plan.total_cost_per_hour,
                    "status": plan.status,
                    "moves": sum(change.moves for change in changes),
                    "unserved": ", ".join(plan.unserved),
                }
            )
        return pd.DataFrame(rows)


def scale_server(
    problem: Problem,
    server: str,
    *,
    rate_factor: float = 1.0,
    tokens_factor: float = 1.0,
    gap: float = DEFAULT_GAP,
    time_limit_s: float | None = None,
) -> Scaling:
    """Change the load of one server, and compare: more replicas where it is, a move of its own, a new plan for all.

    Parameters
    ----------
    server : its name.
    rate_factor, tokens_factor : what its arrival rate, and its prompt and output tokens, are multiplied by.
    gap, time_limit_s : of each plan, as in `optimize`.

    Raises
    ------
    OptionError
        If there is no such server, it has no load, it is not served before, or a factor is not above 0.
    """
    (position,) = problem.positions_of([server])
    wrong = [f"{factor} is no factor" for factor in (rate_factor, tokens_factor) if not 0 < factor < math.inf]
    if problem.servers[position].load is None:
        wrong.append(f"{server} has no load")
    if wrong:
        raise OptionError("; ".join(wrong))
    before = optimize(problem, gap=gap, time_limit_s=time_limit_s)
    if not before.servers[position].allocations:
        reason = before.servers[position].reason or "it has no load"
        raise OptionError(f"{server} runs nothing before the change: {reason}")
    servers = list(problem.servers)
    servers[position] = _scaled(servers[position], rate_factor, tokens_factor)
    changed = with_current(problem.model_copy(update={"servers": tuple(servers)}), before)
    table = find_candidates(changed)
    accelerators = [a.name for a in problem.accelerators]
    for s, planned in enumerate(before.servers):
        if s != position and planned.allocations:
            table = table.only(s, [accelerators.index(a.accelerator) for a in planned.allocations])
    kept = [accelerators.index(a.accelerator) for a in before.servers[position].allocations]
    return Scaling(
        server=server,
        before=before,
        scaled=plan_candidates(table.only(position, kept), gap=gap, time_limit_s=time_limit_s),
        moved=plan_candidates(table, gap=gap, time_limit_s=time_limit_s),
        replanned=optimize(changed, gap=gap, time_limit_s=time_limit_s),
    )
