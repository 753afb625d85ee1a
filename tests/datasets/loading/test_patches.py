"""Random patches and tiles of images of different sizes."""

import numpy as np
import pytest

from datasets.augment_settings import AugmentSettings
from datasets.cache.ragged import RaggedArray, length_of
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches
from datasets.loading.native import foreground_points
from datasets.loading.patches import RandomPatches, Tiles, Window, cut, tiles
from datasets.settings import PatchSettings
from datasets.source import IGNORE, Pixels

SIDE = 16
SIZES = [(40, 30), (16, 16), (9, 50), (5, 7), (64, 48)]


def ragged(arrays: list[Pixels]) -> RaggedArray:
    return RaggedArray(np.concatenate([array.ravel() for array in arrays]), [array.shape for array in arrays])


def images() -> list[Pixels]:
    """Images whose pixels encode their row and column."""
    return [np.stack(np.indices(size), axis=-1).astype(np.uint8) for size in SIZES]


def masks() -> list[Pixels]:
    """Masks that repeat the row and column of each pixel in two planes."""
    return [np.moveaxis(image, -1, 0) for image in images()]


def patches(settings: PatchSettings, points: RaggedArray | None = None) -> RandomPatches:
    return RandomPatches(
        ragged(images()), ragged(masks()), points, range(len(SIZES)), shape=(SIDE, SIDE), settings=settings
    )  # fmt: skip


def draw_epochs(examples: RandomPatches, epochs: int) -> list[tuple[Pixels, Pixels]]:
    """Return the image and mask of every position in some epochs."""
    pairs = []
    for epoch in range(epochs):
        image, mask = examples.draw(np.arange(len(examples)), (3, epoch))
        assert mask is not None
        pairs += list(zip(image, mask, strict=True))
    return pairs


def test_arrays_of_different_sizes_are_stored_separately() -> None:
    arrays = images()
    together = ragged(arrays)
    assert len(together) == len(arrays)
    assert length_of([array.shape for array in arrays]) == sum(array.size for array in arrays)
    for row, array in enumerate(arrays):
        np.testing.assert_array_equal(together[row], array)


def test_patches_are_regions_of_their_image_with_the_same_region_of_its_mask() -> None:
    for number, (image, mask) in enumerate(draw_epochs(patches(PatchSettings(foreground=0.0)), epochs=20)):
        height, width = SIZES[number % len(SIZES)]
        np.testing.assert_array_equal(np.moveaxis(image, -1, 0), mask)
        top, left = image[0, 0]
        inside = image[: height - top, : width - left]
        np.testing.assert_array_equal(inside[..., 0], top + np.arange(len(inside))[:, None] + np.zeros(inside.shape[1]))
        np.testing.assert_array_equal(inside[..., 1], left + np.arange(inside.shape[1]) + np.zeros((len(inside), 1)))


def test_every_region_of_an_image_is_drawn() -> None:
    corners = [
        image[0, 0] for image, _ in draw_epochs(patches(PatchSettings(foreground=0.0)), epochs=600)[4 :: len(SIZES)]
    ]
    assert {int(top) for top, _ in corners} == set(range(64 - SIDE + 1))
    assert {int(left) for _, left in corners} == set(range(48 - SIDE + 1))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_patches_contain_foreground_with_the_configured_probability(share: float) -> None:
    point = np.array([[60, 3]], np.int32)  # in the corner of the last image
    points = ragged([np.empty((0, 2), np.int32)] * 4 + [point])
    epochs = 600
    last = draw_epochs(patches(PatchSettings(foreground=share), points), epochs)[4 :: len(SIZES)]
    contained = sum(bool((image == point).all(axis=-1).any()) for image, _ in last)
    by_chance = sum(
        bool((image == point).all(axis=-1).any())
        for image, _ in draw_epochs(patches(PatchSettings(foreground=0.0)), epochs)[4 :: len(SIZES)]
    )
    assert contained == pytest.approx(share * epochs + (1 - share) * by_chance, abs=4 * np.sqrt(epochs) / 2)
    if share == 1.0:
        assert contained == epochs


def test_an_epoch_has_the_configured_number_of_patches_of_each_image() -> None:
    examples = patches(PatchSettings(per_image=7))
    assert len(examples) == 7 * len(SIZES)
    assert Batches(examples, batch_size=5, seed=0).updates_per_epoch == 7
    first = [tuple(image[0, 0]) for image, _ in draw_epochs(examples, 1)[:7]]
    assert len(set(first)) > 3


