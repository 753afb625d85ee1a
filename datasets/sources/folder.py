"""A user's own data: `images/`, `masks/` and a few optional tables, all found by file name."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.cache.manifest import Listing
from datasets.decoding.decode import SUFFIXES, Kind
from datasets.decoding.text import normal
from datasets.errors import DataError
from datasets.settings import FileSettings
from datasets.source import Box
from datasets.sources.common.class_ids import IgnoreSettings, check_names, read_classes
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import Case, MaskFile, Published
from datasets.sources.common.tables import Line, check_patients, read_table

LOSSLESS = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"})
FOLDERS = {"image": "images", "images": "images", "mask": "masks", "masks": "masks"}
TABLES = {
    "case": "cases.csv", "cases": "cases.csv", "patients": "cases.csv", "labels": "labels.csv", "boxes": "boxes.csv",
    "centers": "centres.csv", "centres": "centres.csv",
}  # fmt: skip
"""What the names that users give to folders and tables should be."""
SHEETS = frozenset({".csv", ".tsv", ".xls", ".xlsx", ".ods"})


class FolderSettings(FileSettings, IgnoreSettings):
    """Images in `images/<stem>.png|jpg|tif|bmp|gif|webp|dcm`.

    Masks: `masks/<stem>.png|tif|bmp|gif|webp` with class ids, or `masks/<class>/<stem>.png` where classes overlap.
    Optional:
    `labels.csv` (image, one column a label: 1, 0, or empty for unknown), `boxes.csv` (image, x, y, width,
    height, label), `centres.csv` (image, x, y[, structure]), `cases.csv` (image, patient[, category]),
    `classes.txt` (one foreground class a line, id 1 first). Tables name an image by stem or file name.
    """

    source: Literal["folder"] = "folder"

    @property
    def collection(self) -> str:
        """Namespace of patients: the resolved root."""
        return str(self.root.resolve())


class FolderSource(FileSource):
    """Source of `FolderSettings`. Without `cases.csv` each image is its own patient."""

    user_layout = True

    def _folders(self) -> Mapping[str, Kind]:
        masks = self._root / "masks"
        by_class = masks.is_dir() and any(map(_holds_images, masks.iterdir()))
        return {"images": "image", "masks": "foreground" if by_class else "ids"}

    def _published(self, listing: Listing) -> Published:
        _check_entries(self._root)
        paths = _shown(listing, "images")
        deeper = next((path for path in paths if path.count("/") > 1), None)
        if deeper is not None:
            raise DataError(f"{self._root / deeper} is in a folder of its own; allowed: images/<name>.png; move it up")
        overlapping = listing.folders["masks"] == "foreground"
        tables = _Tables(self._root, paths)
        masks = _masks(listing, tables.images, overlapping=overlapping)
        labels, tags = tables.labels()
        boxes, centres, patients = tables.boxes(), tables.centres(), tables.patients()
        cases = [
            Case(
                id=stem,
                path=path,
                patient=patients[stem][0] if stem in patients else "",
                category=patients[stem][1] if stem in patients else "",
                labels=tags.get(stem, ()),
                boxes=tuple(boxes[stem]),
                centres=tuple((name, x, y) for name, (x, y) in centres[stem].items()),
                masks=tuple(masks[stem]),
            )
            for path in paths
            for stem in [PurePosixPath(path).stem]
        ]
        classes = _classes(self._root, masks, overlapping=overlapping)
        return Published(cases=cases, classes=classes, overlapping=overlapping, labels=labels)


class _Tables:
    """The optional tables; each line's image must exist."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root = root
        self._stems = {PurePosixPath(path).stem for path in paths}
        self.images: dict[str, str] = {}
        for path in paths:
            stem = PurePosixPath(path).stem
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

    def _once(self, name: str, *columns: str, optional: Sequence[str] = ()) -> tuple[tuple[str, ...], dict[str, Line]]:
        header, lines = self._lines(name, *columns, optional=optional)
        found: dict[str, Line] = {}
        for image, line in lines:
            if image in found:
                raise DataError(f"{line.place}: {image} stands here twice; allowed: one line an image; remove one")
            found[image] = line
        return header, found

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
        header, lines = self._once("labels.csv")
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

    def patients(self) -> dict[str, tuple[str, str]]:
        """Return patient and category by image: of every image, or of none where the table is missing."""
        header, lines = self._once("cases.csv", "patient", optional=("category",))
        missing = sorted(self._stems.difference(lines)) if header else []
        unnamed = [line.place for line in lines.values() if not line["patient"]]
        if missing or unnamed:
            what = f"has no line for {missing[0]}" if missing else f"names no patient ({unnamed[0]})"
            raise DataError(
                f"{self.root / 'cases.csv'} {what}; allowed: a patient for each image; add it or remove the table"
            )
        patients = {image: normal(line["patient"]) for image, line in lines.items()}
        check_patients((lines[image].place, patient) for image, patient in patients.items())
        return {image: (patients[image], line["category"]) for image, line in lines.items()}


