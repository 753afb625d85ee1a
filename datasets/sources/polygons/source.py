"""Images with polygons of LabelMe or CVAT: masks of classes that may overlap, and boxes."""

from collections import Counter
from typing import Literal

from datasets.cache.manifest import Listing, walk
from datasets.decoding.decode import suffix_of
from datasets.decoding.text import normal
from datasets.errors import DataError
from datasets.settings import FileSettings
from datasets.source import Box
from datasets.sources.common.class_ids import NO_CLASS
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskRuns, PublishedCase, PublishedDataset
from datasets.sources.common.runs import polygon_runs
from datasets.sources.folder.groups import patients_by_pattern
from datasets.sources.folder.images import ImageFile, path_names
from datasets.sources.folder.patterns import Pattern, scan_patterns
from datasets.sources.folder.settings import BelowRoot, Expression
from datasets.sources.polygons.cvat import read_cvat
from datasets.sources.polygons.labelme import read_labelme
from datasets.sources.polygons.shapes import LabelledImage, Shape


class PolygonSettings(FileSettings):
    """Images at any depth below `root`, with JSON files of LabelMe beside them, or one XML file of CVAT."""

    source: Literal["polygons"] = "polygons"
    annotations: BelowRoot | None = None
    """The XML file of CVAT below `root`; default: JSON files of LabelMe."""
    patients: Expression | tuple[Expression, ...] | None = None
    """Regular expressions for the patient in the name of an image; default: each image is of another patient."""

    @property
    def collection(self) -> str:
        """Namespace of patients: the resolved root."""
        return str(self.root.resolve())


class PolygonSource(FileSource):
    """Source of `PolygonSettings`. Boxes and lines are no masks: their classes are not annotated without a mask."""

    user_layout = True

    def __init__(self, settings: PolygonSettings) -> None:
        super().__init__(settings)
        self._annotations, self._patients = settings.annotations, settings.patients

    def _scan(self) -> Listing:
        return scan_patterns(self._root, {Pattern("**/{name}.*"): "image"}, None)

    def _published(self, listing: Listing) -> PublishedDataset:
        labelled = {image.path: image for image in self._labelled(listing)}
        classes = tuple(sorted({shape.label for image in labelled.values() for shape in _shapes(image)}))
        if not classes:
            raise DataError(
                f"{self._root} has no shape of a class; allowed: files of LabelMe beside images, or `annotations`, an "
                "XML file of CVAT; correct `root`"
            )
        paths = sorted(labelled) if self._annotations is not None else list(listing.files)
        names = {path: path[: len(path) - len(suffix_of(path))] for path in paths}
        counts = Counter(names.values())
        ids = {path: name if counts[name] == 1 else path for path, name in names.items()}
        patients = self._named_patients(ids)
        cases = [_case(ids[path], path, labelled.get(path), classes, patients.get(ids[path], "")) for path in paths]
        return PublishedDataset(
            cases=cases, classes=classes, overlapping=True, is_excerpt=self._annotations is not None
        )

    def _labelled(self, listing: Listing) -> list[LabelledImage]:
        """Return the images with annotation."""
        if self._annotations is None:
            files = [
                path for path, _ in walk(self._root, "", lambda path, is_folder: is_folder or path.endswith(".json"))
            ]
            return read_labelme(self._root, files, listing.files.keys())
        images = path_names([ImageFile(id=path, path=path) for path in listing.files])
        return read_cvat(self._root / self._annotations, {normal(name): path for name, path in images.items()})

    def _named_patients(self, ids: dict[str, str]) -> dict[str, str]:
        if self._patients is None:
            return {}
        patterns = (self._patients,) if isinstance(self._patients, str) else self._patients
        return patients_by_pattern(patterns, {name: name for name in ids.values()}, self._root)


def _shapes(image: LabelledImage) -> list[Shape]:
    """Return the shapes of classes, without those that stand for the background."""
    return [shape for shape in image.shapes if shape.label and shape.label.strip("_").casefold() not in NO_CLASS]


def _case(name: str, path: str, image: LabelledImage | None, classes: tuple[str, ...], patient: str) -> PublishedCase:
    """Return an image; without annotation it is unlabelled, and without shapes it shows no class."""
    if image is None:
        return PublishedCase(id=name, path=path, patient=patient)
    shapes = _shapes(image)
    masks = tuple(MaskRuns(name=shape.label, runs=_runs(shape, image)) for shape in shapes if shape.has_mask)
    drawn = {mask.name for mask in masks}
    open_ = frozenset(shape.label for shape in shapes if not shape.has_mask)
    kinds = sorted({shape.kind for shape in shapes if not shape.has_mask})
    return PublishedCase(
        id=name,
        path=path,
        patient=patient,
        size=image.size,
        boxes=tuple(
            Box(name=shape.label, x=shape.box[0], y=shape.box[1], width=shape.box[2], height=shape.box[3])
            for shape in shapes
            if shape.box is not None
        ),
        boxed=True,
        partly_boxed=frozenset(shape.label for shape in shapes if shape.box is None),
        masks=masks or tuple(MaskRuns(name=label, runs=b"") for label in classes if not shapes),
        not_annotated=open_ - drawn,
        partly_annotated=open_ & drawn,
        remark=f"has shapes that are no masks ({', '.join(kinds)}); allowed: polygons; draw these" if kinds else "",
    )


def _runs(shape: Shape, image: LabelledImage) -> bytes:
    if shape.runs is not None:
        return shape.runs
    return polygon_runs([[number for point in shape.polygon for number in point]], image.size, image.place)
