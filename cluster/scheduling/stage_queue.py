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
        reopened = [stage_id for stage_id in added if stage_id in self.done and stage_id not in finished]
        new = {stage_id: stage for stage_id, stage in added.items() if stage_id not in self._stages}
        self._stages |= new
        self.done |= finished - self._open
        for stage_id, stage in new.items():
            self._children[stage_id] = []
            self._attempts[stage_id] = 1 + (self._retries if stage.retries is None else stage.retries)
        for stage_id, stage in new.items():
            needs = {need for need in stage.needs if need in self._stages}
            self._unmet_needs[stage_id] = len(needs - self.done)
            for need in needs:
                self._children[need].append(stage_id)
        self._open |= new.keys() - self.done
        self._remaining = _remaining(self._stages, self._children)
        for stage_id in reopened:
            self._stages[stage_id] = added[stage_id]
            self._reopen(stage_id)
        for stage_id in new:
            if not self._unmet_needs[stage_id]:
                self._push(stage_id)
        for stage_id in (self.failed.keys() | self.skipped) & {need for stage in new.values() for need in stage.needs}:
            self._skip_below(stage_id)

    def stage(self, stage_id: str) -> QueuedStage:
        """Return a stage by its id."""
        return self._stages[stage_id]

    @property
    def finished(self) -> bool:
        """Return whether no stage is pending or running."""
        return not self._open

    def next(self) -> str | None:
        """Return the id of a stage that can run now; None where all wait for running ones."""
        while self._heap:
            _, stage_id = heapq.heappop(self._heap)
            if stage_id in self._open and stage_id not in self.running and not self._unmet_needs[stage_id]:
                self.running.add(stage_id)
                return stage_id
        return None

    def finish(self, stage_id: str) -> None:
        """Mark a stage as done and make its children ready."""
        self.running.discard(stage_id)
        if stage_id not in self._open:
            return
        self._open.discard(stage_id)
        self.done.add(stage_id)
        for child in self._children[stage_id]:
            self._unmet_needs[child] -= 1
            if not self._unmet_needs[child]:
                self._push(child)

    def fail(self, stage_id: str, error: str, *, final: bool = False) -> bool:
        """Record an error; return whether the stage is retried, which it never is if `final`."""
        self.running.discard(stage_id)
        self._attempts[stage_id] = 0 if final else self._attempts[stage_id] - 1
        if self._attempts[stage_id] > 0:
            self._push(stage_id)
            return True
        self._open.discard(stage_id)
        self.failed[stage_id] = error
        self._skip_below(stage_id)
        return False

    def abandon(self, stage_id: str) -> None:
        """Remove a stage that was stopped without a result, and skip its descendants."""
        self.running.discard(stage_id)
        self._open.discard(stage_id)
        self._skip_below(stage_id)
        for need in set(self._stages.pop(stage_id).needs) & self._children.keys():
            self._children[need].remove(stage_id)

    def requeue(self, stage_id: str) -> None:
        """Put a stage back into the queue without counting an attempt."""
        self.running.discard(stage_id)
        self._push(stage_id)

    def redo(self, stage_id: str, child: str, error: str) -> bool:
        """Run a stage again because its results are unusable, and its child (or itself) after it.

        Returns False after `MAX_REDOS` times; then the child fails with the error.
        """
        self.running.discard(child)
        if stage_id == child or stage_id in self.done:
            self._redone[stage_id] += 1
        if stage_id not in self._stages or self._redone[stage_id] > MAX_REDOS:
            return self.fail(child, error, final=True)
        if stage_id == child:
            self._push(child)
        elif stage_id in self.done:
            self._reopen(stage_id)
        return True

    def _reopen(self, stage_id: str) -> None:
        self.done.discard(stage_id)
        self._open.add(stage_id)
        for child in self._children[stage_id]:
            self._unmet_needs[child] += 1
        self._push(stage_id)

    def _skip_below(self, stage_id: str) -> None:
        ancestors = [stage_id]
        while ancestors:
            for child in self._children[ancestors.pop()]:
                if child in self._open:
                    self._open.discard(child)
                    self.skipped.add(child)
                    ancestors.append(child)

    def _push(self, stage_id: str) -> None:
        heapq.heappush(self._heap, (-self._remaining[stage_id], stage_id))


def _remaining(stages: Mapping[str, QueuedStage], children: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the cost of the longest chain that starts at each stage."""
    remaining: dict[str, float] = {}
    stack = list(stages)
    while stack:
        stage_id = stack[-1]
        if stage_id in remaining:
            stack.pop()
            continue
        unknown = [child for child in children[stage_id] if child not in remaining]
        if unknown:
            stack += unknown
        else:
            remaining[stage_id] = stages[stage_id].cost + max(
                (remaining[child] for child in children[stage_id]), default=0.0
            )
            stack.pop()
    return remaining
