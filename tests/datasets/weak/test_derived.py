"""Weak labels derived from masks, tested by their properties on random masks of both kinds."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from skimage.morphology import skeletonize

from datasets.source import BACKGROUND, IGNORE, Box, Pixels
from datasets.weak.boxes import mask_boxes
from datasets.weak.points import mask_points
from datasets.weak.presence import mask_presence
from datasets.weak.scribbles import mask_scribbles

SHAPE = (60, 80)
NAMES = ("a", "b", "c")
EIGHT = np.ones((3, 3))


def random_masks(seed: int, *, overlapping: bool, shape: tuple[int, int] = SHAPE) -> Pixels:
    """Return blobs of three classes with pixels that are not annotated; every third class is not annotated at all."""
    random = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(random.standard_normal(shape), 4) for _ in range(4)])
    if not overlapping:
        masks = np.where(fields[:3].max(axis=0) > 0.04, fields[:3].argmax(axis=0) + 1, 0).astype(np.uint8)
        masks[fields[3] > 0.08] = IGNORE
        return masks
    masks = (fields[:3] > 0.05).astype(np.uint8)
    masks[0][fields[3] > 0.08] = IGNORE
    if seed % 3 == 0:
        masks[2] = IGNORE
    return masks


def planes(masks: Pixels) -> Iterator[np.ndarray]:
    """Yield the foreground of each class."""
    yield from (masks == number for number in (1, 2, 3)) if masks.ndim == 2 else masks == 1


def background(masks: Pixels) -> np.ndarray:
    if masks.ndim == 2:
        return masks == 0
    return np.asarray((masks[(masks != IGNORE).any(axis=(1, 2))] == 0).all(axis=0))


CASES = [(seed, overlapping) for overlapping in (False, True) for seed in range(6)]


@pytest.mark.parametrize(("seed", "overlapping"), CASES)
def test_each_component_beside_annotated_pixels_alone_has_its_tight_box(seed: int, overlapping: bool) -> None:
    masks = random_masks(seed, overlapping=overlapping)
    expected = set()
    for number_of_class, (name, plane) in enumerate(zip(NAMES, planes(masks), strict=True)):
        labels, count = label(plane, EIGHT)
        values = np.pad(masks if masks.ndim == 2 else masks[number_of_class], 1)
        for number in range(1, count + 1):
            rows, columns = np.nonzero(labels == number)
            if any(
                (values[row : row + 3, column : column + 3] == IGNORE).any()
                for row, column in zip(rows, columns, strict=True)
            ):
                continue
            x, y = columns.min(), rows.min()
            expected.add(Box(name=name, x=x, y=y, width=columns.max() + 1 - x, height=rows.max() + 1 - y))
    boxes = mask_boxes(masks, NAMES)
    assert expected
    assert len(boxes) == len(expected)
    assert set(boxes) == expected


def test_small_components_are_excluded() -> None:
    masks = np.zeros(SHAPE, np.uint8)
    masks[5:8, 5:9], masks[20, 20:31] = 1, 1
    for fewest, count in ((1, 2), (11, 2), (12, 1), (13, 0)):
        assert len(mask_boxes(masks, NAMES[:1], min_pixels=fewest)) == count
        points = mask_points(masks, NAMES[:1], (0, 0), background=0, min_pixels=fewest)
        assert len(points) == count
        scribbles = mask_scribbles(masks, NAMES[:1], (0, 0), background=False, min_pixels=fewest)
        assert label(scribbles == 1, EIGHT)[1] == count


@pytest.mark.parametrize(("seed", "overlapping"), CASES)
def test_points_are_inside_their_component_and_away_from_its_border(seed: int, overlapping: bool) -> None:
    masks = random_masks(seed, overlapping=overlapping)
    points = mask_points(masks, NAMES, (1, seed), per_component=3, background=4)
    places = [(point.name, int(point.y), int(point.x)) for point in points]
    assert len(set(places)) == len(places)
    assert all((point.x % 1, point.y % 1) == (0.5, 0.5) for point in points)
    for name, plane in zip(NAMES, planes(masks), strict=True):
        labels, count = label(plane, EIGHT)
        depth = distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1]
        chosen = [(row, column) for part, row, column in places if part == name]
        for number in range(1, count + 1):
            inside = [place for place in chosen if labels[place] == number]
            interior = (labels == number) & (depth >= depth[labels == number].max() / 2)
            assert len(inside) == min(3, interior.sum())
            assert all(interior[place] for place in inside)
        assert all(labels[place] for place in chosen)
    outside = [(row, column) for part, row, column in places if part == BACKGROUND]
    assert len(outside) == 4
    assert all(background(masks)[place] for place in outside)


@pytest.mark.parametrize(("seed", "overlapping"), CASES)
@pytest.mark.parametrize("width", [0.0, 0.06])
def test_each_component_has_one_connected_scribble_inside(seed: int, overlapping: bool, width: float) -> None:
    masks = random_masks(seed, overlapping=overlapping)
    scribbles = mask_scribbles(masks, NAMES, (2, seed), width=width)
    assert scribbles.shape == masks.shape
    drawn = scribbles != IGNORE
    assert np.array_equal(scribbles[drawn], masks[drawn])
    for plane, of_class in zip(planes(masks), planes(scribbles), strict=True):
        labels, count = label(plane, EIGHT)
        for number in range(1, count + 1):
            inside = of_class & (labels == number)
            assert label(inside, EIGHT)[1] == 1
            if not width and (labels == number).sum() > 50:
                assert inside.sum() < (labels == number).sum() / 2
    outside = scribbles == 0 if scribbles.ndim == 2 else (scribbles == 0).any(axis=0)
    assert label(outside, EIGHT)[1] == 1
    assert background(masks)[outside].all()


@pytest.mark.parametrize("seed", range(4))
def test_scribbles_of_one_pixel_are_thin(seed: int) -> None:
    masks = random_masks(seed, overlapping=False)
    scribbles = mask_scribbles(masks, NAMES, (2, seed), width=0)
    for value in range(4):
        line = scribbles == value
        assert skeletonize(line).sum() >= 0.6 * line.sum()


def test_scribbles_are_not_longer_than_a_share_of_their_path() -> None:
    masks = np.zeros((40, 400), np.uint8)
    masks[18:23, 10:390] = 1
    lengths = [
        int((mask_scribbles(masks, ("a",), (seed, 0), length=0.4, width=0, background=False) == 1).sum())
        for seed in range(20)
    ]
    assert max(lengths) <= 0.4 * 400
    assert min(lengths) >= 0.4 * 0.5 * 300
    assert len(set(lengths)) > 5


def test_unannotated_classes_have_no_weak_labels_and_do_not_limit_the_background() -> None:
    masks = random_masks(0, overlapping=True)
    assert (masks[2] == IGNORE).all()
    scribbles = mask_scribbles(masks, NAMES, (0, 0))
    assert (scribbles[2] == IGNORE).all()
    assert (scribbles[:2] == 0).any(axis=(1, 2)).all()
    assert "c" not in {part.name for part in (*mask_boxes(masks, NAMES), *mask_points(masks, NAMES, (0, 0)))}
    nothing = np.full((3, *SHAPE), IGNORE, np.uint8)
    assert (mask_scribbles(nothing, NAMES, (0, 0)) == IGNORE).all()
    assert mask_points(nothing, NAMES, (0, 0)) == mask_boxes(nothing, NAMES) == ()


def test_classes_are_absent_where_all_pixels_are_annotated() -> None:
    masks = np.zeros((4, *SHAPE), np.uint8)
    masks[0, 3, 4], masks[2], masks[3, :9] = 1, IGNORE, IGNORE
    np.testing.assert_array_equal(mask_presence(masks, 4), [1, 0, np.nan, np.nan])
    ids = np.zeros(SHAPE, np.uint8)
    ids[5, 5], ids[9] = 2, IGNORE
    np.testing.assert_array_equal(mask_presence(ids, 3), [np.nan, 1, np.nan])
    ids[9] = 0
    np.testing.assert_array_equal(mask_presence(ids, 3), [0, 1, 0])
    np.testing.assert_array_equal(mask_presence(np.full(SHAPE, IGNORE, np.uint8), 2), [np.nan, np.nan])


def test_weak_labels_are_determined_by_the_key() -> None:
    masks = random_masks(1, overlapping=False)
    same = [mask_scribbles(masks, NAMES, (3, 4)) for _ in range(2)]
    assert np.array_equal(*same)
    assert mask_points(masks, NAMES, (3, 4)) == mask_points(masks, NAMES, (3, 4))
    for other in ((4, 4), (3, 5)):
        assert not np.array_equal(same[0], mask_scribbles(masks, NAMES, other))
        assert mask_points(masks, NAMES, (3, 4)) != mask_points(masks, NAMES, other)


def test_weak_labels_of_a_class_do_not_depend_on_other_classes() -> None:
    masks = random_masks(1, overlapping=True)
    together, alone = mask_scribbles(masks, NAMES, (3, 4)), mask_scribbles(masks[1:2], NAMES[1:2], (3, 4))
    assert np.array_equal(together[1] == 1, alone[0] == 1)
    points = mask_points(masks, NAMES, (3, 4), background=0)
    assert tuple(point for point in points if point.name == "b") == mask_points(
        masks[1:2], NAMES[1:2], (3, 4), background=0
    )


PROGRAM = """
import numpy as np
from hashlib import blake2b
from datasets.weak.points import mask_points
from datasets.weak.scribbles import mask_scribbles
masks = np.zeros((60, 80), np.uint8)
masks[5:30, 5:40], masks[35:55, 20:70] = 1, 2
scribbles = mask_scribbles(masks, ("a", "b"), (3, 4))
print(blake2b(scribbles.tobytes()).hexdigest(), mask_points(masks, ("a", "b"), (3, 4)))
"""


def test_other_processes_derive_the_same_weak_labels() -> None:
    outputs = {subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
               for _ in range(2)}  # fmt: skip
    assert len(outputs) == 1


def test_large_components_are_scribbled_on_blocks_of_pixels() -> None:
    rows, columns = np.indices((600, 900))
    masks = (((rows - 300) / 250) ** 2 + ((columns - 400) / 350) ** 2 < 1).astype(np.uint8)
    scribbles = mask_scribbles(masks, ("a",), (0, 0), width=0)
    drawn = scribbles != IGNORE
    assert np.array_equal(scribbles[drawn], masks[drawn])
    for value in (0, 1):
        assert label(scribbles == value, EIGHT)[1] == 1
        assert (scribbles == value).sum() > 100


def test_thin_and_tiny_components_have_scribbles() -> None:
    masks = np.zeros(SHAPE, np.uint8)
    diagonal = np.arange(30)
    masks[diagonal, diagonal + 10], masks[50, 50] = 1, 1
    scribbles = mask_scribbles(masks, ("a",), (0, 0), width=0, background=False)
    assert scribbles[50, 50] == 1
    line = (scribbles == 1) & (np.arange(SHAPE[0])[:, None] < 40)
    assert 9 <= line.sum() <= 18
    assert label(line, EIGHT)[1] == 1
