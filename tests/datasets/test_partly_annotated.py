"""Overlapping classes that are annotated in some images or pixels: 255 in arrays, neither present nor absent."""

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from datasets.augment_settings import AugmentSettings
from datasets.checks.classes import class_images, class_images_text
from datasets.checks.contact import draw_contact
from datasets.checks.visible import classes_at
from datasets.errors import DataError
from datasets.loading.augment import Augmenter
from datasets.loading.balance import class_pixels
from datasets.loading.examples import WholeImages
from datasets.loading.mixing import MixedExamples
from datasets.loading.native import native_images
from datasets.loading.patches import Window, cut
from datasets.loading.prepare import prepared
from datasets.loading.truth import truth
from datasets.settings import NATIVE, ImageSettings
from datasets.source import IGNORE, Pixels
from datasets.sources import FolderSettings
from datasets.sources.common.tables import digest
from datasets.targets import fit_masks
from tests.support.folder import opened
from tests.support.pictures import picture, save
from tests.support.volumes import write_stack

HEIGHT, WIDTH = 48, 64
ALL = frozenset({"liver", "spleen"})


def plane(*, inside: int = 255, ignored: int | None = None, foreground: bool = True) -> Pixels:
    """A mask of one class: a rectangle, and rows at the top that are not annotated."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    if foreground:
        pixels[10:30, 10:40] = inside
    if ignored is not None:
        pixels[:4] = ignored
    return pixels


def write(root: Path, **masks: dict[int, Pixels]) -> Path:
    """Write four images, and the masks of each class by the number of their image."""
    for number in range(4):
        save(picture(number), root / "images" / f"{number}.png")
    for name, planes in masks.items():
        for number, pixels in planes.items():
            save(pixels, root / "masks" / name / f"{number}.png")
    return root


def partial(root: Path) -> Path:
    """Image 0 has masks of both classes, 1 of liver, 2 an empty one of spleen, 3 none."""
    return write(root, liver={0: plane(), 1: plane()}, spleen={0: plane(), 2: plane(foreground=False)})


def test_a_missing_mask_is_absent_or_not_annotated(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    source, index = opened(root)
    assert index.annotated == ()
    assert [index.annotates(row) for row in range(4)] == [ALL, ALL, ALL, frozenset()]
    assert not source.masks(1)[1].any()
    source, index = opened(root, missing="not_annotated")
    assert [index.annotates(row) for row in range(4)] == [ALL, {"liver"}, {"spleen"}, frozenset()]
    assert list(index.annotated) == ["3", "1", "2", ""]
    assert [index.shows(row) for row in range(4)] == [ALL, {"liver"}, frozenset(), frozenset()]
    assert (source.masks(1)[1] == IGNORE).all()
    assert (source.masks(2)[0] == IGNORE).all()
    assert not source.masks(2)[1].any()
    assert np.array_equal(source.masks(0), np.stack([plane(inside=1)] * 2))


def test_only_rows_with_a_missing_mask_have_another_digest(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    absent, unknown = (opened(root, missing=kind)[1] for kind in ("absent", "not_annotated"))
    assert vars(opened(root)[1]) == vars(absent)
    before, after = absent.annotation_digests["masks"], unknown.annotation_digests["masks"]
    assert [first == second for first, second in zip(before, after, strict=True)] == [True, False, False, True]


def test_the_digest_of_masks_of_all_classes_depends_on_classes_and_contents_alone(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    contents = [
        (name, None, blake2b((root / "masks" / name / "0.png").read_bytes(), digest_size=16).hexdigest())
        for name in ("liver", "spleen")
    ]
    for missing in ("absent", "not_annotated"):
        masks_digest = opened(root, missing=missing)[1].annotation_digests["masks"][0]
        assert masks_digest == digest([("liver", None), ("spleen", None)], contents)


def test_an_image_without_annotation_of_the_chosen_classes_is_not_labelled(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    _, index = opened(root, classes=["spleen"])
    assert [bool(digest) for digest in index.annotation_digests["masks"]] == [True, True, True, False]
    source, index = opened(root, classes=["spleen"], missing="not_annotated")
    assert [bool(digest) for digest in index.annotation_digests["masks"]] == [True, False, True, False]
    assert index.annotated == ()
    assert [index.annotates(row) for row in range(4)] == [{"spleen"}, frozenset(), {"spleen"}, frozenset()]
    with pytest.raises(DataError, match="1 has no mask"):
        source.masks(1)


def test_ignored_values_of_a_class_are_not_annotated(tmp_path: Path) -> None:
    ignored_mask = np.full((HEIGHT, WIDTH), 7, np.uint8)
    root = write(
        tmp_path / "data",
        liver={0: plane(inside=200, ignored=7), 1: plane(inside=1)},
        spleen={0: ignored_mask, 1: plane()},
    )
    source, index = opened(root, ignore=7)
    assert not any(index.fault(row) for row in range(4))
    assert [index.annotates(row) for row in range(2)] == [{"liver"}, ALL]
    assert [index.shows(row) for row in range(2)] == [{"liver"}, ALL]
    expected = plane(inside=1, ignored=IGNORE)
    assert np.array_equal(source.masks(0), np.stack([expected, np.full_like(ignored_mask, IGNORE)]))
    assert np.array_equal(source.masks(1), np.stack([plane(inside=1)] * 2))
    others = {opened(root, ignore=value)[1].annotation_digests["masks"][1] for value in (7, 8)}
    assert len(others - set(opened(root)[1].annotation_digests["masks"])) == 2


def test_an_ignored_value_that_is_the_only_one_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data", liver={0: plane()}, spleen={1: plane()})
    with pytest.raises(DataError, match="ignore is 255, and the masks hold no other value above 0; allowed: another"):
        opened(root, ignore=255)


def test_missing_classes_of_masks_of_ids_are_refused(tmp_path: Path) -> None:
    save(picture(0), tmp_path / "data" / "images" / "0.png")
    save(plane(inside=1), tmp_path / "data" / "masks" / "0.png")
    with pytest.raises(DataError, match="missing is not_annotated, without masks/<class>/; allowed: with masks/"):
        opened(tmp_path / "data", missing="not_annotated")
    with pytest.raises(ValidationError, match="missing"):
        FolderSettings.model_validate({"root": tmp_path, "missing": "unknown"})


def test_a_folder_with_only_an_ignored_value_is_refused_beside_other_classes(tmp_path: Path) -> None:
    root = write(tmp_path / "data", liver={0: plane(inside=1)}, spleen={1: plane()})
    with pytest.raises(DataError, match="masks/spleen: ignore is 255, and the masks hold no other value above 0"):
        opened(root, ignore=255)


def test_a_class_without_any_mask_is_not_annotated(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    (root / "classes.txt").write_text("liver\nspleen\nkidney\n")
    source, index = opened(root)
    assert index.unused_classes == ("kidney",)
    assert [index.annotates(row) for row in range(4)] == [ALL, ALL, ALL, frozenset()]
    assert not source.masks(1)[1].any()
    assert (source.masks(1)[2] == IGNORE).all()


def test_images_whose_masks_are_fully_ignored_are_not_labelled(tmp_path: Path) -> None:
    ignored = np.full((HEIGHT, WIDTH), 7, np.uint8)
    overlapping = write(tmp_path / "data", liver={0: plane(), 1: ignored}, spleen={0: plane(), 1: ignored, 2: ignored})
    exclusive = tmp_path / "exclusive"
    for number, mask in enumerate((plane(inside=1, ignored=7), ignored)):
        save(picture(number), exclusive / "images" / f"{number}.png")
        save(mask, exclusive / "masks" / f"{number}.png")
    for root, labelled in ((overlapping, [True, False, True, False]), (exclusive, [True, False])):
        source, index = opened(root, ignore=7)
        assert [bool(digest) for digest in index.annotation_digests["masks"]] == labelled
        assert [bool(bits) for bits in index.shown] == labelled
        assert not index.annotates(1)
        with pytest.raises(DataError, match="1 has no mask"):
            source.masks(1)


def test_a_volume_with_an_annotated_pixel_is_labelled_in_all_slices(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_stack(root / "images" / "ct.tif", np.stack([picture(number) for number in range(3)]))
    ignored = np.full((HEIGHT, WIDTH), 9, np.uint8)
    write_stack(root / "masks" / "ct.tif", np.stack([ignored, plane(inside=1), ignored]))
    source, index = opened(root, ignore=9)
    assert all(index.annotation_digests["masks"])  # its shapes are measured in all slices
    assert (source.masks(0) == IGNORE).all()


def test_slices_of_volumes_are_annotated_individually(tmp_path: Path) -> None:
    root = tmp_path / "data"
    stack = np.stack([picture(number) for number in range(3)])
    write_stack(root / "images" / "ct.tif", stack)
    liver = np.stack([plane(inside=1), np.full((HEIGHT, WIDTH), 9, np.uint8), plane(foreground=False)])
    write_stack(root / "masks" / "liver" / "ct.tif", liver)
    write_stack(root / "masks" / "spleen" / "ct.tif", np.stack([plane(inside=1)] * 3))
    source, index = opened(root, ignore=9)
    assert [index.annotates(row) for row in range(3)] == [ALL, {"spleen"}, ALL]
    assert (source.masks(1)[0] == IGNORE).all()


def test_images_are_counted_for_each_class(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    assert class_images(opened(root)[1]) == []
    index = opened(root, missing="not_annotated")[1]
    assert [(part.name, part.annotated, part.present) for part in class_images(index)] == [
        ("liver", 2, 2), ("spleen", 2, 1),
    ]  # fmt: skip
    assert class_images_text(index) == "liver 2 (present in 2); spleen 2 (present in 1)"


def masks() -> Pixels:
    """Three classes: annotated, partly annotated, not annotated."""
    return np.stack([plane(inside=1), plane(inside=1, ignored=IGNORE), np.full((HEIGHT, WIDTH), IGNORE, np.uint8)])


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_resizing_keeps_unannotated_pixels_and_pads_other_classes_with_background(fit: str) -> None:
    image = ImageSettings.model_validate({"size": 32, "fit": fit})
    fitted = fit_masks(masks(), image)
    assert (fitted[2] == IGNORE).all()
    for number in range(2):
        of_class = fit_masks(np.where(masks()[number] == IGNORE, 2, masks()[number]), image)
        assert np.array_equal(fitted[number], np.where(of_class == 2, IGNORE, of_class))
    if fit == "letterbox":
        assert not fitted[:2, :4].any()


SETTINGS = [
    AugmentSettings(flip=0.5, vertical_flip=0.5, quarter_turns=0.5),
    AugmentSettings(rotate=30, scale=0.3, shift=0.2, shear=10),
    AugmentSettings(rotate=30, shift=0.2, border="reflect"),
    AugmentSettings(rotate=30, crop=0.2),
    AugmentSettings(rotate=30, shift=0.3, elastic=0.05),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_augmentation_moves_unannotated_pixels_like_those_of_a_class(settings: AugmentSettings) -> None:
    square = np.pad(masks(), ((0, 0), (0, WIDTH - HEIGHT), (0, 0)))
    square[2] = IGNORE
    image = picture(0, height=WIDTH)[..., None]
    augmenter, moved_in = Augmenter(settings, "mask", (WIDTH, WIDTH)), False
    for epoch in range(10):
        _, moved = augmenter(image, square, (3, epoch, 0))
        _, ones = augmenter(image, np.minimum(square, 1), (3, epoch, 0))
        _, ignored = augmenter(image, (square == IGNORE).astype(np.uint8), (3, epoch, 0))
        assert moved is not None
        assert ones is not None
        assert ignored is not None
        assert (moved[2] == IGNORE).all()
        assert np.array_equal(moved[:2], np.where(ignored[:2] == 1, IGNORE, ones[:2]))
        moved_in |= bool((ones[2] == 0).any())
    assert moved_in == (settings.border == "constant" and settings.rotate > 0)


def test_patches_of_an_unannotated_class_are_unannotated_beyond_the_border() -> None:
    assert (cut(masks()[2:], Window(30, 50), (32, 32), axis=1) == IGNORE).all()


def test_unannotated_pixels_are_neither_objects_nor_foreground(tmp_path: Path) -> None:
    stack = np.stack([masks(), masks()])
    stack[1, 0] = 0
    images = np.stack([np.zeros((HEIGHT, WIDTH, 1), np.uint8), np.ones((HEIGHT, WIDTH, 1), np.uint8)])
    mixed = MixedExamples(WholeImages(images, stack, range(2)), cutmix=0.0, copy_paste=1.0)
    for epoch in range(20):
        drawn, mixed_masks = mixed.draw(np.arange(2), (0, epoch))
        assert mixed_masks is not None
        pasted = drawn[0, ..., 0] == 1
        assert np.array_equal(pasted, pasted & (masks()[1] == 1))
        assert np.array_equal(mixed_masks[0], np.where(pasted, stack[1], stack[0]))
    root = write(tmp_path / "data", liver={0: plane(inside=1, ignored=IGNORE)}, spleen={0: masks()[2]})
    source, index = opened(root, ignore=255)
    image = ImageSettings(size=32, fit="patch")
    arrays = native_images(source, index, "mask", image, cache=tmp_path / "cache")
    assert arrays.foreground is not None
    points = arrays.foreground[0]
    assert len(points) > 0
    assert (plane(inside=1)[points[:, 0], points[:, 1]] == 1).all()


def test_numbers_of_pixels_are_scaled_to_all_pixels() -> None:
    half = masks()
    half[1, :, : WIDTH // 2] = IGNORE
    pixels = class_pixels(lambda row: half, [0, 0], ("liver", "spleen", "kidney"), exclusive=False)
    annotated, present = int((half[1] != IGNORE).sum()), int((half[1] == 1).sum())
    assert pixels == {
        "liver": 2 * 20 * 30, "spleen": round(2 * present * HEIGHT * WIDTH / annotated), "kidney": 0,
    }  # fmt: skip


def test_caches_keep_unannotated_pixels_and_differ_from_those_of_absent_classes(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    for missing, value in (("absent", 0), ("not_annotated", IGNORE), ("absent", 0)):
        source, index = opened(root, missing=missing)
        image = ImageSettings(size=32, fit="letterbox")
        arrays = prepared(source, index, "mask", image, structure=None, cache=tmp_path / "cache")
        assert arrays.targets is not None
        assert (arrays.targets[1, 1] == value).all()
        for size in (40, NATIVE):
            assert (truth(source, index, size, tmp_path / "cache")[[1]][0, 1] == value).all()  # type: ignore[arg-type]


def test_only_foreground_is_visible_as_a_class_and_drawn(tmp_path: Path) -> None:
    root = partial(tmp_path / "data")
    source, index = opened(root, missing="not_annotated")
    visible = classes_at(source, index, ImageSettings(size=32), tmp_path / "cache")
    assert visible == [ALL, {"liver"}, frozenset(), frozenset()]
    sheets = []
    for missing in ("absent", "not_annotated"):
        draw_contact(*opened(root, missing=missing), [0, 1, 2], tmp_path / "sheet.png")
        sheets.append(np.asarray(Image.open(tmp_path / "sheet.png")))
    assert np.array_equal(*sheets)
