"""Data as written by tools and people, through the command line: read correctly, refused, or with a warning."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.source import Pixels
from datasets.sources import FolderSettings, open_source
from tests.fuzz.running import run_command
from tests.support.documents import write_study
from tests.support.pictures import picture, save

IMAGES = 8
Write = Callable[[Path, int, Pixels], None]
"""Writes the image and the mask of a number below a root; the mask is (64, 64) of 0/1."""


def shape(number: int) -> Pixels:
    mask = np.zeros((64, 64), np.uint8)
    mask[10 : 30 + 2 * number, 20:44] = 1
    return mask


def plan(root: Path, write: Write, *arguments: str) -> tuple[int, str]:
    for number in range(IMAGES):
        write(root, number, shape(number))
    document = {
        "name": "odd", "data": {"mine": {"source": "folder", "root": str(root)}}, "image": {"size": 32},
        "stages": {"segment": {"task": "segmentation", "data": "mine", "epochs": 1}},
        "pathways": {"none": ["segment"]},
        "compare": {"architecture": ["unet"], "backbone": ["resnet18"], "folds": 2},
        "validation": {"min_cases": 1},
    }  # fmt: skip
    write_study(document, root.parent / "study.yaml")
    command = run_command("plan", str(root.parent / "study.yaml"), "--cache", str(root.parent / "cache"), *arguments)
    return command.status, command.error + command.out


def image(root: Path, number: int) -> None:
    save(picture(number, height=64), root / "images" / f"{number}.png")


def by_folder(write: Callable[[Path, Pixels], None], suffix: str = "png") -> Write:
    """Return a writer of images, and of masks of one class."""

    def write_both(root: Path, number: int, mask: Pixels) -> None:
        image(root, number)
        path = root / "masks" / "heart" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, mask)

    return write_both


def with_ids(write: Callable[[Path, Pixels], None], suffix: str = "png") -> Write:
    def write_both(root: Path, number: int, mask: Pixels) -> None:
        image(root, number)
        path = root / "masks" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, mask)

    return write_both


def palette(path: Path, indices: Pixels, colours: list[int]) -> None:
    image = Image.new("P", indices.shape[::-1])
    image.putpalette(colours)
    image.putdata(indices.ravel().tolist())
    image.save(path)


def in_alpha(path: Path, mask: Pixels) -> None:
    save(np.dstack([np.full((64, 64, 3), 90, np.uint8), mask * 200]), path)


def one_bit(path: Path, mask: Pixels) -> None:
    Image.fromarray(mask.astype(bool)).save(path)


READ_RIGHT: dict[str, Write] = {
    "0 and 255": with_ids(lambda path, mask: save(mask * 255, path)),
    "0 and 128": with_ids(lambda path, mask: save(mask * 128, path)),
    "one bit": with_ids(one_bit),
    "16 bits": with_ids(lambda path, mask: save(mask.astype(np.uint16), path)),
    "16-bit colour": with_ids(lambda path, mask: cv2.imwrite(str(path), np.dstack([mask.astype(np.uint16)] * 3))),
    "whole floats": with_ids(lambda path, mask: save(mask.astype(np.float32), path), "tif"),
    "grey and alpha": with_ids(lambda path, mask: save(np.dstack([mask, mask * 0 + 255]), path)),
    "BMP": by_folder(lambda path, mask: save(mask * 255, path), "bmp"),
    "GIF": by_folder(lambda path, mask: save(mask * 255, path), "GIF"),
    "lossless WebP": by_folder(lambda path, mask: save(mask * 255, path, lossless=True), "webp"),
    "alpha alone": by_folder(in_alpha),
    "palette, white first": by_folder(lambda path, mask: palette(path, 1 - mask, [255] * 3 + [0] * 3)),
    "palette, ids": with_ids(lambda path, mask: palette(path, mask, [0, 0, 0, 128, 0, 0])),
    "16-bit colour by class": by_folder(
        lambda path, mask: cv2.imwrite(str(path), np.dstack([mask.astype(np.uint16)] * 3))
    ),
    "palette of colours, white second": with_ids(
        lambda path, mask: palette(path, mask, [0] * 3 + [255] * 3 + [255, 0, 0])
    ),
    "palette of greys, trimmed": with_ids(lambda path, mask: palette(path, mask, [0] * 3 + [7] * 3)),
    "GIF, ids": with_ids(lambda path, mask: save(mask * 7, path), "gif"),
    "colour on a transparent layer": by_folder(
        lambda path, mask: save(np.dstack([mask * 200, mask * 0, mask * 0, mask * 255]), path)
    ),
    "compressed TIFF": by_folder(lambda path, mask: save(mask.astype(np.uint16), path, compression="lzw"), "tif"),
    "1 of 65535": by_folder(lambda path, mask: save(mask.astype(np.uint16), path)),
}


@pytest.mark.parametrize("kind", READ_RIGHT)
def test_masks_of_every_kind_are_read_correctly(tmp_path: Path, kind: str) -> None:
    status, text = plan(tmp_path / "data", READ_RIGHT[kind])
    assert (status, "warning" in text) == (0, False), text
    source = open_source(FolderSettings(root=tmp_path / "data"))
    index = source.index(tmp_path / "cache")
    assert len(index.classes) == 1
    for number in range(IMAGES):
        assert np.array_equal(source.masks(index.ids.index(str(number))).reshape(64, 64), shape(number))


def soft(path: Path, mask: Pixels) -> None:
    save(cv2.GaussianBlur(mask.astype(np.float32), (5, 5), 0), path)


def pages(path: Path, mask: Pixels) -> None:
    page = Image.fromarray(mask * 255)
    page.save(path, save_all=True, append_images=[Image.fromarray(mask)])


def counted(path: Path, mask: Pixels) -> None:
    number = int(path.stem)
    save(np.where(mask > 0, np.arange(64) // 4 % (2 + number % 5) + 1, 0).astype(np.uint8), path)


REFUSED: dict[str, tuple[Write, str]] = {
    "soft": (with_ids(soft, "tif"), "allowed: whole numbers in a mask; threshold it"),
    "soft, by class": (by_folder(soft, "tif"), "allowed: whole numbers in a mask; threshold it"),
    "pages": (by_folder(pages, "tif"), "has 2 slices; allowed: one page, as its image images/0.png has"),
    "frames": (by_folder(pages, "gif"), "has 2 pages or frames; allowed: one; save each one as a file"),
    "JPEG": (with_ids(lambda path, mask: save(mask * 255, path), "jpg"), "masks/0.jpg is no mask; allowed: masks/"),
    "lossy WebP": (by_folder(lambda path, mask: save(mask * 255, path, quality=20), "webp"), "changes numbers"),
    "colour": (with_ids(lambda path, mask: save(np.dstack([mask, mask * 2, mask]), path)), "is in colour; allowed:"),
    "objects": (with_ids(counted), "write 1 for each object, or list the classes in classes.txt"),
    "grey levels": (with_ids(lambda path, mask: save(cv2.GaussianBlur(mask * 255, (9, 9), 0), path)), "as grey levels"),
    "black on transparent white": (
        by_folder(lambda path, mask: save(np.dstack([255 - mask * 255] * 3 + [mask * 255]), path)),
        "transparent pixels that are not black",
    ),
    "1 and 255": (
        with_ids(lambda path, mask: save(mask * (255 if int(path.stem) % 2 else 1), path)), "write 1 for 255"
    ),
    "below 0": (by_folder(lambda path, mask: save(-mask.astype(np.int32), path), "tif"), "holds the number -1"),
    "GIF of colours": (
        with_ids(lambda path, mask: palette(path, mask * 2, [0] * 3 + [9, 0, 0, 0, 99, 0]), "gif"), "export it as PNG"
    ),
    "300 ids": (with_ids(lambda path, mask: save(mask.astype(np.uint16) * 300, path)), "holds the id 300; allowed:"),
    "palette without black": (
        with_ids(lambda path, mask: palette(path, mask + 1, [9, 9, 9, 0, 0, 0, 200, 0, 0])), "is unclear; allowed: 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_ambiguous_data_are_refused_with_the_remedy(tmp_path: Path, kind: str) -> None:
    write, message = REFUSED[kind]
    status, text = plan(tmp_path / "data", write)
    assert (status, message in text) == (2, True), text


def sound(path: Path, mask: Pixels) -> None:
    save(mask * 255, path)


def full(path: Path, mask: Pixels) -> None:
    save(mask * 0 + 255, path)


def table(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(text.encode())  # type: ignore[func-returns-value]


def lines(make: Callable[[int], str]) -> str:
    return "".join(f"{make(number)}\n" for number in range(IMAGES))


def write_box_shares(root: Path) -> None:
    boxes = lines(lambda number: f"{number},0.5,0.5,0.25,0.125,heart")
    (root / "boxes.csv").write_text(f"image,x,y,width,height,label\n{boxes}")


BESIDE: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "pipe": (lambda root: os.mkfifo(root / "images" / "p.png"), 2, "images/p.png is no regular file"),
    "table that is a pipe": (lambda root: os.mkfifo(root / "cases.csv"), 2, "cases.csv is no regular file"),
    "unread": (table("images/a.npy", "x"), 0, "1 files are not read (images/a.npy)"),
    "unquoted comma": (table("cases.csv", "image,patient\n0,Doe, Jo\n"), 2, "line 2 has 3 fields; allowed: 2"),
    "patient nan": (
        table("cases.csv", "image,patient\n" + lines(lambda n: f"{n},{'nan' if n == 3 else n}")), 2, "missing value"
    ),
    "12 and 12.0": (
        table("cases.csv", "image,patient\n" + lines(lambda n: f"{n},{'7.0' if n == 3 else n}")), 2, "allowed: one way"
    ),
    "boxes in shares": (write_box_shares, 2, "all 8 boxes lie within 0..1"),
    "cp1252": (lambda root: (root / "classes.txt").write_bytes("c\u0153ur".encode("cp1252")), 2, "is not UTF-8"),
    "macro": (lambda root: (root / "masks" / "heart").rename(root / "masks" / "macro"), 2, "the name of an average"),
    "background": (lambda root: (root / "masks" / "heart").rename(root / "masks" / "background"), 2, "leave it out"),
    "two classes lists": (table("classes.txt", "background\nheart\n"), 2, "has the class 'background'"),
    "empty masks": (lambda root: save(shape(0) * 0, root / "masks" / "heart" / "3.png"), 0, "3: its masks are empty"),
    "full masks": (lambda root: full(root / "masks" / "heart" / "3.png", shape(0)), 0, "3: a mask covers the whole"),
    "capital folder": (lambda root: (root / "images").rename(root / "Images"), 2, "Images is not read; allowed: im"),
    "table with a capital": (table("Cases.csv", "image,patient\n"), 2, "Cases.csv is not read; allowed: cases.csv"),
    "table of a spreadsheet": (table("labels.xlsx", "PK"), 2, "allowed: labels.csv, spelled like this; rename or"),
    "semicolons": (table("cases.csv", "image;patient\n0;a\n"), 2, "separate its values with commas"),
    "lines of commas": (table("cases.csv", "image,patient\n" + lines(lambda n: f"{n},p{n}") + ",\n,\n"), 0, ""),
    "patients that a spreadsheet rounded": (
        table("cases.csv", "image,patient\n" + lines(lambda n: f"{n},1.23E+18")), 2, "export the column as text"
    ),
    "long numbers as patients": (
        table("cases.csv", "image,patient\n" + lines(lambda n: f"{n},123456789012345670{n}")), 0, ""
    ),
    "masks of a Mac": (lambda root: (root / "masks" / "__MACOSX").mkdir(), 0, ""),
    "two pictures of one name": (lambda root: save(shape(9), root / "images" / "0.png.png"), 2, "names two images"),
    "empty file": (lambda root: (root / "images" / "3.png").write_bytes(b""), 2, "the file is empty"),
    "byte order mark": (table("cases.csv", "\ufeffimage,patient\n" + lines(lambda n: f"{n}.png,p{n}")), 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", BESIDE)
def test_other_files_beside_images_and_masks_are_handled(tmp_path: Path, kind: str) -> None:
    change, expected, message = BESIDE[kind]
    root = tmp_path / "data"
    for number in range(IMAGES):
        by_folder(sound)(root, number, shape(number))
    change(root)
    status, text = plan(root, lambda *_: None)
    assert (status, message in text) == (expected, True), text
