"""Where the problem of a loop is from: a plug point, and the simplest of them, one problem for ever."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from inferno_milp.control.report import Report
from inferno_milp.problem import Problem


@dataclass(frozen=True, slots=True)
class Setting:
    """What a loop is to do.

    Attributes
    ----------
    problem : accelerators, profiles, service classes, servers and limits; None where there is none yet.
    errors : what is wrong with it, in words.
    acts : whether changes are to be made at all.
    plans_undeployed : whether it is also said what servers without a deployment would take.
    """

    problem: Problem | None
    errors: tuple[str, ...] = ()
    acts: bool = True
    plans_undeployed: bool = False


class Problems(Protocol):
    """What the loop asks for at the beginning of a round, and tells at its end."""

    def latest(self) -> Setting:
        """Return what is to be done now. May raise ClusterError."""

    def tell(self, report: Report) -> Iterable[str]:
        """Report to whoever set the problem what became of it; return what went wrong, in words."""


@dataclass(frozen=True, slots=True)
class FixedProblem:
    """A problem that stays as it is."""

    problem: Problem

    def latest(self) -> Setting:
        """Return it."""
        return Setting(self.problem)

    def tell(self, report: Report) -> Iterable[str]:
        """Nobody is told."""
        return ()
