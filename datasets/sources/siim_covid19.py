"""SIIM-FISABIO-RSNA COVID-19 detection (Kaggle 2021): opacity boxes per image, one of four findings per study.

Layout: `train/` and `test/` with `STUDY/SERIES/IMAGE.dcm`, `train_image_level.csv` (boxes) and
`train_study_level.csv` (findings). Images converted to PNG or JPEG can be used instead of DICOM files.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from datasets.cache.manifest import Listing
from datasets.errors import DataError
from datasets.settings import BaseDataSettings, FileSettings
from datasets.source import Box
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import PublishedCase, PublishedDataset
from datasets.sources.common.tables import Line, by_id, read_table, require_images

STRUCTURE = "Opacity"
FINDINGS = ("Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance")
IMAGES, STUDIES = "train_image_level.csv", "train_study_level.csv"
WORDS = 6
"""Words per box in the column `label`: name, confidence, two corners."""


class SiimCovid19Settings(FileSettings):
    """Boxes are named "Opacity"; listed images without a box have none. Labels are those of the study."""

    source: Literal["siim_covid19"] = "siim_covid19"

    @property
    def collection(self) -> str:
        """Namespace of patients: the PatientID of DICOM files, or the study of converted images."""
        return "siim_covid19"


class _Drawn(BaseDataSettings):
    x: float
    y: float
    width: float
    height: float


BOXES = TypeAdapter(list[_Drawn])


class SiimCovid19Source(FileSource):
    """Source of `SiimCovid19Settings`. The id of an image is its file name without suffix."""

    folders = {"train": "image", "test": "image"}  # noqa: RUF012

    def _published(self, listing: Listing) -> PublishedDataset:
        table = self._root / IMAGES
        images = by_id(read_table(table, ("id", "boxes", "label", "StudyInstanceUID"))[1], "id", "_image")
        studies = by_id(read_table(self._root / STUDIES, ("id", *FINDINGS))[1], "id", "_study")
        files = _without_conversions(listing.files)
        require_images(images, {file.stem for file in files}, table)
        return PublishedDataset(cases=[_case(file, images.get(file.stem), studies) for file in files], labels=FINDINGS)


def _without_conversions(paths: Iterable[str]) -> list[PurePosixPath]:
    """Remove converted images whose DICOM file exists."""
    files = [PurePosixPath(path) for path in paths]
    originals = {file.with_suffix("") for file in files if file.suffix.lower() == ".dcm"}
    return [file for file in files if file.suffix.lower() == ".dcm" or file.with_suffix("") not in originals]


def _case(file: PurePosixPath, line: Line | None, studies: Mapping[str, Line]) -> PublishedCase:
    folder = file.parts[1] if len(file.parts) > 2 else ""
    study = line["StudyInstanceUID"] if line else folder
    if line and folder not in ("", study):
        raise DataError(
            f"{line.place}: StudyInstanceUID is '{study}'; allowed: {folder}, where {file.name} lies; correct the line"
        )
    finding = _finding(studies[study]) if study in studies else ""
    return PublishedCase(
        id=file.stem,
        path=str(file),
        patient="" if file.suffix.lower() == ".dcm" else study,
        category=finding,
        official="test" if file.parts[0] == "test" else "train",
        labels=tuple(float(name == finding) for name in FINDINGS) if finding else (),
        boxes=_boxes(line) if line else (),
        boxed=line is not None,
    )


def _finding(line: Line) -> str:
    positive = [name for name in FINDINGS if line.tag(name) == 1]
    if len(positive) != 1:
        raise DataError(
            f"{line.place}: {len(positive)} findings are 1 ({positive}); allowed: one of {list(FINDINGS)}; "
            "correct the line"
        )
    return positive[0]


def _boxes(line: Line) -> tuple[Box, ...]:
    try:
        drawn = BOXES.validate_json(line["boxes"].replace("'", '"') or "[]")
    except ValidationError as error:
        raise DataError(
            f"{line.place}: boxes are '{line['boxes'][:40]}' ({error.errors()[0]['msg']}); allowed: a list of "
            "{'x': ..., 'y': ..., 'width': ..., 'height': ...}, or nothing; correct the line"
        ) from error
    words = line["label"].split()
    named = words[::WORDS].count("opacity")
    if len(words) % WORDS or named != len(drawn):
        raise DataError(
            f"{line.place}: {len(drawn)} boxes, but {named} opacities in label; allowed: the same boxes in both; "
            "correct the line"
        )
    return tuple(Box(name=STRUCTURE, x=box.x, y=box.y, width=box.width, height=box.height) for box in drawn)
