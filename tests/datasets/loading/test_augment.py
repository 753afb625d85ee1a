import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.augment_settings import AugmentSettings
from datasets.loading.augment import Augmenter
from datasets.loading.transforms import geometric
from datasets.source import IGNORE
from datasets.targets import Target

GEOMETRY = AugmentSettings(flip=0.5, rotate=30, scale=0.2, shift=0.1, shear=10)
ALL = AugmentSettings(
    flip=0.5, vertical_flip=0.5, quarter_turns=0.5, rotate=30, scale=0.2, shift=0.1, shear=5, crop=0.1, elastic=0.05,
    brightness=0.2, contrast=0.2, gamma=0.2, hue=0.1, saturation=0.3, blur=1, sharpness=1, low_resolution=2, noise=0.05,
    dropout=0.2,
)  # fmt: skip
"""Every transform of a single image."""
KEYS = [(3, epoch, row) for epoch in range(3) for row in range(8)]


def disc(x: float = 40, y: float = 70, radius: float = 12, size: int = 128) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] + 0.5
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).astype(np.uint8)


def noise(channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (128, 128, channels), dtype=np.uint8)


@pytest.mark.parametrize("key", KEYS)
def test_masks_move_with_the_image(key: tuple[int, int, int]) -> None:
    mask = 4 * disc() + 9 * disc(x=90, y=60)
    image = (mask * 25)[..., None]
    changed, moved = Augmenter(GEOMETRY, "mask", (128, 128))(image, mask, key)
    assert set(np.unique(moved)) <= {0, 4, 9}
    disagree = np.abs(changed[..., 0].astype(int) - moved.astype(int) * 25) > 120
    assert disagree.sum() < 0.1 * (moved > 0).sum()