def _shown(listing: Listing, folder: str) -> list[str]:
    """Return the files below a folder but those in hidden ones, as tools leave copies in."""
    return [path for path in listing.inside(folder) if "/." not in path]


def _holds_images(folder: Path) -> bool:
    if folder.name[0] == "." or not folder.is_dir():
        return False
    return any(path.suffix.lower() in SUFFIXES for path in folder.rglob("[!.]*"))


def _check_entries(root: Path) -> None:
    """Refuse what is not read because of its name, and images below a folder for each part of the data."""
    for entry in sorted(root.iterdir()):
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


def _masks(listing: Listing, images: Mapping[str, str], *, overlapping: bool) -> Mapping[str, list[MaskFile]]:
    """Return the masks by the stem of their image; `images` as `_Tables` has them."""
    masks: dict[str, list[MaskFile]] = defaultdict(list)
    orphans = []
    for path in _shown(listing, "masks"):
        file = PurePosixPath(path)
        if len(file.parts) != (3 if overlapping else 2) or file.suffix.lower() not in LOSSLESS:
            raise DataError(
                f"{listing.root / path} is no mask; allowed: masks/<image>.png, or masks/<class>/<image>.png for "
                "all; move or convert it"
            )
        stem = images.get(normal(file.stem))
        if stem is None:
            orphans.append(path)
        else:
            masks[stem].append(MaskFile(path=path, name=file.parts[1] if overlapping else ""))
    if orphans:
        beside = [PurePosixPath(path) for path in orphans]
        remedy = _renaming([file.stem for file in beside if file.parent == beside[0].parent], images)
        raise DataError(
            f"{listing.root / orphans[0]} belongs to no image ({len(orphans)} such masks); allowed: the name of a file "
            f"in images/; {remedy}"
        )
    doubled = [stem for stem, files in masks.items() if len({file.name for file in files}) < len(files)]
    if doubled:
        raise DataError(f"{listing.root}: {doubled[0]} has two masks; allowed: one (a class); remove one")
    return masks


def _renaming(stems: Sequence[str], images: Mapping[str, str]) -> str:
    """Return what to do about names of masks that are no names of images."""
    names = [normal(stem) for stem in stems]
    for image in images if len(names) > 1 else ():
        ending, beginning = names[0].removeprefix(image), names[0].removesuffix(image)
        if ending != names[0] and _most(name.removesuffix(ending) in images for name in names):
            return f"remove the ending '{ending}' of the names in this folder"
        if beginning != names[0] and _most(name.removeprefix(beginning) in images for name in names):
            return f"remove the beginning '{beginning}' of the names in this folder"
    return "rename it"


def _most(fits: Iterable[bool]) -> bool:
    found = list(fits)
    return 2 * sum(found) > len(found)


def _classes(root: Path, masks: Mapping[str, list[MaskFile]], *, overlapping: bool) -> tuple[str, ...] | None:
    return tuple(_class_names(root, masks)) if overlapping or (root / "classes.txt").exists() else None


def _class_names(root: Path, masks: Mapping[str, list[MaskFile]]) -> Iterator[str]:
    path = root / "classes.txt"
    found = sorted({mask.name for files in masks.values() for mask in files} - {""})
    if not path.exists():
        yield from found
        return
    names = read_classes(path, ids=not found)
    check_names(names, path, ids=not found)
    unknown = [name for name in found if name not in names]
    if unknown or len(set(names)) < len(names):
        raise DataError(
            f"{path} lists {names}{f' beside the mask folders {found}' if found else ''}; allowed: each class once; "
            "correct the list"
        )
    yield from names
