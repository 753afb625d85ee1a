"""Compare each cell with the best of its column; all pairs of the column are tested and adjusted together."""

from itertools import combinations

import numpy as np

from results.metrics.formulas import FloatArray
from results.statistics.cells import Cells, IntArray
from results.statistics.estimates import holm
from results.statistics.inference import Inference

CHUNK = 20_000_000
"""Maximum number of p-values in memory at once."""


def against_best(inference: Inference, means: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return each row's difference to the best cell with as many labels, and p, adjusted by Holm over all pairs.

    Holm over only the comparisons with the best has up to four times the nominal error rate, because the best is
    selected from the same data. NaN for the best itself, for incomplete cells, for metrics without a direction, and in
    a column that lacks replicates. `means` are by row.
    """
    cells = inference.cells
    difference, p = (np.full(len(means), np.nan) for _ in range(2))
    for column in _columns(cells):
        series, rows = cells.paired_rows(column)
        directed = cells.directions[series] != 0
        series, rows = series[directed], rows[:, directed]
        pairs = len(column) * (len(column) - 1) // 2
        step = max(1, CHUNK // max(pairs, 1))
        for start in range(0, len(series), step):
            chunk = slice(start, start + step)
            _column(inference, column, series[chunk], rows[:, chunk], means, difference, p)
    return difference, p


def _columns(cells: Cells) -> list[list[int]]:
    """Return the complete cells of each level that has several and lacks no replicates."""
    levels = cells.cells["level"].to_numpy()
    columns = []
    for level in np.unique(levels):
        column = np.flatnonzero(levels == level)
        complete = [int(cell) for cell in column if cells.complete[cell]]
        if len(complete) > 1 and not cells.pending[column].any():
            columns.append(complete)
    return columns


def _column(
    inference: Inference,
    column: list[int],
    series: IntArray,
    rows: IntArray,
    means: FloatArray,
    difference: FloatArray,
    p: FloatArray,
) -> None:
    """Fill in the differences and p-values of one column."""
    signed = means[rows] * inference.cells.directions[series]
    defined = ~np.isnan(inference.cells.values[rows])
    # An arm that is undefined where others are defined has a mean over different images.
    comparable = (defined == defined.any(axis=0)).all(axis=2) & ~np.isnan(signed)
    best = np.where(comparable, signed, -np.inf).argmax(axis=0)
    adjusted = holm(np.concatenate([
        inference.pair_p(cell, column[position + 1 :], series) for position, cell in enumerate(column[:-1])
    ]))  # fmt: skip
    pair_index = {pairs: index for index, pairs in enumerate(combinations(range(len(column)), 2))}
    columns = np.arange(len(series))
    for position in range(len(column)):
        pairs = np.array([pair_index.get((min(position, top), max(position, top)), 0) for top in best.tolist()])
        tested = comparable[position] & (best != position)
        difference[rows[position]] = np.where(tested, means[rows[position]] - means[rows[best, columns]], np.nan)
        p[rows[position]] = np.where(tested, adjusted[pairs, columns], np.nan)
