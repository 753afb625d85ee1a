"""Forecasts of single learning curves."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from results.metrics.formulas import FloatArray
from results.statistics.forecast.families import CurveModels
from results.statistics.forecast.mixture import Bounds, _log_evidence, _posterior, _Prior, forecast

UNIT, FREE = Bounds(0.0, 1.0), Bounds(-np.inf, np.inf)
IMAGES = np.array([8.0, 16, 32, 64, 128])
TARGETS = np.array([256.0, 512])


def measured(curve: FloatArray, *, noise: float = 0.005, replicates: int = 10, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    return np.clip(curve[:, None] + noise * random.standard_normal((len(curve), replicates)), 0, 1)


def power_law(images: FloatArray) -> FloatArray:
    return np.asarray(0.9 - 0.5 * (images / 8) ** -0.5)


def exponential(images: FloatArray) -> FloatArray:
    return np.asarray(0.8 - 0.5 * np.exp(-(images - 8) / 40))


def line(images: FloatArray) -> FloatArray:
    return np.asarray(0.3 + 0.06 * np.log(images / 8))


@pytest.mark.parametrize(("curve", "family"), [(power_law, "power_law"), (exponential, "exponential"), (line, None)])
def test_a_curve_of_a_known_family_is_extrapolated(
    curve: Callable[[FloatArray], FloatArray], family: str | None
) -> None:
    expected = forecast(measured(curve(IMAGES)), IMAGES, TARGETS, UNIT)
    assert expected.mean == pytest.approx(curve(TARGETS), abs=0.02)
    assert (expected.low < curve(TARGETS)).all()
    assert (curve(TARGETS) < expected.high).all()
    assert sum(expected.weights.values()) == pytest.approx(1.0)
    if family:
        assert max(expected.weights, key=lambda name: expected.weights[name]) == family


def test_uncertainty_grows_with_the_distance_and_with_the_noise() -> None:
    quiet, noisy = (forecast(measured(line(IMAGES), noise=sd), IMAGES, TARGETS, UNIT) for sd in (0.005, 0.05))
    width = quiet.high - quiet.low
    assert width[1] > width[0]
    assert (noisy.high - noisy.low > width).all()


def test_a_constant_difference_between_replicates_is_not_noise() -> None:
    values = measured(power_law(IMAGES))
    shifted = values + np.linspace(-0.1, 0.1, 10)
    alike, different = (forecast(v, IMAGES, TARGETS, UNIT) for v in (values, shifted))
    assert different.mean == pytest.approx(alike.mean, abs=1e-6)
    assert different.high - different.low == pytest.approx(alike.high - alike.low, abs=1e-6)


def test_forecasts_stay_within_the_range_of_the_metric() -> None:
    near_one = forecast(measured(1 - 0.1 * (IMAGES / 8) ** -1.0), IMAGES, TARGETS, UNIT)
    near_zero = forecast(measured(np.full(5, 0.004), noise=0.01), IMAGES, TARGETS, UNIT)
    for expected in (near_one, near_zero):
        assert (expected.low >= 0).all()
        assert (expected.high <= 1).all()
        assert (expected.low <= expected.mean).all()
        assert (expected.mean <= expected.high).all()


def test_a_decreasing_curve_has_a_forecast() -> None:
    expected = forecast(measured(0.8 - 0.05 * np.log(IMAGES)), IMAGES, TARGETS, UNIT)
    assert expected.weights["gaussian_process"] > 0.9
    assert expected.mean[0] < 0.58


def test_equal_values_give_equal_forecasts() -> None:
    first, second = (forecast(measured(power_law(IMAGES)), IMAGES, TARGETS, UNIT) for _ in range(2))
    assert (first.mean == second.mean).all()
    assert (first.low == second.low).all()


def test_the_posterior_of_a_model_is_that_of_a_linear_gaussian_model() -> None:
    points = np.concatenate([IMAGES, TARGETS])
    models = CurveModels.at(points, len(IMAGES))
    means, variances = line(IMAGES), np.linspace(4e-4, 1e-4, 5)
    number = int(np.flatnonzero(models.family == 2)[7])
    design, sd = models.design[number], models.sd[number]
    covariance = design @ np.diag(sd**2) @ design.T + models.covariance[number]
    mean = design @ models.mean[number]
    observed, ahead = covariance[:5, :5] + np.diag(variances), covariance[5:, :5]
    expected = mean[5:] + ahead @ np.linalg.solve(observed, means - mean[:5])
    spread = covariance[5:, 5:] - ahead @ np.linalg.solve(observed, ahead.T)
    draws, possible = _posterior(_Prior.of(models, FREE).select(np.array([number])), means, variances, FREE)
    assert possible.all()
    assert (np.abs(draws[0].mean(axis=0) - expected) < 4 * np.sqrt(np.diag(spread) / draws.shape[1])).all()
    assert draws[0].std(axis=0) == pytest.approx(np.sqrt(np.diag(spread)), rel=0.2)


def test_the_evidence_of_a_model_is_the_density_of_the_measured_means() -> None:
    models = CurveModels.at(np.concatenate([IMAGES, TARGETS]), len(IMAGES))
    means, variances, prior = line(IMAGES), np.linspace(4e-4, 1e-4, 5), _Prior.of(models, FREE)
    actual = _log_evidence(prior, means, variances) - prior.log_weight
    densities = [
        stats.multivariate_normal(
            design @ mean, design @ np.diag(sd**2) @ design.T + covariance[:5, :5] + np.diag(variances)
        ).logpdf(means)
        for design, mean, sd, covariance in zip(
            models.design[:, :5], models.mean, models.sd, models.covariance, strict=True
        )
    ]
    assert np.ptp(actual - densities) < 1e-8  # equal up to a constant
