"""Resizing by bands equals OpenCV on the entire image."""

import cv2
import numpy as np
import pytest

from datasets.resampling import nearest_positions, resized, sampled

HEIGHT, WIDTH = 8400, 8100


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 1), dtype=np.uint8)
    return np.repeat(np.repeat(small[..., 0], 10, axis=0), 10, axis=1)


@pytest.mark.parametrize(("size", "difference"), [((HEIGHT // 2, WIDTH // 2), 0), ((1700, 2111), 1), ((16, 17), 1)])
def test_area_averages(image: np.ndarray, size: tuple[int, int], difference: int) -> None:
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    pixels = resized(image, *size, shrinks=True)
    assert np.abs(pixels.astype(int) - expected).max() <= difference
    assert (pixels != expected).mean() < 0.01


def test_linear_interpolation() -> None:
    image = np.random.default_rng(0).integers(0, 256, (820, 830), dtype=np.uint8)
    expected = cv2.resize(image, (8310, 8211), interpolation=cv2.INTER_LINEAR)
    pixels = resized(image, 8211, 8310, shrinks=False)
    difference = np.abs(pixels[::7].astype(np.int16) - expected[::7])
    assert difference.max() <= 1


@pytest.mark.parametrize("size", [(HEIGHT // 2, WIDTH // 2), (1700, 2111)])
def test_nearest_neighbours(image: np.ndarray, size: tuple[int, int]) -> None:
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(sampled(image, *size), expected)
    np.testing.assert_array_equal(sampled(image[None], *size)[0], expected)


def test_positions_of_long_axes_do_not_overflow() -> None:
    positions = nearest_positions(80_000, 20_000)
    assert positions[0] in (1, 2)
    assert (np.diff(positions) == 4).all()
