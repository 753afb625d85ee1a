"""Counts at another threshold, from the stored score histograms: no network is needed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.score_bins import SCORE_BINS, THRESHOLD_STEPS, first_bins
from results.metrics.background import BACKGROUND

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

COARSE = "AUC from 200 equal bins: too low for sharp scores; score again"
"""Note on results from the score histograms of earlier versions."""
FOREGROUND = ("foreground_count", "foreground_sum", "foreground_correct")


def on_grid(threshold: float) -> bool:
    """Return whether a threshold is a multiple of 0.005, an edge of the histograms: counts at it are exact."""
    return abs(threshold * THRESHOLD_STEPS - round(threshold * THRESHOLD_STEPS)) < 1e-9


def at_threshold(scores: "pa.Table", images: "pa.Table", threshold: float) -> "tuple[pa.Table, pa.Table]":
    """Return the tables of a stage as scored at a threshold on the grid (see `on_grid`).

    With several exclusive classes the most probable one is predicted at any threshold, and the tables are returned
    unchanged.
    Otherwise the `foreground_*` bins become null: which pixels are predicted foreground depends on the threshold, and
    their confidences are not stored. Raises `ValueError` off the grid.
    """
    if not on_grid(threshold):
        raise ValueError(f"threshold is {threshold}; allowed: multiples of {1 / THRESHOLD_STEPS}; choose the nearest")
    confusion = images["confusion"].drop_null()
    exclusive = len(confusion) > 0
    if exclusive and len(confusion[0]) > 4:
        return scores, images
    positives, negatives = _matrix(scores["positives"]), _matrix(scores["negatives"])
    edge = first_bins(positives.shape[1])[round(threshold * THRESHOLD_STEPS)]
    counts: Mapping[str, NDArray[np.int64]] = {
        "tp": positives[:, edge:].sum(axis=1),
        "fp": negatives[:, edge:].sum(axis=1),
        "fn": positives[:, :edge].sum(axis=1),
        "tn": negatives[:, :edge].sum(axis=1),
    }
    is_background = np.array([name == BACKGROUND for name in scores["class"].to_pylist()], dtype=bool)
    if is_background.any():
        counts = _with_background(counts, scores, is_background)
    for name, column in counts.items():
        scores = _with_column(scores, name, column)
    for name in FOREGROUND:
        if name in images.column_names:
            images = _with_column(images, name, [None] * images.num_rows)
    return scores, _with_column(images, "confusion", _confusions(scores, images)) if exclusive else images


def smallest_threshold(false_positives: NDArray[np.int64], negatives: int, rate: float) -> float:
    """Return the smallest multiple of 0.005 whose false positive rate is at most `rate`.

    `false_positives` is the histogram of scores of the negatives, (bins,). Returns 1.0 if no threshold has this rate.
    """
    from_bin = np.append(np.flip(np.cumsum(np.flip(false_positives))), 0)
    at_step = from_bin[list(first_bins(len(false_positives)))]
    allowed = np.flatnonzero(at_step <= rate * negatives)
    return int(allowed[0]) / THRESHOLD_STEPS if len(allowed) else 1.0


def coarse_scores(scores: "pa.Table") -> bool:
    """Return whether score histograms have 200 equal bins, as earlier versions stored them; see `COARSE`."""
    return scores.num_rows > 0 and len(scores["positives"][0]) == THRESHOLD_STEPS


def coarse_score_file(path: "Path") -> bool:
    """Return the same for a Parquet file of scores, from its metadata only."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    values = sum(column.num_values for column in columns if column.path_in_schema.startswith("positives."))
    return bool(0 < values == THRESHOLD_STEPS * metadata.num_rows)


def coarsened(histograms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return histograms (..., bins) in 200 equal bins, to add them to those of earlier versions."""
    starts = first_bins(histograms.shape[-1])[:THRESHOLD_STEPS]
    return np.add.reduceat(histograms, starts, axis=-1)


def _with_background(
    counts: Mapping[str, NDArray[np.int64]], scores: "pa.Table", is_background: NDArray[np.bool_]
) -> Mapping[str, NDArray[np.int64]]:
    """Set the counts of background rows to those of the one foreground class, positive and negative swapped."""
    keys = list(zip(scores["image"].to_pylist(), scores["split"].to_pylist(), strict=True))
    foreground = {keys[row]: row for row in np.flatnonzero(~is_background).tolist()}
    of_foreground = [foreground[key] for key in keys]
    opposite = {"tp": "tn", "fp": "fn", "fn": "fp", "tn": "tp"}
    return {
        name: np.where(is_background, counts[opposite[name]][of_foreground], column) for name, column in counts.items()
    }


def _confusions(scores: "pa.Table", images: "pa.Table") -> list[list[int]]:
    """Return truth x predicted of one foreground class, in the order of `images`."""
    import pyarrow.compute as pc

    foreground = scores.filter(pc.not_equal(scores["class"], BACKGROUND))
    columns = [foreground[name].to_pylist() for name in ("image", "split", "tn", "fp", "fn", "tp")]
    cells = {(image, split): counts for image, split, *counts in zip(*columns, strict=True)}
    return [cells[key] for key in zip(images["image"].to_pylist(), images["split"].to_pylist(), strict=True)]


def _matrix(column: "pa.ChunkedArray") -> NDArray[np.int64]:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.int64).reshape(len(column), -1 if len(column) else SCORE_BINS)


def _with_column(table: "pa.Table", name: str, values: object) -> "pa.Table":
    import pyarrow as pa

    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))
