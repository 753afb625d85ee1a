"""Posterior of the mixture of curve families: by quadrature over their parameters, and fixed draws of the rest."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.forecast.families import FAMILIES, CurveModels
from results.statistics.forecast.noise import noise_posterior

CONFIDENCE = 0.9
DRAWS = 200
"""Fixed draws of the coefficients and forecasts of each model."""
BINS = 4096
"""Bins between the smallest and the largest draw."""
COEFFICIENTS = 2
NEGLIGIBLE = 1e-4
"""Models whose draws have a smaller weight than this share of the largest one are left out."""


class Bounds(NamedTuple):
    """Range of the directed scores."""

    low: float
    high: float


class Forecast(NamedTuple):
    """Expected score and 90 % interval at each number of images, and the posterior probability of each family.

    NaN if no curve of any family is possible.
    """

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    weights: dict[str, float]


def forecast(values: FloatArray, images: FloatArray, targets: FloatArray, bounds: Bounds) -> Forecast:
    """Forecast the mean score of the same replicates at further numbers of images.

    Args:
        values: (amounts, replicates), directed scores at each measured number of images.
        images, targets: Measured and forecast numbers of images, increasing.
        bounds: Range of the scores.
    """
    points, means = np.concatenate([images, targets]), values.mean(axis=1)
    prior = _Prior.of(CurveModels.at(points, len(images)), bounds)
    noises = noise_posterior(values, points)
    evidence = np.stack([_log_evidence(prior, means, noise.variances[: len(images)]) for noise in noises])
    evidence += np.log([noise.probability for noise in noises])[:, None]
    draws, weights, families = [], [], []
    for noise, of_noise in zip(noises, evidence, strict=True):
        likely = np.flatnonzero(of_noise > evidence.max() + np.log(NEGLIGIBLE))
        curves, possible = _posterior(prior.select(likely), means, noise.variances[: len(images)], bounds)
        model, draw = np.nonzero(possible)
        measured = curves + np.sqrt(noise.variances[len(images) :]) * _normal(DRAWS, len(targets), 1)
        draws.append(np.clip(measured[model, draw], bounds.low, bounds.high))
        weights.append(of_noise[likely][model])
        families.append(prior.family[likely][model])
    log_weights, kept = np.concatenate(weights), np.concatenate(draws)
    if not len(kept):
        undefined = np.full(len(targets), np.nan)
        return Forecast(undefined, undefined, undefined, dict.fromkeys(FAMILIES, np.nan))
    shares = np.exp(log_weights - log_weights.max())
    shares /= shares.sum()
    by_family = np.bincount(np.concatenate(families), shares, len(FAMILIES))
    low, high = (_quantile(kept, shares, level) for level in (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
    return Forecast(shares @ kept, low, high, dict(zip(FAMILIES, by_family.tolist(), strict=True)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prior:
    """Joint normal prior of the two coefficients and of the curve at all points, by model.

    Args:
        family: (models,), index in `FAMILIES`.
        mean: (models, 2 + points).
        covariance: (models, 2 + points, 2 + points).
        smallest: (models,), lower bound of the second coefficient.
        log_weight: (models,), log of the prior probability over the number of possible draws.
    """

    family: NDArray[np.int64]
    mean: FloatArray
    covariance: FloatArray
    smallest: FloatArray
    log_weight: FloatArray

    @classmethod
    def of(cls, models: CurveModels, bounds: Bounds) -> Self:
        """Return the prior of the models, truncated by rejection to curves that are possible at all points."""
        identity = np.broadcast_to(np.eye(COEFFICIENTS), (len(models.family), COEFFICIENTS, COEFFICIENTS))
        loading = np.concatenate([identity, models.design], axis=1)
        covariance = (loading * models.sd[:, None] ** 2) @ loading.swapaxes(1, 2)
        covariance[:, COEFFICIENTS:, COEFFICIENTS:] += models.covariance
        mean = (loading @ models.mean[..., None])[..., 0]
        possible = _possible(_draws(mean, covariance), models.smallest, bounds).sum(axis=1)
        log_weight = np.log(models.prior / np.maximum(possible, 1))
        return cls(
            family=models.family, mean=mean, covariance=covariance, smallest=models.smallest, log_weight=log_weight
        )  # fmt: skip

    def select(self, models: NDArray[np.int64]) -> Self:
        """Return the prior of some models."""
        return replace(
            self, family=self.family[models], mean=self.mean[models], covariance=self.covariance[models],
            smallest=self.smallest[models], log_weight=self.log_weight[models],
        )  # fmt: skip


def _log_evidence(prior: _Prior, means: FloatArray, variances: FloatArray) -> FloatArray:
    """Return the log weight of each possible draw of a model, (models,), up to a constant.

    The truncation to possible curves divides the evidence by the share of possible draws before the data and
    multiplies it by the share after them, which cancels with the weight of each draw.
    """
    factor, standardised = _standardised(prior, means, variances)
    evidence = -0.5 * (standardised**2).sum(axis=(1, 2)) - np.log(factor.diagonal(axis1=1, axis2=2)).sum(axis=1)
    return np.asarray(evidence + prior.log_weight)


def _standardised(prior: _Prior, means: FloatArray, variances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the Cholesky factor of the covariance of the measured means, and their standardised deviations."""
    observed = slice(COEFFICIENTS, COEFFICIENTS + len(means))
    factor = np.asarray(np.linalg.cholesky(prior.covariance[:, observed, observed] + np.diag(variances)), np.float64)
    return factor, np.asarray(np.linalg.solve(factor, (means - prior.mean[:, observed])[..., None]), np.float64)


