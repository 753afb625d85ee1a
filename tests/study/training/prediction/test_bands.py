"""Probabilities in bands equal those of the entire image."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from study.training.prediction.bands import Band, resized_bands, whole

LIMIT = 2**14


def cut(probabilities: Tensor, rows: int) -> Iterator[Band]:
    for top in range(0, probabilities.shape[1], rows):
        yield Band(top, probabilities[:, top : top + rows])


def test_a_small_image_is_one_band() -> None:
    probabilities = torch.rand(2, 50, 70)
    (band,) = resized_bands(cut(probabilities, 16), (50, 70), (50, 70))
    assert torch.equal(band.probabilities, probabilities)
    (band,) = resized_bands(cut(probabilities, 16), (50, 70), (100, 90))
    expected = interpolate(probabilities[None], (100, 90), mode="bilinear", align_corners=False)[0]
    assert torch.equal(band.probabilities, expected)


@pytest.mark.parametrize("rows", [5, 90])
def test_bands_of_a_large_image_have_a_limited_size(rows: int) -> None:
    height, width = 210, 100
    probabilities = torch.rand(1, height, width)
    bands = list(resized_bands(cut(probabilities, rows), (height, width), (height, width), limit=LIMIT))
    assert max(band.probabilities.shape[1] for band in bands) * width <= LIMIT // 4
    assert torch.equal(whole(bands), probabilities)
    assert [band.top for band in bands][:2] == [0, LIMIT // 4 // width]


@pytest.mark.parametrize("size", [(30, 20), (1, 3), (500, 10)])
def test_resized_bands_equal_those_of_the_entire_image(size: tuple[int, int]) -> None:
    new_size = (211, 120)
    probabilities = torch.rand(1, *size)
    bands = list(resized_bands(cut(probabilities, 7), size, new_size, limit=LIMIT))
    assert len(bands) > 1
    expected = interpolate(probabilities[None], new_size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(whole(bands), expected, atol=2e-5, rtol=0)


def test_bands_of_a_reduced_image_keep_few_of_its_rows_in_memory() -> None:
    size, new_size, taken = (4000, 100), (40, 10), []
    probabilities = torch.rand(1, *size)

    def counted() -> Iterator[Band]:
        for band in cut(probabilities, 50):
            taken.append(band.top)
            yield band

    first = next(resized_bands(counted(), size, new_size, limit=LIMIT))
    assert len(taken) * 50 < size[0] // 4
    expected = interpolate(probabilities[None], new_size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(first.probabilities, expected[:, : first.probabilities.shape[1]], atol=2e-5, rtol=0)
