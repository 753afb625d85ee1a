"""Oversampling of training rows to balance categories."""

import itertools
from collections import defaultdict
from collections.abc import Sequence


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