def test_patches_depend_on_seed_epoch_and_position_only() -> None:
    examples = patches(PatchSettings())
    image, _ = examples.draw(np.array([4, 0]), (3, 5))
    again, _ = patches(PatchSettings()).draw(np.array([0, 4]), (3, 5))
    np.testing.assert_array_equal(image[::-1], again)
    others = [examples.draw(np.array([4, 0]), key)[0] for key in ((3, 6), (4, 5))]
    assert all((other != image).any() for other in others)


def test_patches_are_augmented_with_their_masks() -> None:
    augmenter = Augmenter(AugmentSettings(flip=1.0), "mask", (SIDE, SIDE))
    plain = patches(PatchSettings())
    examples = RandomPatches(
        ragged(images()), ragged(masks()), None, range(len(SIZES)), shape=(SIDE, SIDE), settings=PatchSettings(),
        augmenter=augmenter,
    )  # fmt: skip
    positions = np.arange(len(SIZES))
    image, mask = plain.draw(positions, (0, 0))
    flipped_image, flipped_mask = examples.draw(positions, (0, 0))
    assert mask is not None
    assert flipped_mask is not None
    np.testing.assert_array_equal(flipped_image, image[:, :, ::-1])
    np.testing.assert_array_equal(flipped_mask, mask[..., ::-1])


def test_images_smaller_than_a_patch_are_mirrored() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    expected = np.array([[0, 1, 2, 2, 1], [3, 4, 5, 5, 4], [3, 4, 5, 5, 4], [0, 1, 2, 2, 1], [0, 1, 2, 2, 1]])
    np.testing.assert_array_equal(cut(image, Window(0, 0), (5, 5), axis=0)[..., 0], expected)
    np.testing.assert_array_equal(cut(image[None, ..., 0], Window(0, 0), (5, 5), axis=1)[0], expected)


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (32, 33), (17, 200)])
def test_tiles_cover_every_pixel_and_start_inside(size: tuple[int, int]) -> None:
    covered = np.zeros(size, bool)
    windows = [tile.window for tile in tiles(size, (SIDE, SIDE))]
    for top, left in windows:
        assert 0 <= top <= max(size[0] - SIDE, 0)
        assert 0 <= left <= max(size[1] - SIDE, 0)
        covered[top : top + SIDE, left : left + SIDE] = True
    assert covered.all()
    assert len(set(windows)) == len(windows)
    assert len(windows) == np.prod([max(1, -(-length // SIDE)) for length in size])


def test_tiles_are_read_in_order_with_their_masks() -> None:
    examples = Tiles(ragged(images()), ragged(masks()), [4, 1], shape=(SIDE, SIDE))
    assert len(examples) == 4 * 3 + 1
    image, mask = examples.read(np.array([0, 5, 12]))
    assert mask is not None
    assert [tuple(tile[0, 0]) for tile in image] == [(0, 0), (16, 32), (0, 0)]
    np.testing.assert_array_equal(np.moveaxis(image, -1, 1), mask)
    again, _ = examples.draw(np.array([0, 5, 12]), (1, 2))
    np.testing.assert_array_equal(again, image)


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (32, 33), (17, 200)])
def test_each_pixel_of_an_image_has_its_label_in_one_tile(size: tuple[int, int]) -> None:
    numbers = np.arange(np.prod(size)).reshape(size)
    labels = (numbers % 250).astype(np.uint8)
    examples = Tiles(ragged([np.zeros((*size, 1), np.uint8)]), ragged([labels]), [0], shape=(SIDE, SIDE))
    _, targets = examples.read(np.arange(len(examples)))
    assert targets is not None
    np.testing.assert_array_equal(np.sort(targets[targets != IGNORE]), np.sort(labels.ravel()))


def test_foreground_points_are_labelled_pixels_of_every_class() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:50], mask[60, 60], mask[90:] = 1, 2, IGNORE
    points = foreground_points(mask, "a")
    classes = [int(mask[tuple(point)]) for point in points]
    assert {name: classes.count(name) for name in set(classes)} == {1: 128, 2: 128}
    np.testing.assert_array_equal(points, foreground_points(mask, "a"))
    assert (points != foreground_points(mask, "b")).any()
    planes = np.stack([mask == 1, mask == 2]).astype(np.uint8)
    assert {tuple(point) for point in foreground_points(planes, "a")} >= {(60, 60)}
    assert foreground_points(np.zeros((4, 4), np.uint8), "a").shape == (0, 2)
