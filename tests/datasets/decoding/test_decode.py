from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.decoding.decode import Kind, decode, examine, luma, read
from datasets.errors import DataError
from tests.support.pictures import picture, save, truncate
from tests.support.rasters import palette, png, tiff


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_does_not_change_the_pixels(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(picture(1), tmp_path / f"turned.{suffix}", exif=exif)
    save(picture(1), tmp_path / f"plain.{suffix}")
    turned = examine((tmp_path / f"turned.{suffix}").read_bytes(), "image", "turned")
    assert np.array_equal(turned.pixels, read(tmp_path / f"plain.{suffix}", "image"))
    assert (f"EXIF orientation {orientation}" in turned.remark) == (orientation > 1)


RAMP = np.array([[0, 1, 2, 3], [100, 200, 300, 400]])


def test_12_bits_in_16_bit_colour_are_scaled_over_their_range(tmp_path: Path) -> None:
    values = np.dstack([RAMP, RAMP * 2, RAMP * 10]).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    assert cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1])
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read(tmp_path / name, "image"), np.rint(values / 4000 * 255))


def test_16_bit_grey_with_alpha_keeps_its_bits() -> None:
    values = np.array([[0, 0, 255, 255, 0, 200, 255, 255]])
    assert decode(png(values, depth=16, kind=4), "image", "a.png")[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_images_where_zero_is_white_are_inverted(dtype: str) -> None:
    values = (RAMP // 2).astype(f"<{dtype}")
    plain = decode(tiff(values), "image", "a.tif")
    inverted = decode(tiff((values.max() - values).astype(f"<{dtype}"), photometric=0), "image", "a.tif")
    if dtype == "u1":  # 8 bits are unchanged
        inverted = inverted - (255 - int(values.max()))
    assert np.array_equal(plain, inverted)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u4", "f4"])
def test_negative_and_32_bit_values_keep_their_order(dtype: str) -> None:
    kind = np.dtype(f"<{dtype}")
    low, high = (0.0, 1e30) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    values = np.linspace(low, high, 6).astype(kind).reshape(2, 3)
    assert decode(tiff(values), "image", "a.tif").ravel().tolist() == pytest.approx([0, 51, 102, 153, 204, 255], abs=1)


def test_values_that_are_not_finite_are_excluded_from_the_range_and_are_black() -> None:
    values = np.array([[np.nan, np.inf, 1], [2, 3, -np.inf]], "<f4")
    assert decode(tiff(values), "image", "a.tif").tolist() == [[0, 0, 0], [128, 255, 0]]


def test_a_colour_map_of_8_bits_is_not_black() -> None:
    colours = tuple(np.concatenate([np.arange(256), np.arange(256)[::-1], np.zeros(256, int)]).tolist())
    image = decode(tiff(np.array([[0, 255]], np.uint8), photometric=3, colours=colours), "image", "a.tif")
    assert image.tolist() == [[[0, 255, 0], [255, 0, 0]]]


@pytest.mark.parametrize("kind", ["image", "ids", "foreground"])
def test_several_pages_are_refused_and_a_smaller_copy_does_not_count_as_a_page(tmp_path: Path, kind: Kind) -> None:
    page = Image.fromarray(np.eye(4, dtype=np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    page.save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(np.zeros((4, 4), np.uint8))])
    for name, pages in (("a.tif", 3), ("a.gif", 2)):
        with pytest.raises(DataError, match=rf"{name} .*has {pages} pages or frames"):
            read(tmp_path / name, kind)
    reduced = page.resize((2, 2))
    reduced.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "b.tif", save_all=True, append_images=[reduced])
    assert read(tmp_path / "b.tif", kind).shape == (4, 4)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "webp"])
def test_bmp_gif_and_lossless_webp_are_read_as_images_and_masks(tmp_path: Path, suffix: str) -> None:
    mask = np.eye(8, dtype=np.uint8)
    save(mask * 255, tmp_path / f"a.{suffix}", lossless=True)
    assert np.array_equal(read(tmp_path / f"a.{suffix}", "foreground"), mask)
    assert read(tmp_path / f"a.{suffix}", "image").max() == 255
    assert np.unique(read(tmp_path / f"a.{suffix}", "ids")).tolist() == [0, 255]


