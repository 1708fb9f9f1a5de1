"""A plan as one self-contained page (extra `report`): what it is, why, what it is worth to change, and its check."""

from inferno_milp.report.html.page import REPORT_STAGES, report_html

__all__ = ["REPORT_STAGES", "report_html"]
