"""Batches of labelled and unlabelled images, update by update."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from datasets.augment_settings import StrongAugmentSettings
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches
from datasets.loading.examples import WholeImages
from datasets.loading.strong_views import StrongViews
from study.training.loader import DeviceLoader, StageData, WorkerContext

LABELLED, UNLABELLED = range(6), range(6, 11)


def pool() -> Batches:
    images = np.arange(11, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return Batches(WholeImages(images, None, UNLABELLED), batch_size=2, seed=3)


def unlabelled(*, start: int, resumed_at: int = 0) -> Iterator[tuple[int, Tensor | None]]:
    """Yield update and unlabelled images of three epochs of three updates, from an epoch on."""
    images = np.zeros((6, 2, 2, 1), np.uint8)
    training = Batches(WholeImages(images, None, LABELLED), batch_size=2, seed=3)
    data = StageData(training=training, unlabelled=pool(), unlabelled_start=start)
    loader = DeviceLoader(data, WorkerContext(report=lambda _: None))
    for epoch in range(resumed_at, 3):
        for (batch,) in loader.training(epoch, 3 * epoch):
            yield batch.update, batch.unlabelled


def test_unlabelled_images_are_drawn_from_their_start_on() -> None:
    drawn = dict(unlabelled(start=4))
    stream = pool().stream(0)

    assert [update for update, images in drawn.items() if images is None] == [0, 1, 2, 3]
    for update in range(4, 9):
        images = drawn[update]
        assert images is not None
        assert torch.equal(
            (images * 255).round().byte()[:, 0, 0, 0], torch.from_numpy(next(stream)[0].images[:, 0, 0, 0])
        )


def test_views_and_pasted_regions_of_unlabelled_images_have_their_keys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    all_images, labelled = WholeImages(images, None, range(6)), WholeImages(images, None, range(4))
    augmenter = Augmenter(StrongAugmentSettings(), "image", (8, 8))
    pool = Batches(StrongViews(all_images, augmenter, strong=2, cutmix=1.0), batch_size=2, seed=3)
    data = StageData(training=Batches(labelled, batch_size=2, seed=3), unlabelled=pool)
    loader = DeviceLoader(data, WorkerContext(report=lambda _: None), updates=20)
    for (batch,), (share,) in zip(loader.training(0, 0), pool.stream(0), strict=False):
        assert batch.updates == 20
        assert batch.unlabelled is batch.unlabelled_views[0]
        assert batch.unlabelled_keys == share.keys
        expected = torch.from_numpy(share.images).movedim(-1, -3).float() / 255
        assert torch.equal(torch.stack(batch.unlabelled_views, dim=1), expected)
        assert batch.pasted is not None
        assert batch.pasted.shape == (2, 2, 8, 8)
        assert torch.equal(batch.pasted, torch.from_numpy(share.targets))


def test_a_resumed_stage_draws_the_same_unlabelled_images() -> None:
    for start in (0, 1, 4, 7):
        uninterrupted = dict(unlabelled(start=start))
        for update, images in unlabelled(start=start, resumed_at=1):
            expected = uninterrupted[update]
            assert (images is None) == (expected is None)
            assert images is None or expected is None or torch.equal(images, expected)
