"""SIIM-ACR pneumothorax segmentation (Kaggle 2019): chest radiographs, masks as relative run lengths.

Layout of the first stage: `dicom-images-train/` and `dicom-images-test/` with `STUDY/SERIES/IMAGE.dcm`, and
`train-rle.csv` with one row per mask (`ImageId`, ` EncodedPixels`, values with a leading space), `-1` for images
without one. The second stage adds `stage_2_train.csv` (`ImageId`, `EncodedPixels`), which repeats these rows and has
those of `dicom-images-test`, and `stage_2_images/` with `ID_NUMBER.dcm`, whose masks were not released.
"""

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.cache.manifest import Listing
from datasets.errors import DataError
from datasets.settings import FileSettings
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskRuns, PublishedCase, PublishedDataset
from datasets.sources.common.runs import relative_runs
from datasets.sources.common.tables import Line, read_table, require_images

NAME = "Pneumothorax"
TRAIN = "dicom-images-train"
TABLES = ("stage_2_train.csv", "train-rle.csv")
"""Tables of masks; the first one that exists is read, as it has all rows of the second."""
NONE = "-1"


class SiimAcrSettings(FileSettings):
    """Images without a row in the table of masks have neither masks nor labels."""

    source: Literal["siim_acr"] = "siim_acr"

    @property
    def collection(self) -> str:
        """Namespace of patients, which are read from the DICOM files."""
        return "siim_acr"


class SiimAcrSource(FileSource):
    """Source of `SiimAcrSettings`. The id of an image is its file name without suffix."""

    folders = {TRAIN: "image", "dicom-images-test": "image", "stage_2_images": "image"}  # noqa: RUF012

    def _published(self, listing: Listing) -> PublishedDataset:
        table = self._table()
        rows: dict[str, list[Line]] = defaultdict(list)
        for line in read_table(table, ("ImageId", "EncodedPixels"))[1]:
            rows[line["ImageId"]].append(line)
        names = {path: PurePosixPath(path).stem for path in listing.files}
        require_images(rows, set(names.values()), table)
        cases = [_case(path, name, rows.get(name, [])) for path, name in names.items()]
        return PublishedDataset(cases=cases, classes=(NAME,), overlapping=True, labels=(NAME,))

    def _table(self) -> Path:
        for name in TABLES:
            if (self._root / name).exists():
                return self._root / name
        raise DataError(f"{self._root} has no table of masks; allowed: {' or '.join(TABLES)}; complete the download")


def _case(path: str, name: str, lines: list[Line]) -> PublishedCase:
    masks = _masks(lines)
    shown = any(mask.runs for mask in masks)
    return PublishedCase(
        id=name,
        path=path,
        category=("pneumothorax" if shown else "no pneumothorax") if lines else "",
        official="train" if path.startswith(f"{TRAIN}/") else "test",
        labels=(float(shown),) if lines else (),
        masks=masks,
    )


def _masks(lines: list[Line]) -> tuple[MaskRuns, ...]:
    texts = {line["EncodedPixels"]: line for line in lines}
    if NONE in texts and len(texts) > 1:
        raise DataError(
            f"{texts[NONE].place}: {NONE} for an image that has a mask too; allowed: {NONE} alone, or masks; "
            "remove one of its lines"
        )
    return tuple(MaskRuns(name=NAME, runs=_runs(text, line.place)) for text, line in texts.items())


def _runs(text: str, place: str) -> bytes:
    if not text:
        raise DataError(f"{place}: EncodedPixels is empty; allowed: run lengths, or {NONE} for none; correct the line")
    return relative_runs(text, place) if text != NONE else b""
