"""Runs and polygons give the masks of pycocotools and of the competition's formula."""

from collections.abc import Callable
from itertools import groupby

import numpy as np
import pytest
from pycocotools import mask as coco

from datasets.errors import DataError
from datasets.source import Pixels
from datasets.sources.common.runs import (
    absolute_runs,
    compressed_runs,
    counted_runs,
    draw,
    last_pixel,
    polygon_runs,
    relative_runs,
)

SIZE = (13, 9)
"""Width and height: different, so that rows and columns cannot be confused."""
MASKS = [
    np.zeros((9, 13), np.uint8),
    np.ones((9, 13), np.uint8),
    np.pad(np.ones((1, 1), np.uint8), ((8, 0), (12, 0))),
    *(np.random.default_rng(seed).random((9, 13)) < seed / 6 for seed in range(1, 6)),
]


def flat_runs(mask: Pixels) -> list[tuple[int, int]]:
    """Start (from 0) and length of each run down the columns."""
    runs, start = [], 0
    for value, same in groupby(mask.ravel(order="F").tolist()):
        length = len(list(same))
        runs += [(start, length)] if value else []
        start += length
    return runs


def relative_text(mask: Pixels) -> str:
    end, parts = 0, []
    for start, length in flat_runs(mask):
        parts += [start - end, length]
        end = start + length
    return " ".join(map(str, parts))


@pytest.mark.parametrize("mask", MASKS)
def test_absolute_runs_start_at_1(mask: Pixels) -> None:
    text = " ".join(f"{start + 1} {length}" for start, length in flat_runs(mask))
    assert np.array_equal(draw(absolute_runs(text, "here"), SIZE, "here"), mask)


@pytest.mark.parametrize("mask", MASKS)
def test_relative_runs_count_from_the_end_of_the_run_before(mask: Pixels) -> None:
    assert np.array_equal(draw(relative_runs(relative_text(mask), "here"), SIZE, "here"), mask)


@pytest.mark.parametrize("mask", MASKS)
def test_both_kinds_of_coco_runs_equal_pycocotools(mask: Pixels) -> None:
    compressed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(draw(compressed_runs(compressed, "here", pixels=mask.size), SIZE, "here"), mask)
    counts, end = [], 0
    for start, length in flat_runs(mask):
        counts += [start - end, length]
        end = start + length
    counts.append(mask.size - end)
    assert np.array_equal(draw(counted_runs(counts, "here", pixels=mask.size), SIZE, "here"), mask)
    assert counted_runs(counts, "here", pixels=mask.size) == compressed_runs(compressed, "here", pixels=mask.size)


def test_large_masks_are_unchanged_by_compression() -> None:
    mask = np.zeros((700, 900), np.uint8)
    mask[3:650, 100:800] = np.random.default_rng(0).random((647, 700)) < 0.9
    mask[:, 300:500] = 0
    compressed = coco.encode(np.asfortranarray(mask))["counts"].decode()
    assert np.array_equal(draw(compressed_runs(compressed, "here", pixels=mask.size), (900, 700), "here"), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_polygons_of_one_mask_are_united_as_in_pycocotools() -> None:
    polygons = [[1.0, 1.0, 7.5, 1.0, 7.5, 6.0, 1.0, 6.0], [5.0, 3.0, 12.0, 2.0, 9.0, 8.5]]
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, SIZE[1], SIZE[0])))
    assert expected.any()
    assert np.array_equal(draw(polygon_runs(polygons, SIZE, "here"), SIZE, "here"), expected)


def test_no_runs_are_an_empty_mask() -> None:
    assert relative_runs("", "here") == counted_runs([117], "here", pixels=117) == absolute_runs("5 0", "here") == b""
    assert not draw(b"", SIZE, "here").any()
    assert last_pixel(b"") == 0


def test_runs_beyond_the_image_are_refused_with_their_position() -> None:
    fits = absolute_runs("110 8", "here")
    assert last_pixel(fits) == 117
    assert draw(fits, SIZE, "here").sum() == 8
    with pytest.raises(DataError, match=r"here runs past the end \(to pixel 118\); allowed: up to 117, .*; correct"):
        draw(absolute_runs("110 9", "here"), SIZE, "here")


@pytest.mark.parametrize("read", [absolute_runs, relative_runs])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3", "3 run lengths; allowed: pairs"),
        ("1 two", "'two'; allowed: whole numbers"),
        ("1 2.5", "'2.5'; allowed: whole numbers"),
        ("4 -2", "a run length is -2; allowed: 0 or more"),
        ("1 99999999999999999999", "allowed: less than 2147483648"),
    ],
)
def test_malformed_runs_are_refused_in_one_line(read: Callable[[str, str], bytes], text: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"^line 7: .*{reason}.*; correct or remove the annotation$"):
        read(text, "line 7")


def test_absolute_runs_that_start_at_0_are_refused() -> None:
    with pytest.raises(DataError, match="a run starts at 0; allowed: 1 or more"):
        absolute_runs("0 3", "line 7")


@pytest.mark.parametrize("text", ["a b", "12é", "P", "oooooooooooooooooo1"])
def test_text_that_is_not_a_compressed_mask_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^line 7: .*; allowed: .*; correct"):
        compressed_runs(text, "line 7", pixels=117)


@pytest.mark.parametrize(
    ("polygon", "reason"),
    [
        ([1.0, 1.0, 5.0, 5.0], "a polygon of 4 numbers; allowed: x and y of three or more corners"),
        ([1.0, 1.0, 5.0, 5.0, 3.0, 3.0, 2.0], "a polygon of 7 numbers"),
        ([1.0, 1.0, 15.0, 5.0, 1.0, 5.0], "a polygon at 15 leaves the image; allowed: inside 13 x 9"),
        ([1.0, 1.0, 5.0, -3.0, 1.0, 5.0], "a polygon at -3 leaves the image"),
        ([1.0, 1.0, 5.0, float("nan"), 1.0, 5.0], "a polygon at nan leaves the image"),
    ],
)
def test_a_polygon_without_area_or_outside_the_image_is_refused(polygon: list[float], reason: str) -> None:
    with pytest.raises(DataError, match=f"^here: {reason}"):
        polygon_runs([polygon], SIZE, "here")


@pytest.mark.parametrize("counts", [[], [10, 20], [0, 116]])
def test_coco_runs_that_end_before_their_image_are_refused(counts: list[int]) -> None:
    with pytest.raises(DataError, match=rf"^here: runs of {sum(counts)} pixels; allowed: 117, all of its image's"):
        counted_runs(counts, "here", pixels=117)
