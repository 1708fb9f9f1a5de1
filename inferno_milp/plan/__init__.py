"""The plan: what a fleet is to run, its independent check, its differences from another, its file."""

from inferno_milp.plan.parts import (
    PROFILE_COLUMNS,
    Allocation,
    BatchSizeChoice,
    CapacityUse,
    Change,
    MissedTarget,
    NodeUse,
    Placed,
    PriorityUse,
    ProfileUse,
    Running,
    ServerPlan,
    SolverRun,
    TargetUse,
    UsedProfile,
)
from inferno_milp.plan.plan import DEFAULT_GAP, SERVING_ALL, SOLVERS, Plan, SolverName, Status

__all__ = [
    "DEFAULT_GAP",
    "PROFILE_COLUMNS",
    "SERVING_ALL",
    "SOLVERS",
    "Allocation",
    "BatchSizeChoice",
    "CapacityUse",
    "Change",
    "MissedTarget",
    "NodeUse",
    "Placed",
    "Plan",
    "PriorityUse",
    "ProfileUse",
    "Running",
    "ServerPlan",
    "SolverName",
    "SolverRun",
    "Status",
    "TargetUse",
    "UsedProfile",
]
