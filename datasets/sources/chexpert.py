"""CheXpert (Irvin et al. 2019, arXiv 1901.07031): chest radiographs with 14 labels extracted from reports.

Layout, of the full and of the small release: `train.csv`, `valid.csv`, `train/` and `valid/` with
`patientNNNNN/studyN/viewN_frontal.jpg`.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from datasets.cache.manifest import Listing
from datasets.errors import DataError
from datasets.settings import FileSettings
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import PublishedCase, PublishedDataset
from datasets.sources.common.tables import Line, read_table, require_images

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
SPLITS: Mapping[Literal["train", "validation"], str] = {"train": "train.csv", "validation": "valid.csv"}
UNKNOWN = float("nan")
MEANINGS: Mapping[str, float] = {"ignore": UNKNOWN, "zeros": 0.0, "ones": 1.0}


class ChexpertSettings(FileSettings):
    """How `uncertain` (-1) and `blank` labels (not mentioned in the report) are treated, and which `views` are used.

    The values are U-Ignore, U-Zeros and U-Ones of Irvin et al. Blank labels count as absent by default.
    """

    source: Literal["chexpert"] = "chexpert"
    uncertain: Literal["ignore", "zeros", "ones"] = "ignore"
    blank: Literal["zeros", "ignore"] = "zeros"
    views: Literal["frontal", "lateral", "all"] = "all"

    @property
    def collection(self) -> str:
        """Namespace of patients, the same for both releases."""
        return "chexpert"


class ChexpertSource(FileSource):
    """Source of `ChexpertSettings`. The id of an image is its path below the root."""

    folders = {"train": "image", "valid": "image"}  # noqa: RUF012
    tables = tuple(SPLITS.values())

    def __init__(self, settings: ChexpertSettings) -> None:
        super().__init__(settings)
        self._views = settings.views
        uncertain, blank = MEANINGS[settings.uncertain], MEANINGS[settings.blank]
        self._values = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": uncertain, "-1.0": uncertain, "": blank}

    def _published(self, listing: Listing) -> PublishedDataset:
        cases = [case for split in SPLITS for case in self._cases_of(split)]
        require_images((case.path for case in cases), listing.files, self._root)
        return PublishedDataset(cases=cases, labels=LABELS)

    def _cases_of(self, split: Literal["train", "validation"]) -> Iterator[PublishedCase]:
        _, lines = read_table(self._root / SPLITS[split], ("Path", "Frontal/Lateral", *LABELS))
        for line in lines:
            view = line["Frontal/Lateral"].lower()
            if view not in {"frontal", "lateral"}:
                raise DataError(
                    f"{line.place}: Frontal/Lateral is '{line['Frontal/Lateral']}'; allowed: Frontal, Lateral; "
                    "correct the line"
                )
            if self._views in {view, "all"}:
                path = _below_root(line)
                yield PublishedCase(id=path, path=path, patient=path.split("/")[1], category=view, official=split,
                           labels=self._labels_of(line))  # fmt: skip

    def _labels_of(self, line: Line) -> tuple[float, ...]:
        try:
            return tuple([self._values[line[name]] for name in LABELS])
        except KeyError as error:
            name = next(name for name in LABELS if line[name] not in self._values)
            raise DataError(
                f"{line.place}: {name} is '{line[name]}'; allowed: 1.0 (present), 0.0 (absent), -1.0 (uncertain), "
                "empty (not mentioned); correct the line"
            ) from error


def _below_root(line: Line) -> str:
    """Return the path without its first part, the name of the release, which may differ from the folder on disk."""
    path = line["Path"].partition("/")[2]
    if path.count("/") < 2:
        raise DataError(
            f"{line.place}: Path is '{line['Path']}'; allowed: RELEASE/train/PATIENT/STUDY/VIEW.jpg; correct the line"
        )
    return path
