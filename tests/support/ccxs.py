"""The layout of the COVID-19 chest x-ray segmentations with its quirks, on small images."""

import csv
from pathlib import Path

import numpy as np

from datasets.sources.ccxs import CLASSES
from tests.support.pictures import picture, save

HEADER = [
    "#",
    "Taxonomy",
    "Class",
    "Template Name",
    "File Folder",
    "Filename",
    "Image",
    "Tag",
    "Mask",
    "Resolution",
    "Top",
    "Left",
    "Width",
    "Height",
    "Points",
    "Text Annotation",
    "Minimal Top",
    "Minimal Left",
    "Minimal Width",
    "Minimal Height",
    "Attributes",
]

Drawn = tuple[str, tuple[int, int, int, int] | None]
"""Class and place (left, top, width, height) of its crop; None for a tag on the entire image."""

ANNOTATIONS: dict[str, tuple[Drawn, ...]] = {
    "first.jpeg": (
        ("Right Lung", (4, 6, 20, 30)),
        ("Left Lung", (36, 6, 20, 30)),
        ("Ground Glass Opacities", (8, 20, 10, 8)),
        ("Monitoring Probes", None),
    ),
    "twice.png": (("Right Lung", (4, 6, 10, 12)), ("Right Lung", (10, 14, 12, 20)), ("Left Lung", (40, 8, 18, 30))),
    "no-right.jpg": (("Left Lung", (36, 4, 24, 40)),),
    "second.jpeg": (("Right Lung", (0, 0, 64, 48)), ("Monitoring Probes", (30, 10, 6, 5))),
}
PATIENTS = {"first.jpeg": "7", "second.jpeg": "7", "twice.png": "8", "no-right.jpg": "9"}


def write_ccxs(root: Path) -> Path:
    """Four images of three patients: RGBA crops as masks, a class drawn twice, a tag without a mask."""
    rows: list[dict[str, object]] = []
    for number, (name, drawn) in enumerate(ANNOTATIONS.items()):
        grey = picture(number + 100)
        rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
        save(rgba if name.endswith("png") else grey, root / "images" / name)
        for part, (template, place) in enumerate(drawn):
            mask = f"masks/{number:03d}_{part}.png" if place else ""
            if place:
                _write_crop(root / mask, place, number)
            rows.append(_row(len(rows) + 1, template, name, mask, place or (0, 0, 64, 48)))
    _write_csv(root / "structure.csv", HEADER, rows)
    metadata: list[dict[str, object]] = [
        {"patientid": PATIENTS[name], "finding": "COVID-19", "filename": name, "": ""} for name in PATIENTS
    ]
    _write_csv(root / "metadata.csv", ["patientid", "offset", "finding", "filename", ""], metadata)
    return root


def _write_crop(path: Path, place: tuple[int, int, int, int], number: int) -> None:
    crop = np.zeros((place[3], place[2], 4), np.uint8)
    crop[..., 3] = 255
    crop[1:-1, 1:-1, number % 3] = 200
    save(crop, path)


def _row(number: int, template: str, name: str, mask: str, place: tuple[int, int, int, int]) -> dict[str, object]:
    left, top, width, height = place
    return {
        "#": number, "Class": f"COVID-19 {template}", "Template Name": template, "Filename": name, "Mask": mask,
        "Resolution": "64x48", "Top": top, "Left": left, "Width": width, "Height": height,
    }  # fmt: skip


def _write_csv(path: Path, header: list[str], rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)


def write_many_ccxs(root: Path, *, images: int = 16, side: int = 64, seed: int = 0) -> Path:
    """As many images as patients; both lungs in each, every other class in every third, all as bright blocks."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    metadata: list[dict[str, object]] = []
    for number in range(images):
        name = f"{number:03d}.png"
        grey = random.integers(0, 60, (side, side), dtype=np.uint8)
        present = [template for place, template in enumerate(CLASSES) if place < 2 or (place + number) % 3 == 0]
        for part, template in enumerate(present):
            left, top = (int(value) for value in random.integers(0, side // 2, 2))
            width, height = side // 3, side // 4
            grey[top + 1 : top + height - 1, left + 1 : left + width - 1] = 90 + 12 * CLASSES.index(template)
            mask = f"masks/{number:03d}_{part}.png"
            _write_crop(root / mask, (left, top, width, height), number)
            row = _row(len(rows) + 1, template, name, mask, (left, top, width, height))
            rows.append({**row, "Resolution": f"{side}x{side}"})
        save(grey, root / "images" / name)
        metadata.append({"patientid": str(number), "finding": "COVID-19", "filename": name, "": ""})
    _write_csv(root / "structure.csv", HEADER, rows)
    _write_csv(root / "metadata.csv", ["patientid", "offset", "finding", "filename", ""], metadata)
    return root
