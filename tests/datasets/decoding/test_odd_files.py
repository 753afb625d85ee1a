"""Image and mask files as written by uncommon software: read correctly, or refused with a remedy."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.decoding.decode import Kind, decode, examine, read
from datasets.errors import DataError
from tests.support.dicom import write_dicom
from tests.support.pictures import picture, save
from tests.support.rasters import palette, png, tiff

SHAPE = np.eye(8, dtype=np.uint8)
IDS = np.array([[0, 2, 5, 2]], np.uint8)
BLACK, WHITE, RED = [0] * 3, [255] * 3, [255, 0, 0]
VOC_LIKE = [*BLACK, *RED, 0, 255, 0, 128, 128, 128, *WHITE]
"""Colours by id, some of them grey."""


def greys(*levels: int) -> list[int]:
    return [level for level in levels for _ in range(3)]


def refused(path: Path, kind: Kind, reason: str) -> None:
    with pytest.raises(DataError, match=rf"{path.name} .*{reason}.*; allowed: .*; "):
        read(path, kind)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_colour_is_unchanged_for_any_orientation(orientation: int) -> None:
    values = np.dstack([picture(1), picture(2), picture(3)]).astype("<u2") * 250
    turned = examine(tiff(values, orientation=orientation), "image", "a.tif")
    assert np.array_equal(turned.pixels, decode(tiff(values), "image", "a.tif"))
    assert (f"EXIF orientation {orientation}" in turned.remark) == (orientation > 1)


@pytest.mark.parametrize("kind", ["image", "ids", "foreground"])
def test_16_bit_colour_in_separate_planes_is_refused(tmp_path: Path, kind: Kind) -> None:
    size = picture(1).size * 2
    offsets = tuple(8 + plane * size for plane in range(3))
    values = np.dstack([picture(1).astype("<u2")] * 3)
    (tmp_path / "a.tif").write_bytes(tiff(values, planar=2, offsets=offsets, counts=(size,) * 3))
    refused(tmp_path / "a.tif", kind, r"planar configuration 2")


@pytest.mark.parametrize("kind", ["image", "ids", "foreground"])
def test_a_smaller_copy_before_the_image_is_skipped(tmp_path: Path, kind: Kind) -> None:
    page, reduced = Image.fromarray(SHAPE), Image.fromarray(SHAPE[::2, ::2])
    reduced.save(tmp_path / "a.tif", tiffinfo={254: 1}, save_all=True, append_images=[page])
    page.save(tmp_path / "b.tif")
    page.encoderinfo = {"tiffinfo": {254: 0}}
    reduced.save(tmp_path / "a.tif", tiffinfo={254: 1}, save_all=True, append_images=[page])
    assert np.array_equal(read(tmp_path / "a.tif", kind), read(tmp_path / "b.tif", kind))


@pytest.mark.parametrize(("text", "number"), [("-3.4e+38", -3.4e38), ("0.1", 0.1), ("-9999", -9999.0)])
def test_missing_pixels_are_detected_if_their_value_is_written_as_text(
    tmp_path: Path, text: str, number: float
) -> None:
    values = np.array([[number, 10, 20], [30, 40, 60]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={42113: text})
    assert read(tmp_path / "a.tif", "image").tolist() == [[0, 0, 51], [102, 153, 255]]


@pytest.mark.parametrize("dtype", ["i1", "i2"])
def test_negative_values_are_not_background(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(-SHAPE.astype(f"<{dtype}")))
    refused(tmp_path / "a.tif", "foreground", "holds the number -1")
    refused(tmp_path / "a.tif", "ids", "holds the id -1")


@pytest.mark.parametrize("dtype", ["f8", "i8"])
def test_a_tiff_of_64_bits_is_distinguished_from_a_damaged_file(tmp_path: Path, dtype: str) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(SHAPE.astype(f"<{dtype}")))
    refused(tmp_path / "a.tif", "ids", "of a kind that is not read, such as 64 bits")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>", "no im"),
    ],
)
def test_files_that_are_not_images_are_distinguished(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "image", reason)


@pytest.mark.parametrize("levels", [(0, 2, 5), (5, 0, 2), (2, 5, 0)])
def test_a_palette_of_greys_gives_the_greys_in_any_order(tmp_path: Path, levels: tuple[int, ...]) -> None:
    place = {level: index for index, level in enumerate(levels)}
    indices = np.vectorize(place.__getitem__)(IDS)
    assert np.array_equal(read(palette(tmp_path / "a.png", indices, greys(*levels)), "ids"), IDS)


@pytest.mark.parametrize("used", [(0, 1, 2), (0, 3), (0, 4), (0,)])
def test_a_palette_with_colours_gives_indices_for_any_subset_of_colours(tmp_path: Path, used: tuple[int, ...]) -> None:
    indices = np.array([used] * 2)
    assert np.array_equal(read(palette(tmp_path / "a.png", indices, VOC_LIKE), "ids"), indices)


@pytest.mark.parametrize("colours", [[*WHITE, *BLACK], [*BLACK, *WHITE]])
def test_empty_and_full_masks_are_read_by_colour_like_other_masks(tmp_path: Path, colours: list[int]) -> None:
    for index in (0, 1):
        value = colours[3 * index]
        path = palette(tmp_path / f"{index}.png", np.full((4, 4), index), colours)
        assert np.unique(read(path, "ids")).tolist() == [value]
        assert np.unique(read(path, "foreground")).tolist() == [min(value, 1)]


@pytest.mark.parametrize("ids", [IDS, IDS[:, :2] * 3, IDS[:, ::2]])
def test_a_gif_keeps_grey_ids_although_its_encoder_renumbers_them(tmp_path: Path, ids: np.ndarray) -> None:
    save(ids, tmp_path / "a.gif")
    assert np.array_equal(read(tmp_path / "a.gif", "ids"), ids)


def test_ids_of_a_gif_with_colours_are_refused(tmp_path: Path) -> None:
    refused(palette(tmp_path / "a.gif", IDS, VOC_LIKE + RED), "ids", "is a GIF with colours")


@pytest.mark.parametrize("stroke", [BLACK, RED])
def test_colours_of_transparent_pixels_are_not_foreground(tmp_path: Path, stroke: list[int]) -> None:
    colour = np.where(SHAPE[..., None] > 0, np.array(stroke, np.uint8), np.uint8(255))
    save(np.dstack([colour, SHAPE * 255]), tmp_path / "a.png")
    for kind in ("ids", "foreground"):
        refused(tmp_path / "a.png", kind, "transparent pixels that are not black")  # type: ignore[arg-type]
    save(np.dstack([np.where(SHAPE[..., None] > 0, colour, 0), SHAPE * 255]), tmp_path / "b.png")
    if stroke != BLACK:
        assert np.array_equal(read(tmp_path / "b.png", "foreground"), SHAPE)


@pytest.mark.parametrize("kind", ["ids", "foreground"])
def test_an_empty_layer_is_an_empty_mask(tmp_path: Path, kind: Kind) -> None:
    save(np.dstack([SHAPE * 0 + 255] * 3 + [SHAPE * 0]), tmp_path / "a.png")
    assert not read(tmp_path / "a.png", kind).any()


def test_ids_with_16_bits_and_alpha_are_the_stored_values() -> None:
    samples = np.array([[0, 3, 255, 255, 0, 0, 255, 255]])
    assert decode(png(samples, depth=16, kind=4), "ids", "a.png").tolist() == [[3, 0]]


@pytest.mark.parametrize(
    ("levels", "soft"), [((0, 255), False), ((0, 1, 2, 3), False), ((0, 200, 255), False), ((0, 9, 255), True)]
)
def test_dark_greys_beside_white_cause_a_warning(tmp_path: Path, levels: tuple[int, ...], soft: bool) -> None:
    save(np.array([levels] * 2, np.uint8), tmp_path / "a.png")
    remark = examine((tmp_path / "a.png").read_bytes(), "foreground", "a.png").remark
    assert ("threshold it if they are soft edges" in remark) == soft


def test_colours_of_several_objects_cause_no_warning(tmp_path: Path) -> None:
    save(np.array([[RED, BLACK, [0, 90, 0]]], np.uint8), tmp_path / "a.png")
    assert examine((tmp_path / "a.png").read_bytes(), "foreground", "a.png").remark == ""


STORED = np.array([[0, 100, 200], [300, 400, 500]])
SHOWN = [[0, 51, 102], [153, 204, 255]]


def test_padding_stated_as_unsigned_is_recognised(tmp_path: Path) -> None:
    stored = STORED - 100
    stored[0, 0] = -2000
    path = write_dicom(tmp_path / "a.dcm", stored, bits=16, signed=True)
    plain = write_dicom(tmp_path / "b.dcm", stored, bits=16, signed=True, PixelPaddingValue=-2000)
    data = plain.read_bytes()
    assert data.count(b"\x28\x00\x20\x01SS") == 1
    path.write_bytes(data.replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US"))
    assert read(path, "image").tolist() == [[0, 0, 64], [128, 191, 255]]


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"RescaleSlope": "2", "RescaleIntercept": ""},
        {"WindowCenter": "", "WindowWidth": ""},
        {"PixelPaddingValue": None},
    ],
)
def test_empty_elements_change_nothing(tmp_path: Path, tags: dict[str, object]) -> None:
    assert read(write_dicom(tmp_path / "a.dcm", STORED, **tags), "image").tolist() == SHOWN


def test_bits_at_the_upper_end_are_refused_instead_of_truncated(tmp_path: Path) -> None:
    refused(write_dicom(tmp_path / "a.dcm", STORED << 4, bits=12, HighBit=15), "image", "the highest is bit 15")


def test_unused_bits_are_ignored(tmp_path: Path) -> None:
    overlay = STORED | np.array([[0x8000, 0, 0x8000], [0, 0x8000, 0]])
    path = write_dicom(tmp_path / "a.dcm", overlay, bits=16, BitsStored=12, HighBit=11)
    assert read(path, "image").tolist() == SHOWN
