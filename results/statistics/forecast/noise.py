"""Noise of the measured means around a learning curve, which may shrink with the amount of labels."""

from typing import NamedTuple

import numpy as np

from results.metrics.formulas import FloatArray

EXPONENTS = (0.0, 0.5, 1.0, 1.5)
"""Exponents g of the variance, which is proportional to n^-g."""
QUANTILES = 4
"""Quadrature points of the posterior of the variance."""
SMALLEST = 1e-4
"""Smallest standard deviation of a replicate around the curve."""
NEGLIGIBLE = 0.03
"""Exponents with a smaller posterior probability are left out."""


class Noise(NamedTuple):
    """Variances of the mean over replicates at all points, (points,), and their posterior probability."""

    variances: FloatArray
    probability: float


def noise_posterior(values: FloatArray, points: FloatArray) -> list[Noise]:
    """Return the posterior of the noise given the interaction of replicates and amounts of labels.

    What a replicate adds at every amount, such as hard test images, moves the whole curve and is no noise. The
    likelihood is restricted to contrasts free of these constants and of the curve.

    Args:
        values: (amounts, replicates), at least two of each.
        points: (points,), numbers of images: the measured ones, then those of the forecast.
    """
    from scipy.special import chdtri

    amounts, replicates = values.shape
    freedom = (amounts - 1) * (replicates - 1)
    scales = [(points / points[amounts - 1]) ** -exponent for exponent in EXPONENTS]
    squares = np.array([max(_interaction(values, scale[:amounts]), freedom * SMALLEST**2) for scale in scales])
    determinants = np.array([np.log(scale[:amounts]).sum() + np.log((1 / scale[:amounts]).sum()) for scale in scales])
    likelihood = -0.5 * (replicates - 1) * determinants - 0.5 * freedom * np.log(squares)
    probabilities = np.exp(likelihood - likelihood.max())
    probabilities[probabilities < NEGLIGIBLE * probabilities.sum()] = 0.0
    probabilities /= probabilities.sum()
    quantiles = chdtri(freedom, (np.arange(QUANTILES) + 0.5) / QUANTILES)
    return [
        Noise(scale * float(square / quantile / replicates), float(probability) / QUANTILES)
        for scale, square, probability in zip(scales, squares, probabilities, strict=True)
        for quantile in quantiles
        if probability
    ]


def _interaction(values: FloatArray, scale: FloatArray) -> float:
    """Return the sum of squares of the interaction, each amount in units of its relative variance."""
    centred = values - values.mean(axis=1, keepdims=True)
    constants = (centred / scale[:, None]).sum(axis=0) / (1 / scale).sum()
    return float(((centred - constants) ** 2 / scale[:, None]).sum())
