"""Pyomo, without its wish to import SciPy's statistics.

Pyomo hooks into the import of SciPy and then imports `scipy.stats` as well, in case it should need it, which costs a
quarter of the time of a whole planning run (`benchmarks/startup.py` measures it). This module is imported ahead of
SciPy and takes the hook away; where a later Pyomo has no such hook, nothing is done. If Pyomo does need SciPy, it still
imports it by itself.
"""

from pyomo.common import dependencies as _dependencies
from pyomo.core.expr.numeric_expr import LinearExpression

_finder = getattr(_dependencies, "DeferredImportCallbackFinder", None)
getattr(_finder, "_callbacks", {}).pop("scipy", None)

import pyomo.environ as pyo  # noqa: E402 - the hook goes first
from pyomo.repn import generate_standard_repn  # noqa: E402

__all__ = ["LinearExpression", "generate_standard_repn", "pyo"]
