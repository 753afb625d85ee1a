"""Jobs for workers: one stage with everything that training it needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.catalog.published import Content
from study.config.compare import InitialWeights, WeightsFile
from study.config.schema import Checkpoint
from study.planning.dataset_view import DatasetViewSpec
from study.planning.graph import Plan, PlannedStage, Scoring
from study.planning.teachers import teacher_of
from study.store.bucket_backend import mark_as_mirror
from study.store.store import Store


@dataclass(frozen=True, kw_only=True)
class PlannedWeights:
    """The weights that an encoder starts from.

    Attributes:
        backbone: Its backbone.
        weights: random, a name of published weights, or a file.
        file_hash: Hash of the file, "" for other weights.
        content: Content of published weights, None for others, or if a commit identifies them.
    """

    backbone: str
    weights: InitialWeights
    file_hash: str
    content: Content | None

    @classmethod
    def of(cls, plan: Plan, backbone: str, weights: InitialWeights) -> Self:
        """Return the weights with the content that was planned with."""
        file_hash = plan.files[weights.file] if isinstance(weights, WeightsFile) else ""
        return cls(backbone=backbone, weights=weights, file_hash=file_hash, content=plan.content(backbone, weights))


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage to train and, for target stages, to evaluate.

    `fingerprint` identifies the planned data. A worker that reads other data or weights raises `DataChanged`.
    """

    node: PlannedStage
    view: DatasetViewSpec
    fingerprint: str
    initial: PlannedWeights | None
    """None for a stage that starts from the weights of another one."""
    teacher: PlannedWeights | None
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
    view, teacher = plan.views[node.selection.data], teacher_of(node.step.settings)
    return StageJob(
        node=node,
        view=view.spec,
        fingerprint=view.stage_rows(node.selection).fingerprint,
        initial=PlannedWeights.of(plan, node.step.backbone, node.initial_weights)
        if node.carried_from is None
        else None,
        teacher=PlannedWeights.of(plan, teacher.backbone, teacher.initial_weights) if teacher is not None else None,
        scorings=tuple(plan.scorings.get(node.digest, {}).values()),
        needs_weights=needs_weights,
        ends=any(links[-1].stage == node.step.stage for links in plan.spec.pathways.values()),
    )
