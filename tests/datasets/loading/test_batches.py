import itertools
from itertools import chain

import numpy as np
import pytest

from datasets.augment_settings import AugmentSettings
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches, RankBatch
from datasets.loading.examples import WholeImages


def some_images(count: int) -> np.ndarray:
    """Every pixel is the number of the image."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 1))


def batches_of(count: int, size: int, *, seed: int = 0, rows: range | None = None) -> Batches:
    images = some_images(100)
    rows = range(count) if rows is None else rows
    return Batches(WholeImages(images, images[..., 0], rows), batch_size=size, seed=seed)


def row_numbers(images: np.ndarray) -> list[int]:
    return [int(image.flat[0]) for image in images]


def shares(batches: Batches, *args: int, shuffle: bool = True) -> list[RankBatch]:
    """Return one rank's shares of complete batches."""
    return [share for (share,) in batches.epoch(*args, shuffle=shuffle)]


def epoch_of(batches: Batches, *args: int, shuffle: bool = True) -> list[list[int]]:
    return [row_numbers(share.images) if share.counts else [] for share in shares(batches, *args, shuffle=shuffle)]


@pytest.mark.parametrize(("count", "size"), [(20, 4), (21, 4), (22, 4), (3, 8), (1, 4), (5, 1), (9, 2)])
def test_an_epoch_has_every_row_once(count: int, size: int) -> None:
    batches = batches_of(count, size)
    for shuffle in (True, False):
        rows = epoch_of(batches, 0, shuffle=shuffle)
        assert sorted(chain(*rows)) == list(range(count))
    assert len(epoch_of(batches, 0)) == batches.updates_per_epoch


def test_a_last_batch_of_one_is_merged_only_in_training() -> None:
    batches = batches_of(21, 4)
    assert [len(batch) for batch in epoch_of(batches, 0)] == [4, 4, 4, 4, 5]
    assert [len(batch) for batch in epoch_of(batches, 0, shuffle=False)] == [4, 4, 4, 4, 4, 1]
    assert [len(batch) for batch in epoch_of(batches_of(22, 4), 0)] == [4, 4, 4, 4, 4, 2]
    assert [len(batch) for batch in epoch_of(batches_of(3, 1), 0)] == [1, 1, 1]


def test_only_the_given_rows_are_drawn_with_their_targets() -> None:
    batches = batches_of(0, 4, rows=range(50, 60))
    for share in shares(batches, 0):
        assert share.targets is not None
        assert row_numbers(share.images) == row_numbers(share.targets)
        assert all(50 <= row < 60 for row in row_numbers(share.images))


