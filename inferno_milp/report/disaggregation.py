"""Tables of servers whose phases run apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from inferno_milp.planning.disaggregation.plans import SplitPlan
from inferno_milp.report.grid import fitted, make_grid
from inferno_milp.studies.simulate_splits import SplitSimulation


def splits_table(found: SplitPlan, console: Console) -> RenderableType:
    """Lay out where both phases run, and what the time to first token is made of."""

    def rows() -> Iterator[tuple[Text | str, ...]]:
        for split in found.splits:
            first, second = found.allocation(split.prefill), found.allocation(split.decode)
            limits = (f"{p.limit_ms:g}{'' if p.statistic == 'mean' else f' {p.statistic}'}" for p in split.promises)
            yield (
                Text(split.server),
                f"{first.replicas} × {first.accelerator}",
                f"{second.replicas} × {second.accelerator}",
                ", ".join(limits) or "–",
                f"{split.ttft_ms:.4g}",
                f"{first.ttft_ms or 0:.4g}",
                f"{split.transfer_ms:.3g}",
                f"{second.ttft_ms or 0:.4g}",
                f"{split.itl_ms:.4g}",
                f"{max(split.sender_utilization, split.receiver_utilization):.0%}",
            )

    words = ("phases apart", "prefill on", "decode on", "TTFT limit")
    numbers = ("TTFT ms", "= prompt", "+ transfer", "+ decode", "ITL ms", "network")
    return fitted(make_grid(words, numbers, rows()), console)


def simulations_table(simulated: Sequence[SplitSimulation], console: Console) -> RenderableType:
    """Lay out what is predicted beside what the simulation finds."""

    def rows() -> Iterator[tuple[Text | str, ...]]:
        for server in simulated:
            for c in server.comparisons:
                if c.predicted is None and c.limit is None:
                    continue
                margin = f" ± {c.margin:.2g}"
                yield (
                    Text(server.server),
                    c.figure,
                    c.verdict or "–",
                    "–" if c.predicted is None else f"{c.predicted:.4g}",
                    f"{c.simulated.value:.4g}{margin}",
                    "–" if c.limit is None else f"{c.limit:g}",
                )

    words = ("simulated", "figure", "target")
    return fitted(make_grid(words, ("predicted", "found", "limit"), rows()), console)
