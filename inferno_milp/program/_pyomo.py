"""Pyomo's modelling language, without what planning does not need of it.

`pyomo.environ` also loads writers, solver interfaces and extensions, and Pyomo hooks into the import of SciPy to import
`scipy.stats` as well, in case it should need it (`benchmarks/startup.py` measures what both cost). So the core alone is
imported, as if SciPy were not there yet, and the hook is taken away; where a later Pyomo has no such hook, nothing is
done. If Pyomo does need SciPy, it still imports it by itself; `build_model`, which hands a model out, imports
`pyomo.environ`, so that it can be written and solved in Pyomo's own ways.
"""

import sys
from collections.abc import Iterable
from typing import Any

_scipy = sys.modules.pop("scipy", None)
from pyomo.common import dependencies as _dependencies  # noqa: E402 - as if SciPy were not there

_finder = getattr(_dependencies, "DeferredImportCallbackFinder", None)
getattr(_finder, "_callbacks", {}).pop("scipy", None)
if _scipy is not None:
    sys.modules["scipy"] = _scipy

import pyomo.core as pyo  # noqa: E402 - the hook goes first
from pyomo.core.expr.numeric_expr import LinearExpression  # noqa: E402 - as above
from pyomo.repn.standard_repn import generate_standard_repn  # noqa: E402 - as above

__all__ = ["LinearExpression", "generate_standard_repn", "pyo", "sum_of_terms", "weighted_sum"]


def weighted_sum(coefficients: list[float], variables: list[Any]) -> LinearExpression:
    """Return Σ coefficient · variable."""
    return LinearExpression(constant=0.0, linear_coefs=coefficients, linear_vars=variables)


def sum_of_terms(pairs: Iterable[tuple[float, Any]], constant: float = 0.0) -> LinearExpression:
    """Return Σ coefficient · variable + constant, without terms whose coefficient is 0."""
    listed = [(coefficient, variable) for coefficient, variable in pairs if coefficient]
    coefficients, variables = [c for c, _ in listed], [v for _, v in listed]
    return LinearExpression(constant=constant, linear_coefs=coefficients, linear_vars=variables)
