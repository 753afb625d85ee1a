"""Images with one COCO file: polygons or run lengths as masks, boxes, classes that may overlap.

Layout: `images/` and one `annotations/*.json`, or the paths given by `images` and `annotations`.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from datasets.cache.manifest import Listing
from datasets.decoding.decode import Kind
from datasets.decoding.text import normal
from datasets.errors import DataError
from datasets.settings import FileSettings
from datasets.source import Box
from datasets.sources.coco_json import BoundingBox, CocoAnnotation, CocoBase, CocoFile, CocoImage, read_coco
from datasets.sources.common.faults import check_not_shares
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskRuns, PublishedCase, PublishedDataset
from datasets.sources.common.runs import compressed_runs, counted_runs, polygon_runs
from datasets.sources.common.tables import check_patients, require_images


def _relative_path(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"is {name}; allowed: a path below root; make it relative")
    return str(path)


RelativePath = Annotated[str, AfterValidator(_relative_path)]


class CocoSettings(FileSettings):
    """`annotations` is optional if the folder `annotations/` has exactly one `*.json`.

    Every image of the file counts as annotated; without annotations it has no class. Images may have the keys
    `patient` and `category`, and those of LVIS, `neg_category_ids` and `not_exhaustive_category_ids`: a category that
    is neither among the annotations of such an image nor negative is then not annotated.
    """

    source: Literal["coco"] = "coco"
    annotations: RelativePath | None = None
    images: RelativePath = "images"

    @property
    def collection(self) -> str:
        """Namespace of patients: the resolved root."""
        return str(self.root.resolve())


class _PatientImage(CocoImage):
    patient: str | int = ""
    category: str | int = ""
    neg_category_ids: list[int] | None = None
    """Categories of LVIS that are absent from the image; None if all categories without annotation are."""
    not_exhaustive_category_ids: tuple[int, ...] = ()
    """Categories of LVIS of which only some objects are annotated."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_url(cls, values: Any) -> Any:  # noqa: ANN401 - not validated yet
        """Use the end of `coco_url`, such as `train2017/1.jpg`, as LVIS has no `file_name`."""
        if isinstance(values, dict) and "file_name" not in values and isinstance(values.get("coco_url"), str):
            return values | {"file_name": "/".join(values["coco_url"].split("/")[-2:])}
        return values


class _Runs(CocoBase):
    size: tuple[int, int]
    """(height, width)."""
    counts: str | list[int]


class _SegmentedAnnotation(CocoAnnotation):
    category_id: int
    bbox: BoundingBox | None = None
    segmentation: _Runs | list[list[float]] | None = None
    iscrowd: bool = False


_SegmentationFile = CocoFile[_PatientImage, _SegmentedAnnotation]


class CocoSource(FileSource):
    """Source of `CocoSettings`. Crowd annotations give masks but no boxes, which would enclose several objects."""

    user_layout = True

    def __init__(self, settings: CocoSettings) -> None:
        super().__init__(settings)
        self._images, self._annotations = settings.images, settings.annotations

    def _folders(self) -> Mapping[str, Kind]:
        return {self._images: "image"}

    def _published(self, listing: Listing) -> PublishedDataset:
        path = self._root / (self._annotations or _only_json(self._root))
        coco = read_coco(path, _SegmentationFile)
        _check(coco, path)
        check_patients((f"{path}: image {image.id}", normal(str(image.patient).strip())) for image in coco.images)
        files = {normal(file): file for file in listing.files} | {file: file for file in listing.files}
        paths = [normal(f"{self._images}/{image.file_name}") for image in coco.images]
        require_images(paths, files, path)
        annotations: dict[int, list[_SegmentedAnnotation]] = defaultdict(list)
        for annotation in coco.annotations:
            annotations[annotation.image_id].append(annotation)
        reader = _Reader(
            path=path,
            names={category.id: category.name for category in sorted(coco.categories, key=lambda entry: entry.id)},
            masked=any(annotation.segmentation for annotation in coco.annotations),
            boxed=any(annotation.bbox for annotation in coco.annotations),
        )
        cases = [
            reader.case(image, files[file], annotations[image.id])
            for image, file in zip(coco.images, paths, strict=True)
        ]
        return PublishedDataset(cases=cases, classes=tuple(reader.names.values()), overlapping=True)


def _only_json(root: Path) -> str:
    files = sorted(path.name for path in (root / "annotations").glob("[!.]*.json"))
    if len(files) != 1:
        raise DataError(
            f"{root / 'annotations'} holds {len(files)} JSON files {files}; allowed: one; name one with `annotations`"
        )
    return f"annotations/{files[0]}"


