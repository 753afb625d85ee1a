"""User data: `images/`, `masks/` and optional tables, matched by file name."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import model_validator

from datasets.cache.manifest import Listing
from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES, Kind, stem_of, suffix_of
from datasets.decoding.text import normal
from datasets.errors import DataError
from datasets.settings import FileSettings, VolumeSettings
from datasets.source import BACKGROUND, Box, Point
from datasets.sources.common.class_ids import IgnoreSettings, check_names, read_classes
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskFile, PublishedCase, PublishedDataset
from datasets.sources.common.tables import Line, check_patients, read_table

LOSSLESS = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"}) | VOLUME_SUFFIXES
SCRIBBLES = "scribbles"
FOLDERS = {
    "image": "images", "images": "images", "mask": "masks", "masks": "masks", "scribble": SCRIBBLES,
    "scribbles": SCRIBBLES,
}  # fmt: skip
TABLES = {
    "case": "cases.csv", "cases": "cases.csv", "patients": "cases.csv", "labels": "labels.csv", "boxes": "boxes.csv",
    "centers": "centres.csv", "centres": "centres.csv", "points": "points.csv",
}  # fmt: skip
"""Correct names by common misspellings of tables."""
ANNOTATOR, FOLDER = re.compile(r"[A-Za-z0-9_-]+"), re.compile(r"[^./\\][^/\\]*")
"""Names of annotators, which are part of the names of splits, and of folders."""
SHEETS = frozenset({".csv", ".tsv", ".xls", ".xlsx", ".ods"})


class FolderSettings(FileSettings, IgnoreSettings, VolumeSettings):
    """Images in `images/<stem>.png|jpg|tif|bmp|gif|webp|dcm`, volumes also in `images/<stem>.nii|nii.gz`.

    Masks: `masks/<stem>.png|tif|bmp|gif|webp` with class ids, or `masks/<class>/<stem>.png` if classes overlap.
    Masks of volumes: TIFF files with as many pages, or NIfTI files with the same affine.
    Optional:
    `labels.csv` (image, one column per label: 1, 0, or empty for unknown), `boxes.csv` (image, x, y, width,
    height, label), `centres.csv` (image, x, y[, structure]), `points.csv` (image, x, y, class),
    `cases.csv` (image, patient[, category]), `classes.txt` (one foreground class per line, id 1 first). Tables refer to
    images by stem or file name. `scribbles/` has the layout of `masks/`: class ids, or 0 and 1 for each class, and
    outside of scribbles 255 or an id of `ignore`.
    """

    source: Literal["folder"] = "folder"
    annotators: dict[str, str] | None = None
    """Folder of the masks of each annotator, by name; default: only those in `masks`."""
    train: str | None = None
    """The annotator whose masks are trained on; default: the first."""
    missing: Literal["absent", "not_annotated"] = "absent"
    """What it means for a class that overlaps others if an image has masks of these, but none of the class."""

    @model_validator(mode="after")
    def _known_annotators(self) -> Self:
        if self.annotators is None:
            if self.train is not None:
                raise ValueError(f"train is {self.train}; allowed: only with `annotators`; list them or remove it")
            return self
        folders = list(self.annotators.values())
        if len(folders) < 2 or len(set(folders)) < len(folders):
            raise ValueError(
                f"annotators have the folders {', '.join(folders) or 'none'}; allowed: at least two, all different; "
                "name the folder of each annotator"
            )
        for name, folder in self.annotators.items():
            if not ANNOTATOR.fullmatch(name):
                raise ValueError(f"annotators has the name '{name}'; allowed: letters, digits, '-', '_'; rename it")
            if not FOLDER.fullmatch(folder) or folder.casefold() == "images":
                raise ValueError(
                    f"annotators.{name} is '{folder}'; allowed: a folder beside images/, such as masks; correct it"
                )
        if self.train is not None and self.train not in self.annotators:
            raise ValueError(
                f"train is {self.train}; allowed: {', '.join(self.annotators)}; name one of the annotators"
            )
        return self

    @property
    def trained(self) -> str | None:
        """Return the annotator whose masks are read, None without annotators."""
        return self.train or (next(iter(self.annotators)) if self.annotators else None)

    @property
    def mask_folders(self) -> tuple[str, ...]:
        """Return the folders of masks, first the one that is read."""
        if self.annotators is None:
            return ("masks",)
        read = self.annotators[self.trained or ""]
        return (read, *(folder for folder in self.annotators.values() if folder != read))

    @property
    def collection(self) -> str:
        """Namespace of patients: the resolved root."""
        return str(self.root.resolve())


class FolderSource(FileSource):
    """Source of `FolderSettings`. Without `cases.csv` each image counts as a separate patient."""

    user_layout = True

    def __init__(self, settings: FolderSettings) -> None:
        super().__init__(settings)
        self._mask_folders = settings.mask_folders
        self._annotated = settings.annotators is not None
        self._ignored_ids = settings.ignored_ids
        self._is_absent = settings.missing == "absent"

    @cached_property
    def _has_scribbles(self) -> bool:
        return SCRIBBLES not in self._mask_folders and (self._root / SCRIBBLES).is_dir()

    @cached_property
    def _is_by_class(self) -> bool:
        """Whether the masks of each class are in a folder of their own; of data without masks, the scribbles."""
        folders = [self._root / name for name in self._mask_folders]
        entries = [entry for folder in folders if folder.is_dir() for entry in folder.glob("[!.]*")]
        if not entries and self._has_scribbles:
            entries = list((self._root / SCRIBBLES).glob("[!.]*"))
        return any(map(_holds_images, entries))

    def _folders(self) -> Mapping[str, Kind]:
        kind: Kind = "foreground" if self._is_by_class and not self._ignored_ids else "ids"
        folders: dict[str, Kind] = {"images": "image", **dict.fromkeys(sorted(self._mask_folders), kind)}
        return folders | ({SCRIBBLES: "ids"} if self._has_scribbles else {})

    def _published(self, listing: Listing) -> PublishedDataset:
        _check_entries(self._root, self._mask_folders)
        if self._annotated:
            _check_folders(self._root, self._mask_folders)
        paths = _visible_files(listing, "images")
        nested = next((path for path in paths if path.count("/") > 1), None)
        if nested is not None:
            raise DataError(f"{self._root / nested} is in a subfolder; allowed: images/<name>.png; move it up")
        overlapping = self._is_by_class
        if not overlapping and not self._is_absent:
            raise DataError(
                f"{self._root}: missing is not_annotated, without masks/<class>/; allowed: with masks/<class>/, or "
                "`ignore` for pixels without a label; remove `missing`"
            )
        tables = _Tables(self._root, paths)
        masks, *others = (
            _masks(listing, folder, tables.images, overlapping=overlapping) for folder in self._mask_folders
        )
        scribbles = _masks(listing, SCRIBBLES, tables.images, overlapping=overlapping) if self._has_scribbles else {}
        labels, tags = tables.labels()
        boxes, centres, patients = tables.boxes(), tables.centres(), tables.patients()
        points = tables.points(overlapping=overlapping)
        masked, scribbled = _names([masks, *others]), _names([scribbles])
        classes = _classes(self._root, masked or scribbled, overlapping=overlapping)
        if overlapping:
            _check_scribbled(self._root, scribbled, classes or ())
        cases = [
            PublishedCase(
                id=stem,
                path=path,
                patient=patients[stem][0] if stem in patients else "",
                category=patients[stem][1] if stem in patients else "",
                labels=tags.get(stem, ()),
                boxes=tuple(boxes[stem]),
                centres=tuple((name, x, y) for name, (x, y) in centres[stem].items()),
                masks=tuple(masks.get(stem, ())),
                not_annotated=self._not_annotated(masks.get(stem, ()), masked, classes or ()),
                scribbles=tuple(scribbles.get(stem, ())),
                points=tuple(points[stem]),
                other_masks=tuple(mask for other in others for mask in other.get(stem, ())),
            )
            for path in paths
            for stem in [stem_of(path)]
        ]
        return PublishedDataset(cases=cases, classes=classes, overlapping=overlapping, labels=labels)

    def _not_annotated(
        self, masks: Sequence[MaskFile], masked: Collection[str], classes: Sequence[str]
    ) -> frozenset[str]:
        """Return the overlapping classes that are not annotated in an image.

        Args:
            masks: The masks of the image.
            masked: Classes with masks in any image.
            classes: All classes.
        """
        if not masks or not self._is_by_class:
            return frozenset()
        without = frozenset(classes).difference(mask.name for mask in masks)
        return without.difference(masked) if self._is_absent else without


class _Tables:
    """The optional tables; the image of each line must exist."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root = root
        self._stems = set(map(stem_of, paths))
        self.images: dict[str, str] = {}
        for path in paths:
            stem = stem_of(path)
            for name in (stem, PurePosixPath(path).name):
                if self.images.setdefault(normal(name), stem) != stem:
                    raise DataError(
                        f"{root / path}: '{name}' names two images; allowed: names that differ without their endings "
                        "and in any Unicode form; rename one"
                    )

    def _lines(
        self, name: str, *columns: str, optional: Sequence[str] = ()
    ) -> tuple[tuple[str, ...], list[tuple[str, Line]]]:
        path = self.root / name
        if not path.exists():
            return (), []
        header, lines = read_table(path, ("image", *columns), optional)
        return header, [(self._image(line), line) for line in lines]

    def _line_by_image(
        self, name: str, *columns: str, optional: Sequence[str] = ()
    ) -> tuple[tuple[str, ...], dict[str, Line]]:
        header, lines = self._lines(name, *columns, optional=optional)
        line_by_image: dict[str, Line] = {}
        for image, line in lines:
            if image in line_by_image:
                raise DataError(f"{line.place}: {image} is listed twice; allowed: one line an image; remove one")
            line_by_image[image] = line
        return header, line_by_image

    def _image(self, line: Line) -> str:
        image = self.images.get(normal(line["image"]))
        if image is None:
            raise DataError(
                f"{line.place}: there is no image '{line['image']}'; allowed: the {len(self._stems)} images in "
                f"{self.root / 'images'}, such as {min(self._stems, default='none')}; correct the name, add the image "
                "or remove the line"
            )
        return image

    def labels(self) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
        header, lines = self._line_by_image("labels.csv")
        names = tuple(name for name in header if name and name != "image")
        return names, {image: tuple(line.tag(name) for name in names) for image, line in lines.items()}

    def boxes(self) -> Mapping[str, list[Box]]:
        boxes: dict[str, list[Box]] = defaultdict(list)
        for image, line in self._lines("boxes.csv", "x", "y", "width", "height", "label")[1]:
            x, y, width, height = (line.number(column) for column in ("x", "y", "width", "height"))
            boxes[image].append(Box(name=line.name("label"), x=x, y=y, width=width, height=height))
        return boxes

    def centres(self) -> Mapping[str, dict[str, tuple[float, float]]]:
        centres: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
        for image, line in self._lines("centres.csv", "x", "y", optional=("structure",))[1]:
            structure = line["structure"] or "centre"
            if structure in centres[image]:
                raise DataError(
                    f"{line.place}: {image} has a second {structure}; allowed: one point a structure; remove one"
                )
            centres[image][structure] = (line.number("x"), line.number("y"))
        return centres

    def points(self, *, overlapping: bool) -> Mapping[str, list[Point]]:
        points: dict[str, list[Point]] = defaultdict(list)
        listed: dict[tuple[str, float, float], set[str]] = defaultdict(set)
        for image, line in self._lines("points.csv", "x", "y", "class")[1]:
            point = Point(name=line.name("class"), x=line.number("x"), y=line.number("y"))
            others = listed[image, point.x, point.y]
            if point.name in others:
                raise DataError(f"{line.place}: the point is listed twice; allowed: each point once; remove one")
            if others and (not overlapping or BACKGROUND in {point.name, *others}):
                raise DataError(
                    f"{line.place}: the point is in '{point.name}' and in '{min(others)}'; allowed: one class; correct "
                    "or remove one"
                )
            others.add(point.name)
            points[image].append(point)
        return points

    def patients(self) -> dict[str, tuple[str, str]]:
        """Return patient and category by image: for every image, or empty without the table."""
        header, lines = self._line_by_image("cases.csv", "patient", optional=("category",))
        missing = sorted(self._stems.difference(lines)) if header else []
        unnamed = [line.place for line in lines.values() if not line["patient"]]
        if missing or unnamed:
            fault = f"has no line for {missing[0]}" if missing else f"names no patient ({unnamed[0]})"
            raise DataError(
                f"{self.root / 'cases.csv'} {fault}; allowed: a patient for each image; add it or remove the table"
            )
        patients = {image: normal(line["patient"]) for image, line in lines.items()}
        check_patients((lines[image].place, patient) for image, patient in patients.items())
        return {image: (patients[image], line["category"]) for image, line in lines.items()}


