from typing import get_args

import numpy as np
import pytest
from PIL import Image

from datasets.errors import DataError
from datasets.settings import ImageSettings
from datasets.source import Box, Index
from datasets.targets import (
    Fit,
    Target,
    annotation_kind_of,
    box_masks,
    box_target,
    centre_target,
    chosen_structure,
    fit_image,
    fit_masks,
    names,
    scaled_image,
    target_layout,
)

STRETCH = Fit(height=100, width=200, shape=(64, 64), fit="stretch")
LETTERBOX = Fit(height=100, width=200, shape=(64, 64), fit="letterbox")


def an_index(*, overlapping: bool = False, structures: tuple[str, ...] = ("disc", "fovea")) -> Index:
    unknown = ["x"]
    return Index(
        ids=unknown,
        patients=unknown,
        categories=unknown,
        official=[""],
        content=unknown,
        thumbnails=unknown,
        faults=[""],
        annotation_digests={"masks": unknown, "boxes": unknown, "centres": unknown, "labels": unknown},
        classes=("lung", "opacity"),
        overlapping=overlapping,
        labels=("cough", "fever", "rash"),
        structures=structures,
    )


def a_box(x: float, y: float, width: float, height: float, name: str = "disc") -> Box:
    return Box(name=name, x=x, y=y, width=width, height=height)


@pytest.mark.parametrize("shape", [(100, 200), (300, 77), (64, 64), (5, 1000)])
@pytest.mark.parametrize("kind", ["stretch", "letterbox"])
@pytest.mark.parametrize("input_shape", [(64, 64), (32, 96), (96, 32)])
def test_corners_of_the_image_map_to_the_corners_of_its_input_region(
    shape: tuple[int, int], input_shape: tuple[int, int], kind: str
) -> None:
    fit = Fit(height=shape[0], width=shape[1], shape=input_shape, fit=kind)
    top, left, height, width = fit.inner
    assert top >= 0
    assert left >= 0
    assert top + height <= input_shape[0]
    assert left + width <= input_shape[1]
    corners = fit.to_input(np.array([[0, 0], [shape[1], shape[0]]])) * input_shape[::-1]
    np.testing.assert_allclose(corners, [[left, top], [left + width, top + height]], atol=1e-9)


def test_a_letterbox_keeps_the_aspect_and_centres_the_image() -> None:
    assert LETTERBOX.inner == (16, 0, 32, 64)
    np.testing.assert_allclose(LETTERBOX.to_input(np.array([[0, 0], [200, 100]])), [[0, 0.25], [1, 0.75]])
    assert STRETCH.inner == (0, 0, 64, 64)


def test_the_crop_of_a_letterbox_is_the_image_without_borders() -> None:
    image = np.full((100, 200), 255, dtype=np.uint8)
    square = fit_image(image, ImageSettings(size=64, fit="letterbox"))[..., 0]
    assert (LETTERBOX.crop(square) == 255).all()
    assert square.sum() == 255 * 32 * 64
    stacked = np.stack([square, square])
    assert LETTERBOX.crop(stacked).shape == (2, 32, 64)


def test_shrinking_averages_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 128), dtype=np.uint8)
    blocks = image.reshape(32, 2, 32, 4).mean(axis=(1, 3))
    fitted = fit_image(image, ImageSettings(size=32))[..., 0]
    assert np.abs(fitted - blocks).max() <= 0.51


def test_enlarging_is_linear() -> None:
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    fitted = fit_image(ramp, ImageSettings(size=32))[..., 0]
    expected = np.clip(((np.arange(32) + 0.5) / 2 - 0.5) * 10, 0, 150)
    assert np.abs(fitted[8] - expected).max() <= 0.51


def test_channels_are_luma_or_repeated_grey() -> None:
    colour = np.zeros((20, 20, 3), dtype=np.uint8)
    colour[:] = (200, 100, 50)
    grey = fit_image(colour, ImageSettings(size=16, channels=1))
    assert grey.shape == (16, 16, 1)
    assert set(np.unique(grey)) == {round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)}
    assert (fit_image(colour, ImageSettings(size=16, channels=3)) == (200, 100, 50)).all()
    plain = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    repeated = fit_image(plain, ImageSettings(size=16, channels=3))
    assert (repeated == fit_image(plain, ImageSettings(size=16))).all()


