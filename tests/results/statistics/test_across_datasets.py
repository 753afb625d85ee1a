"""The comparison over data sets compared with scipy and the formulas of Demsar (2006)."""

import numpy as np
import pytest
from scipy import stats

from results.statistics.across_datasets import (
    FRIEDMAN,
    MEAN_RANK,
    NEMENYI,
    WILCOXON,
    rank_tests,
    rows_over_data_sets,
)

ARMS = 4
AGAINST_FIRST = {"arm=a": [(1, 0), (2, 0), (3, 0)]}


def values(sets: int = 14, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.uniform(0.5, 0.9, (sets, 1)) + random.normal(0.01 * np.arange(ARMS), 0.02, (sets, ARMS))


def test_mean_ranks_and_friedman_equal_scipy() -> None:
    table = values()
    tests = rank_tests(table, direction=1)
    expected = stats.friedmanchisquare(*table.T)
    assert tests.mean_ranks == pytest.approx(stats.rankdata(-table, axis=1).mean(axis=0), abs=1e-12)
    assert (tests.statistic, tests.p) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-12)


def test_ties_have_the_mean_rank() -> None:
    tests = rank_tests(np.array([[0.5, 0.5, 0.4], [0.6, 0.7, 0.5]]), direction=1)
    assert tests.mean_ranks.tolist() == [1.75, 1.25, 3.0]


def test_lower_is_better_reverses_the_ranks() -> None:
    table = values()
    higher, lower = rank_tests(table, 1).mean_ranks, rank_tests(table, -1).mean_ranks
    assert higher + lower == pytest.approx(np.full(ARMS, ARMS + 1.0))


def test_nemenyi_rejects_beyond_the_critical_difference() -> None:
    """Demsar's critical value of four classifiers at 0.05 is 2.569."""
    sets, arms = 14, 4
    critical = 2.569 * np.sqrt(arms * (arms + 1) / (6 * sets))
    tests = rank_tests(values(sets), 1)
    gaps = np.abs(tests.mean_ranks[:, None] - tests.mean_ranks[None, :])
    others = ~np.eye(arms, dtype=bool)
    assert ((tests.nemenyi < 0.05) == (gaps > critical))[others].all()
    assert (tests.nemenyi[others] < 0.05).any()
    assert (tests.nemenyi[others] > 0.05).any()


def test_data_sets_missing_for_an_arm_are_excluded_from_the_ranks() -> None:
    table = values()
    table[3, 1] = np.nan
    tests = rank_tests(table, 1)
    assert tests.data_sets == 13
    assert tests.mean_ranks == pytest.approx(rank_tests(np.delete(table, 3, axis=0), 1).mean_ranks)


def test_wilcoxon_over_data_sets_is_adjusted_over_the_arms() -> None:
    table = values(30, seed=1)
    rows = rows_over_data_sets(table, AGAINST_FIRST, 1)
    tested = [row for row in rows if row["test"] == WILCOXON]
    expected = [stats.wilcoxon(table[:, arm], table[:, 0], method="exact").pvalue for arm in (1, 2, 3)]
    assert [row["arm"] for row in tested] == [1, 2, 3]
    assert [row["p"] for row in tested] == pytest.approx(expected, abs=1e-12)
    order = np.argsort(expected)
    holm = np.minimum(np.maximum.accumulate(np.sort(expected) * [3, 2, 1]), 1)
    assert np.array([row["p_adjusted"] for row in tested])[order] == pytest.approx(holm, abs=1e-12)


def test_two_arms_have_only_ranks_and_wilcoxon() -> None:
    rows = rows_over_data_sets(values()[:, :2], {"arm=a": [(1, 0)]}, 1)
    assert {row["test"] for row in rows} == {MEAN_RANK, WILCOXON}


def test_few_data_sets_have_no_rank_test_with_the_reason() -> None:
    rows = rows_over_data_sets(values(4), AGAINST_FIRST, 1)
    tested = [row for row in rows if row["test"] == WILCOXON]
    assert all(np.isnan(row["p"]) and "fewer than 6 data sets" in str(row["note"]) for row in tested)
    assert {row["arm"] for row in rows if row["test"] == FRIEDMAN} == {None}
    assert len([row for row in rows if row["test"] == NEMENYI]) == 3


def test_arm_without_values_is_excluded() -> None:
    table = np.column_stack([values(), np.full(14, np.nan)])
    rows = rows_over_data_sets(table, {"arm=a": [(1, 0), (4, 0)]}, 1)
    assert {row["arm"] for row in rows if row["test"] == MEAN_RANK} == {0, 1, 2, 3}
    assert [row["arm"] for row in rows if row["test"] == WILCOXON] == [1]
