"""Noise of measured means around a learning curve."""

import numpy as np
import pytest

from results.metrics.formulas import FloatArray
from results.statistics.forecast.noise import Noise, noise_posterior

IMAGES = np.array([8.0, 16, 32, 64])
POINTS = np.append(IMAGES, [128.0, 256.0])


def values(sd: FloatArray, replicates: int = 400, seed: int = 0) -> FloatArray:
    """Return scores on a curve, with a constant for each replicate and noise of these standard deviations."""
    random = np.random.default_rng(seed)
    curve, constants = np.array([0.3, 0.5, 0.6, 0.62]), 0.2 * random.standard_normal(replicates)
    return curve[:, None] + constants + sd[:, None] * random.standard_normal((len(sd), replicates))


def expected_variances(levels: FloatArray) -> FloatArray:
    """Return the mean of the posterior variances of a single replicate at each point."""
    noises = noise_posterior(levels, POINTS)
    assert sum(noise.probability for noise in noises) == pytest.approx(1.0)
    weighted = sum(noise.probability * noise.variances for noise in noises)
    return np.asarray(weighted) * levels.shape[1]


def test_equal_noise_is_the_interaction_of_replicates_and_amounts() -> None:
    actual = expected_variances(values(np.full(4, 0.05)))
    assert actual == pytest.approx(np.full(6, 0.05**2), rel=0.1)


def test_noise_that_decreases_with_the_amount_of_labels_decreases_further_in_the_forecast() -> None:
    actual = expected_variances(values(0.05 * (IMAGES / 8) ** -0.5))
    assert actual == pytest.approx(0.05**2 * (POINTS / 8) ** -1, rel=0.15)


def test_few_replicates_leave_the_variance_uncertain() -> None:
    few, many = (noise_posterior(values(np.full(4, 0.05), replicates=n), POINTS) for n in (2, 100))

    def spread(noises: list[Noise]) -> float:
        variances = [noise.variances[3] for noise in noises]
        return float(max(variances) / min(variances))

    assert spread(few) > 5 > spread(many)


def test_replicates_without_noise_have_the_minimum_noise() -> None:
    actual = expected_variances(values(np.zeros(4), replicates=3))
    assert (actual > 0).all()
    assert (actual < 1e-6).all()
