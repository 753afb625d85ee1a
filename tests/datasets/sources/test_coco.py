import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pydantic import ValidationError

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import IGNORE, Index, Source
from datasets.sources import CocoSettings, open_source
from tests.support.blobs import blob
from tests.support.coco import write_coco
from tests.support.pictures import truncate

Content = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def open_data(root: Path, *, annotations: str | None = None, images: str = "images") -> tuple[Source, Index]:
    source = open_source(CocoSettings(root=root, annotations=annotations, images=images))
    return source, source.index(root / "cache")


def change(root: Path, edit: Callable[[Content], object]) -> None:
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def name_of(number: int) -> str:
    return f"part{number % 2}/{number:04d}.png"


def test_a_sound_set_has_no_findings_although_some_images_are_empty(root: Path) -> None:
    assert check(open_data(root)[1]) == []


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_of_all_three_notations_equal_pycocotools(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, index = open_data(root)
    reference = COCO(str(root / "annotations" / "instances.json"))
    for number in range(8):
        expected = np.zeros((2, 48, 64), np.uint8)
        for annotation in reference.loadAnns(reference.getAnnIds(imgIds=[number + 100])):
            expected[0 if annotation["category_id"] == 3 else 1] |= reference.annToMask(annotation)
        assert np.array_equal(source.masks(index.ids.index(name_of(number))), expected)


def test_classes_are_ordered_by_their_ids(root: Path) -> None:
    _, index = open_data(root)
    assert (index.classes, index.overlapping) == (("disc", "rim"), True)


def test_discs_are_the_blobs_of_the_images(root: Path) -> None:
    source, index = open_data(root)
    for number in range(8):
        expected = blob(number, width=64, height=48, visible=number != 4)[1]
        assert np.array_equal(source.masks(index.ids.index(name_of(number)))[0], expected)


def test_several_masks_of_a_class_are_united(root: Path) -> None:
    corner = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]
    more = {"id": 99, "image_id": 100, "category_id": 3, "bbox": [0, 0, 4, 4], "segmentation": [corner]}
    change(root, lambda content: content["annotations"].append(more))
    source, index = open_data(root)
    row = index.ids.index(name_of(0))
    mask = source.masks(row)[0]
    assert mask[:4, :4].all()
    assert np.array_equal(mask[4:], blob(0, width=64, height=48)[1][4:])
    assert [box.name for box in source.boxes(row)] == ["disc", "rim", "disc"]


def test_an_image_without_annotations_is_labelled_as_empty(root: Path) -> None:
    source, index = open_data(root)
    row = index.ids.index(name_of(4))
    assert all(index.annotation_digests[kind][row] for kind in ("masks", "boxes"))
    assert source.boxes(row) == ()
    assert not source.masks(row).any()


def test_a_crowd_is_a_mask_without_a_box(root: Path) -> None:
    source, index = open_data(root)
    row = index.ids.index(name_of(3))
    assert source.boxes(row) == ()
    assert source.masks(row)[0].any()


def test_a_file_with_boxes_alone_offers_no_masks(root: Path) -> None:
    change(root, lambda content: [entry.update(segmentation=[]) for entry in content["annotations"]])
    _, index = open_data(root)
    assert not any(index.annotation_digests["masks"])
    assert all(index.annotation_digests["boxes"])


def test_a_file_with_masks_alone_offers_no_boxes(root: Path) -> None:
    change(root, lambda content: [entry.pop("bbox") for entry in content["annotations"]])
    _, index = open_data(root)
    assert not any(index.annotation_digests["boxes"])
    assert all(index.annotation_digests["masks"])


def test_patient_and_category_are_read_if_present(root: Path) -> None:
    change(root, lambda content: [content["images"][7].pop(key) for key in ("patient", "category")])
    _, index = open_data(root)
    rows = [index.ids.index(name_of(number)) for number in (2, 3, 7)]
    assert [index.patients[row] for row in rows] == [f"{root}/1", f"{root}/1", f"{root}/image {name_of(7)}"]
    assert [index.categories[row] for row in rows] == ["well", "ill", ""]


def test_an_annotation_without_segmentation_causes_a_warning(root: Path) -> None:
    change(root, lambda content: content["annotations"][0].update(segmentation=[]))
    (finding,) = check(open_data(root)[1])
    assert (finding.severity, finding.ids) == ("warning", (name_of(0),))
    assert "annotation 0 has no segmentation, so pixels outside of other masks of its class" in finding.message


def test_a_class_whose_only_annotation_has_no_segmentation_is_not_annotated(root: Path) -> None:
    change(root, lambda content: content["annotations"][0].update(segmentation=[]))
    source, index = open_data(root)
    row = index.ids.index(name_of(0))
    assert index.annotates(row) == {"rim"}
    assert (source.masks(row)[0] == IGNORE).all()
    assert set(np.unique(source.masks(row)[1])) == {0, 1}
    assert [box.name for box in source.boxes(row)] == ["disc", "rim"]