def _visible_files(listing: Listing, folder: str) -> list[str]:
    """Return the files below a folder, except in hidden folders, in which some tools keep copies."""
    return [path for path in listing.inside(folder) if "/." not in path]


def _holds_images(folder: Path) -> bool:
    if folder.name[0] == "." or not folder.is_dir():
        return False
    suffixes = SUFFIXES | VOLUME_SUFFIXES
    return any(suffix_of(path.name) in suffixes for path in folder.rglob("[!.]*"))


def _check_folders(root: Path, names: Sequence[str]) -> None:
    """Raise `DataError` if a folder of masks is missing."""
    for name in names:
        if not (root / name).is_dir():
            raise DataError(f"{root / name} is no folder; allowed: the masks of an annotator; correct `annotators`")


def _check_entries(root: Path, mask_folders: Sequence[str]) -> None:
    """Raise `DataError` for misspelled folders and tables, and for separate folders for each part of the data."""
    for entry in sorted(entry for entry in root.iterdir() if entry.name not in mask_folders):
        if entry.is_dir():
            name = FOLDERS.get(entry.name.casefold())
        elif entry.suffix.lower() in SHEETS:
            name = TABLES.get(entry.stem.casefold())
        else:
            name = "classes.txt" if entry.name.casefold() == "classes.txt" else None
        if name is not None and not (root / name).exists():
            raise DataError(f"{entry} is not read; allowed: {name}, spelled like this; rename or convert it")
    if (root / "images").is_dir():
        return
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        if (folder / "images").is_dir():
            raise DataError(
                f"{root} has no folder images, but {folder.name}/images; allowed: images below `root`; set root to "
                f"{folder}, or move all images together and name the test images with split.test"
            )


