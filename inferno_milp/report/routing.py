"""Tables of routed plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.planning.routing.plans import Route
from inferno_milp.planning.routing.tables import TablePlan
from inferno_milp.report.grid import fitted, make_grid


def routes_table(routes: Sequence[Route], console: Console) -> RenderableType:
    """Lay out a router's table: a line for each bucket, and where its requests go."""
    rows = (
        (
            Text(route.server),
            _weights(route.weights),
            f"{route.input_tokens:.6g}",
            f"{route.output_tokens:.6g}",
            f"{route.rate_per_s:.4g}",
        )
        for route in routes
    )
    return fitted(make_grid(("requests of", "go to"), ("input", "output", "req/s"), rows), console)


def _weights(weights: dict[str, float]) -> str:
    ordered = sorted(weights.items(), key=lambda pair: -pair[1])
    if len(ordered) == 1:
        return ordered[0][0]
    return ", ".join(f"{name} {weight:.1%}" for name, weight in ordered)


def gpus_table(plan: TablePlan, console: Console) -> RenderableType:
    """Lay out GPUs, and how many buckets each carries, wholly or in part."""

    def rows() -> Iterator[tuple[str, str, str, str]]:
        for name, count in plan.gpus.items():
            matrix = plan.weights[name]
            alone, some = int((matrix >= 1 - 1e-9).sum()), int((matrix > 0).sum())
            if count or np.any(matrix):
                yield name, f"{count}", f"{alone}", f"{some - alone}"

    return fitted(make_grid(("GPU",), ("count", "buckets alone", "buckets in part"), rows()), console)
