"""One stage as a worker gets it: everything it needs, and nothing of the rest of the study."""

from dataclasses import dataclass
from pathlib import Path

from study.config.compare import WeightsFile
from study.config.schema import Checkpoint
from study.planning.dataset_view import DatasetViewSpec
from study.planning.graph import Plan, PlannedStage, Scoring
from study.store.bucket_store import as_mirror
from study.store.store import Store


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage to train and, for target stages, to score.

    `fingerprint` says what the plan read; a worker that finds other data refuses to train on it. `start_content` does
    so of the file that it starts from, "" where it starts from none.
    """

    node: PlannedStage
    view: DatasetViewSpec
    fingerprint: str
    start_content: str
    scorings: tuple[Scoring, ...]
    needs_weights: bool
    """A published stage whose weights were not kept is trained again."""
    ends: bool
    """Whether pathways end in it: hardly another stage starts from it."""

    @property
    def digest(self) -> str:
        """Return the stage's content key."""
        return self.node.digest


@dataclass(frozen=True, kw_only=True)
class RuntimeContext:
    """Where and with what a worker runs; never part of a digest."""

    storage: Path
    origin: str | None = None
    """The URI that `storage` mirrors, also on a node that has no mirror of it yet."""
    cache: Path
    cpus: int
    checkpoint: Checkpoint
    gpus: float = 0.0
    workers: int = 1
    """Processes of one stage; `cpus` and `gpus` are those of each."""
    compiles: bool = False
    """Whether torch compiles networks first."""

    @property
    def store(self) -> Store:
        """Return the storage as this node sees it."""
        return Store(self.storage if self.origin is None else as_mirror(self.storage, self.origin))


def stage_job(plan: Plan, node: PlannedStage, *, needs_weights: bool = False) -> StageJob:
    """Return the job of one node."""
    view, start = plan.views[node.draw.data], node.initial_weights
    own_file = start.file if node.parent is None and isinstance(start, WeightsFile) else None
    return StageJob(
        node=node,
        view=view.spec,
        fingerprint=view.reading(node.draw).fingerprint,
        start_content=plan.files[own_file] if own_file is not None else "",
        scorings=tuple(plan.scorings.get(node.digest, {}).values()),
        needs_weights=needs_weights,
        ends=any(links[-1].stage == node.step.stage for links in plan.spec.pathways.values()),
    )