def test_an_object_without_segmentation_leaves_pixels_outside_of_other_objects_unknown(root: Path) -> None:
    more = {"id": 99, "image_id": 100, "category_id": 3, "bbox": [0, 0, 4, 4]}
    before = open_data(root)[0].masks(0)[0]
    change(root, lambda content: content["annotations"].append(more))
    source, index = open_data(root)
    assert index.annotated == ()
    assert np.array_equal(source.masks(0)[0], np.where(before == 1, 1, IGNORE))


def test_an_image_with_boxes_alone_has_no_masks_although_others_have(root: Path) -> None:
    change(root, lambda content: [content["annotations"][number].pop("segmentation") for number in (0, 1)])
    source, index = open_data(root)
    row = index.ids.index(name_of(0))
    assert [bool(digest) for digest in index.annotation_digests["masks"]].count(False) == 1
    assert not index.annotation_digests["masks"][row]
    assert [box.name for box in source.boxes(row)] == ["disc", "rim"]
    assert "annotation 0 has no segmentation, so the image has no masks" in index.remarks[row]
    with pytest.raises(DataError, match="has no mask"):
        source.masks(row)


def federated(content: Content, *, negative: list[int], partial: tuple[int, ...] = ()) -> None:
    """State for each image which categories are absent, as LVIS does."""
    for image in content["images"]:
        image.update(neg_category_ids=negative, not_exhaustive_category_ids=list(partial))


def test_categories_of_lvis_that_are_neither_annotated_nor_negative_are_not_annotated(root: Path) -> None:
    before_source, before = open_data(root)
    masks = {name: before_source.masks(row) for row, name in enumerate(before.ids)}
    change(root, lambda content: federated(content, negative=[]))
    source, index = open_data(root)
    for number in range(8):
        row = index.ids.index(name_of(number))
        expected = {"disc", "rim"} if number in (0, 2, 6) else set() if number == 4 else {"disc"}
        assert index.annotates(row) == expected
        if number == 4:
            assert not index.annotation_digests["masks"][row]
            continue
        rim = masks[name_of(number)][1] if number in (0, 2, 6) else np.full((48, 64), IGNORE)
        assert np.array_equal(source.masks(row), np.stack([masks[name_of(number)][0], rim]))
    assert not [finding for finding in check(index) if finding.severity == "error"]


def test_images_of_lvis_are_named_by_the_end_of_their_url(root: Path) -> None:
    def edit(content: Content) -> None:
        for image in content["images"]:
            image["coco_url"] = f"http://images.example.org/{image.pop('file_name')}"

    before = open_data(root)[1]
    change(root, edit)
    assert vars(open_data(root)[1]) == vars(before)


def test_negative_categories_of_lvis_are_absent(root: Path) -> None:
    def edit(content: Content) -> None:
        federated(content, negative=[])
        content["images"][4].update(neg_category_ids=[7])

    change(root, edit)
    source, index = open_data(root)
    row = index.ids.index(name_of(4))
    assert index.annotates(row) == {"rim"}
    assert (source.masks(row)[0] == IGNORE).all()
    assert not source.masks(row)[1].any()


def test_pixels_outside_of_masks_that_are_not_exhaustive_are_unknown(root: Path) -> None:
    before_source, before = open_data(root)
    masks = before_source.masks(0)
    change(root, lambda content: content["images"][0].update(not_exhaustive_category_ids=[3]))
    source, index = open_data(root)
    assert np.array_equal(source.masks(0), np.stack([np.where(masks[0] == 1, 1, IGNORE), masks[1]]))
    digests = zip(before.annotation_digests["masks"], index.annotation_digests["masks"], strict=True)
    assert [first == second for first, second in digests] == [False] + [True] * 7


def test_a_category_that_is_not_exhaustive_and_has_no_mask_is_not_annotated(root: Path) -> None:
    before = open_data(root)[1]
    change(root, lambda content: content["images"][1].update(not_exhaustive_category_ids=[7]))
    source, index = open_data(root)
    row = index.ids.index(name_of(1))
    assert before.annotates(row) == {"disc", "rim"}
    assert index.annotates(row) == {"disc"}
    assert (source.masks(row)[1] == IGNORE).all()


def test_a_class_without_any_mask_is_reported(root: Path) -> None:
    change(root, lambda content: content["categories"].append({"id": 1, "name": "cup"}))
    _, index = open_data(root)
    assert (index.classes, index.unused_classes) == (("cup", "disc", "rim"), ("cup",))


