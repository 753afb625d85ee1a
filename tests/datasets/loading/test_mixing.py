import numpy as np
import pytest
from scipy.ndimage import label

from datasets.augment_settings import AugmentSettings
from datasets.cache.ragged import RaggedArray
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches
from datasets.loading.examples import WholeImages
from datasets.loading.mixing import MixedExamples
from datasets.loading.patches import RandomPatches
from datasets.settings import PatchSettings
from datasets.source import IGNORE

SIDE, COUNT = 32, 6
ALL = np.arange(COUNT)
EPOCHS = [(7, epoch) for epoch in range(40)]


def discs(number: int) -> np.ndarray:
    """Return ids of three classes, one disc each at positions that differ by image, below rows without a label."""
    rows, columns = np.indices((SIDE, SIDE))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for class_id, (x, y) in enumerate(np.random.default_rng(number).uniform(8, SIDE - 6, (3, 2)), start=1):
        mask[(columns - x) ** 2 + (rows - y) ** 2 < 16] = class_id
    mask[:3] = IGNORE
    return mask


def examples(*, overlapping: bool = False, augmenter: Augmenter | None = None) -> WholeImages:
    """Return examples whose pixels encode their image (red) and their position (green, blue)."""
    rows, columns = np.indices((SIDE, SIDE))
    images = np.stack([np.stack([np.full_like(rows, 10 * number), rows, columns], 2) for number in range(COUNT)])
    ids = np.stack([discs(number) for number in range(COUNT)])
    masks = np.stack([ids == 1, ids == 2, (ids == 3) | (ids == 1)], axis=1).astype(np.uint8) if overlapping else ids
    return WholeImages(images.astype(np.uint8), masks, range(COUNT), augmenter)


def draw_all(mixed: MixedExamples, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    images, masks = mixed.draw(ALL, key)
    assert masks is not None
    return images, masks


def origins(images: np.ndarray) -> np.ndarray:
    """Return the number of the original image of each pixel."""
    return images[..., 0] // 10


MIXES = {"cutmix": {"cutmix": 1.0, "copy_paste": 0.0}, "copy-paste": {"cutmix": 0.0, "copy_paste": 1.0},
         "both": {"cutmix": 0.5, "copy_paste": 0.5}}  # fmt: skip


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("overlapping", [False, True], ids=["exclusive", "overlapping"])
def test_each_pixel_has_the_annotation_of_its_original_image(mix: dict[str, float], overlapping: bool) -> None:
    _, before = examples(overlapping=overlapping).read(ALL)
    assert before is not None
    for key in EPOCHS[:10]:
        images, masks = draw_all(MixedExamples(examples(overlapping=overlapping), **mix), key)
        rows, columns = np.indices((SIDE, SIDE))
        assert (images[..., 1] == rows).all()
        assert (images[..., 2] == columns).all()
        for image, mask in zip(origins(images), masks, strict=True):
            np.testing.assert_array_equal(mask, np.moveaxis(before, 0, -1)[..., rows, columns, image])
        assert overlapping or (masks[:, :3] == IGNORE).all()


def test_cutmix_pastes_a_rectangle_of_one_other_image() -> None:
    for key in EPOCHS:
        for number, image in enumerate(origins(draw_all(MixedExamples(examples(), **MIXES["cutmix"]), key)[0])):
            other = image != number
            if other.any():
                rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
                assert other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
                assert len(rows) == len(columns)  # the aspect ratio of the image
                assert len(set(image[other])) == 1


def test_the_area_of_cutmix_is_uniform_and_partners_are_uniformly_distributed() -> None:
    mixed = MixedExamples(examples(), **MIXES["cutmix"])
    pixels = np.array([origins(draw_all(mixed, (7, epoch))[0]) for epoch in range(200)])
    shares = np.sort((pixels != ALL[:, None, None]).mean(axis=(2, 3)).ravel())
    expected = (np.arange(len(shares)) + 0.5) / len(shares)
    assert np.abs(shares - expected).max() < 1.95 / np.sqrt(len(shares)) + 1 / SIDE
    partners = [
        image[image != number][0] for images in pixels for number, image in enumerate(images) if (image != number).any()
    ]
    np.testing.assert_allclose(np.bincount(partners) / len(partners), 1 / COUNT, atol=0.05)


def test_copy_paste_pastes_complete_components_and_at_least_one() -> None:
    count = []
    for key in EPOCHS:
        images, masks = draw_all(MixedExamples(examples(), **MIXES["copy-paste"]), key)
        for number, (image, mask) in enumerate(zip(origins(images), masks, strict=True)):
            pasted = image != number
            (partner,) = set(image[pasted])
            truth = discs(partner)
            pasted_regions = 0
            for class_id in (1, 2, 3):
                regions, region_count = label(truth == class_id, structure=np.ones((3, 3)))
                for region in range(1, region_count + 1):
                    shares = pasted[regions == region].mean()
                    assert shares in (0, 1)
                    pasted_regions += shares
            assert pasted_regions >= 1
            assert (truth[pasted] > 0).all()
            assert (truth[pasted] != IGNORE).all()
            assert (mask[pasted] == truth[pasted]).all()
            count.append(pasted_regions)
    # Three regions, each with probability 1 / 2, or one if none was selected: (3 x 1/2) + 1/8.
    assert np.mean(count) == pytest.approx(1.625, abs=0.2)


@pytest.mark.parametrize(("name", "share"), [("cutmix", 0.3), ("copy_paste", 0.7)])
def test_examples_are_mixed_with_the_probability_of_the_settings(name: str, share: float) -> None:
    mixed = MixedExamples(examples(), **{"cutmix": 0.0, "copy_paste": 0.0, name: share})
    changes = [
        (origins(draw_all(mixed, (7, epoch))[0]) != ALL[:, None, None]).any(axis=(1, 2)) for epoch in range(150)
    ]  # fmt: skip
    assert np.mean(changes) == pytest.approx(share, abs=0.06)


def test_an_image_without_objects_pastes_nothing_and_a_single_example_is_unchanged() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 1), dtype=np.uint8)
    empty = np.zeros((4, SIDE, SIDE), np.uint8)
    empty[:, 5:9] = IGNORE
    mixed = MixedExamples(WholeImages(images, empty, range(4)), cutmix=0.0, copy_paste=1.0)
    np.testing.assert_array_equal(mixed.draw(np.arange(4), (0, 0))[0], images)
    single = MixedExamples(WholeImages(images, empty, [2]), cutmix=1.0, copy_paste=1.0)
    np.testing.assert_array_equal(single.draw(np.array([0]), (0, 0))[0], images[2:3])


