"""Weak labels as training reads them, from a data set or derived from masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.loading.prepare import prepared
from datasets.loading.weak_labels import WeakLabels, WeakLabelSpec, weak_labels
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Index, Pixels, Source
from datasets.sources import FolderSettings, open_source
from datasets.sources.phantom.source import PhantomSettings, PhantomSource
from datasets.splits.weak_rows import WeakName, weak_rows
from datasets.targets import Fit
from tests.support.pictures import save
from tests.support.volumes import write_ct_folder

CLASSES = ("right_lung", "heart", "opacity")
IMAGES = 6


def opened(cache: Path, classes: tuple[str, ...] = CLASSES) -> tuple[Source, Index]:
    source = PhantomSource(PhantomSettings(images=IMAGES, patients=IMAGES, size=96, classes=classes))
    return source, source.index(cache)


def labels(name: WeakName, image: ImageSettings, cache: Path, *, seed: int = 0, derived: bool = False) -> WeakLabels:
    """Return the weak labels of all images; derived ones are those of a data set without any of its own."""
    source, index = opened(cache)
    if derived:
        kept = {kind: digests for kind, digests in index.annotation_digests.items() if kind == "masks"}
        index = Index(**{**vars(index), "annotation_digests": kept})
    shapes = prepared(*opened(cache), "mask", image, structure=None, cache=cache).shapes
    spec = WeakLabelSpec(name=name, seed=seed, image=image, radius=1.0)
    return weak_labels(source, index, range(IMAGES), spec, shapes=shapes, cache=cache)


def masks_of(image: ImageSettings, cache: Path) -> Pixels:
    targets = prepared(*opened(cache), "mask", image, structure=None, cache=cache).targets
    assert targets is not None
    return targets


IMAGE_SETTINGS = [ImageSettings(size=48), ImageSettings(size=(64, 96), fit="letterbox")]


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("image", IMAGE_SETTINGS)
def test_scribbles_have_the_values_of_masks(image: ImageSettings, derived: bool, tmp_path: Path) -> None:
    scribbles, masks = labels("scribble", image, tmp_path, derived=derived).masks, masks_of(image, tmp_path)
    assert scribbles is not None
    drawn = scribbles != IGNORE
    assert 0 < drawn.mean() < 0.2
    assert np.mean(scribbles[drawn] == masks[drawn]) >= (1 if derived else 0.9)  # thin ones cover whole pixels
    fit = Fit.of(image, 96, 96)
    assert fit.crop(drawn).sum() == drawn.sum()


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("image", IMAGE_SETTINGS)
def test_points_lie_in_their_classes_which_are_present(image: ImageSettings, derived: bool, tmp_path: Path) -> None:
    read, masks = labels("points", image, tmp_path, derived=derived), masks_of(image, tmp_path)
    assert read.masks is not None
    assert read.present is not None
    drawn = read.masks != IGNORE
    assert 0 < drawn.mean() < 0.02
    assert np.mean(read.masks[drawn] == masks[drawn]) > (0.98 if derived else 0.9)
    shown = (masks == 1).any(axis=(2, 3))
    np.testing.assert_array_equal(read.present, np.where(shown, 1, np.nan))


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize("image", [ImageSettings(size=96), ImageSettings(size=(96, 128), fit="letterbox")])
def test_boxes_enclose_their_classes(image: ImageSettings, derived: bool, tmp_path: Path) -> None:
    read, masks = labels("box", image, tmp_path, derived=derived), masks_of(image, tmp_path)
    assert read.boxes is not None
    assert read.box_classes is not None
    assert read.present is not None
    np.testing.assert_array_equal(read.present, (masks == 1).any(axis=(2, 3)))
    height, width = image.shape
    for row, number in np.argwhere(read.present == 1):
        known = ~np.isnan(read.boxes[row, :, 0, 0]) & (read.box_classes[row] == number)
        corners = read.boxes[row][known].reshape(-1, 2) * [width, height]
        rows, columns = np.nonzero(masks[row, number])
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose([*corners.min(axis=0), *corners.max(axis=0)], found, atol=1e-3)


def test_a_split_seed_gives_other_derived_labels_and_the_same_own_ones(tmp_path: Path) -> None:
    for derived in (False, True):
        first, again, other = (
            labels("points", IMAGE_SETTINGS[0], tmp_path, seed=seed, derived=derived).masks for seed in (1, 1, 2)
        )
        assert first is not None
        assert other is not None
        np.testing.assert_array_equal(first, again)
        assert np.array_equal(first, other) != derived


def test_labels_with_the_names_of_classes_are_their_presence(tmp_path: Path) -> None:
    source, index = opened(tmp_path, classes=("opacity", "tube"))
    image = ImageSettings(size=48)
    spec = WeakLabelSpec(name="class", seed=0, image=image)
    shapes = np.full((IMAGES, 2), 96, np.int32)
    read = weak_labels(source, index, range(IMAGES), spec, shapes=shapes, cache=tmp_path)
    assert read.masks is None
    assert read.present is not None
    named = [index.labels.index(name) for name in index.classes]
    np.testing.assert_array_equal(read.present, np.stack([source.labels(row)[named] for row in range(IMAGES)]))


SIDE = 40


def folder(root: Path, masks: dict[str, Pixels], **tables: str) -> Path:
    """Write images of `SIDE` pixels, the masks that are given, and tables."""
    for name, mask in masks.items():
        save(np.random.default_rng(len(name)).integers(0, 255, (SIDE, SIDE)).astype(np.uint8), root / "images" / name)
        if mask.size:
            save(mask, root / "masks" / name)
    (root / "classes.txt").write_text("lung\nheart\n")
    for name, content in tables.items():
        (root / f"{name}.csv").write_text(content)
    return root


def of_folder(root: Path, name: WeakName, image: ImageSettings | None = None, **settings: object) -> dict[str, Any]:
    """Return the weak labels of a folder by the name of the image."""
    source = open_source(FolderSettings.model_validate({"root": root, **settings}))
    index = source.index(root.parent / "cache")
    shapes = np.full((len(index), 2), SIDE, np.int32)
    spec = WeakLabelSpec(name=name, seed=0, image=image or ImageSettings(size=SIDE), radius=3.0)
    read = weak_labels(source, index, range(len(index)), spec, shapes=shapes, cache=root.parent / "cache")
    return {
        image: {
            "masks": None if read.masks is None else read.masks[row],
            "present": None if read.present is None else read.present[row].tolist(),
            "boxes": None if read.boxes is None else boxes_of(read, row),
        }
        for row, image in enumerate(index.ids)
    }


def boxes_of(read: WeakLabels, row: int) -> list[tuple[float, ...]]:
    """Return class, left, top, right and bottom of the boxes of an image in pixels."""
    assert read.boxes is not None
    assert read.box_classes is not None
    return [
        (int(number), *(corners[0] * SIDE).round(3).tolist(), *(corners[2] * SIDE).round(3).tolist())
        for corners, number in zip(read.boxes[row], read.box_classes[row], strict=True)
        if not np.isnan(corners).any()
    ]


def ids(*regions: tuple[slice, slice, int]) -> Pixels:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for rows, columns, value in regions:
        mask[rows, columns] = value
    return mask


NOTHING = np.zeros((0, 0), np.uint8)
LUNG, HEART = (slice(4, 14), slice(4, 20), 1), (slice(20, 30), slice(8, 12), 2)


def test_an_added_image_changes_no_derived_labels(tmp_path: Path) -> None:
    masks = {"b.png": ids(LUNG, HEART), "c.png": ids(HEART)}
    for name in ("scribble", "points"):
        before = of_folder(folder(tmp_path / name / "before", masks), name)
        after = of_folder(folder(tmp_path / name / "after", {"a.png": ids(LUNG), **masks}), name)
        for image in ("b", "c"):
            np.testing.assert_array_equal(before[image]["masks"], after[image]["masks"])


@pytest.mark.parametrize("name", ["class", "box"])
def test_classes_are_unknown_that_may_lie_in_pixels_without_annotation(name: WeakName, tmp_path: Path) -> None:
    """An unknown region beside the lung of the first image; nothing unknown in the second."""
    masks = {"a.png": ids(LUNG, (slice(14, 18), slice(4, 20), 255), HEART), "b.png": ids(LUNG)}
    read = of_folder(folder(tmp_path / "data", masks), name, ignore=[255])
    assert read["b"]["present"] == [1, 0]
    if name == "class":
        assert read["a"]["present"] == [1, 1]
        return
    np.testing.assert_array_equal(read["a"]["present"], [np.nan, np.nan])
    assert read["a"]["boxes"] == [(1, 8, 20, 12, 30)]
    assert read["b"]["boxes"] == [(0, 4, 4, 20, 14)]


def test_absent_classes_are_unknown_if_pixels_are_not_annotated(tmp_path: Path) -> None:
    masks = {"a.png": ids(LUNG, (slice(35, 40), slice(30, 40), 255)), "b.png": ids(HEART)}
    read = of_folder(folder(tmp_path / "data", masks), "class", ignore=[255])
    np.testing.assert_array_equal(read["a"]["present"], [1, np.nan])


def test_boxes_of_a_part_of_the_classes_do_not_replace_a_mask(tmp_path: Path) -> None:
    """The boxes of a are those of one class of its mask; b has no mask; c has boxes of both classes."""
    masks = {"a.png": ids(LUNG, HEART), "b.png": NOTHING, "c.png": ids(LUNG, HEART)}
    lines = ["a,1,1,5,5,lung", "b,1,2,5,5,heart", "c,0,0,9,9,lung", "c,-0.5,30,41,8,heart"]
    boxes = "\n".join(["image,x,y,width,height,label", *lines]) + "\n"
    read = of_folder(folder(tmp_path / "data", masks, boxes=boxes), "box")
    assert read["a"] == {"masks": None, "present": [1, 1], "boxes": [(0, 4, 4, 20, 14), (1, 8, 20, 12, 30)]}
    np.testing.assert_array_equal(read["b"]["present"], [np.nan, 1])
    assert read["b"]["boxes"] == [(1, 1, 2, 6, 7)]
    assert read["c"]["boxes"] == [(0, 0, 0, 9, 9), (1, 0, 30, 40, 38)]  # clipped to the image


def test_scribbles_of_a_part_of_the_classes_do_not_replace_a_mask(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", {"a.png": ids(LUNG, HEART), "b.png": ids(LUNG)})
    drawn = np.full((SIDE, SIDE), IGNORE, np.uint8)
    drawn[6, 5:15], drawn[35, 5:15] = 1, 0
    for name in ("a", "b"):
        save(drawn, root / "scribbles" / f"{name}.png")
    read = of_folder(root, "scribble")
    assert set(np.unique(read["a"]["masks"])) == {0, 1, 2, IGNORE}
    np.testing.assert_array_equal(read["b"]["masks"], drawn)


def test_scribbles_without_strokes_or_background_do_not_replace_a_mask(tmp_path: Path) -> None:
    masks = {"a.png": ids(LUNG), "b.png": ids(), "c.png": NOTHING, "d.png": NOTHING, "e.png": ids(LUNG)}
    root = folder(tmp_path / "data", masks)
    drawn = np.full((5, SIDE, SIDE), IGNORE, np.uint8)
    drawn[(0, 3, 4), 6, 5:15], drawn[4, 30, 5:9] = 1, 0
    for name, scribbles in zip("abcde", drawn, strict=True):
        save(scribbles, root / "scribbles" / f"{name}.png")
    read = of_folder(root, "scribble")
    assert set(np.unique(read["a"]["masks"])) == {0, 1, IGNORE}
    assert set(np.unique(read["b"]["masks"])) == {0, IGNORE}
    source = open_source(FolderSettings(root=root))
    rows = weak_rows(source.index(root.parent / "cache"), range(5), "scribble")
    assert (rows.own, rows.derived) == ((3, 4), (0, 1))
    for name, scribbles in (("d", drawn[3]), ("e", drawn[4])):
        np.testing.assert_array_equal(read[name]["masks"], scribbles)


def test_labels_without_a_value_do_not_replace_a_mask(tmp_path: Path) -> None:
    masks = {"a.png": ids(LUNG), "b.png": NOTHING, "c.png": ids(HEART)}
    labels = "image,lung,heart,other\na,,,1\nb,0,,1\nc,1,1,0\n"
    read = of_folder(folder(tmp_path / "data", masks, labels=labels), "class")
    assert read["a"]["present"] == [1, 0]
    np.testing.assert_array_equal(read["b"]["present"], [0, np.nan])
    assert read["c"]["present"] == [1, 1]  # its own labels


def test_discs_of_narrow_structures_lie_in_them_but_for_their_points(tmp_path: Path) -> None:
    line = (slice(5, 35), slice(20, 22), 1)
    read = of_folder(folder(tmp_path / "data", {"a.png": ids(line, HEART)}), "points")["a"]["masks"]
    truth = ids(line, HEART)
    drawn = read != IGNORE
    assert (read == 1).sum() > 5
    assert (read[drawn] == truth[drawn]).all()


@pytest.mark.parametrize("derived", [False, True])
def test_discs_do_not_reach_into_the_padding(derived: bool, tmp_path: Path) -> None:
    """Four points at the upper and the lower border, each with a disc of radius 3."""
    masks = {"a.png": ids((slice(0, 1), slice(4, 20), 1), (slice(39, 40), slice(4, 20), 2))}
    points = "image,x,y,class\na,8,0.5,lung\na,8,39.5,heart\na,30,0.5,background\na,30,39.5,background\n"
    root = folder(tmp_path / "data", masks, **({} if derived else {"points": points}))
    image = ImageSettings(size=(80, 40), fit="letterbox")
    read = of_folder(root, "points", image)["a"]["masks"]
    assert {1, 2} <= set(np.unique(read))
    assert (read != IGNORE).sum() == (read[20:60] != IGNORE).sum()
    if not derived:
        assert (read != IGNORE).sum() > 40


def test_small_components_have_no_box(tmp_path: Path) -> None:
    specks = [(slice(36, 37), slice(column, column + 1), 1) for column in range(0, 40, 3)]
    read = of_folder(folder(tmp_path / "data", {"a.png": ids(LUNG, *specks)}), "box", ImageSettings(size=20))["a"]
    assert [box[0] for box in read["boxes"]] == [0]
    assert read["present"] == [1, 0]


def test_classes_without_a_box_for_their_objects_are_unknown(tmp_path: Path) -> None:
    """The lung of a is smaller than a pixel of the input, and that of b outside of the image."""
    masks = {"a.png": ids((slice(5, 6), slice(5, 7), 1), HEART), "b.png": NOTHING}
    boxes = "image,x,y,width,height,label\nb,40.5,3,5,5,lung\nb,1,1,8,8,heart\n"
    read = of_folder(folder(tmp_path / "data", masks, boxes=boxes), "box", ImageSettings(size=20))
    for image in ("a", "b"):
        np.testing.assert_array_equal(read[image]["present"], [np.nan, 1])
        assert [box[0] for box in read[image]["boxes"]] == [1]


def test_labels_of_a_volume_are_those_of_its_slices_where_they_are_0(tmp_path: Path) -> None:
    root = write_ct_folder(tmp_path / "data", volumes=2)
    (root / "masks" / "ct1.nii.gz").unlink()
    (root / "labels.csv").write_text("image,organ,lesion\nct0,1,1\nct1,1,0\n")
    read = of_folder(root, "class")
    source = open_source(FolderSettings(root=root))
    index = source.index(tmp_path / "cache")
    for row, name in enumerate(index.ids):
        if name.startswith("ct0"):
            assert read[name]["present"] == [float((source.masks(row) == number).any()) for number in (1, 2)]
        else:
            np.testing.assert_array_equal(read[name]["present"], [np.nan, 0])