def test_the_order_depends_on_seed_and_epoch() -> None:
    orders = {str(epoch_of(batches_of(20, 4, seed=seed), epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert epoch_of(batches_of(20, 4, seed=1), 2) == epoch_of(batches_of(20, 4, seed=1), 2)
    assert epoch_of(batches_of(20, 4), 7, shuffle=False)[0] == [0, 1, 2, 3]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_the_same_global_batches(world: int) -> None:
    batches = batches_of(22, 8)
    ranks = [epoch_of(batches, 1, rank, world) for rank in range(world)]
    together = [list(chain(*shares)) for shares in zip(*ranks, strict=True)]
    for batch, expected in zip(together, epoch_of(batches, 1), strict=True):
        assert batch == expected


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_smaller_than_the_number_of_workers_repeats_images_that_do_not_count(shuffle: bool) -> None:
    batches = batches_of(10, 4)
    last = [shares(batches, 0, rank, 4, shuffle=shuffle)[-1] for rank in range(4)]
    assert [share.counts for share in last] == [True, True, False, False]
    assert [len(share.images) for share in last] == [1, 1, 1, 1]
    assert [share.size for share in last] == [2, 2, 2, 2]


def test_evaluation_counts_every_row_once_over_all_ranks() -> None:
    batches = batches_of(10, 4)
    batches_of_ranks = [batch for rank in range(4) for batch in epoch_of(batches, 0, rank, 4, shuffle=False)]
    assert sorted(chain(*batches_of_ranks)) == list(range(10))


@pytest.mark.parametrize(
    ("size", "parts", "sizes"),
    [(8, 4, [2, 2, 2, 2]), (8, 3, [3, 3, 2]), (5, 4, [2, 1, 1, 1]), (4, 4, [1, 1, 1, 1]), (8, 1, [8])],
)
def test_parts_are_as_equal_as_possible_and_have_each_row_once(size: int, parts: int, sizes: list[int]) -> None:
    batches = Batches(WholeImages(some_images(8), None, range(8)), batch_size=size, seed=0, parts=parts)
    first, *_ = batches.epoch(0)
    assert [share.size for share in first] == sizes
    assert [row for share in first for row in row_numbers(share.images)] == epoch_of(batches_of(8, size), 0)[0]


def test_a_small_last_batch_has_fewer_parts_so_that_none_has_a_single_image() -> None:
    *_, last = Batches(WholeImages(some_images(13), None, range(13)), batch_size=8, seed=0, parts=4).epoch(0)
    assert [share.size for share in last] == [3, 2]


def test_more_workers_than_images_in_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 2 for 3 workers; allowed"):
        next(batches_of(10, 2).epoch(0, 0, 3))


def test_batches_are_writable_copies_of_the_images() -> None:
    images = some_images(10)
    for shuffle in (True, False):
        for share in shares(Batches(WholeImages(images, None, range(10)), batch_size=4, seed=0), 0, shuffle=shuffle):
            share.images[:] = 0
    assert row_numbers(images) == list(range(10))


def test_augmentation_depends_on_seed_epoch_and_row_and_is_not_used_in_evaluation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 1), dtype=np.uint8)
    settings = AugmentSettings(rotate=20, noise=0.05)
    augmenter = Augmenter(settings, "mask", (128, 128))
    masks = images[..., 0]
    batches = Batches(WholeImages(images, masks, range(10), augmenter), batch_size=4, seed=5)
    plain = Batches(WholeImages(images, np.arange(10), range(10)), batch_size=4, seed=5)
    order = np.concatenate([share.targets for share in shares(plain, 3)])
    augmented = np.concatenate([share.images for share in shares(batches, 3)])
    moved = np.concatenate([share.targets for share in shares(batches, 3)])
    for place, row in enumerate(order.tolist()):
        image, mask = Augmenter(settings, "mask", (128, 128))(images[row], masks[row], (5, 3, row))
        assert (augmented[place] == image).all()
        assert (moved[place] == mask).all()
    assert (np.concatenate([share.images for share in shares(batches, 4)]) != augmented).any()
    assert (np.concatenate([share.images for share in shares(batches, 3, shuffle=False)]) == images).all()


def test_augmentation_does_not_depend_on_the_number_of_workers() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 1), dtype=np.uint8)
    augmenter = Augmenter(AugmentSettings(rotate=20), "image", (128, 128))
    batches = Batches(WholeImages(images, None, range(10), augmenter), batch_size=4, seed=5)
    pairs = zip(shares(batches, 0, 0, 2), shares(batches, 0, 1, 2), strict=True)
    for share, (left, right) in zip(shares(batches, 0), pairs, strict=True):
        assert (np.concatenate([left.images, right.images]) == share.images).all()


def test_a_stream_can_start_at_any_update() -> None:
    batches = batches_of(10, 4)
    epochs = [rows for epoch in range(3) for rows in epoch_of(batches, epoch)]
    for update in (0, 1, 3, 4):
        streamed = [row_numbers(share.images) for (share,) in itertools.islice(batches.stream(update), 5)]
        assert streamed == epochs[update : update + 5]


def keys_by_row(batches: Batches, *args: int, shuffle: bool = True) -> dict[int, int]:
    return {
        row: key
        for share in shares(batches, *args, shuffle=shuffle)
        if share.counts
        for row, key in zip(row_numbers(share.images), share.keys, strict=True)
    }


def test_keys_of_images_do_not_depend_on_the_number_of_workers() -> None:
    batches = batches_of(21, 4)
    for shuffle in (True, False):
        single = keys_by_row(batches, 3, shuffle=shuffle)
        assert len(set(single.values())) == 21
        divided = [keys_by_row(batches, 3, rank, 3, shuffle=shuffle) for rank in range(3)]
        assert {row: key for part in divided for row, key in part.items()} == single


def test_keys_of_training_images_depend_on_epoch_and_seed_and_those_of_evaluation_do_not() -> None:
    batches, other = batches_of(10, 4), batches_of(10, 4, seed=1)
    training = [set(keys_by_row(source, epoch).values()) for source in (batches, other) for epoch in (0, 1)]
    assert len(set().union(*training)) == 40
    evaluation = [keys_by_row(source, epoch, shuffle=False) for source in (batches, other) for epoch in (0, 1)]
    assert evaluation == [evaluation[0]] * 4
    assert set(evaluation[0].values()).isdisjoint(set().union(*training))
