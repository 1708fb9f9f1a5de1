"""What worker processes do: a kind of work, what is asked → the bytes of the answer."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from inferno_milp.errors import InputError, OptionError
from inferno_milp.service import more_plans, planning, render
from inferno_milp.service.answers import Answer, BrokenError, Task, fault_dict, refusal
from inferno_milp.service.progress import ProgressSender

WORK: dict[str, Callable[[Task, ProgressSender], Answer]] = {
    "validate": planning.do_validate,
    "optimize": planning.do_optimize,
    "analyze": planning.do_analyze,
    "analyze_many": planning.do_analyze_many,
    "plot": planning.do_plot,
    "explain": planning.do_explain,
    "whatif": planning.do_whatif,
    "simulate": planning.do_simulate,
    "prices": planning.do_prices,
    "periods": more_plans.do_periods,
    "scenarios": more_plans.do_scenarios,
    "route": more_plans.do_route,
    "share": more_plans.do_share,
    "disaggregate": more_plans.do_disaggregate,
    "seed": planning.do_seed,
    "problem_yaml": planning.do_problem_yaml,
    "plan_csv": planning.do_plan_csv,
    "plan_page": render.do_plan_page,
    "why_page": render.do_why_page,
    "prices_page": render.do_prices_page,
    "simulation_page": render.do_simulation_page,
    "curves_page": render.do_curves_page,
}
"""What can be done, by kind."""


def perform(task: Task, address: str | None) -> Answer:
    """Do a piece of work, in a worker process.

    Parameters
    ----------
    address : where progress is told.

    Raises
    ------
    BrokenError
        For anything but bad input: a defect.
    """
    start = time.perf_counter()
    sender = ProgressSender(address, task.key)
    try:
        answer = WORK[task.kind](task, sender)
    except InputError as error:
        count = len(error.faults)
        answer = refusal(f"{count} error{'s' * (count != 1)} in the input", [fault_dict(f) for f in error.faults])
    except OptionError as error:
        answer = refusal(str(error))
    except MemoryError:
        answer = refusal("this is too large for the memory of a worker")
    except Exception:
        raise BrokenError(traceback.format_exc()) from None
    finally:
        sender.close()
    return replace(answer, took_s=time.perf_counter() - start)
