"""Folders, tables and COCO files as people and tools leave them: read correctly, or refused with the remedy."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import Pixels
from datasets.sources import CocoSettings, open_source
from tests.support.coco import write_coco
from tests.support.folder import opened
from tests.support.pictures import picture, save

NUMBERS = range(4)


def shape(number: int) -> Pixels:
    mask = np.zeros((48, 64), np.uint8)
    mask[8 : 20 + 4 * number, 10:40] = 1
    return mask


def write(root: Path, *, by_class: bool = False) -> Path:
    for number in NUMBERS:
        save(picture(number), root / "images" / f"{number}.png")
        save(shape(number) * 255 if by_class else shape(number), root / place(number, by_class=by_class))
    return root


def place(number: int, *, by_class: bool = False) -> Path:
    return Path("masks", "heart", f"{number}.png") if by_class else Path("masks", f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def cases(patient: Callable[[int], str]) -> str:
    return "image,patient\n" + "".join(f"{number},{patient(number)}\n" for number in NUMBERS)


def rename_all(root: Path, name: str) -> None:
    for number in NUMBERS:
        (root / place(number)).rename(root / "masks" / name.format(number))


CLASSES = {
    "0: background\n1: heart\n": "numbers its lines",
    "1 heart\n": "numbers its lines",
    "0\tbackground\n1\theart\n": "numbers its lines",
    "_background_\nheart\n": "has the class '_background_', which stands for pixels of no class",
    "__ignore__\n_background_\nheart\n": "has the class '__ignore__', which stands for pixels of no class",
    "bg\nheart\n": "has the class 'bg'",
    "# classes\nheart\n": "line 1 is a comment",
    "heart\n\nlung\n": "line 2 is empty; allowed: the name of id 2",
    "\nheart\n": "line 1 is empty",
    "\n": "is empty; allowed: the name of id 1 in its first line",
    "heart\nheart\n": "each class once",
    "heart\nHeart\n": "which look alike",
}


@pytest.mark.parametrize("text", CLASSES)
def test_a_class_list_that_names_wrong_ids_is_refused(root: Path, text: str) -> None:
    (root / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=CLASSES[text]):
        opened(root)


@pytest.mark.parametrize("text", ["2nd rib\n", "3 vessel view\nheart\n", "heart\n\n\n", "\ufeffheart\r\nlung\r\n"])
def test_a_valid_class_list_names_the_ids_in_order(root: Path, text: str) -> None:
    (root / "classes.txt").write_bytes(text.encode())
    assert opened(root)[1].classes == tuple(text.strip("\ufeff\r\n").splitlines())


UNREAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cases.CSV": (lambda root: (root / "cases.CSV").write_text(cases(str)), "allowed: cases.csv, spelled"),
    "Cases.csv": (lambda root: (root / "Cases.csv").write_text(cases(str)), "allowed: cases.csv, spelled"),
    "cases.xlsx": (lambda root: (root / "cases.xlsx").write_bytes(b"PK"), "rename or convert it"),
    "centers.csv": (lambda root: (root / "centers.csv").write_text("image,x,y\n0,1,2\n"), "allowed: centres.csv"),
    "Classes.txt": (lambda root: (root / "Classes.txt").write_text("heart\n"), "allowed: classes.txt"),
    "Masks": (lambda root: (root / "masks").rename(root / "Masks"), "Masks is not read; allowed: masks"),
    "mask": (lambda root: (root / "masks").rename(root / "mask"), "mask is not read; allowed: masks"),
    "image": (lambda root: (root / "images").rename(root / "image"), "image is not read; allowed: images"),
    "prefix": (lambda root: rename_all(root, "mask_{}.png"), "remove the beginning 'mask_' of the names"),
    "ending, and a mask of an image that is not there": (
        lambda root: (rename_all(root, "{}_gt.png"), save(shape(0), root / "masks" / "zz_gt.png")),
        r"\(5 such masks\).* remove the ending '_gt' of the names in this folder",
    ),
    "ending": (lambda root: rename_all(root, "{}-seg.png"), "remove the ending '-seg' of the names"),
    "two names": (
        lambda root: save(picture(9), root / "images" / "0.png.jpg"), r"0\.png' names two images; allowed: names that"
    ),
    "two forms": (
        lambda root: [save(picture(9), root / "images" / f"{name}.png") for name in ("h\u00e9", "he\u0301")],
        "names two images; allowed: .* any Unicode form",
    ),
    "file for images": (
        lambda root: ((root / "images").rename(root / "old"), (root / "images").write_text("")),
        "images cannot be read .Not a directory.; allowed: a folder",
    ),
    "file for masks": (
        lambda root: ((root / "masks").rename(root / "old"), (root / "masks").write_text("")),
        "masks cannot be read .Not a directory.; allowed: a folder",
    ),
    "link to nothing": (
        lambda root: ((root / "images").rename(root / "old"), (root / "images").symlink_to("none")),
        "images cannot be read .No such file or directory.; allowed: a folder",
    ),
    "box without a name": (
        lambda root: (root / "boxes.csv").write_text("image,x,y,width,height,label\n0,1,2,3,4,\n"), "label is ''"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_files_that_would_be_ignored_are_named_with_the_remedy(root: Path, name: str) -> None:
    change, message = UNREAD[name]
    change(root)
    with pytest.raises(DataError, match=message):
        opened(root)


@pytest.mark.parametrize("name", ["new", "__MACOSX", "@eaDir"])
@pytest.mark.parametrize("by_class", [False, True])
def test_a_folder_without_images_beside_masks_is_not_a_class(tmp_path: Path, name: str, by_class: bool) -> None:
    root = write(tmp_path / "data", by_class=by_class)
    (root / "masks" / name).mkdir()
    (root / "masks" / name / "._0.png").write_bytes(b"x")
    source, index = opened(root)
    assert index.classes == (("heart",) if by_class else ("class_1",))
    for number in NUMBERS:
        assert np.array_equal(source.masks(number).reshape(48, 64), shape(number))


def test_unicode_forms_of_one_patient_are_equal(root: Path) -> None:
    (root / "cases.csv").write_text(cases(lambda n: unicodedata.normalize("NFD" if n % 2 else "NFC", "M\u00fcller")))
    assert len(set(opened(root)[1].patients)) == 1


@pytest.mark.parametrize("names", [("heart", "Heart"), ("h\u00e9", "he\u0301"), ("heart", "heart ")])
def test_folders_of_classes_that_look_alike_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    root = write(tmp_path / "data", by_class=True)
    for name in names:
        save(shape(0), root / "masks" / name / "0.png")
    with pytest.raises(DataError, match="which look alike; allowed: different names"):
        opened(root, classes=list(names))
    assert opened(root, classes=[names[1]])[1].classes == (names[1],)


def lossy(path: Path) -> None:
    """Save a mask as JPEG and read it back, as many tools do."""
    mask = np.asarray(Image.open(path)) * 255
    Image.fromarray(mask).save(path.with_suffix(".jpg"), quality=75)
    Image.open(path.with_suffix(".jpg")).save(path)
    path.with_suffix(".jpg").unlink()


def test_grey_levels_are_not_classes_unless_they_are_listed(root: Path) -> None:
    for number in NUMBERS:
        lossy(root / place(number))
    with pytest.raises(DataError, match=r"holds \d+ different ids up to 255, as grey levels.*threshold the masks"):
        opened(root)


def test_many_ids_with_few_gaps_are_classes(root: Path) -> None:
    """Cityscapes numbers 7 to 33 with gaps, and 255."""
    ids = [7, 8, 11, 12, 13, *range(17, 34), 255]
    mask = np.array(ids, np.uint8).repeat(2)[None].repeat(4, axis=0)
    save(np.pad(mask, ((0, 44), (0, 64 - mask.shape[1]))), root / place(0))
    assert len(opened(root)[1].classes) == len(ids) + 1


def test_one_class_written_as_1_and_as_255_is_refused(root: Path) -> None:
    save(shape(1) * 255, root / place(1))
    with pytest.raises(DataError, match=r"holds 1 in some masks and 255 in others.*write 1 for 255"):
        opened(root)
    assert opened(root, ignore=255)[1].classes == ("class_1",)


def test_jpeg_artefacts_in_masks_cause_a_warning(tmp_path: Path) -> None:
    root = write(tmp_path / "data", by_class=True)
    for number in NUMBERS:
        save(shape(number), root / place(number, by_class=True))
        lossy(root / place(number, by_class=True))
    (finding,) = check(opened(root)[1])
    assert (finding.severity, len(finding.ids)) == ("warning", 4)
    assert "dark greys beside white" in finding.message


def change(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def as_shares(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[0.1, 0.2, 0.5, 0.2, 0.5, 0.75]]


COCO: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "shares": (as_shares, "polygons lie within 0..1, like shares of the image"),
    "flat polygon": (
        lambda c: c["annotations"][0].update(segmentation=[1, 2, 3, 4, 5, 6]),
        r"annotations\.0\.segmentation\.0: Input should be a valid list; allowed: COCO",
    ),
    "fractions of pixels": (
        lambda c: c["annotations"][0]["segmentation"].update(counts=[1.5, 2]),
        r"annotations\.0\.segmentation\.counts\.0: Input should be a valid integer",
    ),
    "class without a name": (lambda c: c["categories"].append({"id": 9, "name": " "}), "without a name"),
    "classes alike": (lambda c: c["categories"].append({"id": 9, "name": "Disc"}), "which look alike"),
    "rounded patient": (lambda c: c["images"][0].update(patient="1.2E+18"), "export the column as text"),
}


@pytest.mark.parametrize("name", COCO)
def test_an_ambiguous_coco_file_is_refused(tmp_path: Path, name: str) -> None:
    edit, message = COCO[name]
    root = write_coco(tmp_path / "coco")
    change(root, edit)
    with pytest.raises(DataError, match=message):
        open_source(CocoSettings(root=root)).index(tmp_path / "cache")


def test_a_coco_file_matches_images_in_any_unicode_form_and_ignores_hidden_files(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    (root / "annotations" / "._instances.json").write_bytes(b"\0")
    (root / "images" / "part0" / "0000.png").rename(root / "images" / "part0" / "he\u0301.png")
    before = open_source(CocoSettings(root=write_coco(tmp_path / "before"))).index(tmp_path / "cache")
    change(root, lambda content: content["images"][0].update(file_name="part0/h\u00e9.png"))
    index = open_source(CocoSettings(root=root)).index(tmp_path / "cache")
    assert index.content[index.ids.index("part0/h\u00e9.png")] == before.content[before.ids.index("part0/0000.png")]
