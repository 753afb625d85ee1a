"""Whether 90 % intervals of forecasts contain what is measured later, for curves of many shapes and real learners.

Few curves of each kind; `make bench-forecasts` has many.
"""

import numpy as np

from tests.simulation.learning_curves import (
    SEGMENTATION,
    SHAPES,
    LearningCurve,
    classifier_curves,
    segmentation_curves,
    simulated_curves,
)

FEW = 12
LOWEST, HIGHEST = 0.85, 0.95


def assert_calibrated(curves: list[LearningCurve]) -> None:
    """Check the share of intervals that hold at each multiple, with two standard errors of the share of curves."""
    shares = np.array([curve.covered() for curve in curves]).mean(axis=0)
    errors = [2 * np.sqrt(share * (1 - share) / len(curves)) for share in (LOWEST, HIGHEST)]
    assert (shares >= LOWEST - errors[0]).all(), shares
    assert (shares <= HIGHEST + errors[1]).all(), shares


def test_intervals_hold_for_simulated_curves_of_families_of_the_forecast_and_of_others() -> None:
    assert_calibrated([curve for shape in SHAPES for curve in simulated_curves(shape, FEW)])


def test_intervals_rarely_miss_the_curves_of_real_learners() -> None:
    curves = [curve for name in SEGMENTATION for curve in segmentation_curves(name, FEW // 2)]
    curves += classifier_curves(quick=True)
    shares = np.array([curve.covered() for curve in curves]).mean(axis=0)
    assert (shares >= LOWEST - 2 * np.sqrt(LOWEST * (1 - LOWEST) / len(curves))).all(), shares
