"""The layout of SIIM-ACR's pneumothorax competition with its quirks, on small images."""

from pathlib import Path

import numpy as np
from pydicom.uid import JPEGBaseline8Bit

from datasets.source import Pixels
from tests.support.blobs import blob, column_runs
from tests.support.dicom import write_dicom

PREFIX = "1.2.276.0.7230010.3.1.4.8323329"
PUBLISHED = "ImageId, EncodedPixels"
"""The header of the first stage contains a space, and so does every value."""
SECOND_STAGE = "ImageId,EncodedPixels"


def image_id(number: int) -> str:
    """Return the id of an image; test images follow those for training."""
    return f"{PREFIX}.{300 + number}.1517875162.3"


def write_siim_acr(root: Path, *, images: int = 8, side: int = 64, seed: int = 0) -> Path:
    """Write `images` for training and a quarter as many for test, two per patient.

    Every third training image is empty (-1); the second one has its mask in two rows, the last one no row.
    """
    rows = [PUBLISHED]
    for number in range(images + max(1, images // 4)):
        image, mask = blob(seed * 10_000 + number, width=side, height=side, visible=number % 3 != 2)
        name = image_id(number)
        part = "train" if number < images else "test"
        path = root / f"dicom-images-{part}" / f"1.2.{number}" / f"1.3.{number}" / f"{name}.dcm"
        write_dicom(path, image, syntax=JPEGBaseline8Bit, bits=8, PatientID=f"patient-{number // 2}")
        if number < images - 1:
            rows += [f"{name}, {text}" for text in _texts(mask, parts=2 if number == 1 else 1)]
    (root / "train-rle.csv").write_text("\n".join(rows) + "\n")
    return root


def add_second_stage(root: Path, *, images: int = 8, test_images: int = 3, side: int = 64, seed: int = 0) -> Path:
    """Add the files of the second stage to a root of `write_siim_acr` with equal arguments.

    `stage_2_train.csv` repeats the rows of the first stage, without spaces, and adds those of its test images.
    `stage_2_images` has `test_images` without masks, and the sample submission a row for each.
    """
    first = (root / "train-rle.csv").read_text().splitlines()[1:]
    rows = [SECOND_STAGE, *(row.replace(", ", ",") for row in first)]
    for number in range(images, images + max(1, images // 4)):
        _, mask = blob(seed * 10_000 + number, width=side, height=side, visible=number % 3 != 2)
        rows += [f"{image_id(number)},{text}" for text in _texts(mask, parts=1)]
    (root / "stage_2_train.csv").write_text("\n".join(rows) + "\n")
    names = [second_stage_id(number) for number in range(test_images)]
    for number, name in enumerate(names):
        image, _ = blob(seed * 10_000 + 5_000 + number, width=side, height=side)
        path = root / "stage_2_images" / f"{name}.dcm"
        write_dicom(path, image, syntax=JPEGBaseline8Bit, bits=8, PatientID=f"hidden-{number}")
    sample = [SECOND_STAGE, *(f"{name},2 3" for name in names)]
    (root / "stage_2_sample_submission.csv").write_text("\n".join(sample) + "\n")
    return root


def second_stage_id(number: int) -> str:
    """Return the id of a test image of the second stage."""
    return f"ID_{0x9979C1B3 + number:09x}"


def _texts(mask: Pixels, parts: int) -> list[str]:
    if not mask.any():
        return ["-1"]
    runs = column_runs(mask)
    return [_relative([tuple(run) for run in part]) for part in np.array_split(runs, parts)]


def _relative(runs: list[tuple[int, ...]]) -> str:
    """Each start counts from the end of the run before."""
    ends = [0, *(start + length for start, length in runs)]
    return " ".join(f"{start - end} {length}" for (start, length), end in zip(runs, ends, strict=False))
