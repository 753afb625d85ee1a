"""The layout of the COVID-19 image data collection with its quirks, on small images."""

import csv
from pathlib import Path

import numpy as np

from datasets.source import Pixels
from tests.support.pictures import picture, save

HEADER = ("patientid", "offset", "sex", "finding", "view", "modality", "folder", "filename", "")
FINDINGS = ("Pneumonia/Viral/COVID-19", "Pneumonia/Fungal/Pneumocystis", "No Finding", "COVID-19, ARDS", "todo")
TWICE, DOUBLE_SUFFIX, UNMASKED, MISFIT = 0, 1, 2, 3
"""Image with two lines of two patients; mask named `_mask.png.png`; no mask; mask of another size."""


def write_covid_chestxray(root: Path, *, images: int = 8, side: int = 64, seed: int = 0) -> Path:
    """Write radiographs, two per patient, most with a mask of two bright lungs; a CT slice, a volume, a lost file."""
    rows: list[dict[str, object]] = []
    for number in range(images):
        name = f"{number:03d}.pdf-fig{number}.{('jpeg', 'png', 'JPG')[number % 3]}"
        finding = FINDINGS[number % len(FINDINGS)]
        lungs = _lungs(number, side)
        image = picture(seed * 1000 + number, width=side, height=side) // 3 + lungs * np.uint8(150)
        if finding.startswith("Pneumonia"):
            image[: side // 6, : side // 3] = 250  # visible for a classifier
        save(image, root / "images" / name)
        _write_mask(root, name, number, lungs)
        rows += [_row(number // 2 + patient, finding, name) for patient in ((900, 0) if number == TWICE else (0,))]
    save(picture(77, width=side, height=side), root / "images" / "slice.jpg")
    rows += [
        _row(50, "COVID-19", "slice.jpg", modality="CT"),
        _row(51, "COVID-19", "scan.nii.gz", modality="CT", folder="volumes"),
        _row(52, "COVID-19", "lost.jpg"),
    ]
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, restval="")
        writer.writeheader()
        writer.writerows(rows)
    scores = root / "annotations" / "covid-severity-scores.csv"
    scores.write_text("## Scores by raters,,\nfilename,geographic_mean,opacity_mean\n000.jpeg,6.0,4.0\n")
    return root


def _row(
    patient: int, finding: str, name: str, *, modality: str = "X-ray", folder: str = "images"
) -> dict[str, object]:
    return {"patientid": patient, "finding": finding, "view": "PA", "modality": modality, "folder": folder,
            "filename": name}  # fmt: skip


def _lungs(number: int, side: int) -> Pixels:
    mask = np.zeros((side, side), np.uint8)
    top = side // 4 + number % 5
    mask[top : side - side // 6, side // 8 : side * 3 // 8] = 1
    mask[top : side - side // 6, side * 5 // 8 : side * 7 // 8] = 1
    return mask


def _write_mask(root: Path, name: str, number: int, lungs: Pixels) -> None:
    if number == UNMASKED:
        return
    suffix = "_mask.png.png" if number == DOUBLE_SUFFIX else "_mask.png"
    mask = lungs[:, 1:] if number == MISFIT else lungs
    save(mask * np.uint8(255), root / "annotations" / "lungVAE-masks" / f"{name.rpartition('.')[0]}{suffix}")
