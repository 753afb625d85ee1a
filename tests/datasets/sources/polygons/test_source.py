"""Polygons of LabelMe and CVAT."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.source import IGNORE, Index, Pixels, Source
from datasets.sources import PolygonSettings, open_source
from datasets.sources.common.runs import draw, polygon_runs
from tests.support.layouts import HEIGHT, WIDTH, blob, cvat, labelme, outline
from tests.support.pictures import picture, save


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def opened(root: Path, **keys: object) -> tuple[Source, Index]:
    source = open_source(PolygonSettings.model_validate({"root": root} | keys))
    return source, source.index(root.parent / "cache")


def rasterised(mask: Pixels) -> Pixels:
    """Return the outline of a mask as the source `coco` draws it."""
    polygon = [number for point in outline(mask) for number in point]
    return draw(polygon_runs([polygon], (WIDTH, HEIGHT), "polygon"), (WIDTH, HEIGHT), "polygon")


def test_polygons_of_labelme_are_drawn_like_those_of_coco(root: Path) -> None:
    source, index = opened(labelme(root))
    assert index.classes == ("cyst", "kidney")
    assert np.array_equal(source.masks(3)[1], rasterised(blob(3)))
    assert (source.masks(3)[1] != blob(3)).mean() < 0.03
    assert source.masks(3)[0].sum() == pytest.approx(np.pi * 4**2, rel=0.1)
    assert not source.masks(2)[0].any()
    assert [box.name for box in source.boxes(3)] == ["kidney", "cyst"]


def test_an_image_without_a_file_is_unlabelled(root: Path) -> None:
    index = opened(labelme(root))[1]
    assert [bool(mask) for mask in index.annotation_digests["masks"]] == [True] * 9 + [False]


def test_polygons_and_masks_of_cvat_are_read(root: Path) -> None:
    source, index = opened(cvat(root), annotations="annotations.xml")
    assert index.classes == ("nerve", "vessel")
    assert np.array_equal(source.masks(4)[0], rasterised(blob(4)))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:8, 4:8] = [[0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]]
    assert np.array_equal(source.masks(0)[1], expected)


def test_an_image_without_shapes_shows_no_class(root: Path) -> None:
    source, index = opened(cvat(root), annotations="annotations.xml")
    assert not source.masks(7).any()
    assert index.annotates(7) == {"nerve", "vessel"}


def test_a_box_is_no_mask_and_its_class_is_not_annotated(root: Path) -> None:
    source, index = opened(cvat(root, boxes=True), annotations="annotations.xml")
    assert (source.masks(1)[1] == IGNORE).all()
    assert index.annotates(1) == {"nerve"}
    box = source.boxes(1)[1]
    assert (box.name, box.x, box.y, box.width, box.height) == ("vessel", 1, 2, 8, 6)
    assert "has shapes that are no masks (box)" in index.remarks[1]


def test_images_that_the_file_of_cvat_does_not_name_are_not_read(root: Path) -> None:
    cvat(root)
    save(picture(99), root / "images" / "other.png")
    assert len(opened(root, annotations="annotations.xml")[1]) == 8


def test_patients_are_named_by_a_pattern(root: Path) -> None:
    index = opened(labelme(root), patients=r"scan (\d)")[1]
    assert index.patients[2].endswith("/2")


def changed(root: Path, **keys: Any) -> None:  # noqa: ANN401 - any JSON value
    path = root / "scan 0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"imageWidth": None}, "imageWidth is None"),
        ({"shapes": [{"label": "a", "points": [[0, 0], [1, 1]], "shape_type": "polygon"}]}, "has 2 corners"),
        ({"shapes": [{"points": []}]}, "a shape cannot be read"),
        ({"shapes": [7]}, "a shape cannot be read"),
    ],
)
def test_damaged_files_of_labelme_are_refused_in_one_line(keys: dict[str, Any], message: str, root: Path) -> None:
    changed(labelme(root), **keys)
    with pytest.raises(DataError, match=message) as error:
        opened(root)
    assert "allowed: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_image_is_refused(root: Path) -> None:
    (labelme(root) / "scan 0.jpg").unlink()
    with pytest.raises(DataError, match=r"scan 0.json: its image .* is not there; allowed"):
        opened(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotations>", "", "annotations.xml cannot be read"),
        ('name="frame_000000.png"', 'name="lost.png"', r"names 1 images that are not there \(lost.png\)"),
        ('width="4" height="3"', 'width="4" height="9"', "with 12 in its runs"),
        ("2, 3, 1, 6", "a, 3", "a value cannot be read"),
        ('<image id="0"', '<picture id="0"', "annotations.xml cannot be read"),
    ],
)
def test_damaged_files_of_cvat_are_refused_in_one_line(old: str, new: str, message: str, root: Path) -> None:
    file = cvat(root) / "annotations.xml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=message) as error:
        opened(root, annotations="annotations.xml")
    assert "allowed: " in str(error.value)


def test_a_folder_without_annotation_is_refused(root: Path) -> None:
    save(picture(0), root / "0.png")
    with pytest.raises(DataError, match="has no shape of a class; allowed: files of LabelMe"):
        opened(root)
