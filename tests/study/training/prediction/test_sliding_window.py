"""Overlapping windows equal the entire image if the prediction depends on each pixel alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.source import Pixels
from study.training.prediction.bands import whole
from study.training.prediction.sliding_window import window_bands

SIDE = 32


def sliding_window(
    predict: Callable[[Pixels], Tensor], pixels: Pixels, window: tuple[int, int], *, mirrored: bool
) -> Tensor:
    return whole(window_bands(predict, pixels, window, mirrored=mirrored))


def pointwise(windows: Pixels) -> Tensor:
    """Return two channels that depend on each pixel alone."""
    grey = torch.from_numpy(windows.astype(np.float32)).mean(dim=3) / 255
    return torch.stack([grey, 1 - grey], dim=1)


def where(windows: Pixels) -> Tensor:
    """Return the row of each pixel in its window."""
    rows = torch.linspace(0, 1, SIDE)[:, None].expand(SIDE, SIDE)
    return rows.expand(len(windows), 1, SIDE, SIDE)


@pytest.mark.parametrize("size", [(32, 32), (100, 75), (33, 200), (8, 90), (1, 1), (20, 20)])
def test_pointwise_prediction_equals_that_of_the_entire_image(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for mirrored in (True, False):
        blended = sliding_window(pointwise, pixels, (SIDE, SIDE), mirrored=mirrored)
        torch.testing.assert_close(blended, pointwise(pixels[None])[0], atol=1e-6, rtol=0)


def test_convolution_equals_that_of_the_entire_image_inside_of_windows() -> None:
    kernel = torch.full((1, 1, 3, 3), 1 / 9)

    def smooth(windows: Pixels) -> Tensor:
        images = torch.from_numpy(windows.astype(np.float32)).permute(0, 3, 1, 2) / 255
        return torch.nn.functional.conv2d(images, kernel, padding=1)

    pixels = np.random.default_rng(0).integers(0, 256, (96, 64, 1), dtype=np.uint8)
    blended, expected = sliding_window(smooth, pixels, (SIDE, SIDE), mirrored=True)[0], smooth(pixels[None])[0, 0]
    ends = [*range(0, 97, SIDE // 2)]  # the outermost pixels of a window depend on its padding
    inner = np.ones((96, 64), bool)
    for end in ends:
        inner[max(end - 1, 0) : end + 1] = False
        inner[:, max(end - 1, 0) : end + 1] = False
    torch.testing.assert_close(blended[inner], expected[inner], atol=1e-6, rtol=0)
    assert (blended - expected).abs().max() < 0.06


def test_centre_of_a_window_has_a_larger_weight_than_its_edge() -> None:
    rows = sliding_window(where, np.zeros((96, 32, 1), np.uint8), (SIDE, SIDE), mirrored=True)[0, :, 16]
    assert float(rows[31]) == pytest.approx(float(rows[63]), abs=1e-6)
    assert 0.4 < rows[31] < 0.6  # in the middle of the second window, at the end of the first one
    assert float(rows[0]) == 0
    assert float(rows[95]) == 1


def blended_at_once(predict: Callable[[Pixels], Tensor], pixels: Pixels, side: int) -> Tensor:
    """Return the weighted mean of all windows, with sums over the entire image."""
    along = 1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2 + 0.5)
    weight = along[:, None] * along
    starts = [[round(x) for x in np.linspace(0, n - side, -(-(n - side) * 2 // side) + 1)] for n in pixels.shape[:2]]
    places = [(slice(top, top + side), slice(left, left + side)) for top in starts[0] for left in starts[1]]
    sums, total = torch.zeros(2, *pixels.shape[:2]), torch.zeros(pixels.shape[:2])
    for place in places:
        sums[:, *place] += predict(pixels[place][None])[0] * weight
        total[place] += weight
    return (sums / total).clamp_(0.0, 1.0)


@pytest.mark.parametrize("size", [(100, 75), (33, 200), (470, 40)])
def test_bands_are_bitwise_those_of_sums_over_the_entire_image(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    bands = list(window_bands(pointwise, pixels, (SIDE, SIDE), mirrored=True))
    assert len(bands) > 1
    assert torch.equal(whole(bands), blended_at_once(pointwise, pixels, SIDE))
