"""JSON files of LabelMe, one beside each image."""

from collections.abc import Collection
from math import dist
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any, Final

from datasets.decoding.decode import stem_of
from datasets.decoding.text import read_json
from datasets.errors import DataError
from datasets.sources.polygons.shapes import LabelledImage, Point, Shape, box_shape, ellipse_shape, polygon_shape

FILE: Final = "a file of LabelMe"


def read_labelme(root: Path, names: Collection[str], images: Collection[str]) -> list[LabelledImage]:
    """Return the images that JSON files of LabelMe annotate; other JSON files are skipped.

    Args:
        root: Folder of the data set.
        names: JSON files below it.
        images: Images below it.

    Raises:
        DataError: A file is damaged, its image is missing, or two files annotate one image.
    """
    labelled: dict[str, LabelledImage] = {}
    for name in sorted(names):
        document = read_json(root / name, FILE)
        if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
            continue
        image = _image(root, name, document, images)
        if image.path in labelled:
            raise DataError(
                f"{image.place} and {labelled[image.path].place} annotate {image.path}; allowed: one file an image; "
                "remove one"
            )
        labelled[image.path] = image
    return list(labelled.values())


def _image(root: Path, name: str, document: dict[str, Any], images: Collection[str]) -> LabelledImage:
    place, folder = str(root / name), dirname(name)
    stated = normpath(join(folder, str(document.get("imagePath") or "").replace("\\", "/")))
    beside = [path for path in images if dirname(path) == folder and stem_of(path) == stem_of(name)]
    path = stated if stated in images else next(iter(beside), "")
    width, height = document.get("imageWidth"), document.get("imageHeight")
    if not path:
        raise DataError(
            f"{place}: its image '{document.get('imagePath')}' is not there; allowed: an image file, also where the "
            "JSON file contains the pixels; complete the download"
        )
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        raise DataError(f"{place}: imageWidth is {width} and imageHeight {height}; allowed: pixels; restore the file")
    shapes = tuple(_shape(shape, (width, height), place) for shape in document["shapes"])
    return LabelledImage(path=path, size=(width, height), shapes=shapes, place=place)


def _shape(shape: object, size: tuple[int, int], place: str) -> Shape:
    try:
        if not isinstance(shape, dict):
            raise TypeError("a shape is no object")
        label, kind = str(shape["label"]).strip(), str(shape.get("shape_type") or "polygon")
        points: list[Point] = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{place}: a shape cannot be read ({reason}); allowed: {FILE}; restore it") from error
    if kind == "polygon":
        return polygon_shape(label, kind, points, size, place)
    if kind == "circle" and len(points) == 2:
        radius = dist(*points)
        return ellipse_shape(label, kind, points[0], (radius, radius), size, place)
    if kind == "rectangle" and points:
        return box_shape(label, kind, points)
    return Shape(label=label, kind=kind)
