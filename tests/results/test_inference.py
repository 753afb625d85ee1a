import numpy as np
import pytest
from scipy import stats
from sklearn.isotonic import IsotonicRegression
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from results.inference import Array, holm, masks_needed, paired_t, t_interval


def one(number: float) -> Array:
    return np.array([number])


def described(values: Array) -> tuple[Array, Array, Array]:
    return one(values.mean()), one(values.std(ddof=1)), one(len(values))


def test_the_interval_is_the_t_interval_of_statsmodels() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.05, 5)
    low, high = t_interval(*described(values))
    assert (low[0], high[0]) == pytest.approx(DescrStatsW(values).tconfint_mean(alpha=0.05))


def test_without_correction_the_test_is_the_paired_t_test_of_scipy() -> None:
    random = np.random.default_rng(1)
    first, second = random.random(12), random.random(12)
    expected = stats.ttest_rel(first, second)
    statistic, p = paired_t(*described(first - second), 0.0)
    assert (statistic[0], p[0]) == pytest.approx((expected.statistic, expected.pvalue))


def test_with_correction_the_variance_grows_by_one_over_n_plus_the_ratio() -> None:
    differences = [0.02, 0.05, -0.01, 0.04, 0.03, 0.06]
    mean = sum(differences) / 6
    variance = sum((d - mean) ** 2 for d in differences) / 5
    expected = mean / ((1 / 6 + 1 / 2) * variance) ** 0.5
    statistic, p = paired_t(*described(np.array(differences)), 1 / 2)
    assert statistic[0] == pytest.approx(expected)
    assert p[0] == pytest.approx(2 * stats.t.cdf(-expected, 5))


def test_one_value_has_neither_interval_nor_test() -> None:
    assert np.isnan(t_interval(one(0.5), one(np.nan), one(1))).all()
    assert np.isnan(paired_t(one(0.5), one(np.nan), one(1), 0.25)).all()


def test_differences_equal_up_to_rounding_have_no_test() -> None:
    differences = (np.array([0.1, 0.2, 0.3]) + 0.04) - np.array([0.1, 0.2, 0.3])
    assert np.isnan(paired_t(*described(differences), 0.0)).all()


def test_holm_is_that_of_statsmodels_and_counts_only_tests_that_exist() -> None:
    p = np.random.default_rng(2).random(40).round(2) ** 3
    p[[3, 17]] = np.nan
    tested = ~np.isnan(p)
    adjusted = holm(p)
    assert np.isnan(adjusted[~tested]).all()
    assert adjusted[tested] == pytest.approx(multipletests(p[tested], method="holm")[1])


def test_holm_of_no_tests_is_nothing() -> None:
    assert np.isnan(holm(np.full(3, np.nan))).all()


def test_masks_needed_is_read_off_the_line_between_the_sizes() -> None:
    needed = masks_needed([8, 16, 32], [0.4, 0.5, 0.7], [0.4, 0.45, 0.6, 0.7])
    assert needed == pytest.approx([8, 12, 24, 32])


def test_masks_needed_inverts_the_isotonic_fit_of_sklearn() -> None:
    images, means = np.array([4.0, 8, 16, 32, 64]), np.array([0.3, 0.5, 0.45, 0.4, 0.8])
    fit = IsotonicRegression().fit(images, means)
    wanted = np.array([0.35, 0.44, 0.6, 0.75])
    assert fit.predict(masks_needed(images, means, wanted)) == pytest.approx(wanted)


def test_masks_needed_tells_values_above_the_curve_from_those_below() -> None:
    above, below, unknown = masks_needed([8, 16], [0.4, 0.5], [0.51, 0.39, np.nan])
    assert (above, below) == (np.inf, -np.inf)
    assert np.isnan(unknown)


def test_without_a_curve_no_masks_are_needed_or_saved() -> None:
    assert np.isnan(masks_needed([], [], [0.5])).all()


def test_on_a_flat_stretch_the_fewest_masks_count() -> None:
    assert masks_needed([8, 16, 32], [0.4, 0.6, 0.6], [0.6]) == pytest.approx([16])


def test_sizes_in_any_order_and_twice_make_the_same_curve() -> None:
    needed = masks_needed([32, 8, 8, 16], [0.7, 0.3, 0.5, 0.5], [0.45, 0.6])
    assert needed == pytest.approx([12, 24])


def test_errors_fall_with_more_masks() -> None:
    assert masks_needed([8, 16], [0.2, 0.1], [0.15], sign=-1) == pytest.approx([12])
