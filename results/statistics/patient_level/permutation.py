"""Permutation tests over patients: signs of differences, and counts swapped between two arms."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from results.metrics.formulas import FloatArray

MAX_EXACT = 12
"""Maximum number of patients for which all sign patterns are enumerated."""
DRAWS = 9999
CHUNK = 4_000_000
"""Maximum number of array elements in memory at once."""


@lru_cache(maxsize=4)
def signs(patients: int) -> FloatArray:
    """Return sign patterns (patterns, patients) of -1 and 1: all up to `MAX_EXACT` patients, else random ones.

    Equal numbers of patients have the same patterns, so that tests of several arms agree.
    """
    if patients <= MAX_EXACT:
        codes = np.arange(2**patients)[:, None] >> np.arange(patients) & 1
        return np.asarray(1 - 2 * codes, dtype=np.float64)
    return np.random.default_rng(patients).choice((-1.0, 1.0), (DRAWS, patients))


def sign_flip_p(sums: FloatArray) -> FloatArray:
    """Return two-sided p of the sum over patients (patients, series) being zero, each patient's sign being random."""
    return p_value(lambda patterns: patterns @ sums, sums.sum(axis=0), len(sums))


def p_value(
    statistic: Callable[[FloatArray], FloatArray], observed: FloatArray, patients: int, columns: int = 1
) -> FloatArray:
    """Return two-sided p of an observed statistic (series,).

    `statistic` maps patterns (patterns, patients) to (patterns, series). p is exact with all patterns, else
    (1 + extreme) / (1 + draws). `columns` is the number of array elements per pattern while its statistic is computed.
    """
    patterns = signs(patients)
    size = max(1, CHUNK // max(columns, len(observed), 1))
    # Equal statistics differ by rounding.
    threshold = np.abs(observed) * (1 - 1e-9) - 1e-12
    extreme = np.zeros(len(observed))
    for start in range(0, len(patterns), size):
        permuted = statistic(patterns[start : start + size])
        # A pattern with an undefined metric counts as extreme, which can only raise p.
        extreme += (~(np.abs(permuted) < threshold)).sum(axis=0)
    exact = patients <= MAX_EXACT
    p = extreme / len(patterns) if exact else (extreme + 1) / (len(patterns) + 1)
    return np.where(np.isnan(observed), np.nan, p)
