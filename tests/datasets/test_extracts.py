"""What reading leaves for preparing: taken where it fits, and done without where it does not."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datasets import extracts, manifest
from datasets.decode import Kind
from datasets.extracts import Extracts, Writer, image_extract, mask_extract
from datasets.manifest import extracts_of, read_manifest, scan
from datasets.sample import Pixels
from datasets.settings import ImageSettings
from datasets.targets import fit_image
from tests.data.pictures import picture, save

FOLDERS: dict[str, Kind] = {"images": "image", "masks": "ids"}
SMALL, LARGE = ImageSettings(size=16), ImageSettings(size=32, channels=3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        save(picture(number), tmp_path / "data" / "images" / f"{number}.png")
        save(ids(number), tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path / "data"


def ids(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 4, (30, 40 + seed), np.uint8)


def test_extracts_are_what_was_given(tmp_path: Path) -> None:
    image, mask = picture(1, width=50, height=40), ids(1)
    writer = Writer(tmp_path, [SMALL, LARGE])
    for extract in (mask_extract("m", mask), image_extract("i", image, SMALL), image_extract("i", image, LARGE)):
        writer.add(extract)
    assert Extracts(tmp_path).mask("m") is None
    writer.flush()
    found = Extracts(tmp_path)
    assert np.array_equal(_there(found.mask("m")), mask)
    for settings in (SMALL, LARGE):
        pixels, shape = found.image("i", settings) or (None, None)
        assert np.array_equal(_there(pixels), fit_image(image, settings))
        assert shape == (40, 50)
    assert found.mask("i") is None
    assert found.image("m", SMALL) is None
    assert found.image("i", ImageSettings(size=17)) is None


def _there(pixels: Pixels | None) -> Pixels:
    assert pixels is not None
    return pixels


def test_many_are_written_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extracts, "BATCH_BYTES", 1000)
    writer = Writer(tmp_path, [])
    for number in range(20):
        writer.add(mask_extract(f"{number}", ids(number)))
    assert len(list(tmp_path.rglob("*.arrow"))) > 3
    writer.flush()
    found = Extracts(tmp_path)
    assert all(np.array_equal(_there(found.mask(f"{number}")), ids(number)) for number in range(20))


def test_what_is_beyond_the_budget_is_left_out_also_over_several_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracts, "BUDGET_BYTES", 4000)
    for start in (0, 10):
        writer = Writer(tmp_path, [])
        for number in range(start, start + 10):
            writer.add(mask_extract(f"{number}", ids(number)))
        writer.flush()
    found = Extracts(tmp_path)
    held = [found.mask(f"{number}") is not None for number in range(20)]
    assert held[0]
    assert not held[9]
    assert not any(held[10:])


def test_a_small_share_of_the_disk_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 8 * 4000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    writer = Writer(tmp_path / "not" / "there", [])
    for number in range(20):
        writer.add(mask_extract(f"{number}", ids(number)))
    writer.flush()
    assert 3000 < sum(file.stat().st_size for file in tmp_path.rglob("*.arrow")) < 8000


def test_a_place_that_takes_nothing_ends_no_reading(root: Path, tmp_path: Path) -> None:
    listing = scan(root, FOLDERS)
    place = extracts_of(listing, tmp_path)
    place.parent.mkdir()
    place.write_text("a file, where a folder should be")
    assert read_manifest(listing, tmp_path, fits=[SMALL]).fault == [""] * 6
    assert Extracts(place).mask(listing.state("masks/0.png")) is None


def test_a_file_that_a_crash_cut_off_is_done_without(tmp_path: Path) -> None:
    writer = Writer(tmp_path, [])
    writer.add(mask_extract("m", ids(0)))
    writer.flush()
    (file,) = tmp_path.rglob("*.arrow")
    os.truncate(file, file.stat().st_size // 2)
    assert Extracts(tmp_path).mask("m") is None


def test_a_file_that_changed_has_none_of_before(root: Path, tmp_path: Path) -> None:
    before = scan(root, FOLDERS)
    read_manifest(before, tmp_path, fits=[SMALL])
    save(ids(7), root / "masks" / "0.png")
    listing = scan(root, FOLDERS)
    assert Extracts(extracts_of(listing, tmp_path)).mask(listing.state("masks/0.png")) is None
    read_manifest(listing, tmp_path, fits=[SMALL])
    found = Extracts(extracts_of(listing, tmp_path))
    assert np.array_equal(_there(found.mask(listing.state("masks/0.png"))), ids(7))
    assert np.array_equal(_there(found.mask(listing.state("masks/1.png"))), ids(1))


def test_images_fitted_for_what_nobody_ran_go_when_files_are_read_again(root: Path, tmp_path: Path) -> None:
    read_manifest(scan(root, FOLDERS), tmp_path, fits=[SMALL])
    save(picture(9), root / "images" / "9.png")
    listing = scan(root, FOLDERS)
    read_manifest(listing, tmp_path, fits=[LARGE])
    found = Extracts(extracts_of(listing, tmp_path))
    assert found.image(listing.state("images/0.png"), SMALL) is None
    assert found.image(listing.state("images/9.png"), LARGE) is not None


def test_an_interrupted_reading_leaves_what_it_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "CHUNK", 2)

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_manifest(scan(root, FOLDERS), tmp_path, interrupt, fits=[SMALL])
    listing = scan(root, FOLDERS)
    read_manifest(listing, tmp_path, fits=[SMALL])
    found = Extracts(extracts_of(listing, tmp_path))
    assert all(found.image(listing.state(f"images/{number}.png"), SMALL) for number in range(3))
    assert all(found.mask(listing.state(f"masks/{number}.png")) is not None for number in range(3))


def test_what_another_process_removed_is_decoded_again(root: Path, tmp_path: Path) -> None:
    listing = scan(root, FOLDERS)
    read_manifest(listing, tmp_path, fits=[SMALL])
    found = Extracts(extracts_of(listing, tmp_path))
    shutil.rmtree(tmp_path / "extracts")
    assert found.image(listing.state("images/0.png"), SMALL) is None
    found.forget(SMALL)
