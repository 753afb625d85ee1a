"""From a checked study to the graph of unique stages; imports neither torch nor ray."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets.errors import DataError
from datasets.sample import Index
from datasets.targets import Target, offer_of
from datasets.targets import names as output_names
from datasets.versions import VERSIONS as DATASETS
from models import catalogue
from models.versions import VERSIONS as MODELS
from study.arms import Arm, Step
from study.cohort import Cohort, Draw
from study.factors import WeightsFile
from study.identity import FORMAT, Json, combined, digest
from study.leaks import Leak
from study.problems import Problem, Refused
from study.spec import StudySpec
from study.stages import ClassThreshold

LOOP_VERSION = 1
EVALUATION_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """A step with what its data makes of it: the network's outputs. Shared by many stages."""

    step: Step
    names: tuple[str, ...]
    exclusive: bool
    structure: str | None
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Node:
    """One unique stage: a training run, done once."""

    digest: str
    recipe: Recipe
    draw: Draw
    seed: int
    parent: str | None
    initial_weights: str | WeightsFile
    """Where a chain starts; read by its first stage only."""

    @property
    def step(self) -> Step:
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
    cohorts: Mapping[str, Cohort]
    arms: list[Arm]
    files: Mapping[Path, str]
    """Content hashes of files with initial weights, by path."""
    leaks: list[Leak] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    replicates: list[Replicate] = field(default_factory=list)
    scorings: dict[str, dict[str, Scoring]] = field(default_factory=dict)
    """By digest of a target stage, by key."""
    same_arms: list[tuple[int, int]] = field(default_factory=list)
    """Pairs (dropped, kept) of arms whose trainings are the same."""

    @property
    def test_is_fixed(self) -> bool:
        """Return whether all replicates share their test images."""
        return self.cohorts[self.target].settings.test != "folds"