def _masks(
    listing: Listing, folder: str, images: Mapping[str, str], *, overlapping: bool
) -> Mapping[str, list[MaskFile]]:
    """Return the masks in a folder by the stem of their image; `images` is `_Tables.images`."""
    is_scribbles = folder == SCRIBBLES
    kind, files_name = ("no file of scribbles", "files") if is_scribbles else ("no mask", "masks")
    masks: dict[str, list[MaskFile]] = defaultdict(list)
    orphans = []
    for path in _visible_files(listing, folder):
        file = PurePosixPath(path)
        if len(file.parts) != (3 if overlapping else 2) or suffix_of(path) not in LOSSLESS:
            raise DataError(
                f"{listing.root / path} is {kind}; allowed: {folder}/<image>.png, or "
                f"{folder}/<class>/<image>.png for all; move or convert it"
            )
        stem = images.get(normal(stem_of(path)))
        if stem is None:
            orphans.append(path)
        else:
            masks[stem].append(MaskFile(path=path, name=file.parts[1] if overlapping else ""))
    if orphans:
        parent = orphans[0].rpartition("/")[0]
        remedy = _renaming([stem_of(path) for path in orphans if path.rpartition("/")[0] == parent], images)
        raise DataError(
            f"{listing.root / orphans[0]} belongs to no image ({len(orphans)} such {files_name}); allowed: the name of "
            f"a file in images/; {remedy}"
        )
    duplicated = [stem for stem, files in masks.items() if len({file.name for file in files}) < len(files)]
    if duplicated:
        raise DataError(
            f"{listing.root}: {duplicated[0]} has two {files_name} in {folder}; allowed: one (a class); remove one"
        )
    return masks


