"""Images and masks that are read where a download has them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.errors import DataError
from datasets.source import IGNORE, Box, Pixels
from tests.support.folder import opened, write_folder
from tests.support.pictures import picture, save


def disc(number: int, value: int = 1) -> Pixels:
    mask = np.zeros((48, 64), np.uint8)
    mask[8:20, 10 : 24 + number] = value
    return mask


def write_pairs(root: Path, names: Iterable[str], image: str, mask: str, value: int = 1) -> Path:
    """Write an image and a mask of each name at the paths that the patterns give."""
    for number, name in enumerate(names):
        save(picture(number), root / image.format(name=name))
        save(disc(number, value), root / mask.format(name=name))
    return root


def test_images_and_masks_are_paired_by_patterns_in_one_folder(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "abc", "{name}.png", "{name}_mask.png")
    save(picture(9), root / "unlabelled.png")
    source, index = opened(root, images="{name}.png", masks="{name}_mask.png")
    assert index.ids == ["a", "b", "c", "unlabelled"]
    assert [bool(mask) for mask in index.annotation_digests["masks"]] == [True, True, True, False]
    assert np.array_equal(source.masks(1), disc(1))
    assert np.array_equal(source.image(2), picture(2))


def test_without_a_pattern_of_masks_images_are_unlabelled(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "ab", "x/{name}.png", "y/{name}.png")
    index = opened(root, images="x/{name}.png")[1]
    assert index.ids == ["a", "b"]
    assert not any(index.annotation_digests["masks"])


def test_folders_belong_to_the_name_where_the_pattern_has_two_stars(tmp_path: Path) -> None:
    names = ("anna/1", "anna/2", "ben/1")
    root = write_pairs(tmp_path / "data", names, "scans/{name}.png", "labels/{name}_seg.png")
    index = opened(root, images="scans/**/{name}.png", masks="labels/**/{name}_seg.png", patients="^[^/]+")[1]
    assert index.ids == list(names)
    assert [patient.rpartition("/")[2] for patient in index.patients] == ["anna", "anna", "ben"]
    with pytest.raises(DataError, match=r"matches scans/anna/1.png and scans/ben/1.png, both named '1'"):
        opened(root, images="scans/*/{name}.png", masks="labels/*/{name}_seg.png")


def test_parts_are_read_from_folders_and_pair_equal_names(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for part in ("train", "Test"):
        write_pairs(root, "ab", f"{part}/images/{{name}}.png", f"{part}/masks/{{name}}.png")
    index = opened(root, images="{part}/images/{name}.png", masks="{part}/masks/{name}.png")[1]
    assert index.ids == ["Test/a", "Test/b", "train/a", "train/b"]
    assert index.official == ["test", "test", "train", "train"]
    assert all(index.annotation_digests["masks"])


def test_the_masks_of_parts_may_be_together_if_names_differ(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "ab", "train/{name}.png", "masks/{name}.png")
    write_pairs(root, "c", "test/{name}.png", "masks/{name}.png")
    keys = {"images": "{part}/{name}.png", "masks": "masks/{name}.png"}
    assert all(opened(root, **keys)[1].annotation_digests["masks"])
    save(picture(0), root / "test" / "a.png")
    with pytest.raises(DataError, match=r"masks/a.png is the mask of 2 images \(test/a, train/a\); allowed: one"):
        opened(root, **keys)


def test_each_class_may_have_masks_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, name in enumerate(("1", "2")):
        save(picture(number), root / f"cxr/{name}.png")
        save(disc(number, 255), root / f"manual/left lung/{name}.png")
    save(disc(5, 255), root / "manual/heart/1.png")
    source, index = opened(root, images="cxr/{name}.png", masks="manual/{class}/{name}.png")
    assert index.classes == ("heart", "left lung")
    assert index.overlapping
    assert source.masks(0).any(axis=(1, 2)).tolist() == [True, True]
    assert np.array_equal(source.masks(1), [np.zeros((48, 64)), disc(1)])


def test_annotators_may_have_patterns(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", ("01L", "01R"), "Image_{name}.jpg", "Image_{name}_1stHO.png", 255)
    for name in ("01L", "01R"):
        save(disc(9, 255), root / f"Image_{name}_2ndHO.png")
    annotators = {"first": "Image_{name}_1stHO.png", "second": "Image_{name}_2ndHO.png"}
    keys = {"images": "Image_{name}.jpg", "annotators": annotators, "patients": r"^(\d+)[LR]"}
    source, index = opened(root, **keys)
    assert index.ids == ["01L", "01R"]
    assert len(set(index.patients)) == 1
    assert np.array_equal(source.masks(1), disc(1))
    assert np.array_equal(opened(root, **keys, train="second")[0].masks(1), disc(9))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"masks": "y/{name}.png"}, r"y/c.png belongs to no image \(1 such masks\); allowed: the name of an image"),
        ({"masks": "z/{name}.png"}, r"masks \(z/{name}.png\) matches no mask; allowed"),
        ({"images": "z/{name}.png"}, r"images \(z/{name}.png\) matches no image; allowed"),
        ({"masks": "*/{name}.png"}, r"a has two masks, (y|z2)/a.png and z2/a.png; allowed: one"),
    ],
)
def test_what_does_not_pair_is_one_clear_line(keys: dict[str, str], message: str, tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "ab", "x/{name}.jpg", "y/{name}.png")
    save(disc(0), root / ("z2/a.png" if "*" in str(keys) else "y/c.png"))
    with pytest.raises(DataError, match=message) as error:
        opened(root, **{"images": "x/{name}.jpg"} | keys)
    assert "\n" not in str(error.value)


def test_a_threshold_reads_grey_and_jpeg_masks_as_one_class(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        save(picture(number), root / f"images/{number}.png")
        save(np.repeat(disc(number, 255)[..., None], 3, 2), root / f"masks/{number}.jpg", quality=60)
    source, index = opened(root, mask_threshold=127)
    assert index.classes == ("class_1",)
    assert not any(map(index.fault, range(3)))
    assert (source.masks(1) != disc(1)).mean() < 0.01
    assert opened(root, mask_threshold=1)[0].masks(1).sum() > source.masks(1).sum()
    other = opened(root, mask_threshold=128)[1].annotation_digests["masks"]
    assert set(other).isdisjoint(index.annotation_digests["masks"])


def test_a_threshold_of_0_makes_a_class_of_numbered_objects(tmp_path: Path) -> None:
    root = tmp_path / "data"
    mask = np.zeros((48, 64), np.uint16)
    mask[3, :50] = np.arange(251, 301)
    save(picture(0), root / "images" / "0.png")
    save(mask, root / "masks" / "0.png")
    source, index = opened(root, mask_threshold=0)
    assert np.array_equal(source.masks(0), mask > 0)
    assert index.shows(0) == {"class_1"}


def colours(palette: dict[int, tuple[int, int, int]], ids: Pixels) -> Pixels:
    drawn = np.zeros((*ids.shape, 3), np.uint8)
    for number, colour in palette.items():
        drawn[ids == number] = colour
    return drawn


def test_colours_stand_for_classes(tmp_path: Path) -> None:
    ids = disc(0)
    ids[30:40, 30:40], ids[44:], ids[:2] = 2, 3, 4
    palette = {0: (255, 255, 255), 1: (255, 0, 0), 2: (0, 128, 0), 3: (9, 9, 9), 4: (0, 0, 255)}
    root = tmp_path / "data"
    save(picture(0), root / "images" / "0.png")
    save(colours(palette, ids), root / "masks" / "0.png")
    values = {"tissue": [0, 128, 0], "tumour": [[255, 0, 0], [0, 0, 255]], "background": 255, "ignore": [[9, 9, 9]]}
    source, index = opened(root, mask_values=values)
    assert index.classes == ("tissue", "tumour")
    assert np.array_equal(source.masks(0), np.array([0, 2, 1, IGNORE, 2])[ids])
    del values["ignore"]
    fault = opened(root, mask_values=values)[1].fault(0)
    assert "holds [9, 9, 9] in 256 pixels, which mask_values does not name; allowed: " in fault


def test_ids_and_lists_of_ids_stand_for_classes(tmp_path: Path) -> None:
    ids = disc(0, 7)
    ids[30:40, 30:40], ids[44:] = 3, 255
    root = tmp_path / "data"
    save(picture(0), root / "images" / "0.png")
    save(ids, root / "masks" / "0.png")
    source, index = opened(root, mask_values={"both": [[7], [3], [9]], "ignore": 255})
    assert index.classes == ("both",)
    assert np.array_equal(source.masks(0), np.where(ids == 255, IGNORE, (ids > 0).astype(np.uint8)))
    assert "holds 255" in opened(root, mask_values={"a": 7, "b": 3})[1].fault(0)


def test_values_are_indices_of_a_colour_palette(tmp_path: Path) -> None:
    root = tmp_path / "data"
    save(picture(0), root / "images" / "0.png")
    drawn = Image.fromarray(disc(0, 2) + 255 * (disc(9) - disc(0)))
    drawn.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[7] * 756, 224, 224, 192])
    (root / "masks").mkdir()
    drawn.convert("P").save(root / "masks" / "0.png")
    drawn.save(root / "masks" / "0.png")
    source, index = opened(root, mask_values={"a": 1, "b": 2, "ignore": 255})
    assert index.classes == ("a", "b")
    assert np.array_equal(source.masks(0), disc(0, 2) + IGNORE * (disc(9) - disc(0)))


def test_patients_are_named_by_patterns(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", ("p1_a", "p1_b", "X-2"), "x/{name}.png", "y/{name}.png")
    keys = {"images": "x/{name}.png", "masks": "y/{name}.png"}
    index = opened(root, **keys, patients=[r"^p(\d+)_", r"\d+"])[1]
    assert [patient.rpartition("/")[2] for patient in index.patients] == ["2", "1", "1"]
    with pytest.raises(DataError, match=r"patients \(\^p\) does not match the name 'X-2'; allowed"):
        opened(root, **keys, patients="^p")


def test_patients_are_named_in_a_column(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "abc", "x/{name}.png", "y/{name}.png")
    table = root / "meta.csv"
    table.write_text("file,subject\na.png,7\nx/b.png,7\nc,8\nother.png,9\n")
    keys = {"images": "x/{name}.png", "patients": {"table": "meta.csv", "image": "file", "patient": "subject"}}
    index = opened(root, **keys)[1]
    assert [patient.rpartition("/")[2] for patient in index.patients] == ["7", "7", "8"]
    table.write_text("file,subject\na.png,7\na,8\n")
    with pytest.raises(DataError, match="line 3: a has the patient '8', and '7' in an earlier line; allowed"):
        opened(root, **keys)
    table.write_text("file,subject\na.png,7\n")
    with pytest.raises(DataError, match=r"names no patient of 2 images \(b, c\); allowed"):
        opened(root, **keys)


def test_lists_name_the_published_parts(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "abcd", "x/{name}.png", "y/{name}.png")
    (root / "train.txt").write_text("a\nb.png\n\n")
    (root / "test.txt").write_text("x/c.png y/c.png\n")
    keys = {"images": "x/{name}.png", "lists": {"train": "train.txt", "test": "test.txt"}}
    assert opened(root, **keys)[1].official == ["train", "train", "test", ""]
    (root / "test.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"test.txt names a, which is also in train.txt; allowed"):
        opened(root, **keys)
    (root / "test.txt").write_text("e\n")
    with pytest.raises(DataError, match=r"test.txt names 'e', which is no image; allowed: names of images, such as a"):
        opened(root, **keys)


def test_boxes_and_centres_are_derived_from_masks(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "ab", "x/{name}.png", "y/{name}.png")
    save(np.zeros((48, 64), np.uint8), root / "y" / "b.png")
    save(picture(5), root / "x" / "c.png")
    keys = {"images": "x/{name}.png", "masks": "y/{name}.png"}
    source, index = opened(root, **keys, boxes="from masks", centres="from masks")
    assert source.boxes(0) == (Box(name="class_1", x=10, y=8, width=14, height=12),)
    assert source.centres(0) == {"class_1": (17.0, 14.0)}
    assert (source.boxes(1), source.centres(1)) == ((), {})
    assert (source.boxes(2), source.centres(2)) == ((), {})
    assert [bool(value) for value in index.annotation_digests["boxes"]] == [True, True, False]
    assert [bool(value) for value in index.annotation_digests["centres"]] == [True, False, False]
    assert index.structures == ("class_1",)
    assert index.completes(1, "boxes") == {"class_1"}
    plain = opened(root, **keys)[1]
    assert plain.structures == ()
    assert plain.annotation_digests["masks"] == index.annotation_digests["masks"]


def test_derived_boxes_and_listed_boxes_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"boxes.csv is there, and boxes is 'from masks'; allowed: one of them"):
        opened(write_folder(tmp_path / "data"), boxes="from masks")


def test_a_limit_reads_whole_patients_in_an_order_of_their_names(tmp_path: Path) -> None:
    names = [f"p{patient}_{number}" for patient in range(8) for number in range(3)]
    root = write_pairs(tmp_path / "data", names, "x/{name}.png", "y/{name}.png")
    keys = {"images": "x/{name}.png", "masks": "y/{name}.png", "patients": r"^p\d"}
    few, more = opened(root, **keys, limit=4)[1], opened(root, **keys, limit=9)[1]
    assert (len(few), len(more), len(opened(root, **keys, limit=99)[1])) == (6, 9, 24)
    assert set(few.ids) < set(more.ids)
    counts = {patient: more.patients.count(patient) for patient in more.patients}
    assert set(counts.values()) == {3}
    whole = opened(root, **keys)[1]
    rows = [whole.ids.index(name) for name in few.ids]
    assert few.annotation_digests["masks"] == [whole.annotation_digests["masks"][row] for row in rows]


def test_files_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "abcdefgh", "x/{name}.png", "y/{name}.png")
    keys = {"images": "x/{name}.png", "masks": "y/{name}.png", "limit": 2}
    source, index = opened(root, **keys)
    for path in root.rglob("*.png"):
        if path.stem not in index.ids:
            path.write_bytes(b"no image")
    read: list[int] = []
    assert source.index(tmp_path / "fresh", lambda done, total: read.append(total)).ids == index.ids
    assert set(read) == {4}


def test_a_table_in_another_format_is_not_read_beside_patterns(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "ab", "x/{name}.png", "y/{name}.png")
    (root / "labels.csv").write_text("Image Index,Finding Labels\n1,2\n")
    (root / "cases.csv").write_text("image,patient\na,1\nb,1\n")
    index = opened(root, images="x/{name}.png")[1]
    assert index.labels == ()
    assert len(set(index.patients)) == 1


def test_a_link_to_a_parent_folder_matters_only_where_the_pattern_looks(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", "ab", "x/{name}.png", "y/{name}.png")
    (root / "loop").symlink_to(root)
    (root / "broken").symlink_to(root / "nothing")
    assert len(opened(root, images="x/{name}.png")[1]) == 2
    with pytest.raises(DataError, match="is a link to one of its parent folders"):
        opened(root, images="**/{name}.png")
