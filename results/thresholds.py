"""Counts at another threshold, from the stored score histograms: no network is needed."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from results.schema import SCORE_BINS

if TYPE_CHECKING:
    import pyarrow as pa


def on_grid(threshold: float) -> bool:
    """Return whether a threshold is an edge of the histograms, so that counts at it are exact."""
    return abs(threshold * SCORE_BINS - round(threshold * SCORE_BINS)) < 1e-9


def at_threshold(scores: "pa.Table", images: "pa.Table", threshold: float) -> "tuple[pa.Table, pa.Table]":
    """Return the tables of a stage as scored at a threshold on the grid (see `on_grid`).

    With several exclusive classes the likeliest wins and no threshold plays a part. Raises `ValueError` off the grid.
    """
    if not on_grid(threshold):
        raise ValueError(f"threshold is {threshold}; allowed: multiples of {1 / SCORE_BINS}; choose the nearest")
    confusion = images["confusion"].drop_null()
    exclusive = len(confusion) > 0
    if exclusive and len(confusion[0]) > 4:
        return scores, images
    edge = round(threshold * SCORE_BINS)
    positives, negatives = _matrix(scores["positives"]), _matrix(scores["negatives"])
    counts = {
        "tp": positives[:, edge:].sum(axis=1),
        "fp": negatives[:, edge:].sum(axis=1),
        "fn": positives[:, :edge].sum(axis=1),
        "tn": negatives[:, :edge].sum(axis=1),
    }
    for name, column in counts.items():
        scores = _replaced(scores, name, column)
    return scores, _replaced(images, "confusion", _confusions(scores, images)) if exclusive else images


def smallest_threshold(false_positives: NDArray[np.int64], negatives: int, rate: float) -> float:
    """Return the smallest edge of the histogram from which on at most this share of the negatives is wrong.

    `false_positives` counts them by score, (200,); at 1.0 nothing but a full score counts.
    """
    wrong = np.flip(np.cumsum(np.flip(false_positives)))
    allowed = np.flatnonzero(np.append(wrong, 0) <= rate * negatives)
    return int(allowed[0]) / SCORE_BINS


def _confusions(scores: "pa.Table", images: "pa.Table") -> list[list[int]]:
    """Return truth x predicted of one foreground class, in the order of `images`."""
    columns = [scores[name].to_pylist() for name in ("image", "split", "tn", "fp", "fn", "tp")]
    cells = {(image, split): counts for image, split, *counts in zip(*columns, strict=True)}
    return [cells[place] for place in zip(images["image"].to_pylist(), images["split"].to_pylist(), strict=True)]


def _matrix(column: "pa.ChunkedArray") -> NDArray[np.int64]:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.int64).reshape(len(column), SCORE_BINS)


def _replaced(table: "pa.Table", name: str, values: object) -> "pa.Table":
    import pyarrow as pa

    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
