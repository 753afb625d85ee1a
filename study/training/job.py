"""Jobs for workers: one stage with everything that training it needs."""

from dataclasses import dataclass
from pathlib import Path

from models.catalog.published import Content
from study.config.compare import WeightsFile
from study.config.schema import Checkpoint
from study.planning.dataset_view import DatasetViewSpec
from study.planning.graph import Plan, PlannedStage, Scoring
from study.store.bucket_backend import mark_as_mirror
from study.store.store import Store


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage to train and, for target stages, to evaluate.

    `fingerprint` identifies the planned data, and `start_content` is the hash of the file of initial weights, "" if
    there is none. `published` is the content of published initial weights, None if there are none or if a commit
    identifies them. A worker that reads other data or weights raises `DataChanged`.
    """

    node: PlannedStage
    view: DatasetViewSpec
    fingerprint: str
    start_content: str
    published: Content | None
    scorings: tuple[Scoring, ...]
    needs_weights: bool
    """Whether to train a published stage again if its weights were not kept."""
    ends: bool
    """Whether a pathway ends with this stage, so that other stages hardly start from it."""

    @property
    def digest(self) -> str:
        """Return the digest of the stage."""
        return self.node.digest


@dataclass(frozen=True, kw_only=True)
class RuntimeContext:
    """Paths and resources of a worker; never part of a digest."""

    storage: Path
    origin: str | None = None
    """The URI that `storage` mirrors, even if this node does not have the mirror yet."""
    cache: Path
    cpus: int
    checkpoint: Checkpoint
    gpus: float = 0.0
    workers: int = 1
    """Processes of one stage; `cpus` and `gpus` are per process."""
    compiles: bool = False
    """Whether to compile networks with `torch.compile`."""
    caches_features: bool = True
    """Whether feature maps of frozen encoders are kept in the cache."""

    @property
    def store(self) -> Store:
        """Return the storage, or its mirror on this node."""
        return Store(self.storage if self.origin is None else mark_as_mirror(self.storage, self.origin))


def stage_job(plan: Plan, node: PlannedStage, *, needs_weights: bool = False) -> StageJob:
    """Return the job of a planned stage."""
    view, start = plan.views[node.selection.data], node.initial_weights
    start_file = start.file if node.parent is None and isinstance(start, WeightsFile) else None
    return StageJob(
        node=node,
        view=view.spec,
        fingerprint=view.stage_rows(node.selection).fingerprint,
        start_content=plan.files[start_file] if start_file is not None else "",
        published=plan.content(node),
        scorings=tuple(plan.scorings.get(node.digest, {}).values()),
        needs_weights=needs_weights,
        ends=any(links[-1].stage == node.step.stage for links in plan.spec.pathways.values()),
    )
