"""Check imported values against the design that the user states."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from results.schema import SERIES, Level
from results.statistics.design import baseline_key
from study.analysis.imported.values import factors_of, grouped
from study.errors import unknown

if TYPE_CHECKING:
    import pandas as pd

MAX_RATIO = 2
"""Maximum ratio of the sizes of two folds; a larger one means that lines of a fold are missing."""


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What a file of values does not say.

    Attributes:
        design: "cv" if each fold has its own test images, "fixed" if all replicates share one test set.
        level: The column of labelled data that identifies cells.
        baselines: Rules, each a factor and its value in the baseline.
        lower_is_better: Metrics that improve downwards, besides the known ones.
        design_is_given: Whether the user chose the design, which also accepts folds of very different sizes.
    """

    design: Literal["cv", "fixed"]
    level: Level
    baselines: tuple[tuple[str, str], ...] = ()
    lower_is_better: tuple[str, ...] = ()
    design_is_given: bool = True

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings from `imported.json`."""
        rules = tuple((factor, value) for factor, value in values["baselines"])
        return cls(**{**values, "baselines": rules, "lower_is_better": tuple(values["lower_is_better"])})


def import_problems(values: "pd.DataFrame", settings: ImportSettings) -> Iterator[str]:
    """Yield the problems of values with their design: baselines, directions, missing lines, images."""
    yield from _baseline_problems(values, settings)
    known = sorted(set(values["metric"]))
    missing = [metric for metric in settings.lower_is_better if metric not in known]
    if missing:
        yield f"--lower-is-better {missing[0]}: {unknown('metric', missing[0], known)}"
    yield from _incomplete(values, ("fold", "seed"), settings.level)
    yield from _incomplete(values, ("dataset",), settings.level)
    if settings.design == "cv" and values["fold"].nunique() < 2:
        yield "--design cv needs 2 or more folds; allowed: a column fold, or --design fixed; choose one"
        return
    images = values[values["image"] != ""]
    if len(images):
        yield from _fixed_problems(images) if settings.design == "fixed" else _fold_problems(images, settings)


def _baseline_problems(values: "pd.DataFrame", settings: ImportSettings) -> Iterator[str]:
    factors = factors_of(values)
    arms = set(values[factors].itertuples(index=False, name=None))
    for factor, value in settings.baselines:
        rule = f"--baseline {factor}={value}"
        if factor not in factors:
            yield f"{rule}: {unknown('factor', factor, factors)}"
            continue
        known = sorted(set(values[factor]))
        if value not in known:
            yield f"{rule}: {unknown('value', value, known)}"
            continue
        alone = [
            arm
            for arm in sorted(arms)
            if baseline_key(dict(zip(factors, arm, strict=True)), {factor: value}) not in arms
        ]
        if alone:
            yield (
                f"{rule}: {len(alone)} arms have no such baseline ({' / '.join(alone[0])}); allowed: a value that "
                "exists together with each arm's other factors; add the arm or leave it out"
            )


def _incomplete(values: "pd.DataFrame", unit: Sequence[str], level: str) -> Iterator[str]:
    """Yield the first arm and metric that lack folds and seeds, or data sets, which other arms have."""
    factors = factors_of(values)
    for series, part in grouped(values, SERIES):
        sets = {
            cell: frozenset(lines[list(unit)].itertuples(index=False, name=None))
            for cell, lines in grouped(part, [*factors, level])
        }
        everything = frozenset().union(*sets.values())
        for cell, present in sets.items():
            missing = sorted(everything - present)
            if missing:
                first = ", ".join(f"{name} {value}" for name, value in zip(unit, missing[0], strict=True))
                yield (
                    f"{' / '.join(map(str, cell[: len(factors)]))} has no {series[3]} for {first} ({len(missing)} of "
                    f"{len(everything)} missing); allowed: the same folds, seeds and data sets for every arm; add the "
                    "lines, with an empty value where it is undefined"
                )
                return


def _fixed_problems(images: "pd.DataFrame") -> Iterator[str]:
    for (split, dataset), part in grouped(images, ["split", "dataset"]):
        if len(_image_sets(part, ["labelled_fraction", "labelled_images", "fold", "seed"])) > 1:
            place = f"split {split}" + (f" of data set {dataset}" if dataset else "")
            yield (
                f"the images of {place} differ between replicates; allowed with --design fixed: the same images for "
                "every arm, fold and seed; add the missing lines, or use --design cv"
            )


def _fold_problems(images: "pd.DataFrame", settings: ImportSettings) -> Iterator[str]:
    for (fold, seed, split, _), part in grouped(images, ["fold", "seed", "split", "dataset"]):
        if len(_image_sets(part, [settings.level])) > 1:
            yield (
                f"the images of split {split} in fold {fold}, seed {seed} differ between arms; allowed: the same "
                "images for every arm; add the missing lines, with an empty value where it is undefined"
            )
            return
    once = images.drop_duplicates(["seed", "fold", "split", "dataset", "image"])
    for (seed, split), part in grouped(once[once["split"].str.startswith("test")], ["seed", "split"]):
        if part.duplicated(["dataset", "image"]).any():
            yield (
                f"images of split {split} are in several folds of seed {seed}; allowed with --design cv: each image "
                "in one fold; use --design fixed if all replicates share their test images"
            )
            return
        sizes = part.groupby("fold").size()
        if sizes.max() > MAX_RATIO * sizes.min() + 1 and not settings.design_is_given:
            yield (
                f"fold {sizes.idxmin()} has {sizes.min()} images and fold {sizes.idxmax()} has {sizes.max()}; allowed: "
                "folds of similar size; add the missing lines, or confirm such folds with --design cv"
            )
            return


def _image_sets(images: "pd.DataFrame", further: Sequence[str]) -> set[frozenset[str]]:
    """Return the different sets of images of the arms and of `further` columns."""
    key = [*factors_of(images), "class", "metric", *further]
    return {frozenset(lines["image"]) for _, lines in grouped(images, key)}
