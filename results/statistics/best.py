"""Each cell against the best of its column: all pairs of the column are tested and adjusted together."""

from itertools import combinations

import numpy as np

from results.statistics.cells import Cells, Numbers
from results.statistics.estimates import Array, holm
from results.statistics.inference import Inference

CHUNK = 20_000_000
"""Maximum number of p-values in memory at once."""


def against_best(inference: Inference, means: Array) -> tuple[Array, Array]:
    """Return by row the difference to the best cell with as many labels, and p, adjusted by Holm over all pairs.

    Holm over the comparisons with the selected best alone errs up to four times as often as it states, because the
    best is chosen from the same data. NaN for the best itself, for cells that are not complete, for metrics without a
    direction, and in a column that still lacks replicates. `means` are by row.
    """
    cells = inference.cells
    difference, p = (np.full(len(means), np.nan) for _ in range(2))
    for column in _columns(cells):
        series, rows = cells.paired_rows(column)
        chosen = cells.directions[series] != 0
        series, rows = series[chosen], rows[:, chosen]
        pairs = len(column) * (len(column) - 1) // 2
        step = max(1, CHUNK // max(pairs, 1))
        for start in range(0, len(series), step):
            part = slice(start, start + step)
            _column(inference, column, series[part], rows[:, part], means, difference, p)
    return difference, p


def _columns(cells: Cells) -> list[list[int]]:
    """Return the complete cells of each level that has several and lacks none."""
    levels = cells.cells["level"].to_numpy()
    columns = []
    for level in np.unique(levels):
        column = np.flatnonzero(levels == level)
        complete = [int(cell) for cell in column if cells.complete[cell]]
        if len(complete) > 1 and not cells.pending[column].any():
            columns.append(complete)
    return columns


def _column(
    inference: Inference, column: list[int], series: Numbers, rows: Numbers, means: Array, difference: Array, p: Array
) -> None:
    """Fill in the differences and p-values of one column."""
    signed = means[rows] * inference.cells.directions[series]
    defined = ~np.isnan(inference.cells.values[rows])
    # An arm that is undefined where others are not has a mean over other cases.
    whole = (defined == defined.any(axis=0)).all(axis=2) & ~np.isnan(signed)
    best = np.where(whole, signed, -np.inf).argmax(axis=0)
    adjusted = holm(np.concatenate([
        inference.pair_p(cell, column[place + 1 :], series) for place, cell in enumerate(column[:-1])
    ]))  # fmt: skip
    number = {pair: index for index, pair in enumerate(combinations(range(len(column)), 2))}
    at = np.arange(len(series))
    for place in range(len(column)):
        pair = np.array([number.get((min(place, other), max(place, other)), 0) for other in best.tolist()])
        shown = whole[place] & (best != place)
        difference[rows[place]] = np.where(shown, means[rows[place]] - means[rows[best, at]], np.nan)
        p[rows[place]] = np.where(shown, adjusted[pair, at], np.nan)
