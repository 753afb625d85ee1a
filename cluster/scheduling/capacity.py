"""How many items run at once on a cluster whose nodes come and go."""

import time
from collections.abc import Collection

from cluster.connect import Capacity
from cluster.protocol import Share

SPARE = 4
"""Items that wait for a place where nodes may join."""
LOOK_SECONDS = 3.0
"""Between two looks at what the cluster has."""


class Slots:
    """The places for items of one share on a cluster; nodes that are left out have none.

    `spare`: where nodes may join, a few items more are handed out and wait for a place. An autoscaler adds nodes for
    what waits, several at a time, and a node that joins has work at once.
    """

    def __init__(self, share: Share, capacity: Capacity, without: Collection[str], *, spare: bool) -> None:
        self._share, self._capacity, self._spare = share, capacity, spare
        self.without = frozenset(without)
        """Ids of nodes that are left out."""
        self._looked = float("-inf")

    def leave_out(self, node: str) -> bool:
        """Leave out one node more; return whether it was not left out before."""
        new, self._looked = node not in self.without, float("-inf")
        self.without |= {node}
        return new

    def fit(self) -> int:
        """Return how many items run at once, as of a moment ago."""
        return self._share.slots(self._now())

    def most(self) -> int:
        """Return how many items are handed out at once."""
        return self.fit() + (SPARE if self._spare and self._capacity.joined else 0)

    def none(self, share: Share) -> bool:
        """Return whether no node, as of a moment ago, is large enough for one worker of a share."""
        now = self._now()
        return now.joined and not any(share.cpus <= cpus and share.gpus <= gpus for cpus, gpus in now.nodes)

    def _now(self) -> Capacity:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._capacity, self._looked = self._capacity.now(self.without), time.monotonic()
        return self._capacity
