"""A second opinion on every solved plan: what the greedy heuristic finds refutes a claim that is false.

The heuristic shares with the solver neither the pruning of options, nor duals, nor HiGHS. A plan of its own that serves
more, or serves everybody for less than the bound, is a counterexample to a proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from inferno_milp.columns.candidates import Candidates
from inferno_milp.columns.choice import Choice
from inferno_milp.columns.options import make_program
from inferno_milp.planning.greedy import solve_greedy
from inferno_milp.planning.priorities import priorities_of, weights_of

CLOSE = 1e-6
"""Relative difference of costs and weights that is rounding."""


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What the greedy heuristic finds.

    Attributes
    ----------
    choice : its plan.
    objective : what that plan adds to the objective; None unless it serves every server that needs an allocation.
    served : weight served of each priority, highest priority first.
    """

    choice: Choice
    objective: float | None
    served: tuple[float, ...]


def find_second_opinion(table: Candidates) -> SecondOpinion | None:
    """Run the greedy heuristic over all candidates; None where its plans are none of the problem's.

    With mixed assignment a plan of one accelerator per server counts too, but for power: there the power of a mix is
    counted at the highest rates.
    """
    options = table.problem.options
    if options.assignment == "mixed":
        if options.uses_power:
            return None
        table = replace(table, problem=table.problem.with_options(assignment="single"))
    program = make_program(table, pruned=False)
    choice = solve_greedy(program)
    listed = program.master.options
    objective = float(listed.cost[np.isin(listed.row, choice.row)].sum()) if choice.served.all() else None
    return SecondOpinion(choice, objective, served_weights(table, choice))


def served_weights(table: Candidates, choice: Choice) -> tuple[float, ...]:
    """Return the weight that a choice serves in full, by priority, of the servers that need an allocation."""
    priority, weights = priorities_of(table), weights_of(table)
    counted = table.needs & choice.served
    return tuple(float(weights[counted & (priority == level)].sum()) for level in np.unique(priority[table.needs]))


def disputes(table: Candidates, choice: Choice, second: SecondOpinion) -> Iterator[str]:
    """Yield every claim of a solved choice that a second opinion refutes."""
    if choice.outcome in ("no_solution", "heuristic"):
        return
    if choice.outcome == "infeasible" and any(second.served):
        yield f"called infeasible, but the greedy heuristic serves weights {second.served} by priority"
        return
    could = [use.could for use in choice.priorities] or list(served_weights(table, choice))
    for mine, most, other in zip(served_weights(table, choice), could, second.served, strict=True):
        if other > most * (1 + CLOSE):
            yield f"a priority is said to allow {most} in weight, and the greedy heuristic serves {other}"
        if mine != other:
            break
    if second.objective is not None and choice.bound is not None and choice.served.all():
        least = choice.bound - CLOSE * max(abs(choice.bound), abs(second.objective))
        if second.objective < least:
            yield f"bound {choice.bound}, but the greedy heuristic finds a plan of {second.objective}"


def better_of(choice: Choice, second: SecondOpinion) -> Choice:
    """Return the greedy heuristic's plan where the solver ran out of time with a worse one, or with none."""
    if choice.outcome not in ("feasible", "no_solution") or second.objective is None:
        return choice
    if choice.objective is not None and choice.served.all() and choice.objective <= second.objective:
        return choice
    if choice.candidates.problem.options.assignment == "mixed":
        return choice
    bound = None if choice.bound is None else min(choice.bound, second.objective)
    return replace(
        choice,
        server=second.choice.server,
        row=second.choice.row,
        replicas=second.choice.replicas,
        served=second.choice.served,
        outcome="feasible",
        priorities=(),
        objective=second.objective,
        bound=bound,
    )
