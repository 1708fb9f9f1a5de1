"""The problem: what a document says of fleets, loads, targets and supply, read, checked and written."""

from inferno_milp.problem.problem import Problem, new_name, reference_faults

__all__ = ["Problem", "new_name", "reference_faults"]
