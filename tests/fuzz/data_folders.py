"""Data folders with random faults as caused by downloads, exports and file systems."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.coco import write_coco
from tests.support.folder import write_folder
from tests.support.pictures import picture, save

Random = np.random.Generator
Change = Callable[[Path, Random], None]
"""Changes one file in place."""

MODES = ("1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
SUFFIXES = ("png", "PNG", "jpg", "tif", "bmp", "gif", "webp", "dcm", "npy", "nii.gz", "txt", "")
NAMES = (
    "a\nb.png",
    "\x1b[31mred.png",
    "n" * 250 + ".png",
    "=1+1.png",
    "le\u0301sion.png",
    "-rf.png",
    "a,b.png",
    "'.png",
)
CELLS = (
    "",
    "nan",
    "12.0",
    "1e999",
    "-5",
    "=cmd()",
    '"',
    "a,b",
    "\x00",
    "\x1b]0;x\x07",
    "9" * 5000,
    "./../x",
    "None",
    "0.5",
)
NUMBERS = (-1, 0, 0.25, 1e308, float("nan"), None, "x", [], {}, 2**70, True)


def truncate(path: Path, random: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * random.random())])


def flip_bits(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    for position in random.integers(0, max(len(data), 1), 1 + len(data) // 200):
        if data:
            data[position] ^= int(random.integers(1, 256))
    path.write_bytes(bytes(data))


def replace_by_noise(path: Path, random: Random) -> None:
    path.write_bytes(random.bytes(int(random.integers(0, 3000))))


def clear(path: Path, random: Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, random: Random) -> None:
    path.unlink()


def duplicate(path: Path, random: Random) -> None:
    suffix = f".{random.choice(SUFFIXES)}".rstrip(".")
    copy = path.with_suffix(suffix) if random.random() < 0.5 else path.parent.parent / path.name
    if not copy.exists():
        shutil.copy2(path, copy)


def rename(path: Path, random: Random) -> None:
    path.rename(path.with_name(str(random.choice(NAMES))))


def replace_by_folder(path: Path, random: Random) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path, random: Random) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path, random: Random) -> None:
    targets = (path, path.parent, path.parent.parent, Path("/dev/zero"), Path("/dev/null"), Path("nowhere"), Path("/"))
    path.unlink()
    path.symlink_to(targets[random.integers(len(targets))])


def change_image_mode(path: Path, random: Random) -> None:
    if path.suffix in {".csv", ".txt", ".json"}:
        return truncate(path, random)
    image = Image.open(path).convert("L")
    mode = str(random.choice(MODES))
    values = np.asarray(image)
    if mode in {"I;16", "I", "F"}:
        scale = random.choice([1, 16, 257, 1e-3, -1])
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        converted = Image.fromarray((values * scale).astype(kinds[mode]))
    else:
        converted = image.convert("RGB").convert(mode) if mode != "1" else image.convert("1")
    converted.save(path.with_suffix(".tif"))
    if path.suffix != ".tif":
        path.unlink()
    return None


def change_image_size(path: Path, random: Random) -> None:
    if path.suffix in {".csv", ".txt", ".json"}:
        return flip_bits(path, random)
    width, height = (int(side) for side in random.choice([1, 2, 3, 47, 48, 64, 300], 2))
    if path.suffix == ".jpeg":
        path = path.rename(path.with_suffix(".jpg"))
    return save(picture(int(random.integers(99)), width=width, height=height), path)


def change_value(path: Path, random: Random) -> None:
    """Change a value of a table or a COCO file, or bits of an image."""
    if path.suffix == ".json":
        return _change_number(path, random)
    if path.suffix not in {".csv", ".txt"}:
        return flip_bits(path, random)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    line = lines[random.integers(len(lines))]
    line[random.integers(len(line))] = str(random.choice(CELLS))
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return None


def change_encoding(path: Path, random: Random) -> None:
    if path.suffix not in {".csv", ".txt", ".json"}:
        return flip_bits(path, random)
    text = path.read_text() + "c\u0153ur\n"
    path.write_bytes(text.encode(str(random.choice(["utf-16", "cp1252", "utf-32", "utf-8-sig"]))))
    return None


def _change_number(path: Path, random: Random) -> None:
    document = json.loads(path.read_text())
    entries = document[str(random.choice(list(document)))]
    entry = entries[random.integers(len(entries))]
    key = str(random.choice(list(entry)))
    entry[key] = NUMBERS[random.integers(len(NUMBERS))]
    path.write_text(json.dumps(document))


CHANGES: tuple[Change, ...] = (
    truncate, flip_bits, replace_by_noise, clear, remove, duplicate, rename, replace_by_folder, replace_by_pipe,
    replace_by_link, change_image_mode, change_image_size, change_value, change_encoding,
)  # fmt: skip


def write_damaged(root: Path, random: Random) -> tuple[str, str]:
    """Write a data set and change one to three of its files; return its source and a description of the changes."""
    kind = int(random.integers(3))
    if kind == 2:
        write_coco(root)
    else:
        write_folder(root, overlapping=kind == 1)
    descriptions = []
    for _ in range(int(random.integers(1, 4))):
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        path, change = files[random.integers(len(files))], CHANGES[random.integers(len(CHANGES))]
        descriptions.append(f"{path.relative_to(root)!s:.80} {change.__name__}")
        change(path, random)
    return ("coco" if kind == 2 else "folder"), "; ".join(descriptions)
