"""Results as tables for a terminal, or as plain text where there is none."""

from inferno_milp.report.grid import print_report, result_console
from inferno_milp.report.plans import changes_table, comparison_table, plan_report
from inferno_milp.report.tables import (
    analysis_table,
    candidates_table,
    rejections_table,
    simulation_table,
    verification,
)

__all__ = [
    "analysis_table",
    "candidates_table",
    "changes_table",
    "comparison_table",
    "plan_report",
    "print_report",
    "rejections_table",
    "result_console",
    "simulation_table",
    "verification",
]
