"""The check of a routing: shares that are whole, loads that are carried, devices that there are, bound ≤ cost."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from inferno_milp.errors import PlanCheckError
from inferno_milp.planning.routing.program import Routed

CLOSE = 1e-6


def check_shares(
    weights: npt.NDArray[np.float64], price: npt.NDArray[np.float64], devices: npt.NDArray[np.float64], found: Routed
) -> None:
    """Check what came of a table of throughputs; nothing where there is no plan.

    Parameters
    ----------
    weights : replicas that a whole bucket takes, pools × buckets.
    price : of a replica.
    devices : that there are of each pool's accelerator.

    Raises
    ------
    PlanCheckError
        With everything that is wrong.
    """
    if found.cost is None:
        return
    shares = np.array(found.shares)
    with np.errstate(invalid="ignore"):
        load = np.where(shares > 0, weights * shares, 0.0).sum(axis=1)
    wrong = []
    if (shares < 0).any() or not np.allclose(shares.sum(axis=0), 1.0, atol=CLOSE):
        wrong.append("the shares of a bucket do not sum to 1")
    if (load > found.replicas + CLOSE * np.maximum(found.replicas, 1)).any():
        wrong.append("an accelerator carries more than it can")
    if (found.replicas > devices).any():
        wrong.append("there are not as many devices")
    cost = math.fsum((price * found.replicas).tolist())
    if abs(cost - found.cost) > CLOSE * max(cost, 1.0):
        wrong.append(f"the cost is {cost}, not {found.cost}")
    if found.bound is not None and found.bound > cost + CLOSE * max(cost, 1.0):
        wrong.append(f"the bound {found.bound} is above the cost {cost}")
    if wrong:
        raise PlanCheckError(wrong)
