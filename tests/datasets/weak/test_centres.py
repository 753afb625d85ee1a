"""Centres of masks."""

import numpy as np
from scipy.ndimage import center_of_mass

from datasets.source import IGNORE
from datasets.weak.centres import mask_centres


def test_the_centre_of_a_class_is_the_centroid_of_its_pixels() -> None:
    masks = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    masks[0, :5] = IGNORE
    centres = mask_centres(masks, ("a", "b", "c"))
    for number, name in ((1, "a"), (2, "b")):
        row, column = center_of_mass(masks == number)
        np.testing.assert_allclose(centres[name], (column + 0.5, row + 0.5))
    assert set(centres) == {"a", "b"}


def test_the_centre_of_one_pixel_is_its_middle() -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[1, 2, 5] = 1
    assert mask_centres(masks, ("a", "b")) == {"b": (5.5, 2.5)}
