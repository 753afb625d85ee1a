"""Bootstrap over patients with percentiles widened for small samples."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.estimates import CONFIDENCE

DRAWS = 2000


@lru_cache(maxsize=4)
def patient_weights(patients: int) -> FloatArray:
    """Return how often each patient is in each draw, (draws, patients).

    Equal numbers of patients have the same draws, so that arms can be compared.
    """
    random = np.random.default_rng(patients)
    return random.multinomial(patients, np.full(patients, 1 / patients), size=DRAWS).astype(np.float64)


def interval(
    draws: FloatArray, patients: NDArray[np.int64] | int, confidence: float = CONFIDENCE
) -> tuple[FloatArray, FloatArray]:
    """Return the percentile interval over axis 0 of (draws, series), widened for `patients` (series,) or one number.

    Percentiles of the bootstrap miss the factor sqrt(P / (P - 1)) and the t quantile of P - 1 degrees of freedom;
    the levels are moved outwards until those of a normal distribution would have both (Hesterberg 2015).
    """
    from scipy.special import ndtr, stdtrit

    count = np.broadcast_to(np.asarray(patients, dtype=np.float64), draws.shape[1:])
    count = np.where(count >= 2, count, np.nan)
    tail = ndtr(-np.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.5 + confidence / 2))
    low, high = (np.full(draws.shape[1:], np.nan) for _ in range(2))
    for level in np.unique(tail[~np.isnan(tail)]):
        same = tail == level
        low[same], high[same] = _quantiles(draws[:, same], (level, 1 - level))
    return low, high


def p_value(draws: FloatArray, patients: NDArray[np.int64]) -> FloatArray:
    """Return two-sided p of a difference of zero from draws of it (draws, series): the inverse of `interval`.

    The proportion of draws beyond zero counts one draw more than there are, so that p is never 0. NaN for fewer than
    two patients, and without defined draws.
    """
    from scipy.special import ndtri, stdtr

    defined = (~np.isnan(draws)).sum(axis=0)
    beyond = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0))
    count = np.where((patients >= 2) & (defined > 0), patients, np.nan)
    normal = ndtri((beyond + 1) / (defined + 1))
    return np.asarray(np.minimum(2 * stdtr(count - 1, normal / np.sqrt(count / (count - 1))), 1.0))


def rope_probabilities(draws: FloatArray, rope: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return proportions of draws above `rope`, within -rope..rope and below -rope, over axis 0; NaN without a rope."""
    defined = (~np.isnan(draws)).sum(axis=0)
    count = np.where((defined > 0) & ~np.isnan(rope), defined, np.nan)
    above, below = (draws > rope).sum(axis=0) / count, (draws < -rope).sum(axis=0) / count
    return above, 1 - above - below, below


def _quantiles(draws: FloatArray, levels: tuple[float, float]) -> FloatArray:
    """Return quantiles over axis 0 of the defined draws of each series; NaN without any."""
    defined = ~np.isnan(draws)
    all_defined, some_defined = defined.all(axis=0), defined.any(axis=0) & ~defined.all(axis=0)
    quantiles = np.full((2, draws.shape[1]), np.nan)
    # np.quantile is several times as fast as np.nanquantile.
    quantiles[:, all_defined] = np.quantile(draws[:, all_defined], levels, axis=0)
    if some_defined.any():
        quantiles[:, some_defined] = np.nanquantile(draws[:, some_defined], levels, axis=0)
    return quantiles
