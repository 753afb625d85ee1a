"""Weights of classes by their frequency."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from models.losses.class_weights import balanced


def test_balanced_weights_equal_scikit_learn_with_a_mean_of_1() -> None:
    ids = np.repeat([0, 1, 2], [700, 250, 50])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=ids)
    weights = list(balanced({"background": 700, "lung": 250, "heart": 50}).values())
    np.testing.assert_allclose(weights, expected / expected.mean())


def test_a_class_without_pixels_has_weight_1() -> None:
    weights = balanced({"background": 30, "lung": 10, "heart": 0})
    assert weights["heart"] == 1
    assert weights["lung"] == pytest.approx(3 * weights["background"])
    assert weights["lung"] + weights["background"] == pytest.approx(2)
