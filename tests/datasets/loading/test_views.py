"""Views of examples: independently augmented, reproducible, and the same in every validation."""

import numpy as np
import pytest

from datasets.augment_settings import AugmentSettings
from datasets.cache.ragged import RaggedArray
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches, RankBatch
from datasets.loading.examples import Examples, WholeImages
from datasets.loading.patches import RandomPatches
from datasets.loading.views import Views
from datasets.settings import PatchSettings

SIDE, IMAGES, SEED = 16, 10, 5
POSITIONS = np.arange(IMAGES)


def whole_images(settings: AugmentSettings) -> WholeImages:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 1), dtype=np.uint8)
    return WholeImages(images, None, range(IMAGES), Augmenter(settings, "image", (SIDE, SIDE)))


def patches(settings: AugmentSettings) -> RandomPatches:
    """Patches of images with unique pixel values."""
    image = np.arange(IMAGES * 1000, dtype=np.uint8)
    shapes = [(40, 25, 1)] * IMAGES
    return RandomPatches(
        RaggedArray(image, shapes), None, None, range(IMAGES), shape=(SIDE, SIDE), settings=PatchSettings(),
        augmenter=Augmenter(settings, "image", (SIDE, SIDE)),
    )  # fmt: skip


NOISE = AugmentSettings(noise=0.1)
BRIGHTNESS = AugmentSettings(brightness=0.5)


@pytest.mark.parametrize("examples", [whole_images(NOISE), patches(NOISE)], ids=["whole images", "patches"])
def test_the_first_view_is_that_of_a_stage_without_views(examples: Examples) -> None:
    views, _ = Views([examples] * 3, seed=SEED).draw(POSITIONS, (SEED, 2))
    assert views.shape == (IMAGES, 3, SIDE, SIDE, 1)
    np.testing.assert_array_equal(views[:, 0], examples.draw(POSITIONS, (SEED, 2))[0])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (views[:, first] != views[:, second]).any(axis=(1, 2, 3)).all()


def test_views_of_a_patch_show_the_same_region_of_the_image() -> None:
    examples = patches(AugmentSettings(flip=1.0))
    first, second = Views([examples] * 2, seed=SEED).draw(POSITIONS, (SEED, 0))[0].swapaxes(0, 1)
    np.testing.assert_array_equal(first, second)
    other, _ = Views([examples] * 2, seed=SEED).draw(POSITIONS, (SEED, 1))
    assert (other[:, 0] != first).any()


def test_views_may_be_augmented_differently() -> None:
    plain = whole_images(AugmentSettings(flip=1.0))
    views, _ = Views([plain, whole_images(BRIGHTNESS)], seed=SEED).draw(POSITIONS, (SEED, 0))
    np.testing.assert_array_equal(views[:, 0], plain.draw(POSITIONS, (SEED, 0))[0])
    assert (views[:, 1] != views[:, 0]).any()


def shares(batches: Batches, epoch: int, *, rank: int = 0, world: int = 1, shuffle: bool = True) -> list[RankBatch]:
    return [share for parts in batches.epoch(epoch, rank, world, shuffle=shuffle) for share in parts]


@pytest.mark.parametrize("shuffle", [True, False])
def test_views_do_not_depend_on_the_number_of_workers_or_the_size_of_batches(shuffle: bool) -> None:
    views = Views([whole_images(NOISE)] * 2, seed=SEED)
    batches = Batches(views, batch_size=4, seed=SEED)
    together = np.concatenate([share.images for share in shares(batches, 1, shuffle=shuffle)])
    pairs = zip(*(shares(batches, 1, rank=rank, world=2, shuffle=shuffle) for rank in range(2)), strict=True)
    np.testing.assert_array_equal(np.concatenate([share.images for pair in pairs for share in pair]), together)
    larger = shares(Batches(views, batch_size=5, seed=SEED), 1, shuffle=shuffle)
    np.testing.assert_array_equal(np.concatenate([share.images for share in larger]), together)


def test_validation_uses_the_same_views_in_every_epoch() -> None:
    batches = Batches(Views([whole_images(NOISE)] * 2, seed=SEED), batch_size=4, seed=SEED)
    first, second = (
        np.concatenate([share.images for share in shares(batches, epoch, shuffle=False)]) for epoch in (0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (first[:, 0] != first[:, 1]).any()
    drawn = [np.concatenate([share.images for share in shares(batches, epoch)]) for epoch in (0, 1)]
    assert (np.sort(drawn[0], axis=0) != np.sort(drawn[1], axis=0)).any()


def test_a_share_has_the_positions_of_its_images() -> None:
    batches = Batches(WholeImages(np.arange(IMAGES, dtype=np.uint8), None, range(IMAGES)), batch_size=4, seed=SEED)
    for shuffle in (True, False):
        for share in shares(batches, 3, rank=1, world=2, shuffle=shuffle):
            np.testing.assert_array_equal(share.images, share.positions)
