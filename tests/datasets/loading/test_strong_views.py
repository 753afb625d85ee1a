"""Strong views with pasted rectangles: content, origin, and dependence on keys alone."""

import numpy as np
import pytest

from datasets.augment_settings import AugmentSettings, StrongAugmentSettings
from datasets.cache.ragged import RaggedArray
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches
from datasets.loading.examples import Examples, WholeImages
from datasets.loading.patches import RandomPatches
from datasets.loading.strong_views import StrongViews
from datasets.settings import PatchSettings

SIDE, COUNT, SEED = 32, 6, 7
ALL = np.arange(COUNT)
KEYS = [(SEED, epoch) for epoch in range(40)]
NOTHING = StrongAugmentSettings(preset=None)


def examples(count: int = COUNT, settings: AugmentSettings | None = None) -> WholeImages:
    """Return examples whose pixels encode their image (red) and their position (green, blue)."""
    rows, columns = np.indices((SIDE, SIDE))
    images = np.stack([np.stack([np.full_like(rows, 10 * number), rows, columns], 2) for number in range(count)])
    augmenter = None if settings is None else Augmenter(settings, "image", (SIDE, SIDE))
    return WholeImages(images.astype(np.uint8), None, range(count), augmenter)


def patches() -> RandomPatches:
    """Patches of images with a constant value each."""
    image = np.repeat(np.arange(COUNT, dtype=np.uint8) * 10, 60 * 50)
    shapes = [(60, 50, 1)] * COUNT
    return RandomPatches(
        RaggedArray(image, shapes), None, None, range(COUNT), shape=(SIDE, SIDE), settings=PatchSettings(per_image=2),
        augmenter=Augmenter(AugmentSettings(noise=0.01), "image", (SIDE, SIDE)),
    )  # fmt: skip


def views(of: Examples, *, strong: int = 2, cutmix: float = 1.0, settings: AugmentSettings = NOTHING) -> StrongViews:
    return StrongViews(of, Augmenter(settings, "image", (SIDE, SIDE)), strong=strong, cutmix=cutmix)


@pytest.mark.parametrize("strong", [1, 2])
def test_without_cutmix_views_are_the_example_and_its_augmentations(strong: int) -> None:
    settings = StrongAugmentSettings(preset=None, brightness=0.5)
    weak = examples(settings=AugmentSettings(flip=0.5))
    drawn, regions = views(weak, strong=strong, cutmix=0.0, settings=settings).draw(ALL, KEYS[0])
    assert drawn.shape == (COUNT, 1 + strong, SIDE, SIDE, 3)
    assert regions is None
    np.testing.assert_array_equal(drawn[:, 0], weak.draw(ALL, KEYS[0])[0])
    for number in range(strong):
        assert (drawn[:, number] != drawn[:, number + 1]).any(axis=(1, 2, 3)).all()


def test_strong_views_have_the_pixels_of_the_weak_view() -> None:
    """The order of pixels by value is that of the weak view, so no pixel has moved."""
    settings = StrongAugmentSettings(preset=None, gamma=0.5)
    drawn, _ = views(examples(settings=AugmentSettings(rotate=30)), cutmix=0.0, settings=settings).draw(ALL, KEYS[0])
    for weak, *strong in drawn:
        order = np.argsort(weak.ravel(), kind="stable")
        assert all((np.diff(view.ravel()[order].astype(int)) >= 0).all() for view in strong)


