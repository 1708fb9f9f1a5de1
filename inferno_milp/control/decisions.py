"""The last decision, kept in the cluster: every copy publishes it, and the next leader goes on from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from inferno_milp.control.fleet import Cluster, ClusterError
from inferno_milp.control.report import DeploymentReport

logger = logging.getLogger(__name__)

KEY = "decision.json"


@dataclass(slots=True)
class Decisions:
    """Replicas that deployments are to have, by the copy that leads.

    Attributes
    ----------
    cluster : that keeps them.
    """

    cluster: Cluster
    _last: tuple[DeploymentReport, ...] = field(default=(), init=False)

    def last(self, *, leads: bool) -> tuple[DeploymentReport, ...]:
        """Return the last decision; empty if none is known.

        Parameters
        ----------
        leads : whether this copy decides, so that what it decided last is the last there is.
        """
        if not (leads and self._last):
            self._last = self._stored() or self._last
        return self._last

    def keep(self, deployments: Iterable[DeploymentReport]) -> None:
        """Keep a decision of this copy."""
        self._last = tuple(deployments)

    def documents(self) -> dict[str, str]:
        """Return what is to be kept in the cluster."""
        return {KEY: json.dumps([asdict(d) for d in self._last])} if self._last else {}

    def _stored(self) -> tuple[DeploymentReport, ...]:
        try:
            return tuple(DeploymentReport(**item) for item in json.loads(self.cluster.read_status().get(KEY, "[]")))
        except ClusterError as error:
            logger.warning("the last decision is not known: %s", error)
        except (ValueError, TypeError):
            logger.warning("the last decision is not known: %s is in no known form", KEY)
        return ()
