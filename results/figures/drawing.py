"""Axes, legends and file formats of all figures."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from results.figures.style import MM_PER_INCH, applied, current

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

FORMATS = (".png", ".svg", ".pdf")
DPI = 150
CHARACTER = 0.6
"""Mean width of a character in font sizes."""

# Class names may be in any script; missing glyphs are drawn as boxes.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure with constrained layout.

    `width` and `height` are in inches at `DESIGN_FONT`; a style with a width sets that instead.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=figure_size(width, height), layout="constrained")


def figure_size(width: float, height: float) -> tuple[float, float]:
    """Return the size in inches of a figure that is `width` x `height` inches at `DESIGN_FONT`."""
    style = current()
    return (width * style.scale if style.width is None else style.width / MM_PER_INCH), height * style.scale


def is_intact_png(path: Path) -> bool:
    """Return whether a file is a complete PNG with valid checksums."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
        return False
    return True


def save(figure: "Figure", path: Path, *, dpi: int = DPI) -> None:
    """Write a figure as png, svg or pdf, by the suffix. Raises ValueError for another one."""
    if path.suffix not in FORMATS:
        raise ValueError(f"path ends in {path.suffix!r}; allowed: {', '.join(FORMATS)}; rename {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    date = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    with applied():
        figure.savefig(path, dpi=dpi, metadata=date)


def svg(figure: "Figure") -> str:
    """Return a figure as svg text; equal figures give equal text."""
    text = io.StringIO()
    with applied():
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def tidy(axes: "Axes", *, grid: str = "y") -> None:
    """Draw a light grid, and remove the upper and right spines."""
    axes.grid(axis="both" if grid == "both" else "x" if grid == "x" else "y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def panels(figure: "Figure", number: int, *, columns: int, share: bool = True) -> "Sequence[Axes]":
    """Return `number` axes in rows of `columns`."""
    rows = -(-number // columns)
    grid = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    for axes in grid[number:]:
        axes.remove()
    for index, axes in enumerate(grid[:number]):
        axes.tick_params(labelbottom=not share or index + columns >= number)
    return grid[:number]


def label_panels(figure: "Figure", x: str, y: str) -> None:
    """Label the axes of a grid of panels at its left and lower edge; long labels are broken into lines of its size."""
    font, panels = current().font * CHARACTER / 72, figure.axes
    for axes in panels:
        place = axes.get_subplotspec()
        if place is None:
            continue
        width, height = figure.get_size_inches() / (place.get_gridspec().ncols, place.get_gridspec().nrows)
        below = place.rowspan.stop == place.get_gridspec().nrows
        if below or not any(_is_below(other, axes) for other in panels):
            axes.set_xlabel("\n".join(wrap(x, max(12, int(0.8 * width / font)))))
        if place.is_first_col():
            axes.set_ylabel("\n".join(wrap(y, max(12, int(0.85 * height / font)))))


def _is_below(other: "Axes", axes: "Axes") -> bool:
    """Return whether one panel is below another."""
    first, second = axes.get_subplotspec(), other.get_subplotspec()
    return (
        first is not None
        and second is not None
        and (second.rowspan.start > first.rowspan.start and second.colspan.start == first.colspan.start)
    )


def legend_below(figure: "Figure", handles: "Sequence[Line2D | Patch]") -> None:
    """Add a legend below the axes, in as many columns as the width of the figure allows.

    A figure has room for one row of a legend; for further rows it becomes higher.
    """
    longest = max(len(str(handle.get_label())) for handle in handles)
    entry = (longest * CHARACTER + 4.5) * current().font / 72
    columns = max(1, min(len(handles), int(figure.get_figwidth() / entry)))
    rows = -(-len(handles) // columns)
    columns = -(-len(handles) // rows)  # rows of about equal length
    figure.set_figheight(figure.get_figheight() + 1.4 * (rows - 1) * current().font / 72)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
