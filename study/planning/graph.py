"""The plan of a study and the graph of its unique stages. Imports neither torch nor ray."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from datasets.loading.balance import balanced
from datasets.settings import EvaluatedSize
from datasets.splits.assignment import Split
from models.catalog import registry
from models.catalog.published import Content, PublishedWeights
from results.metrics.surface import ShapeSettings
from study.config.compare import InitialWeights, WeightsFile, source_of
from study.config.evaluation import ClassPostprocess, ClassThreshold, TtaName
from study.config.schema import StudySpec
from study.planning.arms import Arm, StageConfig
from study.planning.checks.leak_checks import Leak
from study.planning.dataset_view import FEWEST_UNLABELLED, DatasetView, RowSelection, StageRows
from study.planning.stage_identity import StageIdentity


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedStage:
    """One unique stage: a training run that replicates share."""

    digest: str
    identity: StageIdentity
    selection: RowSelection
    seed: int
    parent: str | None
    initial_weights: str | WeightsFile
    """Initial weights of the chain, from which its first stage starts, and those that nothing is carried to."""
    teachers: tuple[str, ...] = ()
    """The stages that label the images without masks of a stage with pseudo-labels, the parent first."""
    member: int = 1
    """Number of the network in an ensemble of teachers: 1 for the stage of a pathway, more for further runs of it."""

    @property
    def name(self) -> str:
        """Return the name of the stage for the user."""
        return self.step.stage + (f" teacher {self.member}" if self.member > 1 else "")

    @property
    def step(self) -> StageConfig:
        """Return the stage as the study file resolves it."""
        return self.identity.step

    @property
    def carried_from(self) -> str | None:
        """Return the digest of the stage whose weights this one starts from, None for initial weights."""
        return self.parent if self.step.link.parts else None

    @property
    def start(self) -> str:
        """Return the source of the initial weights: digest of the parent, a name, or a path."""
        return self.carried_from or source_of(self.initial_weights)

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the digests of the stages whose weights this one reads."""
        return tuple(dict.fromkeys([*([self.parent] if self.parent is not None else []), *self.teachers]))


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The evaluation of a finished target stage; not part of its digest."""

    evaluation: str
    """Digest of the evaluation without the threshold: cases, size, version of the counts."""
    size: EvaluatedSize
    threshold: float
    class_threshold: ClassThreshold | None
    tta: tuple[TtaName, ...]
    postprocess: tuple[tuple[str, ClassPostprocess], ...]
    """By class."""
    shape: ShapeSettings | None
    fold: int
    seed: int
    labelled: float | int
    """Fold, seed and amount of labels that determine the test cases."""

    @property
    def key(self) -> str:
        """Return the key in the names of the score files."""
        return f"{self.evaluation}-{self.threshold!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicate:
    """One fold and seed of a cell, with the digests of its chain, without first stages that the last does not need."""

    arm: int
    labelled: float | int
    fold: int
    seed: int
    chain: tuple[str, ...]
    scoring: Scoring


class StageGraph:
    """The stages, replicates and scorings of a study, parents first.

    A search appends to it while the study runs; nothing is removed, so that a digest stays valid. Properties are
    read-only views for the thread that adds. Other threads may look up digests and read `is_searching`.

    Args:
        arms: The arms with the settings of the study file.
    """

    def __init__(self, arms: Sequence[Arm]) -> None:
        self._lock = threading.Lock()
        self._arms = tuple(arms)
        self._nodes: dict[str, PlannedStage] = {}
        self._candidates: dict[str, PlannedStage] = {}
        self._replicates: tuple[Replicate, ...] = ()
        self._scorings: dict[str, dict[str, Scoring]] = {}
        self._same_arms: list[tuple[int, int]] = []
        self._deferred: dict[int, tuple[list[Replicate], dict[str, PlannedStage]]] = {}
        self._concluded: set[int] = set()
        self._searched_with: dict[tuple[int, int | None], frozenset[int]] = {}

    def set_arm(self, number: int, arm: Arm) -> None:
        """Set the final settings of an arm."""
        with self._lock:
            self._arms = (*self._arms[:number], arm, *self._arms[number + 1 :])

    def add(self, nodes: Mapping[str, PlannedStage], replicates: Iterable[Replicate]) -> None:
        """Add the stages and replicates of an arm."""
        with self._lock:
            self._nodes |= {digest: node for digest, node in nodes.items() if digest not in self._nodes}
            added = tuple(replicates)
            for replicate in added:
                self._scorings.setdefault(replicate.chain[-1], {})[replicate.scoring.key] = replicate.scoring
            # Searches end in any order; tables list the arms in the order of the file.
            self._replicates = tuple(sorted((*self._replicates, *added), key=lambda replicate: replicate.arm))

    def add_candidate(self, nodes: Mapping[str, PlannedStage]) -> None:
        """Add the stages of a search candidate."""
        with self._lock:
            self._candidates |= {digest: node for digest, node in nodes.items() if digest not in self._candidates}

    def add_same_arm(self, dropped: int, kept: int) -> None:
        """Record that two arms have identical stages, so that one is not compared."""
        with self._lock:
            self._same_arms.append((dropped, kept))

    def defer(self, number: int, nodes: Mapping[str, PlannedStage], replicates: list[Replicate], first: int) -> None:
        """Add the stages of an arm that its search does not change: those before position `first` of its chain."""
        links = len(self._arms[number].chain)
        changed, unchanged = set[str](), set[str]()
        for replicate in replicates:
            start = position_in(replicate.chain, first, links=links)
            changed.update(replicate.chain[start:])
            unchanged.update(replicate.chain[:start])
        changed |= {teacher for digest in changed for teacher in nodes[digest].teachers}
        changed -= unchanged
        with self._lock:
            self._nodes |= {d: node for d, node in nodes.items() if d not in changed and d not in self._nodes}
            self._deferred[number] = replicates, {d: node for d, node in nodes.items() if d in changed}

    def conclude(
        self, numbers: Iterable[int], searched_with: Mapping[int | None, frozenset[int]] | None = None
    ) -> None:
        """Mark arms as no longer waiting for a search.

        Args:
            numbers: the arms.
            searched_with: rows whose masks were used to search their settings, by fold; fold None: the reserve.
        """
        with self._lock:
            for number in numbers:
                self._concluded.add(number)
                self._searched_with |= {(number, fold): rows for fold, rows in (searched_with or {}).items()}

    @property
    def arms(self) -> Sequence[Arm]:
        """Return the arms; searched ones have their best settings once the search has concluded."""
        return self._arms

    @property
    def nodes(self) -> Mapping[str, PlannedStage]:
        """Return the stages of the compared replicates."""
        return MappingProxyType(self._nodes)

    @property
    def candidates(self) -> Mapping[str, PlannedStage]:
        """Return the stages of search candidates; only those of the best candidate are compared."""
        return MappingProxyType(self._candidates)

    @property
    def replicates(self) -> Sequence[Replicate]:
        """Return the compared replicates, in the order of the arms."""
        return self._replicates

    @property
    def scorings(self) -> Mapping[str, Mapping[str, Scoring]]:
        """Return the scorings by digest of a target stage, by key."""
        return MappingProxyType(self._scorings)

    @property
    def same_arms(self) -> Sequence[tuple[int, int]]:
        """Return pairs (dropped, kept) of arms with identical stages."""
        return tuple(self._same_arms)

    @property
    def waiting(self) -> Mapping[int, Sequence[Replicate]]:
        """Return the arms whose search has not concluded, with their replicates under the settings of the file."""
        return {
            number: replicates for number, (replicates, _) in self._deferred.items() if number not in self._concluded
        }

    @property
    def after_search(self) -> Mapping[str, PlannedStage]:
        """Return the stages of the replicates in `waiting` whose settings the search may change."""
        return {
            digest: node
            for number, (_, nodes) in self._deferred.items()
            if number not in self._concluded
            for digest, node in nodes.items()
        }

    @property
    def searched_with(self) -> Mapping[tuple[int, int | None], frozenset[int]]:
        """Return the rows whose masks were used to search an arm's settings, by arm and fold."""
        return MappingProxyType(self._searched_with)

    @property
    def is_searching(self) -> bool:
        """Return whether an arm waits for its search."""
        with self._lock:
            return bool(self._deferred.keys() - self._concluded)

    def is_compared(self, digest: str) -> bool:
        """Return whether a stage belongs to a compared replicate."""
        return digest in self._nodes


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The plan of a study: what its file says, and the graph of its stages, the only part that grows."""

    file: str
    """Path of the study file, for messages."""
    spec: StudySpec
    target: str
    views: Mapping[str, DatasetView]
    files: Mapping[Path, str]
    """Content hashes of files of weights, initial ones and those of teachers, by path."""
    file_rules: Mapping[str, Sequence[str]]
    """By which rules these files fill encoders, by the name of the file."""
    contents: Mapping[PublishedWeights, Content | None]
    """Contents of the published weights from which arms and teachers start, None where it is not known."""
    leaks: tuple[Leak, ...] = ()
    warnings: tuple[str, ...] = ()
    graph: StageGraph

    @property
    def arms(self) -> Sequence[Arm]:
        """Return the arms of the graph."""
        return self.graph.arms

    @property
    def nodes(self) -> Mapping[str, PlannedStage]:
        """Return the stages of the compared replicates."""
        return self.graph.nodes

    @property
    def candidates(self) -> Mapping[str, PlannedStage]:
        """Return the stages of search candidates."""
        return self.graph.candidates

    @property
    def replicates(self) -> Sequence[Replicate]:
        """Return the compared replicates."""
        return self.graph.replicates

    @property
    def all_replicates(self) -> Sequence[Replicate]:
        """Return the compared replicates and those that wait for a search."""
        waiting = self.graph.waiting.values()
        return (*self.graph.replicates, *(replicate for replicates in waiting for replicate in replicates))

    @property
    def scorings(self) -> Mapping[str, Mapping[str, Scoring]]:
        """Return the scorings by digest of a target stage, by key."""
        return self.graph.scorings

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
        masks = self.views[self.target].index.annotation_digests["masks"]
        training = split.labelled_images + sum(1 for row in split.unlabelled if masks[row])
        return round(split.labelled_images / training, 4), split.labelled_images

    def masks_of_search(self, replicate: Replicate) -> frozenset[int]:
        """Return the rows whose masks were used to search the settings of a replicate."""
        rows = self.graph.searched_with
        return rows.get((replicate.arm, None)) or rows.get((replicate.arm, replicate.fold)) or frozenset()

    def content(self, backbone: str, weights: InitialWeights) -> Content | None:
        """Return the content of published weights of a backbone, None for others, or if it is not known."""
        if isinstance(weights, WeightsFile) or not registry.has_weights(backbone, weights):
            return None
        return self.contents.get(registry.published_weights(backbone, weights))

    def node(self, digest: str) -> PlannedStage:
        """Return a planned stage or a stage of a candidate."""
        return self.nodes.get(digest) or self.candidates[digest]


def position_in(chain: Sequence[str], position: int, *, links: int) -> int:
    """Return the position in a chain of the stage at a position of its pathway, which has a number of links.

    Chains leave out first stages that nothing needs; the position of these is that of the first stage of the chain.
    """
    return max(position - (links - len(chain)), 0)


def lineage(node_of: Callable[[str], PlannedStage], stages: Iterable[str]) -> dict[str, None]:
    """Return stages and all whose weights they need, directly or not, each once and before those that it needs."""
    needs_first: dict[str, None] = {}
    waiting = list(stages)
    while waiting:
        missing = [need for need in node_of(waiting[-1]).needs if need not in needs_first]
        if missing:
            waiting += missing
        else:
            needs_first[waiting.pop()] = None
    return dict.fromkeys(reversed(needs_first))


def image_epochs(plan: Plan, node: PlannedStage) -> int:
    """Return the number of training images times epochs of a stage."""
    settings = node.step.settings
    if settings.steps is not None:
        return settings.steps * settings.batch_size
    return (settings.epochs or 0) * examples_per_epoch(plan, node)


def pool_of_stage(rows: StageRows, step: StageConfig) -> tuple[int, ...]:
    """Return the unlabelled images that a stage learns from: none below `FEWEST_UNLABELLED` examples."""
    examples = len(rows.unlabelled) * (step.settings.patch.per_image if step.image.fit == "patch" else 1)
    return rows.unlabelled if examples >= FEWEST_UNLABELLED else ()


def examples_per_epoch(plan: Plan, node: PlannedStage) -> int:
    """Return the number of images of an epoch: repeated ones if categories are balanced, several patches of each."""
    view, settings = plan.views[node.selection.data], node.step.settings
    rows = view.stage_rows(node.selection).train
    if settings.balance is not None:
        rows = balanced(rows, view.index.categories, settings.balance.images)
    return len(rows) * (settings.patch.per_image if node.step.image.fit == "patch" else 1)
