"""A contact sheet: some images of a data set with everything drawn over them that a source says of them."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.source import Index, Pixels, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 360
"""Longest side of a drawn image in pixels."""
ACROSS, INCHES, DPI = 6, 2.4, 130
COLOURS = (
    "#42D4F4", "#3CB44B", "#F032E6", "#FFE119", "#4363D8", "#F58231", "#E6194B", "#BFEF45", "#FABED4", "#469990",
    "#DCBEFF", "#9A6324", "#FFFAC8", "#800000", "#AAFFC3", "#808000", "#FFD8B1", "#000075",
)  # fmt: skip
"""As far apart as so many can be, on grey as on red."""
TEXT = 36
"""Characters that fit under an image."""

# A class may be named in any script; what the font lacks is drawn as a box.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def chosen_rows(index: Index, images: int) -> list[int]:
    """Return up to `images` usable rows, evenly spread; those with something to draw before those without."""
    usable = [row for row in range(len(index)) if not index.fault(row)]
    drawn = [row for row in usable if any(index.offers[kind][row] for kind in ("masks", "boxes", "centres"))]
    bare = [row for row in usable if row not in set(drawn)] if len(drawn) < images else []
    return sorted([*_spread(drawn, images), *_spread(bare, images - len(drawn))])


def draw_contact(source: Source, index: Index, rows: Sequence[int], path: Path) -> list[tuple[int, int]]:
    """Draw rows of a source to a picture file: contours of masks, boxes, centres, and under each its id and labels.

    Returns (width, height) of every image drawn. Raises OSError where the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["text.parse_math"] = False  # names are drawn as they are
    names = list(dict.fromkeys((*index.classes, *index.structures)))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    across = min(ACROSS, max(1, len(rows)))
    down = math.ceil(len(rows) / across) or 1
    figure = Figure(layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    sizes, shown = list[tuple[int, int]](), set[str]()
    for panel, row in zip(panels, rows, strict=False):
        sizes.append(_show(panel, source.image(row)))
        panel.set_title(_caption(source, index, row), y=0, va="top", pad=-3, fontsize=5.5)
        shown |= _annotate(panel, source, index, row, colours)
    for panel in panels:
        panel.set_axis_off()
    tallest = np.quantile([height / width for width, height in sizes] or [1.0], 0.75)
    figure.set_size_inches(max(2, across) * INCHES, down * (float(np.clip(tallest, 0.4, 1.5)) * INCHES + 0.35) + 0.6)
    _legend(figure, {name: colour for name, colour in colours.items() if name in shown})
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return sizes


def _spread(rows: Sequence[int], wanted: int) -> list[int]:
    if len(rows) <= wanted:
        return list(rows)
    return [rows[round(place)] for place in np.linspace(0, len(rows) - 1, wanted)] if wanted > 0 else []


def _show(panel: "Axes", image: Pixels) -> tuple[int, int]:
    """Show an image; coordinates are its own pixels, and the panel ends where it ends."""
    height, width = image.shape[:2]
    small = _shrunk(image, min(1.0, SIDE / max(height, width)))
    panel.imshow(small, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="antialiased")
    panel.autoscale(enable=False)
    return width, height


def _annotate(panel: "Axes", source: Source, index: Index, row: int, colours: Mapping[str, str]) -> set[str]:
    """Draw what is known of one image; return the names that can be seen. A mask's box is not drawn around it."""
    seen = set[str]()
    for name, mask in _masks(source, index, row):
        if mask.any():
            seen.add(name)
            _contours(panel, mask, colours[name])
    boxes = [box for box in source.boxes(row) if box.name not in seen]
    for box in boxes:
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * (box.width, box.height) + (box.x, box.y)
        panel.plot(*corners.T, color=colours[box.name], linewidth=0.9, linestyle=(0, (4, 1.5)))
    centres = source.centres(row)
    for name, (x, y) in centres.items():
        panel.plot(x, y, marker="o", markersize=7, fillstyle="none", color=colours[name], markeredgewidth=1)
        panel.plot(x, y, marker="+", markersize=11, color=colours[name], markeredgewidth=0.8)
    return seen | {box.name for box in boxes} | set(centres)


def _masks(source: Source, index: Index, row: int) -> list[tuple[str, Pixels]]:
    if not index.offers["masks"][row]:
        return []
    masks = source.masks(row)
    if index.overlapping:
        return list(zip(index.classes, masks, strict=True))
    return [(name, np.asarray(masks == number, np.uint8)) for number, name in enumerate(index.classes, start=1)]


def _shrunk(pixels: Pixels, scale: float) -> Pixels:
    import cv2

    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _contours(panel: "Axes", mask: Pixels, colour: str) -> None:
    """Draw outlines. What shrinking would blot out, such as a thin tube, keeps every pixel it touches."""
    import cv2

    scale = min(1.0, SIDE / max(mask.shape))
    share = _shrunk(mask * np.uint8(255), scale)
    kept = share >= 64 if (share >= 64).any() else share > 0
    outlines, _ = cv2.findContours(np.pad(kept.astype(np.uint8), 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        closed = np.concatenate([outline, outline[:1]])[:, 0] - 0.5  # the pad is one pixel, a pixel's centre half
        panel.plot(*(closed / scale).T, color=colour, linewidth=0.9, solid_joinstyle="round")


def _caption(source: Source, index: Index, row: int) -> str:
    name = index.ids[row]
    name = name if len(name) <= TEXT else f"...{name[3 - TEXT :]}"
    if not index.offers["labels"][row]:
        return name
    values = zip(index.labels, source.labels(row), strict=True)
    told = ", ".join(label for label, value in values if value == 1 and label not in index.classes)
    return f"{name}\n{told if len(told) <= TEXT else told[: TEXT - 3] + '...'}"


def _legend(figure: "Figure", colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    if colours:
        lines = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours.values()]
        columns = min(len(colours), max(2, int(figure.get_figwidth() / 1.6)))
        figure.legend(lines, list(colours), loc="outside lower center", ncols=columns, fontsize=7, facecolor="#C8C8C8")
