"""Intervals, paired tests and masks needed, as pure functions of arrays. What cannot be said is NaN."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NO_VARIATION = 1e-12
"""Below this share of the mean (or of 1) a standard deviation is rounding."""


def varies(sd: Array, mean: Array) -> NDArray[np.bool_]:
    """Say where a standard deviation is more than rounding; False where it is NaN."""
    return np.asarray(sd > NO_VARIATION * np.maximum(np.abs(mean), 1.0))


def t_interval(mean: Array, sd: Array, n: Array, confidence: float = 0.95) -> tuple[Array, Array]:
    """Return the ends of Student's t interval of a mean of n values; NaN below two or without variation."""
    n = np.where(varies(sd, mean) & (n >= 2), n, np.nan)
    half = _t_quantile(0.5 + confidence / 2, n - 1) * sd / np.sqrt(n)
    return mean - half, mean + half


def paired_t(mean: Array, sd: Array, n: Array, ratio: float) -> tuple[Array, Array]:
    """Return t and two-sided p of n paired differences: t = mean / (sd sqrt(1/n + ratio)), n - 1 degrees.

    `ratio` is test over training cases, 1 / (folds - 1), in the corrected resampled t-test (Nadeau and
    Bengio 2003), and 0 in the ordinary one. NaN below two pairs or where differences do not vary.
    """
    from scipy.special import stdtr

    n = _testable(mean, sd, n)
    statistic = mean / _error(sd, n, ratio)
    return statistic, np.asarray(2 * stdtr(n - 1, -np.abs(statistic)))


def difference_interval(mean: Array, sd: Array, n: Array, ratio: float) -> tuple[Array, Array]:
    """Return the ends of the 95 % interval that belongs to `paired_t`; NaN where that has no test."""
    n = _testable(mean, sd, n)
    half = _t_quantile(0.975, n - 1) * _error(sd, n, ratio)
    return mean - half, mean + half


def _t_quantile(p: float, freedom: Array) -> Array:
    from scipy.special import stdtrit  # a tenth of the import of scipy.stats, which every run would wait for at its end

    return np.asarray(stdtrit(freedom, p))


def _testable(mean: Array, sd: Array, n: Array) -> Array:
    return np.where(varies(sd, mean) & (n >= 2), n, np.nan)


def _error(sd: Array, n: Array, ratio: float) -> Array:
    return np.where(np.isnan(n), np.nan, sd) * np.sqrt(1 / n + ratio)


def hedges_g(effect_size: Array, freedom: Array) -> Array:
    """Return d_z without its bias in small samples (Hedges 1981, the exact factor)."""
    from scipy.special import gammaln

    freedom = np.where(freedom >= 2, freedom, np.nan)
    factor = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    return np.asarray(effect_size * factor)


def rounded(differences: Array) -> Array:
    """Take away what arithmetic leaves of equal differences, so that equal values and ties are equal."""
    return np.asarray(np.round(differences, 12))


def holm(p: Array) -> Array:
    """Return p adjusted for all tests that have one (Holm 1979); NaN stays and does not count."""
    # statsmodels' multipletests collects garbage at every call: seconds where a study has many metrics.
    adjusted = np.full_like(p, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    stepped = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def masks_needed(images: ArrayLike, means: ArrayLike, values: ArrayLike, sign: int = 1) -> Array:
    """Return how many labelled images a learning curve needs to reach each value.

    The curve (means over images) is made monotone by isotonic regression, rising for sign 1 and falling
    for -1, and joined by straight lines; where it is flat the fewest images count. inf where a value is better than
    all of the curve, -inf where it is worse, NaN without a curve or value.
    """
    from scipy.optimize import isotonic_regression

    known = ~np.isnan(np.asarray(means, dtype=np.float64))
    x, y = np.asarray(images, dtype=np.float64)[known], sign * np.asarray(means, dtype=np.float64)[known]
    wanted = sign * np.asarray(values, dtype=np.float64)
    if not len(x):
        return np.full_like(wanted, np.nan)
    x, place, weight = np.unique(x, return_inverse=True, return_counts=True)
    curve = isotonic_regression(np.bincount(place, y) / weight, weights=weight).x
    right = np.clip(np.searchsorted(curve, wanted, side="left"), 0, len(x) - 1)
    left = np.maximum(right - 1, 0)
    rise = np.where(curve[right] > curve[left], curve[right] - curve[left], 1.0)
    share = np.where(right > 0, (wanted - curve[left]) / rise, 0.0)
    needed = x[left] + share * (x[right] - x[left])
    return np.select([wanted > curve[-1], wanted < curve[0], ~np.isnan(wanted)], [np.inf, -np.inf, needed], np.nan)
