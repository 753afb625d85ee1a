"""The graph of unique stages that a study trains and compares; imports neither torch nor ray."""

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
    """One unique stage: a training run, done once."""

    digest: str
    recipe: StageIdentity
    draw: RowSelection
    seed: int
    parent: str | None
    initial_weights: str | WeightsFile
    """Where a chain starts; read by its first stage only."""

    @property
    def step(self) -> StageConfig:
        """Return the stage as the study file resolves it."""
        return self.recipe.step

    @property
    def start(self) -> str:
        """Return where the weights come from: a parent's digest, a name, or a file."""
        named = self.initial_weights
        return self.parent or (str(named.file) if isinstance(named, WeightsFile) else named)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a finished target stage is scored. It is no part of the digest."""

    examined: str
    """Digest of cases, size and version of the counts: all but the threshold."""
    size: int
    threshold: float
    class_threshold: ClassThreshold | None
    fold: int
    seed: int
    labelled: float | int
    """Fold, seed and amount of labels whose test cases are scored."""

    @property
    def key(self) -> str:
        """Return what the files of scores are named by."""
        return f"{self.examined}-{self.threshold!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicate:
    """One fold and seed of a cell, as the digests of its chain."""

    arm: int
    labelled: float | int
    fold: int
    seed: int
    chain: tuple[str, ...]
    scoring: Scoring


@dataclass(kw_only=True, eq=False)
class Plan:
    """What a study trains and compares. Nodes stand parents first."""

    file: str
    """Where the study was read from, for messages."""
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
    """Pairs (dropped, kept) of arms whose trainings are the same."""
    candidates: dict[str, PlannedStage] = field(default_factory=dict)
    """Stages that a search tries; they are compared only where they are the best."""
    waiting: dict[int, list[Replicate]] = field(default_factory=dict)
    """Arms whose search is not finished, with the replicates that the file's own settings would give."""
    after_search: dict[str, PlannedStage] = field(default_factory=dict)
    """Of these replicates, the stages whose settings the search may change, as the file has them."""
    searched_with: dict[tuple[int, int | None], frozenset[int]] = field(default_factory=dict)
    """Rows whose masks the settings of an arm were found with, by arm and fold; fold None: the reserve, for all."""
    searches: "ArmSearches | None" = None
    """None in a study without search."""

    @property
    def test_is_fixed(self) -> bool:
        """Return whether all replicates share their test images."""
        return self.views[self.target].settings.test != "folds"

    def split(self, replicate: Replicate) -> Split:
        """Return who of the target trains, validates and tests in a replicate."""
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
        """Return the fraction and the number of the target's training images whose masks a split uses."""
        masks = self.views[self.target].index.offers["masks"]
        training = split.labelled_images + sum(1 for row in split.unlabelled if masks[row])
        return round(split.labelled_images / training, 4), split.labelled_images

    def masks_of_search(self, replicate: Replicate) -> frozenset[int]:
        """Return the rows whose masks the settings of a replicate were found with."""
        found = self.searched_with
        return found.get((replicate.arm, None)) or found.get((replicate.arm, replicate.fold)) or frozenset()

    def node(self, digest: str) -> PlannedStage:
        """Return a stage that is compared or tried."""
        return self.nodes.get(digest) or self.candidates[digest]


def image_epochs(plan: Plan, node: PlannedStage) -> int:
    """Return how many images a stage passes through the network while it trains, each epoch anew."""
    settings = node.recipe.step.settings
    if settings.steps is not None:
        return settings.steps * settings.batch_size
    view = plan.views[node.draw.data]
    rows = view.reading(node.draw).train
    if settings.balance is not None:
        rows = balanced(rows, view.index.categories, settings.balance.images)
    return (settings.epochs or 0) * len(rows)
