"""Ids of pixels without a label (`ignore`): in arrays they are 255, and they are no class anywhere."""

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.augment_settings import AugmentSettings
from datasets.checks.contact import draw_contact
from datasets.checks.visible import classes_at
from datasets.errors import DataError
from datasets.loading.augment import Augmenter
from datasets.loading.prepare import prepared
from datasets.loading.truth import truth
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Pixels
from datasets.sources.common.tables import digest
from datasets.targets import fit_masks
from tests.support.folder import opened
from tests.support.pictures import picture, save

HEIGHT, WIDTH = 48, 64
NAMES = "organ\nlesion\n"


def mask(*, ignored: int = 255, foreground: bool = True) -> Pixels:
    """An organ with a lesion, and a border without a label."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    if foreground:
        pixels[10:40, 10:50] = 1
        pixels[20:30, 20:30] = 2
    pixels[:4] = ignored
    return pixels


def write(root: Path, *masks: Pixels, classes: str = NAMES) -> Path:
    for number, pixels in enumerate(masks):
        save(picture(number), root / "images" / f"{number}.png")
        save(pixels, root / "masks" / f"{number}.png")
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


@pytest.mark.parametrize("ignore", [7, [7], [255, 7, 7]])
@pytest.mark.parametrize("classes", [NAMES, ""])
def test_ignored_ids_are_255_in_arrays_and_not_a_class(tmp_path: Path, ignore: object, classes: str) -> None:
    wholly_ignored = np.full((HEIGHT, WIDTH), 7, np.uint8)
    root = write(tmp_path / "data", mask(ignored=7), mask(ignored=7, foreground=False), wholly_ignored, classes=classes)
    source, index = opened(root, ignore=ignore)
    assert index.classes == (("organ", "lesion") if classes else ("class_1", "class_2"))
    assert not any(index.fault(row) for row in range(3))
    assert [index.shows(row) for row in range(3)] == [frozenset(index.classes), frozenset(), frozenset()]
    for row, stored in enumerate((mask(), mask(foreground=False))):
        np.testing.assert_array_equal(source.masks(row), stored)
    assert [bool(digest) for digest in index.annotation_digests["masks"]] == [True, True, False]
    with pytest.raises(DataError, match="2 has no mask"):
        source.masks(2)


@pytest.mark.parametrize("value", [1, 255])
def test_one_class_beside_ignored_pixels_may_have_any_id(tmp_path: Path, value: int) -> None:
    pixels = mask(ignored=7, foreground=False)
    pixels[10:20] = value
    source, index = opened(write(tmp_path / "data", pixels, classes="organ\n"), ignore=7)
    assert index.classes == ("organ",)
    assert np.unique(source.masks(0)).tolist() == [0, 1, IGNORE]


def test_a_chosen_class_makes_the_others_background_and_keeps_ignored_pixels(tmp_path: Path) -> None:
    source, _ = opened(write(tmp_path / "data", mask()), ignore=255, classes=["lesion"])
    expected = np.where(mask() == 2, 1, np.where(mask() == 255, IGNORE, 0))
    np.testing.assert_array_equal(source.masks(0), expected)


def test_object_numbers_are_recognised_beside_ignored_pixels(tmp_path: Path) -> None:
    masks = []
    for objects in (3, 5, 1, 2):
        pixels = mask(foreground=False)
        for number in range(1, objects + 1):
            pixels[8 * number : 8 * number + 4] = number
        masks.append(pixels)
    with pytest.raises(DataError, match=r"numbers the objects of each image \(1 to 5\)"):
        opened(write(tmp_path / "data", *masks, classes=""), ignore=255)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_resizing_keeps_ignored_pixels_and_pads_with_background(tmp_path: Path, fit: str) -> None:
    source, index = opened(write(tmp_path / "data", mask(ignored=254)), ignore=[254, 255])
    image = ImageSettings.model_validate({"size": 32, "fit": fit})
    arrays = prepared(source, index, "mask", image, structure=None, cache=tmp_path / "cache")
    assert arrays.targets is not None
    expected = fit_masks(mask(), image)
    np.testing.assert_array_equal(arrays.targets[0], expected)
    assert (expected == IGNORE).sum() > 32
    if fit == "letterbox":
        assert not expected[:4].any()
    ids = truth(source, index, 40, tmp_path / "cache")[[0]][0]
    np.testing.assert_array_equal(ids, fit_masks(mask(), ImageSettings(size=40)))


def test_ignored_pixels_move_with_the_image() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[20:40, 10:30] = IGNORE
    settings = AugmentSettings(flip=0.5, rotate=30, scale=0.2, shift=0.1, crop=0.1, elastic=0.05)
    for epoch in range(10):
        _, moved = Augmenter(settings, "mask", (64, 64))(pixels[..., None], pixels, (3, epoch, 0))
        _, other = Augmenter(settings, "mask", (64, 64))(pixels[..., None], pixels // IGNORE, (3, epoch, 0))
        assert moved is not None
        assert other is not None
        np.testing.assert_array_equal(moved, other * np.uint8(IGNORE))


def test_digests_without_ignored_ids_are_unchanged_and_differ_with_them(tmp_path: Path) -> None:
    root = write(tmp_path / "data", mask(ignored=0))
    _, index = opened(root)
    content = blake2b((root / "masks" / "0.png").read_bytes(), digest_size=16).hexdigest()
    assert index.annotation_digests["masks"] == [digest([("organ", 1), ("lesion", 2)], [("", None, content)])]
    digests = {
        opened(root, ignore=ignore)[1].annotation_digests["masks"][0] for ignore in (254, 255, [254, 255], [255, 254])
    }
    assert len(digests - set(index.annotation_digests["masks"])) == 3


def test_ignored_pixels_are_not_visible_as_a_class(tmp_path: Path) -> None:
    source, index = opened(write(tmp_path / "data", mask(), mask(foreground=False)), ignore=255)
    visible = classes_at(source, index, ImageSettings(size=32), tmp_path / "cache")
    assert visible == [frozenset({"organ", "lesion"}), frozenset()]


def test_ignored_pixels_are_drawn_in_no_class(tmp_path: Path) -> None:
    sheets = []
    for ignored in (255, 0):
        root = write(tmp_path / str(ignored) / "data", mask(ignored=ignored), mask(ignored=ignored, foreground=False))
        draw_contact(*opened(root, ignore=255), [0, 1], root.parent / "sheet.png")
        sheets.append(np.asarray(Image.open(root.parent / "sheet.png")))
    assert (sheets[0] == sheets[1]).all()


def test_an_image_without_foreground_and_one_without_labels_are_distinguished(tmp_path: Path) -> None:
    ignored_mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    full = np.where(mask() == 255, 255, 1).astype(np.uint8)
    _, index = opened(write(tmp_path / "data", mask(), mask(foreground=False), ignored_mask, full), ignore=255)
    assert ["its masks are empty" in remark for remark in index.remarks] == [False, True, False, False]
    assert ["all pixels of its mask are ignored" in remark for remark in index.remarks] == [False, False, True, False]
    assert ["covers the whole image" in remark for remark in index.remarks] == [False, False, False, True]


def test_an_id_without_a_class_is_refused_with_the_remedy(tmp_path: Path) -> None:
    several = mask()
    several[5:8] = 7
    _, index = opened(write(tmp_path / "data", mask(), several, np.arange(WIDTH, dtype=np.uint8) + mask() * 0))
    assert "holds the class id 255; allowed: 0 (background) to 2; " in index.fault(0)
    assert "set `ignore: 255` where pixels of the id have no label" in index.fault(0)
    assert "holds the class ids 7, 255; " in index.fault(1)
    assert "set `ignore: [7, 255]`" in index.fault(1)
    assert "holds 61 ids of no class (59, 60, 61, 62, 63, ...)" in index.fault(2)
    assert "ignore" not in index.fault(2)
    _, index = opened(tmp_path / "data", ignore=255)
    assert not index.fault(0)
    assert "holds the class id 7; " in index.fault(1)


def test_255_beside_consecutive_ids_is_reported_if_classes_have_no_names(tmp_path: Path) -> None:
    root = write(tmp_path / "data", mask(), mask(ignored=0), classes="")
    _, index = opened(root)
    assert index.classes == ("class_1", "class_2", "class_255")
    assert "set `ignore: 255` if it is none" in index.remarks[0]
    assert not index.remarks[1]
    assert not any(opened(root, ignore=255)[1].remarks)
    steps = mask(ignored=255, foreground=False)
    steps[10:20], steps[20:30] = 85, 170
    assert not any(opened(write(tmp_path / "steps" / "data", steps, classes=""))[1].remarks)


def test_more_classes_than_masks_can_encode_are_refused(tmp_path: Path) -> None:
    names = "".join(f"class {number}\n" for number in range(1, 256))
    root = write(tmp_path / "data", mask(ignored=0), classes=names)
    with pytest.raises(DataError, match="has 255 classes; allowed: at most 254"):
        opened(root)
    (root / "classes.txt").write_text(names.removesuffix("class 255\n"))
    assert len(opened(root)[1].classes) == 254
