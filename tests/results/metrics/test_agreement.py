"""Agreement of annotators from the table of results."""

from typing import Any

import pytest

from results.metrics.agreement import agreements, split_of_agreement


def row(value: float | None, *, split: str = "agreement@a~b", fold: int = 0, **fields: object) -> dict[str, Any]:
    chosen = {"metric": "dice", "class": "macro", "aggregation": "dataset"}
    return {**chosen, "split": split, "fold": fold, "seed": 0, "value": value, "images": 4} | fields


def test_agreement_is_the_mean_over_folds_and_counts_once_for_all_arms() -> None:
    rows = [row(0.5), row(0.5), row(0.9, fold=1, images=5), row(None, fold=2), row(0.1, split="test")]
    rows += [row(0.2, metric="mean_iou"), row(0.3, split=split_of_agreement("a", "c"))]
    first, second = agreements(rows, metric="dice")
    assert (first.annotators, first.mean, first.images) == (("a", "b"), pytest.approx(0.7), 5)
    assert second.annotators == ("a", "c")
    assert first.sentence("dice") == "Agreement of the annotators a and b on the test images: Dice 0.700."
    assert agreements([row(0.1, split="test")], metric="dice") == []
