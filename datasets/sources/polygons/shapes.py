"""Shapes of labelled images, as all labelling tools have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi, sin
from typing import Final

from datasets.errors import DataError

CORNERS: Final = 64
"""Number of corners of the polygon for a circle or an ellipse."""
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape of a class: a polygon, the runs of a mask, a box, or a kind that is not read.

    Attributes:
        label: The class.
        kind: The tool's name of the kind, for messages.
        polygon: Corners (x, y) in pixels, at least three; empty for other shapes.
        runs: A mask in the format of `datasets.sources.common.runs`, None for other shapes.
        box: x, y, width and height, None for shapes without a box.
    """

    label: str
    kind: str
    polygon: tuple[Point, ...] = ()
    runs: bytes | None = None
    box: tuple[float, float, float, float] | None = None

    @property
    def has_mask(self) -> bool:
        """Whether the shape is an area."""
        return bool(self.polygon) or self.runs is not None


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image with its shapes; `path` is below the root, `place` its place in the export for messages."""

    path: str
    size: tuple[int, int]
    shapes: tuple[Shape, ...]
    place: str


def polygon_shape(label: str, kind: str, points: Sequence[Point], size: tuple[int, int], place: str) -> Shape:
    """Return a polygon, whose corners outside of the image are moved to its edge. Raises `DataError`."""
    if len(points) < 3 or not all(isfinite(number) for point in points for number in point):
        raise DataError(
            f"{place}: the {kind} of '{label}' has {len(points)} corners; allowed: three or more numbers x and y; "
            "correct or remove it"
        )
    inside = tuple((min(max(x, 0.0), float(size[0])), min(max(y, 0.0), float(size[1]))) for x, y in points)
    return Shape(label=label, kind=kind, polygon=inside, box=_extent(inside))


def ellipse_shape(
    label: str, kind: str, centre: Point, radii: tuple[float, float], size: tuple[int, int], place: str
) -> Shape:
    """Return a circle or an ellipse with upright axes as a polygon."""
    angles = [2 * pi * number / CORNERS for number in range(CORNERS)]
    points = [(centre[0] + radii[0] * cos(angle), centre[1] + radii[1] * sin(angle)) for angle in angles]
    return polygon_shape(label, kind, points, size, place)


def box_shape(label: str, kind: str, corners: Sequence[Point]) -> Shape:
    """Return a box, which is no mask."""
    return Shape(label=label, kind=kind, box=_extent(corners))


def _extent(points: Sequence[Point]) -> tuple[float, float, float, float]:
    left, top = min(x for x, _ in points), min(y for _, y in points)
    return left, top, max(x for x, _ in points) - left, max(y for _, y in points) - top
