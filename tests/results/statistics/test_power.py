"""The detectable difference compared with the noncentral t distribution and published figures."""

import pytest
from scipy import stats

from results.statistics.power import detectable_over_replicates, detectable_over_units, noncentrality


@pytest.mark.parametrize("freedom", [1, 2, 4, 14, 249])
@pytest.mark.parametrize("comparisons", [1, 6, 50])
def test_at_the_noncentrality_the_power_is_80_percent(freedom: int, comparisons: int) -> None:
    critical = stats.t.ppf(1 - 0.05 / comparisons / 2, freedom)
    power = stats.nct.sf(critical, freedom, noncentrality(freedom, comparisons))
    assert power == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(
    ("folds", "seeds", "one_comparison", "six_comparisons"), [(5, 1, 2.5, 4.1), (5, 3, 1.7, 2.2), (10, 3, 1.1, 1.4)]
)  # fmt: skip
def test_more_folds_and_seeds_detect_smaller_differences(
    folds: int, seeds: int, one_comparison: float, six_comparisons: float
) -> None:
    assert detectable_over_replicates(folds, seeds) == pytest.approx(one_comparison, abs=0.05)
    assert detectable_over_replicates(folds, seeds, 6) == pytest.approx(six_comparisons, abs=0.05)


@pytest.mark.parametrize(("runs", "expected"), [(2, 11.6), (3, 3.3), (5, 1.7)])
def test_few_pretraining_runs_detect_only_large_differences(runs: int, expected: float) -> None:
    assert detectable_over_units(runs) == pytest.approx(expected, abs=0.06)
