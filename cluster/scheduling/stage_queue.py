"""Which stage is next: a graph of stages, parents before children, longest remaining chain first."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cluster.protocol import QueuedStage

MAX_REDOS = 3
"""How often a stage is run again because its results turned out unusable."""


class StageQueue:
    """Priority queue of stages whose needs are done. When a stage fails, only its descendants are skipped.

    Args:
        done: Ids of stages that need not run, unless their results turn out unusable.
        retries: How often a stage is retried after an error, if the stage does not say.
    """

    def __init__(self, stages: Iterable[QueuedStage] = (), *, done: Iterable[str] = (), retries: int = 1) -> None:
        self.done: set[str] = set()
        self._retries = retries
        self._stages: dict[str, QueuedStage] = {}
        self._children: dict[str, list[str]] = {}
        self._unmet_needs: dict[str, int] = {}
        self._remaining: dict[str, float] = {}
        self._attempts: dict[str, int] = {}
        self._heap: list[tuple[float, str]] = []
        self._redone: Counter[str] = Counter()
        self._open: set[str] = set()
        self.running: set[str] = set()
        self.failed: dict[str, str] = {}
        """Error by id of each failed stage."""
        self.skipped: set[str] = set()
        """Ids of descendants of failed stages."""
        self.add(stages, done=done)

    def add(self, stages: Iterable[QueuedStage], *, done: Iterable[str] = ()) -> None:
        """Add stages. Open ones are unchanged; one that was done and is not in `done` runs again.

        A new descendant of a failed stage is skipped at once.
        """
        added, finished = {stage.id: stage for stage in stages}, set(done)
        reopened = [name for name in added if name in self.done and name not in finished]
        new = {name: stage for name, stage in added.items() if name not in self._stages}
        self._stages |= new
        self.done |= finished - self._open
        for name, stage in new.items():
            self._children[name] = []
            self._attempts[name] = 1 + (self._retries if stage.retries is None else stage.retries)
        for name, stage in new.items():
            needs = {need for need in stage.needs if need in self._stages}
            self._unmet_needs[name] = len(needs - self.done)
            for need in needs:
                self._children[need].append(name)
        self._open |= new.keys() - self.done
        self._remaining = _remaining(self._stages, self._children)
        for name in reopened:
            self._stages[name] = added[name]
            self._reopen(name)
        for name in new:
            if not self._unmet_needs[name]:
                self._push(name)
        for name in (self.failed.keys() | self.skipped) & {need for stage in new.values() for need in stage.needs}:
            self._skip_below(name)

    def stage(self, name: str) -> QueuedStage:
        """Return a stage by its id."""
        return self._stages[name]

    @property
    def finished(self) -> bool:
        """Return whether no stage is pending or running."""
        return not self._open

    def next(self) -> str | None:
        """Return the id of a stage that can run now; None where all wait for running ones."""
        while self._heap:
            _, name = heapq.heappop(self._heap)
            if name in self._open and name not in self.running and not self._unmet_needs[name]:
                self.running.add(name)
                return name
        return None

    def finish(self, name: str) -> None:
        """Mark a stage as done and make its children ready."""
        self.running.discard(name)
        if name not in self._open:
            return
        self._open.discard(name)
        self.done.add(name)
        for child in self._children[name]:
            self._unmet_needs[child] -= 1
            if not self._unmet_needs[child]:
                self._push(child)

    def fail(self, name: str, error: str, *, final: bool = False) -> bool:
        """Record an error; return whether the stage is retried, which it never is if `final`."""
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
        """Remove a stage that was stopped without a result, and skip its descendants."""
        self.running.discard(name)
        self._open.discard(name)
        self._skip_below(name)
        for need in set(self._stages.pop(name).needs) & self._children.keys():
            self._children[need].remove(name)

    def requeue(self, name: str) -> None:
        """Put a stage back into the queue without counting an attempt."""
        self.running.discard(name)
        self._push(name)

    def redo(self, name: str, child: str, error: str) -> bool:
        """Run a stage again because its results are unusable, and its child (or itself) after it.

        Returns False after `MAX_REDOS` times; then the child fails with the error.
        """
        self.running.discard(child)
        if name == child or name in self.done:
            self._redone[name] += 1
        if name not in self._stages or self._redone[name] > MAX_REDOS:
            return self.fail(child, error, final=True)
        if name == child:
            self._push(child)
        elif name in self.done:
            self._reopen(name)
        return True

    def _reopen(self, name: str) -> None:
        self.done.discard(name)
        self._open.add(name)
        for child in self._children[name]:
            self._unmet_needs[child] += 1
        self._push(name)

    def _skip_below(self, name: str) -> None:
        ancestors = [name]
        while ancestors:
            for child in self._children[ancestors.pop()]:
                if child in self._open:
                    self._open.discard(child)
                    self.skipped.add(child)
                    ancestors.append(child)

    def _push(self, name: str) -> None:
        heapq.heappush(self._heap, (-self._remaining[name], name))


def _remaining(stages: Mapping[str, QueuedStage], children: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the cost of the longest chain that starts at each stage."""
    remaining: dict[str, float] = {}
    stack = list(stages)
    while stack:
        name = stack[-1]
        if name in remaining:
            stack.pop()
            continue
        unknown = [child for child in children[name] if child not in remaining]
        if unknown:
            stack += unknown
        else:
            remaining[name] = stages[name].cost + max((remaining[child] for child in children[name]), default=0.0)
            stack.pop()
    return remaining
