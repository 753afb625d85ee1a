"""Agreement of annotators: the scores of the masks of one annotator against those of another."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from results.schema import metric_name

AGREEMENT: Final = "agreement@"
"""Prefix of the splits with the scores of annotators against each other."""
TEST_OF: Final = "test@"
"""Prefix of the splits with the scores of networks against an annotator who is not trained on."""


def split_of_annotator(name: str) -> str:
    """Return the split with the scores of networks against an annotator."""
    return f"{TEST_OF}{name}"


def split_of_agreement(first: str, second: str) -> str:
    """Return the split with the scores of the masks of the second annotator against those of the first."""
    return f"{AGREEMENT}{first}~{second}"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The mean of a metric between two annotators over folds and seeds."""

    annotators: tuple[str, str]
    mean: float
    images: int
    """Number of test images of a fold that both annotated; the largest."""

    @property
    def label(self) -> str:
        """Return the legend of a figure."""
        return f"Agreement of {self.annotators[0]} and {self.annotators[1]}"

    def sentence(self, metric: str, unit: str = "") -> str:
        """Return the agreement as a sentence; `unit` is that of a distance."""
        return (
            f"Agreement of the annotators {self.annotators[0]} and {self.annotators[1]} on the test images: "
            f"{metric_name(metric, unit)} {self.mean:.3f}."
        )


def agreements(
    rows: Iterable[Mapping[str, Any]], *, metric: str, class_: str = "macro", aggregation: str = "dataset"
) -> list[Agreement]:
    """Return the agreement of each pair of annotators from rows of the results table; empty without several.

    The annotators' scores of a fold and seed are the same for all arms, and count once.
    """
    values: dict[str, dict[tuple[int, int], tuple[float, int]]] = {}
    wanted = {"metric": metric, "class": class_, "aggregation": aggregation}
    for row in rows:
        if row["split"].startswith(AGREEMENT) and row["value"] is not None and wanted.items() <= row.items():
            values.setdefault(row["split"], {})[row["fold"], row["seed"]] = (row["value"], row["images"])
    found = []
    for split, by_replicate in values.items():
        first, second = split.removeprefix(AGREEMENT).split("~")
        means, images = zip(*by_replicate.values(), strict=True)
        found.append(Agreement(annotators=(first, second), mean=float(np.mean(means)), images=max(images)))
    return found