def _check(coco: _SegmentationFile, path: Path) -> None:
    _check_unique((image.id for image in coco.images), "image id", path)
    _check_unique((annotation.id for annotation in coco.annotations), "annotation id", path)
    _check_unique((category.id for category in coco.categories), "category id", path)
    _check_unique((category.name for category in coco.categories), "category name", path)
    segmentations = [
        annotation.segmentation for annotation in coco.annotations if isinstance(annotation.segmentation, list)
    ]
    if any(max(image.width, image.height) > 1 for image in coco.images):
        check_not_shares("polygons", [polygon for polygons in segmentations for polygon in polygons], path)
    images = {image.id for image in coco.images}
    categories = {category.id for category in coco.categories}
    for image in coco.images:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            unknown = sorted(set(getattr(image, key) or ()) - categories)
            if unknown:
                raise DataError(
                    f"{path}: image {image.id}: {key} has {unknown[0]}; allowed: ids of the {len(categories)} "
                    "categories that the file lists; correct it"
                )
        both = sorted(set(image.neg_category_ids or ()).intersection(image.not_exhaustive_category_ids))
        if both:
            raise DataError(
                f"{path}: image {image.id}: {both[0]} is in neg_category_ids and in not_exhaustive_category_ids; "
                "allowed: one of them; remove the other"
            )
    for annotation in coco.annotations:
        for key, known in (("image_id", images), ("category_id", categories)):
            if getattr(annotation, key) not in known:
                raise DataError(
                    f"{path}: annotation {annotation.id}: {key} is {getattr(annotation, key)}; allowed: one of the "
                    f"{len(known)} that the file lists; correct or remove it"
                )


def _check_unique(values: Iterable[object], key: str, path: Path) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: {key} {repeated[0]} occurs twice; allowed: each once; correct or remove one")


def _unmasked_remark(unmasked: Sequence[_SegmentedAnnotation], drawn: Collection[str]) -> str:
    if not unmasked:
        return ""
    consequence = (
        "pixels outside of other masks of its class count as not annotated" if drawn else "the image has no masks"
    )
    return f"annotation {unmasked[0].id} has no segmentation, so {consequence}"


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Converts COCO images to cases. `masked` and `boxed`: whether the file has any masks and boxes."""

    path: Path
    names: Mapping[int, str]
    masked: bool
    boxed: bool

    def case(self, image: _PatientImage, file: str, annotations: list[_SegmentedAnnotation]) -> PublishedCase:
        """Return the case of one image with its file and annotations."""
        masks = tuple(self._mask(image, annotation) for annotation in annotations if annotation.segmentation)
        unmasked = [annotation for annotation in annotations if self.masked and not annotation.segmentation]
        drawn = {mask.name for mask in masks}
        partial = self._partly_annotated(image, unmasked)
        unknown = self._not_annotated(image, annotations) | (partial - drawn)
        absent = () if masks or unmasked else self.names.values()
        return PublishedCase(
            id=image.file_name,
            path=file,
            patient=normal(str(image.patient).strip()),
            category=str(image.category),
            size=(image.width, image.height),
            boxes=tuple(self._boxes(annotations)),
            boxed=self.boxed,
            partly_boxed=self._partly_boxed(image, annotations),
            masks=masks or tuple(MaskRuns(name=name, runs=b"") for name in absent if self.masked),
            not_annotated=unknown,
            partly_annotated=partial & drawn,
            remark=_unmasked_remark(unmasked, drawn),
        )

    def _not_annotated(self, image: _PatientImage, annotations: list[_SegmentedAnnotation]) -> frozenset[str]:
        """Return the classes that are neither annotated nor stated to be absent."""
        if image.neg_category_ids is None:
            return frozenset()
        negative = {self.names[number] for number in image.neg_category_ids}
        annotated = {self.names[annotation.category_id] for annotation in annotations}
        if negative & annotated:
            raise DataError(
                f"{self.path}: image {image.id}: {min(negative & annotated)} is in neg_category_ids and has an "
                "annotation; allowed: one of them; remove the other"
            )
        return frozenset(self.names.values()) - negative - annotated

    def _partly_annotated(self, image: _PatientImage, unmasked: Sequence[_SegmentedAnnotation]) -> frozenset[str]:
        """Return the classes of which some objects may have no mask."""
        numbers = [*image.not_exhaustive_category_ids, *(annotation.category_id for annotation in unmasked)]
        return frozenset(self.names[number] for number in numbers)

    def _partly_boxed(self, image: _PatientImage, annotations: list[_SegmentedAnnotation]) -> frozenset[str]:
        """Return the classes of which some objects may have no box."""
        numbers = [annotation.category_id for annotation in annotations if annotation.iscrowd or not annotation.bbox]
        named = {self.names[number] for number in (*numbers, *image.not_exhaustive_category_ids)}
        return self._not_annotated(image, annotations) | named

    def _boxes(self, annotations: list[_SegmentedAnnotation]) -> Iterator[Box]:
        for annotation in annotations:
            if annotation.bbox and not annotation.iscrowd:
                x, y, width, height = annotation.bbox
                yield Box(name=self.names[annotation.category_id], x=x, y=y, width=width, height=height)

    def _mask(self, image: _PatientImage, annotation: _SegmentedAnnotation) -> MaskRuns:
        segmentation, size, place = annotation.segmentation, (image.width, image.height), self._place(annotation)
        if not isinstance(segmentation, _Runs):
            return MaskRuns(name=self.names[annotation.category_id], runs=polygon_runs(segmentation or [], size, place))
        if segmentation.size != size[::-1]:
            raise DataError(
                f"{place}: its size is {list(segmentation.size)}; allowed: [{image.height}, {image.width}], height and "
                f"width of {image.file_name}; correct or remove the annotation"
            )
        counts = segmentation.counts
        if isinstance(counts, str):
            runs = compressed_runs(counts, place, pixels=size[0] * size[1])
        else:
            runs = counted_runs(counts, place, pixels=size[0] * size[1])
        return MaskRuns(name=self.names[annotation.category_id], runs=runs)

    def _place(self, annotation: _SegmentedAnnotation) -> str:
        return f"{self.path}: annotation {annotation.id}"
