"""Contact sheet: example images of a data set with their annotations drawn on top."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.decode import displayed
from datasets.large import by_bands, release
from datasets.resampling import resized
from datasets.source import BACKGROUND, AnnotationKind, Index, Pixels, Source
from datasets.weak.regions import background_region

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SIDE = 360
"""Longest side of a drawn image in pixels."""
MAX_COLUMNS, INCHES, DPI = 6, 2.4, 130
COLOURS = (
    "#42D4F4", "#3CB44B", "#F032E6", "#FFE119", "#4363D8", "#F58231", "#E6194B", "#BFEF45", "#FABED4", "#469990",
    "#DCBEFF", "#9A6324", "#FFFAC8", "#800000", "#AAFFC3", "#808000", "#FFD8B1", "#000075",
)  # fmt: skip
"""Distinct colours, visible on grey and on red backgrounds."""
DRAWN: tuple[AnnotationKind, ...] = ("masks", "scribbles", "boxes", "centres", "points")
MAX_CAPTION = 36
"""Characters that fit below an image."""

# Class names may use any script; glyphs that the font lacks are drawn as boxes.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def chosen_rows(index: Index, images: int) -> list[int]:
    """Return up to `images` usable rows, evenly spaced; annotated images are preferred."""
    usable = [row for row in range(len(index)) if not index.fault(row)]
    columns = [index.annotation_digests[kind] for kind in DRAWN if kind in index.annotation_digests]
    annotated = [row for row in usable if any(column[row] for column in columns)]
    unannotated = [row for row in usable if row not in set(annotated)] if len(annotated) < images else []
    return sorted([*_evenly_spaced(annotated, images), *_evenly_spaced(unannotated, images - len(annotated))])


def draw_contact(source: Source, index: Index, rows: Sequence[int], path: Path) -> list[tuple[int, int]]:
    """Draw rows of a source to an image file: all annotation, of masks the contours, and a caption with id and labels.

    Returns (width, height) of every image drawn. Raises OSError if the file cannot be written.
    """
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False}):  # names are not mathematical text
        return _draw(source, index, rows, path)


def _draw(source: Source, index: Index, rows: Sequence[int], path: Path) -> list[tuple[int, int]]:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys((*index.classes, *index.structures, BACKGROUND)))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    columns = min(MAX_COLUMNS, max(1, len(rows)))
    lines = math.ceil(len(rows) / columns) or 1
    figure = Figure(layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    sizes, drawn_names = list[tuple[int, int]](), set[str]()
    for panel, row in zip(panels, rows, strict=False):
        sizes.append(_draw_image(panel, displayed(source.image(row))))
        panel.set_title(_caption(source, index, row), y=0, va="top", pad=-3, fontsize=5.5)
        drawn_names |= _annotate(panel, source, index, row, colours)
    for panel in panels:
        panel.set_axis_off()
    tallest = np.quantile([height / width for width, height in sizes] or [1.0], 0.75)
    figure.set_size_inches(max(2, columns) * INCHES, lines * (float(np.clip(tallest, 0.4, 1.5)) * INCHES + 0.35) + 0.6)
    _legend(figure, {name: colour for name, colour in colours.items() if name in drawn_names})
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return sizes


def _evenly_spaced(rows: Sequence[int], count: int) -> list[int]:
    if len(rows) <= count:
        return list(rows)
    return [rows[round(position)] for position in np.linspace(0, len(rows) - 1, count)] if count > 0 else []


def _draw_image(panel: "Axes", image: Pixels) -> tuple[int, int]:
    """Show an image with axes in pixels of the original, limited to the image."""
    height, width = image.shape[:2]
    small = _resized(image, min(1.0, MAX_SIDE / max(height, width)))
    panel.imshow(small, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="antialiased")
    panel.autoscale(enable=False)
    return width, height


def _annotate(panel: "Axes", source: Source, index: Index, row: int, colours: Mapping[str, str]) -> set[str]:
    """Draw the annotation of one image and return the names drawn. Classes with a mask get no box."""
    seen = set[str]()
    for name, mask in _masks(source, index, row):
        if mask.any():
            seen.add(name)
            _contours(panel, mask, colours[name])
        release(mask)
    boxes = [box for box in source.boxes(row) if box.name not in seen]
    for box in boxes:
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * (box.width, box.height) + (box.x, box.y)
        panel.plot(*corners.T, color=colours[box.name], linewidth=0.9, linestyle=(0, (4, 1.5)))
    centres = source.centres(row)
    for name, (x, y) in centres.items():
        panel.plot(x, y, marker="o", markersize=7, fillstyle="none", color=colours[name], markeredgewidth=1)
        panel.plot(x, y, marker="+", markersize=11, color=colours[name], markeredgewidth=0.8)
    points = source.points(row)
    for point in points:
        panel.plot(point.x, point.y, marker="x", markersize=4, color=colours[point.name], markeredgewidth=1)
    scribbled = _draw_scribbles(panel, source, index, row, colours)
    return seen | {box.name for box in boxes} | set(centres) | {point.name for point in points} | scribbled


def _draw_scribbles(panel: "Axes", source: Source, index: Index, row: int, colours: Mapping[str, str]) -> set[str]:
    """Draw the scribbles of one image as coloured pixels and return the names drawn."""
    if not index.annotation_digests.get("scribbles", [""] * len(index))[row]:
        return set()
    from matplotlib.colors import to_rgba

    scribbles, names = source.scribbles(row), set[str]()
    planes = [scribbles == number for number in range(1, len(index.classes) + 1)]
    by_name = dict(zip(index.classes, scribbles == 1 if index.overlapping else planes, strict=True))
    by_name[BACKGROUND] = background_region(scribbles)
    height, width = scribbles.shape[-2:]
    for name, pixels in by_name.items():
        if pixels.any():
            names.add(name)
            small = _shrunk(np.asarray(pixels, np.uint8))
            overlay = np.asarray(to_rgba(colours[name])) * np.ones((*small.shape, 1))
            overlay[..., 3] = small > 0
            panel.imshow(overlay, extent=(0, width, height, 0), interpolation="nearest")
    return names


def _shrunk(mask: Pixels) -> NDArray[np.bool_]:
    """Return a mask of at most `MAX_SIDE` pixels a side that keeps all pixels its foreground touches."""
    return np.asarray(_resized(mask * np.uint8(255), min(1.0, MAX_SIDE / max(mask.shape))) > 0)


def _masks(source: Source, index: Index, row: int) -> Iterator[tuple[str, Pixels]]:
    if not index.annotation_digests["masks"][row]:
        return
    masks = source.masks(row)
    if index.overlapping:
        for name, plane in zip(index.classes, masks, strict=True):
            yield name, by_bands(partial(_is_id, 1), plane)
        return
    for number, name in enumerate(index.classes, start=1):
        yield name, by_bands(partial(_is_id, number), masks)


def _is_id(number: int, pixels: Pixels) -> Pixels:
    return np.asarray(pixels == number, np.uint8)


def _resized(pixels: Pixels, scale: float) -> Pixels:
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return resized(pixels, height, width, shrinks=True)


def _contours(panel: "Axes", mask: Pixels, colour: str) -> None:
    """Draw the outlines of a mask. Thin structures that downsampling would remove keep all pixels they touch."""
    import cv2

    scale = min(1.0, MAX_SIDE / max(mask.shape))
    coverage = _resized(by_bands(lambda part: part * np.uint8(255), mask), scale)
    foreground = coverage >= 64 if (coverage >= 64).any() else coverage > 0
    outlines, _ = cv2.findContours(np.pad(foreground.astype(np.uint8), 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        closed = np.concatenate([outline, outline[:1]])[:, 0] - 0.5  # the padding is 1, a pixel's centre 0.5
        panel.plot(*(closed / scale).T, color=colour, linewidth=0.9, solid_joinstyle="round")


def _caption(source: Source, index: Index, row: int) -> str:
    name = index.ids[row]
    name = name if len(name) <= MAX_CAPTION else f"...{name[3 - MAX_CAPTION :]}"
    if not index.annotation_digests["labels"][row]:
        return name
    values = zip(index.labels, source.labels(row), strict=True)
    labels = ", ".join(label for label, value in values if value == 1 and label not in index.classes)
    return f"{name}\n{labels if len(labels) <= MAX_CAPTION else labels[: MAX_CAPTION - 3] + '...'}"


def _legend(figure: "Figure", colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    if colours:
        lines = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours.values()]
        columns = min(len(colours), max(2, int(figure.get_figwidth() / 1.6)))
        figure.legend(lines, list(colours), loc="outside lower center", ncols=columns, fontsize=7, facecolor="#C8C8C8")
