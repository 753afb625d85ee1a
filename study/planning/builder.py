"""Building a plan: chains of stages by digest, each made once however many replicates share it."""

from collections.abc import Iterator, Mapping

from datasets.errors import DataError
from datasets.targets import offer_of
from models.catalog import registry
from models.settings import pool_of
from models.versions import VERSIONS as MODELS
from study.config.compare import WeightsFile
from study.config.stages import MaskStage
from study.errors import ConfigError, Problem
from study.planning.arms import Arm, StageConfig, evaluated_size
from study.planning.dataset_view import RowSelection
from study.planning.digest import Json, combined, digest
from study.planning.graph import Plan, PlannedStage, Replicate, Scoring
from study.planning.recipe import StageIdentity, stage_identity

EVALUATION_VERSION = 2


class Planner:
    """Builds a `Plan`; what many stages share is computed once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._recipes: dict[int, StageIdentity] = {}
        self._scorings: dict[tuple[object, ...], Scoring] = {}
        self._kept: dict[tuple[str, ...], int] = {}
        self._size = evaluated_size(plan.spec, plan.arms)

    def build(self, *, searched: Mapping[int, int] | None = None) -> Plan:
        """Fill in nodes, replicates and scorings; equal arms are kept once.

        `searched`: arms whose settings a search has to find, with the first position in their chain that it may
        change. Raises `ConfigError` where a stage is left without images.
        """
        for number, arm in enumerate(self.plan.arms):
            if searched and number in searched:
                self._wait(number, arm, searched[number])
            else:
                self.add(number, arm)
        return self.plan

    def add(self, number: int, arm: Arm, *, by_fold: Mapping[int, Arm] | None = None) -> None:
        """Plan one arm's replicates; `by_fold` are the arm with settings that a fold's own search found."""
        plan, nodes = self.plan, dict[str, PlannedStage]()
        rows = list(self._replicates(number, arm, nodes, by_fold or {}))
        if self._is_repeated(number, rows):
            return
        for name, node in nodes.items():
            plan.nodes.setdefault(name, node)
        for row in rows:
            plan.scorings.setdefault(row.chain[-1], {})[row.scoring.key] = row.scoring
        # Searches end in any order; tables have the arms in the order of the file.
        plan.replicates = sorted([*plan.replicates, *rows], key=lambda row: row.arm)

    def _wait(self, number: int, arm: Arm, first: int) -> None:
        """Plan what of an arm no search changes, and remember the rest."""
        nodes: dict[str, PlannedStage] = {}
        rows = list(self._replicates(number, arm, nodes, {}))
        if self._is_repeated(number, rows):
            return
        self.plan.waiting[number] = rows
        for row in rows:
            self.plan.after_search |= {name: nodes[name] for name in row.chain[first:]}
            for name in row.chain[:first]:
                self.plan.nodes.setdefault(name, nodes[name])

    def _is_repeated(self, number: int, rows: list[Replicate]) -> bool:
        print_ = tuple(row.chain[-1] + row.scoring.key for row in rows)
        first = self._kept.setdefault(print_, number)
        if first != number:
            self.plan.same_arms.append((number, first))
        return first != number

    def candidate(self, arm: Arm, fold: int | None) -> tuple[str, ...]:
        """Plan one arm as a search tries it, and return its chain.

        It reads the reserve, or with `fold` the most labels of that fold's own training cases. Raises `ConfigError`.
        """
        compare = self.plan.spec.compare
        recipes = [self._recipe(step) for step in arm.chain]
        most = max(compare.labelled)
        return self._chain(recipes, arm.initial_weights, fold, compare.seeds[0], most, self.plan.candidates)

    def preview(self, number: int, arm: Arm) -> list[Replicate]:
        """Return the replicates that an arm would have, without planning them."""
        return list(self._replicates(number, arm, {}, {}))

    def _replicates(
        self, number: int, arm: Arm, nodes: dict[str, PlannedStage], by_fold: Mapping[int, Arm]
    ) -> Iterator[Replicate]:
        compare = self.plan.spec.compare
        recipes = {fold: [self._recipe(step) for step in own.chain] for fold, own in by_fold.items()}
        shared = [self._recipe(step) for step in arm.chain]
        for labelled in compare.labelled:
            for seed in compare.seeds:
                for fold in range(compare.folds):
                    own = recipes.get(fold, shared)
                    chain = self._chain(own, arm.initial_weights, fold, seed, labelled, nodes)
                    scoring = self._scoring(own[-1].step, fold, seed, labelled)
                    yield Replicate(arm=number, labelled=labelled, fold=fold, seed=seed, chain=chain, scoring=scoring)

    def _chain(
        self,
        recipes: list[StageIdentity],
        weights: str | WeightsFile,
        fold: int | None,
        seed: int,
        labelled: float | int,
        nodes: dict[str, PlannedStage],
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
                nodes[name] = PlannedStage(
                    digest=name, recipe=recipe, draw=draw, seed=own_seed,
                    parent=chain[-1] if chain else None, initial_weights=weights,
                )  # fmt: skip
            chain.append(name)
        return tuple(chain)

    def _draw(
        self, recipe: StageIdentity, fold: int | None, seed: int, own_seed: int, labelled: float | int
    ) -> RowSelection:
        data, offer = recipe.step.settings.data, offer_of(recipe.step.settings.target)
        unlabelled = pool_of(recipe.step.settings)
        if data != self.plan.target:
            return RowSelection(data=data, offer=offer, seed=own_seed, unlabelled=unlabelled)
        if fold is None:
            return RowSelection(data=data, offer=offer, seed=0, unlabelled=unlabelled, reserve=True)
        return RowSelection(
            data=data, offer=offer, seed=seed, fold=fold, labelled=labelled if offer == "masks" else None,
            unlabelled=unlabelled,
        )  # fmt: skip

    def _fingerprint(self, stage: str, draw: RowSelection) -> str:
        try:
            return self.plan.views[draw.data].reading(draw).fingerprint
        except DataError as error:
            raise ConfigError([Problem(path=f"stages.{stage}.data", message=str(error))], self.plan.file) from error

    def _initial(self, weights: str | WeightsFile, backbone: str) -> str:
        if isinstance(weights, WeightsFile):
            return self.plan.files[weights.file]
        return weights if weights == "random" else registry.initial_weights_id(backbone, weights)

    def _recipe(self, step: StageConfig) -> StageIdentity:
        if id(step) not in self._recipes:
            self._recipes[id(step)] = stage_identity(step, self.plan.views[step.settings.data].index)
        return self._recipes[id(step)]

    def _scoring(self, step: StageConfig, fold: int, seed: int, labelled: float | int) -> Scoring:
        own = step.settings if isinstance(step.settings, MaskStage) else None
        threshold = (own and own.threshold) or self.plan.spec.evaluate.threshold
        view = self.plan.views[self.plan.target]
        class_threshold = own.class_threshold if own else None
        key = (threshold, class_threshold, fold, view.split_seed(seed), labelled)
        if key not in self._scorings:
            test = view.split(fold=fold, seed=seed, labelled=labelled).test
            parts: list[Json] = [EVALUATION_VERSION, MODELS["counts"], self._size, view.test_print(test)]
            parts += [class_threshold.model_dump()] if class_threshold is not None else []
            self._scorings[key] = Scoring(
                examined=digest(parts), size=self._size, threshold=threshold, class_threshold=class_threshold,
                fold=fold, seed=seed, labelled=labelled,
            )  # fmt: skip
        return self._scorings[key]
