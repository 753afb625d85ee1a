"""Interfaces between the scheduler and its users: stages, their resources and outcomes, listeners and sources."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

ReportFunction = Callable[[Mapping[str, float]], None]
"""Reports the scores of a running stage. Raises `SystemExit` in a stage that is to stop."""
MAX_LOSSES = 10
"""How often a stage is retried after its worker process or node was lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedStage:
    """A stage to run.

    Args:
        needs: Ids of the stages that must be done before.
        cost: Expected duration in any unit.
        work: Runs this stage in place of the work function shared by all; for stages added during the run.
        retries: How often to retry after an error; None for the queue's default.
    """

    id: str
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    work: "Work | None" = None
    retries: int | None = None


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """How a stage ended.

    Status:
        busy: Another driver runs it.
        redo: The results of the stage named by `redo` are unusable.
        stopped: Its source stopped it early.
        skipped: Never run, because a stage that it needs failed.
        rejected: It was placed on nodes that failed the check; these are excluded, and it is retried on others.
        lost: Its worker process was lost before the work began.
    """

    status: Literal["done", "busy", "redo", "failed", "stopped", "skipped", "rejected", "lost"]
    detail: str = ""
    redo: str = ""
    nodes: tuple[str, ...] = ()
    """Ids of the nodes that failed the check."""


Work = Callable[[str, ReportFunction], StageOutcome]
"""Runs a stage in a worker process, given its id and a function to report scores."""


class AvailableResources(Protocol):
    """CPU cores and GPUs of a cluster or a machine."""

    @property
    def cpus(self) -> float:
        """Return the number of CPU cores."""

    @property
    def gpus(self) -> float:
        """Return the number of GPUs."""


@dataclass(frozen=True, kw_only=True)
class StageResources:
    """Resources of one stage: CPU cores and GPUs for each of its workers."""

    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1

    def slots(self, capacity: AvailableResources) -> int:
        """Return how many stages run at once."""
        by_cpu = int(capacity.cpus // (self.cpus * self.workers))
        if not self.gpus:
            return max(1, by_cpu)
        # A fraction of a GPU never spans two GPUs; 1.0 // 0.2 is 4, hence the tolerance.
        fit = int(capacity.gpus) * int(1 / self.gpus + 1e-9) if self.gpus < 1 else int(capacity.gpus // self.gpus)
        return max(1, min(by_cpu, fit // self.workers))

    @property
    def bundle(self) -> dict[str, float]:
        """Return what the trial itself reserves; with several workers it only waits for them, on the head."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.workers == 1 else {"node:__internal_head__": 0.001}


class Listener:
    """Callbacks on the progress of stages, called in the driver process; the methods of this class do nothing."""

    def started(self, stage_id: str) -> None:
        """Called when a stage was scheduled and has its resources."""

    def progressed(self, stage_id: str, scores: Mapping[str, float]) -> None:
        """Called when a running stage reported scores."""

    def lost(self, stage_id: str, reason: str) -> None:
        """Called when the worker process of a stage was lost, before a retry; `reason` is "" where it is unknown."""

    def ended(self, stage_id: str, outcome: StageOutcome, *, again: bool) -> None:
        """Called when a stage ended, or is skipped; `again` where it will be retried."""

    def stranded(self) -> None:
        """Called when no node is large enough for a stage, so that all stages wait for one to join."""


class Listeners(Listener):
    """Calls several listeners, in this order."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = tuple(listeners)

    def started(self, stage_id: str) -> None:
        """Call all listeners."""
        for listener in self._listeners:
            listener.started(stage_id)

    def progressed(self, stage_id: str, scores: Mapping[str, float]) -> None:
        """Call all listeners."""
        for listener in self._listeners:
            listener.progressed(stage_id, scores)

    def lost(self, stage_id: str, reason: str) -> None:
        """Call all listeners."""
        for listener in self._listeners:
            listener.lost(stage_id, reason)

    def ended(self, stage_id: str, outcome: StageOutcome, *, again: bool) -> None:
        """Call all listeners."""
        for listener in self._listeners:
            listener.ended(stage_id, outcome, again=again)

    def stranded(self) -> None:
        """Call all listeners."""
        for listener in self._listeners:
            listener.stranded()


class NewStages(NamedTuple):
    """Stages that a source adds to the queue."""

    stages: list[QueuedStage]
    done: set[str]
    """Ids of those that have finished already, in this study or an earlier one."""


class StageSource(Protocol):
    """Adds stages while others run, for example candidates of a search; called in the driver process."""

    def next_stages(self, max_open: int) -> NewStages:
        """Return new stages; called when a slot has no ready stage.

        An empty answer ends the run if no stage is running.

        Args:
            max_open: The number of stages that can run at once.
        """

    def reported(self, stage_id: str, scores: Mapping[str, float]) -> bool:
        """Receive the scores of a running stage; return whether to stop it."""

    def ended(self, stage_id: str, outcome: StageOutcome) -> None:
        """Receive the final outcome of a stage."""
