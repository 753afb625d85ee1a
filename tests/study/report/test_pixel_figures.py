"""Sums over test images that are drawn in the report."""

import numpy as np
import pyarrow as pa

from models.score_bins import SCORE_BINS
from results import schema
from results.metrics.formulas import ece
from study.report.pixel_figures import _bins, _confusion_counts, _histograms, _test_rows


def images(*confusions: list[int] | None, split: str = "test") -> pa.Table:
    bins = {"confidence_count": [10, 30], "confidence_sum": [6.0, 27.0], "confidence_correct": [5, 30]}
    rows = [{"image": "i", "patient": "p", "split": split, **bins, "confusion": confusion} for confusion in confusions]
    return pa.Table.from_pylist(rows, schema.images())


def scores(class_: str, positives: list[int], negatives: list[int]) -> pa.Table:
    row = {"image": "i", "class": class_, "split": "test", "positives": positives, "negatives": negatives}
    return pa.Table.from_pylist([row, row], schema.scores())


def test_confusions_of_all_replicates_are_added() -> None:
    actual = _confusion_counts([images([5, 1, 0, 2], [1, 0, 0, 0]), images([0, 0, 3, 4])])
    assert actual is not None
    assert actual.tolist() == [[6, 1], [3, 6]]


def test_overlapping_classes_have_no_confusion() -> None:
    assert _confusion_counts([images(None, None)]) is None


def test_calibration_is_computed_over_all_pixels() -> None:
    bins = _bins([images(None), images(None, None)])
    assert bins.count.tolist() == [[30, 90]]
    assert np.isclose(ece(bins)[0], 4 / 40)


def test_histograms_are_added_by_class_over_images_and_replicates() -> None:
    actual = _histograms([pa.concat_tables([scores("lung", [0, 1], [2, 0]), scores("heart", [1, 0], [0, 0])])] * 2)
    assert {name: (positives.tolist(), negatives.tolist()) for name, (positives, negatives) in actual.items()} == {
        "lung": ([0, 4], [8, 0]),
        "heart": ([4, 0], [0, 0]),
    }


def test_histograms_of_earlier_versions_are_added_to_current_ones_in_200_bins() -> None:
    old, new = ([0] * (bins - 1) + [1] for bins in (200, SCORE_BINS))
    ((positives, negatives),) = _histograms([scores("lung", old, old), scores("lung", new, new)]).values()
    assert positives.tolist() == negatives.tolist() == [0] * 199 + [4]


def test_validation_images_are_not_drawn() -> None:
    assert _test_rows(pa.concat_tables([images(None), images(None, split="validation")])).num_rows == 1
