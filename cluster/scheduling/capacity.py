"""How many stages run at once on a cluster whose nodes join and leave."""

import time
from collections.abc import Collection

from cluster.connect import Capacity
from cluster.protocol import StageResources

SPARE_STAGES = 4
"""Stages submitted beyond the capacity where nodes may join."""
REFRESH_SECONDS = 3.0
"""Interval between two queries of the cluster's capacity."""


class Slots:
    """Counts how many stages of equal resources fit on the nodes of a cluster that are not excluded.

    Args:
        spare: Where nodes may join, submit a few more stages than fit. An autoscaler adds nodes for pending stages,
            several at a time, and a node that joins has work at once.
    """

    def __init__(
        self, resources: StageResources, capacity: Capacity, excluded: Collection[str], *, spare: bool
    ) -> None:
        self._resources, self._capacity, self._spare = resources, capacity, spare
        self.excluded = frozenset(excluded)
        """Ids of excluded nodes."""
        self._refreshed_at = float("-inf")

    def exclude(self, node: str) -> bool:
        """Exclude a node; return whether it was not excluded before."""
        is_new, self._refreshed_at = node not in self.excluded, float("-inf")
        self.excluded |= {node}
        return is_new

    def max_running(self) -> int:
        """Return how many stages fit at once, at most `REFRESH_SECONDS` old."""
        return self._resources.slots(self._current())

    def max_submitted(self) -> int:
        """Return how many stages may be submitted at once, running ones included."""
        return self.max_running() + (SPARE_STAGES if self._spare and self._capacity.joined else 0)

    def none_fits(self, resources: StageResources) -> bool:
        """Return whether no node of a joined cluster is large enough for one worker with these resources."""
        capacity = self._current()
        fits = (resources.cpus <= cpus and resources.gpus <= gpus for cpus, gpus in capacity.nodes)
        return capacity.joined and not any(fits)

    def _current(self) -> Capacity:
        if time.monotonic() - self._refreshed_at > REFRESH_SECONDS:
            self._capacity, self._refreshed_at = self._capacity.refreshed(self.excluded), time.monotonic()
        return self._capacity
