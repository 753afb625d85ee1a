"""Points as annotated discs."""

import numpy as np
import pytest

from datasets.source import BACKGROUND, IGNORE
from datasets.weak.discs import point_discs

NAMES = ("a", "b")
SHAPE = (20, 30)


@pytest.mark.parametrize("radius", [0.0, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("point", [(12.3, 8.9), (0.0, 0.0), (29.9, 19.9), (30.0, 20.0), (-3.0, 5.0)])
def test_a_disc_has_the_pixels_whose_centres_are_near(point: tuple[float, float], radius: float) -> None:
    ids = point_discs([("b", np.array(point))], NAMES, SHAPE, radius=radius, overlapping=False)
    expected = np.full(SHAPE, IGNORE, np.uint8)
    for row in range(SHAPE[0]):
        for column in range(SHAPE[1]):
            if np.hypot(column + 0.5 - point[0], row + 0.5 - point[1]) <= radius:
                expected[row, column] = 2
    expected[min(int(point[1]), 19), max(0, min(int(point[0]), 29))] = 2
    np.testing.assert_array_equal(ids, expected)


def test_pixels_of_contradicting_points_are_not_annotated() -> None:
    points = [(name, np.array([x, 10.0])) for name, x in (("a", 10.0), ("b", 12.0), (BACKGROUND, 20.0), ("b", 22.0))]
    ids = point_discs(points, NAMES, SHAPE, radius=2, overlapping=False)
    assert ids[10, [8, 10, 13, 18, 20, 23]].tolist() == [1, IGNORE, 2, 0, IGNORE, 2]
    first, second = point_discs(points, NAMES, SHAPE, radius=2, overlapping=True)
    assert first[10, [8, 10, 13, 18, 20, 23]].tolist() == [1, 1, IGNORE, 0, IGNORE, IGNORE]
    assert second[10, [8, 10, 13, 18, 20, 23]].tolist() == [IGNORE, 1, 1, 0, IGNORE, 1]


def test_classes_that_are_not_annotated_have_no_background() -> None:
    points = [(BACKGROUND, np.array([10.0, 10.0]))]
    first, second = point_discs(points, NAMES, SHAPE, radius=2, overlapping=True, annotated=["a"])
    assert (first == 0).any()
    assert (second == IGNORE).all()
