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
    from inferno_milp.catalogue import shipped_catalogue
    from inferno_milp.clusters import plan_clusters
    from inferno_milp.differences import diff, with_current
    from inferno_milp.disaggregation.simulation import simulate_splits
    from inferno_milp.disaggregation.split import disaggregate
    from inferno_milp.errors import InfernoError, InputError, OptionError, PlanCheckError
    from inferno_milp.export import export_manifests
    from inferno_milp.fitting import fit_profile
    from inferno_milp.fitting.tracking import track_profile
    from inferno_milp.generate import generate_problem
    from inferno_milp.horizon.plan import plan_periods, plan_scenarios
    from inferno_milp.html import report_html
    from inferno_milp.load_change import change_loads, find_transition, scale_server
    from inferno_milp.measurements import read_measurements
    from inferno_milp.plan import Plan
    from inferno_milp.plan_file import read_plan
    from inferno_milp.planner import build_model, optimize
    from inferno_milp.prices import find_prices
    from inferno_milp.problem import Problem
    from inferno_milp.problem_file import problem_text
    from inferno_milp.queueing import analyze, analyze_closed, size
    from inferno_milp.read import read_problem, read_problem_data, read_problem_text
    from inferno_milp.read.settings import with_settings
    from inferno_milp.roofline import estimate_profile
    from inferno_milp.routing.requests import mix_of_requests
    from inferno_milp.routing.route import find_routes
    from inferno_milp.routing.tables import read_throughput_table, route_table
    from inferno_milp.sharing.share import share_replicas
    from inferno_milp.simulate import simulate_plan
    from inferno_milp.sweeps import find_frontier, sweep
    from inferno_milp.why import explain

_HOME = {
    "InfernoError": "errors",
    "InputError": "errors",
    "OptionError": "errors",
    "Plan": "plan",
    "PlanCheckError": "errors",
    "Problem": "problem",
    "analyze": "queueing",
    "analyze_closed": "queueing",
    "build_model": "planner",
    "change_loads": "load_change",
    "diff": "differences",
    "disaggregate": "disaggregation.split",
    "estimate_profile": "roofline",
    "explain": "why",
    "export_manifests": "export",
    "find_frontier": "sweeps",
    "find_prices": "prices",
    "find_routes": "routing.route",
    "find_transition": "load_change",
    "fit_profile": "fitting",
    "generate_problem": "generate",
    "mix_of_requests": "routing.requests",
    "optimize": "planner",
    "plan_clusters": "clusters",
    "plan_periods": "horizon.plan",
    "plan_scenarios": "horizon.plan",
    "problem_text": "problem_file",
    "read_measurements": "measurements",
    "read_plan": "plan_file",
    "read_problem": "read",
    "read_problem_data": "read",
    "read_problem_text": "read",
    "read_throughput_table": "routing.tables",
    "report_html": "html",
    "route_table": "routing.tables",
    "scale_server": "load_change",
    "share_replicas": "sharing.share",
    "shipped_catalogue": "catalogue",
    "simulate_plan": "simulate",
    "simulate_splits": "disaggregation.simulation",
    "size": "queueing",
    "sweep": "sweeps",
    "track_profile": "fitting.tracking",
    "with_current": "differences",
    "with_settings": "read.settings",
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
    "analyze_closed",
    "build_model",
    "change_loads",
    "diff",
    "disaggregate",
    "estimate_profile",
    "explain",
    "export_manifests",
    "find_frontier",
    "find_prices",
    "find_routes",
    "find_transition",
    "fit_profile",
    "generate_problem",
    "mix_of_requests",
    "optimize",
    "plan_clusters",
    "plan_periods",
    "plan_scenarios",
    "problem_text",
    "read_measurements",
    "read_plan",
    "read_problem",
    "read_problem_data",
    "read_problem_text",
    "read_throughput_table",
    "report_html",
    "route_table",
    "scale_server",
    "share_replicas",
    "shipped_catalogue",
    "simulate_plan",
    "simulate_splits",
    "size",
    "sweep",
    "track_profile",
    "with_current",
    "with_settings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
