"""The layout of the SIIM-FISABIO-RSNA COVID-19 competition with its quirks, on small images."""

import csv
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.uid import JPEGLosslessSV1

from datasets.source import Pixels
from datasets.sources.siim_covid19 import FINDINGS
from tests.support.blobs import blob, bounds
from tests.support.dicom import write_dicom
from tests.support.pictures import save


def image_id(number: int) -> str:
    """Return the id of an image; test images follow those for training."""
    return f"{number:012x}"


def write_siim_covid19(
    root: Path, *, images: int = 8, side: int = 64, seed: int = 0, suffix: Literal["dcm", "png", "jpg"] = "dcm"
) -> Path:
    """Write `images` for training and a quarter as many for test, the first two of one study.

    Every third image is negative and has no box; the last study has no row. MONOCHROME1 and 2 alternate.
    """
    image_rows, study_rows = [], []
    for number in range(images + max(1, images // 4)):
        negative = number % 3 == 2
        image, mask = blob(seed * 10_000 + number, width=side, height=side, visible=not negative)
        study = f"{max(number, 1) + 0xABC:012x}"
        part = "train" if number < images else "test"
        _write(root / part / study / f"{number:04x}" / f"{image_id(number)}.{suffix}", image, number)
        if number < images:
            image_rows.append([f"{image_id(number)}_image", *_boxes(mask), study])
        if 0 < number < images - 1:
            finding = 0 if negative else 1 + number % 3
            study_rows.append([f"{study}_study", *(int(column == finding) for column in range(4))])
    _write_table(root / "train_image_level.csv", ["id", "boxes", "label", "StudyInstanceUID"], image_rows)
    _write_table(root / "train_study_level.csv", ["id", *FINDINGS], study_rows)
    return root


def _write(path: Path, image: Pixels, number: int) -> None:
    if path.suffix != ".dcm":
        save(image, path)
        return
    inverted = number % 2 == 1
    stored = (255 - image if inverted else image).astype(np.uint16) * 16
    photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
    patient = f"patient{number // 3}"
    write_dicom(path, stored, syntax=JPEGLosslessSV1, PhotometricInterpretation=photometric, PatientID=patient)


def _boxes(mask: Pixels) -> list[str]:
    """Return the cells `boxes` and `label`."""
    if not mask.any():
        return ["", "none 1 0 0 1 1"]
    x, y, width, height = (side + 0.00001 for side in bounds(mask))
    box = {"x": x, "y": y, "width": width - 0.00002, "height": height - 0.00002}
    return [str([box]), f"opacity 1 {x:.5f} {y:.5f} {x + width:.5f} {y + height:.5f}"]


def _write_table(path: Path, header: list[str], rows: list[list[str | int]] | list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