class Planner:
    """Builds a `Plan`; what many stages share is computed once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._recipes: dict[int, Recipe] = {}
        self._scorings: dict[tuple[object, ...], Scoring] = {}
        sizes = [arm.chain[-1].image.size for arm in plan.arms]
        self._size = plan.spec.evaluate.size or max(sizes, default=0)

    def build(self) -> Plan:
        """Fill in nodes, replicates and scorings; equal arms are kept once.

        Raises `Refused` where a stage is left without images.
        """
        plan, kept = self.plan, dict[tuple[str, ...], int]()
        for number, arm in enumerate(plan.arms):
            nodes: dict[str, Node] = {}
            rows = list(self._replicates(number, arm, nodes))
            print_ = tuple(row.chain[-1] + row.scoring.key for row in rows)
            first = kept.setdefault(print_, number)
            if first != number:
                plan.same_arms.append((number, first))
                continue
            for name, node in nodes.items():
                plan.nodes.setdefault(name, node)
            for row in rows:
                plan.scorings.setdefault(row.chain[-1], {})[row.scoring.key] = row.scoring
            plan.replicates += rows
        return plan

    def _replicates(self, number: int, arm: Arm, nodes: dict[str, Node]) -> Iterator[Replicate]:
        compare = self.plan.spec.compare
        recipes = [self._recipe(step) for step in arm.chain]
        for labelled in compare.labelled:
            for seed in compare.seeds:
                for fold in range(compare.folds):
                    chain = self._chain(recipes, arm.initial_weights, fold, seed, labelled, nodes)
                    scoring = self._scoring(arm.chain[-1], fold, seed, labelled)
                    yield Replicate(arm=number, labelled=labelled, fold=fold, seed=seed, chain=chain, scoring=scoring)

    def _chain(
        self,
        recipes: list[Recipe],
        weights: str | WeightsFile,
        fold: int,
        seed: int,
        labelled: float | int,
        nodes: dict[str, Node],
    ) -> tuple[str, ...]:
        chain: list[str] = []
        initial = self._initial(weights, recipes[0].step.backbone)
        for recipe in recipes:
            settings = recipe.step.settings
            own_seed = seed if settings.seed is None else settings.seed
            draw = self._draw(recipe, fold, seed, own_seed, labelled)
            fingerprint = self._fingerprint(recipe.step.stage, draw)
            start = chain[-1] if chain else initial
            name = combined(recipe.digest, fingerprint, str(own_seed), start)
            if name not in nodes:
                nodes[name] = Node(
                    digest=name, recipe=recipe, draw=draw, seed=own_seed,
                    parent=chain[-1] if chain else None, initial_weights=weights,
                )  # fmt: skip
            chain.append(name)
        return tuple(chain)

    def _draw(self, recipe: Recipe, fold: int, seed: int, own_seed: int, labelled: float | int) -> Draw:
        data, offer = recipe.step.settings.data, offer_of(recipe.step.settings.target)
        unlabelled = recipe.step.settings.task == "adversarial"
        if data != self.plan.target:
            return Draw(data=data, offer=offer, seed=own_seed, unlabelled=unlabelled)
        return Draw(
            data=data, offer=offer, seed=seed, fold=fold, labelled=labelled if offer == "masks" else None,
            unlabelled=unlabelled,
        )  # fmt: skip

    def _fingerprint(self, stage: str, draw: Draw) -> str:
        try:
            return self.plan.cohorts[draw.data].reading(draw).fingerprint
        except DataError as error:
            raise Refused([Problem(path=f"stages.{stage}.data", message=str(error))], self.plan.file) from error

    def _initial(self, weights: str | WeightsFile, backbone: str) -> str:
        if isinstance(weights, WeightsFile):
            return self.plan.files[weights.file]
        return weights if weights == "random" else catalogue.initial_weights_id(backbone, weights)

    def _recipe(self, step: Step) -> Recipe:
        if id(step) not in self._recipes:
            self._recipes[id(step)] = make_recipe(step, self.plan.cohorts[step.settings.data].index)
        return self._recipes[id(step)]

    def _scoring(self, step: Step, fold: int, seed: int, labelled: float | int) -> Scoring:
        threshold = getattr(step.settings, "threshold", None) or self.plan.spec.evaluate.threshold
        cohort = self.plan.cohorts[self.plan.target]
        careful = getattr(step.settings, "class_threshold", None)
        key = (threshold, careful, fold, cohort.split_seed(seed), labelled)
        if key not in self._scorings:
            test = cohort.split(fold=fold, seed=seed, labelled=labelled).test
            parts: list[Json] = [EVALUATION_VERSION, MODELS["counts"], self._size, cohort.test_print(test)]
            parts += [careful.model_dump()] if careful is not None else []
            self._scorings[key] = Scoring(
                examined=digest(parts), size=self._size, threshold=threshold, class_threshold=careful, fold=fold,
                seed=seed, labelled=labelled,
            )  # fmt: skip
        return self._scorings[key]


_NOT_IN_SETTINGS = {"data", "seed", "architecture", "backbone", "image", "prepare", "threshold", "class_threshold"}
"""Given by fingerprint, node, step and scoring instead."""


def make_recipe(step: Step, index: Index) -> Recipe:
    """Return a step's recipe on its data."""
    target = step.settings.target
    structure = getattr(step.settings, "structure", None)
    if target in ("centre", "box") and structure is None:
        structure = index.structures[0]
    names = _outputs(target, step.image.channels, index)
    exclusive = target == "mask" and not index.overlapping
    key = digest({
        "format": FORMAT,
        "versions": {"datasets": DATASETS, "models": MODELS, "loop": LOOP_VERSION},
        "settings": step.settings.model_dump(mode="json", exclude=_NOT_IN_SETTINGS),
        "target": target,
        "image": step.image.model_dump(mode="json"),
        "architecture": step.architecture,
        "backbone": step.backbone,
        "outputs": {"names": names, "exclusive": exclusive, "structure": structure},
        "link": step.link.model_dump(mode="json", exclude={"stage"}),
    })  # fmt: skip
    return Recipe(step=step, names=names, exclusive=exclusive, structure=structure, digest=key)


def _outputs(target: Target, channels: int, index: Index) -> tuple[str, ...]:
    """Return what the numbers of the network's output stand for."""
    match target:
        case "image":
            return ("grey",) if channels == 1 else ("red", "green", "blue")
        case "centre":
            return ("x", "y")
        case "box":
            return ("x", "y", "width", "height")
        case _:
            return output_names(index, target)


def image_epochs(plan: Plan, node: Node) -> int:
    """Return how many images a stage passes through the network while it trains, each epoch anew."""
    settings = node.recipe.step.settings
    if settings.steps is not None:
        return settings.steps * settings.batch_size
    images = settings.balance.images if settings.balance else len(plan.cohorts[node.draw.data].reading(node.draw).train)
    return (settings.epochs or 0) * images
