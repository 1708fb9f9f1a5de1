"""Plan fleets of language-model servers on GPUs: which type, how many replicas, what batch size, at the least cost.

::

    import inferno_milp as im

    problem = im.read_problem("instances/limited.yaml")
    plan = im.optimize(problem, time_limit_s=60)
    print(plan.status, plan.total_cost_per_hour, plan.gap)

Names are in `__init__.pyi`, and imported when first used, so that `import inferno_milp` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