@pytest.mark.parametrize("shape", [(97, 131), (300, 200), (20, 30)])
def test_masks_are_resized_as_by_pillow(shape: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(0, 9, shape, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(ids).resize((64, 64), Image.Resampling.NEAREST))
    assert (fit_masks(ids, ImageSettings(size=64)) == expected).all()


def test_overlapping_masks_keep_their_classes_in_a_letterbox() -> None:
    masks = np.zeros((3, 100, 200), dtype=np.uint8)
    masks[1, :, :100] = 1
    masks[2] = 1
    fitted = fit_masks(masks, ImageSettings(size=64, fit="letterbox"))
    assert fitted.shape == (3, 64, 64)
    assert [int(plane.sum()) for plane in fitted] == [0, 32 * 32, 32 * 64]
    assert (LETTERBOX.crop(fitted)[1, :, :32] == 1).all()


def test_a_centre_is_relative_to_the_square() -> None:
    centres = {"disc": (50.0, 25.0)}
    assert centre_target(centres, "disc", STRETCH).tolist() == [0.25, 0.25]
    assert centre_target(centres, "disc", LETTERBOX).tolist() == [0.25, 0.375]
    assert np.isnan(centre_target(centres, "fovea", STRETCH)).all()


def test_a_box_is_its_corner_and_size_relative_to_the_square() -> None:
    boxes = [a_box(50, 25, 100, 50), a_box(0, 0, 9, 9, "fovea")]
    assert box_target(boxes, "disc", STRETCH).tolist() == [0.25, 0.25, 0.5, 0.5]
    assert box_target(boxes, "disc", LETTERBOX).tolist() == [0.25, 0.375, 0.5, 0.25]
    assert np.isnan(box_target(boxes, "cup", STRETCH)).all()


def test_boxes_of_one_structure_are_enclosed_and_clipped_at_the_edge() -> None:
    boxes = [a_box(20, 10, 20, 10), a_box(160, 80, 100, 100)]
    np.testing.assert_allclose(box_target(boxes, "disc", STRETCH), [0.1, 0.1, 0.9, 0.9], rtol=1e-6)


def test_box_masks_fill_each_structure_with_the_union_of_its_boxes() -> None:
    boxes = (a_box(0, 0, 100, 50), a_box(50, 0, 100, 50), a_box(100, 50, 100, 50, "fovea"))
    filled = box_masks(boxes, ("disc", "fovea"), STRETCH)
    expected = np.zeros((2, 64, 64), dtype=np.uint8)
    expected[0, :32, :48] = 1
    expected[1, 32:, 32:] = 1
    assert (filled == expected).all()


def test_box_masks_fill_pixels_with_their_centre_inside() -> None:
    fit = Fit(height=8, width=8, shape=(8, 8), fit="stretch")
    filled = box_masks([a_box(1.4, 1.6, 2.0, 2.0)], ("disc",), fit)
    assert np.argwhere(filled[0]).min(axis=0).tolist() == [2, 1]
    assert np.argwhere(filled[0]).max(axis=0).tolist() == [3, 2]


@pytest.mark.parametrize("box", [a_box(10, 10, 0.1, 0.1), a_box(199.9, 99.9, 5, 5), a_box(0, 0, 0, 0)])
def test_the_smallest_box_fills_one_pixel(box: Box) -> None:
    assert box_masks([box], ("disc",), STRETCH).sum() == 1


def test_every_target_has_an_offer_names_and_a_layout() -> None:
    index = an_index()
    offers = {target: annotation_kind_of(target) for target in get_args(Target)}
    assert offers["image"] is None
    assert set(filter(None, offers.values())) == set(index.annotation_digests)
    assert names(index, "labels") == ("cough", "fever", "rash")
    assert names(index, "mask") == ("lung", "opacity")
    assert names(index, "box_mask") == ("disc", "fovea")
    assert target_layout(index, "labels", (32, 32)) == ((3,), np.float32)
    assert target_layout(index, "centre", (32, 32)) == ((2,), np.float32)
    assert target_layout(index, "box", (32, 32)) == ((4,), np.float32)
    assert target_layout(index, "mask", (32, 32)) == ((32, 32), np.uint8)
    assert target_layout(an_index(overlapping=True), "mask", (32, 32)) == ((2, 32, 32), np.uint8)
    assert target_layout(index, "box_mask", (32, 32)) == ((2, 32, 32), np.uint8)


def test_a_structure_must_be_named_among_several() -> None:
    assert chosen_structure(an_index(), "centre", "fovea") == "fovea"
    assert chosen_structure(an_index(structures=("disc",)), "box", None) == "disc"
    assert chosen_structure(an_index(), "mask", None) == ""
    for structure in (None, "cup"):
        with pytest.raises(DataError, match=f"structure is {structure}; allowed: disc, fovea; "):
            chosen_structure(an_index(), "centre", structure)


@pytest.mark.parametrize(
    ("image", "inner"),
    [
        ((100, 200), (0, 16, 32, 64)),  # as wide as half of the input, which is three times as wide as high
        ((100, 400), (4, 0, 24, 96)),
        ((50, 150), (0, 0, 32, 96)),
    ],
)
def test_a_letterbox_touches_the_limiting_side_of_a_rectangle(
    image: tuple[int, int], inner: tuple[int, int, int, int]
) -> None:
    assert Fit(height=image[0], width=image[1], shape=(32, 96), fit="letterbox").inner == inner


def test_a_point_of_the_image_shows_the_same_pixel_in_a_rectangular_input() -> None:
    pixels, mask = np.zeros((60, 90), np.uint8), np.zeros((60, 90), np.uint8)
    pixels[12:18, 60:66], mask[12:18, 60:66] = 250, 1
    settings = ImageSettings(size=(48, 144), fit="letterbox")
    fit = Fit.of(settings, 60, 90)
    x, y = fit.to_input(np.array([63.0, 15.0])) * (144, 48)
    assert fit_image(pixels, settings)[int(y), int(x), 0] > 200
    assert fit_masks(mask, settings)[int(y), int(x)] == 1
    (box,) = box_masks([Box(name="disc", x=60, y=12, width=6, height=6)], ["disc"], fit)
    np.testing.assert_array_equal(box, fit_masks(mask, settings))


def test_equal_height_and_width_are_a_square() -> None:
    assert ImageSettings(size=(64, 64)) == ImageSettings(size=64)
    assert ImageSettings(size=(64, 64)).shape == (64, 64)
    assert ImageSettings(size=(32, 64)).shape == (32, 64)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_each_channel_is_resized_as_an_individual_image(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, channels), dtype=np.uint8)
    prepare = {"normalise": True, "gamma": 0.5, "equalise": {"tiles": 2}}
    fitted = fit_image(pixels, ImageSettings(size=(32, 16), channels=channels, prepare=prepare))
    assert fitted.shape == (32, 16, channels)
    for number in range(channels):
        alone = fit_image(pixels[..., number], ImageSettings(size=(32, 16), prepare=prepare))
        np.testing.assert_array_equal(fitted[..., number], alone[..., 0])


@pytest.mark.parametrize(("channels_of_image", "channels"), [(4, 3), (4, 1), (1, 4), (3, 4), (2, 1)])
def test_other_numbers_of_channels_are_not_converted(channels_of_image: int, channels: int) -> None:
    pixels = np.zeros((40, 30, channels_of_image), np.uint8) if channels_of_image > 1 else np.zeros((40, 30), np.uint8)
    allowed = "1 or 3" if channels < 4 else channels
    for fit in (fit_image, scaled_image):
        with pytest.raises(
            DataError, match=f"has {channels_of_image} channels?; allowed: {allowed}, as image.channels is"
        ):
            fit(pixels, ImageSettings(size=32, channels=channels))
