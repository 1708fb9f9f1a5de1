"""Many clusters, each a problem of its own, planned by many workers, with every plan kept as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from inferno_milp.columns.attainable import find_attainable_candidates
from inferno_milp.errors import OptionError
from inferno_milp.plan import DEFAULT_GAP
from inferno_milp.planning.optimize import plan_candidates, wrong_limits
from inferno_milp.problem import Problem
from inferno_milp.studies.outcomes import fingerprint
from inferno_milp.studies.whatif import Outcome, guarded, outcome_of, run_cases


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans a cluster; picklable."""

    gap: float
    time_limit_s: float | None

    def __call__(self, problem: Problem) -> Outcome:
        def plan() -> Outcome:
            found = plan_candidates(find_attainable_candidates(problem), gap=self.gap, time_limit_s=self.time_limit_s)
            return replace(outcome_of(found), plan=found)

        return guarded(plan)


def plan_clusters(
    problems: Mapping[str, Problem],
    *,
    gap: float = DEFAULT_GAP,
    time_limit_s: float | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    on_done: Callable[[int, int], None] | None = None,
    into: Path | None = None,
) -> dict[str, Outcome]:
    """Plan many clusters, each by itself.

    Parameters
    ----------
    problems : by the clusters' names.
    gap, time_limit_s : of each, as in `optimize`.
    jobs : processes on this machine; -1 as many as there are cores.
    scheduler : address of a Dask scheduler, `tcp://host:8786`, to whose workers the problems go instead.
    on_done : called with the number of clusters done, and of all.
    into : a folder into which plans are written as they come, as Parquet with columns `cluster`, the name, and `plan`,
        JSON; clusters that are in it already, by their names and with all their figures, are not planned again.

    Returns
    -------
    dict
        By name, what came of each; `plan` is its plan. What went wrong with one, the death of its worker too, is told
        in `error`, and holds up no other.

    Raises
    ------
    OptionError
        As in `optimize`; if `jobs` cannot be, no scheduler answers, or the folder holds something else.
    """
    wrong = [*wrong_limits(time_limit_s, gap)]
    if wrong:
        raise OptionError("; ".join(wrong))
    outcomes = run_cases(
        _Planner(gap, time_limit_s),
        [*problems.values()],
        of=fingerprint("clusters", gap, time_limit_s),
        names=[*problems],
        keys=[fingerprint(name, problem) for name, problem in problems.items()],
        into=into,
        jobs=jobs,
        scheduler=scheduler,
        on_done=on_done,
    )
    return dict(zip(problems, outcomes, strict=True))
