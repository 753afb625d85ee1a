"""Wilcoxon's signed rank test, vectorised over columns of paired differences."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.estimates import rounded

FEWEST = 6
"""With fewer unequal pairs no result has a two-sided p below 0.05: the smallest is 2 / 2**5 = 0.0625."""
EXACT = 50
"""Maximum number of unequal pairs for the exact distribution; above, the normal approximation (as in scipy)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SignedRank:
    """Test of each column: the smaller rank sum, two-sided p, matched-pairs rank biserial, unequal pairs.

    `rank_biserial` is (rank sum above 0 - rank sum below 0) / rank sum, -1..1 (Kerby 2014).
    """

    statistic: FloatArray
    p: FloatArray
    rank_biserial: FloatArray
    unequal: FloatArray


def signed_rank(differences: FloatArray) -> SignedRank:
    """Test columns of (pairs, columns); NaN is no pair, equal pairs are left out (Wilcoxon 1945).

    NaN where fewer than `FEWEST` unequal pairs are left.
    """
    signed = rounded(differences)
    signed = np.where(signed == 0, np.nan, signed)
    unequal = (~np.isnan(signed)).sum(axis=0)
    enough = unequal >= FEWEST
    statistic, p, biserial = (np.full(len(unequal), np.nan) for _ in range(3))
    if enough.any():
        from scipy import stats  # slow to import, and not needed with few folds

        ranks = stats.rankdata(np.abs(signed[:, enough]), axis=0, nan_policy="omit")
        above = np.where(signed[:, enough] > 0, ranks, 0.0).sum(axis=0)
        total = np.nansum(ranks, axis=0)
        statistic[enough] = np.minimum(above, total - above)
        biserial[enough] = 2 * above / total - 1
        p[enough] = _p(signed[:, enough], ranks, unequal[enough])
    return SignedRank(statistic=statistic, p=p, rank_biserial=biserial, unequal=unequal.astype(np.float64))


def _p(signed: FloatArray, ranks: FloatArray, unequal: FloatArray) -> FloatArray:
    from scipy import stats

    exact = unequal <= EXACT
    tied = _has_ties(ranks)
    p = np.full(len(unequal), np.nan)
    # Columns with equal numbers of pairs are tested together: scipy accepts no missing values in a block.
    for count in np.unique(unequal):
        block = np.flatnonzero((unequal == count) & ~(exact & tied))
        if len(block):
            columns = signed[:, block].T
            full = columns[~np.isnan(columns)].reshape(len(block), -1)
            method: Literal["exact", "asymptotic"] = "exact" if count <= EXACT else "asymptotic"
            p[block] = stats.wilcoxon(full, axis=1, method=method, keepdims=True).pvalue[:, 0]
    for column in np.flatnonzero(tied & exact):
        defined = ~np.isnan(ranks[:, column])
        p[column] = _p_with_ties(ranks[defined, column], signed[defined, column] > 0)
    return p


def _has_ties(ranks: FloatArray) -> NDArray[np.bool_]:
    """Return which columns have tied ranks."""
    ordered = np.sort(ranks, axis=0)
    return np.asarray((np.diff(ordered, axis=0) == 0).any(axis=0))


def _p_with_ties(ranks: FloatArray, above: NDArray[np.bool_]) -> float:
    """Return exact p with tied ranks, over all signs; scipy offers it only by enumerating permutations."""
    doubled = np.rint(2 * ranks).astype(np.int64)
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(ways)
        shifted[rank:] = ways[: len(ways) - rank]
        ways = (ways + shifted) / 2
    smaller = min(doubled[above].sum(), doubled[~above].sum())
    return float(min(1.0, 2 * ways[: smaller + 1].sum()))
