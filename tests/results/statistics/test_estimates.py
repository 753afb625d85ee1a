"""Estimates compared with scipy, statsmodels and their formulas."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from results.metrics.formulas import FloatArray
from results.statistics.estimates import corrected, group_means, holm, independent

SEEDS = (0, 1, 2) * 5
"""Seed of each of 15 replicates."""


def differences(*shape: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(0.03, 0.05, shape)


def test_independent_values_have_the_t_test_and_interval_of_statsmodels() -> None:
    values = differences(7)
    expected = DescrStatsW(values)
    estimate = independent(values)
    statistic, p, freedom = expected.ttest_mean(0.0)
    assert (estimate.statistic, estimate.p, estimate.decisive_freedom) == pytest.approx((statistic, p, freedom))
    assert estimate.interval() == pytest.approx(expected.tconfint_mean())


def test_the_corrected_variance_is_that_of_nadeau_and_bengio() -> None:
    values = differences(10)
    error = values.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    estimate = corrected(values, 1 / 4)
    assert estimate.p == pytest.approx(2 * stats.t.sf(abs(values.mean() / error), 9))
    assert estimate.interval() == pytest.approx(stats.t.interval(0.95, 9, values.mean(), error))


def test_shared_runs_use_the_larger_p_and_the_wider_interval() -> None:
    values = differences(4, 15) + np.array([0.0, 0.2, -0.2] * 5) * np.array([0, 0.2, 0.5, 2.0])[:, None]
    estimate = corrected(values, 1 / 4, [SEEDS])
    means = values.reshape(4, 5, 3).mean(axis=1)
    over_runs = stats.ttest_1samp(means, 0, axis=1)
    over_replicates = corrected(values, 1 / 4)
    assert estimate.p == pytest.approx(np.maximum(over_runs.pvalue, over_replicates.p))
    ends = over_runs.confidence_interval()
    widest = np.maximum((ends.high - ends.low) / 2, over_replicates.half_width)
    assert estimate.half_width == pytest.approx(widest)
    assert 0 < (estimate.decided_by == 1).sum() < 4


def test_one_shared_run_has_no_p_no_interval_and_no_posterior() -> None:
    estimate = corrected(differences(15), 1 / 4, [(0,) * 15])
    assert np.isnan([estimate.p, *estimate.interval(), *estimate.posterior(np.array(0.01))]).all()


def test_the_logit_interval_follows_the_delta_method() -> None:
    values = np.array([0.93, 0.95, 0.97, 0.99, 0.96])
    mean, error = values.mean(), values.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    half = stats.t.ppf(0.975, 4) * error / (mean * (1 - mean))
    expected = [1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + side * half))) for side in (-1, 1)]
    assert corrected(values, 1 / 4).logit_interval() == pytest.approx(expected)


@pytest.mark.parametrize("values", [[0.99, 1.0, 0.9, 0.98], [0.01, 0.0, 0.3, 0.0]])
def test_intervals_stay_within_the_range_of_the_metric(values: list[float]) -> None:
    low, high = corrected(np.array(values), 1 / 3).logit_interval()
    assert 0 < low < np.mean(values) < high < 1


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_mean_of_exactly_zero_or_one_has_no_interval(mean: float) -> None:
    assert np.isnan(corrected(np.full(5, mean), 1 / 4).logit_interval()).all()


def test_the_posterior_is_a_t_distribution_with_the_corrected_scale() -> None:
    values = differences(10)
    error = values.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    above, within, below = corrected(values, 1 / 4).posterior(np.array(0.01))
    posterior = stats.t(9, values.mean(), error)
    assert (above, below) == pytest.approx((posterior.sf(0.01), posterior.cdf(-0.01)))
    assert above + within + below == pytest.approx(1)


@pytest.mark.parametrize("values", [[0.5], [0.04, 0.04 + 1e-17, 0.04]])
def test_too_few_values_and_equal_ones_have_no_test(values: list[float]) -> None:
    estimate = corrected(np.array(values), 1 / 4)
    assert np.isnan([estimate.p, *estimate.interval()]).all()


def test_undefined_values_are_excluded() -> None:
    values = differences(6)
    assert independent(np.append(values, np.nan)).p == pytest.approx(independent(values).p)


def test_group_means_are_those_of_the_defined_values() -> None:
    values = np.array([[1.0, 2.0, 3.0, np.nan], [np.nan, 1.0, np.nan, 5.0]])
    assert group_means(values, (0, 1, 0, 1)) == pytest.approx(np.array([[2.0, 2.0], [np.nan, 3.0]]), nan_ok=True)


def test_holm_equals_statsmodels_and_counts_existing_tests_only() -> None:
    p = np.random.default_rng(2).random((40, 3)).round(2) ** 3
    p[[3, 17], 1] = np.nan
    adjusted = holm(p)
    for column in range(3):
        tested = ~np.isnan(p[:, column])
        assert np.isnan(adjusted[~tested, column]).all()
        assert adjusted[tested, column] == pytest.approx(multipletests(p[tested, column], method="holm")[1])


def test_holm_counts_pending_tests_as_not_significant() -> None:
    p = np.array([0.01, 0.02, 0.6])
    assert holm(p, pending=2) == pytest.approx(multipletests([*p, 1.0, 1.0], method="holm")[1][:3])


def test_holm_without_tests_is_undefined() -> None:
    assert np.isnan(holm(np.full(3, np.nan))).all()
