"""Differences that a design detects with 80 % power, by the tests of the comparisons.

Used by every plan, therefore without scipy, whose import would take longer than the plan.
"""

import math
from collections.abc import Callable
from functools import lru_cache

POWER = 0.8
SIGNIFICANCE = 0.05
POINTS = 2000
SMALLEST, LARGEST = 1e-7, 8.0
"""Range that contains all but 1e-7 of the scaled chi distribution's mass, for any degrees of freedom."""


@lru_cache(maxsize=256)
def noncentrality(freedom: int, comparisons: int = 1) -> float:
    """Return the noncentrality at which a two-sided t-test at 0.05 / comparisons has 80 % power.

    NaN without degrees of freedom. The opposite tail is neglected: its power is below 1e-4.
    """
    if freedom < 1 or comparisons < 1:
        return math.nan
    tail = SIGNIFICANCE / comparisons / 2
    critical = _root(lambda t: _upper_tail(t, freedom, 0.0) - tail, 1.0, falling=True)
    return _root(lambda shift: _upper_tail(critical, freedom, shift) - POWER, critical, falling=False)


def detectable_over_replicates(folds: int, seeds: int, comparisons: int = 1) -> float:
    """Return the detectable difference in standard deviations of paired differences over replicates.

    The Nadeau-Bengio test of the first of `comparisons` by Holm. NaN for one fold.
    """
    n = folds * seeds
    return noncentrality(n - 1, comparisons) * math.sqrt(1 / n + 1 / (folds - 1)) if folds > 1 else math.nan


def detectable_over_units(units: int, comparisons: int = 1) -> float:
    """Return the detectable difference in standard deviations over independent units: pretraining runs or patients."""
    return noncentrality(units - 1, comparisons) / math.sqrt(units) if units > 1 else math.nan


def _upper_tail(t: float, freedom: int, shift: float) -> float:
    """Return P(T > t) of a noncentral t: the integral of P(Z > t x - shift) over x = sqrt(chi2 / freedom)."""
    return sum(
        weight * math.erfc((t * x - shift) / math.sqrt(2)) / 2 for x, weight in _scaled_chi(freedom) if weight > 0
    )


@lru_cache(maxsize=64)
def _scaled_chi(freedom: int) -> list[tuple[float, float]]:
    """Return points of sqrt(chi2 / freedom) with their probabilities, equidistant on a logarithmic scale."""
    step = math.log(LARGEST / SMALLEST) / POINTS
    points = [SMALLEST * math.exp(step * (number + 0.5)) for number in range(POINTS)]
    constant = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
    # The density times x, because the points are equidistant on a logarithmic scale.
    logs = [constant + freedom * math.log(x) - freedom * x * x / 2 for x in points]
    return [(x, step * math.exp(log)) for x, log in zip(points, logs, strict=True) if log > -40]


def _root(function: Callable[[float], float], start: float, *, falling: bool) -> float:
    """Return the positive root of a monotone function by bisection on a logarithmic scale."""
    low = high = start
    while (function(low) > 0) != falling:
        low /= 2
    while (function(high) > 0) == falling:
        high *= 2
    for _ in range(30):
        middle = math.sqrt(low * high)
        if (function(middle) > 0) == falling:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)
