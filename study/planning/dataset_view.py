"""A view of a data set for one study: its index and the splits of all replicates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from datasets.settings import ImageSettings, SplitSettings
from datasets.source import AnnotationKind, Index, ProgressCallback, Source
from datasets.sources import DataSettings, open_source
from datasets.sources.annotators import other_annotators, trained_annotator
from datasets.splits.assignment import Split, fingerprint, pretraining_split, reserve_split, target_split
from datasets.splits.named import validation_patients
from datasets.splits.weak_rows import WeakName, WeakRows, weak_fingerprint, weak_rows
from models.settings import Pool
from study.planning.digest import combined

FEWEST_UNLABELLED = 2
"""Minimum number of unlabelled examples: some networks cannot normalise a single image."""


@dataclass(frozen=True, kw_only=True)
class RowSelection:
    """Selects the cases that a stage reads. `fold` and `labelled` are None if the cases do not depend on them."""

    data: str
    annotation_kind: AnnotationKind | None
    seed: int
    fold: int | None = None
    labelled: float | int | None = None
    unlabelled: Pool | None = None
    """Which images without annotation the stage also learns from."""
    weak: WeakName | None = None
    """The kind of weak labels of these images, None for images without any."""
    reserve: bool = False
    """Whether the stage reads only the reserve of the search."""


@dataclass(frozen=True, kw_only=True)
class StageRows:
    """The rows a stage trains and validates on, and their fingerprint."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    unlabelled: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class HeldOutRows:
    """The rows on which a stage is tested, and their fingerprint."""

    rows: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class DatasetViewSpec:
    """Settings with which a study reads a data set."""

    data: DataSettings
    folds: int
    min_cases: int
    excluded: frozenset[int] = frozenset()
    """Rows excluded because of leaks."""
    reserve: float | None = None
    """Fraction of the target's patients that only a search uses; they are never tested on."""
    fits: frozenset[ImageSettings] = frozenset()
    """Image settings of the stages: their image caches are filled while the data set is indexed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatorView:
    """The data set with the masks of an annotator who is not trained on; rows are the same."""

    source: Source
    index: Index

    def usable(self, rows: Sequence[int]) -> tuple[int, ...]:
        """Return the rows that this annotator annotated."""
        masks = self.index.annotation_digests["masks"]
        return tuple(row for row in rows if masks[row] and not self.index.fault(row))


@dataclass(eq=False)
class DatasetView:
    """One data set of a study. Splits and rows of stages are cached."""

    spec: DatasetViewSpec
    source: Source
    index: Index
    annotators: Mapping[str, AnnotatorView] = field(default_factory=dict)
    """The other annotators, by name."""
    _splits: dict[tuple[int, int, float | int, bool], Split] = field(default_factory=dict, init=False)
    _stage_rows: dict[RowSelection, StageRows] = field(default_factory=dict, init=False)
    _weak_rows: dict[RowSelection, WeakRows] = field(default_factory=dict, init=False)

    @classmethod
    def open(cls, spec: DatasetViewSpec, cache: Path, progress: ProgressCallback | None = None) -> "DatasetView":
        """Read the index of one data set. Raises `DataError`."""
        source = open_source(spec.data)
        index = source.index(cache, progress, spec.fits)
        annotators = {}
        for name, settings in other_annotators(spec.data).items():
            other = open_source(settings)
            annotators[name] = AnnotatorView(source=other, index=other.index(cache, progress))
        return cls(spec=spec, source=source, index=index, annotators=annotators)

    @property
    def trained_annotator(self) -> str:
        """Return the name of the annotator whose masks are trained on, "" without several annotators."""
        return trained_annotator(self.spec.data)

    @property
    def settings(self) -> SplitSettings:
        """Return the settings of the test and validation split."""
        return self.spec.data.split

    def split(self, *, fold: int, seed: int, labelled: float | int) -> Split:
        """Return the split of the target for one replicate. Raises `DataError` if it is impossible."""
        seed = self.split_seed(seed)
        key = (fold, seed, labelled, isinstance(labelled, int))  # 1 image is not the share 1.0
        if key not in self._splits:
            self._splits[key] = target_split(
                self.index, self.settings, annotation_kind="masks", folds=self.spec.folds, fold=fold, seed=seed,
                labelled=labelled, min_cases=self.spec.min_cases, reserve=self.spec.reserve,
            )  # fmt: skip
        return self._splits[key]

    def split_seed(self, seed: int) -> int:
        """Return the seed of the split: the fixed one of the settings, or that of the replicate."""
        fixed = self.settings.seed
        return seed if fixed is None else fixed

    def stage_rows(self, selection: RowSelection) -> StageRows:
        """Return the rows that a stage reads."""
        if selection not in self._stage_rows:
            split = self._split_for(selection)
            annotation_kinds = (selection.annotation_kind,) if selection.annotation_kind else ()
            train, validation = split.labelled, split.validation
            unlabelled: tuple[int, ...] = ()
            fingerprints = [
                fingerprint(self.index, train, annotation_kinds),
                fingerprint(self.index, validation, annotation_kinds),
            ]
            if selection.weak is not None:
                rows, seed = self.weak_rows(selection), self.split_seed(selection.seed)
                unlabelled = rows.all
                fingerprints.append(weak_fingerprint(self.index, rows, selection.weak, seed))
            elif selection.unlabelled:
                unlabelled = self._unlabelled_rows(split, selection)
                fingerprints.append(fingerprint(self.index, unlabelled, ()))
            self._stage_rows[selection] = StageRows(
                train=train, validation=validation, unlabelled=unlabelled, fingerprint=combined(*fingerprints)
            )
        return self._stage_rows[selection]

    def held_out(self, selection: RowSelection) -> HeldOutRows:
        """Return the rows that the split of the data holds out from a stage, with the annotation of the stage.

        Of the target's data these are the test images of the fold. Other data without a fixed test set has none.
        """
        kinds = (selection.annotation_kind,) if selection.annotation_kind else ()
        rows = self._split_for(selection).test
        if selection.fold is not None:
            test = self.split(fold=selection.fold, seed=selection.seed, labelled=selection.labelled or 1.0).test
            hashes = [self.index.annotation_digests[kind] for kind in kinds]
            rows = tuple(row for row in test if not self.index.faults[row] and all(column[row] for column in hashes))
        return HeldOutRows(rows=rows, fingerprint=fingerprint(self.index, rows, kinds))

    def weak_rows(self, selection: RowSelection) -> WeakRows:
        """Return the images with weak labels that a stage learns from, none for a stage without weak labels.

        Patients that are named for validation are left out, also where they do not validate as their masks are hidden.
        Fewer than `FEWEST_UNLABELLED` images are not used.
        """
        none = WeakRows(own=(), derived=())
        if selection.weak is None:
            return none
        if selection not in self._weak_rows:
            patients, named = self.index.patients, self._validation_patients
            rows = [row for row in self._split_for(selection).unlabelled if patients[row] not in named]
            found = weak_rows(self.index, rows, selection.weak)
            self._weak_rows[selection] = found if len(found.all) >= FEWEST_UNLABELLED else none
        return self._weak_rows[selection]

    @cached_property
    def _validation_patients(self) -> frozenset[str]:
        return validation_patients(self.index, self.settings)

    def _unlabelled_rows(self, split: Split, selection: RowSelection) -> tuple[int, ...]:
        """Return the images used without annotation. Pool `hidden` restricts those of the target; others hide none."""
        of_target = selection.fold is not None or selection.reserve
        if selection.unlabelled == "all" or not of_target or selection.annotation_kind is None:
            return split.unlabelled
        hashes = self.index.annotation_digests[selection.annotation_kind]
        return tuple(row for row in split.unlabelled if hashes[row])

    def _split_for(self, selection: RowSelection) -> Split:
        if selection.reserve:
            return reserve_split(
                self.index, self.settings, annotation_kind=selection.annotation_kind, share=self.spec.reserve or 0.0,
                min_cases=self.spec.min_cases,
            )  # fmt: skip
        if selection.fold is None:
            excluded, settings = self.spec.excluded, self.settings
        else:
            split = self.split(fold=selection.fold, seed=selection.seed, labelled=selection.labelled or 1.0)
            if selection.annotation_kind == "masks":
                return split
            # All images of the target that are not tested on; no further ones are held out.
            training = {*split.labelled, *split.validation, *split.unlabelled}
            excluded = frozenset(range(len(self.index))) - training
            settings = self.settings.model_copy(update={"test": "folds"})
        return pretraining_split(
            self.index, settings, annotation_kind=selection.annotation_kind, seed=self.split_seed(selection.seed),
            min_cases=self.spec.min_cases, exclude=excluded,
        )  # fmt: skip

    def test_fingerprint(self, rows: Sequence[int]) -> str:
        """Return the fingerprint of the test cases."""
        return fingerprint(self.index, rows, ("masks",))

    def annotator_fingerprints(self, rows: Sequence[int]) -> dict[str, str]:
        """Return the fingerprint of the test cases with the masks of each other annotator."""
        return {name: fingerprint(view.index, view.usable(rows), ("masks",)) for name, view in self.annotators.items()}
