"""HiGHS within a time limit that holds: large programs are solved in a process of their own, which can be ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from inferno_milp.program._pyomo import pyo
from inferno_milp.program.highs import Runner, Solution, solve_with_highs
from inferno_milp.program.highs_child import HighsProcess
from inferno_milp.program.highs_engine import Found, Program, run

SMALL = 20_000
"""Numbers in a program up to which HiGHS is quick between its looks at the clock, and needs no process of its own."""


@contextmanager
def runner_for(left_s: Callable[[], float], *, size: int = 0) -> Iterator[Runner]:
    """Yield a way to run HiGHS that keeps a time limit; without one, HiGHS runs here.

    Parameters
    ----------
    left_s : seconds left; infinite without a limit.
    size : numbers in the first program, if known: for a large one the process is started at once.
    """
    if math.isinf(left_s()):
        yield run
        return
    with HighsProcess() as process:
        if size > SMALL:
            process.start()

        def run_in_time(
            program: Program, *, gap: float, time_limit_s: float, start: Any = None, good_enough: float | None = None
        ) -> Found:
            runner = run if program.values.size <= SMALL else process.run
            return runner(program, gap=gap, time_limit_s=time_limit_s, start=start, good_enough=good_enough)

        yield run_in_time


def solve_in_time(
    model: pyo.ConcreteModel, *, gap: float, left_s: Callable[[], float], from_values: bool = False
) -> Solution:
    """Minimise a model as `solve_with_highs` does, within the seconds left."""
    with runner_for(left_s) as runner:
        return solve_with_highs(model, gap=gap, time_limit_s=left_s(), from_values=from_values, run=runner)
