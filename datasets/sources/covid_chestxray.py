"""COVID-19 image data collection (Cohen et al. 2020, arXiv 2006.11988): radiographs gathered from publications.

Layout: `metadata.csv`, `images/`, and in `annotations/lungVAE-masks/` lung masks predicted by a
model (Selvan et al. 2020, arXiv 2005.10052), which are weak labels.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datasets.cache.manifest import Listing
from datasets.settings import FileSettings
from datasets.sources.ccxs import COLLECTION
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskFile, PublishedCase, PublishedDataset
from datasets.sources.common.tables import Line, read_table
from datasets.sources.covid_lung_boxes import HEALTHY, UNLABELLED

COLUMNS = ("patientid", "finding", "modality", "folder", "filename")
MASKS = "annotations/lungVAE-masks"
LUNGS = "Lungs"


class CovidChestxraySettings(FileSettings):
    """Entries without a file are skipped, so a subset of the images is enough. Labels are all parts of the findings.

    `Pneumonia/Viral/COVID-19` has the labels Pneumonia, Viral and COVID-19; `COVID-19, ARDS`, as in older releases,
    both of these.
    """

    source: Literal["covid_chestxray"] = "covid_chestxray"

    @property
    def collection(self) -> str:
        """Namespace of patients, shared with `ccxs` and `covid_lung_boxes`."""
        return COLLECTION


class CovidChestxraySource(FileSource):
    """Source of `CovidChestxraySettings`. Skips CT images, volumes, and masks that differ in size from their image."""

    folders = {"images": "image", "annotations": "foreground"}  # noqa: RUF012

    def _published(self, listing: Listing) -> PublishedDataset:
        lines: dict[str, list[Line]] = defaultdict(list)
        for line in read_table(self._root / "metadata.csv", COLUMNS)[1]:
            if line["modality"] == "X-ray" and f"{line['folder']}/{line['filename']}" in listing.files:
                lines[line["filename"]].append(line)
        labels = tuple(
            sorted({label for image_lines in lines.values() for label in _findings(image_lines[-1])} - {HEALTHY})
        )
        cases = [self._case(name, image_lines, labels, listing) for name, image_lines in lines.items()]
        return PublishedDataset(
            cases=cases, classes=(LUNGS,) if any(case.masks for case in cases) else (), labels=labels
        )

    def _case(self, name: str, lines: Sequence[Line], labels: Sequence[str], listing: Listing) -> PublishedCase:
        """Return the case of one image; if several lines name it, the last one is used, as in `ccxs`."""
        path, last = f"images/{name}", lines[-1]
        patients = list(dict.fromkeys(line["patientid"] for line in lines))
        findings = _findings(last)
        masks = [mask for mask in _mask_paths(name) if mask in listing.files][:1]
        fitting = [mask for mask in masks if self._fits(mask, path)]
        remarks = [f"{name} has the patients {patients} in metadata.csv; the last counts"] if len(patients) > 1 else []
        remarks += [f"{mask} has another size than its image and is left out" for mask in masks if mask not in fitting]
        return PublishedCase(
            id=name,
            path=path,
            patient=last["patientid"],
            category=last["finding"],
            labels=tuple(float(label in findings) for label in labels) if findings else (),
            masks=tuple(MaskFile(path=mask, name=LUNGS) for mask in fitting),
            remark="; also ".join(remarks),
        )

    def _fits(self, mask: str, image: str) -> bool:
        """Compare the sizes in the file headers; unreadable files are reported elsewhere."""
        sizes = {_size(self._root / path) for path in (mask, image)}
        return None in sizes or len(sizes) == 1


def _findings(line: Line) -> frozenset[str]:
    if line["finding"] in UNLABELLED:
        return frozenset()
    return frozenset(part.strip() for path in line["finding"].split(",") for part in path.split("/") if part.strip())


def _mask_paths(name: str) -> tuple[str, ...]:
    """Return the possible paths of the mask of an image; some published files have a double suffix."""
    stem = name.rpartition(".")[0]
    return f"{MASKS}/{stem}_mask.png", f"{MASKS}/{stem}_mask.png.png"


def _size(path: Path) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except OSError:
        return None
