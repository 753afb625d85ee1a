"""COVID-19 chest x-ray lung boxes (General Blockchain, 2020): findings and two lung boxes per image.

Layout: `images/` and `annotations/annotations.json` (COCO; `images[].metadata` holds patient and finding).
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from datasets.cache.manifest import Listing
from datasets.settings import FileSettings
from datasets.source import Box
from datasets.sources.ccxs import COLLECTION
from datasets.sources.coco_json import BoundingBox, CocoAnnotation, CocoFile, CocoImage, read_coco
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import PublishedCase, PublishedDataset

UNLABELLED = frozenset({"", "todo", "Unknown"})
HEALTHY = "No Finding"


class CovidLungBoxesSettings(FileSettings):
    """Entries without a file are skipped, so a subset of the images is enough. Labels are their findings."""

    source: Literal["covid_lung_boxes"] = "covid_lung_boxes"

    @property
    def collection(self) -> str:
        """Namespace of patients, shared with `ccxs`."""
        return COLLECTION


class _FindingImage(CocoImage):
    metadata: Mapping[str, str] = {}

    @property
    def findings(self) -> tuple[str, ...]:
        cell = self.metadata.get("finding", "").strip()
        return () if cell in UNLABELLED else tuple(name.strip() for name in cell.split(","))


class _LungBox(CocoAnnotation):
    bbox: BoundingBox
    category_id: int | None = None
    """Missing in one published annotation."""


class CovidLungBoxesSource(FileSource):
    """Source of `CovidLungBoxesSettings`. Boxes without a category are skipped with a warning."""

    folders = {"images": "image"}  # noqa: RUF012

    def _published(self, listing: Listing) -> PublishedDataset:
        coco = read_coco(self._root / "annotations" / "annotations.json", CocoFile[_FindingImage, _LungBox])
        boxes: dict[int, list[_LungBox]] = defaultdict(list)
        for annotation in coco.annotations:
            boxes[annotation.image_id].append(annotation)
        images = [image for image in coco.images if f"images/{image.file_name}" in listing.files]
        labels = tuple(sorted({name for image in images for name in image.findings} - {HEALTHY}))
        names: dict[int | None, str] = {category.id: category.name for category in coco.categories}
        return PublishedDataset(cases=[_case(image, boxes[image.id], names, labels) for image in images], labels=labels)


def _case(
    image: _FindingImage, boxes: list[_LungBox], names: Mapping[int | None, str], labels: tuple[str, ...]
) -> PublishedCase:
    named = [(box, names.get(box.category_id, "")) for box in boxes]
    nameless = [box.id for box, name in named if not name]
    patient = image.metadata.get("patientid", "").strip()
    return PublishedCase(
        id=image.file_name,
        path=f"images/{image.file_name}",
        patient=patient,
        category=image.metadata.get("finding", ""),
        size=(image.width, image.height),
        labels=tuple(float(name in image.findings) for name in labels) if image.findings else (),
        boxes=tuple(_box(box, name) for box, name in named if name),
        remark=f"annotation {nameless[0]} has no known category_id and is left out" if nameless else "",
    )


def _box(annotation: _LungBox, name: str) -> Box:
    x, y, width, height = annotation.bbox
    return Box(name=name, x=x, y=y, width=width, height=height)
