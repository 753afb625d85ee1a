"""The layout of CheXpert with its quirks, on small images: two views per study, blank and uncertain labels."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.source import Pixels
from datasets.sources.chexpert import LABELS
from tests.support.pictures import picture, save

RELEASE = "CheXpert-v1.0-small"
HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)
SHOWN = ("No Finding", "Cardiomegaly", "Edema", "Pleural Effusion")
"""Labels with a visible blob, each in another corner; of the others some are uncertain, most blank."""


def write_chexpert(root: Path, *, images: int = 12, side: int = 64, seed: int = 0) -> Path:
    """Write `images` of which every sixth is for validation; a patient has one frontal and one lateral view."""
    draw = np.random.default_rng(seed)
    tables: dict[str, list[dict[str, object]]] = {"train": [], "valid": []}
    for number in range(images):
        part = "valid" if number % 12 > 9 else "train"
        view = "frontal" if number % 2 == 0 else "lateral"
        present = draw.random(len(SHOWN)) < 0.5
        path = f"{part}/patient{number // 2 + 1:05d}/study1/view{number % 2 + 1}_{view}.jpg"
        save(_drawn(present, side, seed * 10_000 + number), root / path, quality=95)
        tables[part].append(_row(path, view, dict(zip(SHOWN, present, strict=True)), certain=part == "valid"))
    for part, rows in tables.items():
        write_table(root / f"{part}.csv", rows)
    return root


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows under the published header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _drawn(present: NDArray[np.bool_], side: int, seed: int) -> Pixels:
    image = picture(seed, width=side, height=side) // 3
    half, quarter = side // 2, side // 4
    for corner in np.flatnonzero(present):
        top, left = divmod(int(corner), 2)
        y, x = top * half + quarter // 2, left * half + quarter // 2
        image[y : y + quarter, x : x + quarter] = 250
    return image


def _row(path: str, view: str, present: dict[str, bool], *, certain: bool) -> dict[str, object]:
    """Training lines contain 1.0, 0.0, -1.0 or nothing; validation lines, labelled by radiologists, 1.0 or 0.0."""
    labels = {name: f"{float(value):.1f}" for name, value in present.items()}
    if certain:
        labels = dict.fromkeys(LABELS, "0.0") | labels
    else:
        labels["Lung Opacity"] = "-1.0"
    projection = "AP" if view == "frontal" else ""
    return {"Path": f"{RELEASE}/{path}", "Sex": "Unknown", "Age": 61, "Frontal/Lateral": view.title(),
            "AP/PA": projection, **labels}  # fmt: skip