@pytest.mark.parametrize("settings", [GEOMETRY, AugmentSettings(shift=0.001)], ids=["moved", "left where it is"])
@pytest.mark.parametrize("masks", [disc(), np.stack([disc(), disc(x=60)])], ids=["exclusive", "overlapping"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_masks_move_as_albumentations_moves_them(
    channels: int, masks: np.ndarray, settings: AugmentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [Augmenter(settings, "mask", (128, 128))(noise(channels), masks, key) for key in KEYS]
    monkeypatch.setattr(geometric, "_Affine", geometric.A.Affine)
    theirs = [Augmenter(settings, "mask", (128, 128))(noise(channels), masks, key) for key in KEYS]
    for own, other in zip(ours, theirs, strict=True):
        assert (own[0] == other[0]).all()
        assert (own[1] == other[1]).all()


def test_overlapping_masks_move_like_one_mask() -> None:
    planes = np.stack([disc(), disc(x=60), disc(y=40), disc(radius=30), disc(radius=5), disc(x=100)])
    for key in KEYS:
        _, together = Augmenter(GEOMETRY, "mask", (128, 128))(noise(), planes, key)
        assert together.shape == planes.shape
        alone = [Augmenter(GEOMETRY, "mask", (128, 128))(noise(), plane, key)[1] for plane in planes]
        assert (together == np.stack(alone)).all()


@pytest.mark.parametrize("key", KEYS)
def test_centres_stay_in_the_middle_of_what_they_mark(key: tuple[int, int, int]) -> None:
    centre = np.array([40 / 128, 70 / 128], dtype=np.float32)
    _, moved = Augmenter(GEOMETRY, "centre", (128, 128))(noise(), centre, key)
    _, mask = Augmenter(GEOMETRY, "mask", (128, 128))(noise(), disc(), key)
    pixels = (np.argwhere(mask) + 0.5).mean(axis=0)[::-1]
    np.testing.assert_allclose(moved * 128, pixels, atol=0.6)
    assert moved.dtype == np.float32


@pytest.mark.parametrize("key", KEYS)
def test_boxes_enclose_what_they_enclosed(key: tuple[int, int, int]) -> None:
    mask = np.zeros((128, 128), dtype=np.uint8)
    mask[50:70, 40:80] = 1
    box = np.array([40, 50, 40, 20], dtype=np.float32) / 128
    _, moved = Augmenter(GEOMETRY, "box", (128, 128))(noise(), box, key)
    _, mask = Augmenter(GEOMETRY, "mask", (128, 128))(noise(), mask, key)
    pixels = np.argwhere(mask)[:, ::-1]
    low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
    np.testing.assert_allclose(moved * 128, [*low, *(high - low)], atol=2.5)


def test_a_flip_mirrors_image_mask_centre_and_box() -> None:
    flip = AugmentSettings(flip=1.0)
    image, mask = noise(), disc()
    changed, moved = Augmenter(flip, "mask", (128, 128))(image, mask, (0, 0, 0))
    assert (changed == image[:, ::-1]).all()
    assert (moved == mask[:, ::-1]).all()
    _, centre = Augmenter(flip, "centre", (128, 128))(image, np.array([0.25, 0.5], dtype=np.float32), (0, 0, 0))
    np.testing.assert_allclose(centre, [0.75, 0.5], atol=1e-6)
    _, box = Augmenter(flip, "box", (128, 128))(image, np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32), (0, 0, 0))
    np.testing.assert_allclose(box, [0.6, 0.2, 0.3, 0.4], atol=1e-6)


def test_points_that_leave_the_image_are_clipped() -> None:
    shift = Augmenter(AugmentSettings(shift=0.9), "centre", (128, 128))
    corner = np.array([0.02, 0.98], dtype=np.float32)
    moved = np.array([shift(noise(), corner, key)[1] for key in KEYS])
    assert ((moved >= 0) & (moved <= 1)).all()
    assert (moved == 0).any()
    assert (moved == 1).any()


def test_labels_and_unknown_centres_stay() -> None:
    labels = np.array([1, np.nan, 0], dtype=np.float32)
    image, same = Augmenter(ALL, "labels", (128, 128))(noise(), labels, (0, 0, 0))
    assert same is labels
    assert (image != noise()).any()
    unknown = np.full(2, np.nan, dtype=np.float32)
    assert np.isnan(Augmenter(ALL, "centre", (128, 128))(noise(), unknown, (0, 0, 0))[1]).all()
    assert Augmenter(ALL, "image", (128, 128))(noise(), None, (0, 0, 0))[1] is None


def test_without_settings_nothing_is_changed_or_copied() -> None:
    augmenter = Augmenter(AugmentSettings(), "mask", (128, 128))
    image, mask = noise(), disc()
    changed, moved = augmenter(image, mask, (0, 0, 0))
    assert not augmenter.active
    assert changed is image
    assert moved is mask
    assert Augmenter(GEOMETRY, "mask", (128, 128)).active


def test_the_input_is_left_as_it_was() -> None:
    image, mask = noise(), disc()
    Augmenter(ALL, "mask", (128, 128))(image, mask, (0, 0, 1))
    assert (image == noise()).all()
    assert (mask == disc()).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_type_stay(channels: int) -> None:
    for key in KEYS:
        changed, _ = Augmenter(ALL, "image", (128, 128))(noise(channels), None, key)
        assert (changed.shape, changed.dtype) == ((128, 128, channels), np.uint8)


def test_grey_repeated_over_channels_stays_grey() -> None:
    changed, _ = Augmenter(ALL, "image", (128, 128))(np.repeat(noise(), 3, axis=2), None, (0, 0, 0))
    assert (changed == changed[..., :1]).all()


def test_targets_stay_where_only_pixels_change() -> None:
    pixels = AugmentSettings(brightness=0.2, noise=0.1)
    for target, kind in ((disc(), "mask"), (np.array([0.2, 0.3], dtype=np.float32), "centre")):
        changed, same = Augmenter(pixels, kind, (128, 128))(noise(), target, (0, 0, 0))
        assert same is target
        assert (changed != noise()).any()


def test_results_depend_on_the_key_and_not_on_the_order() -> None:
    first, second = Augmenter(ALL, "mask", (128, 128)), Augmenter(ALL, "mask", (128, 128))
    forward = {key: first(noise(), disc(), key) for key in KEYS}
    backward = {key: second(noise(), disc(), key) for key in reversed(KEYS)}
    for key in KEYS:
        assert (forward[key][0] == backward[key][0]).all()
        assert (forward[key][1] == backward[key][1]).all()
    assert len({image.tobytes() for image, _ in forward.values()}) == len(KEYS)


def test_results_are_the_same_in_another_process() -> None:
    code = (
        "import runpy, hashlib;"
        f"t = runpy.run_path({__file__!r});"
        "changed = t['Augmenter'](t['ALL'], 'image', (128, 128))(t['noise'](), None, (3, 1, 4))[0];"
        "print(hashlib.sha256(changed).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


def test_strengths_are_those_of_the_settings() -> None:
    grey = np.full((128, 128, 1), 128, dtype=np.uint8)
    noisy, _ = Augmenter(AugmentSettings(noise=0.1), "image", (128, 128))(grey, None, (0, 0, 0))
    assert noisy.std() == pytest.approx(25.5, rel=0.05)
    bright = [
        Augmenter(AugmentSettings(brightness=0.2), "image", (128, 128))(grey, None, key)[0].mean() for key in KEYS
    ]
    assert 128 * 0.6 < min(bright) < 115
    assert 141 < max(bright) < 128 + 0.2 * 255 + 1
    scaled = [Augmenter(AugmentSettings(scale=0.3), "mask", (128, 128))(grey, disc(64, 64), key)[1] for key in KEYS]
    assert all(abs(np.ptp(mask.any(axis=0).nonzero()) - np.ptp(mask.any(axis=1).nonzero())) <= 1 for mask in scaled)
    areas = [
        Augmenter(AugmentSettings(scale=0.2), "mask", (128, 128))(grey, disc(64, 64), key)[1].sum() for key in KEYS
    ]
    assert 0.8**2 * 0.9 < min(areas) / disc().sum() < 0.9
    assert 1.1 < max(areas) / disc().sum() < 1.2**2 * 1.1


@pytest.mark.parametrize("key", KEYS[:6])
def test_elastic_and_crop_move_masks_and_centres_with_the_image(key: tuple[int, int, int]) -> None:
    bent = AugmentSettings(elastic=0.05, crop=0.2)
    mask = disc(radius=7)  # a smaller one is all border
    changed, moved = Augmenter(bent, "mask", (128, 128))((mask * 250)[..., None], mask, key)
    _, centre = Augmenter(bent, "centre", (128, 128))(noise(), np.array([40 / 128, 70 / 128], np.float32), key)
    assert ((changed[..., 0] > 125) != (moved > 0)).sum() < 0.2 * moved.sum()
    np.testing.assert_allclose(centre * 128, (np.argwhere(moved) + 0.5).mean(axis=0)[::-1], atol=1.5)


@pytest.mark.parametrize("target", ["centre", "box"])
def test_elastic_loses_no_point_at_the_border(target: Target) -> None:
    augmenter = Augmenter(AugmentSettings(elastic=0.1), target, (128, 128))
    corner = np.array([0.0, 0.99] if target == "centre" else [0.0, 0.0, 1.0, 1.0], np.float32)
    moved = np.array([augmenter(noise(), corner, (0, 0, place))[1] for place in range(50)])
    assert np.abs(moved - corner).max() < 0.2


def test_elastic_moves_points_by_about_its_share_at_most() -> None:
    reach = 0.05
    marks = np.array([[x, y] for x in (0.25, 0.5, 0.75) for y in (0.25, 0.5, 0.75)], np.float32)
    augmenter = Augmenter(AugmentSettings(elastic=reach), "centre", (128, 128))
    moved = [augmenter(noise(), mark, key)[1] - mark for mark in marks for key in KEYS]
    assert 0.8 * reach < np.abs(moved).max() < 1.5 * reach
    np.testing.assert_allclose(3 * np.std(moved), reach, rtol=0.15)


def test_shear_slants_upright_lines() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[20:108, 62:66] = 1
    tilts = []
    for key in KEYS:
        _, moved = Augmenter(AugmentSettings(shear=20), "mask", (128, 128))(noise(), mask, key)
        rows, columns = np.nonzero(moved)
        tilts.append(np.degrees(np.arctan(np.polyfit(rows, columns, 1)[0])))
    assert 8 < np.abs(tilts).max() <= 22


def test_a_vertical_flip_mirrors_image_mask_centre_and_box() -> None:
    flip = AugmentSettings(vertical_flip=1.0)
    image, mask = noise(), disc()
    changed, moved = Augmenter(flip, "mask", (128, 128))(image, mask, (0, 0, 0))
    assert (changed == image[::-1]).all()
    assert (moved == mask[::-1]).all()
    _, centre = Augmenter(flip, "centre", (128, 128))(image, np.array([0.25, 0.1], dtype=np.float32), (0, 0, 0))
    np.testing.assert_allclose(centre, [0.25, 0.9], atol=1e-6)
    _, box = Augmenter(flip, "box", (128, 128))(image, np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32), (0, 0, 0))
    np.testing.assert_allclose(box, [0.1, 0.4, 0.3, 0.4], atol=1e-6)


MOVED = AugmentSettings(rotate=40, scale=0.3, shift=0.2, shear=10)


def in_the_middle_of_reflections(plane: np.ndarray) -> np.ndarray:
    """Surround a plane by itself reflected at its edges, without repeating the edge pixels."""
    return np.pad(plane, 127, mode="reflect")


@pytest.mark.parametrize("key", KEYS)
def test_reflected_borders_show_the_image_reflected_by_numpy(
    key: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = []
    original = geometric._Affine._moved

    def recorded(self: object, pixels: np.ndarray, matrix: np.ndarray, interpolation: int) -> np.ndarray:
        matrices.append(matrix)
        return original(self, pixels, matrix, interpolation)  # type: ignore[arg-type]

    monkeypatch.setattr(geometric._Affine, "_moved", recorded)
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (128, 128))  # 255: without a label
    reflect = MOVED.model_copy(update={"border": "reflect"})
    changed, moved = Augmenter(reflect, "mask", (128, 128))(noise(), mask, key)
    inverse = np.linalg.inv(matrices[0])
    columns, rows = np.meshgrid(np.arange(128), np.arange(128))
    x, y, _ = inverse @ np.stack([columns.ravel(), rows.ravel(), np.ones(128 * 128)])
    # Nearest neighbour: exact, except where a position falls between two pixels.
    between = (np.abs(x % 1 - 0.5) < 0.02) | (np.abs(y % 1 - 0.5) < 0.02)
    expected = in_the_middle_of_reflections(mask)[np.rint(y).astype(int) + 127, np.rint(x).astype(int) + 127]
    assert (moved.ravel() == expected)[~between].all()
    # Bilinear: OpenCV rounds positions to 1 / 32 of a pixel.
    wide = in_the_middle_of_reflections(noise()[..., 0]).astype(float)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - left, y - top
    corners = [wide[top + dy + 127, left + dx + 127] for dy in (0, 1) for dx in (0, 1)]
    weights = [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]
    bilinear = sum(weight * corner for weight, corner in zip(weights, corners, strict=True))
    np.testing.assert_allclose(changed[..., 0].ravel(), bilinear, atol=255 / 32 * 2)


def test_no_pixel_from_outside_is_left_with_reflected_borders() -> None:
    image, mask = np.full((128, 128, 1), 200, np.uint8), np.ones((128, 128), np.uint8)
    for settings in (MOVED, AugmentSettings(elastic=0.2)):
        reflect = settings.model_copy(update={"border": "reflect"})
        for key in KEYS:
            changed, moved = Augmenter(reflect, "mask", (128, 128))(image, mask, key)
            assert (changed == 200).all()
            assert (moved == 1).all()
        black = [Augmenter(settings, "mask", (128, 128))(image, mask, key) for key in KEYS]
        assert any((changed == 0).any() and (moved == 0).any() for changed, moved in black)


@pytest.mark.parametrize("target", ["centre", "box"])
@pytest.mark.parametrize("settings", [MOVED, AugmentSettings(elastic=0.1)], ids=["affine", "elastic"])
def test_points_do_not_depend_on_the_border(settings: AugmentSettings, target: Target) -> None:
    points = np.array([0.3, 0.4] if target == "centre" else [0.3, 0.4, 0.2, 0.1], np.float32)
    reflect = settings.model_copy(update={"border": "reflect"})
    for key in KEYS:
        _, constant = Augmenter(settings, target, (128, 128))(noise(), points, key)
        _, reflected = Augmenter(reflect, target, (128, 128))(noise(), points, key)
        assert (constant == reflected).all()


def test_a_range_of_crops_removes_at_least_its_low_end() -> None:
    """The distance between two marks grows by 1 / (1 - removed share)."""
    marks = [np.array([place, 0.5], np.float32) for place in (0.48, 0.52)]
    removed = []
    for place in range(200):
        augmenter = Augmenter(AugmentSettings(crop=(0.1, 0.4)), "centre", (128, 128))
        left, right = (augmenter(noise(), mark, (0, 0, place))[1][0] for mark in marks)
        if 0 < left < right < 1:  # both are inside
            removed.append(1 - 0.04 / (right - left))
    assert 0.08 < min(removed) < 0.15
    assert 0.36 < max(removed) < 0.42


def test_a_number_is_a_range_of_crops_from_zero() -> None:
    number, pair = (Augmenter(AugmentSettings(crop=crop), "mask", (128, 128)) for crop in (0.3, (0.0, 0.3)))
    for key in KEYS:
        for one, other in zip(number(noise(), disc(), key), pair(noise(), disc(), key), strict=True):
            assert (one == other).all()


def test_a_range_of_crops_starts_with_the_smaller_number() -> None:
    with pytest.raises(ValueError, match=r"crop is \[0.4, 0.1\]; allowed: .*; write crop: \[0.1, 0.4\]"):
        AugmentSettings(crop=(0.4, 0.1))


WIDE = (64, 160)
"""Height and width of an image that is not square."""


def wide_box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(WIDE, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


@pytest.mark.parametrize(
    "settings",
    [AugmentSettings(flip=0.5, vertical_flip=0.5, rotate=20, scale=0.2, shift=0.1, shear=8), AugmentSettings(crop=0.4),
     AugmentSettings(elastic=0.05)],
    ids=["moved", "cropped", "bent"],
)  # fmt: skip
def test_points_and_masks_of_wide_images_move_with_the_image(settings: AugmentSettings) -> None:
    mask = wide_box(20, 90, 14, 14)
    inside = 0
    for key in KEYS:
        changed, moved = Augmenter(settings, "mask", WIDE)((mask * 250)[..., None], mask, key)
        assert changed.shape == (*WIDE, 1)
        assert ((changed[..., 0] > 125) != (moved > 0)).sum() < 0.2 * mask.sum()
        centre = np.array([97 / WIDE[1], 27 / WIDE[0]], np.float32)
        _, point = Augmenter(settings, "centre", WIDE)(np.zeros((*WIDE, 1), np.uint8), centre, key)
        rows, columns = np.nonzero(moved)
        is_whole = len(rows) and rows.min() > 0 and rows.max() < WIDE[0] - 1
        if is_whole and columns.min() > 0 and columns.max() < WIDE[1] - 1:
            inside += 1
            middle = columns.mean() + 0.5, rows.mean() + 0.5
            np.testing.assert_allclose(point * WIDE[::-1], middle, atol=2.5)
    assert inside > len(KEYS) // 2


def test_crops_of_wide_images_keep_the_proportions() -> None:
    mask = wide_box(24, 72, 16, 16)
    for key in KEYS:
        _, moved = Augmenter(AugmentSettings(crop=(0.3, 0.3)), "mask", WIDE)(np.zeros((*WIDE, 1), np.uint8), mask, key)
        rows, columns = np.flatnonzero(moved.any(axis=1)), np.flatnonzero(moved.any(axis=0))
        if rows.max() < WIDE[0] - 1 and columns.max() < WIDE[1] - 1 and rows.min() and columns.min():
            assert abs(len(rows) - len(columns)) <= 2
            assert abs(len(rows) - 16 / 0.7) <= 2


@pytest.mark.parametrize("channels", [2, 5, 9])
def test_channels_move_together_and_keep_their_order(channels: int) -> None:
    settings = AugmentSettings(flip=0.5, rotate=30, scale=0.2, crop=0.2, elastic=0.05, border="reflect")
    image = noise(channels)
    for key in KEYS:
        changed, _ = Augmenter(settings, "image", (128, 128))(image, None, key)
        for number in range(channels):
            alone, _ = Augmenter(settings, "image", (128, 128))(image[..., number : number + 1], None, key)
            # OpenCV rounds the weights of interpolation differently for single channels.
            np.testing.assert_allclose(changed[..., number], alone[..., 0].astype(int), atol=8)


def test_brightness_contrast_gamma_and_noise_take_any_number_of_channels() -> None:
    settings = AugmentSettings(brightness=0.2, contrast=0.2, gamma=0.2, noise=0.05)
    image = np.full((128, 128, 6), 100, np.uint8)
    changed, _ = Augmenter(settings, "image", (128, 128))(image, None, (0, 0, 0))
    assert changed.shape == image.shape
    np.testing.assert_array_equal(changed, np.repeat(changed[..., :1], 6, axis=2))


def test_quadrilaterals_move_with_their_image_corner_by_corner_also_out_of_it() -> None:
    """Squares are drawn around the corners: a corner is the centre of its square in the augmented image."""
    settings = AugmentSettings(rotate=30, scale=0.2, shift=0.2, flip=0.5)
    corners = np.array([[[0.3, 0.3], [0.7, 0.35], [0.65, 0.6], [0.35, 0.7]], np.full((4, 2), np.nan)], np.float32)
    augmenter, whole = Augmenter(settings, "box", (128, 128)), 0
    for number in range(10):
        key = (0, 0, number)
        moved = augmenter(np.zeros((128, 128, 1), np.uint8), corners, key)[1]
        assert moved is not None
        assert np.isnan(moved[1]).all()
        for corner, place in zip(corners[0], moved[0], strict=True):
            image = np.zeros((128, 128, 1), np.uint8)
            column, row = (corner * 128 - 3).round().astype(int)
            image[row : row + 6, column : column + 6] = 255
            drawn, _ = augmenter(image, corners, key)
            rows, columns = np.nonzero(drawn[..., 0] > 100)
            if (place > 0.05).all() and (place < 0.95).all():
                whole += 1
                centre = np.array([columns.mean(), rows.mean()]) + 0.5
                np.testing.assert_allclose(place * 128, centre, atol=1.5)
    assert whole > 10
    beyond = AugmentSettings(shift=0.9)
    places = [Augmenter(beyond, "box", (128, 128))(noise(), corners, (0, 0, number))[1] for number in range(10)]
    assert any((place[0] < 0).any() or (place[0] > 1).any() for place in places if place is not None)


@pytest.mark.parametrize("settings", [GEOMETRY, ALL], ids=["affine", "all"])
@pytest.mark.parametrize("planes", [1, 3])
def test_what_is_moved_in_from_outside_of_the_image_is_not_annotated(settings: AugmentSettings, planes: int) -> None:
    """An image that is annotated in a corner: its border moves inside, and is as unknown as the rest."""
    scribbles = np.full((planes, 128, 128), IGNORE, np.uint8)
    scribbles[:, 40:60, 30:70] = 0
    scribbles[:, 50:55, 40:60] = 7
    scribbles = scribbles[0] if planes == 1 else scribbles
    augmenter = Augmenter(settings, "mask", (128, 128), outside=IGNORE)
    whole = Augmenter(settings, "mask", (128, 128))
    for key in KEYS:
        image, moved = augmenter(noise(), scribbles, key)
        other, visible = whole(noise(), np.where(scribbles == IGNORE, 0, scribbles + 1).astype(np.uint8), key)
        assert (image == other).all()
        np.testing.assert_array_equal(moved, np.where(visible == 0, IGNORE, visible - 1))
        assert set(np.unique(moved)) == {0, 7, IGNORE}
