"""Build a plan: chains of stages by digest; replicates share equal stages."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from hashlib import blake2b

from datasets.errors import DataError
from datasets.targets import annotation_kind_of
from models.catalog import registry
from models.settings import pool_of
from models.task_settings.pseudo_labels import pseudo_labels_of
from models.task_settings.weak_labels import weak_kind_of
from models.versions import VERSIONS as MODELS
from study.config.compare import WeightsFile
from study.errors import ConfigError, Problem
from study.planning.arms import Arm, StageConfig, evaluated_size
from study.planning.dataset_view import RowSelection, StageRows
from study.planning.digest import Json, combined, digest
from study.planning.evaluation import EvaluationSettings
from study.planning.graph import Plan, PlannedStage, Replicate, Scoring, pool_of_stage
from study.planning.stage_identity import StageIdentity, stage_identity
from study.planning.teachers import teacher_of

EVALUATION_VERSION = 2


class Planner:
    """Build a `Plan`; caches the identities and scorings that many stages share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._identities: dict[int, StageIdentity] = {}
        self._scorings: dict[tuple[object, ...], Scoring] = {}
        self._arm_by_signature: dict[tuple[str, ...], int] = {}
        self._size = evaluated_size(plan.spec, plan.arms)

    def build(self, *, searched: Mapping[int, int] | None = None) -> Plan:
        """Add nodes, replicates and scorings of all arms; identical arms are kept once.

        Args:
            searched: the arms whose settings a search determines, with the first chain position that it may change.

        Raises:
            ConfigError: a stage has no images.
        """
        for number, arm in enumerate(self.plan.arms):
            if searched and number in searched:
                self._defer(number, arm, searched[number])
            else:
                self.add(number, arm)
        return self.plan

    def add(self, number: int, arm: Arm, *, by_fold: Mapping[int, Arm] | None = None) -> None:
        """Plan the replicates of one arm; `by_fold` are its variants with the settings of a nested search."""
        nodes: dict[str, PlannedStage] = {}
        rows = list(self._replicates(number, arm, nodes, by_fold or {}))
        self.plan.graph.set_arm(number, arm)
        if not self._is_duplicate(number, rows):
            self.plan.graph.add(nodes, rows)

    def _defer(self, number: int, arm: Arm, first: int) -> None:
        """Plan the stages of an arm that its search does not change: those before chain position `first`."""
        nodes: dict[str, PlannedStage] = {}
        rows = list(self._replicates(number, arm, nodes, {}))
        if not self._is_duplicate(number, rows):
            self.plan.graph.defer(number, nodes, rows, first)

    def _is_duplicate(self, number: int, rows: list[Replicate]) -> bool:
        signature = tuple(row.chain[-1] + row.scoring.key for row in rows)
        kept = self._arm_by_signature.setdefault(signature, number)
        if kept != number:
            self.plan.graph.add_same_arm(number, kept)
        return kept != number

    def candidate(self, arm: Arm, fold: int | None) -> tuple[str, ...]:
        """Plan a search candidate and return its chain. Raises `ConfigError`.

        It reads the reserve, or with `fold` the training cases of that fold at the largest amount of labels.
        """
        compare = self.plan.spec.compare
        identities = [self._identity(step) for step in arm.chain]
        labelled = max(compare.labelled)
        nodes: dict[str, PlannedStage] = {}
        chain = self._chain(identities, arm.initial_weights, fold, compare.seeds[0], labelled, nodes)
        self.plan.graph.add_candidate(nodes)
        return chain

    def preview(self, number: int, arm: Arm) -> list[Replicate]:
        """Return the replicates of an arm without adding them to the plan."""
        return list(self._replicates(number, arm, {}, {}))

    def _replicates(
        self, number: int, arm: Arm, nodes: dict[str, PlannedStage], by_fold: Mapping[int, Arm]
    ) -> Iterator[Replicate]:
        compare = self.plan.spec.compare
        identities_by_fold = {
            fold: [self._identity(step) for step in fold_arm.chain] for fold, fold_arm in by_fold.items()
        }
        shared = [self._identity(step) for step in arm.chain]
        for labelled in compare.labelled:
            for seed in compare.seeds:
                for fold in range(compare.folds):
                    identities = identities_by_fold.get(fold, shared)
                    chain = self._chain(identities, arm.initial_weights, fold, seed, labelled, nodes)
                    scoring = self._scoring(identities[-1].step, fold, seed, labelled)
                    yield Replicate(arm=number, labelled=labelled, fold=fold, seed=seed, chain=chain, scoring=scoring)

    def _chain(
        self,
        identities: list[StageIdentity],
        weights: str | WeightsFile,
        fold: int | None,
        seed: int,
        labelled: float | int,
        nodes: dict[str, PlannedStage],
    ) -> tuple[str, ...]:
        """Plan the stages of a pathway and return their digests, without those that the last stage does not need."""
        chain: list[PlannedStage] = []
        needed: dict[str, PlannedStage] = {}
        for identity in identities:
            settings = identity.step.settings
            stage_seed = seed if settings.seed is None else settings.seed
            # A student has the split of its teachers, also of other data than the target.
            is_taught = bool(chain) and pseudo_labels_of(settings) is not None
            split_seed = chain[-1].selection.seed if is_taught else stage_seed
            selection = self._selection(identity, fold, seed, split_seed, labelled)
            teachers = self._teachers(chain[-1], identity, selection, needed) if chain else ()
            if not identity.step.link.parts and not teachers:
                chain, needed = [], {}
            parent = chain[-1].digest if chain else None
            node = self._node(identity, selection, stage_seed, parent, weights, teachers)
            chain.append(needed.setdefault(node.digest, node))
        for planned in needed.values():
            nodes.setdefault(planned.digest, planned)
        return tuple(node.digest for node in chain)

    def _teachers(
        self,
        parent: PlannedStage,
        identity: StageIdentity,
        selection: RowSelection,
        nodes: dict[str, PlannedStage],
    ) -> tuple[str, ...]:
        """Plan the teachers of a stage with pseudo-labels: its parent, and runs of it that differ in the seed alone.

        They read the same rows as the parent, and so no image of the test fold of the stage. Without images to label
        there are none.
        """
        block = pseudo_labels_of(identity.step.settings)
        if block is None or not pool_of_stage(self._rows(identity.step.stage, selection), identity.step):
            return ()
        teachers = [parent.digest]
        for number in range(1, block.ensemble):
            seed = _member_seed(parent.seed, number)
            node = self._node(
                parent.identity, parent.selection, seed, parent.parent, parent.initial_weights, parent.teachers,
                member=number + 1,
            )  # fmt: skip
            nodes.setdefault(node.digest, node)
            teachers.append(node.digest)
        return tuple(teachers)

    def _node(
        self,
        identity: StageIdentity,
        selection: RowSelection,
        seed: int,
        parent: str | None,
        weights: str | WeightsFile,
        teachers: tuple[str, ...],
        *,
        member: int = 1,
    ) -> PlannedStage:
        fingerprint = self._rows(identity.step.stage, selection).fingerprint
        carried = parent if identity.step.link.parts else None
        start = carried or self._initial_id(weights, identity.step.backbone)
        others = [teacher for teacher in teachers if teacher != carried]
        return PlannedStage(
            digest=combined(identity.digest, fingerprint, str(seed), start, *others),
            identity=identity, selection=selection, seed=seed, parent=parent, initial_weights=weights,
            teachers=teachers, member=member,
        )  # fmt: skip

    def _selection(
        self, identity: StageIdentity, fold: int | None, seed: int, split_seed: int, labelled: float | int
    ) -> RowSelection:
        """Return the rows of a stage; `split_seed` is the seed of their split unless they are those of the target."""
        data, kind = identity.step.settings.data, annotation_kind_of(identity.step.settings.target)
        unlabelled, weak = pool_of(identity.step.settings), weak_kind_of(identity.step.settings)
        if data != self.plan.target:
            return RowSelection(data=data, annotation_kind=kind, seed=split_seed, unlabelled=unlabelled, weak=weak)
        if fold is None:
            return RowSelection(data=data, annotation_kind=kind, seed=0, unlabelled=unlabelled, weak=weak, reserve=True)
        return RowSelection(
            data=data, annotation_kind=kind, seed=seed, fold=fold, labelled=labelled if kind == "masks" else None,
            unlabelled=unlabelled, weak=weak,
        )  # fmt: skip

    def _rows(self, stage: str, selection: RowSelection) -> StageRows:
        try:
            return self.plan.views[selection.data].stage_rows(selection)
        except DataError as error:
            raise ConfigError([Problem(path=f"stages.{stage}.data", message=str(error))], self.plan.file) from error

    def _initial_id(self, weights: str | WeightsFile, backbone: str) -> str:
        if isinstance(weights, WeightsFile):
            content = self.plan.files[weights.file]
            return digest([content, sorted(weights.allow)]) if weights.allow else content
        if weights == "random":
            return weights
        published = registry.published_weights(backbone, weights)
        return published.identity(self.plan.contents.get(published))

    def _identity(self, step: StageConfig) -> StageIdentity:
        if id(step) not in self._identities:
            identity = stage_identity(step, self.plan.views[step.settings.data].index)
            teacher = teacher_of(step.settings)
            if teacher is not None:
                weights = self._initial_id(teacher.initial_weights, teacher.backbone)
                identity = replace(identity, digest=combined(identity.digest, weights))
            self._identities[id(step)] = identity
        return self._identities[id(step)]

    def _scoring(self, step: StageConfig, fold: int, seed: int, labelled: float | int) -> Scoring:
        names = self._identity(step).names
        settings = EvaluationSettings.of(self.plan.spec.evaluate, step.settings, names)
        view = self.plan.views[self.plan.target]
        key = (settings, fold, view.split_seed(seed), labelled)
        if key not in self._scorings:
            test = view.split(fold=fold, seed=seed, labelled=labelled).test
            parts: list[Json] = [EVALUATION_VERSION, MODELS["counts"], self._size, view.test_fingerprint(test)]
            parts += [settings.class_threshold.model_dump()] if settings.class_threshold is not None else []
            parts += [{"tta": sorted(settings.tta)}] if settings.tta else []
            postprocess = {name: rule.model_dump(mode="json") for name, rule in settings.postprocess}
            parts += [{"postprocess": postprocess}] if postprocess else []
            annotators = view.annotator_fingerprints(test)
            parts += [{"annotators": annotators, "trained": view.trained_annotator}] if annotators else []
            shape = self.plan.spec.metrics.shape
            parts += [{"shape": asdict(shape)}] if shape is not None else []
            parts += [{"unit": "mm"}] if shape is not None and view.index.has_spacing else []
            self._scorings[key] = Scoring(
                evaluation=digest(parts), size=self._size, shape=shape, fold=fold, seed=seed, labelled=labelled,
                **settings._asdict(),
            )  # fmt: skip
        return self._scorings[key]


def _member_seed(seed: int, number: int) -> int:
    """Return the seed of a further member of an ensemble, which no replicate has except by chance."""
    return int.from_bytes(blake2b(f"{seed} ensemble {number}".encode(), digest_size=4).digest()) >> 1
