"""Numbers of pixels by class, and oversampling of training rows to balance categories."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from datasets.large import release, row_bands
from datasets.source import IGNORE, Pixels


def balanced(rows: Sequence[int], categories: Sequence[str], images: int) -> tuple[int, ...]:
    """Return about `images` rows with every category equally frequent; each row occurs at least once.

    `categories` has one entry per row of the index. Rows of a category are repeated in turn up to its share, which is
    at least the size of the largest category.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        groups[categories[row]].append(row)
    share = max(round(images / len(groups)), *map(len, groups.values()), 1)
    return tuple(row for name in sorted(groups) for row in itertools.islice(itertools.cycle(groups[name]), share))


def class_pixels(
    masks: Callable[[int], Pixels], rows: Iterable[int], names: Sequence[str], *, exclusive: bool
) -> dict[str, int]:
    """Return the number of pixels of each class in the masks of some rows, with the background of exclusive classes.

    The number of a class that overlaps others and is not annotated everywhere is scaled from its annotated pixels to
    all of them, so that numbers are proportional to frequencies.

    Args:
        masks: Returns the mask of a row: (height, width) of ids, or (classes, height, width) of 0, 1 and `IGNORE`.
        rows: Rows with a mask.
        names: The classes.
        exclusive: Whether masks hold ids of these classes.
    """
    names = ("background", *names) if exclusive else names
    counts, annotated, pixels = np.zeros(256, np.int64), np.zeros(len(names), np.int64), 0
    for row in rows:
        mask = masks(row)
        for lines in row_bands(*mask.shape[-2:]):
            part = mask[..., lines, :]
            if exclusive:
                counts += np.bincount(part.ravel(), minlength=256)
            else:
                counts[: len(names)] += np.count_nonzero(part == 1, axis=(1, 2))
                annotated += np.count_nonzero(part != IGNORE, axis=(1, 2))
                pixels += part[0].size
        release(mask)
    for number in np.flatnonzero(annotated < pixels):
        counts[number] = round(counts[number] * (pixels / max(annotated[number], 1)))
    return dict(zip(names, counts.tolist(), strict=False))
