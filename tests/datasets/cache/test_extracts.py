"""Extracts that indexing stores for preparation: kept within the budget, and ignored where they are unusable."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.cache import extracts, manifest
from datasets.cache.extracts import ExtractFolders, Extracts, ExtractWriter
from datasets.cache.manifest import Listing, extracts_of, read_manifest, scan
from datasets.decoding.decode import Kind
from datasets.settings import ImageSettings
from datasets.source import Pixels
from datasets.targets import fit_image
from tests.support.pictures import picture, save

FOLDERS: dict[str, Kind] = {"images": "image", "masks": "ids"}
SMALL, LARGE = ImageSettings(size=16), ImageSettings(size=32, channels=3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        save(picture(number), tmp_path / "data" / "images" / f"{number}.png")
        save(ids(number), tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def place(tmp_path: Path) -> ExtractFolders:
    return ExtractFolders(tmp_path / "cache", "key")


def ids(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 4, (30, 40 + seed), np.uint8)


def leave_masks(place: ExtractFolders, *numbers: int) -> None:
    writer = ExtractWriter(place, [])
    for number in numbers:
        writer.mask(f"{number}", ids(number))
    writer.flush()


def stored_numbers(place: ExtractFolders, count: int) -> list[int]:
    stored = Extracts(place)
    numbers = [number for number in range(count) if stored.mask(f"{number}") is not None]
    assert all(np.array_equal(_existing(stored.mask(f"{number}")), ids(number)) for number in numbers)
    return numbers


def read(root: Path, cache: Path, *fits: ImageSettings) -> tuple[Listing, Extracts]:
    listing = scan(root, FOLDERS)
    assert not any(read_manifest(listing, cache, fits=fits).fault)
    return listing, Extracts(extracts_of(listing, cache))


def _existing(pixels: Pixels | None) -> Pixels:
    assert pixels is not None
    return pixels


def test_extracts_equal_the_stored_masks(place: ExtractFolders) -> None:
    image, mask = picture(1, width=50, height=40), ids(1)
    writer = ExtractWriter(place, [SMALL, LARGE])
    writer.mask("m", mask)
    writer.image("i", image)
    assert Extracts(place).mask("m") is None
    writer.flush()
    stored = Extracts(place)
    assert np.array_equal(_existing(stored.mask("m")), mask)
    for settings in (SMALL, LARGE):
        pixels, shape = stored.image("i", settings) or (None, None)
        assert np.array_equal(_existing(pixels), fit_image(image, settings))
        assert shape == (40, 50)
    assert stored.mask("i") is None
    assert stored.image("m", SMALL) is None
    assert stored.image("i", ImageSettings(size=17)) is None
    assert Extracts(ExtractFolders(place.parent, "other")).mask("m") is None


def test_extracts_are_written_before_the_end_if_there_are_many(
    place: ExtractFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracts, "BATCH_BYTES", 1000)
    writer = ExtractWriter(place, [])
    for number in range(20):
        writer.mask(f"{number}", ids(number))
    assert len(list(place.parent.rglob("*.arrow"))) > 3
    writer.flush()
    assert stored_numbers(place, 20) == list(range(20))


def test_beyond_the_budget_no_extracts_are_written_or_kept(
    place: ExtractFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracts, "BUDGET_BYTES", 2000)
    leave_masks(place, *range(20))
    numbers = stored_numbers(place, 20)
    assert numbers == list(range(len(numbers)))
    assert 4 < len(numbers) < 12
    monkeypatch.setattr(extracts, "BUDGET_BYTES", 0)
    monkeypatch.setattr(extracts, "fit_image", lambda *_: pytest.fail("fitted in vain"))
    ExtractWriter(place, [SMALL]).image("i", picture(1))


def test_extracts_over_the_budget_after_changes_are_removed(
    place: ExtractFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_masks(place, *range(10))
    size = sum(file.stat().st_size for file in place.parent.rglob("*.arrow"))
    monkeypatch.setattr(extracts, "BUDGET_BYTES", 3 * size)
    leave_masks(place, 10)
    assert stored_numbers(place, 11) == list(range(11))
    monkeypatch.setattr(extracts, "BUDGET_BYTES", 2 * size)
    leave_masks(place, 11)
    assert stored_numbers(place, 12) == [11]


def test_extracts_use_a_small_share_of_the_disk(place: ExtractFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=8 * 2000))
    leave_masks(place, *range(20))
    assert 4 < len(stored_numbers(place, 20)) < 12


def test_an_unwritable_folder_does_not_stop_indexing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "prepared").write_text("a file, where a folder should be")
    listing, stored = read(root, tmp_path / "cache", SMALL)
    assert stored.mask(listing.state("masks/0.png")) is None


def test_a_full_disk_does_not_stop_indexing(place: ExtractFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = ExtractWriter(place, [])
    writer.mask("0", ids(0))
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr(extracts, "_save", full)
        writer.mask("1", ids(1))
        writer.flush()
    writer.mask("2", ids(2))
    writer.flush()
    assert stored_numbers(place, 3) == [0]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_extract_file_is_ignored(place: ExtractFolders, share: float) -> None:
    leave_masks(place, 0)
    (file,) = place.parent.rglob("*.arrow")
    os.truncate(file, int(file.stat().st_size * share))
    assert stored_numbers(place, 1) == []


def test_pixels_left_empty_by_a_crash_are_ignored(place: ExtractFolders) -> None:
    leave_masks(place, 0, 1)
    (file,) = place.parent.rglob("*.arrow")
    packed = extracts._compress("1", ids(1), ids(1)).pixels
    data = file.read_bytes()
    assert data.count(packed) == 1
    file.write_bytes(data.replace(packed, bytes(len(packed))))
    assert stored_numbers(place, 2) == [0]


def test_extracts_of_a_changed_file_are_ignored(root: Path, tmp_path: Path) -> None:
    read(root, tmp_path, SMALL)
    save(ids(7), root / "masks" / "0.png")
    changed = scan(root, FOLDERS)
    assert Extracts(extracts_of(changed, tmp_path)).mask(changed.state("masks/0.png")) is None
    listing, stored = read(root, tmp_path, SMALL)
    assert np.array_equal(_existing(stored.mask(listing.state("masks/0.png"))), ids(7))
    assert np.array_equal(_existing(stored.mask(listing.state("masks/1.png"))), ids(1))


def test_an_interrupted_indexing_keeps_its_extracts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "CHUNK", 2)

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_manifest(scan(root, FOLDERS), tmp_path, interrupt, fits=[SMALL])
    listing, stored = read(root, tmp_path, SMALL)
    assert all(stored.image(listing.state(f"images/{number}.png"), SMALL) for number in range(3))
    assert all(stored.mask(listing.state(f"masks/{number}.png")) is not None for number in range(3))


def test_extracts_removed_while_in_use_stay_readable(root: Path, tmp_path: Path) -> None:
    listing, stored = read(root, tmp_path, SMALL)
    assert stored.image(listing.state("images/0.png"), SMALL) is not None
    shutil.rmtree(tmp_path / "prepared")
    pixels, _ = stored.image(listing.state("images/1.png"), SMALL) or (None, None)
    assert np.array_equal(_existing(pixels), fit_image(picture(1), SMALL))
    assert Extracts(extracts_of(listing, tmp_path)).image(listing.state("images/1.png"), SMALL) is None
    stored.forget(SMALL)
    assert stored.image(listing.state("images/1.png"), SMALL) is None
