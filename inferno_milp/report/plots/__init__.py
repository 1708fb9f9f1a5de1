"""Figures, with matplotlib (extra `plots`): each function draws on `ax`, or on axes of its own, and returns them."""

from inferno_milp.report.plots.analyses import plot_analysis, plot_batch_rates, plot_engine, plot_simulation
from inferno_milp.report.plots.changes import plot_accelerator_changes, plot_cost_difference, plot_replica_scaling
from inferno_milp.report.plots.plans import (
    plot_assignment,
    plot_batch_sizes,
    plot_capacity,
    plot_servers,
    plot_targets,
    plot_types,
)
from inferno_milp.report.plots.profiles import plot_fit, plot_tracking
from inferno_milp.report.plots.studies import (
    plot_cost_parts,
    plot_device_prices,
    plot_frontier,
    plot_sweep,
    plot_target_prices,
)
from inferno_milp.report.plots.style import figure_bytes, new_figure
from inferno_milp.report.plots.timeline import plot_timeline

__all__ = [
    "figure_bytes",
    "new_figure",
    "plot_accelerator_changes",
    "plot_analysis",
    "plot_assignment",
    "plot_batch_rates",
    "plot_batch_sizes",
    "plot_capacity",
    "plot_cost_difference",
    "plot_cost_parts",
    "plot_device_prices",
    "plot_engine",
    "plot_fit",
    "plot_frontier",
    "plot_replica_scaling",
    "plot_servers",
    "plot_simulation",
    "plot_sweep",
    "plot_target_prices",
    "plot_targets",
    "plot_timeline",
    "plot_tracking",
    "plot_types",
]
