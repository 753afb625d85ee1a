"""The graph of unique stages of a study. Imports neither torch nor ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.loading.balance import balanced
from datasets.splits.assignment import Split
from study.config.compare import WeightsFile
from study.config.schema import StudySpec
from study.config.stages import ClassThreshold
from study.planning.arms import Arm, StageConfig
from study.planning.checks.leak_checks import Leak
from study.planning.dataset_view import DatasetView, RowSelection
from study.planning.recipe import StageIdentity

if TYPE_CHECKING:
    from study.search.arm_search import ArmSearches


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedStage:
    """One unique stage: a training run that replicates share."""

    digest: str
    recipe: StageIdentity
    draw: RowSelection
    seed: int
    parent: str | None
    initial_weights: str | WeightsFile
    """Initial weights of the chain; used by its first stage only."""

    @property
    def step(self) -> StageConfig:
        """Return the stage as the study file resolves it."""
        return self.recipe.step

    @property
    def start(self) -> str:
        """Return the source of the initial weights: digest of the parent, a name, or a path."""
        weights = self.initial_weights
        return self.parent or (str(weights.file) if isinstance(weights, WeightsFile) else weights)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The evaluation of a finished target stage; not part of its digest."""

    examined: str
    """Digest of the evaluation without the threshold: cases, size, version of the counts."""
    size: int
    threshold: float
    class_threshold: ClassThreshold | None
    fold: int
    seed: int
    labelled: float | int
    """Fold, seed and amount of labels that determine the test cases."""

    @property
    def key(self) -> str:
        """Return the key in the names of the score files."""
        return f"{self.examined}-{self.threshold!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicate:
    """One fold and seed of a cell, with the digests of its chain."""

    arm: int
    labelled: float | int
    fold: int
    seed: int
    chain: tuple[str, ...]
    scoring: Scoring


@dataclass(kw_only=True, eq=False)
class Plan:
    """The plan of a study. Nodes are in topological order: parents first."""

    file: str
    """Path of the study file, for messages."""
    spec: StudySpec
    target: str
    views: Mapping[str, DatasetView]
    arms: list[Arm]
    files: Mapping[Path, str]
    """Content hashes of files with initial weights, by path."""
    leaks: list[Leak] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    nodes: dict[str, PlannedStage] = field(default_factory=dict)
    replicates: list[Replicate] = field(default_factory=list)
    scorings: dict[str, dict[str, Scoring]] = field(default_factory=dict)
    """By digest of a target stage, by key."""
    same_arms: list[tuple[int, int]] = field(default_factory=list)
    """Pairs (dropped, kept) of arms with identical stages."""
    candidates: dict[str, PlannedStage] = field(default_factory=dict)
    """Stages of search candidates; only those of the best candidate are compared."""
    waiting: dict[int, list[Replicate]] = field(default_factory=dict)
    """Arms whose search is not finished, with their replicates under the settings of the file."""
    after_search: dict[str, PlannedStage] = field(default_factory=dict)
    """Stages of the replicates in `waiting` whose settings the search may change."""
    searched_with: dict[tuple[int, int | None], frozenset[int]] = field(default_factory=dict)
    """Rows whose masks were used to search an arm's settings, by arm and fold; fold None: the reserve."""
    searches: "ArmSearches | None" = None
    """None in a study without search."""

    @property
    def test_is_fixed(self) -> bool:
        """Return whether all replicates share their test images."""
        return self.views[self.target].settings.test != "folds"

    def split(self, replicate: Replicate) -> Split:
        """Return the split of the target for a replicate."""
        return self.views[self.target].split(fold=replicate.fold, seed=replicate.seed, labelled=replicate.labelled)

    def splits(self, labelled: float | int) -> list[Split]:
        """Return the target's splits of all folds and seeds at one amount of labels."""
        view, compare = self.views[self.target], self.spec.compare
        return [
            view.split(fold=fold, seed=seed, labelled=labelled)
            for seed in compare.seeds
            for fold in range(compare.folds)
        ]

    def labelled_size(self, split: Split) -> tuple[float, int]:
        """Return fraction and number of the training images of the target whose masks a split uses."""
        masks = self.views[self.target].index.offers["masks"]
        training = split.labelled_images + sum(1 for row in split.unlabelled if masks[row])
        return round(split.labelled_images / training, 4), split.labelled_images

    def masks_of_search(self, replicate: Replicate) -> frozenset[int]:
        """Return the rows whose masks were used to search the settings of a replicate."""
        rows = self.searched_with
        return rows.get((replicate.arm, None)) or rows.get((replicate.arm, replicate.fold)) or frozenset()

    def node(self, digest: str) -> PlannedStage:
        """Return a planned stage or a stage of a candidate."""
        return self.nodes.get(digest) or self.candidates[digest]


def image_epochs(plan: Plan, node: PlannedStage) -> int:
    """Return the number of training images times epochs of a stage."""
    settings = node.recipe.step.settings
    if settings.steps is not None:
        return settings.steps * settings.batch_size
    view = plan.views[node.draw.data]
    rows = view.stage_rows(node.draw).train
    if settings.balance is not None:
        rows = balanced(rows, view.index.categories, settings.balance.images)
    return (settings.epochs or 0) * len(rows)