def _names(masks: Iterable[Mapping[str, Sequence[MaskFile]]]) -> frozenset[str]:
    """Return the classes that have a folder of masks or scribbles; none for files of class ids."""
    return frozenset(mask.name for by_stem in masks for files in by_stem.values() for mask in files) - {""}


def _check_scribbled(root: Path, scribbled: Collection[str], classes: Sequence[str]) -> None:
    """Raise `DataError` for scribbles of a class that is neither listed nor has masks, as some class has."""
    unknown = sorted(set(scribbled).difference(classes))
    if unknown:
        raise DataError(
            f"{root / SCRIBBLES / unknown[0]} is of a class without masks; allowed: {', '.join(classes)}; list all "
            "classes in classes.txt, or remove it"
        )


def _renaming(stems: Sequence[str], images: Mapping[str, str]) -> str:
    """Return the remedy for names of masks that match no image."""
    names = [normal(stem) for stem in stems]
    for image in images if len(names) > 1 else ():
        ending, beginning = names[0].removeprefix(image), names[0].removesuffix(image)
        if ending != names[0] and _is_majority(name.removesuffix(ending) in images for name in names):
            return f"remove the ending '{ending}' of the names in this folder"
        if beginning != names[0] and _is_majority(name.removeprefix(beginning) in images for name in names):
            return f"remove the beginning '{beginning}' of the names in this folder"
    return "rename it"


def _is_majority(tests: Iterable[bool]) -> bool:
    matches = list(tests)
    return 2 * sum(matches) > len(matches)


def _classes(root: Path, folders: Collection[str], *, overlapping: bool) -> tuple[str, ...] | None:
    return tuple(_class_names(root, sorted(folders))) if overlapping or (root / "classes.txt").exists() else None


def _class_names(root: Path, class_folders: Sequence[str]) -> Iterator[str]:
    path = root / "classes.txt"
    if not path.exists():
        yield from class_folders
        return
    names = read_classes(path, ids=not class_folders)
    check_names(names, path, ids=not class_folders)
    unknown = [name for name in class_folders if name not in names]
    if unknown or len(set(names)) < len(names):
        raise DataError(
            f"{path} lists {names}{f' beside the mask folders {class_folders}' if class_folders else ''}; allowed: "
            "each class once; correct the list"
        )
    yield from names