def _posterior(
    prior: _Prior, means: FloatArray, variances: FloatArray, bounds: Bounds
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return draws of the curve at the forecast points, (models, draws, targets), and which are possible.

    Args:
        prior: Of some models: coefficients and curve, jointly normal given the measured means.
        means, variances: (measured,), measured means and the variances of their noise.
        bounds: Range of the scores.
    """
    observed = slice(COEFFICIENTS, COEFFICIENTS + len(means))
    factor, standardised = _standardised(prior, means, variances)
    gain = np.linalg.solve(factor, prior.covariance[:, observed])
    mean = prior.mean + (gain.swapaxes(1, 2) @ standardised)[..., 0]
    draws = _draws(mean, prior.covariance - gain.swapaxes(1, 2) @ gain)
    return draws[..., observed.stop :], _possible(draws, prior.smallest, bounds)


def _possible(draws: FloatArray, smallest: FloatArray, bounds: Bounds) -> NDArray[np.bool_]:
    """Return which draws (models, draws, 2 + points) of coefficients and a curve are within their bounds."""
    level, second, curve = draws[..., 0], draws[..., 1], draws[..., COEFFICIENTS:]
    inside = (curve >= bounds.low).all(axis=-1) & (curve <= bounds.high).all(axis=-1)
    return np.asarray((level <= bounds.high) & (second >= smallest[:, None]) & inside)


def _draws(mean: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return draws of normal distributions (models, draws, dimensions), whose covariances may be singular."""
    values, vectors = np.linalg.eigh((covariance + covariance.swapaxes(1, 2)) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
    return np.asarray(mean[:, None] + _normal(DRAWS, mean.shape[1], 0) @ root.swapaxes(1, 2))


@lru_cache(maxsize=16)
def _normal(draws: int, dimensions: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((draws, dimensions))


def _quantile(draws: FloatArray, shares: FloatArray, level: float) -> FloatArray:
    """Return a quantile of weighted draws for each column, from a histogram: sorting so many draws is slow."""
    quantiles = []
    for column in draws.T:
        counts, edges = np.histogram(column, BINS, weights=shares)
        quantile = np.interp(level, np.concatenate([[0.0], np.cumsum(counts)]), edges)
        quantiles.append(np.clip(quantile, column.min(), column.max()))
    return np.array(quantiles)
