"""How many items run at once on a cluster whose nodes come and go."""

import time
from collections.abc import Collection

from cluster.connect import Capacity
from cluster.work import Share

LOOK_SECONDS = 3.0
"""Between two looks at what the cluster has."""


class Slots:
    """The places for items of one share on a cluster; nodes with an id of `without` have none.

    `spare`: where nodes may join, one item more is handed out and waits for a place. An autoscaler adds nodes for
    what waits, and a node that joins has work at once.
    """

    def __init__(self, share: Share, capacity: Capacity, without: Collection[str], *, spare: bool) -> None:
        self._share, self._capacity, self._without, self._spare = share, capacity, without, spare
        self._looked = float("-inf")

    def fit(self) -> int:
        """Return how many items run at once, as of a moment ago."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._capacity, self._looked = self._capacity.now(self._without), time.monotonic()
        return self._share.slots(self._capacity)

    def most(self) -> int:
        """Return how many items are handed out at once."""
        return self.fit() + (self._spare and self._capacity.joined)
