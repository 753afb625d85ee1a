"""Differences of single test images between an arm and its baseline, each image once."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from results.design import Design
from results.inference import Array
from results.metrics import ImageValues
from results.schema import Level, Replicate

if TYPE_CHECKING:
    import pandas as pd

Series = tuple[str, str]
Split = str
Cell = Mapping[tuple[int, int], Mapping[Split, ImageValues]]
"""Image values of a cell by fold and seed."""


class Scored(NamedTuple):
    """A replicate and the metrics of its single test images."""

    replicate: Replicate
    images: Sequence[ImageValues]


class Differences(NamedTuple):
    """Mean differences over the replicates that both have: `values` (images, series), NaN where undefined.

    `patients` (images,) numbers the patients from 0; `replicates` counts the pairs.
    """

    series: Sequence[Series]
    values: Array
    patients: NDArray[np.int64]
    replicates: int


class Paired(NamedTuple):
    """The differences of a cell, with `row`, `baseline` and `series` of each column."""

    keys: "pd.DataFrame"
    found: Differences


def paired_images(
    frame: "pd.DataFrame", pairs: "pd.DataFrame", scored: Sequence[Scored], design: Design, factors: Sequence[str]
) -> Iterator[Paired]:
    """Yield the differences of each cell with each of its baselines, a split at a time."""
    import pandas as pd

    cells = _cells(frame, scored, design, factors)
    places = _places(frame, design.level)
    levels = dict.fromkeys(level for _, level in cells)
    for arm, baseline, other in pairs.itertuples(index=False, name=None):
        for level in levels if arm != other else ():
            own, reference = cells.get((arm, level), {}), cells.get((other, level), {})
            for split in dict.fromkeys(split for one in own.values() for split in one):
                found = image_differences(own, reference, split)
                if found is None:
                    continue
                rows = [places[arm, level, split, *series] for series in found.series]
                keys = pd.DataFrame(rows, columns=["row", "series"]).assign(baseline=baseline)
                yield Paired(keys, found)


def image_differences(own: Cell, reference: Cell, split: Split) -> Differences | None:
    """Pair by fold and seed, then average each image over the replicates that tested it."""
    pairs = [
        (values[split], reference[place][split])
        for place, values in own.items()
        if split in values and split in reference.get(place, {})
    ]
    if not pairs:
        return None
    series = [name for name in pairs[0][0].series if all(name in one.series for pair in pairs for one in pair)]
    names: list[str] = []
    people: dict[str, str] = {}
    parts = []
    for first, second in pairs:
        shared = _shared(first, second)
        parts.append(_values(first, shared, series) - _values(second, shared, series))
        names += shared
        people |= zip(first.images, first.patients, strict=True)
    images, place = np.unique(names, return_inverse=True)
    patients = np.unique([people[image] for image in images.tolist()], return_inverse=True)[1]
    return Differences(series, _averaged(np.concatenate(parts), place, len(images)), patients, len(pairs))


def _averaged(values: Array, place: NDArray[np.int64], images: int) -> Array:
    """Return the mean of the defined values of each image."""
    there = ~np.isnan(values)
    sums, counts = (np.zeros((images, values.shape[1])) for _ in range(2))
    np.add.at(sums, place, np.where(there, values, 0.0))
    np.add.at(counts, place, there)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _shared(first: ImageValues, second: ImageValues) -> tuple[str, ...]:
    if first.images == second.images:
        return first.images
    there = set(second.images)
    return tuple(image for image in first.images if image in there)


def _values(one: ImageValues, images: tuple[str, ...], series: Sequence[Series]) -> Array:
    values = one.values
    if one.images != images:
        order = {image: row for row, image in enumerate(one.images)}
        values = values[[order[image] for image in images]]
    if list(one.series) != series:
        column = {name: index for index, name in enumerate(one.series)}
        values = values[:, [column[name] for name in series]]
    return values


def _cells(
    frame: "pd.DataFrame", scored: Sequence[Scored], design: Design, factors: Sequence[str]
) -> Mapping[tuple[int, float], Cell]:
    """Group by arm number and level."""
    arms = frame.drop_duplicates("arm")
    numbers = dict(zip(arms[[*factors]].itertuples(index=False, name=None), arms["arm"], strict=True))
    cells: dict[tuple[int, float], dict[tuple[int, int], Mapping[Split, ImageValues]]] = defaultdict(dict)
    for one, images in scored:
        arm = numbers[tuple(one.factors[name] for name in factors)]
        by_split = {values.split: values for values in images}
        cells[arm, getattr(one, design.level)][one.fold, one.seed] = by_split
    return cells


def _places(frame: "pd.DataFrame", level: Level) -> Mapping[tuple[object, ...], tuple[int, int]]:
    """Return row and series by arm, level, split, class and metric."""
    rows = frame[frame["aggregation"] == "case"].drop_duplicates("row")
    keys = rows[["arm", level, "split", "class", "metric"]].itertuples(index=False, name=None)
    return dict(zip(keys, zip(rows["row"], rows["series"], strict=True), strict=True))
