from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.errors import DataError
from datasets.source import Box, Index, Source
from datasets.sources import FolderSettings, open_source
from tests.support.folder import write_folder
from tests.support.pictures import picture, save, truncate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "overlapping", overlapping=True)


def open_data(root: Path, *, classes: tuple[str, ...] | None = None) -> tuple[Source, Index]:
    source = open_source(FolderSettings(root=root, classes=classes))
    return source, source.index(root.parent / "cache")


def faults(root: Path) -> dict[str, str]:
    index = open_data(root)[1]
    return {name: index.fault(row) for row, name in enumerate(index.ids) if index.fault(row)}


def test_an_image_in_a_subfolder_is_refused_and_a_hidden_folder_is_not_read(root: Path) -> None:
    (root / "images" / ".thumbnails").mkdir()
    save(picture(0), root / "images" / ".thumbnails" / "ben.png")
    (root / "masks" / ".thumbnails").mkdir()
    save(picture(0), root / "masks" / ".thumbnails" / "ben.png")
    assert len(open_data(root)[1]) == 6
    (root / "images" / "anna").mkdir()
    save(picture(0), root / "images" / "anna" / "3.png")
    with pytest.raises(DataError, match=r"images/anna/3.png is in a subfolder; allowed: images/<name>.png"):
        open_data(root)


def test_tables_are_read_by_stem_or_file_name(root: Path) -> None:
    source, index = open_data(root)
    assert index.ids == ["anna-1", "anna-2", "ben", "carl", "dora", "emil"]
    assert index.patients[0] == index.patients[1] == f"{root.resolve()}/anna"
    assert index.categories == ["healthy"] * 3 + ["ill"] * 3
    assert source.labels(0).tolist() == [1, 0]
    assert np.array_equal(source.labels(1), [0, np.nan], equal_nan=True)
    assert source.boxes(2)[0] == Box(name="disc", x=4, y=5, width=20, height=10)
    assert source.centres(2) == {"disc": (14.5, 10), "fovea": (2, 3)}
    assert index.structures == ("disc", "cup", "fovea")