@pytest.mark.parametrize("strong", [1, 2])
def test_pixels_in_a_region_are_those_of_the_partner_and_others_of_the_example(strong: int) -> None:
    partners = set()
    for key in KEYS:
        drawn, regions = views(examples(), strong=strong, cutmix=0.5).draw(ALL, key)
        assert regions is not None
        assert drawn.shape == (COUNT, 2 + strong, SIDE, SIDE, 3)
        assert regions.shape == (COUNT, strong, SIDE, SIDE)
        assert regions.dtype == np.bool_
        for number, (example, masks) in enumerate(zip(drawn, regions, strict=True)):
            weak, *strong_views, partner = example
            (other,) = set((partner[..., 0] // 10).ravel().tolist())
            assert (other != number) == masks.any()
            partners.add((number, other))
            for view, mask in zip(strong_views, masks, strict=True):
                np.testing.assert_array_equal(view, np.where(mask[..., None], partner, weak))
    assert len(partners) > 0.8 * COUNT**2  # every other image, and the example itself where nothing is pasted


def test_the_partner_is_augmented_as_at_its_own_position_in_the_epoch() -> None:
    settings = StrongAugmentSettings(preset=None, brightness=0.5)
    with_cutmix = views(examples(settings=AugmentSettings(flip=0.5)), settings=settings)
    alone, _ = views(examples(settings=AugmentSettings(flip=0.5)), cutmix=0.0, settings=settings).draw(ALL, KEYS[3])
    drawn, regions = with_cutmix.draw(ALL, KEYS[3])
    assert regions is not None
    for number, (example, masks) in enumerate(zip(drawn, regions, strict=True)):
        (other,) = [place for place in ALL if (alone[place, 0] == example[-1]).all()]
        for strong, mask in enumerate(masks, start=1):
            expected = np.where(mask[..., None], alone[other, strong], alone[number, strong])
            np.testing.assert_array_equal(example[strong], expected)


def test_regions_are_rectangles_of_half_the_image_that_differ_between_strong_views() -> None:
    """The height is log-uniform between half of the image and all of it, and so is the width."""
    areas, heights, tops, pasted, differ = [], [], [], [], []
    for key in KEYS:
        _, regions = views(examples(), cutmix=0.5).draw(ALL, key)
        assert regions is not None
        for masks in regions:
            for mask in masks:
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                assert mask.sum() == len(rows) * len(columns)
                pasted.append(mask.any())
                if mask.any():
                    areas.append(mask.mean())
                    heights.append(len(rows) / SIDE)
                    tops += [rows[0] / (SIDE - len(rows))] if len(rows) < SIDE else []
            differ.append((masks[0] != masks[1]).any())
    assert np.mean(differ) > 0.5
    assert np.mean(pasted) == pytest.approx(0.5, abs=0.06)
    np.testing.assert_allclose(areas, 0.5, atol=0.02)
    assert np.mean(np.array(heights) < np.sqrt(0.5)) == pytest.approx(0.5, abs=0.1)
    assert min(heights) < 0.55
    assert max(heights) > 0.95
    assert np.mean(tops) == pytest.approx(0.5, abs=0.06)
    assert (min(tops), max(tops)) == (0, 1)


def test_nothing_is_pasted_into_a_single_example() -> None:
    drawn, regions = views(examples(1)).draw(np.zeros(1, np.int64), KEYS[0])
    assert regions is not None
    assert not regions.any()
    assert (drawn == drawn[:, :1]).all()


@pytest.mark.parametrize(
    "of", [examples(settings=AugmentSettings(flip=0.5)), patches()], ids=["whole images", "patches"]
)
def test_views_do_not_depend_on_the_number_of_workers_or_the_size_of_batches(of: Examples) -> None:
    strong = views(of, cutmix=0.7, settings=StrongAugmentSettings())

    def draw_batches(batch_size: int, world: int) -> dict[int, tuple[bytes, bytes]]:
        batches = Batches(strong, batch_size=batch_size, seed=SEED)
        views_by_row = {}
        for rank in range(world):
            for (share,) in batches.epoch(2, rank, world):
                assert share.targets is not None
                for position, image, region in zip(share.positions.tolist(), share.images, share.targets, strict=True):
                    views_by_row[position] = image.tobytes(), region.tobytes()
        return views_by_row

    expected = draw_batches(4, 1)
    assert len(expected) == len(of)
    assert expected == draw_batches(4, 2) == draw_batches(5, 3)


def test_another_epoch_has_other_views_and_regions() -> None:
    strong = views(examples(), settings=StrongAugmentSettings())
    (first, regions), (second, others) = (strong.draw(ALL, key) for key in KEYS[:2])
    assert (first != second).any(axis=(1, 2, 3, 4)).all()
    assert regions is not None
    assert others is not None
    assert (regions != others).any()


def test_reading_twice_gives_the_same_views() -> None:
    strong = views(examples(), settings=StrongAugmentSettings())
    np.testing.assert_array_equal(strong.read(ALL)[0], strong.read(ALL)[0])
