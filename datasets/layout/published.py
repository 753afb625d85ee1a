"""Published data sets that have a source of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from datasets.decoding.text import read_text
from datasets.errors import DataError
from datasets.layout.files import Files
from datasets.layout.proposal import Proposal


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A published data set.

    Attributes:
        title: Its name.
        source: Its source.
        marks: Files or folders that it has.
        part: Its part that is read.
        columns: A table, and columns in its first line.
        has_masks: Whether it has masks.
    """

    title: str
    source: str
    marks: tuple[str, ...]
    part: str = ""
    columns: tuple[str, tuple[str, ...]] | None = None
    has_masks: bool = True


KNOWN: Final = (
    _Known(title="COVID-19 chest x-ray segmentation", source="ccxs", marks=("structure.csv", "metadata.csv", "masks/")),
    _Known(title="IDRiD", source="idrid", marks=("A. Segmentation/1. Original Images/",), part="segmentation"),
    _Known(title="SIIM-ACR pneumothorax", source="siim_acr", marks=("train-rle.csv", "dicom-images-train/")),
    _Known(title="SIIM-ACR pneumothorax", source="siim_acr", marks=("stage_2_train.csv", "dicom-images-train/")),
    _Known(title="CheXpert", source="chexpert", marks=("train.csv", "valid.csv", "train/"),
        columns=("train.csv", ("Path", "Pleural Effusion")), has_masks=False),
    _Known(
        title="SIIM-FISABIO-RSNA COVID-19", source="siim_covid19",
        marks=("train_image_level.csv", "train_study_level.csv"), has_masks=False,
    ),
    _Known(
        title="COVID-19 image data collection", source="covid_chestxray",
        marks=("metadata.csv", "annotations/lungVAE-masks/"), has_masks=False,
    ),
)  # fmt: skip


def published_layout(files: Files) -> Proposal | None:
    """Return the settings of a published data set with a source of its own, None for other data.

    Raises `DataError` for one without masks.
    """
    paths = (*files.images, *files.others)
    for known in KNOWN:
        if not all(
            any(path == mark or (mark[-1] == "/" and path.startswith(mark)) for path in paths) for mark in known.marks
        ):
            continue
        if known.columns is not None and not _has_columns(files, *known.columns):
            continue
        if not known.has_masks:
            raise DataError(
                f"{files.root} is {known.title}, which has no masks of annotators; allowed: data with masks, as a "
                f"study measures segmentation; use it for pretraining beside such data, with `source: {known.source}`"
            )
        settings = {"source": known.source} | ({"part": known.part} if known.part else {})
        return Proposal(
            layout=known.title, settings=settings, assumed=[f"{', '.join(known.marks)}: the layout of {known.title}"]
        )
    return None


def _has_columns(files: Files, table: str, columns: Sequence[str]) -> bool:
    try:
        header = read_text(files.root / table).partition("\n")[0].split(",")
    except DataError:
        return False
    return {name.strip().strip('"') for name in header}.issuperset(columns)
