"""Which stage is next: a graph of stages, parents before children, longest remaining chain first."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cluster.protocol import QueuedStage

REDOS = 3
"""How often what an item left may turn out unusable."""


class Queue:
    """Hands out items whose needs are done. A failed item takes its descendants along, and only those.

    `done` names items that need not run, unless what they left turns out unusable.
    """

    def __init__(self, items: Iterable[QueuedStage] = (), *, done: Iterable[str] = (), retries: int = 1) -> None:
        self.done: set[str] = set()
        self._retries = retries
        self._items: dict[str, QueuedStage] = {}
        self._children: dict[str, list[str]] = {}
        self._waits: dict[str, int] = {}
        self._remaining: dict[str, float] = {}
        self._attempts: dict[str, int] = {}
        self._heap: list[tuple[float, str]] = []
        self._redone: Counter[str] = Counter()
        self._open: set[str] = set()
        self.running: set[str] = set()
        self.failed: dict[str, str] = {}
        """Error by id, for items that failed themselves."""
        self.skipped: set[str] = set()
        """Descendants of failed items."""
        self.add(items, done=done)

    def add(self, items: Iterable[QueuedStage], *, done: Iterable[str] = ()) -> None:
        """Take further items in. One that is open stays as it is; one that was done and is not in `done` runs again.

        A new item below a failed one is skipped at once.
        """
        given, finished = {item.id: item for item in items}, set(done)
        again = [name for name in given if name in self.done and name not in finished]
        new = {name: item for name, item in given.items() if name not in self._items}
        self._items |= new
        self.done |= finished - self._open
        for name, item in new.items():
            self._children[name] = []
            self._attempts[name] = 1 + (self._retries if item.retries is None else item.retries)
        for name, item in new.items():
            within = {need for need in item.needs if need in self._items}
            self._waits[name] = len(within - self.done)
            for need in within:
                self._children[need].append(name)
        self._open |= new.keys() - self.done
        self._remaining = _remaining(self._items, self._children)
        for name in again:
            self._items[name] = given[name]
            self._reopen(name)
        for name in new:
            if not self._waits[name]:
                self._push(name)
        for name in (self.failed.keys() | self.skipped) & {need for item in new.values() for need in item.needs}:
            self._skip_below(name)

    def item(self, name: str) -> QueuedStage:
        """Return an item."""
        return self._items[name]

    @property
    def finished(self) -> bool:
        """Return whether nothing is left to hand out or to wait for."""
        return not self._open

    def next(self) -> str | None:
        """Return an item that can run now; None where all must wait for running ones."""
        while self._heap:
            _, name = heapq.heappop(self._heap)
            if name in self._open and name not in self.running and not self._waits[name]:
                self.running.add(name)
                return name
        return None

    def finish(self, name: str) -> None:
        """Record that an item is done and free its children."""
        self.running.discard(name)
        if name not in self._open:
            return
        self._open.discard(name)
        self.done.add(name)
        for child in self._children[name]:
            self._waits[child] -= 1
            if not self._waits[child]:
                self._push(child)

    def fail(self, name: str, error: str, *, final: bool = False) -> bool:
        """Record an error; return whether the item is handed out once more, as it never is where that is `final`."""
        self.running.discard(name)
        self._attempts[name] = 0 if final else self._attempts[name] - 1
        if self._attempts[name] > 0:
            self._push(name)
            return True
        self._open.discard(name)
        self.failed[name] = error
        self._skip_below(name)
        return False

    def abandon(self, name: str) -> None:
        """Forget an item that was ended without a result; what needs it is skipped."""
        self.running.discard(name)
        self._open.discard(name)
        self._skip_below(name)
        for need in set(self._items.pop(name).needs) & self._children.keys():
            self._children[need].remove(name)

    def put_back(self, name: str) -> None:
        """Hand an item out again later; no attempt is counted."""
        self.running.discard(name)
        self._push(name)

    def redo(self, name: str, child: str, error: str) -> bool:
        """Run an item again whose results are unusable, and its child (or itself) after it.

        False where that was tried too often: then the child fails with the error.
        """
        self.running.discard(child)
        if name == child or name in self.done:
            self._redone[name] += 1
        if name not in self._items or self._redone[name] > REDOS:
            return self.fail(child, error, final=True)
        if name == child:
            self._push(child)
        elif name in self.done:
            self._reopen(name)
        return True

    def _reopen(self, name: str) -> None:
        self.done.discard(name)
        self._open.add(name)
        for other in self._children[name]:
            self._waits[other] += 1
        self._push(name)

    def _skip_below(self, name: str) -> None:
        below = [name]
        while below:
            for child in self._children[below.pop()]:
                if child in self._open:
                    self._open.discard(child)
                    self.skipped.add(child)
                    below.append(child)

    def _push(self, name: str) -> None:
        heapq.heappush(self._heap, (-self._remaining[name], name))


def _remaining(items: Mapping[str, QueuedStage], children: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the cost of the longest chain that starts at each item."""
    remaining: dict[str, float] = {}
    stack = list(items)
    while stack:
        name = stack[-1]
        if name in remaining:
            stack.pop()
            continue
        unknown = [child for child in children[name] if child not in remaining]
        if unknown:
            stack += unknown
        else:
            remaining[name] = items[name].cost + max((remaining[child] for child in children[name]), default=0.0)
            stack.pop()
    return remaining
