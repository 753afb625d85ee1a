"""A data set as one study reads it: its index, and who trains, validates and tests in each replicate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.sample import Index, Offer, Progress, Source
from datasets.settings import SplitSettings
from datasets.sources import DataSettings, open_source
from datasets.splits import Split, fingerprint, pretraining_split, target_split
from study.identity import combined


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Which replicate's cases a stage reads. `fold` and `labelled` are None where they play no part."""

    data: str
    offer: Offer | None
    seed: int
    fold: int | None = None
    labelled: float | int | None = None
    unlabelled: bool = False
    """Whether the stage learns from images without annotation too."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The rows a stage trains and validates on, and their fingerprint."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    unlabelled: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """How a study reads one data set."""

    data: DataSettings
    folds: int
    min_cases: int
    excluded: frozenset[int] = frozenset()
    """Rows left out because they leak."""


@dataclass(eq=False)
class Cohort:
    """One data set of a study. Splits are drawn once and kept."""

    spec: CohortSpec
    source: Source
    index: Index
    _splits: dict[tuple[int, int, float | int, bool], Split] = field(default_factory=dict, init=False)
    _readings: dict[Draw, Reading] = field(default_factory=dict, init=False)

    @classmethod
    def open(cls, spec: CohortSpec, cache: Path, progress: Progress | None = None) -> "Cohort":
        """Read the index of one data set. Raises `DataError`."""
        source = open_source(spec.data)
        return cls(spec=spec, source=source, index=source.index(cache, progress))

    @property
    def settings(self) -> SplitSettings:
        """Return who tests and who validates."""
        return self.spec.data.split

    def split(self, *, fold: int, seed: int, labelled: float | int) -> Split:
        """Return the target's split of one replicate. Raises `DataError` where none can be made."""
        seed = self.split_seed(seed)
        key = (fold, seed, labelled, isinstance(labelled, int))  # 1 image is not the share 1.0
        if key not in self._splits:
            self._splits[key] = target_split(
                self.index, self.settings, offer="masks", folds=self.spec.folds, fold=fold, seed=seed,
                labelled=labelled, min_cases=self.spec.min_cases,
            )  # fmt: skip
        return self._splits[key]

    def split_seed(self, seed: int) -> int:
        """Return the seed that moves partition and order."""
        fixed = self.settings.seed
        return seed if fixed is None else fixed

    def reading(self, draw: Draw) -> Reading:
        """Return what one stage reads."""
        if draw not in self._readings:
            split = self._drawn(draw)
            offers = (draw.offer,) if draw.offer else ()
            train, validation = split.labelled, split.validation
            unlabelled = split.unlabelled if draw.unlabelled else ()
            marks = [fingerprint(self.index, train, offers), fingerprint(self.index, validation, offers)]
            marks += [fingerprint(self.index, unlabelled, ())] if draw.unlabelled else []
            self._readings[draw] = Reading(
                train=train, validation=validation, unlabelled=unlabelled, fingerprint=combined(*marks)
            )
        return self._readings[draw]

    def _drawn(self, draw: Draw) -> Split:
        if draw.fold is None:
            excluded, settings = self.spec.excluded, self.settings
        else:
            split = self.split(fold=draw.fold, seed=draw.seed, labelled=draw.labelled or 1.0)
            if draw.offer == "masks":
                return split
            # The target's own images: whatever does not test, and nothing more is held out of it.
            training = {*split.labelled, *split.validation, *split.unlabelled}
            excluded = frozenset(range(len(self.index))) - training
            settings = self.settings.model_copy(update={"test": "folds"})
        return pretraining_split(
            self.index, settings, offer=draw.offer, seed=self.split_seed(draw.seed), min_cases=self.spec.min_cases,
            exclude=excluded,
        )  # fmt: skip

    def test_print(self, rows: Sequence[int]) -> str:
        """Return the fingerprint of cases that are scored."""
        return fingerprint(self.index, rows, ("masks",))
