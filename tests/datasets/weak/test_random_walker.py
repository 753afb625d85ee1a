"""Labels that the random walker expands from scribbles and points."""

import numpy as np
import pytest

from datasets.source import BACKGROUND, IGNORE, Pixels, Point
from datasets.weak.points import mask_points
from datasets.weak.random_walker import expanded, points_as_scribbles
from datasets.weak.scribbles import mask_scribbles

NAMES = ("a", "b")


def image_and_ids() -> tuple[Pixels, Pixels]:
    """Return an image of three grey values with noise, and its ids."""
    ids = np.zeros((48, 64), np.uint8)
    ids[8:30, 8:30], ids[20:44, 36:60] = 1, 2
    grey = np.array([40, 120, 220])[ids] + np.random.default_rng(0).normal(0, 5, ids.shape)
    return grey.clip(0, 255).astype(np.uint8), ids


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("overlapping", [False, True])
def test_scribbles_are_expanded_to_the_regions_of_an_image(channels: int | None, overlapping: bool) -> None:
    image, ids = image_and_ids()
    masks = np.stack([ids == 1, ids == 2]).astype(np.uint8) if overlapping else ids
    if channels:
        image = np.dstack([image] * channels)
    for scribbles in (
        mask_scribbles(masks, NAMES, (0, 0)),
        points_as_scribbles(mask_points(masks, NAMES, (0, 0), background=5), NAMES, (48, 64), overlapping=overlapping),
    ):
        labels = expanded(image, scribbles)
        assert labels.dtype == np.uint8
        assert (labels == masks).mean() > 0.97
        assert np.array_equal(labels[scribbles != IGNORE], masks[scribbles != IGNORE])


def test_uncertain_pixels_stay_unknown() -> None:
    image, ids = image_and_ids()
    scribbles = mask_scribbles(ids, NAMES, (0, 0))
    noise = np.random.default_rng(1).integers(0, 256, ids.shape, dtype=np.uint8)
    certain = expanded(noise, scribbles, min_probability=0.9)
    assert 0 < (certain == IGNORE).sum() < ids.size
    expanded_labels = expanded(noise, scribbles)
    assert not (expanded_labels == IGNORE).any()
    assert np.array_equal(certain[certain != IGNORE], expanded_labels[certain != IGNORE])
    assert (expanded(image, scribbles, min_probability=0.5) == IGNORE).sum() < (certain == IGNORE).sum()


def test_scribbles_of_one_value_are_unchanged() -> None:
    image, ids = image_and_ids()
    weak_labels = mask_scribbles(ids, NAMES, (0, 0), background=False)
    weak_labels[weak_labels == 2] = IGNORE
    assert np.array_equal(expanded(image, weak_labels), weak_labels)
    nothing = np.full((2, *ids.shape), IGNORE, np.uint8)
    assert np.array_equal(expanded(image, nothing), nothing)


@pytest.mark.parametrize("channels", [None, 3])
def test_in_a_constant_image_pixels_get_the_label_of_the_nearer_scribble(channels: int | None) -> None:
    scribbles = np.full((12, 20), IGNORE, np.uint8)
    scribbles[:, 0], scribbles[:, 19] = 0, 1
    image = np.full((12, 20, channels) if channels else (12, 20), 90, np.uint8)
    assert np.array_equal(expanded(image, scribbles), np.repeat(np.arange(20) >= 10, 12).reshape(20, 12).T)
    # The probability is linear between two lines of seeds.
    certain = expanded(image, scribbles, min_probability=0.8)
    assert np.array_equal(certain[0], [0] * 4 + [IGNORE] * 12 + [1] * 4)


def test_points_of_different_classes_in_one_pixel_are_unknown() -> None:
    points = [Point(name="a", x=1.2, y=1.2), Point(name="b", x=1.6, y=1.6), Point(name="a", x=1.4, y=1.4)]
    assert (points_as_scribbles(points, NAMES, (3, 4), overlapping=False) == IGNORE).all()
    both = points_as_scribbles(points, NAMES, (3, 4), overlapping=True)
    assert (both[:, 1, 1] == 1).all()
    assert np.count_nonzero(both != IGNORE) == 2
    points.append(Point(name=BACKGROUND, x=1.9, y=1.1))
    assert (points_as_scribbles(points, NAMES, (3, 4), overlapping=True) == IGNORE).all()


def test_points_are_pixels_of_scribbles() -> None:
    points = [Point(name="b", x=3.2, y=1.9), Point(name="a", x=8, y=6), Point(name=BACKGROUND, x=0.5, y=0.5)]
    ids = points_as_scribbles(points, NAMES, (6, 8), overlapping=False)
    expected = np.full((6, 8), IGNORE, np.uint8)
    expected[1, 3], expected[5, 7], expected[0, 0] = 2, 1, 0
    assert np.array_equal(ids, expected)
    masks = points_as_scribbles(points, NAMES, (6, 8), overlapping=True)
    assert np.array_equal(masks[0], np.where(expected == 2, IGNORE, expected))
    assert np.array_equal(masks[1] == 1, expected == 2)
    assert not masks[:, 0, 0].any()
