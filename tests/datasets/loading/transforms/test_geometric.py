from collections import Counter

import numpy as np
import pytest

from datasets.augment_settings import AugmentSettings
from datasets.loading.augment import Augmenter
from datasets.targets import Target

SIZE = (96, 96)
KEYS = [(3, epoch, row) for epoch in range(4) for row in range(8)]
MANY = [(5, 0, place) for place in range(150)]
TURN = AugmentSettings(quarter_turns=1.0)
AFFINE = AugmentSettings(rotate=30, scale=0.2, shift=0.1, shear=10)


def noise(channels: int = 1, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    rows, columns = np.indices(size) + 0.5
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).astype(np.uint8)


def turns_of(image: np.ndarray, turned: np.ndarray) -> int:
    """Return the only number of quarter turns that maps one image to the other."""
    (number,) = (number for number in range(4) if (np.rot90(image, number) == turned).all())
    return number


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_quarter_turns_rotate_image_masks_centre_and_box_alike(channels: int) -> None:
    image, planes = noise(channels), np.stack([disc(20, 40, 9), disc(60, 30, 15)])
    centre = np.array([0.2, 0.4], np.float32)
    box = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    for key in KEYS:
        turned, moved = Augmenter(TURN, "mask", SIZE)(image, planes, key)
        number = turns_of(image, turned)
        np.testing.assert_array_equal(moved, np.rot90(planes, number, axes=(1, 2)))
        x, y = centre
        expected = {1: (y, 1 - x), 2: (1 - x, 1 - y), 3: (1 - y, x)}[number]
        np.testing.assert_allclose(Augmenter(TURN, "centre", SIZE)(image, centre, key)[1], expected, atol=1e-6)
        corners = {1: (0.2, 0.6, 0.4, 0.3), 2: (0.6, 0.4, 0.3, 0.4), 3: (0.4, 0.1, 0.4, 0.3)}[number]
        np.testing.assert_allclose(Augmenter(TURN, "box", SIZE)(image, box, key)[1], corners, atol=1e-6)


def test_rotations_by_90_180_and_270_degrees_are_equally_probable() -> None:
    image, augmenter = noise(size=(16, 16)), Augmenter(AugmentSettings(quarter_turns=0.6), "image", (16, 16))
    counts = Counter(turns_of(image, augmenter(image, None, (0, 0, place))[0]) for place in range(1500))
    shares = [counts[number] / 1500 for number in range(4)]
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.2, 0.2], atol=0.04)


@pytest.mark.parametrize("target", ["mask", "centre", "box"])
@pytest.mark.parametrize("crop", [0.0, 0.3])
def test_a_weak_elastic_transform_keeps_the_other_transforms(target: Target, crop: float) -> None:
    others = AFFINE.model_copy(update={"crop": crop})
    elastic = others.model_copy(update={"elastic": 1e-9})
    targets = {
        "mask": disc(40, 50, 20), "centre": np.array([0.4, 0.5], np.float32),
        "box": np.array([0.3, 0.4, 0.2, 0.2], np.float32),
    }  # fmt: skip
    for key in KEYS:
        image, plain = Augmenter(others, target, SIZE)(noise(), targets[target], key)
        warped, moved = Augmenter(elastic, target, SIZE)(noise(), targets[target], key)
        # OpenCV rounds positions to 1 / 32 of a pixel in both, from different numbers.
        assert np.abs(image.astype(int) - warped).mean() < 2
        if target == "mask":
            assert (plain != moved).mean() < 0.002
        else:
            np.testing.assert_allclose(plain, moved, atol=1e-3)


@pytest.mark.parametrize("size", [SIZE, (64, 128)])
@pytest.mark.parametrize("border", ["constant", "reflect"])
def test_affine_and_elastic_transforms_together_move_masks_and_points_with_the_image(
    size: tuple[int, int], border: str
) -> None:
    settings = AugmentSettings(flip=0.5, rotate=20, scale=0.15, shift=0.05, shear=5, elastic=0.05, border=border)
    x, y = 0.45 * size[1], 0.5 * size[0]
    mask, small, centre = disc(x, y, 9, size), disc(x, y, 4, size), np.array([0.45, 0.5], np.float32)
    for key in KEYS:
        changed, moved = Augmenter(settings, "mask", size)((mask * 250)[..., None], mask, key)
        assert ((changed[..., 0] > 125) != (moved > 0)).sum() < 0.15 * mask.sum()
        _, point = Augmenter(settings, "centre", size)(noise(size=size), centre, key)
        _, moved = Augmenter(settings, "mask", size)(noise(size=size), small, key)
        np.testing.assert_allclose(point * size[::-1], (np.argwhere(moved) + 0.5).mean(axis=0)[::-1], atol=1.5)


def test_a_point_moves_to_the_pixel_that_shows_it() -> None:
    settings = AugmentSettings(rotate=20, scale=0.15, elastic=0.05)
    columns, rows = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    for key in KEYS[:8]:
        # The red and green values of each pixel are its original position.
        position = np.stack([2 * columns, 2 * rows, np.full(SIZE, 255)], axis=2).astype(np.uint8)
        augmented, _ = Augmenter(settings, "image", SIZE)(position, None, key)
        for x, y in ((30, 30), (60, 40), (45, 70)):
            point = np.array([(x + 0.5) / SIZE[1], (y + 0.5) / SIZE[0]], np.float32)
            _, moved = Augmenter(settings, "centre", SIZE)(position, point, key)
            column, row = (moved * SIZE[::-1] - 0.5).round().astype(int)
            if 0 < column < SIZE[1] - 1 and 0 < row < SIZE[0] - 1 and augmented[row, column, 2] == 255:
                np.testing.assert_allclose(augmented[row, column, :2] / 2, [x, y], atol=1.6)


def test_a_crop_does_not_enlarge_elastic_displacements() -> None:
    """Two settings that differ in `elastic` alone crop alike, so the difference of points is the displacement."""
    points = np.array([0.5, 0.5], np.float32)
    for crop in (0.0, (0.4, 0.4)):
        plain, bent = (
            Augmenter(AugmentSettings(crop=crop, elastic=elastic), "centre", SIZE) for elastic in (1e-9, 0.03)
        )
        pairs = [(plain(noise(), points, key)[1], bent(noise(), points, key)[1]) for key in MANY]
        inside = [moved - other for other, moved in pairs if other.min() > 0.2 and other.max() < 0.8]
        assert len(inside) > 50
        assert np.std(inside) == pytest.approx(0.01, rel=0.3)
