"""The optional tables of user data."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.decoding.text import normal, read_text
from datasets.errors import DataError
from datasets.source import BACKGROUND, Box, Point
from datasets.sources.common.tables import Line, check_patients, read_table

TAGS = frozenset({"1", "1.0", "0", "0.0", ""})
"""Texts in columns of labels."""


class Tables:
    """The optional tables; the image of each line must exist."""

    def __init__(self, root: Path, ids: Mapping[str, str], *, is_download: bool = False) -> None:
        """Initialise.

        Args:
            root: Folder of the data set.
            ids: The id of each image by the names that tables may use.
            is_download: Whether tables may be in another format, so that those without the column image are not read.
        """
        self.root, self._ids, self._is_download = root, ids, is_download
        self._images = frozenset(ids.values())

    def _lines(
        self, name: str, *columns: str, optional: Sequence[str] = ()
    ) -> tuple[tuple[str, ...], list[tuple[str, Line]]]:
        path = self.root / name
        if not path.exists() or (self._is_download and not _has_column(path, "image")):
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
        image = self._ids.get(normal(line["image"]))
        if image is None:
            raise DataError(
                f"{line.place}: there is no image '{line['image']}'; allowed: the {len(self._images)} images in "
                f"{self.root / 'images'}, such as {min(self._images, default='none')}; correct the name, add the image "
                "or remove the line"
            )
        return image

    def labels(self) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
        """Return the names of the labels, and their values by image."""
        header, lines = self._line_by_image("labels.csv")
        names = tuple(name for name in header if name and name != "image" and self._has_tags(name, lines))
        return names, {image: tuple(line.tag(name) for name in names) for image, line in lines.items()}

    def _has_tags(self, name: str, lines: Mapping[str, Line]) -> bool:
        """Return whether a column is one of labels; those of downloads may have text or grades, and are not read."""
        return not self._is_download or all(line[name] in TAGS for line in lines.values())

    def boxes(self) -> Mapping[str, list[Box]]:
        """Return the boxes by image."""
        boxes: dict[str, list[Box]] = defaultdict(list)
        for image, line in self._lines("boxes.csv", "x", "y", "width", "height", "label")[1]:
            x, y, width, height = (line.number(column) for column in ("x", "y", "width", "height"))
            boxes[image].append(Box(name=line.name("label"), x=x, y=y, width=width, height=height))
        return boxes

    def centres(self) -> Mapping[str, dict[str, tuple[float, float]]]:
        """Return the centre (x, y) of each structure by image."""
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
        """Return the points by image, which are of one class each unless classes overlap."""
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
        missing = sorted(self._images.difference(lines)) if header else []
        unnamed = [line.place for line in lines.values() if not line["patient"]]
        if missing or unnamed:
            fault = f"has no line for {missing[0]}" if missing else f"names no patient ({unnamed[0]})"
            raise DataError(
                f"{self.root / 'cases.csv'} {fault}; allowed: a patient for each image; add it or remove the table"
            )
        patients = {image: normal(line["patient"]) for image, line in lines.items()}
        check_patients((lines[image].place, patient) for image, patient in patients.items())
        return {image: (patients[image], line["category"]) for image, line in lines.items()}


def _has_column(path: Path, name: str) -> bool:
    header = read_text(path).partition("\n")[0]
    return name in (column.strip().strip('"') for column in header.split(","))