def test_lossless_webp_is_detected_by_its_chunks(tmp_path: Path) -> None:
    profile = bytes(range(256)) * 4
    save(np.eye(8, dtype=np.uint8) * 255, tmp_path / "a.webp", lossless=True, icc_profile=profile)
    assert np.array_equal(read(tmp_path / "a.webp", "foreground"), np.eye(8))
    save(picture(1), tmp_path / "b.webp", quality=50, icc_profile=b"VP8L" * 9)
    with pytest.raises(DataError, match="changes numbers"):
        read(tmp_path / "b.webp", "foreground")


def test_a_mask_with_lossy_compression_is_refused(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "a.webp", quality=50)
    save(picture(1), tmp_path / "a.jpg")
    save(picture(1), tmp_path / "a.tif", compression="jpeg")
    for name in ("a.webp", "a.jpg", "a.tif"):
        with pytest.raises(DataError, match=rf"{name} is compressed in a way that changes numbers"):
            read(tmp_path / name, "foreground")


@pytest.mark.parametrize(("depth", "packed", "ids"), [(1, 0b01101000, [0, 1, 1, 0]), (2, 0b00011011, [0, 1, 2, 3])])
def test_ids_of_few_bits_are_the_stored_values(depth: int, packed: int, ids: list[int]) -> None:
    data = png(np.array([[packed]]), depth=depth)
    assert decode(data, "ids", "a.png")[0, :4].tolist() == ids


def test_ids_of_four_bits_are_the_stored_values() -> None:
    assert decode(png(np.array([[0x07, 0x3F]]), depth=4), "ids", "a.png").tolist() == [[0, 7, 3, 15]]


def test_masks_of_16_bit_colour_keep_small_values(tmp_path: Path) -> None:
    mask = np.eye(4, dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.png"), np.dstack([mask] * 3))
    assert np.array_equal(read(tmp_path / "a.png", "ids"), mask)
    assert np.array_equal(read(tmp_path / "a.png", "foreground"), mask)


def test_soft_masks_are_refused_and_whole_floats_read() -> None:
    whole_numbers = np.array([[0, 1], [2, 0]], "<f4")
    assert decode(tiff(whole_numbers), "ids", "a.tif").tolist() == [[0, 1], [2, 0]]
    assert decode(tiff(whole_numbers), "foreground", "a.tif").tolist() == [[0, 1], [1, 0]]
    for values in (whole_numbers / 4, np.where(whole_numbers == 2, np.nan, whole_numbers).astype("<f4")):
        for kind in ("ids", "foreground"):
            with pytest.raises(DataError, match=r"holds the number (0\.25|nan); allowed: whole numbers"):
                decode(tiff(values), kind, "a.tif")  # type: ignore[arg-type]


def test_a_mask_where_zero_is_white_is_refused() -> None:
    for kind in ("ids", "foreground"):
        with pytest.raises(DataError, match="0 is white"):
            decode(tiff(np.eye(4, dtype=np.uint8), photometric=0), kind, "a.tif")  # type: ignore[arg-type]


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("kind", ["ids", "foreground"])
def test_a_shape_in_the_alpha_channel_alone_is_the_mask(tmp_path: Path, colour: int, kind: Kind) -> None:
    shape = np.eye(4, dtype=np.uint8)
    save(np.dstack([np.full((4, 4, 3), colour, np.uint8), shape * 255]), tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", kind), shape)


def test_a_black_and_white_palette_is_read_by_colour_in_either_order(tmp_path: Path) -> None:
    shape = np.eye(4, dtype=np.uint8)
    for name, indices, colours in (("w", 1 - shape, [255] * 3 + [0] * 3), ("b", shape, [0] * 3 + [255] * 3)):
        path = palette(tmp_path / f"{name}.png", indices, colours)
        assert np.array_equal(read(path, "foreground"), shape)
        assert np.array_equal(read(path, "ids"), shape * 255)


def test_ids_with_a_palette_whose_black_is_not_0_are_refused(tmp_path: Path) -> None:
    path = palette(tmp_path / "a.png", np.array([[0, 1], [2, 0]]), [255, 255, 255, 0, 0, 0, 255, 0, 0])
    with pytest.raises(DataError, match="what is background is unclear"):
        read(path, "ids")


def test_foreground_is_any_colour_above_zero_and_constant_alpha_is_ignored(tmp_path: Path) -> None:
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
def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    save(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8), path)
    truncate(path)
    with pytest.raises(DataError, match=rf"cut\.{suffix} cannot be decoded .*; allowed: .*; "):
        read(path, "image")


def test_luma_has_the_standard_weights_of_the_colours() -> None:
    assert luma(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist() == [[76, 150, 29]]
