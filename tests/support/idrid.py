"""The layout of IDRiD with its quirks, on small images: bright discs, palette masks, tables with empty ends."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.source import Pixels
from datasets.sources.idrid import (
    CENTRE_TABLES,
    CLASSES,
    FOLDERS,
    GRADE_TABLES,
    IMAGES,
    MASKS,
    SETS,
    Challenge,
    Official,
)
from tests.support.pictures import picture, save

RED = 76
"""Palette entry of a structure in the published masks."""
LESIONS = {"Microaneurysms": 2, "Haemorrhages": 4, "Hard Exudates": 3, "Soft Exudates": 5}
"""Radius of a lesion in 64ths of a side."""
SAME: tuple[Challenge, ...] = ("grading", "localisation")
EMPTY_LINES, EMPTY_COLUMNS = 40, 9


def write_idrid(root: Path, *, images: int = 8, side: int = 64, seed: int = 0) -> Path:
    """Write three parts of `images`, of which every fourth is for test. Soft exudates are in every second image."""
    sets: dict[Official, int] = {"train": images - images // 4, "test": images // 4}
    for official, count in sets.items():
        other = official == "test"
        first = 1 + (sets["train"] if other else 0)  # only the segmentation continues the numbers of the first set
        for number in range(first, first + count):
            _write_segmentation(root, official, f"IDRiD_{number:02d}", seed * 1000 + number, side)
        _write_fundus(root, official, count, seed * 1000 + 500 + 200 * other, side)
    return root


def _write_segmentation(root: Path, official: Official, name: str, seed: int, side: int) -> None:
    draw = np.random.default_rng(seed)
    image = _background(seed, side)
    part, folder = root / FOLDERS["segmentation"], SETS[official]
    disc = _blob(draw, side, 9)
    image[disc > 0] = (250, 220, 120)
    _write_mask(part / MASKS / folder / CLASSES["Optic Disc"][0] / f"{name}_OD.tif", disc)
    for lesion, radius in LESIONS.items():
        if lesion == "Soft Exudates" and seed % 2:
            continue
        mask = _blob(draw, side, radius)
        image[mask > 0] = (250, 250, 200) if "Exudates" in lesion else (90, 10, 10)
        below, ending = CLASSES[lesion]
        _write_mask(part / MASKS / folder / below / f"{name}_{ending}.tif", mask)
    save(image, part / IMAGES / folder / f"{name}.jpg", quality=95)


def _write_fundus(root: Path, official: Official, count: int, seed: int, side: int) -> None:
    """Grading and localisation have the same images: the brighter, the higher the grade."""
    grades: list[str] = []
    centres: dict[str, list[str]] = {"Optic Disc": [], "Fovea": []}
    for number in range(1, count + 1):
        draw, name = np.random.default_rng(seed + number), f"IDRiD_{number:03d}"
        grade = int(draw.integers(0, 5))
        image = _background(seed + number, side) // 2 + np.uint8(20 * grade)
        for structure, colour in (("Optic Disc", (250, 220, 120)), ("Fovea", (30, 0, 0))):
            x, y = draw.integers(side // 5, side - side // 5, 2)
            cv2.circle(image, (int(x), int(y)), max(2, side // 8), colour, -1)
            centres[structure].append(f"{name},{x},{y}{',' * EMPTY_COLUMNS}")
        grades.append(f"{name},{grade},{min(grade, 2)}")
        for part in SAME:
            folder = root / FOLDERS[part] / IMAGES / SETS[official]
            save(image, folder / f"{name}.jpg", quality=95)
    table = root / FOLDERS["grading"] / GRADE_TABLES[official]
    _write_lines(table, ["Image name,Retinopathy grade,Risk of macular edema ,,", *grades])
    header = f"Image No,X- Coordinate,Y - Coordinate{',' * EMPTY_COLUMNS}"
    for structure, lines in centres.items():
        table = root / FOLDERS["localisation"] / CENTRE_TABLES[official][structure]
        _write_lines(table, [header, *lines, *["," * (EMPTY_COLUMNS + 2)] * EMPTY_LINES])


def _background(seed: int, side: int) -> Pixels:
    return np.dstack([picture(seed + plane, width=side, height=side) // (plane + 2) for plane in range(3)])


def _blob(draw: np.random.Generator, side: int, radius: int) -> Pixels:
    reach = max(1, radius * side // 64)
    x, y = draw.integers(reach, side - reach, 2)
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (int(x), int(y)), reach, 1, -1)
    return mask


def _write_mask(path: Path, mask: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask * np.uint8(RED), "P")
    image.putpalette([255 if entry == RED and plane == 0 else 0 for entry in range(256) for plane in range(3)])
    image.save(path)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
