from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.decode import luma, read
from datasets.errors import DataError
from tests.data.pictures import picture, save, truncate


def test_alpha_is_dropped_without_blending(tmp_path: Path) -> None:
    rgba = np.dstack([picture(1), picture(2), picture(3), np.zeros((48, 64), np.uint8)])
    save(rgba, tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", "image"), rgba[..., :3])


def test_grey_and_alpha_is_grey(tmp_path: Path) -> None:
    save(np.dstack([picture(1), picture(2)]), tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", "image"), picture(1))


def test_sixteen_bit_is_scaled_from_its_own_range(tmp_path: Path) -> None:
    save(np.array([[1000, 2000], [3000, 5000]], np.uint16), tmp_path / "a.png")
    assert read(tmp_path / "a.png", "image").tolist() == [[0, 64], [128, 255]]


def test_a_palette_is_expanded_in_an_image_and_kept_in_ids(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 2], [1, 0]], np.uint8), mode=None).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 9])
    image.putdata([0, 2, 1, 0])
    image.save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", "ids").tolist() == [[0, 2], [1, 0]]
    assert read(tmp_path / "a.png", "image")[1, 0].tolist() == [255, 0, 0]
    assert read(tmp_path / "a.png", "foreground").tolist() == [[0, 1], [1, 0]]


def test_exif_orientation_is_respected(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(1), tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png", "image"), np.rot90(picture(1), -1))


def test_foreground_is_any_colour_above_zero_and_ignores_alpha(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 3], rgba[0, 1, 2] = 255, 1
    save(rgba, tmp_path / "a.png")
    assert read(tmp_path / "a.png", "foreground").tolist() == [[0, 1], [0, 0]]


def test_ids_written_as_grey_in_three_channels_are_read_and_colours_refused(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 1]], np.uint8)
    save(np.dstack([ids] * 3), tmp_path / "grey.png")
    save(np.dstack([ids, ids * 0, ids]), tmp_path / "colour.png")
    assert np.array_equal(read(tmp_path / "grey.png", "ids"), ids)
    with pytest.raises(DataError, match=r"colour\.png .*one class id"):
        read(tmp_path / "colour.png", "ids")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    save(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8), path)
    truncate(path)
    with pytest.raises(DataError, match=rf"cut\.{suffix} cannot be decoded .*; allowed: .*; "):
        read(path, "image")


def test_luma_weighs_colours_as_the_eye_does() -> None:
    assert luma(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[76, 150, 29]]
