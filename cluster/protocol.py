"""What is run on a cluster, what it gets of it, and who is told."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Report = Callable[[Mapping[str, float]], None]
LOST_PROCESSES = 10
"""How often a stage whose process or node is lost is handed out again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedStage:
    """One stage to run. `needs` are ids of other items; `cost` is any measure of its length.

    `work` runs an item that comes late and that the work shared by all does not know. `retries`: how often after an
    error; None: as the queue says.
    """

    id: str
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    work: Any = None
    retries: int | None = None


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """How an item ended. `busy`: another driver runs it. `redo`: what the item named left is unusable.

    `stopped`: its source had it stopped. `skipped`: it was never run, because what it needs failed. `unfit`: it met
    nodes that do not see what they have to; these are left out, and it is run elsewhere. `lost`: its process was,
    before its work began.
    """

    status: Literal["done", "busy", "redo", "failed", "stopped", "skipped", "rejected", "lost"]
    detail: str = ""
    redo: str = ""
    nodes: tuple[str, ...] = ()
    """Ids of those that are unfit."""


Work = Callable[[str, Report], StageOutcome]


class Room(Protocol):
    """What a cluster, or a machine, has."""

    @property
    def cpus(self) -> float:
        """Return processors."""

    @property
    def gpus(self) -> float:
        """Return GPUs."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one item gets of a cluster: processors and GPUs for each of its workers."""

    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1

    def slots(self, capacity: Room) -> int:
        """Return how many items run at once."""
        by_cpu = int(capacity.cpus // (self.cpus * self.workers))
        if not self.gpus:
            return max(1, by_cpu)
        # No share spans two GPUs, and 1.0 // 0.2 is 4.
        fit = int(capacity.gpus) * int(1 / self.gpus + 1e-9) if self.gpus < 1 else int(capacity.gpus // self.gpus)
        return max(1, min(by_cpu, fit // self.workers))

    @property
    def bundle(self) -> dict[str, float]:
        """Return what the trial itself reserves; where workers do the work it only waits for them, on the head."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.workers == 1 else {"node:__internal_head__": 0.001}


class Listener(Protocol):
    """Is told what happens, in the driver's process."""

    def started(self, name: str) -> None:
        """An item was handed out, and has a place."""

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """A running item reported."""

    def lost(self, name: str, why: str) -> None:
        """Hear that the process of a running item was lost, and why if that is known; the item is handed out again."""

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        """An item ended; `again` where it will be handed out once more."""

    def stranded(self) -> None:
        """Hear that no node has room for any item, so that all waits for one to join."""


class Source(Protocol):
    """Brings items that are not known from the start, and is told what became of any; in the driver's process."""

    def more(self, slots: int) -> tuple[Iterable[QueuedStage], Iterable[str]]:
        """Return new items and those ids of them that are done; asked where nothing is ready for one of the slots.

        No items: nothing now, and nothing ever where nothing runs any more.
        """

    def reported(self, name: str, scores: Mapping[str, float]) -> bool:
        """Hear a report of a running item; return whether to stop it."""

    def ended(self, name: str, outcome: StageOutcome) -> None:
        """Hear how an item ended for good."""