def test_the_partner_is_augmented_as_at_its_own_position() -> None:
    settings = AugmentSettings(flip=1.0)
    plain = examples(augmenter=Augmenter(settings, "mask", (SIDE, SIDE)))
    mixed = MixedExamples(plain, **MIXES["cutmix"])
    for key in EPOCHS[:5]:
        before, images = plain.draw(ALL, key)[0], draw_all(mixed, key)[0]
        for image in images:
            rows, columns = np.indices((SIDE, SIDE))
            np.testing.assert_array_equal(image, before[image[..., 0] // 10, rows, columns])


def test_mixing_depends_on_the_key_and_not_on_the_batch_or_the_order() -> None:
    mixed = MixedExamples(examples(), **MIXES["both"])
    for key in EPOCHS[:8]:
        images, masks = draw_all(mixed, key)
        for position in reversed(range(COUNT)):
            image, mask = MixedExamples(examples(), **MIXES["both"]).draw(np.array([position]), key)
            assert mask is not None
            np.testing.assert_array_equal(image[0], images[position])
            np.testing.assert_array_equal(mask[0], masks[position])
    assert (draw_all(mixed, (7, 0))[0] != draw_all(mixed, (7, 1))[0]).any()
    assert (draw_all(mixed, (7, 0))[0] != draw_all(mixed, (8, 0))[0]).any()


def test_batches_of_two_workers_are_those_of_one() -> None:
    batches = Batches(MixedExamples(examples(), **MIXES["both"]), batch_size=4, seed=3)
    for parts, left, right in zip(batches.epoch(2), batches.epoch(2, 0, 2), batches.epoch(2, 1, 2), strict=True):
        for part, *shares in zip(parts, left, right, strict=True):
            np.testing.assert_array_equal(part.images, np.concatenate([share.images for share in shares]))
            np.testing.assert_array_equal(part.targets, np.concatenate([share.targets for share in shares]))


def test_evaluation_reads_unmixed_examples_and_arrays_are_not_modified() -> None:
    plain = examples()
    before = plain.read(ALL)
    mixed = MixedExamples(plain, cutmix=1.0, copy_paste=1.0)
    draw_all(mixed, (7, 0))
    for mixed_image, other in zip(mixed.read(ALL), before, strict=True):
        np.testing.assert_array_equal(mixed_image, other)
    assert len(mixed) == COUNT


def test_patches_are_mixed_with_patches_of_other_images() -> None:
    values = [(20, 30, 0), (40, 25, 1), (16, 16, 2)]
    images = [np.full((height, width, 1), 10 * number, np.uint8) for height, width, number in values]
    masks = [np.full((height, width), number + 1, np.uint8) for height, width, number in values]

    def ragged(arrays: list[np.ndarray]) -> RaggedArray:
        return RaggedArray(np.concatenate([array.ravel() for array in arrays]), [array.shape for array in arrays])

    settings = PatchSettings(foreground=0.0, per_image=2)
    patches = RandomPatches(ragged(images), ragged(masks), None, range(3), shape=(16, 16), settings=settings)
    mixed = MixedExamples(patches, cutmix=1.0, copy_paste=0.0)
    partners = set()
    for epoch in range(20):
        pixels, targets = mixed.draw(np.arange(6), (0, epoch))
        assert targets is not None
        np.testing.assert_array_equal(pixels[..., 0] // 10 + 1, targets)
        partners |= {
            (position // 2, int(value)) for position in range(6) for value in np.unique(pixels[position] // 10)
        }
    assert len(partners) == 9
