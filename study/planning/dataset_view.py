"""A data set as one study reads it: its index, and who trains, validates and tests in each replicate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.settings import ImageSettings, SplitSettings
from datasets.source import Index, Offer, Progress, Source
from datasets.sources import DataSettings, open_source
from datasets.splits.assignment import Split, fingerprint, pretraining_split, reserve_split, target_split
from models.settings import Pool
from study.planning.digest import combined


@dataclass(frozen=True, kw_only=True)
class RowSelection:
    """Which replicate's cases a stage reads. `fold` and `labelled` are None where they play no part."""

    data: str
    offer: Offer | None
    seed: int
    fold: int | None = None
    labelled: float | int | None = None
    unlabelled: Pool | None = None
    """Which images without annotation the stage learns from too."""
    reserve: bool = False
    """Whether the stage reads the search's reserve and nothing else of the data."""


@dataclass(frozen=True, kw_only=True)
class StageRows:
    """The rows a stage trains and validates on, and their fingerprint."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    unlabelled: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class DatasetViewSpec:
    """How a study reads one data set."""

    data: DataSettings
    folds: int
    min_cases: int
    excluded: frozenset[int] = frozenset()
    """Rows left out because they leak."""
    reserve: float | None = None
    """Share of the target's patients that a search uses and that never test."""
    fits: frozenset[ImageSettings] = frozenset()
    """How stages fit its images: reading it does so at once. No more than that depends on it."""


@dataclass(eq=False)
class DatasetView:
    """One data set of a study. Splits are drawn once and kept."""

    spec: DatasetViewSpec
    source: Source
    index: Index
    _splits: dict[tuple[int, int, float | int, bool], Split] = field(default_factory=dict, init=False)
    _readings: dict[RowSelection, StageRows] = field(default_factory=dict, init=False)

    @classmethod
    def open(cls, spec: DatasetViewSpec, cache: Path, progress: Progress | None = None) -> "DatasetView":
        """Read the index of one data set. Raises `DataError`."""
        source = open_source(spec.data)
        return cls(spec=spec, source=source, index=source.index(cache, progress, spec.fits))

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
                labelled=labelled, min_cases=self.spec.min_cases, reserve=self.spec.reserve,
            )  # fmt: skip
        return self._splits[key]

    def split_seed(self, seed: int) -> int:
        """Return the seed that moves partition and order."""
        fixed = self.settings.seed
        return seed if fixed is None else fixed

    def reading(self, draw: RowSelection) -> StageRows:
        """Return what one stage reads."""
        if draw not in self._readings:
            split = self._drawn(draw)
            offers = (draw.offer,) if draw.offer else ()
            train, validation = split.labelled, split.validation
            unlabelled = self._pool(split, draw) if draw.unlabelled else ()
            marks = [fingerprint(self.index, train, offers), fingerprint(self.index, validation, offers)]
            marks += [fingerprint(self.index, unlabelled, ())] if draw.unlabelled else []
            self._readings[draw] = StageRows(
                train=train, validation=validation, unlabelled=unlabelled, fingerprint=combined(*marks)
            )
        return self._readings[draw]

    def _pool(self, split: Split, draw: RowSelection) -> tuple[int, ...]:
        """Return the images without annotation; `hidden` is of the target only: other data hide none."""
        of_target = draw.fold is not None or draw.reserve
        if draw.unlabelled == "all" or not of_target or draw.offer is None:
            return split.unlabelled
        held = self.index.offers[draw.offer]
        return tuple(row for row in split.unlabelled if held[row])

    def _drawn(self, draw: RowSelection) -> Split:
        if draw.reserve:
            return reserve_split(
                self.index, self.settings, offer=draw.offer, share=self.spec.reserve or 0.0,
                min_cases=self.spec.min_cases,
            )  # fmt: skip
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
