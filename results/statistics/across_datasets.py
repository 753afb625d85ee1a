"""Comparison of arms over several data sets: mean ranks, Friedman, Nemenyi and Wilcoxon tests (Demsar 2006).

The unit is the data set: folds and seeds of an arm on a data set are averaged before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from results.metrics.formulas import FloatArray
from results.statistics.signed_rank import signed_rank

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
    values: FloatArray, arms: Sequence[str], families: Mapping[str, Mapping[str, str]], direction: int
) -> list[dict[str, object]]:
    """Return the rows of the tests table for one metric, without its key columns.

    Each row has `arm`, the arm's name or `ALL_ARMS`.

    Args:
        values: (data sets, arms).
        arms: Names of the columns.
        families: Baseline of each arm, by the name of the baseline; an arm may be its own baseline.
        direction: 1 if higher is better, -1 if lower is better.
    """
    tests = rank_tests(values, direction)
    shared = {"unit": UNIT, "generalises_to": DATA_SETS, "pairs": tests.data_sets, "note": ""}
    rows: list[dict[str, object]] = [
        {**shared, "arm": arm, "baseline": "", "test": MEAN_RANK, "statistic": rank}
        for arm, rank in zip(arms, tests.mean_ranks.tolist(), strict=True)
    ]
    if not np.isnan(tests.p):
        rows.append({
            **shared, "arm": ALL_ARMS, "baseline": "", "test": FRIEDMAN, "statistic": tests.statistic,
            "degrees_of_freedom": len(arms) - 1, "p": tests.p, "p_adjusted": tests.p, "tests": 1,
        })  # fmt: skip
    number = {arm: index for index, arm in enumerate(arms)}
    for name, baseline_of in families.items():
        pairs = [(arm, baseline) for arm, baseline in baseline_of.items() if arm != baseline and baseline in number]
        for arm, baseline in pairs:
            p = float(tests.nemenyi[number[arm], number[baseline]])
            if not np.isnan(p):
                rows.append({
                    **shared, "arm": arm, "baseline": name, "test": NEMENYI, "p": p, "p_adjusted": p,
                    "tests": len(arms) * (len(arms) - 1) // 2,
                    "statistic": abs(tests.mean_ranks[number[arm]] - tests.mean_ranks[number[baseline]]),
                })  # fmt: skip
        rows += _wilcoxon_rows(values, number, pairs, name)
    return rows


def _wilcoxon_rows(
    values: FloatArray, number: Mapping[str, int], pairs: Sequence[tuple[str, str]], family: str
) -> list[dict[str, object]]:
    """Return Wilcoxon's test of each arm against its baseline; Holm's adjustment is over the arms of the family."""
    from results.statistics.estimates import holm

    if not pairs:
        return []
    differences = np.stack([values[:, number[arm]] - values[:, number[base]] for arm, base in pairs], axis=1)
    tested = signed_rank(differences)
    adjusted = holm(tested.p[:, None])[:, 0]
    counts = (~np.isnan(differences)).sum(axis=0)
    rows = []
    for index, (arm, _) in enumerate(pairs):
        defined = differences[~np.isnan(differences[:, index]), index]
        rows.append({
            "unit": UNIT, "generalises_to": DATA_SETS, "arm": arm, "baseline": family, "test": WILCOXON,
            "pairs": int(counts[index]), "difference": float(defined.mean()) if len(defined) else np.nan,
            "sd_difference": float(defined.std(ddof=1)) if len(defined) > 1 else np.nan,
            "statistic": tested.statistic[index], "p": tested.p[index], "p_adjusted": adjusted[index],
            "tests": int((~np.isnan(tested.p)).sum()), "rank_biserial": tested.rank_biserial[index],
            "note": TOO_FEW_SETS if np.isnan(tested.p[index]) else "",
        })  # fmt: skip
    return rows


def rank_sentences(tests: Sequence[Mapping[str, Any]], factors: Sequence[str]) -> list[str]:
    """Return the comparison over data sets of one series and size as sentences.

    Args:
        tests: Rows of the tests table with the unit "data set".
        factors: The factors that vary.
    """
    ranks = {
        " / ".join(str(row[name]) for name in factors): row["statistic"] for row in tests if row["test"] == MEAN_RANK
    }
    if not ranks:
        return []
    sets = next(row["pairs"] for row in tests if row["test"] == MEAN_RANK)
    ordered = ", ".join(f"{arm} {rank:.2f}" for arm, rank in sorted(ranks.items(), key=lambda pair: pair[1]))
    sentences = [f"Mean ranks over {sets} data sets (1 is best): {ordered}."]
    for row in tests:
        if row["test"] == FRIEDMAN:
            sentences.append(
                f"Friedman test: chi-squared {row['statistic']:.2f}, {row['degrees_of_freedom']} degrees of freedom, "
                f"p {_p_text(row['p'])}."
            )
    for test, text in ((NEMENYI, "Nemenyi"), (WILCOXON, "Wilcoxon over data sets, adjusted by Holm")):
        rows = [row for row in tests if row["test"] == test and row["p_adjusted"] is not None]
        pairs = [f"{' / '.join(str(row[name]) for name in factors)} {_p_text(row['p_adjusted'])}" for row in rows]
        if pairs:
            sentences.append(f"p against {rows[0]['baseline']}, {text}: {', '.join(pairs)}.")
    return sentences


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