def test_other_folders_of_images_and_annotations_can_be_configured(root: Path) -> None:
    before = open_data(root)[1]
    (root / "annotations" / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds 2 JSON files \['instances\.json', 'other\.json'\]; allowed: one"):
        open_data(root)
    (root / "images").rename(root / "jpegs")
    after = open_data(root, annotations="annotations/instances.json", images="jpegs/")[1]
    assert vars(after) == vars(before)
    change(root, lambda content: [image.update(file_name=f"jpegs/{image['file_name']}") for image in content["images"]])
    assert open_data(root, annotations="annotations/instances.json", images=".")[1].content == before.content


@pytest.mark.parametrize("place", ["/images", "../images"])
def test_a_path_outside_the_root_is_refused(root: Path, place: str) -> None:
    with pytest.raises(ValidationError, match="allowed: a path below root"):
        CocoSettings(root=root, images=place)


def first(content: Content) -> Content:
    entry = content["annotations"][0]
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c["images"][1].update(id=100), "image id 100 occurs twice; allowed: each once"),
        (lambda c: c["annotations"][1].update(id=0), "annotation id 0 occurs twice"),
        (lambda c: c["categories"][1].update(id=7), "category id 7 occurs twice"),
        (lambda c: c["categories"][1].update(name="rim"), "category name rim occurs twice"),
        (lambda c: first(c).update(image_id=5), "annotation 0: image_id is 5; allowed: one of the 8"),
        (lambda c: first(c).update(category_id=5), "annotation 0: category_id is 5; allowed: one of the 2"),
        (lambda c: c["images"][0].update(neg_category_ids=[5]), "image 100: neg_category_ids has 5; allowed: ids of"),
        (lambda c: c["images"][0].update(not_exhaustive_category_ids=[5]), "not_exhaustive_category_ids has 5"),
        (lambda c: c["images"][0].update(neg_category_ids=[3]), "image 100: disc is in neg_category_ids and has an"),
        (
            lambda c: c["images"][1].update(neg_category_ids=[7], not_exhaustive_category_ids=[7]),
            "image 101: 7 is in neg_category_ids and in not_exhaustive_category_ids; allowed: one of them",
        ),
        (lambda c: first(c).pop("category_id"), r"annotations\.0\.category_id: Field required; allowed: COCO"),
        (lambda c: first(c).update(bbox=[1, 2, 3]), r"annotations\.0\.bbox: .*; allowed: COCO"),
        (lambda c: first(c).update(segmentation=[[1, 2, 3]]), "annotation 0: a polygon of 3 numbers"),
        (lambda c: first(c).update(segmentation=[[1, 2, 3, 4, 99, 6]]), "annotation 0: a polygon at 99 leaves"),
        (lambda c: first(c)["segmentation"].update(size=[64, 48]), r"its size is \[64, 48\]; allowed: \[48, 64\]"),
        (lambda c: first(c)["segmentation"].update(counts=[5, -1]), "annotation 0: a run length is -1"),
        (lambda c: first(c)["segmentation"].update(counts="a b"), "annotation 0: 'a b' are no compressed"),
        (lambda c: c["images"][1].update(file_name="no.png"), r"names 1 images that are not there \(images/no\.png\)"),
        (lambda c: c["images"][1].update(file_name=name_of(0)), "1 ids stand for several images"),
        (lambda c: c.pop("images"), "images: Field required"),
    ],
)
def test_an_invalid_file_is_refused_in_one_line(root: Path, edit: Callable[[Content], object], reason: str) -> None:
    change(root, edit)
    with pytest.raises(DataError, match=reason) as refused:
        open_data(root)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: first(c)["segmentation"].update(counts=[3000, 73]), "mask of disc runs past the end"),
        (lambda c: first(c).update(bbox=[60, 2, 6, 4]), r"box disc \(60, 2, 6, 4\) leaves the image"),
        (lambda c: c["images"][0].update(width=65), "0000.png has 64 x 48 pixels; allowed: 65 x 48"),
    ],
)
def test_annotations_that_do_not_fit_their_image_are_faults_of_the_row(
    root: Path, edit: Callable[[Content], object], reason: str
) -> None:
    if "pixels" in reason:
        change(root, lambda c: [first(c).update(segmentation=[]), c["annotations"][1].update(segmentation=[])])
    change(root, edit)
    faults = [finding for finding in check(open_data(root)[1]) if finding.severity == "error"]
    assert [finding.ids for finding in faults] == [(name_of(0),)]
    assert reason.replace("\\", "") in faults[0].message


def test_a_truncated_image_is_a_fault_of_its_row(root: Path) -> None:
    truncate(root / "images" / name_of(2))
    index = open_data(root)[1]
    assert [name for name, fault in zip(index.ids, index.faults, strict=True) if fault] == [name_of(2)]


def boxed(root: Path, number: int) -> frozenset[str]:
    """Return the classes of which all objects of an image have boxes."""
    _, index = open_data(root)
    return index.completes(index.ids.index(name_of(number)), "boxes")


def test_boxes_are_complete_but_for_crowds_objects_without_a_box_and_what_lvis_leaves_open(root: Path) -> None:
    assert [set(boxed(root, number)) for number in range(5)] == [
        {"disc", "rim"}, {"disc", "rim"}, {"disc", "rim"}, {"rim"}, {"disc", "rim"}
    ]  # fmt: skip

    def edit(content: Content) -> None:
        content["annotations"][0].pop("bbox")
        content["images"][1].update(neg_category_ids=[])
        content["images"][2].update(not_exhaustive_category_ids=[7])

    change(root, edit)
    assert [set(boxed(root, number)) for number in range(3)] == [{"rim"}, {"disc"}, {"disc"}]


def test_a_file_without_boxes_has_complete_boxes_of_no_class(root: Path) -> None:
    change(root, lambda content: [entry.pop("bbox") for entry in content["annotations"]])
    assert not boxed(root, 0)