def test_a_relative_root_is_unaffected_by_a_change_of_the_working_directory(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    settings = FolderSettings(root=Path("data"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(open_source(settings).index(tmp_path / "cache")) == 6


def test_exclusive_masks_contain_ids_and_overlapping_ones_a_plane_for_each_class(root: Path, overlapping: Path) -> None:
    ids = open_data(root)[0].masks(1)
    source, index = open_data(overlapping)
    assert index.classes == ("disc", "cup")
    assert np.array_equal(source.masks(1)[1], ids == 2)
    assert np.array_equal(source.masks(1).any(axis=0), ids > 0)
    assert not source.masks(0)[1].any()


def test_without_classes_txt_exclusive_ids_are_numbered_up_to_the_largest(root: Path) -> None:
    (root / "classes.txt").unlink()
    assert open_data(root)[1].classes == ("class_1", "class_2")
    chosen, index = open_data(root, classes=("class_2",))
    assert index.classes == ("class_2",)
    assert np.array_equal(chosen.masks(0), open_data(root)[0].masks(0) == 2)


def test_without_classes_txt_overlapping_classes_are_the_folders(overlapping: Path) -> None:
    (overlapping / "classes.txt").unlink()
    assert open_data(overlapping)[1].classes == ("cup", "disc")


def test_without_cases_csv_each_image_is_its_own_patient(root: Path) -> None:
    (root / "cases.csv").unlink()
    assert len(set(open_data(root)[1].patients)) == 6


def test_without_structure_column_the_centre_is_named_centre(root: Path) -> None:
    (root / "centres.csv").write_text("image,x,y\nben,4,5\n")
    assert open_data(root)[0].centres(2) == {"centre": (4, 5)}


def test_a_changed_label_changes_only_the_hash_of_its_image(root: Path) -> None:
    before = open_data(root)[1].annotation_digests["labels"]
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("ben,,1", "ben,1,1"))
    after = open_data(root)[1].annotation_digests["labels"]
    assert [a != b for a, b in zip(before, after, strict=True)] == [False, False, True, False, False, False]


def test_classes_in_another_order_change_the_hash_of_exclusive_masks(root: Path) -> None:
    before = open_data(root)[1].annotation_digests["masks"]
    (root / "classes.txt").write_text("cup\ndisc\n")
    assert set(before) & set(open_data(root)[1].annotation_digests["masks"]) == {""}


def test_truncated_images_and_masks_are_faults_of_their_rows(root: Path) -> None:
    truncate(root / "images" / "anna-1.png")
    truncate(root / "masks" / "dora.png")
    messages = faults(root)
    assert set(messages) == {"anna-1", "dora"}
    assert "images/anna-1.png cannot be decoded" in messages["anna-1"]
    assert "masks/dora.png cannot be decoded" in messages["dora"]


def test_a_mask_of_another_size_is_a_fault_with_both_sizes(root: Path) -> None:
    save(np.ones((48, 60), np.uint8), root / "masks" / "ben.png")
    assert "masks/ben.png has 60 x 48 pixels; allowed: 64 x 48" in faults(root)["ben"]


def test_a_class_id_outside_the_list_is_a_fault_with_the_id(root: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[3, 4] = 7
    save(mask, root / "masks" / "ben.png")
    assert "holds the class id 7; allowed: 0 (background) to 2" in faults(root)["ben"]


@pytest.mark.parametrize("line", ["ben,50,5,20,10,disc", "ben,-3,5,20,10,disc", "ben,5,40,20,10,disc"])
def test_a_box_outside_its_image_is_a_fault(root: Path, line: str) -> None:
    (root / "boxes.csv").write_text(f"image,x,y,width,height,label\n{line}\n")
    assert "leaves the image; allowed: inside 64 x 48" in faults(root)["ben"]


def test_an_empty_box_and_a_centre_outside_the_image_are_faults(root: Path) -> None:
    (root / "boxes.csv").write_text("image,x,y,width,height,label\nben,5,5,0,10,disc\n")
    (root / "centres.csv").write_text("image,x,y\ncarl,70,3\n")
    messages = faults(root)
    assert "is empty" in messages["ben"]
    assert "outside" in messages["carl"]


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


BROKEN = {
    "csv naming a missing image": (_write("labels.csv", "image,ill\nzoe,1\n"), r"labels\.csv line 2: .*'zoe'"),
    "missing column": (_write("boxes.csv", "image,x,y,width,label\n"), r"boxes\.csv lacks the columns \['height'\]"),
    "not a number": (_write("centres.csv", "image,x,y\nben,left,3\n"), r"centres\.csv line 2: x is 'left'"),
    "not finite": (_write("centres.csv", "image,x,y\nben,inf,3\n"), r"x is 'inf'; allowed: a number"),
    "not a label": (_write("labels.csv", "image,ill\nben,yes\n"), r"ill is 'yes'; allowed: 1 \(present\)"),
    "two lines": (_write("labels.csv", "image,ill\nben,1\nben.tif,0\n"), r"line 3: ben is listed twice"),
    "two points": (_write("centres.csv", "image,x,y\nben,1,3\nben,2,3\n"), r"second centre"),
    "case missing": (_write("cases.csv", "image,patient\nben,1\n"), r"cases\.csv has no line for anna-1"),
    "duplicate ids": (lambda root: save(picture(9), root / "images" / "ben.png"), r"\(ben\); allowed: one image"),
    "mask without image": (lambda root: save(picture(9), root / "masks" / "zoe.png"), r"zoe\.png belongs to no"),
    "lossy mask": (lambda root: save(picture(9), root / "masks" / "emil.jpg"), r"emil\.jpg is no mask"),
    "two masks": (lambda root: save(picture(9), root / "masks" / "ben.tif"), r"ben has two masks"),
    "both layouts": (lambda root: save(picture(9), root / "masks" / "cup" / "ben.png"), r"anna-1\.png is no mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_tables_and_names_are_refused(root: Path, name: str) -> None:
    damage, message = BROKEN[name]
    damage(root)
    with pytest.raises(DataError, match=message):
        open_data(root)


def test_a_mask_folder_outside_the_class_list_is_refused(overlapping: Path) -> None:
    (overlapping / "classes.txt").write_text("disc\n")
    with pytest.raises(DataError, match=r"lists \['disc'\] beside the mask folders \['cup', 'disc'\]"):
        open_data(overlapping)


def test_a_common_suffix_of_all_masks_is_named(root: Path) -> None:
    for mask in (root / "masks").iterdir():
        mask.rename(mask.with_stem(f"{mask.stem}_mask"))
    with pytest.raises(DataError, match=r"anna-1_mask\.png belongs to no image \(5 .*; remove the ending '_mask' of"):
        open_data(root)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("Images", "Images is not read; allowed: images, spelled like this; rename"),
        ("train/images", r"set root to .*train, or"),
    ],
)
def test_an_ignored_folder_of_images_is_named(root: Path, place: str, message: str) -> None:
    (root / place).parent.mkdir(exist_ok=True)
    (root / "images").rename(root / place)
    with pytest.raises(DataError, match=message):
        open_data(root)


def test_names_match_in_any_unicode_form(root: Path) -> None:
    (root / "images" / "ben.tif").rename(root / "images" / "be\u0301n.tif")
    (root / "masks" / "ben.png").rename(root / "masks" / "b\u00e9n.png")
    for table in ("boxes", "centres", "cases", "labels"):
        path = root / f"{table}.csv"
        path.write_text(path.read_text().replace("ben,", "b\u00e9n,"))
    index = open_data(root)[1]
    row = index.ids.index("be\u0301n")
    assert all(index.annotation_digests[kind][row] for kind in ("masks", "boxes", "centres"))


def test_ignored_files_are_listed(root: Path) -> None:
    (root / "masks" / "ben.npy").write_bytes(b"")
    (root / "images" / "Thumbs.db").write_bytes(b"")
    assert open_data(root)[1].unread == ("images/Thumbs.db", "masks/ben.npy")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("boxes.csv", "image,x,y,width,height,label\nben,0.5,0.25,0.125,1,disc\ncarl,0,0,1,1,disc\n"),
        ("centres.csv", "image,x,y\nben,0.5,0.25\n"),
    ],
)
def test_relative_coordinates_are_not_pixels(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)
    with pytest.raises(DataError, match=r"lie within 0\.\.1, like shares of the image; allowed: pixels"):
        open_data(root)


def test_a_mask_that_differs_by_the_exif_orientation_of_its_image_is_explained(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(1), root / "images" / "ben.png", exif=exif)
    (root / "images" / "ben.tif").unlink()
    save(np.eye(64, 48, dtype=np.uint8), root / "masks" / "ben.png")
    assert "EXIF orientation turns it by 90 degrees" in faults(root)["ben"]


def test_masks_that_cover_the_image_cause_a_warning(root: Path) -> None:
    save(np.ones((48, 64), np.uint8), root / "masks" / "ben.png")
    index = open_data(root)[1]
    assert "a mask covers the whole image" in index.remarks[index.ids.index("ben")]
