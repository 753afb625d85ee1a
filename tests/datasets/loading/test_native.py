"""Images and masks in their own resolution."""

from pathlib import Path

import numpy as np
import pytest

from datasets.loading.native import native_entries, native_images
from datasets.loading.truth import truth, truth_entry
from datasets.settings import NATIVE, ImageSettings
from datasets.source import Index, Source
from datasets.sources import FolderSettings, open_source
from datasets.targets import fit_image, fit_masks
from tests.support.pictures import save

SIZES = [(40, 60), (33, 20), (64, 64)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        save(random.integers(0, 256, (*size, 3), dtype=np.uint8), tmp_path / "data" / "images" / f"{number}.png")
        if number:  # the first image has no mask
            save(random.integers(0, 3, size, dtype=np.uint8), tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path / "data"


def open_native(folder: Path, cache: Path) -> tuple[Source, Index]:
    source = open_source(FolderSettings(root=folder))
    return source, source.index(cache)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_masks_equal_their_files(folder: Path, tmp_path: Path, channels: int) -> None:
    source, index = open_native(folder, tmp_path)
    image = ImageSettings.model_validate({"fit": "patch", "channels": channels})
    arrays = native_images(source, index, "mask", image, cache=tmp_path)
    assert arrays.masks is not None
    assert arrays.foreground is not None
    for row, size in enumerate(SIZES):
        assert index.shape(row) == size
        assert arrays.images[row].shape == (*size, channels)
        if channels == 3:
            np.testing.assert_array_equal(arrays.images[row], source.image(row))
        if row:
            np.testing.assert_array_equal(arrays.masks[row], source.masks(row))
            assert all(arrays.masks[row][tuple(point)] for point in arrays.foreground[row])
            assert len(arrays.foreground[row]) == 256
    assert arrays.masks[0].size == 0
    assert len(arrays.foreground[0]) == 0


def test_images_are_scaled_like_resized_ones(folder: Path, tmp_path: Path) -> None:
    source, index = open_native(folder, tmp_path)
    arrays = native_images(source, index, "mask", ImageSettings(fit="patch", scale=0.5), cache=tmp_path)
    assert arrays.masks is not None
    square = ImageSettings(size=32)
    np.testing.assert_array_equal(arrays.images[2], fit_image(source.image(2), square))
    np.testing.assert_array_equal(arrays.masks[2], fit_masks(source.masks(2), square))
    assert arrays.images[1].shape == (16, 10, 1)


def test_size_of_the_entries_is_stated(folder: Path, tmp_path: Path) -> None:
    source, index = open_native(folder, tmp_path)
    image = ImageSettings(fit="patch", channels=3)
    entries = native_entries(index, "mask", image, tmp_path)
    native_images(source, index, "mask", image, cache=tmp_path)
    for entry, size in entries.items():
        assert sum(file.stat().st_size for file in entry.iterdir()) == pytest.approx(size, abs=1024)
    assert native_entries(index, "mask", ImageSettings(fit="patch", channels=3, size=16), tmp_path) == entries
    assert len(native_entries(index, "image", image, tmp_path)) == 1


def test_unscaled_masks_for_training_and_scoring_are_cached_once(folder: Path, tmp_path: Path) -> None:
    source, index = open_native(folder, tmp_path)
    entries = native_entries(index, "mask", ImageSettings(fit="patch"), tmp_path)
    assert truth_entry(index, NATIVE, tmp_path).keys() < entries.keys()
    scaled = native_entries(index, "mask", ImageSettings(fit="patch", scale=0.5), tmp_path)
    assert not truth_entry(index, NATIVE, tmp_path).keys() & scaled.keys()
    arrays = native_images(source, index, "mask", ImageSettings(fit="patch"), cache=tmp_path)
    assert arrays.masks is not None
    np.testing.assert_array_equal(truth(source, index, NATIVE, tmp_path)[[1]][0], arrays.masks[1])
