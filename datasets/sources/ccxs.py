"""COVID-19 chest x-ray segmentations (General Blockchain, 2020): 100 radiographs, 13 overlapping classes.

Layout: `images/`, `masks/` (crops), `structure.csv` (one row per annotation), `metadata.csv` (patients).
"""

from collections import defaultdict
from pathlib import Path
from typing import Literal

from datasets.cache.manifest import Listing
from datasets.errors import DataError
from datasets.settings import FileSettings
from datasets.source import Box
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskFile, PublishedCase, PublishedDataset
from datasets.sources.common.tables import Line, read_table, require_images

COLLECTION = "ieee8023"
"""Patients are those of the COVID-19 image data collection (Cohen et al. 2020), shared by several data sets."""
CLASSES = (
    "Right Lung",
    "Left Lung",
    "Cardiomediastinum",
    "Airways",
    "Ground Glass Opacities",
    "Consolidation",
    "Pleural Effusion",
    "Pneumothorax",
    "Endotracheal Tube",
    "Central Venous Line",
    "Monitoring Probes",
    "Nosogastric Tube",
    "Tubings",
)
COLUMNS = ("Template Name", "Filename", "Mask", "Resolution", "Top", "Left", "Width", "Height")


class CcxsSettings(FileSettings):
    """Labels are the classes present in an image, including image-level tags without a mask."""

    source: Literal["ccxs"] = "ccxs"

    @property
    def collection(self) -> str:
        """Namespace of patients, shared with `covid_lung_boxes`."""
        return COLLECTION


class CcxsSource(FileSource):
    """Source of `CcxsSettings`. Mask files are crops placed at (Left, Top); masks of the same class are merged."""

    folders = {"images": "image", "masks": "foreground"}  # noqa: RUF012

    def _published(self, listing: Listing) -> PublishedDataset:
        annotations: dict[str, list[Line]] = defaultdict(list)
        for line in read_table(self._root / "structure.csv", COLUMNS)[1]:
            if line["Template Name"] not in CLASSES:
                raise DataError(
                    f"{line.place}: class '{line['Template Name']}'; allowed: {list(CLASSES)}; restore the file"
                )
            annotations[line["Filename"]].append(line)
        patients = read_patients(self._root / "metadata.csv")
        names = [path.removeprefix("images/") for path in listing.inside("images")]
        require_images(sorted(annotations), set(names), self._root / "structure.csv")
        cases = [_case(name, annotations[name], patients.get(name)) for name in names]
        return PublishedDataset(cases=cases, classes=CLASSES, overlapping=True, labels=CLASSES)


def read_patients(path: Path) -> dict[str, tuple[str, str]]:
    """Return (patient, finding) by file name from metadata.csv."""
    lines = read_table(path, ("patientid", "finding", "filename"))[1]
    return {line["filename"]: (line["patientid"], line["finding"]) for line in lines if line["patientid"]}


def _case(name: str, lines: list[Line], patient: tuple[str, str] | None) -> PublishedCase:
    drawn = [line for line in lines if line["Mask"]]
    shown = {line["Template Name"] for line in lines}
    return PublishedCase(
        id=name,
        path=f"images/{name}",
        patient=patient[0] if patient else "",
        category=patient[1] if patient else "",
        size=_resolution(lines[0]) if lines else None,
        labels=tuple(float(label in shown) for label in CLASSES) if lines else (),
        boxes=tuple(_box(line) for line in drawn),
        masks=tuple(MaskFile(path=line["Mask"], name=line["Template Name"], place=_place(line)) for line in drawn),
        remark="" if patient else f"{name} has no line in metadata.csv, so it counts as its own patient",
    )


def _place(line: Line) -> tuple[int, int, int, int]:
    x, y, width, height = (int(line.number(column)) for column in ("Left", "Top", "Width", "Height"))
    return x, y, width, height


def _box(line: Line) -> Box:
    x, y, width, height = _place(line)
    return Box(name=line["Template Name"], x=x, y=y, width=width, height=height)


def _resolution(line: Line) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in line["Resolution"].split("x"))
    except ValueError as error:
        raise DataError(
            f"{line.place}: Resolution is '{line['Resolution']}'; allowed: WIDTHxHEIGHT; restore the file"
        ) from error
    return width, height
