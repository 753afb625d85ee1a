"""Convert stored tables of counts to arrays with one row per image and one column per class."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from results.metrics.formulas import OVERALL, Confidence, Counts, FloatArray, ratio

if TYPE_CHECKING:
    import pyarrow as pa


def rows_of_split(table: "pa.Table", split: str) -> "pa.Table":
    """Return the rows of one split."""
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["split"], split))


class _Grid:
    """Arranges columns of a table of scores by image and class, classes as in `names`."""

    def __init__(self, scores: "pa.Table", names: Sequence[str]) -> None:
        images, image = np.unique(scores["image"].to_numpy(), return_inverse=True)
        order = {name: index for index, name in enumerate(names)}
        column_of_row = np.array([order.get(name, -1) for name in scores["class"].to_pylist()], dtype=np.int64)
        self._is_scored = column_of_row >= 0
        self._shape = len(images), len(names)
        self._position = image[self._is_scored], column_of_row[self._is_scored]

    def arrange(self, column: FloatArray, *, missing: float) -> FloatArray:
        """Return (images, classes, ...) of a column (rows, ...), `missing` where there is no row."""
        grid = np.full((*self._shape, *column.shape[1:]), missing)
        grid[self._position] = column[self._is_scored]
        return grid


def pixel_counts(scores: "pa.Table", names: Sequence[str]) -> Counts:
    """Return counts as (images, classes); zero for a pair of image and class without a row."""
    to_grid = partial(_Grid(scores, names).arrange, missing=0.0)
    flat = {key: to_grid(scores[key].to_numpy()) for key in ("tp", "fp", "fn", "tn")}
    histograms = {key: to_grid(_lists(scores, key)) for key in ("positives", "negatives")}
    sums = _lists(scores, "score_sums")
    return Counts(**flat, **histograms, score_sums=to_grid(sums) if sums.shape[1] else None)


def shape_metrics(scores: "pa.Table", names: Sequence[str]) -> Mapping[str, FloatArray]:
    """Return the metrics of contours, centre lines and lesions as (images, classes), NaN where undefined.

    Empty if no row has them.
    """
    if "hd95" not in scores.column_names or scores["lesion_tp"].null_count == scores.num_rows:
        return {}
    grid = _Grid(scores, names)

    def to_grid(name: str) -> FloatArray:
        return grid.arrange(scores[name].to_numpy().astype(np.float64), missing=np.nan)

    tp, fp, fn = (to_grid(f"lesion_{name}") for name in ("tp", "fp", "fn"))
    return {name: to_grid(name) for name in ("hd95", "assd", "nsd", "cl_dice")} | {
        "lesion_precision": ratio(tp, tp + fp),
        "lesion_recall": ratio(tp, tp + fn),
        "lesion_f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def confidence_bins(images: "pa.Table") -> Mapping[str, Confidence]:
    """Return the confidence bins by the prefix of their columns."""
    return {
        prefix: Confidence(
            count=_lists(images, f"{prefix}_count"),
            total=_lists(images, f"{prefix}_sum"),
            correct=_lists(images, f"{prefix}_correct"),
        )
        for prefix in dict.fromkeys(prefix for prefix, _ in OVERALL.values())
    }


def _lists(table: "pa.Table", column: str) -> FloatArray:
    """Return a column of equally long lists as (rows, length), NaN where null; length 0 without any list."""
    if column not in table.column_names:
        return np.empty((table.num_rows, 0))
    lists = table[column].combine_chunks()
    flat, filled = lists.flatten().to_numpy(zero_copy_only=False), lists.is_valid().to_numpy(zero_copy_only=False)
    values = np.full((table.num_rows, flat.size // max(1, filled.sum())), np.nan)
    values[filled] = flat.reshape(filled.sum(), -1 if filled.any() else 0)
    return values
