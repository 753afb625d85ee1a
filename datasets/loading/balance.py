"""Training rows drawn so that every category is as frequent."""

import itertools
from collections import defaultdict
from collections.abc import Sequence


def balanced(rows: Sequence[int], categories: Sequence[str], images: int) -> tuple[int, ...]:
    """Return about `images` of these rows, those of every category equally often, none left out.

    `categories` holds one a row of the index. A category's rows are repeated in turn until its share is full; the
    share is at least the largest category.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        groups[categories[row]].append(row)
    share = max(round(images / len(groups)), *map(len, groups.values()), 1)
    return tuple(row for name in sorted(groups) for row in itertools.islice(itertools.cycle(groups[name]), share))
