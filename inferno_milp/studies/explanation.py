"""What an explanation holds, and how it is said in words, as frames and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inferno_milp.plan import Change, Plan
from inferno_milp.planning.conflict import Conflict
from inferno_milp.planning.purchase import Purchase

if TYPE_CHECKING:
    import pandas as pd

PARTS = {
    "load": "the load itself",
    "interruptions": "replicas that are taken away",
    "reserve": "reserve",
    "survive": "replicas whose loss is survived",
    "min_replicas": "minimum replicas",
    "whole_replicas": "rounding up to whole replicas",
    "limits": "too few devices, and other limits",
    "best_effort": "best effort",
}
"""What a plan's cost is made of, in words; see `ServerExplanation`."""
CHEAPER_NAMED = 2
TAKERS_NAMED = 3
MOVES_NAMED = 3


@dataclass(frozen=True, slots=True)
class Alternative:
    """An accelerator that a server could run on, or could not.

    Attributes
    ----------
    accelerator, type : its name and type.
    batch_size, max_rate_per_s, replicas, devices, cost_per_hour : of the best batch size, the server alone; None where
        the accelerator cannot serve it.
    binds : what keeps the rate from being higher with any batch size: `TTFT`, `ITL p95`, `TTFT and ITL`, or `full` for
        the engine itself; None without a load.
    is_chosen : whether the plan uses it.
    adds_per_hour : what the objective of the whole plan would be more, with this server on this accelerator alone and
        all others free to move; None where that was not asked for, or others would be served than now.
    is_exact : whether both plans are proven to be of least cost, to the last digit.
    timed_out : whether that was asked for, and the time ran out.
    moves : servers that would run on other accelerators.
    unserved : servers that would no longer be served in full.
    served : servers that would be, and are not now.
    taken_by : other servers with the devices of the type that they take, where too few are left for this one.
    reason : why no plan of least cost uses it, in words; None where one may.
    """

    accelerator: str
    type: str
    batch_size: int | None = None
    max_rate_per_s: float | None = None
    replicas: int | None = None
    devices: int | None = None
    cost_per_hour: float | None = None
    binds: str | None = None
    is_chosen: bool = False
    adds_per_hour: float | None = None
    is_exact: bool = False
    timed_out: bool = False
    moves: tuple[Change, ...] = ()
    unserved: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    taken_by: tuple[tuple[str, int], ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ServerExplanation:
    """What a server costs, and why it runs where it does.

    Attributes
    ----------
    parts : what its cost per hour is the sum of. If it were alone, on what is cheapest for it: the `load` itself, in
        fractions of replicas; what it wants in `reserve`; the replicas whose loss it is to `survive`; those that it has
        for its `min_replicas`; rounding up to `whole_replicas`. Then what the `limits` that it shares with the others
        add (with today's allocations that may be less than 0: what is saved on changes is no part of the price). Of a
        server that is not served in full: `best_effort`.
    alternatives : the cheapest first, then those that cannot serve it.
    """

    name: str
    accelerators: tuple[str, ...]
    cost_per_hour: float
    parts: dict[str, float]
    reason: str | None
    alternatives: tuple[Alternative, ...]

    @property
    def able(self) -> tuple[Alternative, ...]:
        """Accelerators that can serve it, the cheapest first."""
        return tuple(a for a in self.alternatives if a.cost_per_hour is not None)

    @property
    def cheapest(self) -> Alternative | None:
        """What it would pay least for, if it were alone; None where nothing can serve it."""
        return next(iter(self.able), None)

    @property
    def next_best(self) -> Alternative | None:
        """Of those that the plan does not use, the one that would add least to the whole; None where none was tried."""
        tried = (a for a in self.alternatives if a.adds_per_hour is not None and not a.is_chosen)
        return min(tried, key=lambda a: a.adds_per_hour or 0.0, default=None)

    @property
    def binds(self) -> list[str]:
        """What keeps the rates of its replicas from being higher; `full` where it is but the engine."""
        words = {word for a in self.alternatives if a.is_chosen and a.binds for word in a.binds.split(" and ")}
        return sorted(words - {"full"} or words)

    def words(self, currency: str) -> str:
        """Return in a sentence or two why it runs where it does."""
        return " ".join(_sentences(self, currency))


@dataclass(frozen=True, slots=True)
class TypeUse:
    """Who uses the devices of a type.

    Attributes
    ----------
    available : None without a limit.
    takers : servers with the devices that they take, the largest first.
    """

    type: str
    available: int | None
    used: int
    takers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a plan is as it is.

    Attributes
    ----------
    parts : what its cost is the sum of, over all servers; each server's own are `ServerExplanation.parts`.
    total_cost_per_hour : of the plan.
    types : who uses what.
    purchase : the cheapest devices which, added, would serve everybody that can be served; None where there is nothing
        to buy for, or nothing that would do.
    conflict : as few requirements as possible that cannot all be kept; None where everybody is served, or could be.
    """

    plan: Plan
    total_cost_per_hour: float | None
    parts: dict[str, float]
    servers: tuple[ServerExplanation, ...]
    types: tuple[TypeUse, ...]
    purchase: tuple[Purchase, ...] | None
    conflict: Conflict | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers, text and None."""
        return {
            "currency": self.plan.currency,
            "status": self.plan.status,
            "total_cost_per_hour": self.total_cost_per_hour,
            "parts": dict(self.parts),
            "servers": {
                server.name: {**asdict(server), "words": server.words(self.plan.currency)} for server in self.servers
            },
            "types": [asdict(use) for use in self.types],
            "purchase": None if self.purchase is None else [asdict(item) for item in self.purchase],
            "conflict": None if self.conflict is None else {**asdict(self.conflict), "words": str(self.conflict)},
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per server and alternative."""
        import pandas as pd

        names = [name for name in Alternative.__slots__ if name not in ("moves", "served", "unserved", "taken_by")]
        rows = [
            {
                "server": server.name,
                **{name: getattr(alternative, name) for name in names},
                "unserved": ", ".join(alternative.unserved),
            }
            for server in self.servers
            for alternative in server.alternatives
        ]
        frame = pd.DataFrame(rows, columns=["server", *names, "unserved"])
        return frame.astype(dict.fromkeys(("batch_size", "replicas", "devices"), "Int64"))

    def parts_frame(self) -> pd.DataFrame:
        """Return one row per server with the parts of its cost, the last one their sums."""
        import pandas as pd

        rows = {server.name: {**server.parts, "cost_per_hour": server.cost_per_hour} for server in self.servers}
        columns = [*PARTS, "cost_per_hour"]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype(float).fillna(0.0)
        frame.loc["total"] = frame.sum()
        return frame


def _sentences(server: ServerExplanation, currency: str) -> list[str]:
    if server.reason is not None:
        is_carried = bool(server.accelerators) and "best_effort" not in server.parts
        return [f"{server.name} {'misses its targets' if is_carried else 'is not served in full'}: {server.reason}."]
    if not server.accelerators:
        return [f"{server.name} needs no replicas."]
    names = " and ".join(server.accelerators)
    text = f"{server.name} runs on {names} for {server.cost_per_hour:.6g} {currency}/h"
    binds = server.binds
    if binds:
        verb = "set" if len(binds) > 1 else "sets"
        full = binds == ["full"]
        text += (
            ", where the engine itself is full" if full else f", where {' and '.join(binds)} {verb} a replica's rate"
        )
    cheaper = [a for a in server.able if not a.is_chosen and (a.cost_per_hour or 0.0) < server.cost_per_hour]
    cheaper = [a for a in cheaper if (a.cost_per_hour or 0.0) < server.cost_per_hour * (1 - 1e-9)][:CHEAPER_NAMED]
    sentences = [f"{text}.", *(_why_not(server, a, currency) for a in cheaper)]
    best = server.next_best
    if best is not None:
        about = "" if best.is_exact else "about "
        sentences.append(f"The next best is {best.accelerator}, which would add {about}{best.adds_per_hour:.6g}.")
    return sentences


def _why_not(server: ServerExplanation, alternative: Alternative, currency: str) -> str:
    text = f"{alternative.accelerator} would cost it {alternative.cost_per_hour:.6g}"
    if alternative.taken_by:
        takers = ", ".join(f"{name} ({count})" for name, count in alternative.taken_by[:TAKERS_NAMED])
        more = len(alternative.taken_by) - TAKERS_NAMED
        text += f", but needs {alternative.devices} {alternative.type}, which {takers}"
        text += f" and {more} more have" if more > 0 else " has" if len(alternative.taken_by) == 1 else " have"
    elif alternative.reason is not None:
        return f"{text}, but {alternative.reason}."
    if server.name in alternative.unserved:
        return f"{text}, and it could not be served in full there."
    if alternative.unserved:
        return f"{text}: taking them leaves {', '.join(alternative.unserved)} without full service."
    if alternative.adds_per_hour is None:
        return f"{text}."
    moved = [
        f"{change.server} to {' and '.join(r.accelerator for r in change.after) or 'nothing'}"
        for change in alternative.moves
    ]
    more = len(moved) - MOVES_NAMED
    listed = ", ".join(moved[:MOVES_NAMED]) + (f" and {more} more" if more > 0 else "")
    about = "" if alternative.is_exact else "about "
    adds = f"the whole would cost {about}{alternative.adds_per_hour:.6g} {currency}/h more"
    return f"{text}: {adds}{f', moving {listed}' if moved else ''}."
