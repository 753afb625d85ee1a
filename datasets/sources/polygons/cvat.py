"""XML files of CVAT ("CVAT for images")."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import numpy as np

from datasets.decoding.text import normal, read_bytes
from datasets.errors import DataError
from datasets.sources.common.runs import counted_runs
from datasets.sources.polygons.shapes import LabelledImage, Point, Shape, box_shape, ellipse_shape, polygon_shape

FILE: Final = "an XML file of CVAT for images"


def read_cvat(path: Path, images: Mapping[str, str]) -> list[LabelledImage]:
    """Return the images of an XML file.

    Args:
        path: The file.
        images: Paths of images by the names that the file may use.

    Raises:
        DataError: The file is damaged, or images are missing.
    """
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: {FILE}; restore it") from error
    elements = root.findall("image")
    if root.tag != "annotations" or not elements:
        raise DataError(f"{path} has no images; allowed: {FILE}; export the task in this format")
    names = [element.get("name", "") for element in elements]
    missing = [name for name in names if normal(name) not in images]
    if missing:
        raise DataError(
            f"{path} names {len(missing)} images that are not there ({missing[0]}); allowed: all of them; complete the "
            "download"
        )
    return [_image(element, images[normal(name)], path) for element, name in zip(elements, names, strict=True)]


def _image(element: ElementTree.Element, file: str, path: Path) -> LabelledImage:
    place = f"{path}: {element.get('name')}"
    try:
        size = int(element.get("width", "")), int(element.get("height", ""))
        shapes = tuple(_shape(shape, size, place) for shape in element if shape.get("label") is not None)
    except (KeyError, ValueError) as error:
        raise DataError(f"{place}: a value cannot be read ({error}); allowed: {FILE}; restore it") from error
    return LabelledImage(path=file, size=size, shapes=shapes, place=place)


def _shape(element: ElementTree.Element, size: tuple[int, int], place: str) -> Shape:
    label, kind, values = element.attrib["label"].strip(), element.tag, element.attrib
    if kind == "polygon":
        return polygon_shape(label, kind, _points(values["points"]), size, place)
    if kind == "ellipse" and not float(values.get("rotation", "0")):
        centre, radii = (float(values["cx"]), float(values["cy"])), (float(values["rx"]), float(values["ry"]))
        return ellipse_shape(label, kind, centre, radii, size, place)
    if kind == "box" and not float(values.get("rotation", "0")):
        return box_shape(label, kind, [(float(values[f"x{end}"]), float(values[f"y{end}"])) for end in ("tl", "br")])
    if kind == "mask":
        return Shape(label=label, kind=kind, runs=_runs(values, size, place))
    return Shape(label=label, kind=kind)


def _points(text: str) -> list[Point]:
    pairs = [pair.split(",") for pair in text.split(";")]
    return [(float(x), float(y)) for x, y in pairs]


def _runs(values: Mapping[str, str], size: tuple[int, int], place: str) -> bytes:
    """Convert alternating lengths of background and foreground in the rows of a part of the image."""
    left, top, width, height = (int(float(values[key])) for key in ("left", "top", "width", "height"))
    counts = [int(number) for number in values["rle"].split(",")]
    if min(left, top) < 0 or left + width > size[0] or top + height > size[1] or sum(counts) != width * height:
        raise DataError(
            f"{place}: a mask of {width} x {height} pixels at ({left}, {top}) with {sum(counts)} in its runs; allowed: "
            f"a part of {size[0]} x {size[1]} pixels with all of its own; restore the file"
        )
    part = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)
    whole = np.zeros((size[1], size[0]), np.int64)
    whole[top : top + height, left : left + width] = part
    flat = whole.T.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    lengths = np.diff(changes, prepend=0, append=len(flat))
    return counted_runs(lengths.tolist(), place, pixels=len(flat))
