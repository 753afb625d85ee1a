"""Comparison of arms over several data sets: mean ranks, Friedman, Nemenyi and Wilcoxon tests (Demsar 2006).

The unit is the data set: folds and seeds of an arm on a data set are averaged before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from results.metrics.formulas import FloatArray
from results.statistics.estimates import holm, moments
from results.statistics.paired.signed_rank import signed_rank

UNIT = "data set"
DATA_SETS = "new data sets"
MEAN_RANK = "mean rank over data sets"
FRIEDMAN = "Friedman test of mean ranks"
NEMENYI = "Nemenyi test of mean ranks"
WILCOXON = "Wilcoxon signed rank test over data sets, effect size rank biserial"
TOO_FEW_SETS = "fewer than 6 data sets with unequal values: no rank test"
ALL_ARMS = "all arms"
"""Factor values of the row of a test over all arms."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RankTests:
    """Tests of one metric.

    Attributes:
        mean_ranks: (arms,), 1 is best.
        statistic, p: Friedman's chi-squared statistic, with its correction for ties, and p; NaN below three arms.
        nemenyi: (arms, arms), p of each pair by the studentized range.
        data_sets: Number of data sets that all arms have.
    """

    mean_ranks: FloatArray
    statistic: float
    p: float
    nemenyi: FloatArray
    data_sets: int


def rank_tests(values: FloatArray, direction: int) -> RankTests:
    """Rank the arms on each data set and test their mean ranks.

    Args:
        values: (data sets, arms); data sets with a NaN are left out.
        direction: 1 if higher is better, -1 if lower is better.
    """
    from scipy import stats

    complete = values[~np.isnan(values).any(axis=1)]
    sets, arms = complete.shape
    nothing = np.full((arms, arms), np.nan)
    if not sets:
        return RankTests(mean_ranks=np.full(arms, np.nan), statistic=np.nan, p=np.nan, nemenyi=nothing, data_sets=0)
    ranks = stats.rankdata(-direction * complete, axis=1)
    mean_ranks = np.asarray(ranks.mean(axis=0))
    if sets < 2 or arms < 3 or bool((ranks == ranks[:, :1]).all()):
        return RankTests(mean_ranks=mean_ranks, statistic=np.nan, p=np.nan, nemenyi=nothing, data_sets=sets)
    friedman = stats.friedmanchisquare(*complete.T)
    error = np.sqrt(arms * (arms + 1) / (6 * sets))
    gaps = np.abs(mean_ranks[:, None] - mean_ranks[None, :]) / error
    nemenyi = np.asarray(stats.studentized_range.sf(gaps * np.sqrt(2), arms, np.inf))
    np.fill_diagonal(nemenyi, np.nan)
    return RankTests(
        mean_ranks=mean_ranks, statistic=float(friedman.statistic), p=float(friedman.pvalue), nemenyi=nemenyi,
        data_sets=sets,
    )  # fmt: skip


def rows_over_data_sets(
    values: FloatArray, families: Mapping[str, Sequence[tuple[int, int]]], direction: int
) -> list[dict[str, object]]:
    """Return the rows of the tests table for one metric, without its key columns.

    Each row has `arm`, the number of an arm, or None for a test over all arms. Arms without values are left out.

    Args:
        values: (data sets, arms), NaN where undefined.
        families: Pairs of an arm and its baseline, by the name of the baseline.
        direction: 1 if higher is better, -1 if lower is better.
    """
    present = np.flatnonzero(~np.isnan(values).all(axis=0))
    column = {int(arm): index for index, arm in enumerate(present)}
    tests = rank_tests(values[:, present], direction)
    shared = {"unit": UNIT, "generalises_to": DATA_SETS, "pairs": tests.data_sets, "note": ""}
    rows: list[dict[str, object]] = [
        {**shared, "arm": arm, "baseline": "", "test": MEAN_RANK, "statistic": float(tests.mean_ranks[index])}
        for arm, index in column.items()
    ]
    if not np.isnan(tests.p):
        rows.append({
            **shared, "arm": None, "baseline": "", "test": FRIEDMAN, "statistic": tests.statistic,
            "degrees_of_freedom": len(column) - 1, "p": tests.p, "p_adjusted": tests.p, "tests": 1,
        })  # fmt: skip
    for name, family in families.items():
        pairs = [(arm, baseline) for arm, baseline in family if arm in column and baseline in column]
        for arm, baseline in pairs:
            p = float(tests.nemenyi[column[arm], column[baseline]])
            if not np.isnan(p):
                gap = abs(tests.mean_ranks[column[arm]] - tests.mean_ranks[column[baseline]])
                rows.append({
                    **shared, "arm": arm, "baseline": name, "test": NEMENYI, "p": p, "p_adjusted": p,
                    "tests": len(column) * (len(column) - 1) // 2, "statistic": float(gap),
                })  # fmt: skip
        rows += _wilcoxon_rows(values, pairs, name)
    return rows


def _wilcoxon_rows(values: FloatArray, pairs: Sequence[tuple[int, int]], family: str) -> list[dict[str, object]]:
    """Return Wilcoxon's test of each arm against its baseline; Holm's adjustment is over the arms of the family."""
    if not pairs:
        return []
    differences = np.stack([values[:, arm] - values[:, baseline] for arm, baseline in pairs], axis=1)
    tested = signed_rank(differences)
    adjusted = holm(tested.p[:, None])[:, 0]
    mean, sd, counts = moments(differences.T)
    return [
        {
            "unit": UNIT, "generalises_to": DATA_SETS, "arm": arm, "baseline": family, "test": WILCOXON,
            "pairs": int(counts[index]), "difference": float(mean[index]), "sd_difference": float(sd[index]),
            "statistic": float(tested.statistic[index]), "p": float(tested.p[index]),
            "p_adjusted": float(adjusted[index]), "tests": int((~np.isnan(tested.p)).sum()),
            "rank_biserial": float(tested.rank_biserial[index]),
            "note": TOO_FEW_SETS if np.isnan(tested.p[index]) else "",
        }
        for index, (arm, _) in enumerate(pairs)
    ]  # fmt: skip
