"""Plan fleets of language-model servers on GPUs: which type, how many replicas, what batch size, at the least cost.

::

    import inferno_milp as im

    problem = im.read_problem("instances/limited.yaml")
    plan = im.optimize(problem, time_limit_s=60)
    print(plan.status, plan.total_cost_per_hour, plan.gap)

Names are imported when first used, so that `import inferno_milp` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inferno_milp._version import __version__

if TYPE_CHECKING:
    from inferno_milp.diff import diff, with_current
    from inferno_milp.errors import InfernoError, InputError, OptionError, PlanCheckError
    from inferno_milp.plan import Plan
    from inferno_milp.plan_file import read_plan
    from inferno_milp.planner import build_model, optimize
    from inferno_milp.problem import Problem
    from inferno_milp.queueing import analyze, size
    from inferno_milp.read import read_problem
    from inferno_milp.simulate import simulate_plan

_HOME = {
    "InfernoError": "errors",
    "InputError": "errors",
    "OptionError": "errors",
    "PlanCheckError": "errors",
    "Plan": "plan",
    "Problem": "problem",
    "analyze": "queueing",
    "build_model": "planner",
    "diff": "diff",
    "optimize": "planner",
    "read_plan": "plan_file",
    "read_problem": "read",
    "simulate_plan": "simulate",
    "size": "queueing",
    "with_current": "diff",
}

__all__ = [
    "InfernoError",
    "InputError",
    "OptionError",
    "Plan",
    "PlanCheckError",
    "Problem",
    "__version__",
    "analyze",
    "build_model",
    "diff",
    "optimize",
    "read_plan",
    "read_problem",
    "simulate_plan",
    "size",
    "with_current",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
