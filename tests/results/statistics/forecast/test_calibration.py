"""Whether 90 % intervals of forecasts contain later measurements, for curves of many shapes and real learners.

A few curves of each kind; `make bench-forecasts` has many.
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
    """Check the share of intervals that contain the value at each multiple, within two standard errors of the share."""
    shares = np.array([curve.covered() for curve in curves]).mean(axis=0)
    errors = [2 * np.sqrt(share * (1 - share) / len(curves)) for share in (LOWEST, HIGHEST)]
    assert (shares >= LOWEST - errors[0]).all(), shares
    assert (shares <= HIGHEST + errors[1]).all(), shares


def test_intervals_cover_simulated_curves_of_the_forecasts_families_and_of_others() -> None:
    assert_calibrated([curve for shape in SHAPES for curve in simulated_curves(shape, FEW)])


def test_intervals_cover_most_curves_of_real_learners() -> None:
    curves = [curve for name in SEGMENTATION for curve in segmentation_curves(name, FEW // 2)]
    curves += classifier_curves(quick=True)
    shares = np.array([curve.covered() for curve in curves]).mean(axis=0)
    assert (shares >= LOWEST - 2 * np.sqrt(LOWEST * (1 - LOWEST) / len(curves))).all(), shares
